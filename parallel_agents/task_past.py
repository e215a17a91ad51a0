"""Why a task was blocked, skipped, tried again, run again and run on this model: each with the events that say so.

Nothing is judged here: each is what the scheduler, or a person, wrote down when it was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.projections.undone import Spans

_ENDS = (
    ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.AttemptLost, ev.TaskBlocked, ev.TaskSkipped,
)  # fmt: skip
_FINDINGS = (ev.ConflictDetected, ev.GateChecked)

EndOf = Callable[[str, int], "Recorded | None"]
"""The last event before a seq by which a task ended."""


@dataclass(slots=True)
class Telling:
    """One thing that happened to a task, and why."""

    what: str  # again, model, retried, reopened, blocked, unblocked, skipped or cancelled.
    why: str
    events: list[Recorded]
    attempt_id: str | None = None
    undone: bool = False

    def as_data(self) -> dict[str, Any]:
        """As ``why --json`` has it."""
        last = self.events[-1]
        return {
            "what": self.what, "why": self.why, "seq": last.seq, "at": rfc3339(last.at_us), "attempt_id": self.attempt_id,
            "undone": self.undone, "events": [named(record) for record in self.events],
        }  # fmt: skip


@dataclass(slots=True)
class _Life:
    """What is known of a task so far, undone events included."""

    attempts: dict[str, Recorded] = field(default_factory=dict)  # The start of each, by its id.
    numbers: dict[str, int] = field(default_factory=dict)
    last: Recorded | None = None  # How it ended last, in the history that counted then.
    cause: list[Recorded] = field(default_factory=list)  # What opened it again since.
    findings: list[Recorded] = field(default_factory=list)  # Conflicts and gates since its last start.
    request: Recorded | None = None


def named(record: Recorded) -> dict[str, Any]:
    """An event as an answer names it."""
    return {"seq": record.seq, "type": type(record.event).__name__}


def tellings(records: Sequence[Recorded], spans: Spans | None, end_of: EndOf) -> Iterator[Telling]:
    """What happened to a task, oldest first.

    Args:
        records: all events that name the task, and the rollbacks of its run, oldest first, undone ones too.
        spans: what is undone of its run.
    """
    life = _Life()
    for record in records:
        event = record.event
        if isinstance(event, ev.RunRolledBack):
            _taken_back(life, record, event)
        elif isinstance(event, _FINDINGS):
            life.findings.append(record)
        elif isinstance(event, ev.TaskCancelRequested):
            life.request = record
        for one in _of_event(life, record, end_of):
            one.undone = spans is not None and spans.holds(record.seq)
            yield one
        if isinstance(event, _ENDS):
            life.last, life.cause = record, []


def _taken_back(life: _Life, record: Recorded, event: ev.RunRolledBack) -> None:
    """A rollback that undid something of the task is why it runs again."""
    undid = [
        one for one in (life.last, *life.attempts.values()) if one is not None and event.to_seq < one.seq < record.seq
    ]
    if undid:
        life.cause = [max(undid, key=lambda one: one.seq), record]
        life.findings = []
    elif life.cause and life.cause[-1].seq > event.to_seq:
        life.cause = []


def _of_event(life: _Life, record: Recorded, end_of: EndOf) -> Iterator[Telling]:
    match record.event:
        case ev.TaskStarted() as event:
            yield from _started(life, record, event)
        case ev.TaskRetryScheduled() as event:
            yield _retried(life, record, event)
        case ev.TaskReopened(reason=reason):
            said = f"{record.actor} opened it again" + (f": {reason}" if reason else "")
            life.cause = [*([life.last] if life.last else []), record]
            yield Telling("reopened", said, life.cause)
        case ev.TaskBlocked(reason=reason, attempt_id=attempt_id):
            found = [one for one in life.findings if getattr(one.event, "passed", False) is not True]
            yield Telling("blocked", f"it waits for a person: {reason}", [*found[-1:], record], attempt_id)
        case ev.TaskUnblocked(reason=reason):
            blocked = [life.last] if life.last is not None and isinstance(life.last.event, ev.TaskBlocked) else []
            life.cause = [*blocked, record]
            said = f"{record.actor} let it go on" + (f": {reason}" if reason else "")
            yield Telling("unblocked", said, life.cause)
        case ev.TaskSkipped(because=because, reason=reason):
            failed = end_of(because, record.seq)
            fast = ", and its pipeline fails fast" if reason == "fail_fast" else ""
            how = "" if failed is None else f" ({_how_it_ended(failed)})"
            said = f"{because} did not complete{how}{fast}"
            yield Telling("skipped", said, [*([failed] if failed else []), record])
        case ev.TaskCancelled(reason=reason, attempt_id=attempt_id):
            asked = [life.request] if life.request is not None else []
            life.request = None
            yield Telling("cancelled", reason or "it was asked for", [*asked, record], attempt_id)
        case _:
            pass


def _started(life: _Life, record: Recorded, event: ev.TaskStarted) -> Iterator[Telling]:
    cause, life.cause, life.findings = life.cause, [], []
    before = list(life.attempts)
    life.attempts[event.attempt_id], life.numbers[event.attempt_id] = record, event.attempt
    if cause:
        yield Telling("again", _why_again(life, cause), [*cause, record], event.attempt_id)
    elif before:
        yield Telling(
            "again", "its attempt before came to nothing", [life.attempts[before[-1]], record], event.attempt_id
        )
    if event.model_reason:
        model = event.model or "its client's own model"
        role = f" as {event.role}" if event.role else ""
        yield Telling("model", f"{event.runner}{role} on {model}: {event.model_reason}", [record], event.attempt_id)


def _why_again(life: _Life, cause: list[Recorded]) -> str:
    """In words, from what opened the task again."""
    last = cause[-1]
    match last.event:
        case ev.RunRolledBack(to_seq=to_seq):
            undid = cause[0]
            what = "its start" if isinstance(undid.event, ev.TaskStarted) else f"that it {_how_it_ended(undid)}"
            return f"{last.actor} took the run back to event {to_seq}, which undid {what}"
        case ev.TaskReopened(reason=reason):
            ended = f" after it {_how_it_ended(cause[0])}" if len(cause) > 1 else ""
            return f"{last.actor} opened it again{ended}" + (f": {reason}" if reason else "")
        case ev.TaskUnblocked(reason=reason):
            return f"{last.actor} let it go on" + (f": {reason}" if reason else "")
        case ev.TaskRetryScheduled(wait_s=wait_s):
            number = life.numbers.get(last.event.attempt_id)
            which = "the attempt before" if number is None else f"attempt {number}"
            return f"{which} {_how_it_ended(cause[0])}; it was to rest {wait_s:.1f} s"
        case _:
            raise AssertionError(f"{type(last.event).__name__} opens no task again")


def _retried(life: _Life, record: Recorded, event: ev.TaskRetryScheduled) -> Telling:
    ended = [life.last] if life.last is not None else []
    life.cause = [*ended, record]
    met = [one for one in life.findings if isinstance(one.event, ev.ConflictDetected) and not one.event.early]
    how = _how_it_ended(ended[0]) if ended else "failed"
    counts = f"failed {event.failures} times" if event.failures > 1 else "failed once" if event.failures else ""
    said = f"it {how}" + (f", and has {counts}" if counts else ", which counts as no failure")
    return Telling("retried", said, [*met[-1:], *life.cause], event.attempt_id)


def _how_it_ended(record: Recorded) -> str:
    """Such as ``failed: exit code 1``."""
    match record.event:
        case ev.TaskFailed(kind=kind, error=error):
            return "failed: " + (f"{kind.replace('_', ' ')}: " if kind else "") + error
        case ev.TaskTimedOut(error=error):
            return f"ran too long: {error}"
        case ev.AttemptLost(error=error):
            return f"vanished: {error}"
        case ev.TaskCompleted():
            return "was completed"
        case ev.TaskCancelled():
            return "was cancelled"
        case ev.TaskSkipped(because=because):
            return f"was skipped because of {because}"
        case ev.TaskBlocked(reason=reason):
            return f"waited for a person: {reason}"
        case _:
            raise AssertionError(f"{type(record.event).__name__} ends nothing")
