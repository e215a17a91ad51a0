"""Which runners have failed by their own fault of late, and which of them are left alone for a while. Scope ALL.

All of it stands in the few events of no run, so that every process of a store knows the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, from_rfc3339


@dataclass(slots=True)
class Circuit:
    """One runner, since it last worked. Times are microseconds since the epoch."""

    failures: list[int] = field(default_factory=list)  # When it failed, oldest first, before it opened.
    reason: str = ""  # Of the last failure.
    lost_us: int | None = None  # When an attempt of it last vanished.
    opened_us: int | None = None
    until_us: int | None = None  # None: it has not opened.
    count: int = 0  # Failures in a row, once it has opened.
    openings: int = 0
    trial: str | None = None  # The attempt that tries it, or has tried it last.


_KEPT: Final = 100  # Failures; no limit is as high as that.
Circuits = dict[str, Circuit]
"""By runner. One that works is not in there."""


def fold(state: Circuits, record: Recorded) -> Circuits:
    """The circuits after one more event of any run."""
    event = record.event
    if type(event) not in _FOLDED:
        return state
    match event:
        case ev.RunnerFailed(runner=runner, reason=reason):
            circuit = state.setdefault(runner, Circuit())
            circuit.failures = [*circuit.failures[-_KEPT:], record.at_us]
            circuit.reason = reason
            circuit.lost_us = record.at_us if event.lost else circuit.lost_us
        case ev.CircuitOpened(runner=runner, reason=reason):
            circuit = state.setdefault(runner, Circuit())
            circuit.opened_us, circuit.until_us = record.at_us, from_rfc3339(event.until)
            circuit.count, circuit.openings, circuit.reason = event.failures, event.openings, reason
            circuit.failures, circuit.trial = [], None
            circuit.lost_us = record.at_us if event.lost else circuit.lost_us
        case ev.CircuitHalfOpened(runner=runner, attempt_id=attempt_id):
            state.setdefault(runner, Circuit()).trial = attempt_id
        case ev.CircuitClosed(runner=runner):
            state.pop(runner, None)
        case _:
            raise AssertionError(f"circuits do not fold {type(event).__name__}")
    return state


FOLDED: Final = ("RunnerFailed", "CircuitOpened", "CircuitHalfOpened", "CircuitClosed")
_FOLDED = frozenset(ev.EVENT_TYPES[name] for name in FOLDED)
