"""Which processes belong to which attempt, and what each attempt has used. Pure: rows of the process table come in.

An attempt has its first process, all that descends from a member, whoever carries its marker, and whoever was a member
before: so what calls setsid or forks twice is still counted. What has cleared its environment and lost its parent before
the first sample saw it is not; the supervisor ends that all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from parallel_agents.scheduler.machine_load import Usage

ID = tuple[int, int]  # Pid and start time.


class Row(NamedTuple):
    """One process as a pass saw it."""

    pid: int
    parent: int
    start_time: int
    session: int
    nice: int
    cpu_s: float  # Its own.
    waited_s: float  # Of the children that it has waited for, theirs included.
    memory_bytes: int  # Resident.

    @property
    def id(self) -> ID:
        """Who it is, whoever has its pid later."""
        return self.pid, self.start_time


class Held(NamedTuple):
    """What only members are asked for. ``written_bytes`` includes that of children that were waited for."""

    open_files: int
    written_bytes: int


class Membership:
    """Remembers whose each process is, so that a marker is read once for each."""

    def __init__(self, marker_of: Callable[[int], str | None]) -> None:
        self._marker_of = marker_of  # Dear: a file of its own to read.
        self._owners: dict[ID, str] = {}
        self._strangers: set[ID] = set()

    def members(self, roots: Mapping[str, int], table: Mapping[int, Row]) -> dict[str, list[Row]]:
        """The living processes of each attempt.

        Args:
            roots: attempt id -> pid of its first process.
            table: all processes by pid.
        """
        children: dict[int, list[Row]] = {}
        for row in table.values():
            children.setdefault(row.parent, []).append(row)
        owners: dict[ID, str] = {}
        for attempt_id, pid in roots.items():
            if pid in table:
                owners[table[pid].id] = attempt_id
        for who, attempt_id in self._owners.items():
            if attempt_id in roots and who[0] in table and table[who[0]].start_time == who[1]:
                owners.setdefault(who, attempt_id)
        _descend([table[pid] for pid, _ in owners], children, owners)
        strangers = set()
        for row in table.values():
            if row.id in owners:
                continue
            if row.id not in self._strangers and row.memory_bytes:  # Else it is the kernel's own, or dead.
                marker = self._marker_of(row.pid)
                if marker is not None and marker in roots:
                    owners[row.id] = marker
                    _descend([row], children, owners)
                    continue
            strangers.add(row.id)
        self._owners, self._strangers = owners, strangers
        found: dict[str, list[Row]] = {attempt_id: [] for attempt_id in roots}
        for (pid, _), attempt_id in owners.items():
            found[attempt_id].append(table[pid])
        return found


def _descend(begin: Iterable[Row], children: Mapping[int, list[Row]], owners: dict[ID, str]) -> None:
    waiting = list(begin)
    while waiting:
        row = waiting.pop()
        for child in children.get(row.pid, ()):
            if child.id not in owners:
                owners[child.id] = owners[row.id]
                waiting.append(child)


@dataclass(slots=True)
class Account:
    """What one attempt has used so far, and what the last pass saw of it."""

    usage: Usage = field(default_factory=Usage)
    at_us: int = 0  # Of the last pass, by the steady clock.
    rows: dict[ID, Row] = field(default_factory=dict)
    held: dict[ID, Held] = field(default_factory=dict)
    gone_cpu_s: float = 0.0  # Of processes that have ended and that nobody who still lives has waited for.
    gone_written_bytes: float = 0.0

    def take(
        self, rows: Iterable[Row], held: Mapping[int, Held], at_us: int, *, age_s: float, processors: int
    ) -> Usage:
        """Reckon with one more pass.

        Args:
            held: of each member by pid; one that could not be asked keeps what it had.
            at_us: of the pass, by the steady clock.
            age_s: how long the attempt has run; before its first sample it has used all that it has used in that time.
            processors: of the machine.
        """
        new_rows = {row.id: row for row in rows}
        new_held = {who: held.get(who[0]) or self.held.get(who, _NOTHING) for who in new_rows}
        self.gone_cpu_s += unaccounted(
            self.rows,
            new_rows,
            {who: row.cpu_s + row.waited_s for who, row in self.rows.items()},
            lambda who: new_rows[who].waited_s - self.rows[who].waited_s,
        )
        self.gone_written_bytes += unaccounted(
            self.rows,
            new_rows,
            {who: one.written_bytes for who, one in self.held.items()},
            lambda who: new_held[who].written_bytes - self.held[who].written_bytes,
        )
        before = self.usage
        cpu_s = max(before.cpu_s, self.gone_cpu_s + sum(row.cpu_s + row.waited_s for row in new_rows.values()))
        written = round(self.gone_written_bytes) + sum(one.written_bytes for one in new_held.values())
        memory = sum(row.memory_bytes for row in new_rows.values())
        open_files = sum(one.open_files for one in new_held.values())
        span_s = (at_us - self.at_us) / 1e6 if before.samples else age_s
        percent = before.cpu_percent
        if span_s >= SHORTEST_SPAN_S:
            percent = 100 * (cpu_s - before.cpu_s) / span_s / processors
        self.usage = replace(
            before,
            samples=before.samples + 1,
            cpu_s=cpu_s,
            cpu_percent=percent,
            peak_cpu_percent=max(before.peak_cpu_percent, percent),
            memory_bytes=memory,
            peak_memory_bytes=max(before.peak_memory_bytes, memory),
            open_files=open_files,
            peak_open_files=max(before.peak_open_files, open_files),
            disk_written_bytes=max(before.disk_written_bytes, written),
        )
        self.at_us, self.rows, self.held = at_us, new_rows, new_held
        return self.usage


_NOTHING = Held(0, 0)
SHORTEST_SPAN_S = 0.2
"""The kernel counts time in hundredths of a second: over a shorter span a share would be noise."""


def unaccounted(
    before: Mapping[ID, Row], now: Mapping[ID, Row], amounts: Mapping[ID, float], growth: Callable[[ID], float]
) -> float:
    """What processes that have ended had used and no process that lives tells of.

    A parent that waits for its child takes over what the child has used. So what has ended is looked for with its nearest
    ancestor that still lives; as far as that one's own count did not grow, nobody has waited, and we keep it.

    Args:
        before: the members that the last pass saw, and ``amounts``, what each had used by then.
        growth: how much the count of one that lives has grown since by what it may have taken over.
    """
    by_pid = {who[0]: who for who in before}
    owed: dict[ID, float] = {}
    lost = 0.0
    for who, row in before.items():
        if who in now:
            continue
        parent, seen = by_pid.get(row.parent), {who}
        while parent is not None and parent not in now and parent not in seen:
            seen.add(parent)
            parent = by_pid.get(before[parent].parent)
        amount = amounts.get(who, 0.0)
        if parent is None or parent not in now:
            lost += amount
        else:
            owed[parent] = owed.get(parent, 0.0) + amount
    return lost + sum(max(0.0, amount - growth(who)) for who, amount in owed.items())
