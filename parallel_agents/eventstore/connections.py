"""The two connections of a store that is open, one to write and one to read, and who may use them when."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.sqlite import BUSY_TIMEOUT_MS, explained, fetched, open_store
from parallel_agents.version import RELEASE


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Connections:
    """A store, opened. Safe from several threads; one transaction at a time.

    Raises (all methods):
        StoreError: the database refuses; nothing was half written.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        opened: tuple[sqlite3.Connection, sqlite3.Connection] | None = None,
    ) -> None:
        """Open it.

        Args:
            opened: to write and to read, in place of the file's own (see ``scratch``).
        """
        self.path = path
        self._lock = threading.RLock()
        # Driver connections: SQLAlchemy's own statements cost five times the insert (see docs/adr/0002).
        self._writer, self._reader = opened or open_store(path, release=RELEASE, create=create)
        self._place = os.path.abspath(path)  # Whoever uses us may change to another folder.
        self._file = _file_at(self._place)
        self._wal: tuple[int, int] | None = None
        self._seen_version = -1  # Of the database; while it stands, what is remembered of the log's end is exact.

    def close(self) -> None:
        """Give the connections back. The last process to do so lets SQLite fold its write-ahead log."""
        with self._lock:
            self._writer.close()
            self._reader.close()

    def __enter__(self) -> Self:
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

    def _abandon(self) -> None:
        """End a transaction that failed, and forget what was remembered of the log's end."""
        self._seen_version = -1
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _fetch(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock, explained(self.path):
            return fetched(self._reader, query, values)

    def ask(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query over the tables gives. For this room: everybody else has the questions that have names."""
        return self._fetch(query, values)

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
