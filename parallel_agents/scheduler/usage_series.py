"""What attempts use over time, thinned as they grow old, and kept in the store's side table every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from parallel_agents.eventstore.usage_samples import Busy, Point
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.machine_load import Usage

SPANS: Final = ((60.0, 0.0), (3600.0, 10.0))
"""So old an attempt may be, in seconds, for a point to span so much: every sample at first, then ten seconds."""

LAST_SPAN_S: Final = 60.0
"""Later on: a day is some 1,800 points."""

FLUSH_S: Final = 10.0
_MOST_WAITING: Final = 10_000  # Points that could not be written; older ones are given up.


class Series:
    """The points of one attempt. Pure."""

    def __init__(self) -> None:
        self._begun_us: int | None = None
        self._span_began_us = 0
        self._last_us = 0
        self._percents: list[float] = []
        self._memory_bytes = self._open_files = self._written_bytes = 0

    def add(self, usage: Usage, at_us: int) -> Point | None:
        """Take one sample up. Gives the point that it completes."""
        if self._begun_us is None:
            self._begun_us = self._span_began_us = self._last_us = at_us
        self._last_us = max(self._last_us, at_us)
        self._percents.append(usage.cpu_percent)
        self._memory_bytes = max(self._memory_bytes, usage.memory_bytes)
        self._open_files = max(self._open_files, usage.open_files)
        self._written_bytes = usage.disk_written_bytes
        span_s = (self._last_us - self._span_began_us) / 1e6
        return self.end() if span_s >= _span_at((self._last_us - self._begun_us) / 1e6) else None

    def end(self) -> Point | None:
        """The point of what was taken up since the last one."""
        if not self._percents:
            return None
        point = Point(
            self._last_us,
            round((self._last_us - self._span_began_us) / 1e6, 3),
            round(sum(self._percents) / len(self._percents), 2),
            self._memory_bytes,
            self._open_files,
            self._written_bytes,
        )
        self._span_began_us, self._percents = self._last_us, []
        self._memory_bytes = self._open_files = 0
        return point


def _span_at(age_s: float) -> float:
    return next((span_s for until_s, span_s in SPANS if age_s < until_s), LAST_SPAN_S)


class SeriesKeeper:
    """Looks at each pass of the sampler and writes what is new, in one commit.

    That is every ten seconds, and where an attempt begins or ends.

    Args:
        write: see ``usage_samples.write``.
        runs: attempt id -> run id, of the attempts that live.
        clock: microseconds since the epoch; steady: by a clock that nobody sets.
    """

    def __init__(
        self,
        write: Callable[[Sequence[tuple[str, str, Point]]], None],
        runs: Callable[[], Mapping[str, str]],
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        steady: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._write = write
        self._runs = runs
        self._clock = clock
        self._steady = steady
        self._series: dict[str, tuple[str, Series]] = {}  # With the run of each.
        self._waiting: list[tuple[str, str, Point]] = []
        self._written_us = steady()
        self._told = False

    def look(self, attempts: Mapping[str, Usage]) -> None:
        """Take up what a pass saw."""
        at_us, due = self._clock(), False  # The first point of an attempt and its last are written at once.
        if attempts:
            runs = self._runs()
            for attempt_id, usage in attempts.items():
                if attempt_id not in self._series:
                    if attempt_id not in runs:
                        continue  # It has ended between the two looks.
                    self._series[attempt_id] = (runs[attempt_id], Series())
                    due = True
                run_id, series = self._series[attempt_id]
                self._add(run_id, attempt_id, series.add(usage, at_us))
        for attempt_id in [name for name in self._series if name not in attempts]:
            run_id, series = self._series.pop(attempt_id)
            self._add(run_id, attempt_id, series.end())
            due = True
        if self._waiting and (due or self._steady() - self._written_us >= FLUSH_S * 1e6):
            self.flush()

    def close(self) -> None:
        """Write the rest. Attempts that live go on, and whoever adopts them begins a new point."""
        for attempt_id, (run_id, series) in self._series.items():
            self._add(run_id, attempt_id, series.end())
        self._series.clear()
        if self._waiting:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A failure is told once and loses nothing but, in the end, the oldest points."""
        self._written_us = self._steady()
        try:
            self._write(self._waiting)
        except Busy:
            pass
        except Exception as error:  # Whatever it is: attempts and their log have nothing to do with it.
            if not self._told:
                trouble.warn("what attempts use over time cannot be written down: {}", error)
            self._told = True
        else:
            self._waiting.clear()
            self._told = False
        del self._waiting[:-_MOST_WAITING]

    def _add(self, run_id: str, attempt_id: str, point: Point | None) -> None:
        if point is not None:
            self._waiting.append((run_id, attempt_id, point))
