"""What a fork may say differently, and what is refused."""

from __future__ import annotations

import pytest
from paper import PaperRun, plan_of, task

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.overrides import overridden


def run() -> PaperRun:
    """Two tasks, the first of them completed."""
    made = PaperRun(plan_of(task("a"), task("b", "a")))
    made.tick()
    made.end("a")
    return made


def test_limits_and_retries_are_settings_of_the_run() -> None:
    """Told apart by their names; what was understood is recorded."""
    texts = {"max_parallel_agents": "3", "retry.delay_s": "0.5", "max_execution_s": "9"}
    with pytest.raises(InvalidUsage, match="max_execution_s"):
        overridden(run().state, {"max_execution_s": "soon"})
    plan, understood = overridden(run().state, texts)
    assert (plan.settings.max_parallel_agents, plan.settings.retry.delay_s) == (3, 0.5)
    assert understood == {"max_parallel_agents": 3, "retry.delay_s": 0.5, "max_execution_s": 9}


def test_a_field_of_one_task_leaves_the_others() -> None:
    """Lists are written as JSON, texts as themselves."""
    plan, _ = overridden(run().state, {"b.command": '["make", "test"]', "b.description": "again"})
    assert (plan.tasks[1].command, plan.tasks[1].description) == (("make", "test"), "again")
    assert plan.tasks[0].command == ("true",)


def test_task_means_every_task_that_is_not_completed() -> None:
    """What is completed is not run again, so it keeps what it was run with."""
    plan, _ = overridden(run().state, {"task.timeout_s": "5"})
    assert [one.timeout_s for one in plan.tasks] == [600.0, 5.0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("b.model", "4", "not a text"), ("b.budget_usd", "-1", "dollars"),
        ("b.dependencies", "[]", "cannot change"), ("c.timeout_s", "1", "nothing of"),
        ("b.timeout_s", "-1", "number of seconds"), ("b.outputs", '["/x"]', "no path below"), ("retry.delay_s", "-1", "retry"),
        ("b.command", "make", "command"), ("b", "1", "nothing of"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(name: str, text: str, said: str) -> None:
    """With what it was."""
    with pytest.raises(InvalidUsage, match=said):
        overridden(run().state, {name: text})
