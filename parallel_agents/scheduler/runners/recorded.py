"""A runner of attempts that only are told: each takes the time that it is said to take, and ends as it is said to end.

No process, no model, no wait: whoever has the clock asks when the next one ends, and moves the clock there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch

FAR_US: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Part:
    """What one attempt is to do.

    Attributes:
        takes_us: microseconds until its end; None: it ends when it is stopped.
        ended: how it ends; the id and the times are those of the attempt that is started.
        place: of what ends at the same time, the smaller is told first; else what was started first.
        leaves: leaves the files that it leaves, right before its end is told.
        dated: whether the times of the end are its own, instead of those of the clock.
    """

    takes_us: int | None
    ended: Ended
    place: int = FAR_US
    leaves: Callable[[], None] | None = None
    dated: bool = False


class RecordedRunner:
    """Runs parts. For one thread.

    Args:
        part_of: says what an attempt that is started is to do.
        clock: microseconds since the epoch.
        obeys: whether an attempt that is asked to stop does so at once. One that is said to end by being stopped ends when it
            is said to, in any case.
    """

    name = "recorded"
    horizon = FAR_US  # No end is told whose place is beyond it.

    def __init__(self, part_of: Callable[[Launch], Part], clock: Callable[[], int], *, obeys: bool = True) -> None:
        self.obeys = obeys
        self.running: dict[str, tuple[int, Part]] = {}  # When it began, and what it does.
        self._part_of = part_of
        self._clock = clock
        self._ends: list[
            tuple[int, int, int, str]
        ] = []  # When, place, in which order started, who. With stale entries.
        self._due_us: dict[str, int] = {}
        self._started = 0
        self.moves = 0  # Starts and ends so far.

    def start(self, launch: Launch) -> None:
        """Begin."""
        self.moves += 1
        part, now_us = self._part_of(launch), self._clock()
        self.running[launch.attempt_id] = now_us, part
        if part.takes_us is not None:
            self._end_at(launch.attempt_id, now_us + part.takes_us, part.place)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Nobody else has started any."""
        for launch in launches:
            assert launch.attempt_id in self.running, f"{launch.attempt_id} was started by nobody"

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """It ends now, if it obeys."""
        if not self.obeys or attempt_id not in self.running:
            return
        began_us, part = self.running[attempt_id]
        if part.ended.outcome != "stopped" or part.takes_us is None:
            words = "timed out" if timed_out else "stopped"
            charges = _charges_until(part, self._clock() - began_us)
            ended = Ended(attempt_id, "timed_out" if timed_out else "stopped", error=words, charges=charges)
            self.running[attempt_id] = began_us, Part(0, ended)
            self._end_at(attempt_id, self._clock(), FAR_US)

    def spending(self) -> dict[str, int]:
        """What running attempts have spent by now, in micro-dollars, as if each spent evenly; none that spends nothing."""
        found, now_us = {}, self._clock()
        for attempt_id, (began_us, part) in self.running.items():
            if part.ended.charges and part.takes_us:
                charges = _charges_until(part, now_us - began_us)
                found[attempt_id] = sum(one.usd_micros or 0 for one in charges)
        return found

    def forget(self, attempt_id: str) -> None:
        """Somebody else has told of its end."""
        self.running.pop(attempt_id, None)
        self._due_us.pop(attempt_id, None)

    def next_end_us(self) -> int | None:
        """When the next attempt ends; None where none does by itself."""
        while self._ends and self._due_us.get(self._ends[0][3]) != self._ends[0][0]:
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    def poll(self) -> list[Ended]:
        """What has ended by now."""
        found, later, now_us = [], [], self._clock()
        while (due_us := self.next_end_us()) is not None and due_us <= now_us:
            entry = heapq.heappop(self._ends)
            attempt_id = entry[3]
            if entry[1] > self.horizon:
                later.append(entry)
                continue
            del self._due_us[attempt_id]
            began_us, part = self.running.pop(attempt_id)
            self.moves += 1
            if part.leaves is not None:
                part.leaves()
            if part.dated:
                found.append(replace(part.ended, attempt_id=attempt_id))
                continue
            took_us = (
                max(0, part.ended.ended_at_us - part.ended.started_at_us)
                if part.ended.ended_at_us
                else due_us - began_us
            )
            found.append(replace(part.ended, attempt_id=attempt_id, started_at_us=due_us - took_us, ended_at_us=due_us))
        for entry in later:
            heapq.heappush(self._ends, entry)
        return found

    def close(self) -> None:
        """Nothing to let go of."""

    def _end_at(self, attempt_id: str, at_us: int, place: int) -> None:
        self._started += 1
        self._due_us[attempt_id] = at_us
        heapq.heappush(self._ends, (at_us, place, self._started, attempt_id))


def _charges_until(part: Part, passed_us: int) -> tuple[Charge, ...]:
    """What an attempt has been charged with that has run for a while: as if it had spent evenly."""
    if not part.takes_us or passed_us >= part.takes_us:
        return part.ended.charges
    share = max(0, passed_us) / part.takes_us

    def of(count: int) -> int:
        return round(count * share)

    return tuple(
        replace(
            one, usd_micros=None if one.usd_micros is None else of(one.usd_micros), input_tokens=of(one.input_tokens),
            output_tokens=of(one.output_tokens), cache_read_tokens=of(one.cache_read_tokens),
            cache_write_tokens=of(one.cache_write_tokens), calls=of(one.calls), partial=True,
        )
        for one in part.ended.charges
    )  # fmt: skip
