"""Holds attempts to their limits where no control group does it, and in every case ends one that uses too much memory.

Called after each pass of the sampler, for attempts of this process and for adopted ones alike. Where there are control
groups the kernel enforces both limits, whether we live or not; what is here is a second look then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.process import process_row
from parallel_agents.scheduler.runners.launcher import NICE
from parallel_agents.scheduler.runners.limits import MEMORY, Limits, too_much
from parallel_agents.scheduler.sampling import proportional_bytes
from parallel_agents.scheduler.trees import Row

SAMPLES_ABOVE: Final = 5
"""In a row, before an attempt gets a lower priority: a compiler that works for a moment is no hog."""

STEPS: Final = (10, 15, 19)
"""The priorities that a hog gets, one after the other. Only the administrator could raise them again."""

OOM_SCORE: Final = 300
"""Where the machine's memory runs out, the kernel ends something of an attempt before a person's program."""

_SLACK: Final = 1.05  # A sample is not exact.
_GRACE_S: Final = 1.0  # For an end by itself; whoever has taken twice its share gets none.


class Ender(Protocol):
    """Ends an attempt, with an error and the kind of failure that it is."""

    def __call__(self, attempt_id: str, *, error: str, kind: str, grace_s: float) -> None: ...


class Hogs:
    """Which attempts have used more of the processors than their share, for how long. Pure."""

    def __init__(self) -> None:
        self._above: dict[str, int] = {}
        self._steps: dict[str, int] = {}

    def lower(self, limits: Mapping[str, Limits], attempts: Mapping[str, Usage]) -> dict[str, int]:
        """The priorities that attempts are to have by now; one that was lowered stays so."""
        self._steps = {name: step for name, step in self._steps.items() if name in attempts}
        above: dict[str, int] = {}
        for name, usage in attempts.items():
            share = limits[name].cpu_percent if name in limits else None
            if share is None or usage.cpu_percent <= share * _SLACK:
                continue
            above[name] = self._above.get(name, 0) + 1
            if above[name] >= SAMPLES_ABOVE:
                above[name] = 0
                self._steps[name] = min(self._steps.get(name, 0) + 1, len(STEPS))
        self._above = above
        return {name: STEPS[step - 1] for name, step in self._steps.items()}


class Enforcer:
    """Looks at each pass of the sampler.

    Args:
        limits: of the attempts that have any; asked from the sampler's thread.
    """

    def __init__(
        self,
        limits: Callable[[], Mapping[str, Limits]],
        end: Ender,
        *,
        exact: Callable[[Sequence[int]], int | None] = proportional_bytes,
    ) -> None:
        self._limits = limits
        self._end = end
        self._exact = exact
        self._hogs = Hogs()
        self._least_nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        self._sessions: dict[int, int] = {}  # Whose share of the processors was looked at, and what it is.
        self._passes: dict[str, int] = {}  # Over each attempt, as far as they matter.

    def look(self, attempts: Mapping[str, Usage], members: Mapping[str, Sequence[Row]]) -> None:
        """Act on what a pass saw.

        Args:
            members: the processes of each attempt.
        """
        limits = self._limits()
        lowered = self._hogs.lower(limits, attempts)
        sessions: dict[int, int] = {}
        self._passes = {name: min(3, self._passes.get(name, 0) + 1) for name in members}
        for name, rows in members.items():
            # Later ones have it from those that are there; one that was begun in the middle of a pass is seen by the next.
            for row in rows if self._passes[name] <= 2 else ():
                make_first_to_go(row.pid)
        for name, rows in members.items():
            # Some are not that low: a command may have had children before its supervisor could lower it.
            nice = max(self._least_nice, lowered.get(name, 0))
            for row in rows:
                if row.nice < nice:
                    lower_priority(row, nice)
                if sessions.get(row.session, -1) < nice:
                    known = self._sessions.get(row.session, -1)
                    sessions[row.session] = known if known >= nice else lower_session(row.pid, nice)
        self._sessions = sessions
        for name, usage in attempts.items():
            limit = limits[name].memory_bytes if name in limits else None
            if limit is not None and usage.memory_bytes > limit:
                self._too_much(name, usage.memory_bytes, limit, members.get(name, ()))

    def _too_much(self, attempt_id: str, resident: int, limit: int, rows: Sequence[Row]) -> None:
        """What its processes share was counted for each of them. Before it ends for that it is counted once."""
        exact = self._exact([row.pid for row in rows])
        used = resident if exact is None else min(exact, resident)
        if used > limit:
            grace_s = 0.0 if used > 2 * limit else _GRACE_S
            self._end(attempt_id, error=too_much(limit, used), kind=MEMORY, grace_s=grace_s)


def lower_priority(row: Row, nice: int) -> None:
    """Let a process come after others."""
    found = process_row(row.pid)
    if found is not None and found.start_time == row.start_time:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, row.pid, nice)


def make_first_to_go(pid: int) -> None:
    """See ``OOM_SCORE``."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/oom_score_adj", "r+", encoding="ascii") as file:
        if int(file.read()) < OOM_SCORE:
            file.seek(0)
            file.write(str(OOM_SCORE))


def lower_session(pid: int, nice: int) -> int:
    """Let the session of a process come after others, where the kernel shares the processors out by session (autogroup).

    Returns:
        How low it is. Where that cannot be changed, as more than ten times a second, the next pass tries again.
    """
    try:
        with open(f"/proc/{pid}/autogroup", "r+", encoding="ascii") as file:
            found = int(file.read().split()[-1])
            if found >= nice:
                return found
            file.seek(0)
            file.write(str(nice))
    except FileNotFoundError:
        return 19  # The kernel does no such thing.
    except (OSError, ValueError, IndexError):
        return -1
    return nice
