"""Time that nobody sets, and that stands still while whoever measures it is stopped.

The standard library's steady clock does not go on while a machine is suspended, but does so while a process is stopped
(SIGSTOP, Ctrl-Z). Stdlib only, because the supervisor of attempts starts with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LONGEST_S: Final = 5.0
"""A longer gap between two looks is time in which nobody was awake. Whoever measures looks about once a second or two."""


class AwakeClock:
    """Seconds that somebody was awake. For one thread, which looks often.

    Args:
        steady: seconds by a clock that nobody sets.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._looked_s = steady()
        self._now_s = 0.0

    def now_s(self) -> float:
        """Seconds since an arbitrary moment. Of the time since the last look, five seconds count at most."""
        looked_s = self._steady()
        self._now_s += min(looked_s - self._looked_s, LONGEST_S)
        self._looked_s = looked_s
        return self._now_s

    def now_us(self) -> int:
        """The same in microseconds."""
        return round(self.now_s() * 1e6)
