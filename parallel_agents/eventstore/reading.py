"""What is read of a log: rows by seq, by run and by task, some at a time, with the bodies that were moved to archives."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, cast

from parallel_agents.eventstore.archive import Archives
from parallel_agents.eventstore.caches import Caches
from parallel_agents.eventstore.errors import UnknownEvent
from parallel_agents.eventstore.links import Stored
from parallel_agents.eventstore.of_attempt import MAKE_VIEW_INDEXES, VIEW_INDEXES
from parallel_agents.eventstore.of_task import MAKE_TASK_INDEX, OF_TASK, TASK_INDEX
from parallel_agents.eventstore.record import Brief, Recorded, Row, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.sqlite import explained
from parallel_agents.eventstore.stored_rows import COLUMNS, FIRST, in_chunks

_EVENT = "seq, run_id, version, type, at, actor, body"  # What an event is decoded from; ``COLUMNS`` begins with it.
_BRIEF = "SELECT seq, version, type, at, body FROM events WHERE run_id = ?"
_BRIEF_BETWEEN = "SELECT seq, version, type, at, body FROM events WHERE seq > ? AND seq <= ? AND +run_id = ?"
_CLOSE = 64  # Events of the log among which those of one run are found sooner than by its own index.
_OUTLINE = "SELECT seq, type, at FROM events WHERE run_id = ? AND version > ? AND seq <= ? ORDER BY version LIMIT ?"
_OF_ONE_TASK = f"{_BRIEF} AND {OF_TASK} = ? AND version > ? AND seq <= ? ORDER BY version"
_OF_SOME_TASKS = f"{_BRIEF} AND {OF_TASK} IN (SELECT value FROM json_each(?)) AND seq <= ?"
_OF_NO_TASK = f"{_BRIEF} AND {OF_TASK} IS NULL AND seq <= ?"
_MOVED = "length(body) = 0"  # Of a body that is said to be '' SQLite would not see that the index of tasks fits.
_UP_TO = "run_id = ? AND seq <= ?"
_CHUNK = 2000
_OUTLINE_CHUNK = 50_000  # Of rows without a body.


class Reading(Caches):
    """A store whose events are read."""

    _has_task_index = _has_indexes = False  # Once they are there, they stay.

    @cached_property
    def _archives(self) -> Archives:
        return Archives(self.path)

    def rows(
        self,
        after: int = 0,
        upto: int | None = None,
        *,
        run_id: str | None = None,
        where: str = "",
        limit: int | None = None,
        stored: bool = False,
    ) -> Iterator[Row]:
        """Stored rows with ``after < seq <= upto``, oldest first, read in chunks so that a long history needs no memory.

        Args:
            where: a literal condition on the row; never built from input.
            stored: as they stand in the table: where a body was moved to an archive, it is empty.
        """
        return map(Row._make, self._pages(COLUMNS, after, upto, run_id, where, limit, stored=stored))

    def _pages(
        self,
        columns: str,
        after: int,
        upto: int | None,
        run_id: str | None = None,
        where: str = "",
        limit: int | None = None,
        *,
        stored: bool = False,
    ) -> Iterator[tuple[Any, ...]]:
        """Rows in chunks. The columns begin with those of ``_EVENT``."""
        if where:
            where = f" AND {where}"
        who, by, place = "", "seq", 0
        key: list[str] = []
        if run_id is not None:
            # From its start on a run is read by its own index; its last events in the order of the log, where little
            # else has come since. (The sign keeps SQLite from sorting all of the run for every chunk.)
            who, key = " AND +run_id = ?", [run_id]
            if not after:
                who, by, place = " AND run_id = ?", "version", 2
        end = self.last_seq() if upto is None else upto
        first = after + 1 if after else FIRST
        # A run has no more versions than the log has events: SQLite need not look for early seqs beyond them.
        within = " AND version <= ?" if place else ""
        bounds = [end, end] if place else [end]
        left = limit
        while first <= end and (left is None or left > 0):
            size = _CHUNK if left is None else min(_CHUNK, left)
            chunk = self._fetch(
                f"SELECT {columns} FROM events WHERE {by} >= ? AND seq <= ?{within}{who}{where} ORDER BY {by} LIMIT ?",
                [first, *bounds, *key, size],
            )
            yield from chunk if stored else self._whole(chunk)
            if len(chunk) < size:
                return
            first = chunk[-1][place] + 1
            left = None if left is None else left - len(chunk)

    def chunks(self, after: int = 0, upto: int | None = None) -> Iterator[list[Stored]]:
        """All rows as they stand in the table, oldest first, some thousands at a time: for who looks at every one of them."""
        return in_chunks(self._fetch, after, self.last_seq() if upto is None else upto)

    def rows_where(self, condition: str, values: Sequence[object], *, order: str = "seq", limit: int = -1) -> list[Row]:
        """Rows that a condition fits, with their bodies, in an order; all at once.

        Args:
            condition, order: literal; what comes from outside stands in ``values``.
        """
        query = f"SELECT {COLUMNS} FROM events WHERE {condition} ORDER BY {order} LIMIT ?"
        return self._select(query, (*values, limit))

    def _select(self, query: str, values: Sequence[object]) -> list[Row]:
        return list(map(Row._make, self._whole(self._fetch(query, values))))

    def _whole(self, rows: list[tuple[Any, ...]], body: int = 6, run_id: str | None = None) -> list[tuple[Any, ...]]:
        """Rows with those bodies that were moved to an archive (see ``Archives.whole``)."""
        if all(map(itemgetter(body), rows)):
            return rows
        with self._lock:
            return self._archives.whole(rows, body, run_id)

    def briefs(
        self, run_id: str, after_version: int = 0, upto: int | None = None, *, where: str = "", after_seq: int = 0
    ) -> Iterator[Brief]:
        """What folds need of the rows of one run, from a version on and up to a seq.

        Args:
            where: a literal condition on the row; never built from input.
            after_seq: the seq of that version, where it is known: then less has to be looked through for the end.
        """
        condition = f" AND {where}" if where else ""
        end = self.last_seq() if upto is None else upto
        if after_seq and end - after_seq <= _CLOSE:
            chunk = self._fetch(f"{_BRIEF_BETWEEN}{condition} ORDER BY seq", (after_seq, end, run_id))
            yield from cast("list[Brief]", self._whole(chunk, 4, run_id))
            return
        # By its versions, which are in the index that is read, or SQLite would look for rows of early seqs up to the run's end.
        last = after_version + end - after_seq
        while True:
            chunk = self._fetch(
                f"{_BRIEF} AND version > ? AND version <= ? AND seq <= ?{condition} ORDER BY version LIMIT ?",
                (run_id, after_version, last, end, _CHUNK),
            )
            yield from cast("list[Brief]", self._whole(chunk, 4, run_id))
            if len(chunk) < _CHUNK:
                return
            after_version = chunk[-1][1]

    def outline(self, run_id: str, after_version: int = 0, upto: int | None = None) -> Iterator[tuple[int, str, int]]:
        """Seq, type and time of the events of one run from a version on, oldest first: what a long one is leafed through by."""
        end = 2**62 if upto is None else upto
        while True:
            chunk = self._fetch(_OUTLINE, (run_id, after_version, end, _OUTLINE_CHUNK))
            yield from cast("list[tuple[int, str, int]]", chunk)
            if len(chunk) < _OUTLINE_CHUNK:
                return
            after_version += len(chunk)  # A run's versions have no gap.

    def rolled_back(self, run_id: str, after_version: int = 0, upto: int | None = None) -> bool:
        """Whether a rollback is among the events that ``briefs`` would give."""
        by_run = f"run_id = ? AND {OF_TASK} IS NULL" if self.has_task_index else f"{RUN_LEVEL} AND +run_id = ?"
        found = self._fetch(
            f"SELECT 1 FROM events WHERE {by_run} AND type = 'RunRolledBack' AND version > ? AND seq <= ? LIMIT 1",
            (run_id, after_version, 2**62 if upto is None else upto),
        )
        return bool(found)

    @property
    def has_task_index(self) -> bool:
        """Whether the events of one task can be found without looking through its run. A newly made store has the index."""
        if not self._has_task_index:
            self._has_task_index = bool(self._fetch("SELECT 1 FROM sqlite_master WHERE name = ?", (TASK_INDEX,)))
        return self._has_task_index

    @property
    def has_indexes(self) -> bool:
        """Whether the store has every index that a newly made one has."""
        if not self._has_indexes:
            found = self._fetch("SELECT name FROM sqlite_master WHERE type = 'index'", ())
            self._has_indexes = {TASK_INDEX, *VIEW_INDEXES} <= {name for (name,) in found}
        return self._has_indexes

    def make_indexes(self) -> None:
        """Give a store of an older release its indexes. Two seconds for a million events, in which nobody can append."""
        with self._lock, explained(self.path):
            for statement in (MAKE_TASK_INDEX, *MAKE_VIEW_INDEXES):
                self._writer.execute(statement)

    def task_briefs(
        self, run_id: str, task_id: str, upto: int | None = None, *, after_version: int = 0, archived: bool = True
    ) -> list[Brief]:
        """The events of a run that name a task, oldest first: some microseconds where there is the index for it.

        Args:
            after_version: those behind this version of the run.
            archived: whether bodies of the run may have been moved to an archive, where no index finds them.
        """
        end = 2**62 if upto is None else upto
        found = self._fetch(_OF_ONE_TASK, (run_id, task_id, after_version, end))
        if archived:
            query = f"{_OF_NO_TASK} AND {_MOVED} AND version > ?"
            moved = self._whole(self._fetch(query, (run_id, end, after_version)), 4, run_id)
            moved = [row for row in moved if f'"task_id":"{task_id}"' in row[4]]
            found = sorted(found + moved, key=itemgetter(1)) if moved else found
        return cast("list[Brief]", found)

    def briefs_of_tasks(self, run_id: str, task_ids: Sequence[str], upto: int | None = None) -> list[Brief]:
        """The same of several tasks of a run of which nothing was moved, all oldest first. The store has to have the index."""
        end = 2**62 if upto is None else upto
        found = self._fetch(_OF_SOME_TASKS, (run_id, json.dumps(task_ids), end))
        return cast("list[Brief]", sorted(found, key=itemgetter(1)))

    def taskless_briefs(self, run_id: str, types: Collection[str], upto: int | None = None) -> tuple[list[Brief], bool]:
        """The events of a run that name no task and are of some types, oldest first; and whether any body of it was moved.

        Args:
            types: names of classes, whose bodies are never moved to an archive.
        """
        query = f"{_OF_NO_TASK} AND (type IN {tuple(types)} OR {_MOVED}) ORDER BY version"
        rows = self._fetch(query, (run_id, 2**62 if upto is None else upto))
        found = [row for row in rows if row[4]]
        return cast("list[Brief]", found), len(found) < len(rows)

    def run_rows(self, run_id: str, after_version: int = 0, upto: int | None = None) -> list[Row]:
        """All rows of one run from a version on, up to a seq, by the run's own index."""
        end = 2**62 if upto is None else upto
        return self._select(
            f"SELECT {COLUMNS} FROM events WHERE run_id = ? AND version > ? AND version <= ? AND seq <= ? ORDER BY version",
            (run_id, after_version, end, end),
        )

    def has_begun(self, run_id: str, upto: int | None = None) -> bool:
        """Whether a run has an event up to a seq."""
        query = "SELECT 1 FROM events WHERE run_id = ? AND version = 1 AND seq <= ?"
        return bool(self._fetch(query, (run_id, 2**62 if upto is None else upto)))

    def ends_of_run(self, run_id: str, upto: int) -> tuple[Row, Row] | None:
        """The first and the last row of a run up to a seq; None where it has none."""
        orders = ("version", "version DESC")
        found = [row for way in orders for row in self.rows_where(_UP_TO, (run_id, upto), order=way, limit=1)]
        return (found[0], found[1]) if found else None

    def read(self, after: int = 0, upto: int | None = None, *, run_id: str | None = None) -> Iterator[Recorded]:
        """The same as ``rows``, decoded."""
        return map(decode, self._pages(_EVENT, after, upto, run_id))

    def read_run(self, run_id: str, after_version: int = 0, upto: int | None = None) -> list[Recorded]:
        """The same as ``run_rows``, decoded."""
        end = 2**62 if upto is None else upto
        query = f"SELECT {_EVENT} FROM events WHERE run_id = ? AND version > ? AND version <= ? AND seq <= ? ORDER BY version"
        return list(map(decode, self._whole(self._fetch(query, (run_id, after_version, end, end)))))

    def run_level(self, upto: int | None = None) -> Iterator[Recorded]:
        """The events about runs as a whole, of all runs: a handful each, found by an index of their own."""
        return map(decode, self._pages(_EVENT, 0, upto, where=RUN_LEVEL))

    def last_seq(self) -> int:
        """The seq of the last event; 0 in an empty store."""
        with self._lock, explained(self.path):
            found = self._reader.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
            if type(found) is not int:  # SQLite has read a page as another one.
                raise sqlite3.DatabaseError("the number of its last event is malformed")
            return found

    def row(self, seq: int) -> Row | None:
        """One row, or None."""
        found = self._select(f"SELECT {COLUMNS} FROM events WHERE seq = ?", (seq,))
        return found[0] if found else None

    def seq_at(self, at_us: int) -> int:
        """The last seq with ``at`` <= a time, by bisection: ``at`` never falls along the log.

        Raises:
            UnknownEvent: the log's first event is later than that, or there is none.
        """
        low, high = 0, self.last_seq()
        while low < high:
            middle = (low + high + 1) // 2
            found = self._fetch("SELECT at FROM events WHERE seq = ?", (middle,))
            if found and found[0][0] <= at_us:
                low = middle
            else:
                high = middle - 1
        if low == 0:
            raise UnknownEvent(
                "the log holds no event at or before that time", hint="`parallel-agents history` shows it"
            )
        return low

    def blob(self, digest: str) -> bytes:
        """The bytes of a blob.

        Raises:
            UnknownEvent: the store holds no such blob.
        """
        with self._lock, explained(self.path):
            # By the writer: a plan submitted in this very transaction must be seen.
            found = self._writer.execute("SELECT bytes FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            raise UnknownEvent(
                f"the store holds no blob {digest[:12]}", hint="`parallel-agents verify` checks the store"
            )
        return bytes(found[0])
