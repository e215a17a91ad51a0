"""What would have happened otherwise: the recorded run under other settings, played by the same scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_executing_again import BEGIN_US, played, random_plan

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.forecast import makespan_s
from parallel_agents.otherwise.counterfactual import otherwise
from parallel_agents.otherwise.virtual_run import VirtualRun, runners_of
from parallel_agents.scheduler.decide import (
    decide_cancel,
    decide_cancel_task,
    decide_pause,
    decide_resume,
    decide_retry,
)
from parallel_agents.scheduler.decide_settling import decide_approve_start
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch
from parallel_agents.scheduler.runners.recorded import Part

RUN = "made-up"
Ends = Mapping[str, list[tuple[float, str | None]]]
"""By task, what each of its attempts takes in seconds, and its error."""


def task(name: str, *needed: str, **more: Any) -> Task:
    """A command's."""
    return Task(task_id=name, dependencies=needed, command=("true",), **more)


def plan_of(
    *tasks: Task, slots: int = 2, stages: tuple[Stage, ...] = (Stage(name="all"),), delay_s: float = 2.0
) -> Plan:
    """A plan that waits for two seconds before it tries anything again."""
    settings = RunSettings(max_parallel_agents=slots, store_limit=slots, retry=RetryPolicy(delay_s=delay_s))
    return Plan(name="plan", tasks=tasks, stages=stages, settings=settings)


def recorded(
    plan: Plan,
    ends: Ends,
    *,
    cost: int = 0,
    evenly: bool = False,
    steer: Callable[[VirtualRun], None] = lambda world: None,
) -> VirtualRun:
    """A run whose attempts did just that, without a jitter, at so many micro-dollars a second."""
    left = {name: list(attempts) for name, attempts in ends.items()}

    def part_of(launch: Launch) -> Part:
        takes_s, error = left[launch.task_id].pop(0)
        charges = (Charge("m", round(cost * takes_s), "agent"),) if cost else ()
        return Part(round(takes_s * 1e6), Ended("", "exited", exit_code=int(bool(error)), error=error, charges=charges))

    world = VirtualRun(RUN, part_of, BEGIN_US, runners_of(plan))
    world.draw_of = lambda attempt_id: 0.0
    world.evenly = evenly
    submit(world, plan)
    steer(world)
    world.go_on()
    return world


def submit(world: VirtualRun, plan: Plan) -> None:
    """Append the run, and let it begin."""
    submitted = ev.RunSubmitted(
        name=plan.name, plan_digest="", task_count=0, strategy="concurrent", workspace="none", workdir="/nowhere",
        budget_usd_micros=plan.budget_usd_micros,
    )  # fmt: skip
    world.submit(plan, submitted)
    world.look()


def at(seconds: float, what: Callable[[Any], list[ev.Event]]) -> Callable[[VirtualRun], None]:
    """Somebody does something so long after the beginning."""

    def steer(world: VirtualRun) -> None:
        world.go_on(BEGIN_US + round(seconds * 1e6))
        world.append([(RUN, event) for event in what(world.state)])
        world.look()

    return steer


def asked(log: Log, **settings: Any) -> dict[str, Any]:
    """What would have happened; two underscores stand for a dot."""
    return otherwise(
        log,
        RUN,
        {
            name.replace("__", "."): value if isinstance(value, str) else json.dumps(value)
            for name, value in settings.items()
        },
    )


