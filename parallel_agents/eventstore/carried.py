"""The store of one run that came from another one: its rows as they were stored there, and the links of all rows between.

Numbers, times and hashes are those of the store that it came from. Beside the tables of every store it has two more:
``skeleton`` holds the rows of which no body came along, as far as the chain needs them, and ``reduced`` the digests of those
bodies of which something was left out. So the chain is followed from the run's first event to the head that the store had
when the run was exported. Such a store is never appended to.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from parallel_agents.eventstore.links import event_hash
from parallel_agents.eventstore.sqlite import explained

KEY: Final = "carried"
"""The row of the table ``store`` that says of which run it is."""
_ENVELOPE: Final = "seq, run_id, version, type, at, actor"
_SKELETON: Final = (
    "CREATE TABLE skeleton (seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL,"
    " at INTEGER NOT NULL, actor TEXT NOT NULL, body_digest BLOB NOT NULL, hash BLOB NOT NULL)"
)
_REDUCED: Final = "CREATE TABLE reduced (seq INTEGER PRIMARY KEY, digest BLOB NOT NULL)"
_EVENT: Final = (
    f"INSERT INTO events ({_ENVELOPE}, body, body_digest, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BONE: Final = f"INSERT INTO skeleton ({_ENVELOPE}, body_digest, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LINKS: Final = (
    "SELECT seq, run_id, version, type, at, actor, body_digest, hash, body, digest FROM events LEFT JOIN reduced USING (seq)"
    " UNION ALL SELECT seq, run_id, version, type, at, actor, body_digest, hash, NULL, NULL FROM skeleton ORDER BY seq"
)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a store of one run that came from another one says of itself.

    Attributes:
        store, root: where it came from: the store's file, and the project.
        redacted: without what people and agents wrote.
        first, last: the run's events lie between these numbers, both included.
        before: the hash, in hex, of the event before the first.
        head_seq, head: the last event of the store that it came from, and its hash in hex.
        run_head: the hash of the run's last event, in hex.
        workdir, repository: where the run's files are here; no repository where they did not come along.
        around: what the rest of that store was before the run's first event, as decisions depend on it.
    """

    run_id: str
    store: str
    root: str
    made_at: str
    imported_at: str
    release: str
    redacted: bool
    first: int
    last: int
    before: str
    head_seq: int
    head: str
    run_head: str
    workdir: str
    repository: str | None
    around: dict[str, Any]


class Link(NamedTuple):
    """One row of the chain. ``body`` is None where only its digest came along."""

    seq: int
    run_id: str
    version: int
    type: str
    at_us: int
    actor: str
    body_digest: bytes
    body: str | None
    reduced: bool


class Followed(NamedTuple):
    """How far the chain holds."""

    links: int
    head: str
    broken: tuple[int, str] | None
    reduced: int  # Bodies of which something was left out.


def read(rows: Iterable[tuple[Any, ...]]) -> Carried | None:
    """What the row of ``KEY`` says, if there is one."""
    for (value,) in rows:
        return Carried(**orjson.loads(value))
    return None


def fill(path: Path, links: Iterable[Link], blobs: Iterable[tuple[str, bytes]], about: Carried) -> None:
    """Fill a new store, in one transaction.

    Args:
        links: all rows from the run's first one on, as they follow each other; hashes are worked out.
    Raises:
        StoreError: it cannot be written.
    """
    with explained(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SKELETON)
        connection.execute(_REDUCED)
        prev = bytes.fromhex(about.before)
        events: list[tuple[Any, ...]] = []
        bones: list[tuple[Any, ...]] = []
        for link in links:
            made = event_hash(prev, *link[:7])
            if link.body is None:
                bones.append((*link[:7], made))
            else:
                events.append((*link[:6], link.body, link.body_digest, prev, made))
            if link.reduced and link.body is not None:
                connection.execute("INSERT INTO reduced VALUES (?, ?)", (link.seq, _digest(link.body)))
            prev = made
            if len(events) + len(bones) >= 2000:
                _write(connection, events, bones)
        _write(connection, events, bones)
        connection.executemany("INSERT INTO blobs (digest, bytes) VALUES (?, ?)", blobs)
        connection.execute("INSERT INTO store (key, value) VALUES (?, ?)", (KEY, orjson.dumps(asdict(about)).decode()))
        connection.execute("COMMIT")


def _write(connection: sqlite3.Connection, events: list[tuple[Any, ...]], bones: list[tuple[Any, ...]]) -> None:
    connection.executemany(_EVENT, events)
    connection.executemany(_BONE, bones)
    events.clear()
    bones.clear()


def _digest(body: str) -> bytes:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).digest()


def stored_links(path: Path) -> Iterator[tuple[Link, bytes, bytes | None]]:
    """All rows of such a store as they follow each other, each with its hash and the digest of its reduced body."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        for row in connection.execute(_LINKS):
            seq, run_id, version, type_, at_us, actor, digest, link, body, reduced = row
            yield Link(seq, run_id, version, type_, at_us, actor, digest, body, reduced is not None), link, reduced


def hash_at(path: Path, about: Carried, seq: int) -> bytes | None:
    """The hash of an event of the store that the run came from; None where that did not come along."""
    if seq == about.first - 1:
        return bytes.fromhex(about.before)
    with explained(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT hash FROM events WHERE seq = ? UNION ALL SELECT hash FROM skeleton WHERE seq = ?"
        found = connection.execute(query, (seq, seq)).fetchone()
    return found[0] if found is not None else None


def follow(
    links: Iterable[tuple[Link, bytes, bytes | None]], about: Carried, scrubbed: dict[int, tuple[str, str]]
) -> Followed:
    """Follow the chain from the run's first event to the head that the other store had.

    Args:
        links: see ``stored_links``.
        scrubbed: the mismatches that ``SecretScrubbed`` events announce (see ``chain.scrubs``).
    """
    seq, prev, last_at, count, reduced = about.first - 1, bytes.fromhex(about.before), 0, 0, 0
    versions: dict[str, int] = {about.run_id: 0}
    for link, stored, without in links:
        made = event_hash(prev, *link[:7])
        what = _mismatch(link, seq, last_at, versions, without, scrubbed)
        if what is None and made != stored:
            what = "its envelope (run, version, type, time or actor) or one before it is not the one that was recorded"
        if what is not None:
            return Followed(count, prev.hex(), (link.seq, what), reduced)
        seq, prev, last_at, count = link.seq, made, link.at_us, count + 1
        versions[link.run_id] = link.version
        reduced += link.reduced
    if (seq, prev.hex()) != (about.head_seq, about.head):
        return Followed(count, prev.hex(), (seq, "the chain does not end in the head that was exported"), reduced)
    return Followed(count, prev.hex(), None, reduced)


def _mismatch(
    link: Link, before: int, last_at: int, versions: dict[str, int], without: bytes | None,
    scrubbed: dict[int, tuple[str, str]],
) -> str | None:  # fmt: skip
    if link.seq != before + 1:
        return f"event {before + 1} is missing; the next one is {link.seq}"
    if link.body is not None:
        digest = _digest(link.body)
        wanted = link.body_digest if without is None else without
        if digest != wanted and scrubbed.get(link.seq) != (link.body_digest.hex(), digest.hex()):
            return (
                "its body is not the one that was recorded" if without is None else "its body is not what was exported"
            )
    if link.version != versions.get(link.run_id, link.version - 1) + 1:
        return f"it is version {link.version} of run {link.run_id}, after version {versions[link.run_id]}"
    if link.at_us < last_at:
        return "its time is before that of the event before it"
    return None
