"""The write-ahead log while somebody reads an old moment of the store: it grows, is told of, and is small again afterwards."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import next_line

from parallel_agents import doctor
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.write_ahead import LIMIT_BYTES, readers, wal_bytes
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.upkeep import LOOK_EVERY_US, Upkeep

MEGABYTE = 1_000_000
READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM events").fetchone()[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """One with an event in it, so that there is something to read."""
    (tmp_path / ".parallel-agents").mkdir()
    with Log(tmp_path / ".parallel-agents" / "events.db", environ={}) as made:
        made.append("alpha", 0, [ev.RunStarted()])
        yield made


def append(log: Log, events: int, name: str = "a-task-with-a-long-name") -> None:
    """So many, a thousand a commit."""
    for _ in range(events // 1000):
        many = [ev.TaskQueued(task_id=f"{name}-{number}") for number in range(1000)]
        log.transact(lambda draft, many=many: draft.add_all("alpha", many) and None)


def test_a_foreign_reader_is_named_and_holds_up_nothing_but_the_folding(log: Log, tmp_path: Path) -> None:
    """100,000 events are appended meanwhile; the first look after it has gone empties the file."""
    steady = [0]
    upkeep = Upkeep(log, Projector(log), lambda: steady[0])
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(log.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert next_line(reader.stdout) == "1\n"
    append(log, 100_000)
    grown = wal_bytes(log.path)
    assert grown > LIMIT_BYTES
    upkeep.after_tick(0, quiet=True)
    assert wal_bytes(log.path) == grown
    if sys.platform == "linux":
        assert readers(log.path) == [reader.pid]
    reader.communicate("")
    upkeep.after_tick(0, quiet=True)
    assert wal_bytes(log.path) == grown, "it is not looked at all the time"
    steady[0] += LOOK_EVERY_US
    upkeep.after_tick(0, quiet=False)
    assert wal_bytes(log.path) == grown, "nor while there is something to do"
    upkeep.after_tick(0, quiet=True)
    assert wal_bytes(log.path) == 0
    assert readers(log.path) in ([], None)
    assert log.last_seq() == 100_001


def test_without_readers_the_file_stays_small(log: Log) -> None:
    """SQLite itself copies it back after some commits and begins anew."""
    append(log, 30_000, "a-name-of-a-thousand-characters" * 33)
    assert log.path.stat().st_size > 1.5 * LIMIT_BYTES
    assert wal_bytes(log.path) < LIMIT_BYTES


def test_readers_of_ours_hold_no_moment_between_two_pages(log: Log) -> None:
    """Whatever they read, and however long they take for it, everything can be copied back meanwhile."""
    append(log, 5000)
    for reading in (log.rows(), log.read(), log.rows(run_id="alpha"), log.briefs("alpha"), log.rows(2000)):
        next(iter(reading))
        log.append("beta", 0, [ev.RunStarted()]) if not log.last_seq() % 2 else None
        other = sqlite3.connect(log.path, isolation_level=None, timeout=0)
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        other.close()
        assert sum(1 for _ in reading) >= 3000


@pytest.mark.parametrize(
    ("found", "said"),
    [([4711], "process 4711 (of somebody else) reads"), ([], "nobody reads it just now"), (None, "nobody can tell")],
)
def test_doctor_tells_of_a_large_write_ahead_log(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[int] | None, said: str
) -> None:
    """With who holds it, where that can be told; of a small one it says nothing."""
    project = Project(tmp_path, log.path, None)
    monkeypatch.setattr(doctor, "readers", lambda store: found)
    assert not [one for one in doctor._store(project) if "journal" in one.check]
    monkeypatch.setattr(doctor, "LARGE_WAL_BYTES", 1)
    (told,) = [one for one in doctor._store(project) if "journal" in one.check]
    assert told.level == "warning"
    assert said in told.detail
