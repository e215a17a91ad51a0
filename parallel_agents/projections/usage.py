"""What a run's attempts have used of the machine. Scope ALL: undone work has used it as well."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded


@dataclass(slots=True)
class Span:
    """One attempt: microseconds since the epoch, bytes."""

    started_at_us: int
    ended_at_us: int | None  # None while it runs.
    peak_memory_bytes: int
    shared: bool  # A callable: its memory is that of the process that it shares with all others.


@dataclass(slots=True)
class Usage:
    """Seconds of all cores, calls of an API by task, and the attempts by id."""

    cpu_s: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    spans: dict[str, Span] = field(default_factory=dict)


def fold(state: Usage, record: Recorded) -> Usage:
    """The usage after one more event."""
    event = record.event
    match event:
        case ev.TaskStarted(attempt_id=attempt_id):
            state.spans[attempt_id] = Span(record.at_us, None, 0, event.runner == "python")
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut():
            _end(state, event.attempt_id, record.at_us, event.cpu_s, event.peak_memory_bytes)
        case ev.TaskCancelled(attempt_id=str() as attempt_id):
            _end(state, attempt_id, record.at_us, event.cpu_s, event.peak_memory_bytes)
        case ev.AttemptLost() | ev.ResultDiscarded():
            _end(state, event.attempt_id, record.at_us, 0.0, 0)
        case ev.CostCharged():
            state.calls[event.task_id] += event.calls
        case _:
            pass
    return state


def _end(state: Usage, attempt_id: str, at_us: int, cpu_s: float, peak_memory_bytes: int) -> None:
    state.cpu_s += cpu_s
    span = state.spans.get(attempt_id)
    if span is not None:
        span.ended_at_us, span.peak_memory_bytes = at_us, peak_memory_bytes


def peak_memory_bytes(usage: Usage) -> int:
    """The most memory that attempts can have held at once: of those that ran together, the sum of the peaks of each.

    Not every attempt need have been at its peak at the same moment, so it is never less than what they held. Callables
    share one process, which counts once.
    """
    changes: list[tuple[int, int, int, bool]] = []
    for span in usage.spans.values():
        if span.ended_at_us is not None and span.peak_memory_bytes:
            # Ends sort before starts of the same commit, but never before their own start: a clock may stand still.
            ended_at_us = max(span.ended_at_us, span.started_at_us + 1)
            changes.append((span.started_at_us, 1, span.peak_memory_bytes, span.shared))
            changes.append((ended_at_us, 0, span.peak_memory_bytes, span.shared))
    own = most = 0
    shared: list[int] = []  # The peaks of the callables that run, ascending.
    for _, begins, peak, is_shared in sorted(changes):
        if is_shared and begins:
            insort(shared, peak)
        elif is_shared:
            shared.pop(bisect_left(shared, peak))
        else:
            own += peak if begins else -peak
        most = max(most, own + (shared[-1] if shared else 0))
    return most
