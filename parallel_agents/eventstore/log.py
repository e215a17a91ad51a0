"""The append-only log of events of all runs: the only source of truth and the only channel between processes.

Data's way in: events -> redaction -> body -> digest -> chain -> one executemany -> commit -> ring. Data's way out: rows,
decoded by ``record``. Acknowledged means committed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from parallel_agents.eventstore import carried as carried_run
from parallel_agents.eventstore.archive import ELSEWHERE, Archives
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.doorbell import Doorbell
from parallel_agents.eventstore.errors import EventTooLarge, NotAllowed, StaleRun, StoreError, UnknownEvent
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.links import GENESIS, Stored, event_hash
from parallel_agents.eventstore.of_task import MAKE_TASK_INDEX, OF_TASK, TASK_INDEX
from parallel_agents.eventstore.record import MAX_BODY, Brief, Recorded, Row, decode, encode
from parallel_agents.eventstore.redaction import Redactor
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.sqlite import BUSY_TIMEOUT_MS, data_version, explained, fetched, open_store
from parallel_agents.eventstore.stored_rows import COLUMNS as _COLUMNS
from parallel_agents.eventstore.stored_rows import FIRST as _FIRST
from parallel_agents.eventstore.stored_rows import in_chunks
from parallel_agents.eventstore.write_ahead import LIMIT_BYTES, wal_bytes
from parallel_agents.version import RELEASE

_INSERT = (
    "INSERT INTO events (seq, run_id, version, type, at, actor, body, body_digest, prev_hash, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_BLOB = "INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?, ?)"
_INSERT_SNAPSHOT = "INSERT OR REPLACE INTO snapshots (run_id, projection, version, seq, state) VALUES (?, ?, ?, ?, ?)"
_INCREMENTAL = _FULL = 2  # As SQLite names them, of auto_vacuum and of synchronous.
_PAGES_AT_ONCE = 2000
_EVENT = "seq, run_id, version, type, at, actor, body"  # What an event is decoded from; ``_COLUMNS`` begins with it.
_SOME_ROWS = f"SELECT {_COLUMNS} FROM events WHERE run_id = ? AND version > ? ORDER BY version LIMIT ?"
_BRIEF = "SELECT seq, version, type, at, body FROM events WHERE run_id = ?"
_BRIEF_BETWEEN = "SELECT seq, version, type, at, body FROM events WHERE seq > ? AND seq <= ? AND +run_id = ?"
_CLOSE = 64  # Events of the log among which those of one run are found sooner than by its own index.
_OUTLINE = "SELECT seq, type, at FROM events WHERE run_id = ? AND version > ? AND seq <= ? ORDER BY version LIMIT ?"
_OF_ONE_TASK = f"{_BRIEF} AND {OF_TASK} = ? AND version > ? AND seq <= ? ORDER BY version"
_OF_SOME_TASKS = f"{_BRIEF} AND {OF_TASK} IN (SELECT value FROM json_each(?)) AND seq <= ?"
_OF_NO_TASK = f"{_BRIEF} AND {OF_TASK} IS NULL AND seq <= ?"
_CACHES = ("snapshots", "event_blocks", "event_block_texts")
_MOVED = "length(body) = 0"  # Of a body that is said to be '' SQLite would not see that the index of tasks fits.
_TAKE_OUT = "DELETE FROM events WHERE run_id = ? AND version BETWEEN ? AND ?"
_CHUNK = 2000
_OUTLINE_CHUNK = 50_000  # Of rows without a body.
_recorded = Recorded._make  # Half of what a call of the class costs.


def digest_of(content: bytes) -> str:
    """The name of a blob: SHA-256 in hex."""
    return sha256(content).hexdigest()


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def wall_clock_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


class Draft:
    """The events of one commit, numbered and chained as they are added, so that they can be folded before the commit.

    Attributes:
        at_us: the time of every event in it; never before the last event of the log, even if the clock went back.
        seq: of the last event, this draft's included.
    """

    def __init__(self, log: Log, actor: str) -> None:
        self._log = log
        self._redacted = log._redactor.event
        self._actor = actor
        self.seq, self.prev_hash, last_at = log._tail
        self.at_us = max(log._clock(), last_at)
        self.rows: list[tuple[object, ...]] = []  # As in ``Row``; made for the database alone.
        self.recorded: list[Recorded] = []
        self.blobs: dict[str, bytes] = {}
        self.changes: list[tuple[str, tuple[object, ...]]] = []
        self.versions: dict[str, int] = {}

    def version(self, run_id: str) -> int:
        """The version of a run, this draft's events included; 0 for a new one."""
        version = self.versions.get(run_id)
        return self._log._version(run_id) if version is None else version

    def expect(self, run_id: str, version: int) -> None:
        """Refuse to go on if the run has moved.

        Raises:
            StaleRun: the run is at another version.
        """
        found = self.version(run_id)
        if found != version:
            raise StaleRun(f"run {run_id} is at version {found}, not {version}", hint="reload it and decide again")

    def add(self, run_id: str, event: Event) -> Recorded:
        """The same as ``add_all``, of one event."""
        return self.add_all(run_id, (event,))[0]

    def add_all(self, run_id: str, events: Sequence[Event]) -> list[Recorded]:
        """Number, redact, serialise and chain events. If one cannot be serialised, the draft is as it was before."""
        seq, prev_hash, version = self.seq, self.prev_hash, self.version(run_id)
        at_us, actor, redacted = self.at_us, self._actor, self._redacted
        rows: list[tuple[object, ...]] = []
        added = []
        for event in events:
            if event.free_text:
                event = redacted(event)
            body = encode(event)
            if len(body) > MAX_BODY:
                raise EventTooLarge(
                    f"{type(event).__name__} has {len(body):,} bytes, more than the {MAX_BODY:,} that one event may have",
                    hint="keep in a file what is that long, and name the file",
                )
            digest = sha256(body).digest()
            seq, version, type_ = seq + 1, version + 1, type(event).__name__
            link = event_hash(prev_hash, seq, run_id, version, type_, at_us, actor, digest)
            rows.append((seq, run_id, version, type_, at_us, actor, body.decode(), digest, prev_hash, link))
            added.append(_recorded((seq, run_id, version, at_us, actor, event)))
            prev_hash = link
        self.seq, self.prev_hash, self.versions[run_id] = seq, prev_hash, version
        self.rows += rows
        self.recorded += added
        return added

    def add_blob(self, digest: str, content: bytes) -> None:
        """Keep a document under its digest, in the same commit."""
        self.blobs[digest] = content

    def replace_body(self, seq: int, body: str) -> None:
        """Put another body in the place of one that holds a secret. An event of this draft has to say so."""
        self.changes.append(("UPDATE events SET body = ? WHERE seq = ?", (body, seq)))

    def drop_blob(self, digest: str) -> None:
        """Forget a document that no event names any more."""
        self.changes.append(("DELETE FROM blobs WHERE digest = ?", (digest,)))

    def drop_caches(self) -> None:
        """Forget snapshots and what blocks hold: what they say may not be what the events say any more."""
        there = self._log.ask(f"SELECT name FROM sqlite_master WHERE type = 'table' AND name IN {_CACHES}")
        self.changes += [(f"DELETE FROM {name}", ()) for (name,) in there]