@given(st.integers(0, 10**6), st.booleans())
def test_under_the_settings_that_it_had_everything_is_as_it_was(seed: int, steered: bool) -> None:
    """Whatever its attempts did, and whoever steered it."""
    random = Random(seed)
    plan = random_plan(random)
    world = played(plan, random, steered=steered)
    found = asked(
        world.log, max_parallel_agents=plan.settings.max_parallel_agents, max_queue_size=plan.settings.max_queue_size
    )
    assert (found["differs_from"], found["moved"], found["assumed"], found["dropped"]) == (None, [], [], [])
    assert found["otherwise"] == found["recorded"]


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_on_other_slots_it_takes_what_list_scheduling_takes_with_its_durations(seed: int, slots: int) -> None:
    """The player that forecasts are made with is written anew; it says the same of runs in which nothing fails."""
    random = Random(seed)
    plan = random_plan(random)
    plan = plan.model_copy(update={"settings": plan.settings.model_copy(update={"max_queue_size": 100})})
    takes = {one.task_id: random.randrange(1, 40) / 10 for one in plan.tasks}
    world = recorded(plan, {name: [(takes_s, None)] for name, takes_s in takes.items()})
    found = asked(world.log, max_parallel_agents=slots)
    limits = plan.settings.model_copy(
        update={"max_parallel_agents": slots, "store_limit": max(slots, plan.settings.store_limit)}
    )
    expected = makespan_s(plan.model_copy(update={"settings": limits}), list(takes.values()))
    assert found["otherwise"]["makespan_s"] == pytest.approx(expected, abs=1e-5)
    assert found["otherwise"]["tasks"] == {"completed": len(plan.tasks)}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 4))
def test_more_slots_never_make_independent_tasks_take_longer(takes: list[int], slots: int) -> None:
    """With dependencies they may (Graham 1966), so this is said of no others."""
    plan = plan_of(*(task(f"t{number}") for number in range(len(takes))), slots=slots)
    world = recorded(plan, {f"t{number}": [(one / 10, None)] for number, one in enumerate(takes)})
    spans = [asked(world.log, max_parallel_agents=slots + more)["otherwise"]["makespan_s"] for more in range(4)]
    assert spans == sorted(spans, reverse=True)


def test_the_order_changes_with_a_priority() -> None:
    """And is told by place."""
    world = recorded(plan_of(task("a"), task("b"), task("c"), slots=1), {name: [(1, None)] for name in "abc"})
    found = asked(world.log, c__priority="critical")
    assert found["otherwise"]["order"] == ["c", "a", "b"]
    assert found["moved"] == [
        {"task_id": "c", "recorded": 3, "otherwise": 1},
        {"task_id": "a", "recorded": 1, "otherwise": 2},
        {"task_id": "b", "recorded": 2, "otherwise": 3},
    ]


def test_a_shorter_rest_brings_the_second_attempt_sooner() -> None:
    """Which does what the second one did."""
    world = recorded(plan_of(task("a")), {"a": [(1, "no luck"), (3, None)]})
    found = asked(world.log, retry__delay_s=0.5)
    assert (found["recorded"]["makespan_s"], found["otherwise"]["makespan_s"]) == (6.0, 4.5)
    assert found["assumed"] == []


def test_an_attempt_that_was_not_to_be_made_is_not_made() -> None:
    """And what needs its task is skipped."""
    world = recorded(plan_of(task("a"), task("b", "a")), {"a": [(1, "no luck"), (3, None)], "b": [(1, None)]})
    found = asked(world.log, task__max_retries=0)
    assert found["otherwise"]["tasks"] == {"failed": 1, "skipped": 1}
    assert found["otherwise"]["status"] == "failed"


def test_an_attempt_that_was_never_made_is_assumed_and_told_with_a_range() -> None:
    """In the middle it succeeds; at the upper end it fails as the one before it, until no retry is left."""
    world = recorded(plan_of(task("a", max_retries=0)), {"a": [(2, "no luck")]})
    found = asked(world.log, a__max_retries=2)
    assert found["otherwise"]["status"] == "completed"
    assert [(one["task_id"], one["attempt"]) for one in found["assumed"]] == [("a", 2)]
    low, high = found["range"]["makespan_s"]
    assert low < found["otherwise"]["makespan_s"] < high


def test_a_task_that_never_started_is_assumed_to_take_what_nobody_knows() -> None:
    """Said as such."""
    world = recorded(plan_of(task("a"), task("b", "a")), {"a": [(1, "no luck")] * 4})
    found = asked(world.log, a__allow_failure=True)
    assert found["otherwise"]["order"] == ["a", "b"]
    assert "nobody knows how long it takes" in found["assumed"][0]["what"]


