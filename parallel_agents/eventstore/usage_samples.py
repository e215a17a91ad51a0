"""The side table of what attempts have used over time. No part of the log: no fold reads it, and losing it changes no answer.

It is made when the first sample is written, so a store of an earlier release gets it too, and whoever reads copes with its
absence. Written on a connection of its own, opened for each write: nothing here may hold up the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from parallel_agents.eventstore.sqlite import explained

_TABLE = """
CREATE TABLE IF NOT EXISTS usage_samples (
    run_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    span_s REAL NOT NULL,
    cpu_percent REAL NOT NULL,
    memory_bytes INTEGER NOT NULL,
    open_files INTEGER NOT NULL,
    disk_written_bytes INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt_id, at)
) WITHOUT ROWID
"""
_INSERT = "INSERT OR REPLACE INTO usage_samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT = """
SELECT at, span_s, cpu_percent, memory_bytes, open_files, disk_written_bytes FROM usage_samples
WHERE run_id = ? AND attempt_id = ? ORDER BY at
"""
_WRITE_WAIT_S = 0.2  # Whoever dispatches goes first; what is not written now is written with the next.
_WAIT_S = 10.0


class Point(NamedTuple):
    """What an attempt used in one span of time."""

    at_us: int  # The end of the span, in microseconds since the epoch.
    span_s: float
    cpu_percent: float  # Of all processors together; the mean.
    memory_bytes: int  # The most.
    open_files: int  # The most.
    disk_written_bytes: int  # Since the attempt began.


class Busy(Exception):
    """Somebody else writes at the moment."""


def write(store: Path, points: Sequence[tuple[str, str, Point]]) -> None:
    """Write points of attempts, each with its run and its attempt, in one commit.

    Raises:
        Busy: the store is locked; try again later.
        StoreError: it cannot be written.
    """
    with explained(store), _connected(store, "rw", _WRITE_WAIT_S) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")  # A crash of the machine may take the last seconds of it.
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise Busy from None
            raise
        connection.execute(_TABLE)
        connection.executemany(_INSERT, [(run_id, attempt_id, *point) for run_id, attempt_id, point in points])
        connection.execute("COMMIT")


def read(store: Path, run_id: str, attempt_id: str) -> list[Point]:
    """The points of one attempt, oldest first; none where none were kept.

    Raises:
        StoreError: the store cannot be read.
    """
    with explained(store), _connected(store, "ro", _WAIT_S) as connection:
        return [Point(*row) for row in connection.execute(_SELECT, (run_id, attempt_id))] if _there(connection) else []


def peaks(store: Path, run_id: str, attempt_id: str) -> Point | None:
    """The most of everything in the points of an attempt; None where there are none.

    Raises:
        StoreError: the store cannot be read.
    """
    points = read(store, run_id, attempt_id)
    return Point(*(max(values) for values in zip(*points, strict=True))) if points else None


def remove(store: Path, run_id: str) -> int:
    """Forget a run's points. Gives how many there were.

    Raises:
        StoreError: the store cannot be written.
    """
    with explained(store), _connected(store, "rw", _WAIT_S) as connection:
        if not _there(connection):
            return 0
        return connection.execute("DELETE FROM usage_samples WHERE run_id = ?", (run_id,)).rowcount


@contextmanager
def _connected(store: Path, mode: str, wait_s: float) -> Iterator[sqlite3.Connection]:
    """The store's file, which is never made here."""
    uri = f"{store.resolve().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=wait_s)) as connection:
        yield connection


def _there(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'usage_samples'")
    return found.fetchone() is not None
