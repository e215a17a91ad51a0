"""The append-only log of events of all runs: the only source of truth and the only channel between processes.

Data's way in: events -> redaction -> body -> digest -> chain -> one executemany -> commit -> ring. Data's way out: rows,
decoded by ``record``. Acknowledged means committed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from parallel_agents.eventstore import carried as carried_run
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.doorbell import Doorbell
from parallel_agents.eventstore.errors import EventTooLarge, NotAllowed, StaleRun
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.links import GENESIS, event_hash
from parallel_agents.eventstore.reading import Reading
from parallel_agents.eventstore.record import MAX_BODY, Recorded, encode
from parallel_agents.eventstore.redaction import Redactor
from parallel_agents.eventstore.sqlite import data_version, explained
from parallel_agents.eventstore.stored_rows import INSERT

_INSERT_BLOB = "INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?, ?)"
_CACHES = ("snapshots", "event_blocks", "event_block_texts")
_recorded = Recorded._make  # Half of what a call of the class costs.


def digest_of(content: bytes) -> str:
    """The name of a blob: SHA-256 in hex."""
    return sha256(content).hexdigest()


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


class Log(Reading):
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
        self.actor = actor
        self.doorbell = Doorbell(path)
        self._clock = clock
        self._redactor = Redactor(environ)
        super().__init__(path, create=create, opened=opened)
        self._tail = (0, GENESIS, 0)  # seq, hash, at_us of the last event.
        self._versions: dict[str, int] = {}
        self._carried: Carried | bool | None = False  # Not asked for yet.

    def close(self) -> None:
        """Give the connections back. The last process to do so lets SQLite fold its write-ahead log."""
        super().close()
        self.doorbell.close()

    @property
    def carried(self) -> Carried | None:
        """What the store says of the run that was imported into it; None for a store that runs are dispatched from."""
        if isinstance(self._carried, bool):
            found = self._fetch("SELECT value FROM store WHERE key = ?", (carried_run.KEY,))
            self._carried = carried_run.read(found)
        return self._carried

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
                    writer.executemany(INSERT, draft.rows)
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

    def changed_by_others(self) -> bool:
        """Whether another connection has committed since this one last looked inside a transaction. Costs 5 us."""
        with self._lock, explained(self.path):
            return data_version(self._writer) != self._seen_version