def test_a_longer_time_lets_an_attempt_go_on_and_a_shorter_one_ends_it() -> None:
    """What it would have come to is assumed in the one case and known in the other."""
    plan = plan_of(task("a", timeout_s=10.0, max_retries=0))
    world = recorded(plan, {"a": [(4, None)]})
    assert asked(world.log, a__timeout_s=3)["otherwise"]["tasks"] == {"failed": 1}
    assert asked(world.log, a__timeout_s=3)["otherwise"]["makespan_s"] == 3.0
    assert asked(world.log, a__timeout_s=4)["differs_from"] is None


def test_a_stage_for_each_level_holds_the_quick_ones_back() -> None:
    """As a pipeline does."""
    plan = plan_of(task("a"), task("b"), task("c", "a"), slots=4)
    world = recorded(plan, {"a": [(1, None)], "b": [(5, None)], "c": [(1, None)]})
    found = asked(world.log, strategy="pipeline")
    assert (found["recorded"]["makespan_s"], found["otherwise"]["makespan_s"]) == (5.0, 6.0)


def test_an_approval_comes_as_long_after_its_task_waits_as_it_did() -> None:
    """At another time, where the task waits at another."""
    plan = plan_of(task("a"), task("b", "a", approval="required"), task("c"), slots=1)
    approve = at(9, lambda state: decide_approve_start(state, "b"))
    world = recorded(plan, {"a": [(5, None)], "b": [(1, None)], "c": [(1, None)]}, steer=approve)
    assert world.state is not None
    found = asked(world.log, c__priority="critical")
    assert found["recorded"]["order"] == ["a", "c", "b"]
    assert found["otherwise"]["order"] == ["c", "a", "b"]
    assert found["otherwise"]["makespan_s"] == pytest.approx(6 + 4 + 1)


def test_a_pause_comes_again_and_what_cannot_be_done_any_more_is_told() -> None:
    """Somebody cancels a task that has ended by then."""

    def steer(world: VirtualRun) -> None:
        at(1, decide_pause)(world)
        at(8, decide_resume)(world)
        at(9, lambda state: decide_cancel_task(state, "b"))(world)

    plan = plan_of(task("a"), task("b", "a"), task("c"), slots=1)
    world = recorded(plan, {"a": [(2, None)], "b": [(5, None)], "c": [(4, None)]}, steer=steer)
    found = asked(world.log, max_parallel_agents=2)
    assert found["otherwise"]["tasks"] == {"completed": 2, "cancelled": 1}
    assert found["otherwise"]["makespan_s"] == 9.0
    early = asked(world.log, b__priority="low", max_parallel_agents=3, c__priority="critical")
    assert early["otherwise"]["tasks"]["cancelled"] == 1


def test_a_run_that_was_cancelled_may_be_over_before_that() -> None:
    """Then nothing is left to cancel, which is told."""
    plan = plan_of(task("a"), task("b"), slots=1)
    world = recorded(plan, {"a": [(3, None)], "b": [(3, None)]}, steer=at(4, decide_cancel))
    found = asked(world.log, max_parallel_agents=2)
    assert [one["task_id"] for one in found["assumed"]] == ["b"], (
        "it was stopped: nobody knows what it would have taken"
    )


def test_a_retry_comes_as_long_after_the_end_as_it_did() -> None:
    """Or not at all, where nothing has failed."""
    plan = plan_of(task("a", max_retries=0), task("b", "a"), slots=1)

    def steer(world: VirtualRun) -> None:
        at(20, lambda state: decide_retry(state, ["a"]))(world)

    world = recorded(plan, {"a": [(2, "no luck"), (2, None)], "b": [(1, None)]}, steer=steer)
    assert world.state is not None
    assert world.state.status == "completed"
    found = asked(world.log, a__max_retries=1)
    assert found["otherwise"]["status"] == "completed"
    assert found["otherwise"]["makespan_s"] == pytest.approx(2 + 2.1 + 2 + 1, abs=0.2)
    assert [one["what"] for one in found["dropped"]] == ["retry"]


