"""The conflicts of a run: which work did not merge with what, and what became of it. Of history as rolled back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

TYPES = (
    "type IN ('ConflictDetected', 'ConflictResolved', 'GateChecked', 'TaskStarted', 'TaskCompleted', 'TaskCancelled',"
    " 'TaskReopened', 'CheckpointCreated', 'RunRolledBack')"
)
"""The condition on rows that this fold, and the history that it is given, look at."""
EARLY, WAITING, RESOLVED, DROPPED = "early", "waiting", "resolved", "dropped"


@dataclass(slots=True)
class Attempt:
    """The files of one attempt, as far as the log names them."""

    task_id: str
    base: str | None
    work: str | None = None


@dataclass(slots=True)
class Conflict:
    """One conflict, and what became of it."""

    record: Recorded
    event: ev.ConflictDetected
    attempt: Attempt | None
    other: Attempt | None  # Whose work it does not merge with; None where it cannot be told.
    gate: ev.GateChecked | None = None  # That did not pass, where the files themselves merge.
    status: str = WAITING
    how: str = ""


@dataclass(slots=True)
class Conflicts:
    """All conflicts of a run in the order in which they were found, and what tells whose work they are about."""

    found: list[Conflict] = field(default_factory=list)
    attempts: dict[str, Attempt] = field(default_factory=dict)  # By attempt id.
    latest: dict[str, Attempt] = field(default_factory=dict)  # By task.
    merged: dict[str, Attempt] = field(default_factory=dict)  # The last one of each task that was completed.
    gates: dict[str, ev.GateChecked] = field(default_factory=dict)  # The last one of each attempt that did not pass.


def fold(state: Conflicts, record: Recorded) -> Conflicts:
    """The conflicts after one more event of the run."""
    match record.event:
        case ev.TaskStarted() as event:
            attempt = Attempt(event.task_id, event.base_commit)
            state.attempts[event.attempt_id] = state.latest[event.task_id] = attempt
        case ev.CheckpointCreated(kind="after_attempt") as event if event.attempt_id in state.attempts:
            state.attempts[event.attempt_id or ""].work = event.commit
        case ev.GateChecked(passed=False, attempt_id=str(attempt_id)) as event:
            state.gates[attempt_id] = event
        case ev.ConflictDetected() as event:
            _detected(state, record, event)
        case ev.ConflictResolved() as event:
            # An agent resolves it in an attempt of its own, which is not the one that clashed.
            _settle(state, event.task_id, None if event.how == "agent" else event.attempt_id, RESOLVED, event.how)
        case ev.TaskCompleted() as event:
            if event.attempt_id in state.attempts:
                state.merged[event.task_id] = state.attempts[event.attempt_id]
            _settle(state, event.task_id, event.attempt_id, RESOLVED)
        case ev.TaskCancelled(task_id=task_id) | ev.TaskReopened(task_id=task_id):
            _settle(state, task_id, None, DROPPED)
        case _:
            pass
    return state


def _detected(state: Conflicts, record: Recorded, event: ev.ConflictDetected) -> None:
    by_task = state.latest if event.early else state.merged
    attempt = state.attempts.get(event.attempt_id or "")
    conflict = Conflict(record, event, attempt, by_task.get(event.other_task_id))
    if event.early:
        conflict.status = EARLY
    elif any(kind.startswith("gate ") for kind in event.kinds):
        conflict.gate = state.gates.get(event.attempt_id or "")
    if not event.early:  # Told once more of the same work, because it has become more.
        state.found = [
            one for one in state.found if one.status != WAITING or one.event.attempt_id != event.attempt_id
        ]  # fmt: skip
    state.found.append(conflict)


def _settle(state: Conflicts, task_id: str, attempt_id: str | None, status: str, how: str = "") -> None:
    for one in state.found:
        known = attempt_id is None or one.event.attempt_id in (None, attempt_id)
        if one.status == WAITING and one.event.task_id == task_id and known:
            one.status, one.how = status, how


def conflicts(records: Iterable[Recorded]) -> list[Conflict]:
    """The conflicts of a history that counts (see ``effective``), oldest first."""
    state = Conflicts()
    for record in records:
        fold(state, record)
    return state.found
