"""The notifications that users know, in the words of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_agents.configuration import DEFAULTS, Configuration
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.notices import Notices
from parallel_agents.planfile import parse_plan
from parallel_agents.projections.projector import Projector
from parallel_agents.submit import make_plan, submit

PLAN = {
    "name": "shop",
    "tasks": [
        {"task_id": "api", "agent_type": "backend-engineer", "command": ["true"]},
        {"task_id": "qa", "agent_type": "qa-engineer", "command": ["true"]},
    ],
}
HISTORY: list[ev.Event] = [
    ev.RunStarted(),
    ev.TaskQueued(task_id="api"),
    ev.TaskStarted(task_id="api", attempt_id="a1", attempt=1, runner="shell"),
    ev.TaskCompleted(task_id="api", attempt_id="a1", duration_s=12.5),
    ev.TaskQueued(task_id="qa"),
    ev.TaskStarted(task_id="qa", attempt_id="q1", attempt=1, runner="shell"),
    ev.TaskFailed(task_id="qa", attempt_id="q1", duration_s=1.0, error="Test failed"),
    ev.RunFailed(counts={"completed": 1, "failed": 1}, failed=["qa"]),
]


def notices(folder: Path, configuration: Configuration) -> list[str]:
    """What is said of that history."""
    with Log(folder / "events.db", environ={}) as log:
        run_id = submit(log, make_plan(parse_plan(PLAN, "plan.yaml", DEFAULTS), DEFAULTS), workdir=folder, environ={})
        records = log.append(run_id, 1, HISTORY)
        return list(Notices(configuration).of(records, Projector(log).state(run_id)))


def test_the_notifications_read_as_users_know_them(tmp_path: Path) -> None:
    """Started, completed with its time, failed with its error, and the sum at the end."""
    assert notices(tmp_path, DEFAULTS) == [
        "🚀 Parallel execution started: 2 tasks (concurrent)",
        "▶️ Agent started: backend-engineer",
        "✅ Agent completed: backend-engineer (12.5s)",
        "▶️ Agent started: qa-engineer",
        "❌ Agent failed: qa-engineer - Test failed",
        "🎉 Parallel execution completed: 1/2 successful",
    ]


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("notifications.agentStarted.enabled", "▶️"),
        ("monitoring.successNotifications", "✅"),
        ("monitoring.failureNotifications", "❌"),
        ("notifications.parallelExecutionCompleted.enabled", "🎉"),
    ],
)
def test_a_notification_can_be_switched_off(key: str, gone: str, tmp_path: Path) -> None:
    """The others stay."""
    lines = notices(tmp_path, Configuration({key: False}, {key: "flag"}))
    assert not any(line.startswith(gone) for line in lines)
    assert len(lines) in (4, 5)


def test_a_conflict_is_told_with_its_paths_and_one_that_only_comes_is_marked(tmp_path: Path) -> None:
    """The paths are what somebody has to look at."""
    clash = {"task_id": "qa", "paths": ["a.py", "b.py"], "attempt_id": "q1"}
    with Log(tmp_path / "events.db", environ={}) as log:
        run_id = submit(log, make_plan(parse_plan(PLAN, "plan.yaml", DEFAULTS), DEFAULTS), workdir=tmp_path, environ={})
        records = log.append(
            run_id,
            1,
            [
                *HISTORY[:6],
                ev.ConflictDetected(**clash, other_task_id="api", early=True),
                ev.ConflictDetected(**clash, other_task_id="", early=True),
                ev.ConflictDetected(**clash, other_task_id="api"),
            ],
        )
        told = list(Notices(DEFAULTS).of(records[6:], Projector(log).state(run_id)))
    assert told == [
        "⚠️ Conflict detected: a.py, b.py (so far, with api)",
        "⚠️ Conflict detected: a.py, b.py (so far, with what is merged)",
        "⚠️ Conflict detected: a.py, b.py",
    ]


def test_a_format_of_the_configuration_is_used(tmp_path: Path) -> None:
    """With the fields that it may name."""
    key = "notifications.agentFailed.format"
    lines = notices(tmp_path, Configuration({key: "{name}/{task_id} broke after {duration}s"}, {key: "flag"}))
    assert "shop/qa broke after 1.0s" in lines


def test_money_that_runs_out_is_told_whatever_is_switched_off(tmp_path: Path) -> None:
    """Of several shares that are passed at once the last; a pause that follows from it is not told twice."""
    quiet = Configuration({"notifications.parallelExecutionStarted.enabled": False}, {})
    passed = [
        ev.BudgetThresholdReached(scope="run", share=0.75, spent_usd_micros=3_750_000),
        ev.BudgetThresholdReached(scope="run", share=0.9, spent_usd_micros=4_500_000),
    ]
    spent = ev.BudgetExceeded(scope="run", spent_usd_micros=5_100_000, budget_usd_micros=5_000_000)
    paused = ev.RunPaused(reason="the budget (run) is spent", code="budget")
    with Log(tmp_path / "events.db", environ={}) as log:
        plan = make_plan(parse_plan(PLAN, "plan.yaml", DEFAULTS), DEFAULTS)
        run_id = submit(log, plan, workdir=tmp_path, environ={})
        told = []
        for events in ([ev.RunStarted(), *passed], [spent, paused], [ev.RunResumed()], [ev.RunPaused(reason="lunch")],
                       [ev.RunPaused(reason="no key", code="authentication")]):  # fmt: skip
            state = Projector(log).state(run_id)
            records = log.append(run_id, state.version, events)
            told.append(list(Notices(quiet).of(records, Projector(log).state(run_id))))
    assert told == [
        ["⚠️ the budget of the run is used to 90 %: $4.50; only critical and high tasks start"],
        ["⛔ the budget of the run is spent: $5.10 of $5.00"], [], [], ["⏸️ Paused: no key"],
    ]  # fmt: skip
