"""Commits of snapshots do not wait for the disk, and those of events behind them do."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log

OFF, NORMAL, FULL = 0, 1, 2  # As SQLite names them.


def level(log: Log) -> int:
    """How a commit waits for the disk."""
    return int(log._writer.execute("PRAGMA synchronous").fetchone()[0])


def test_only_the_commit_of_a_snapshot_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """Before and after it every commit does."""
    with Log(tmp_path / "events.db", environ={}) as log:
        levels: list[int] = []
        log._writer.set_trace_callback(lambda said: levels.append(level(log)) if said == "COMMIT" else None)
        log.append("run", 0, [ev.RunPaused()])
        log.save_snapshots("run", [("one", 1, 1, b"a"), ("other", 1, 1, b"b")])
        log.append("run", 1, [ev.RunPaused()])
        log._writer.set_trace_callback(None)
        assert levels == [FULL, NORMAL, FULL]
        assert log.load_snapshot("run", "other", 1, 9) == (1, b"b")


def test_a_snapshot_that_fails_leaves_commits_as_they_were(tmp_path: Path) -> None:
    """And a log whose commits wait for nothing goes on so."""
    with Log(tmp_path / "events.db", environ={}) as log:
        log.save_snapshot("run", "one", 1, 1, b"a")
        log._writer.execute("DROP TABLE snapshots")
        with pytest.raises(StoreError):
            log.save_snapshot("run", "one", 1, 1, b"a")
        assert (level(log), log._writer.in_transaction) == (FULL, False)
        log._writer.execute("PRAGMA synchronous = OFF")
        with pytest.raises(StoreError):
            log.save_snapshot("run", "one", 1, 1, b"a")
        assert level(log) == OFF
        log.append("run", 0, [ev.RunPaused()])
