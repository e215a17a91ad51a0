"""How much of its time a run has used, and when a rest is over: by the clock of whoever dispatches. Pure.

The clock of the machine may be set by days, and goes on while the machine is suspended or nobody dispatches. None of that is
a fault of the run's.
"""

from __future__ import annotations

from dataclasses import dataclass

from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide import is_stuck


@dataclass(slots=True)
class RunTime:
    """What a run has used of its ``max_execution_s``, counted while a process dispatches it."""

    used_us: int
    since_us: int | None  # The start or resume from which it counts, as the log names it.
    looked_us: int  # When last, by the steady clock.

    @classmethod
    def of(cls, state: RunState, steady_us: int) -> RunTime:
        """As far as the log knows it: by the last start of a task, or when its last dispatcher let go of it."""
        return cls(state.used_us, state.active_since_us, steady_us)

    def look(self, state: RunState, steady_us: int, *, waits: bool) -> int:
        """Count the time since the last look, if it is time in which the run went on.

        Args:
            steady_us: now, by a clock that nobody sets.
            waits: whether it can do nothing but wait for a provider.
        Returns:
            Microseconds that it has used since its start or its last resume.
        """
        passed_us, self.looked_us = steady_us - self.looked_us, steady_us
        if state.active_since_us != self.since_us:
            self.used_us, self.since_us = state.used_us, state.active_since_us
        elif state.status == st.RUNNING and not waits and not is_stuck(state):
            self.used_us += passed_us
        return self.used_us


@dataclass(slots=True)
class RestClock:
    """Now, as far as the rests before retries go.

    The time of events stands still after the clock was set back, until it has caught up. Rests go on meanwhile, by the steady
    clock, from the time that it gave when the last event was appended: so whoever begins one must take its time as the beginning.
    A time that it gave and that no event tells of is forgotten once the clock is set back: nobody else has ever seen it.
    """

    now_us: int = 0  # What it gave last,
    at_us: int = 0  # for an event of that time,
    looked_us: int = 0  # and when that was by the steady clock.
    kept_us: int = 0  # The last of these times that an event tells of,
    kept_looked_us: int = 0  # and when it gave that.

    def look(self, at_us: int, last_at_us: int, steady_us: int) -> int:
        """Now, in microseconds since the epoch; never before what it gave when the last event was appended.

        Args:
            at_us: the time of the next event; that of the last one where the clock is behind.
            last_at_us: the time of the last event.
            steady_us: by a clock that nobody sets.
        """
        if last_at_us >= self.at_us:
            self.kept_us, self.kept_looked_us = self.now_us, self.looked_us
        now_us = at_us
        if self.kept_us and (at_us == last_at_us or at_us < self.now_us):
            now_us = max(at_us, self.kept_us + steady_us - self.kept_looked_us)
        self.now_us, self.at_us, self.looked_us = now_us, at_us, steady_us
        return now_us
