"""Tampering with the log is found, wherever it was done, and said with the number of the event."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import Verdict, missing_blobs, scrubs, verify_rows
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.links import event_hash
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import Row

EVENTS = 7
NUMBERS = ("seq", "version", "at")
TEXTS = ("run_id", "type", "actor", "body")
HASHES = ("body_digest", "prev_hash", "hash")
TAMPERING = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Store:
    """A log of seven events in two runs, and a plain connection to its file."""

    def __init__(self, path: Path) -> None:
        self.log = Log(path, environ={})
        for run_id, version in (("alpha", 0), ("beta", 0), ("alpha", 2)):
            self.log.append(run_id, version, [ev.RunStarted(), ev.RunPaused(reason="Mittag — später mehr")])
        self.log.append("beta", 2, [ev.RunResumed()])
        self.plain = sqlite3.connect(path, isolation_level=None)
        self.plain.execute("PRAGMA synchronous = OFF")

    def verify(self) -> Verdict:
        """What a reader of the whole log finds."""
        return verify_rows(self.log.rows())

    def put(self, seq: int, column: str, value: Any) -> bool:
        """Write one column past the log: a number, or the bytes of a text or a hash; whether the table took it."""
        slot = "CAST(? AS TEXT)" if column in TEXTS else "?"
        try:
            return self.plain.execute(f"UPDATE events SET {column} = {slot} WHERE seq = ?", (value, seq)).rowcount == 1
        except sqlite3.IntegrityError:
            return False  # Another row has that number or version.

    def bytes_of(self, seq: int, column: str) -> bytes:
        """What is stored in one column."""
        wanted = f"CAST({column} AS BLOB)" if column in TEXTS else column
        value = self.plain.execute(f"SELECT {wanted} FROM events WHERE seq = ?", (seq,)).fetchone()[0]
        return int(value).to_bytes(8, "big", signed=True) if column in NUMBERS else bytes(value)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A whole and healthy log."""
    made = Store(tmp_path / "events.db")
    with closing(made.plain), made.log:
        yield made


def test_an_untouched_log_is_whole(store: Store) -> None:
    """Its head is the hash of its last event."""
    last = store.log.row(EVENTS)
    assert last is not None
    assert store.verify() == (EVENTS, last.hash.hex(), None)


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    """There is nothing to be wrong."""
    with Log(tmp_path / "events.db") as log:
        assert verify_rows(log.rows()) == (0, "00" * 32, None)


@TAMPERING
@given(
    seq=st.integers(1, EVENTS),
    column=st.sampled_from(NUMBERS + TEXTS + HASHES),
    position=st.integers(0, 200),
    flip=st.integers(1, 255),
)
@example(seq=3, column="body", position=11, flip=0x80)  # No longer UTF-8.
@example(seq=3, column="run_id", position=0, flip=0x80)
@example(seq=1, column="seq", position=0, flip=0x80)  # Far below the first one.
@example(seq=EVENTS, column="seq", position=7, flip=8)  # Beyond the end.
@example(seq=4, column="type", position=0, flip=ord("R"))  # A NUL.
def test_any_changed_byte_of_any_column_is_found_with_its_seq(
    store: Store, seq: int, column: str, position: int, flip: int
) -> None:
    """One byte of one row; a row whose own number was changed is found by the old one or the new one."""
    before = store.bytes_of(seq, column)
    changed = bytearray(before)
    changed[position % len(before)] ^= flip
    after: Any = int.from_bytes(changed, "big", signed=True) if column in NUMBERS else bytes(changed)
    if not store.put(seq, column, after):
        return
    found_at = after if column == "seq" else seq
    try:
        broken = store.verify().broken
        assert broken is not None
        assert broken.seq in {seq, found_at}
        assert broken.what
    finally:
        original: Any = int.from_bytes(before, "big", signed=True) if column in NUMBERS else before
        assert store.put(found_at, column, original)
    assert store.verify().broken is None


@pytest.mark.parametrize("column", HASHES)
@pytest.mark.parametrize("value", ["'text'", "7", "x''"])
def test_a_hash_that_is_no_hash_any_more_is_found(store: Store, column: str, value: str) -> None:
    """The database holds any kind of value in any column."""
    store.plain.execute(f"UPDATE events SET {column} = {value} WHERE seq = 4")
    broken = store.verify().broken
    assert broken is not None
    assert broken.seq == 4


@pytest.mark.parametrize("seq", range(1, EVENTS))
def test_a_deleted_event_is_found_by_its_number(store: Store, seq: int) -> None:
    """The verdict says how many events before it are good."""
    store.plain.execute("DELETE FROM events WHERE seq = ?", (seq,))
    verdict = store.verify()
    assert (verdict.events, verdict.broken and verdict.broken.seq) == (seq - 1, seq)


def test_deleting_the_last_event_shows_in_number_and_head(store: Store) -> None:
    """A chain cannot miss its own end: whoever noted the head sees it."""
    before = store.verify()
    store.plain.execute("DELETE FROM events WHERE seq = ?", (EVENTS,))
    after = store.verify()
    assert after.broken is None
    assert (after.events, before.events) == (EVENTS - 1, EVENTS)
    assert after.head != before.head