class Log:
    """One store, opened. Safe from several threads; one transaction at a time.

    Raises (all methods):
        StoreError: the database refuses; nothing was half written.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        clock: Callable[[], int] = wall_clock_us,
        environ: Mapping[str, str] | None = None,
        actor: str = "local",
        opened: tuple[sqlite3.Connection, sqlite3.Connection] | None = None,
    ) -> None:
        """Open it.

        Args:
            opened: to write and to read, in place of the file's own (see ``scratch``).
        """
        self.path = path
        self.actor = actor
        self.doorbell = Doorbell(path)
        self._clock = clock
        self._redactor = Redactor(environ)
        self._lock = threading.RLock()
        self._archives = Archives(path)
        # Driver connections: SQLAlchemy's own statements cost five times the insert (see docs/adr/0002).
        self._writer, self._reader = opened or open_store(path, release=RELEASE, create=create)
        self._place = os.path.abspath(path)  # Whoever uses us may change to another folder.
        self._file = _file_at(self._place)
        self._wal: tuple[int, int] | None = None
        self._seen_version = -1  # Of the database; while it stands, the three below are exact.
        self._tail = (0, GENESIS, 0)  # seq, hash, at_us of the last event.
        self._versions: dict[str, int] = {}
        self._has_task_index = False  # Once it is there, it stays.
        self._carried: Carried | bool | None = False  # Not asked for yet.

    @property
    def carried(self) -> Carried | None:
        """What the store says of the run that was imported into it; None for a store that runs are dispatched from."""
        if isinstance(self._carried, bool):
            found = self._fetch("SELECT value FROM store WHERE key = ?", (carried_run.KEY,))
            self._carried = carried_run.read(found)
        return self._carried

    def close(self) -> None:
        """Give the connections back. The last process to do so lets SQLite fold its write-ahead log."""
        with self._lock:
            self._writer.close()
            self._reader.close()
            self.doorbell.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_in_place(self) -> None:
        """Refuse to go on once a name of the store's is another file's, or nobody's: SQLite would append to what nobody finds.

        Raises:
            StoreError: the file, or the write-ahead log beside it, was removed or replaced.
        """
        gone = self.path if _file_at(self._place) != self._file else None
        if gone is None and (wal := _file_at(f"{self._place}-wal")) != self._wal:
            if self._wal is None:
                self._wal = wal  # It is there from the first look into the store on, as long as that is open.
            else:
                gone = self.path.with_name(f"{self.path.name}-wal")
        if gone is not None:
            raise StoreError(
                f"{gone} was removed or replaced while it was in use",
                hint="keep it out of what is cleaned while runs go on, as with `git clean -e .parallel-agents`",
            )

    def append(
        self,
        run_id: str,
        expected_version: int,
        events: Sequence[Event],
        *,
        blobs: Mapping[str, bytes] | None = None,
        actor: str | None = None,
    ) -> list[Recorded]:
        """Append events to one run, in one transaction.

        Args:
            expected_version: the run's version that the events were decided on; 0 for a new run.
            blobs: documents that the events name, by digest.
        Raises:
            StaleRun: another process appended to the run first; nothing was appended.
        """

        def decide(draft: Draft) -> None:
            draft.expect(run_id, expected_version)
            for digest, content in (blobs or {}).items():
                draft.add_blob(digest, content)
            draft.add_all(run_id, events)

        return self.transact(decide, actor=actor)

    def transact(self, decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        """Decide inside the write transaction: nobody else can append between what ``decide`` reads and what it adds.

        ``decide`` may read this log, and adds events of any runs to the draft that it is given. They are committed as
        one; where it adds nothing, nothing is committed. If it raises, nothing is appended and its error is passed on.
        """
        reach("log.before-append")
        if self.carried is not None:
            raise NotAllowed(
                f"run {self.carried.run_id} was imported, and is only looked at",
                hint=f"`parallel-agents fork {self.carried.run_id}` makes a run of your own that goes on from it",
            )
        with self._lock:
            writer = self._writer
            with explained(self.path):
                writer.execute("BEGIN IMMEDIATE")
            try:
                self.check_in_place()
                with explained(self.path):
                    self._look_at_tail()
                draft = Draft(self, actor or self.actor)
                decide(draft)  # Out of `explained`: its own errors are not the store's.
                with explained(self.path):
                    if not draft.rows and not draft.changes:
                        writer.execute("ROLLBACK")
                        return []
                    for statement, values in draft.changes:
                        writer.execute(statement, values)
                    if draft.blobs:
                        writer.executemany(_INSERT_BLOB, draft.blobs.items())
                    writer.executemany(_INSERT, draft.rows)
                    reach("log.in-transaction")
                    writer.execute("COMMIT")
                    reach("log.committed")
                self._tail = (draft.seq, draft.prev_hash, draft.at_us)
                self._versions.update(draft.versions)
            except BaseException:
                self._abandon()
                raise
        self.doorbell.ring()
        return draft.recorded

    def _abandon(self) -> None:
        """End a transaction that failed, and forget what was remembered of the log's end."""
        self._seen_version = -1
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _look_at_tail(self) -> None:
        """Inside a write transaction: make the cached end of the log exact."""
        version = data_version(self._writer)
        if version == self._seen_version:
            return
        found = self._writer.execute("SELECT seq, hash, at FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        self._tail = found or (0, GENESIS, 0)
        self._versions.clear()
        self._seen_version = version

    def _version(self, run_id: str) -> int:
        version = self._versions.get(run_id)
        if version is None:
            with explained(self.path):
                found = self._writer.execute("SELECT max(version) FROM events WHERE run_id = ?", (run_id,)).fetchone()
            version = self._versions[run_id] = found[0] or 0
        return version

    def version(self, run_id: str) -> int:
        """The version of a run; 0 where there is none."""
        return int(self._fetch("SELECT coalesce(max(version), 0) FROM events WHERE run_id = ?", (run_id,))[0][0])

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
        return map(Row._make, self._pages(_COLUMNS, after, upto, run_id, where, limit, stored=stored))

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
        first = after + 1 if after else _FIRST
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

    def _fetch(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock, explained(self.path):
            return fetched(self._reader, query, values)

    def ask(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query over the tables gives. For this room: everybody else has the questions that have names."""
        return self._fetch(query, values)

    def rows_where(self, condition: str, values: Sequence[object], *, order: str = "seq", limit: int = -1) -> list[Row]:
        """Rows that a condition fits, with their bodies, in an order; all at once.

        Args:
            condition, order: literal; what comes from outside stands in ``values``.
        """
        query = f"SELECT {_COLUMNS} FROM events WHERE {condition} ORDER BY {order} LIMIT ?"
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

    def make_task_index(self) -> None:
        """Give a store of an older release the index. A second for a million events, in which nobody can append."""
        with self._lock, explained(self.path):
            self._writer.execute(MAKE_TASK_INDEX)

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
            f"SELECT {_COLUMNS} FROM events WHERE run_id = ? AND version > ? AND version <= ? AND seq <= ? ORDER BY version",
            (run_id, after_version, end, end),
        )

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
        found = self._select(f"SELECT {_COLUMNS} FROM events WHERE seq = ?", (seq,))
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

    def changed_by_others(self) -> bool:
        """Whether another connection has committed since this one last looked inside a transaction. Costs 5 us."""
        with self._lock, explained(self.path):
            return data_version(self._writer) != self._seen_version

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

    def load_snapshot(self, run_id: str, projection: str, version: int, upto: int) -> tuple[int, bytes] | None:
        """The newest snapshot at or before a seq: (seq, state), or None."""
        with self._lock, explained(self.path):
            found = self._reader.execute(
                "SELECT seq, state FROM snapshots WHERE run_id = ? AND projection = ? AND version = ? AND seq <= ?"
                " ORDER BY seq DESC LIMIT 1",
                (run_id, projection, version, upto),
            ).fetchone()
        return (int(found[0]), bytes(found[1])) if found else None

    def snapshot_seq(self, run_id: str, projection: str, version: int) -> int:
        """The seq of the newest snapshot; 0 where there is none."""
        query = "SELECT coalesce(max(seq), 0) FROM snapshots WHERE run_id = ? AND projection = ? AND version = ?"
        return int(self._fetch(query, (run_id, projection, version))[0][0])

    def save_snapshot(self, run_id: str, projection: str, version: int, seq: int, state: bytes) -> None:
        """Keep a snapshot. A cache: losing any or all of them changes no answer."""
        self.save_snapshots(run_id, [(projection, version, seq, state)])

    def save_snapshots(self, run_id: str, rows: Sequence[tuple[str, int, int, bytes]]) -> None:
        """Keep some of one run, in one commit.

        Args:
            rows: projection, version, seq and state of each.
        """
        with self._lock, explained(self.path), self._without_sync():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._writer.executemany(_INSERT_SNAPSHOT, [(run_id, *row) for row in rows])
                reach("snapshot.in-transaction")
                self._writer.execute("COMMIT")
                reach("snapshot.committed")
            except BaseException:
                self._abandon()
                raise

    @contextlib.contextmanager
    def _without_sync(self) -> Iterator[None]:
        """A commit that need not outlive the machine's fall does not wait for the disk; what is appended next takes it along."""
        (before,) = self._writer.execute("PRAGMA synchronous").fetchone()
        if before < _FULL:
            yield
            return
        self._writer.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._writer.execute("PRAGMA synchronous = FULL")

    def leave_snapshots(self, run_id: str, rows: Sequence[tuple[str, int, int, bytes]]) -> None:
        """The same for who only reads, and never waits for another writer: who could not write them leaves them to the next."""
        with self._at_once() as writer:
            if writer is not None:
                writer.execute("BEGIN IMMEDIATE")
                writer.executemany(_INSERT_SNAPSHOT, [(run_id, *row) for row in rows])
                writer.execute("COMMIT")

    def keep_snapshot(self, projection: str, version: int, seq: int, state: bytes) -> bool:
        """Make a snapshot of the whole store the only one of its projection. Never waits for another writer.

        Returns:
            Whether it was written. A cache: who could not write it leaves it to the next.
        """
        with self._at_once() as writer:
            if writer is None:
                return False
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM snapshots WHERE run_id = ? AND projection = ?", (STORE_RUN, projection))
            writer.execute(_INSERT_SNAPSHOT, (STORE_RUN, projection, version, seq, state))
            writer.execute("COMMIT")
            return True
        return False

    def keep(
        self,
        tables: Sequence[str],
        stands: tuple[str, list[tuple[Any, ...]]],
        statements: Sequence[tuple[str, Sequence[object]]],
    ) -> bool:
        """Go on with a cache that has tables of its own, in one commit. Never waits for another writer.

        Args:
            tables: the statements that make the tables where they are missing.
            stands: a query, and what it has to give: else somebody else went on with it meanwhile, and nothing is written.
            statements: each with the rows that it is for.
        Returns:
            Whether it was written. Who could not write it leaves it to the next.
        """
        with self._at_once() as writer:
            if writer is None:
                return False
            writer.execute("BEGIN IMMEDIATE")
            for table in tables:
                writer.execute(table)
            query, expected = stands
            if writer.execute(query).fetchall() != expected:
                writer.execute("ROLLBACK")
                return False
            for statement, rows in statements:
                writer.executemany(statement, cast("Sequence[Any]", rows))
            writer.execute("COMMIT")
            return True
        return False

    def empty_bodies(self, run_id: str, seqs: Collection[int]) -> None:
        """Take the bodies of events of a run out of the table. They must lie in an archive that an event names.

        All rows of the run are laid out anew, some at a time: SQLite frees no page for rows that only become shorter.
        """
        version = 0
        while True:
            with self._lock, explained(self.path):
                writer = self._writer
                writer.execute("BEGIN IMMEDIATE")
                try:
                    rows = writer.execute(_SOME_ROWS, (run_id, version, _CHUNK)).fetchall()
                    if any(row[0] in seqs and row[6] != ELSEWHERE for row in rows):
                        writer.execute(_TAKE_OUT, (run_id, rows[0][2], rows[-1][2]))
                        emptied = ((*row[:6], ELSEWHERE, *row[7:]) if row[0] in seqs else row for row in rows)
                        writer.executemany(_INSERT, emptied)
                    writer.execute("COMMIT")
                except BaseException:
                    self._abandon()
                    raise
            if len(rows) < _CHUNK:
                return
            version = rows[-1][2]

    def free_bytes(self) -> int:
        """What lies unused in the database's file, and is used for what comes."""
        with self._lock, explained(self.path):
            (pages,), (size,) = (
                self._writer.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
            )
            return int(pages) * int(size)

    def give_back(self, *, compact: bool = False) -> int:
        """Cut unused pages off the database's file, some at a time, where it was made so that this can be done.

        Args:
            compact: rewrite the file in any case, in one go, in which nobody can append; afterwards it is so made.
        Returns:
            Bytes by which the database has become smaller.
        """
        with self._lock, explained(self.path):
            writer = self._writer
            before = writer.execute("PRAGMA page_count").fetchone()[0]
            if compact:
                writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
                writer.execute("VACUUM")
            elif writer.execute("PRAGMA auto_vacuum").fetchone()[0] == _INCREMENTAL:
                while writer.execute("PRAGMA freelist_count").fetchone()[0]:
                    writer.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            pages = before - writer.execute("PRAGMA page_count").fetchone()[0]
            return int(pages) * int(writer.execute("PRAGMA page_size").fetchone()[0])

    def overwrite_deleted(self) -> None:
        """From here on, what this log deletes or replaces is overwritten with zeros in the database's file."""
        with self._lock, explained(self.path):
            self._writer.execute("PRAGMA secure_delete = ON")

    def rewrite(self) -> bool:
        """Rewrite the database's file from what the tables hold and empty the write-ahead log, so that nothing else is left.

        Returns:
            Whether that was done: False where somebody goes on looking at an old moment of the store.
        """
        with self._lock, explained(self.path):
            self._writer.execute("VACUUM")
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def fold_write_ahead_log(self, above_bytes: int = LIMIT_BYTES) -> bool:
        """Copy the write-ahead log into the database and empty it, where it is larger than that. Waits for nobody.

        Returns:
            Whether it is small now. Where somebody reads an old moment of the store it stays, and can be folded later.
        """
        if wal_bytes(self.path) <= above_bytes:
            return True
        with self._at_once() as writer:
            if writer is not None:
                busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                return not busy
        return False

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[sqlite3.Connection | None]:
        """The writer for something that can as well be done later: it waits for no lock, and fails without a word.

        None inside of a transaction.
        """
        with self._lock:
            writer = self._writer
            if writer.in_transaction:
                yield None
                return
            try:
                writer.execute("PRAGMA busy_timeout = 0")
                yield writer
            except sqlite3.Error:  # Locked, read-only, full: whoever needs the store for more than this is told.
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            finally:
                writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
