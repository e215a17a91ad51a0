"""A plan that never ran, played many times by the scheduler that would run it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_counterfactual import plan_of, recorded, task
from test_executing_again import random_plan

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.forecast import makespan_s
from parallel_agents.otherwise.simulating import at_middle_s, chain, draws_of, simulate, simulate_differently
from parallel_agents.past_attempts import Past, Sample, read_past


def past_of(**samples: list[tuple[float, bool]]) -> Past:
    """Attempts by task, with what each took and whether it failed."""
    past = Past()
    for name, attempts in samples.items():
        past.by_task[name] = [
            Sample(name, seconds=seconds, failed=failed, around_s=0.0) for seconds, failed in attempts
        ]
    return past


def played(plan: Plan, past: Past) -> dict[str, Any]:
    """In this process alone."""
    return simulate(plan, past, processes=1, draws=40)


def test_it_is_the_same_for_the_same_plan() -> None:
    """Whoever asks twice, and by however many processes."""
    plan = plan_of(task("a", expected_s=3.0), task("b", expected_s=4.0), task("c", "a", expected_s=1.0))
    assert played(plan, Past()) == simulate(plan, Past(), processes=2, draws=40)


@given(st.integers(0, 10**6))
def test_with_every_figure_at_its_middle_it_is_what_list_scheduling_takes(seed: int) -> None:
    """The player that forecasts are made with is written anew; it says the same."""
    random = Random(seed)
    plan = random_plan(random)
    limits = plan.settings.model_copy(update={"max_queue_size": 100})
    tasks = tuple(one.model_copy(update={"expected_s": random.randrange(1, 40) / 10}) for one in plan.tasks)
    plan = plan.model_copy(update={"settings": limits, "tasks": tasks})
    expected = makespan_s(plan, [one.expected_s or 0.0 for one in tasks])
    assert at_middle_s(plan, Past()) == pytest.approx(expected, abs=1e-5)


def test_the_end_waits_for_the_longest_chain() -> None:
    """In every play, where it is much the longest."""
    plan = plan_of(task("a", expected_s=50.0), task("b", "a", expected_s=50.0), task("c", expected_s=1.0))
    found = played(plan, Past())
    assert {one["task_id"]: one["share"] for one in found["critical"]} == {"a": 1.0, "b": 1.0}
    assert found["makespan_s"]["low"] < found["at_middle_s"] < found["makespan_s"]["high"]
    assert found["utilisation"]["value"] == pytest.approx(0.5, abs=0.05)


def test_what_has_failed_before_fails_as_often_and_is_tried_again() -> None:
    """By the retries that the plan allows."""
    plan = plan_of(task("a", max_retries=1))
    found = played(plan, past_of(a=[(1.0, True), (1.0, False)]))
    assert found["failing"] == {"a": 0.5}
    assert found["completes"] == pytest.approx(0.75, abs=0.2)
    assert found["retries"] == pytest.approx(0.5, abs=0.2)
    assert played(plan, past_of(a=[(1.0, False)]))["completes"] == 1.0


def test_an_attempt_that_would_take_too_long_is_stopped_when_its_time_is_up() -> None:
    """As its supervisor would."""
    plan = plan_of(task("a", timeout_s=1.0, max_retries=0, expected_s=500.0))
    found = played(plan, Past())
    assert (found["completes"], found["makespan_s"]["value"]) == (0.0, 1.0)


def test_what_is_done_around_attempts_is_learned() -> None:
    """From how long their slots were held beside what they took."""
    plan = plan_of(task("a"), task("b", "a"))
    past = past_of(a=[(1.0, False)], b=[(1.0, False)])
    for samples in past.by_task.values():
        samples[0].around_s = 0.5
    found = played(plan, past)
    assert (found["around_s"], found["at_middle_s"]) == (0.5, 3.0)


def test_what_a_run_of_it_has_taken_is_what_it_is_expected_to_take() -> None:
    """Learned from the store that it was run in."""
    plan = plan_of(task("a"), task("b"), task("c", "a"), slots=2)
    world = recorded(plan, {"a": [(2, None)], "b": [(3, None)], "c": [(2, None)]})
    found = played(plan, read_past(world.log, "plan"))
    assert found["basis"] == {"task": 3}
    assert found["at_middle_s"] == pytest.approx(4.0, abs=1e-3)


def test_a_budget_that_does_not_last_keeps_the_run_from_its_end() -> None:
    """In as many plays as it is spent in."""
    tasks = [
        Task(task_id=f"t{number}", agent_type="qa-engineer", runner="claude", model="opus", expected_s=9.0)
        for number in range(6)
    ]
    plan = plan_of(*tasks, slots=1).model_copy(update={"budget_usd_micros": 10_000})
    assert played(plan, Past())["completes"] == 0.0
    assert played(plan.model_copy(update={"budget_usd_micros": None}), Past())["completes"] == 1.0


def test_nobody_is_waited_for() -> None:
    """How long people take is not known."""
    found = played(plan_of(task("a", approval="required", expected_s=1.0)), Past())
    assert found["completes"] == 1.0


def test_other_settings_are_other_plans() -> None:
    """And those that there are not are refused by name."""
    plan = plan_of(task("a", expected_s=2.0), task("b", expected_s=2.0), slots=1)
    changed, understood = simulate_differently(plan, {"max_parallel_agents": "2"})
    assert understood == {"max_parallel_agents": 2}
    assert (played(plan, Past())["at_middle_s"], played(changed, Past())["at_middle_s"]) == (4.0, 2.0)
    with pytest.raises(InvalidUsage, match="nothing of that name"):
        simulate_differently(plan, {"slots": "2"})


def test_large_plans_are_played_less_often() -> None:
    """Down to three times, at three levels."""
    assert [draws_of(tasks) for tasks in (1, 100, 500, 501)] == [200, 40, 20, 3]
    large = plan_of(*(task(f"t{number}", expected_s=1.0) for number in range(501)), slots=50)
    found = simulate(large, Past(), processes=1)
    assert (found["draws"], found["completes"]) == (3, 1.0)


def test_the_chain_leads_over_slots_and_rests() -> None:
    """A task that waited for nothing but a slot was waited for as much."""
    plan = plan_of(task("a", max_retries=1), task("b"), slots=1)
    world = recorded(plan, {"a": [(1, "no luck"), (1, None)], "b": [(5, None)]})
    assert chain(world.records) == ["a", "b"], "its first attempt gave the slot to b, which gave it back"
