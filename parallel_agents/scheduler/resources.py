"""What attempts use of the machine, sampled in one pass over all processes, and what it has left for them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.machine_load import UNKNOWN, MachineLoad, Usage
from parallel_agents.scheduler.process import marker_of
from parallel_agents.scheduler.sampling import Machine, age_s, available_bytes, held, process_table
from parallel_agents.scheduler.trees import Account, Membership, Row

INTERVAL_S = 1.0
_PROCESSORS = os.cpu_count() or 1
_ADOPTED_S = 1.2 * INTERVAL_S  # One of our own is sampled sooner.
_KEPT_US = 600_000_000  # A slow end (its files are merged first) is asked for within that time.


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
    """Samples the machine and the live attempts about once a second, in one pass for all of them.

    Args:
        live: attempt id -> pid of its first process.
        look: called after each pass, with what each living attempt has used and its processes.
        earlier: what was seen of an attempt by whoever sampled it before us; asked for where one is old already.
    """

    def __init__(
        self,
        live: Callable[[], Mapping[str, int]],
        *,
        look: Callable[[Mapping[str, Usage], Mapping[str, list[Row]]], None] | None = None,
        earlier: Callable[[str], Usage | None] = lambda attempt_id: None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._live = live
        self._earlier = earlier
        self._look = look
        self._interval_s = interval_s
        self._machine = Machine()
        self._membership = Membership(marker_of)
        self._accounts: dict[str, Account] = {}  # Of those that live, and of those that nobody has asked for yet.
        self._load = UNKNOWN
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

    def load(self) -> MachineLoad:
        """The machine and the attempts as of the last pass, about a second ago at most. Any thread."""
        return self._load

    def used(self, attempt_id: str) -> Usage | None:
        """What an attempt has used by its last sample; None if it was too short for one. Forgets it. Any thread."""
        account = self._accounts.pop(attempt_id, None)
        return None if account is None else account.usage

    def sample(self) -> None:
        """One pass."""
        at_us = time.monotonic_ns() // 1000
        roots = dict(self._live())
        members = self._sample_attempts(roots, at_us) if roots else {}
        living = {attempt_id: account.usage for attempt_id in members if (account := self._accounts.get(attempt_id))}
        self._forget(roots, at_us)
        self._load = MachineLoad(at_us, self._machine.cpu_percent(at_us), available_bytes(), living)
        if self._look is not None:
            self._look(living, members)

    def _sample_attempts(self, roots: Mapping[str, int], at_us: int) -> dict[str, list[Row]]:
        """The processes of each attempt that has any; one may have ended without that having been taken up yet."""
        table = process_table()
        members = {name: rows for name, rows in self._membership.members(roots, table).items() if rows}
        for attempt_id, rows in members.items():
            first = table.get(roots[attempt_id])
            old_s = 0.0 if first is None else age_s(first.start_time)
            account = self._accounts.get(attempt_id)
            if account is None:
                known = self._earlier(attempt_id) if old_s > _ADOPTED_S else None
                account = self._accounts[attempt_id] = Account(known or Usage())
            account.take(rows, held(row.pid for row in rows), at_us, age_s=old_s, processors=_PROCESSORS)
        return members

    def _forget(self, roots: Mapping[str, int], at_us: int) -> None:
        """Of what has ended and nobody asks for, such as a gate."""
        for attempt_id, account in list(self._accounts.items()):
            if attempt_id not in roots and at_us - account.at_us > _KEPT_US:
                self._accounts.pop(attempt_id, None)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            try:
                self.sample()
            except Exception:  # Whatever it is: the next pass may do.
                trouble.report_exception("a sample of the machine failed")
