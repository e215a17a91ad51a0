"""Going back and branching off: rollbacks and forks, decided on the state now and the state there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.submission import Plan
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState

ROLLED_BACK = "rolled_back"
FORKED = "forked"


class Change(NamedTuple):
    """What a rollback makes of one task."""

    task_id: str
    now: str
    then: str


def is_over(state: RunState) -> bool:
    """Whether a run has ended with nothing left open, as it may within the commit of a retry."""
    open_tasks = sum(state.counts[status] for status in (st.PENDING, st.QUEUED, st.RUNNING, st.BLOCKED))
    return state.ended and not open_tasks


def decide_rollback(now: RunState, there: RunState, to_seq: int, reason: str = "") -> list[Event]:
    """Take a run back to where it stood at an event. Nothing is deleted, nothing is dispatched before a resume.

    Args:
        there: the effective state at ``to_seq``, as a reader saw it then.
    Raises:
        NotAllowed: it would change nothing, or the run is being cancelled.
    """
    if now.cancel_requested and not now.ended:
        raise NotAllowed(f"run {now.run_id} is being cancelled", hint="wait for its end, then say it again")
    if there.seq >= now.seq:
        raise NotAllowed(
            f"run {now.run_id} stands at event {there.seq} already: going back there changes nothing",
            hint=f"`parallel-agents history {now.run_id}` shows where it could go",
        )
    events: list[Event] = [ev.RunRolledBack(to_seq=to_seq, commit=there.integration, reason=reason)]
    events += [ev.TaskQueued(task_id=name, reason=ROLLED_BACK) for name in there.running.values()]
    if not is_over(there):
        events.append(ev.RunPaused(reason=f"rolled back to event {to_seq}"))
    return events


def check_changes_something(now: RunState, there: RunState) -> None:
    """Refuse a rollback after which the run would stand as it stands: claims and releases alone lie between.

    Raises:
        NotAllowed: it would change neither the run nor a task of it, nor its files.
    """
    then = there.status if is_over(there) else st.PAUSED
    if (
        now.status == then
        and all(getattr(now, name) == getattr(there, name) for name in _STANDS_BY)
        and all(_stands_as(task, there.tasks[task_id]) for task_id, task in now.tasks.items())
    ):
        raise NotAllowed(
            f"run {now.run_id} stands as it stood at event {there.seq}: going back there changes nothing",
            hint=f"`parallel-agents diff {now.run_id} SEQ now` shows what another one would change",
        )


def _stands_as(now: TaskState, there: TaskState) -> bool:
    then = st.QUEUED if there.status == st.RUNNING else there.status
    return now.status == then and all(getattr(now, name) == getattr(there, name) for name in _TASK_STANDS_BY)


_STANDS_BY = (
    "integration", "plan_digest", "stages_passed", "budget_usd_micros", "task_budgets", "cancel_requested", "restoring",
    "before_run", "last_stage",
)  # fmt: skip
_TASK_STANDS_BY = (
    "attempts", "failures", "attempt_id", "error", "because", "checkpoint_id", "cancel_requested", "not_before_us",
    "work_commit", "approved_attempt", "conflicts", "resumes", "kept_commit",
)  # fmt: skip


def changes(now: RunState, there: RunState) -> list[Change]:
    """The tasks whose status a rollback changes; what ran there is queued again."""
    then = {name: st.QUEUED if task.status == st.RUNNING else task.status for name, task in there.tasks.items()}
    return [
        Change(name, task.status, then[name])
        for name, task in now.tasks.items()
        if task.status != then[name] or task.attempt_id != there.tasks[name].attempt_id
    ]


def decide_fork(
    there: RunState, seq: int, plan: Plan, plan_digest: str, state_digest: str, overrides: Mapping[str, Any]
) -> list[Event]:
    """The first events of a run that goes on from the state of another one.

    Args:
        there: the parent's effective state at ``seq``.
        plan: the parent's plan with the overrides in it; a blob under ``plan_digest``.
        state_digest: of the blob that holds ``there``.
    """
    counts = {status: number for status, number in there.counts.items() if number and there.ended}
    events: list[Event] = [
        ev.RunForked(
            parent=there.run_id, seq=seq, overrides=dict(overrides), state_digest=state_digest, plan_digest=plan_digest,
            name=plan.name, strategy=plan.strategy, task_count=len(plan.tasks), commit=there.integration,
            status=there.status, started_at_us=there.started_at_us if is_over(there) else None,
            ended_at_us=there.ended_at_us, counts=counts,
        )
    ]  # fmt: skip
    events += [ev.TaskQueued(task_id=name, reason=FORKED) for name in there.running.values()]
    if not is_over(there):
        events.append(ev.RunPaused(reason=f"forked from {there.run_id} at event {seq}"))
    return events
