"""How much of its time a run has used, by the clock of whoever dispatches. Pure.

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
