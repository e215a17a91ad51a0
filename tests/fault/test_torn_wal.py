"""A write-ahead log that was cut or spoiled: what is left is a whole number of commits from the first on, and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_agents.eventstore import audit
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.log import Log

COMMITS, EVENTS = 5, 3
HEAD, FRAME_HEAD, PAGE = 32, 24, 4096  # Of SQLite's write-ahead log, in bytes.
FRAME = FRAME_HEAD + PAGE
WITHIN = (0, 1, 8, 16, FRAME_HEAD - 1, FRAME_HEAD, FRAME_HEAD + 1, FRAME_HEAD + PAGE // 2, FRAME - 1)
"""Places in a frame: at its border, in its page's number, in its size of the store, in its sums, in its page."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a killed process leaves it: of its commits, all but the tables lie in the write-ahead log."""
    live, left = tmp_path_factory.mktemp("live") / "events.db", tmp_path_factory.mktemp("left") / "events.db"
    Log(live).close()
    with Log(live) as log:
        for number in range(COMMITS):
            log.append("alpha", number * EVENTS, [ev.RunPaused(reason=f"{number} {'x' * 900}")] * EVENTS)
        for suffix in ("", "-wal"):
            shutil.copy(f"{live}{suffix}", f"{left}{suffix}")
    return left


def spoiled(crashed: Path, folder: Path, wal: bytes) -> Path:
    """The store with another write-ahead log."""
    store = folder / "events.db"
    for old in folder.glob("events.db*"):
        old.unlink()
    shutil.copy(crashed, store)
    store.with_name("events.db-wal").write_bytes(wal)
    return store


def check(store: Path) -> int:
    """The store is whole, ends between two commits, and goes on. Gives how many commits are left."""
    with Log(store) as log:
        verdict = verify_rows(log.rows())
        assert verdict.broken is None
        assert verdict.events % EVENTS == 0
        log.append("alpha", verdict.events, [ev.RunResumed()])
    with Log(store) as log:
        assert verify_rows(log.rows()).events == verdict.events + 1
    assert audit.damage(store) == []
    return verdict.events // EVENTS


def places(wal: bytes) -> Iterator[int]:
    """In the head, and in every frame."""
    yield from (0, 1, 8, 16, 24, HEAD - 1)
    yield from (HEAD + first + within for first in range(0, len(wal) - HEAD, FRAME) for within in WITHIN)


def test_wherever_it_was_cut_a_prefix_of_whole_commits_is_left(crashed: Path, tmp_path: Path) -> None:
    """The longer the rest, the more of them; all of them where nothing is missing."""
    wal = crashed.with_name("events.db-wal").read_bytes()
    assert (len(wal) - HEAD) % FRAME == 0
    left = [check(spoiled(crashed, tmp_path, wal[:place])) for place in places(wal)]
    assert left == sorted(left)
    assert left[0] == 0
    assert set(left) == set(range(COMMITS))
    assert check(spoiled(crashed, tmp_path, wal)) == COMMITS


def test_whichever_bit_was_flipped_the_commits_before_it_are_left(crashed: Path, tmp_path: Path) -> None:
    """The sums of a frame cover those before it, so nothing behind it counts either."""
    wal = crashed.with_name("events.db-wal").read_bytes()
    left = []
    for place in places(wal):
        flipped = bytearray(wal)
        flipped[place] ^= 1 << place % 8
        left.append(check(spoiled(crashed, tmp_path, bytes(flipped))))
    assert left == sorted(left)
    assert set(left) == set(range(COMMITS))


@pytest.mark.parametrize("content", [b"", b"\0" * 32_768, b"\xff" * 40_000])
def test_the_index_of_it_may_hold_anything(crashed: Path, tmp_path: Path, content: bytes) -> None:
    """Whoever opens the store first makes it anew."""
    store = spoiled(crashed, tmp_path, crashed.with_name("events.db-wal").read_bytes())
    store.with_name("events.db-shm").write_bytes(content)
    assert check(store) == COMMITS
