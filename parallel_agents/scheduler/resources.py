"""What attempts use of the machine, sampled in one pass over all processes, and what it has left for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

INTERVAL_S = 1.0
_FIELDS = ["pid", "ppid", "memory_info"]


def tree_memory(roots: Mapping[str, int]) -> dict[str, int]:
    """Resident memory of each process tree, in bytes, by one pass over the process table.

    Args:
        roots: attempt id -> pid of its first process.
    """
    import psutil  # A run of less than a second takes no sample.

    children: dict[int, list[int]] = {}
    memory: dict[int, int] = {}
    for process in psutil.process_iter(_FIELDS):
        info = process.info
        children.setdefault(info["ppid"] or 0, []).append(info["pid"])
        memory[info["pid"]] = info["memory_info"].rss if info["memory_info"] else 0
    found: dict[str, int] = {}
    for attempt_id, root in roots.items():
        waiting, total = [root], 0
        while waiting:
            pid = waiting.pop()
            total += memory.get(pid, 0)
            waiting += children.get(pid, ())
        found[attempt_id] = total
    return found


def free_bytes(folder: Path) -> int | None:
    """What somebody without privileges can still write where a folder lies, or will lie; None where that is unknown."""
    for there in (folder, *folder.parents):
        try:
            found = os.statvfs(there)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None


class FreeSpace:
    """The same of one folder, asked for at every tick and measured once a second at most."""

    def __init__(self, folder: Path, steady: Callable[[], int]) -> None:
        self._folder = folder
        self._steady = steady  # Microseconds.
        self._measured_us: int | None = None
        self._bytes: int | None = None

    def bytes(self) -> int | None:
        """As of less than a second ago."""
        now_us = self._steady()
        if self._measured_us is None or now_us - self._measured_us >= INTERVAL_S * 1e6:
            self._measured_us, self._bytes = now_us, free_bytes(self._folder)
        return self._bytes


class Sampler:
    """Samples the live attempts about once a second and keeps the peak of each. Idle while nothing runs."""

    def __init__(self, live: Callable[[], Mapping[str, int]], *, interval_s: float = INTERVAL_S) -> None:
        self._live = live
        self._interval_s = interval_s
        self._peaks: dict[str, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin sampling, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End sampling."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def peak(self, attempt_id: str) -> int:
        """The highest sample of an attempt's process tree, in bytes; 0 if it was too short for one. Forgets it."""
        return self._peaks.pop(attempt_id, 0)

    def sample(self) -> None:
        """One pass."""
        roots = dict(self._live())
        if not roots:
            return
        for attempt_id, size in tree_memory(roots).items():
            self._peaks[attempt_id] = max(size, self._peaks.get(attempt_id, 0))

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.sample()