def test_a_deleted_event_whose_followers_were_moved_up_is_found(store: Store) -> None:
    """Closing the gap in the numbers does not close the chain."""
    store.plain.execute("DELETE FROM events WHERE seq = 3")
    for seq in range(4, EVENTS + 1):
        store.plain.execute("UPDATE events SET seq = ? WHERE seq = ?", (seq - 1, seq))
    broken = store.verify().broken
    assert broken is not None
    assert broken.seq == 3


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 4), (3, 7)])
def test_swapped_events_are_found_at_the_earlier_one(store: Store, first: int, second: int) -> None:
    """Each is as it was written, but not where."""
    for before, after in ((first, 99), (second, first), (99, second)):
        store.plain.execute("UPDATE events SET seq = ? WHERE seq = ?", (after, before))
    broken = store.verify().broken
    assert broken is not None
    assert broken.seq == first


@pytest.mark.parametrize("seq", [-3, 0, 4])
def test_an_inserted_event_is_found(store: Store, seq: int) -> None:
    """Also one with a number below the first, made as carefully as can be without rewriting what follows."""
    for later in range(EVENTS, seq - 1, -1) if seq > 0 else ():
        store.plain.execute("UPDATE events SET seq = ? WHERE seq = ?", (later + 1, later))
    before = store.log.row(seq - 1)
    prev_hash, at_us = (before.hash, before.at_us) if before else (bytes(32), 0)
    body = '{"reason":"forged"}'
    digest = hashlib.sha256(body.encode()).digest()
    forged = (seq, "alpha", 5, "RunPaused", at_us, "local")
    link = event_hash(prev_hash, *forged, digest)
    store.plain.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*forged, body, digest, prev_hash, link)
    )
    broken = store.verify().broken
    assert broken is not None
    assert broken.seq in {seq, max(seq, 0) + 1}


def forge(rows: list[Row], **changes: Any) -> list[Row]:
    """The last of some rows changed, with a hash that fits again."""
    row = rows[-1]._replace(**changes)
    link = event_hash(row.prev_hash, row.seq, row.run_id, row.version, row.type, row.at_us, row.actor, row.body_digest)
    return [*rows[:-1], row._replace(hash=link)]


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"version": 4}, "version 4 of run beta, after version 2"), ({"at_us": 5}, "time"), ({"seq": 9}, "missing")],
)
def test_a_chain_that_holds_but_miscounts_is_found(store: Store, changes: dict[str, int], what: str) -> None:
    """Whoever computes new hashes still has to count versions, times and numbers right."""
    broken = verify_rows(forge(list(store.log.rows()), **changes)).broken
    assert broken is not None
    assert broken.seq == EVENTS
    assert what in broken.what


def test_a_damaged_event_stops_its_readers_with_an_error_that_leads_to_verify(store: Store) -> None:
    """One byte that is no UTF-8: reading is refused with the number, and the other runs can be read."""
    store.put(2, "body", b'{"reason":"\xff"}')
    with pytest.raises(StoreError, match="event 2") as caught:
        store.log.read_run("alpha")
    assert "verify" in caught.value.hint
    with pytest.raises(StoreError, match="event 2"):
        list(store.log.read())
    assert [record.version for record in store.log.read_run("beta")] == [1, 2, 3]


def test_exactly_the_announced_scrub_is_accepted(store: Store) -> None:
    """The one event, with the one new body; nothing else passes under its name."""
    old = store.log.row(4)
    assert old is not None
    clean = '{"reason":"[redacted]"}'
    new_digest = hashlib.sha256(clean.encode()).hexdigest()
    store.put(4, "body", clean.encode())
    assert store.verify().broken is not None
    store.log.append("store", 0, [ev.SecretScrubbed(seq=4, old_digest=old.body_digest.hex(), new_digest=new_digest)])
    announced = scrubs(store.log.rows(where="type = 'SecretScrubbed'"))
    assert verify_rows(store.log.rows(), announced).broken is None
    store.put(4, "body", b'{"reason":"[Redacted]"}')
    broken = verify_rows(store.log.rows(), announced).broken
    assert broken is not None
    assert broken.seq == 4
    store.put(4, "body", clean.encode())
    store.put(2, "body", clean.encode())
    broken = verify_rows(store.log.rows(), announced).broken
    assert broken is not None
    assert broken.seq == 2


def test_a_plan_that_was_changed_or_removed_is_named(store: Store) -> None:
    """By the digest that its event holds."""
    plans = [b"plan one", b"plan two", b"plan three"]
    names = [digest_of(plan) for plan in plans]
    store.log.append("gamma", 0, [ev.RunStarted()], blobs=dict(zip(names, plans, strict=True)))
    assert missing_blobs(names, store.log.blob) == []
    store.plain.execute("UPDATE blobs SET bytes = x'00' WHERE digest = ?", (names[0],))
    store.plain.execute("DELETE FROM blobs WHERE digest = ?", (names[2],))
    assert missing_blobs(names, store.log.blob) == [names[0], names[2]]
