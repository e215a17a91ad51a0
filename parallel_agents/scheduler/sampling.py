"""Reads the process table, and what the machine has left. A pass costs about ten microseconds for each process.

On Linux straight from ``/proc``: one file of each process tells all but what is asked of members alone. psutil, which asks
for each field on its own, takes several times as long; it serves where there is no ``/proc`` (macOS).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable
from typing import Final

from parallel_agents.scheduler.process import start_time_now
from parallel_agents.scheduler.trees import Held, Row

_LINUX: Final = sys.platform.startswith("linux")
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
MEAN_S: Final = 5.0  # What the load of the machine is a mean of.


def process_table() -> dict[int, Row]:
    """All processes that can be seen, by pid."""
    if not _LINUX:
        return _table_by_psutil()
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (row := _row(name)) is not None:
            table[row.pid] = row
    return table


def _row(name: str) -> Row | None:
    line = _read(f"/proc/{name}/stat")
    fields = line[line.rfind(b")") + 2 :].split(None, 22)  # The name before it may hold spaces and brackets.
    if len(fields) < 22:
        return None
    own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return Row(
        int(name), int(fields[1]), int(fields[19]), int(fields[3]), int(fields[16]),
        own * _TICK_S, waited * _TICK_S, int(fields[21]) * _PAGE_BYTES,
    )  # fmt: skip


def _read(path: str) -> bytes:
    """A small file of the kernel's; empty where it is gone or not for us."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def held(pids: Iterable[int]) -> dict[int, Held]:
    """Open files and bytes written of each process that lets itself be asked."""
    found = {}
    for pid in pids:
        one = _held(pid) if _LINUX else _held_by_psutil(pid)
        if one is not None:
            found[pid] = one
    return found


def _held(pid: int) -> Held | None:
    try:
        open_files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    written = 0
    for line in _read(f"/proc/{pid}/io").splitlines():
        if line.startswith(b"write_bytes:"):
            written = int(line[12:])
    return Held(open_files, written)


def proportional_bytes(pids: Iterable[int]) -> int | None:
    """The memory of some processes with what they share counted once; None where that cannot be told.

    Dear, a walk over all pages: for a question that is worth it.
    """
    total = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total or None


def age_s(start_time: int) -> float:
    """How long ago a process has begun."""
    passed = start_time_now() - start_time
    return max(0.0, passed * _TICK_S if _LINUX else passed / 1e6)


class Machine:
    """The load of all processors and the memory that is left."""

    def __init__(self) -> None:
        self._times: deque[tuple[int, float, float]] = deque()  # When (microseconds), busy and all, in any unit.

    def cpu_percent(self, at_us: int) -> float | None:
        """The mean since five seconds ago, or since the first call; None at the first."""
        busy, total = _processor_times()
        times = self._times
        while len(times) > 1 and at_us - times[1][0] >= MEAN_S * 1e6:
            times.popleft()
        times.append((at_us, busy, total))
        passed = total - times[0][2]
        return None if passed <= 0 else min(100.0, max(0.0, 100 * (busy - times[0][1]) / passed))


def _processor_times() -> tuple[float, float]:
    if not _LINUX:
        import psutil

        times = psutil.cpu_times()
        return sum(times) - times.idle, sum(times)
    # user nice system idle iowait irq softirq steal; what guests take is in the first two already.
    values = [int(value) for value in _read("/proc/stat").split(b"\n", 1)[0].split()[1:9]]
    if len(values) < 5:
        return 0.0, 0.0
    return sum(values) - values[3] - values[4], sum(values)


def available_bytes() -> int | None:
    """Memory that could still be given out without swapping; None where the system does not say."""
    if not _LINUX:
        import psutil

        return int(psutil.virtual_memory().available)
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(b"MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _table_by_psutil() -> dict[int, Row]:
    import psutil

    table = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():
            times, pid = process.cpu_times(), process.pid
            started = round(process.create_time() * 1_000_000)
            table[pid] = Row(
                pid, process.ppid(), started, os.getsid(pid), process.nice(), times.user + times.system,
                0.0, process.memory_info().rss,
            )  # fmt: skip
    return table


def _held_by_psutil(pid: int) -> Held | None:
    import psutil

    try:
        return Held(psutil.Process(pid).num_fds(), 0)
    except (psutil.Error, OSError):
        return None
