"""What a store keeps besides its events and can lose: snapshots, and caches with tables of their own; and the room they take.

Who only reads may leave some, and never waits for a writer to do so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.connections import Connections
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.sqlite import explained
from parallel_agents.eventstore.stored_rows import COLUMNS, INSERT
from parallel_agents.eventstore.write_ahead import LIMIT_BYTES, wal_bytes

_INSERT_SNAPSHOT = "INSERT OR REPLACE INTO snapshots (run_id, projection, version, seq, state) VALUES (?, ?, ?, ?, ?)"
_INCREMENTAL = _FULL = 2  # As SQLite names them, of auto_vacuum and of synchronous.
_PAGES_AT_ONCE = 2000
_SOME_ROWS = f"SELECT {COLUMNS} FROM events WHERE run_id = ? AND version > ? ORDER BY version LIMIT ?"
_TAKE_OUT = "DELETE FROM events WHERE run_id = ? AND version BETWEEN ? AND ?"
_CHUNK = 2000


class Caches(Connections):
    """A store with what can be made again."""

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
                        writer.executemany(INSERT, emptied)
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
