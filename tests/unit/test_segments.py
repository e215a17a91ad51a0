"""A chain that several processes follow is judged as one that is followed by one: the same event, the same words."""

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

from parallel_agents import verification
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import ELSEWHERE, Moved
from parallel_agents.eventstore.chain import verdict_of, verify_rows
from parallel_agents.eventstore.links import Followed, Stored, event_hash, judge_of
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.segments import Part
from parallel_agents.verification import verify

EVENTS = 24
JUDGE = judge_of({}, lambda run_id, seq: ELSEWHERE)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Three runs that take turns."""
    with Log(tmp_path / "events.db", environ={}) as made:
        for number in range(EVENTS // 3):
            for run_id in ("alpha", "beta", "gamma"):
                made.append(run_id, number, [ev.RunPaused(reason=f"{run_id} {number}")])
        yield made


def change(log: Log, *statements: str) -> None:
    """Change the table behind our back."""
    with closing(sqlite3.connect(log.path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def joined(rows: list[Stored], cut: int) -> Followed:
    """What two parts show that meet after an event."""
    first, second = Followed(), Followed(rows[cut - 1][0], rows[cut - 1][9], rows[cut - 1][4])
    first.go_on(rows[:cut], JUDGE)
    second.go_on(rows[cut:], JUDGE, from_start=False)
    if first.broken is None:
        first.join(second)
    return first


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seq=st.integers(1, EVENTS),
    column=st.sampled_from(["version", "at", "body", "actor", "body_digest", "prev_hash", "hash"]),
    forged=st.booleans(),
    cut=st.integers(1, EVENTS - 1),
)
@example(seq=20, column="version", forged=True, cut=19)  # The first event of its run in the second part.
@example(seq=19, column="version", forged=True, cut=19)  # The last one of the first part.
@example(seq=20, column="at", forged=True, cut=19)
def test_parts_that_are_joined_say_what_the_whole_says(log: Log, seq: int, column: str, forged: bool, cut: int) -> None:
    """Wherever something was changed, wherever the parts meet, and where somebody has worked out new hashes behind it."""
    rows = [list(row) for row in log.rows()]
    place = ["seq", "run_id", "version", "type", "at", "actor", "body", "body_digest", "prev_hash", "hash"].index(
        column
    )
    changed: dict[str, Any] = {"version": 9, "at": 5, "body": '{"reason":"x"}', "actor": "somebody"}
    rows[seq - 1][place] = changed.get(column, b"\1" * 32)
    if forged:
        for number in range(seq - 1, EVENTS):
            row = rows[number]
            row[7] = hashlib.sha256(row[6].encode()).digest()
            row[8] = bytes(32) if number == 0 else rows[number - 1][9]
            row[9] = event_hash(row[8], *row[:6], row[7])
    whole = verify_rows([tuple(row) for row in rows])
    assert verdict_of(joined([tuple(row) for row in rows], cut)) == whole
    assert forged or whole.broken is not None
    if column in ("version", "at") and seq > 3:
        assert whole.broken is not None


def several(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have as many processes follow even the shortest chain."""
    monkeypatch.setattr(verification, "EVENTS_EACH", 1)
    monkeypatch.setattr(verification, "_processors", lambda: count)


TAMPERING = [
    (),
    ("UPDATE events SET body = '{}' WHERE seq = 20",),
    ("DELETE FROM events WHERE seq = 8",),  # Where the first two of three parts meet.
    ("DELETE FROM events WHERE seq = 16", "UPDATE events SET body = '{}' WHERE seq = 20"),
    ("UPDATE events SET hash = 'text' WHERE seq = 8",),
    ("UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE seq = 21",),
    ("UPDATE events SET seq = -4 WHERE seq = 3",),
]


@pytest.mark.parametrize("statements", TAMPERING)
def test_three_processes_find_what_one_finds(
    log: Log, monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    """Also where the event is gone at which their parts meet, and where bytes are no text."""
    change(log, *statements)
    several(monkeypatch, 1)
    alone = verify(log)
    several(monkeypatch, 3)
    assert verify(log) == alone
    assert alone["ok"] == (not statements)


def test_parts_are_followed_by_processes_of_their_own(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by this one where they cannot be had."""
    several(monkeypatch, 3)
    found: list[Followed | None] = []
    wait = Part.wait
    monkeypatch.setattr(Part, "wait", lambda part: (found.append(wait(part)), found[-1])[1])
    expected = verify(log)
    assert [one is not None and one.seq for one in found] == [16, 24]
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert verify(log) == expected
    assert found[2:] == [None, None]


def test_a_process_knows_what_was_scrubbed_and_what_lies_elsewhere(log: Log) -> None:
    """As the one that began it does."""
    row = next(log.rows(11, 12))
    change(log, "UPDATE events SET body = '{}' WHERE seq = 12")
    new = hashlib.sha256(b"{}").hexdigest()

    def ended(scrubbed: dict[int, tuple[str, str]], *away: str) -> Followed:
        part = Part(log.path, 10, 20, scrubbed, Moved(log.path, away, away))
        try:
            found = part.wait()
        finally:
            part.end()
        assert found is not None
        return found

    assert (ended({}).seq, ended({12: (row.body_digest.hex(), new)}).seq) == (11, 20)
    change(log, "UPDATE events SET body = '' WHERE seq = 12")
    assert (ended({}).seq, ended({}, "gamma").seq) == (11, 20)


def test_progress_is_told_and_never_beyond_the_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all events, however many follow them."""
    monkeypatch.setattr(verification, "REPORT_EVERY", 1)
    told: list[tuple[int, int]] = []
    verify(log, lambda done, total: told.append((done, total)))
    assert told == [(EVENTS, EVENTS)]
