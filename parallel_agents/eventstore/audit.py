"""A store's file as it lies there, past the log that is open on it: for who checks it, and for who copies it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.sqlite import BUSY_TIMEOUT_MS, explained

PAGES_AT_ONCE = 1000
"""Of a copy, between two looks at whether somebody writes: 4 MB, some milliseconds."""

_SHOWN = 20  # Of the lines that SQLite says of a damaged file.


class Snapshot(NamedTuple):
    """A stored state of a run, as of one event; what it says is asked of the log."""

    run_id: str
    projection: str
    version: int
    seq: int


@contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own that changes nothing.

    Raises:
        StoreError: the file cannot be read.
    """
    with (
        explained(path),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection,
    ):
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        yield connection


def damage(path: Path) -> list[str]:
    """What SQLite itself finds wrong in the file: pages, indexes, rows that an index misses. Reads all of it."""
    with opened_to_read(path) as connection:
        said = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
    return [] if said == ["ok"] else said


def snapshots(path: Path) -> list[Snapshot]:
    """All snapshots, by run and seq."""
    query = "SELECT run_id, projection, version, seq FROM snapshots ORDER BY run_id, seq"
    with opened_to_read(path) as connection:
        return [Snapshot(*row) for row in connection.execute(query)]


def newest_snapshot(path: Path) -> tuple[str, int] | None:
    """The run and the seq of the snapshot of the latest event; None where there is none."""
    with opened_to_read(path) as connection:
        found = connection.execute("SELECT run_id, seq FROM snapshots ORDER BY seq DESC LIMIT 1").fetchone()
    return None if found is None else (str(found[0]), int(found[1]))


def wrong_blobs(path: Path) -> Iterator[str]:
    """The digests of documents that hold other bytes than they are named by."""
    with opened_to_read(path) as connection:
        for digest, content in connection.execute("SELECT digest, bytes FROM blobs"):
            if sha256(content).hexdigest() != digest:
                yield str(digest)


def blobs(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every document under its digest."""
    with opened_to_read(path) as connection:
        yield from connection.execute("SELECT digest, bytes FROM blobs")


def snapshot_states(path: Path) -> Iterator[bytes]:
    """The states of all snapshots, one by one."""
    with opened_to_read(path) as connection:
        yield from (state for (state,) in connection.execute("SELECT state FROM snapshots"))


def bodies_with(path: Path, text: str, *types: str) -> Iterator[tuple[int, str, str, bytes]]:
    """Events (seq, type, body, digest) in whose stored bodies a text stands, or any ``\\u`` of JSON, or that are of a type."""
    holders = ", ".join("?" for _ in types)
    query = (
        "SELECT seq, type, body, body_digest FROM events"
        f" WHERE instr(body, ?) OR instr(body, '\\u') OR type IN ({holders}) ORDER BY seq"
    )
    with opened_to_read(path) as connection:
        yield from connection.execute(query, (text, *types))


def envelopes_with(path: Path, text: str) -> list[int]:
    """The events in whose envelopes a text stands."""
    query = "SELECT seq FROM events WHERE instr(run_id, ?) OR instr(actor, ?) OR instr(type, ?) ORDER BY seq"
    with opened_to_read(path) as connection:
        return [seq for (seq,) in connection.execute(query, (text, text, text))]


def run_level(path: Path) -> Iterator[Recorded]:
    """The events about runs as a whole."""
    query = f"SELECT seq, run_id, version, type, at, actor, body FROM events WHERE {RUN_LEVEL} ORDER BY seq"
    with opened_to_read(path) as connection:
        yield from map(decode, connection.execute(query))


def copy(path: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy a store's file by SQLite's own online backup: all of one moment, while others go on writing.

    The copy is a file without a write-ahead log beside it, mode 0600.

    Args:
        progress: called now and then with (pages copied, pages in all).
    Raises:
        StoreError: the store cannot be read, or the copy not written.
    """

    def told(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress(total - left, total)

    target.touch(mode=0o600, exist_ok=False)
    with opened_to_read(path) as source, explained(target), closing(sqlite3.connect(target)) as made:
        # Held open, so that no commit of somebody else makes the copy begin again, as it would for ever on a busy store.
        source.execute("BEGIN")
        source.execute("SELECT max(seq) FROM events").fetchone()
        source.backup(made, pages=PAGES_AT_ONCE, progress=told)
        made.execute("PRAGMA journal_mode = DELETE")
    if target.stat().st_size == 0:
        raise StoreError(f"the copy of {path} is empty", hint="say it again")
