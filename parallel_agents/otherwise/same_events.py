"""When two events say the same of a run that was executed twice, and how they differ otherwise. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.otherwise.recording import is_conflict_pause
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.decide import GATE_FAILED
from parallel_agents.scheduler.run_files import FOREIGN
from parallel_agents.scheduler.verdicts import Divergence

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
_NOT_COMPARED: Final = frozenset({"facts", "used_s", "checkpoint_id", "log"})
OF_COMMITS: Final = frozenset({"base_commit", "begin_commit", "commit", "onto"})
"""The fields of events that name a commit."""
_BY_DISPATCHERS: Final = frozenset({"before_attempt", "after_attempt", "stage", "after_run"})
"""Checkpoints that are due, whoever looks."""
_IDS: Final = ("attempt_id", "resumes")


class Commits(Protocol):
    """Says which commits are the same."""

    def is_same(self, there: str | None, here: str | None) -> bool:
        """Whether a commit here is that of the recording, or holds the same files."""


def is_compared(event: Event, *, files: bool = False) -> bool:
    """Whether an event of a dispatcher has to come out the same.

    Args:
        files: whether the files are there.
    """
    if not files:
        return type(event).__name__ in COMPARED and not is_of_files(event)
    match event:
        case ev.CheckpointCreated(kind=kind):
            return kind in _BY_DISPATCHERS
        case ev.ConflictDetected(early=early):
            return not early
        case ev.ConflictResolved() | ev.GateChecked() | ev.CheckpointRestored():
            return True
        case ev.RunPaused(reason=reason):
            return not reason.startswith(FOREIGN)
        case _:
            return type(event).__name__ in COMPARED


def is_given(event: Event, *, files: bool = False) -> bool:
    """Whether an event of a dispatcher's look is not decided by it here: what it saw is nowhere.

    Args:
        files: whether the files are there.
    """
    if not files:
        return is_of_files(event)
    match event:
        case ev.ConflictDetected(early=early):
            return early
        case ev.RunPaused(reason=reason):
            return reason.startswith(FOREIGN)
        case _:
            return isinstance(event, ev.SharedStateChanged)


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


def differ(there: Recorded, here: Event, ids: Mapping[str, str], commits: Commits | None = None) -> Divergence | None:
    """How an event here differs from the recorded one; None where it says the same.

    Args:
        ids: of attempts, recorded -> here.
        commits: which of them are the same; None: nobody looks at them.
    """
    name = type(there.event).__name__
    if type(here) is not type(there.event):
        return Divergence(there.seq, name, "event", named(there.event), named(here))
    recorded, now = _told(there.event, ids), _told(here, {})
    for key, value in recorded.items():
        if key in OF_COMMITS:
            if commits is not None and not commits.is_same(value, now[key]):
                return Divergence(there.seq, name, key, value, now[key])
        elif value != now[key]:
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
            case ev.TaskStarted() | ev.CheckpointCreated(kind="before_attempt"):
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
