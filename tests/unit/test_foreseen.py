"""What agents are expected to cost goes into the plan when it is submitted, and what nobody will know is told before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paper import plan_of, task

from parallel_agents import foreseen
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import AgentSettings, BudgetSettings, Plan, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.submit import submit, warnings_of


def agent(task_id: str, **fields: Any) -> Task:
    """A task of an agent."""
    return Task(task_id=task_id, **{"runner": "claude", "agent_type": "qa-engineer", **fields})


def limited(*tasks: Task, **fields: Any) -> Plan:
    """A plan under a budget of five dollars."""
    return plan_of(*tasks).model_copy(update={"budget_usd_micros": 5_000_000, **fields})


def test_a_submitted_plan_holds_what_its_agents_are_expected_to_cost(tmp_path: Path) -> None:
    """On the model of their first attempt; by their own history once there is one. Commands cost nothing."""
    with Log(tmp_path / "events.db", environ={}) as log:
        plan = plan_of(agent("a"), agent("b", model="opus"), task("c"))
        first = Projector(log).state(submit(log, plan, workdir=tmp_path, environ={})).plan.tasks
        assert [one.expected_model for one in first] == ["haiku", "opus", None]
        cheap, dear, nothing = (one.expected_usd_micros for one in first)
        assert cheap is not None
        assert dear is not None
        assert (dear / cheap, nothing) == (pytest.approx(40, rel=0.01), None)
        run_id = next(iter(Projector(log).runs()))
        log.append(run_id, 1, [
            ev.TaskStarted(task_id="a", attempt_id="x", attempt=1, runner="claude", model="haiku", model_reason="so"),
            ev.CostCharged(task_id="a", attempt_id="x", usd_micros=123_000, model="h", agent_type="qa-engineer"),
            ev.TaskCompleted(task_id="a", attempt_id="x", duration_s=1.0),
        ])  # fmt: skip
        again = Projector(log).state(submit(log, plan, workdir=tmp_path, environ={})).plan.tasks
        assert again[0].expected_usd_micros == 123_000


def test_a_plan_without_agents_is_stored_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody looks for what it could cost."""

    def refuse(*_: Any) -> None:
        raise AssertionError("nobody should look")

    monkeypatch.setattr(foreseen, "with_expectations", refuse)
    with Log(tmp_path / "events.db", environ={}) as log:
        plan = plan_of(task("a"))
        assert Projector(log).state(submit(log, plan, workdir=tmp_path, environ={})).plan == plan
    assert warnings_of(plan) == []


@pytest.mark.parametrize(
    ("fields", "blind"),
    [
        ({}, False),  # Claude reports dollars.
        ({"model": "nobody-knows"}, False),
        ({"runner": "codex"}, False),  # Its tokens are priced, as long as the model has a price.
        ({"runner": "codex", "model": "nobody-knows"}, True),
        ({"runner": "aider"}, True),
        ({"runner": "of-a-package"}, True),
    ],
)
def test_a_budget_that_cannot_be_measured_is_warned_of(fields: dict[str, Any], blind: bool) -> None:
    """Where neither the client nor the price table tells what it costs; without a budget nobody needs to know."""
    one = agent("a", **fields)
    said = warnings_of(limited(one, agent("b")))
    assert len(said) == blind
    assert all("CANNOT BE MEASURED for a: the agent" in line for line in said)
    assert warnings_of(plan_of(one)) == []
    assert len(warnings_of(plan_of(one.model_copy(update={"budget_usd_micros": 10})))) == blind
    assert len(warnings_of(plan_of(one).model_copy(update={"budgets": BudgetSettings(day_usd_micros=9)}))) == blind


def test_a_budget_that_is_switched_off_is_warned_of() -> None:
    """A plan that names one is not to be run as if it held."""
    (said,) = warnings_of(limited(agent("a"), budgets=BudgetSettings(enabled=False)))
    assert said.startswith("NO BUDGET HOLDS: costOptimization.enabled or costOptimization.budgetAware is false")
    assert warnings_of(plan_of(agent("a")).model_copy(update={"budgets": BudgetSettings(enabled=False)})) == []


def test_a_client_that_is_configured_to_tell_is_believed() -> None:
    """Its row says so."""
    rows = {"mine": {"command": ("mine",), "output": "json", "tells": ("cost",)}}
    plan = limited(agent("a", runner="mine"))
    assert len(warnings_of(plan)) == 1
    assert warnings_of(plan.model_copy(update={"agents": AgentSettings(clients=rows)})) == []
