"""Which process is which, and who descends from whom.

A pid alone names nobody: it is given out again. A process is its pid, its start time and the boot it belongs to. Whatever
an attempt leaves behind is found by descent and by a marker in its environment, in one pass over ``/proc``.
Stdlib only and quick to import, because the supervisor of attempts starts with it; psutil serves where there is no
``/proc`` (macOS).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

MARKER = "PARALLEL_AGENTS_ATTEMPT"
"""The environment variable that every process of an attempt carries; its value is the attempt's id."""

_MARKER_ENTRY = b"\0" + MARKER.encode() + b"="
_LINUX = sys.platform.startswith("linux")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LONGEST_REST_S = 0.02  # Between two looks at processes that were told to end.


class ProcessIdentity(NamedTuple):
    """One process, told apart from every other one that ever has its pid."""

    pid: int
    start_time: int  # Clock ticks since boot on Linux, microseconds since the epoch on macOS.
    boot_id: str

    def to_dict(self) -> dict[str, int | str]:
        """As it stands in JSON: ``{"pid", "start_time", "boot_id"}``."""
        return self._asdict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessIdentity:
        """Read what ``to_dict`` gave; other keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: it is no identity.
        """
        try:
            return cls(int(data["pid"]), int(data["start_time"]), str(data["boot_id"]))
        except OverflowError:  # JSON of ours holds no Infinity; what somebody else wrote may.
            raise ValueError("no number of a process") from None


