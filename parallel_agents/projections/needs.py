"""How much memory attempts have needed, by the type of their agent and by their runner. Scope ALL: it was needed all the same."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.occupancy import CALLABLE

KEPT: Final = 50
"""Newest peaks of one kind that count: what it needed long ago says little of what it needs today."""
KINDS: Final = 1000  # Kinds that are remembered; the one that was not seen for longest goes first.
SHARE: Final = 90
"""Percent of the peaks that an expectation covers. The largest alone would let one outlier hold all others back."""


class Need(NamedTuple):
    """What an attempt is expected to need."""

    bytes: int
    samples: int
    kind: str


@dataclass(slots=True)
class Needs:
    """The peaks of attempts that have ended, and whose peaks those that run will be."""

    by_type: dict[str, deque[int]] = field(default_factory=dict)
    by_runner: dict[str, deque[int]] = field(default_factory=dict)
    running: dict[str, tuple[str, str]] = field(default_factory=dict)  # Attempt id -> agent type, runner.

    def of(self, agent_type: str, runner: str) -> Need | None:
        """What attempts of that agent type have needed, else those of that runner; None where none was seen."""
        for kind, peaks in ((agent_type, self.by_type.get(agent_type)), (runner, self.by_runner.get(runner))):
            if peaks:
                return Need(_percentile(peaks), len(peaks), kind)
        return None


def fold(state: Needs, record: Recorded) -> Needs:
    """The needs after one more event of any run. What was cut off by somebody tells nothing."""
    event = record.event
    if type(event) not in _FOLDED:
        return state
    match event:
        case ev.TaskStarted():
            if event.runner != CALLABLE:
                agent_type = event.role or event.facts.get("agent_type", event.runner)
                state.running[event.attempt_id] = agent_type, event.runner
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut() | ev.TaskBlocked():
            kinds = state.running.pop(event.attempt_id or "", None)
            if kinds is not None and event.peak_memory_bytes:
                _remember(state.by_type, kinds[0], event.peak_memory_bytes)
                _remember(state.by_runner, kinds[1], event.peak_memory_bytes)
        case ev.TaskCancelled() | ev.AttemptLost() | ev.ResultDiscarded():
            state.running.pop(event.attempt_id or "", None)
        case _:
            raise AssertionError(f"needs do not fold {type(event).__name__}")
    return state


FOLDED: Final = (
    ev.TaskStarted, ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskBlocked, ev.TaskCancelled, ev.AttemptLost,
    ev.ResultDiscarded,
)  # fmt: skip
_FOLDED = frozenset(FOLDED)


def _remember(peaks: dict[str, deque[int]], kind: str, peak: int) -> None:
    found = peaks.pop(kind, None)
    if found is None:
        found = deque(maxlen=KEPT)
        if len(peaks) >= KINDS:
            del peaks[next(iter(peaks))]
    found.append(peak)
    peaks[kind] = found


def _percentile(peaks: deque[int]) -> int:
    """The smallest peak that ``SHARE`` percent of them do not exceed (nearest rank)."""
    return sorted(peaks)[math.ceil(len(peaks) * SHARE / 100) - 1]
