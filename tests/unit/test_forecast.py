"""How long a plan will take: as the scheduler would do it, within what no order can beat, and honest about its spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from paper import PaperRun, plan_of

from parallel_agents import forecast as forecast_module
from parallel_agents.eventstore.submission import Plan, Stage, Task
from parallel_agents.expectations import SECONDS, USD, Expected, TaskExpectation, expect_plan
from parallel_agents.forecast import DRAWN_TASKS, forecast, makespan_s
from parallel_agents.scheduler.graph import critical_path


@some.composite
def plans(draw: some.DrawFn, stages: int = 1) -> tuple[Plan, list[int]]:
    """A small plan and what its tasks take."""
    tasks = []
    for index in range(draw(some.integers(1, 9))):
        stage = draw(some.integers(0, stages - 1))
        earlier = [task.task_id for task in tasks if task.stage <= stage]
        needs = draw(some.lists(some.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        tasks.append(
            Task(
                task_id=f"t{index}", command=("true",), dependencies=tuple(needs), stage=stage,
                priority=draw(some.sampled_from(["critical", "high", "medium", "low"])),
                expected_s=draw(some.none() | some.integers(1, 50).map(float)),
                files=tuple(draw(some.lists(some.sampled_from(["a/**", "b/**", "a/b/*"]), max_size=1))),
            )
        )  # fmt: skip
    named = [
        Stage(name=str(number), parallel=draw(some.booleans()), limit=draw(some.none() | some.integers(1, 3)))
        for number in range(stages)
    ]
    plan = plan_of(*tasks, stages=named, max_parallel_agents=draw(some.integers(1, 4)))
    return plan, [draw(some.integers(1, 20)) for _ in tasks]


def played(plan: Plan, durations: list[int]) -> float:
    """What the scheduler itself takes, on paper."""
    run = PaperRun(plan)
    takes = dict(zip((task.task_id for task in plan.tasks), durations, strict=True))
    at, running = 0, {name: takes[name] for name in run.tick()}
    while running:
        name = min(running, key=lambda one: (running[one], list(takes).index(one)))
        at = running.pop(name)
        run.end(name)
        running.update({name: at + takes[name] for name in run.tick()})
    assert set(run.statuses().values()) == {"completed"}
    return at


@given(plans(stages=2))
def test_a_plan_takes_what_the_scheduler_would_take(drawn: tuple[Plan, list[int]]) -> None:
    """With its ranks, its stages, its limits and its declared files."""
    plan, durations = drawn
    assert makespan_s(plan, durations) == played(plan, durations)


@given(plans())
def test_no_order_beats_the_longest_path_or_the_slots(drawn: tuple[Plan, list[int]]) -> None:
    """And list scheduling is within Graham's bound of both, where nothing but slots and dependencies hold it up."""
    plan, durations = drawn
    tasks = tuple(task.model_copy(update={"files": ()}) for task in plan.tasks)
    plan = plan.model_copy(update={"tasks": tasks, "stages": (Stage(name="all"),)})
    takes = {task.task_id: float(durations[index]) for index, task in enumerate(tasks)}
    path_s, _ = critical_path({task.task_id: task.dependencies for task in tasks}, takes)
    slots = plan.settings.max_parallel_agents
    found = makespan_s(plan, durations)
    assert max(path_s, sum(durations) / slots) <= found + 1e-9
    assert found <= sum(durations) / slots + path_s * (1 - 1 / slots) + 1e-9


def expected(seconds: Expected, usd: Expected | None = None) -> TaskExpectation:
    return TaskExpectation("claude", None, seconds, usd)


def same_for_all(count: int, seconds: Expected, usd: Expected | None = None, **limits: Any) -> Any:
    """The forecast of so many tasks that need nothing of each other."""
    plan = plan_of(*(Task(task_id=f"t{number}", runner="claude") for number in range(count)), **limits)
    return forecast(plan, {task.task_id: expected(seconds, usd) for task in plan.tasks})


def test_what_is_certain_has_no_spread() -> None:
    """And a plan without agents costs nothing, which is not the same as $0."""
    found = same_for_all(4, Expected(10.0), max_parallel_agents=2)
    assert (found.makespan_s.low, found.makespan_s.value, found.makespan_s.high) == (20.0, 20.0, 20.0)
    assert found.usd is None


@pytest.mark.parametrize("count", [100, DRAWN_TASKS + 1])
def test_errors_of_their_own_even_out_and_shared_ones_do_not(count: int) -> None:
    """Many tasks that rest on one prior are together as uncertain as it is, however many they are."""
    alone = same_for_all(count, Expected(1.0), Expected(1.0, own_sd=0.6, group="x"))
    shared = same_for_all(count, Expected(1.0), Expected(1.0, level_sd=0.6, group="x"))
    assert alone.usd.high / alone.usd.low < 1.4
    assert shared.usd.high / shared.usd.low == pytest.approx(4.65, rel=0.35)  # exp(2 * 1.28 * 0.6)
    mean = count * math.exp(0.6**2 / 2)
    assert alone.usd.low * 0.999 < mean < alone.usd.high * 1.001


def test_what_nobody_knows_is_counted() -> None:
    """It is in the total as next to nothing, so the total says how many such tasks there are."""
    found = same_for_all(3, Expected(None), Expected(None))
    assert (found.makespan_s.unknown, found.usd.unknown, found.usd.value) == (3, 3, 0.0)


def test_the_same_plan_has_the_same_forecast() -> None:
    """Chance is drawn from fixed seeds; the median of one task is about the one that was put in."""
    plan = plan_of(Task(task_id="a", agent_type="backend-engineer", runner="claude"))
    one, two = (forecast(plan, expect_plan(plan)) for _ in range(2))
    assert one == two
    assert one.makespan_s.value == pytest.approx(SECONDS.median, rel=0.3)
    assert one.usd is not None
    assert one.usd.value == pytest.approx(USD.median, rel=0.4)
    assert one.usd.low < USD.median / 4 < USD.median * 4 < one.usd.high


def test_a_large_plan_is_forecast_from_three_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks: a hundred draws of it would take a minute."""
    plan = plan_of(*(Task(task_id=f"t{number}", runner="claude") for number in range(5000)), max_parallel_agents=8)
    expectations = {task.task_id: expected(Expected(1.0)) for task in plan.tasks}
    plays: list[int] = []
    make = forecast_module._player

    def counted(plan: Plan) -> Callable[[Sequence[float]], float]:
        play = make(plan)

        def one_more(durations_s: Sequence[float]) -> float:
            plays.append(len(durations_s))
            return play(durations_s)

        return one_more

    monkeypatch.setattr(forecast_module, "_player", counted)
    assert forecast(plan, expectations).makespan_s.value == pytest.approx(625.0)
    assert plays == [5000] * 3