class ProcessRow(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    group: int  # 0 where the system does not say.
    start_time: int
    zombie: bool


def cpu_s_of(pid: int) -> float:
    """Seconds of CPU that a process has used, with those of children that it has waited for; 0 where it is gone."""
    if not _LINUX:
        return _cpu_s_by_psutil(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return 0.0
    fields = line[line.rfind(b")") + 2 :].split(None, 16)
    return sum(map(int, fields[11:15])) / _TICKS_PER_S if len(fields) > 15 else 0.0


@cache
def boot_id() -> str:
    """What names this boot of the machine."""
    if _LINUX:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    # kern.boottime moves when the clock is set, which would make every living process look dead.
    import ctypes

    name = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(name))
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", name, ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
        return name.value.decode("ascii", "replace")
    import psutil

    return str(int(psutil.boot_time()))


def process_row(pid: int) -> ProcessRow | None:
    """The process that has this pid now, or None."""
    if not _LINUX:
        return _row_by_psutil(pid)
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        line = os.read(fd, 4096)
    except OSError:  # It went away between the two calls.
        return None
    finally:
        os.close(fd)
    fields = line[line.rfind(b")") + 2 :].split(None, 20)  # The name before it may hold spaces and brackets.
    if len(fields) < 20:
        return None
    return ProcessRow(pid, int(fields[1]), int(fields[2]), int(fields[19]), fields[0] in (b"Z", b"X"))


def start_time_now() -> int:
    """The start time that a process begun right now gets, in the units of ``ProcessIdentity``.

    Where it is the same before and after a spawn, it is the child's: reading ``/proc`` of a process in the middle of its
    exec waits for that exec, a fifth of a millisecond.
    """
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _TICKS_PER_S // 1_000_000_000
    return time.time_ns() // 1000


def processes() -> dict[int, ProcessRow]:
    """All processes that can be seen, in one pass: about 10 microseconds for each."""
    if _LINUX:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    else:
        import psutil

        pids = psutil.pids()
    return {pid: row for pid in pids if (row := process_row(pid)) is not None}


def identity_of(pid: int) -> ProcessIdentity | None:
    """Who has this pid now (a zombie still has it), or None."""
    row = process_row(pid)
    return None if row is None else ProcessIdentity(pid, row.start_time, boot_id())


@cache
def _identity_by_pid(pid: int) -> ProcessIdentity:
    found = identity_of(pid)
    assert found is not None, "a process that asks for itself exists"
    return found


def own_identity() -> ProcessIdentity:
    """Who we are. Cached, and still right after a fork."""
    return _identity_by_pid(os.getpid())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still runs. A zombie is dead, and so is whatever ran before a reboot."""
    row = process_row(identity.pid)
    return (
        row is not None and not row.zombie and row.start_time == identity.start_time and identity.boot_id == boot_id()
    )


def holder_alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process that holds a lease is still there."""
    try:
        return is_alive(ProcessIdentity.from_dict(holder))
    except (KeyError, TypeError, ValueError):
        return False


def descendants(pids: Iterable[int], table: Mapping[int, ProcessRow] | None = None) -> set[int]:
    """The pids of all children, children's children and so on; ``pids`` themselves are not among them.

    Args:
        pids: where to begin.
        table: what ``processes`` gave, where the caller has it already.
    """
    children: dict[int, list[int]] = {}
    for row in (processes() if table is None else table).values():
        children.setdefault(row.parent, []).append(row.pid)
    roots = set(pids)
    found: set[int] = set()
    open_ends = list(roots)
    while open_ends:
        for child in children.get(open_ends.pop(), ()):
            if child not in found and child not in roots:
                found.add(child)
                open_ends.append(child)
    return found


def marker_of(pid: int) -> str | None:
    """The id of the attempt that a process says it belongs to; None for strangers and for what we may not read."""
    if not _LINUX:
        return _marker_by_psutil(pid)
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    except OSError:
        return None
    environment = b"\0"
    try:
        while chunk := os.read(fd, 65536):
            environment += chunk
    except OSError:
        return None
    finally:
        os.close(fd)
    begin = environment.find(_MARKER_ENTRY)
    if begin < 0:
        return None
    begin += len(_MARKER_ENTRY)
    end = environment.find(b"\0", begin)
    return environment[begin : end if end >= 0 else None].decode("utf-8", "replace")


def carriers(attempt_ids: Collection[str], table: Mapping[int, ProcessRow] | None = None) -> dict[int, str]:
    """Which processes carry the marker of one of these attempts: pid to attempt id."""
    wanted = set(attempt_ids)
    return {
        pid: marker
        for pid in (processes() if table is None else table)
        if (marker := marker_of(pid)) is not None and marker in wanted
    }


def family(roots: Iterable[ProcessIdentity], attempt_ids: Collection[str]) -> list[ProcessIdentity]:
    """Whatever lives of some attempts: ``roots``, carriers of their marker, and all that descends from either.

    A root whose pid belongs to somebody else by now is no root. The calling process is never part of it.
    """
    table = processes()
    boot = boot_id()
    first = {
        root.pid
        for root in roots
        if root.pid in table and table[root.pid].start_time == root.start_time and root.boot_id == boot
    }
    first.update(carriers(attempt_ids, table))
    first.discard(os.getpid())
    members = (first | descendants(first, table)) - {os.getpid()}
    return [ProcessIdentity(pid, table[pid].start_time, boot) for pid in members if not table[pid].zombie]


def send_signal(target: ProcessIdentity, signum: int) -> bool:
    """Signal exactly this process, never the next one with its pid.

    Returns:
        False where it is gone or not ours to signal.
    """
    try:
        fd = os.pidfd_open(target.pid) if hasattr(os, "pidfd_open") else -1
    except ProcessLookupError:
        return False
    except OSError:  # An old kernel, or no descriptor left: check and kill is nearly as good.
        fd = -1
    try:
        if identity_of(target.pid) != target:
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, signum)
        else:
            os.kill(target.pid, signum)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def end_processes(find: Callable[[], list[ProcessIdentity]], *, grace_s: float, give_up_s: float = 5.0) -> bool:
    """End whatever ``find`` finds: SIGTERM, after ``grace_s`` SIGKILL, until nothing is found. Blocks that long.

    Returns:
        False where something could not be ended within ``give_up_s`` after the SIGKILL.
    """
    begun = time.monotonic()
    asked: set[ProcessIdentity] = set()
    rest_s = 0.001
    while found := find():
        waited_s = time.monotonic() - begun
        if waited_s > grace_s + give_up_s:
            return False
        for one in found:
            if waited_s >= grace_s:
                send_signal(one, signal.SIGKILL)
            elif one not in asked:
                asked.add(one)
                send_signal(one, signal.SIGTERM)
                send_signal(one, signal.SIGCONT)  # A stopped process would sleep through the SIGTERM.
        time.sleep(rest_s)
        rest_s = min(rest_s * 2, _LONGEST_REST_S)
    return True


def _row_by_psutil(pid: int) -> ProcessRow | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            zombie = process.status() == psutil.STATUS_ZOMBIE
            started = round(process.create_time() * 1_000_000)
            parent = process.ppid()
    except psutil.Error:
        return None
    try:
        group = os.getpgid(pid)
    except OSError:
        group = 0
    return ProcessRow(pid, parent, group, started, zombie)


def _cpu_s_by_psutil(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _marker_by_psutil(pid: int) -> str | None:
    import psutil

    try:
        return psutil.Process(pid).environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
