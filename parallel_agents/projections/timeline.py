"""The run over time: one span an attempt, undone work shown as undone. Scope ALL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.undone import Undone, undone_among


@dataclass(slots=True)
class Span:
    """One attempt. Times are microseconds since the epoch; ``ended_at_us`` is None while it runs."""

    task_id: str
    attempt_id: str
    attempt: int
    queued_at_us: int | None
    started_at_us: int
    started_seq: int
    ended_at_us: int | None = None
    ended_seq: int | None = None
    outcome: str = "running"  # completed, failed, timed_out, cancelled, lost, discarded
    undone: bool = False


_OUTCOMES: dict[type[ev.Event], str] = {
    ev.TaskCompleted: "completed",
    ev.TaskFailed: "failed",
    ev.TaskTimedOut: "timed_out",
    ev.TaskCancelled: "cancelled",
    ev.AttemptLost: "lost",
    ev.TaskBlocked: "blocked",
    ev.ResultDiscarded: "discarded",
}


@dataclass(slots=True)
class Timeline:
    """Spans by attempt id, in order of their starts, and when each waiting task was queued last."""

    spans: dict[str, Span]
    queued_at_us: dict[str, int]


def initial() -> Timeline:
    """Before the first event."""
    return Timeline({}, {})


def fold(state: Timeline, record: Recorded) -> Timeline:
    """The timeline after one more event."""
    event = record.event
    match event:
        case ev.TaskQueued(task_id=task_id) | ev.TaskRetryScheduled(task_id=task_id):
            state.queued_at_us[task_id] = record.at_us
        case ev.TaskStarted(task_id=task_id, attempt_id=attempt_id):
            queued = state.queued_at_us.get(task_id)
            state.spans[attempt_id] = Span(task_id, attempt_id, event.attempt, queued, record.at_us, record.seq)
        case _ if type(event) in _OUTCOMES:
            span = state.spans.get(getattr(event, "attempt_id", None) or "")
            if span is not None:
                if span.outcome != "blocked":  # Its work was done then; how long a person took is no part of it.
                    span.ended_at_us = record.at_us
                span.ended_seq, span.outcome = record.seq, _OUTCOMES[type(event)]
        case _:
            pass
    return state


def timeline(records: Iterable[Recorded], undone: Undone | None = None) -> list[Span]:
    """The spans of one run's whole history, those whose start or end a rollback took back marked as undone.

    Args:
        records: the whole history, oldest first; only what is of the types ``FOLDED`` is needed where ``undone`` is given.
        undone: by the rollbacks of the run; None: by those among the records, which are a sequence then.
    """
    undone = undone_among(records) if undone is None else undone
    state = initial()
    for record in records:
        fold(state, record)
    for span in state.spans.values():
        # A discarded result counts whatever is rolled back: its scope is ALL.
        end = None if span.outcome == "discarded" else span.ended_seq
        span.undone = undone(span.started_seq) or (end is not None and undone(end))
    return list(state.spans.values())


FOLDED: Final = (
    "TaskQueued", "TaskRetryScheduled", "TaskStarted", *(event.__name__ for event in _OUTCOMES),
)  # fmt: skip
"""The types that make a difference to it."""
