"""When two events say the same of a run that was executed twice, and how they differ otherwise. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.projections.projector import Projector
from parallel_agents.recording import is_conflict_pause
from parallel_agents.scheduler.decide import GATE_FAILED
from parallel_agents.scheduler.redecide import Divergence

COMPARED: Final = frozenset(
    {
        "RunStarted", "RunPaused", "RunResumed", "RunCancelRequested", "RunCompleted", "RunFailed", "RunCancelled",
        "TaskQueued", "TaskStarted", "TaskCompleted", "TaskFailed", "TaskTimedOut", "TaskRetryScheduled", "TaskCancelled",
        "TaskSkipped", "TaskBlocked", "AttemptLost", "ResultDiscarded", "CostCharged",
    }
)  # fmt: skip
"""What has to come out the same. All else is of the machine, of leases, or only told."""
OF_FILES: Final = frozenset(
    {
        "CheckpointCreated", "CheckpointRestored", "FilesRestoring", "ConflictDetected", "ConflictResolved", "GateChecked",
        "SharedStateChanged", "RunMerged", "RunMoved", "CheckpointsDropped",
    }
)  # fmt: skip
_NOT_COMPARED: Final = frozenset({"facts", "used_s", "base_commit", "begin_commit", "commit"})
_IDS: Final = ("attempt_id", "resumes")


def is_compared(event: Event) -> bool:
    """Whether an event has to come out the same where no files are there."""
    return type(event).__name__ in COMPARED and not is_of_files(event)


def is_of_files(event: Event) -> bool:
    """Whether an event was decided by files, which are not there."""
    match event:
        case ev.TaskBlocked(attempt_id=str()):
            return True
        case ev.RunPaused():
            return is_conflict_pause(event)
        case ev.RunCancelRequested(reason=reason):
            return reason.startswith(GATE_FAILED)
        case _:
            return False


def differ(there: Recorded, here: Event, ids: Mapping[str, str]) -> Divergence | None:
    """How an event here differs from the recorded one; None where it says the same.

    Args:
        ids: of attempts, recorded -> here.
    """
    name = type(there.event).__name__
    if type(here) is not type(there.event):
        return Divergence(there.seq, name, "event", named(there.event), named(here))
    recorded, now = _told(there.event, ids), _told(here, {})
    for key, value in recorded.items():
        if value != now[key]:
            return Divergence(there.seq, name, key, value, now[key])
    return None


def _told(event: Event, ids: Mapping[str, str]) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in type(event).model_fields if name not in _NOT_COMPARED}
    for name in _IDS:
        if found.get(name) is not None:
            found[name] = ids.get(found[name], found[name])
    return found


def differs_at_its_end(log: Log, scratch: Log, run_id: str, last: int) -> Divergence | None:
    """How the run stands otherwise, and what it has cost otherwise, although every event was the same.

    Args:
        log, scratch: the stores that it was recorded in and that it was executed in.
        last: the last event that was executed again.
    """
    there, here = Projector(log).view(run_id, last), Projector(scratch).view(run_id)
    for name, task in there.state.tasks.items():
        other = here.state.tasks[name]
        for key in ("status", "attempts", "failures", "output", "error", "model"):
            if getattr(task, key) != getattr(other, key):
                return Divergence(last, "end", f"{name}.{key}", getattr(task, key), getattr(other, key))
    for key, recorded, now in (
        ("status", there.state.status, here.state.status),
        ("cost", there.cost.usd_micros, here.cost.usd_micros),
    ):
        if recorded != now:
            return Divergence(last, "end", key, recorded, now)
    return None


def is_seen(event: Event) -> bool:
    """Whether a decision was made on what running agents were seen to spend, which no event holds."""
    return isinstance(event, ev.RunPaused) and event.code == "budget"


def starts_last(records: list[Recorded]) -> list[Recorded]:
    """What a look that several runs shared by priority has led to, starts in their order behind all that was queued."""

    def place(record: Recorded) -> tuple[int, str]:
        match record.event:
            case ev.TaskQueued(task_id=task_id):
                return 1, task_id
            case ev.TaskStarted():
                return 2, ""
            case _:
                return 0, ""

    return sorted(records, key=place)


def began_late(record: Recorded) -> bool:
    """Whether a rest began after its event, as older releases had it where the clock had been set back."""
    event = record.event
    assert isinstance(event, ev.TaskRetryScheduled)
    return from_rfc3339(event.not_before) - round(event.wait_s * 1e6) > record.at_us


def named(event: Event) -> str:
    """An event in a word or two."""
    task_id = getattr(event, "task_id", None)
    return type(event).__name__ + (f" {task_id}" if task_id else "")