def test_another_model_takes_what_it_took_before() -> None:
    """By the recorded ratio of the two, of the same kind of work, with its uncertainty."""
    tasks = [
        Task(task_id=f"{model}{number}", agent_type="qa-engineer", runner="claude", model=model)
        for model in ("opus", "haiku")
        for number in range(4)
    ]
    plan = plan_of(*tasks, slots=1)
    takes = {one.task_id: [(10.0 if one.model == "opus" else 2.0, None)] for one in tasks}
    log = recorded(plan, takes, cost=100_000).log
    found = asked(log, opus0__model="haiku")
    assert found["recorded"]["makespan_s"] == 48.0
    assert found["otherwise"]["makespan_s"] == pytest.approx(40.0)
    assert found["otherwise"]["cost_usd"] == pytest.approx(4.0, abs=0.01)
    low, high = found["range"]["makespan_s"]
    assert low < 40.0 < high
    assert "by 4 and 4 attempts" in found["assumed"][0]["what"]
    with pytest.raises(InvalidUsage, match="nothing in this store was done by the model 'sonnet'"):
        asked(log, model="sonnet")


def test_a_smaller_budget_pauses_the_run() -> None:
    """As it would have."""
    tasks = [Task(task_id=f"t{number}", agent_type="qa-engineer", runner="claude") for number in range(3)]
    world = recorded(plan_of(*tasks, slots=1), {one.task_id: [(1, None)] for one in tasks}, cost=1_000_000)
    found = asked(world.log, budget_usd=1.5)
    assert found["recorded"]["tasks"] == {"completed": 3}
    assert found["otherwise"]["status"] == "paused"
    assert found["otherwise"]["tasks"]["completed"] == 2


def test_a_budget_that_is_spent_stops_who_runs_when_it_is() -> None:
    """Within a second, as a dispatcher sees it; what it has cost by then is what it spends evenly."""
    tasks = [Task(task_id=f"t{number}", agent_type="qa-engineer", runner="claude") for number in range(3)]
    world = recorded(plan_of(*tasks, slots=1), {one.task_id: [(100, None)] for one in tasks}, cost=10_000)
    found = asked(world.log, budget_usd=1.5)["otherwise"]
    assert (found["status"], found["tasks"]["completed"]) == ("paused", 1)
    assert found["makespan_s"] == pytest.approx(150, abs=1.01)
    assert found["cost_usd"] == pytest.approx(1.5, abs=0.011)


def test_who_was_stopped_because_money_was_spent_goes_on_where_there_is_more() -> None:
    """What it would have taken is assumed, and told."""
    tasks = [Task(task_id=f"t{number}", agent_type="qa-engineer", runner="claude") for number in range(2)]
    plan = plan_of(*tasks, slots=1).model_copy(update={"budget_usd_micros": 1_500_000})
    world = recorded(plan, {one.task_id: [(100, None)] for one in tasks}, cost=10_000, evenly=True)
    found = asked(world.log, budget_usd=20)
    assert (found["recorded"]["status"], found["recorded"]["tasks"]["completed"]) == ("paused", 1)
    assert found["otherwise"]["tasks"] == {"completed": 2}
    assert [one["task_id"] for one in found["assumed"] if "then its money was spent" in one["what"]] == ["t1"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_paralel_agents": 3}, "did you mean 'max_parallel_agents'"),
        ({"max_parallel_agents": 0}, "max_parallel_agents is 0"),
        ({"a__command": "x"}, "as they were recorded"),
        ({"b__priority": "low"}, "nothing of that name"),
        ({"a__priority": "urgent"}, "a.priority"),
        ({"strategy": "random"}, "strategy is 'random'"),
        ({"budget_usd": "much"}, "budget_usd"),
        ({"model": "opus"}, "no task of the run is an agent's"),
        ({"max_cpu_percent": 3}, "nothing of that name"),
    ],
)
def test_what_cannot_be_otherwise_is_refused_by_name(settings: dict[str, Any], says: str) -> None:
    """With what there is instead."""
    world = recorded(plan_of(task("a")), {"a": [(1, None)]})
    with pytest.raises(InvalidUsage) as refused:
        asked(world.log, **settings)
    assert says in f"{refused.value.message} {refused.value.hint}"
