"""What a scrub does to the database: all of it in one commit, also what no event names, and to the last page."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parallel_agents import scrubbing
from parallel_agents.eventstore import blocks
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.verification import verify

TEXT = "correct-horse-battery"
SECRET = Secret(TEXT)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A store with an event that holds it."""
    with Log(tmp_path / ".parallel-agents.db", environ={}) as made:
        made.append("run", 0, [ev.RunPaused(reason=f"say {TEXT}"), ev.RunResumed(reason="go on")])
        yield made


def held(store: Path) -> list[str]:
    """The files in which its bytes stand; another process looks."""
    done = subprocess.run(["grep", "-rlaF", TEXT, store.parent], capture_output=True, text=True)
    return [os.path.basename(name) for name in done.stdout.splitlines()]


def test_one_commit_takes_it_out_and_says_so(log: Log) -> None:
    """Nothing else of the event has changed, nor of any other."""
    before = list(log.rows())
    done = scrubbing.scrub(log, SECRET)
    after = list(log.rows())
    assert (list(done.changes.events), done.left) == ([1], {})
    assert after[0] == before[0]._replace(body='{"reason":"say [redacted]","code":"","facts":{}}')
    assert after[1] == before[1]
    assert [(row.run_id, row.type, row.actor) for row in after[2:]] == [("store", "SecretScrubbed", "scrub")]
    assert verify(log)["ok"]
    assert held(log.path) == []


def test_a_document_that_no_event_names_and_caches_are_seen_to(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was killed before its event, or it is a state that was kept."""
    plan = Plan(name="p", tasks=(Task(task_id="a", description=TEXT, command=("x",)),)).to_bytes()
    with closing(sqlite3.connect(log.path)) as connection, connection:
        connection.execute("INSERT INTO blobs VALUES (?, ?)", (digest_of(plan), plan))
    log.save_snapshot("run", "status", 1, 2, f'{{"reason":"{TEXT}"}}'.encode())
    log.save_snapshot("run", "status", 1, 1, b"{}")
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "BITS", 0)
        assert blocks.catch_up(log) == log.last_seq() > 0
    changes = scrubbing.scrub(log, SECRET).changes
    ((old, (new, content)),) = changes.documents.items()
    assert (old, new, log.blob(new)) == (digest_of(plan), digest_of(content), content)
    assert (changes.snapshots, log.load_snapshot("run", "status", 1, 9)) == (1, None)
    assert log.ask("SELECT count(*) FROM event_block_texts") == [(0,)]
    assert blocks.covered(log) == 0
    assert held(log.path) == []


def test_where_only_free_pages_hold_it_they_are_rewritten(log: Log) -> None:
    """No event is added."""
    scrubbing.scrub(log, SECRET)
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        with connection:
            connection.execute("CREATE TABLE gone (text)")
            connection.executemany("INSERT INTO gone VALUES (?)", [(TEXT,)] * 1000)
        with connection:
            connection.execute("DROP TABLE gone")
    assert held(log.path) != []
    end = log.last_seq()
    assert not scrubbing.scrub(log, SECRET).found
    assert (held(log.path), log.last_seq()) == ([], end)


def test_where_somebody_looks_at_an_old_moment_it_says_that_the_old_pages_stay(log: Log) -> None:
    """And the next call sees to them, although no table holds it any more."""
    log._writer.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(log.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        done = scrubbing.scrub(log, SECRET)
        assert [os.path.basename(where) for where in done.left] == [f"{log.path.name}-wal"]
        assert held(log.path) != []
    log.close()
    assert scrubbing.in_pages(log.path, SECRET)
    with Log(log.path) as again:
        assert scrubbing.scrub(again, SECRET).left == {}
    assert not scrubbing.in_pages(log.path, SECRET)


def test_what_fails_in_the_middle_changes_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old body is there, and no event says otherwise."""
    before = list(log.rows())
    monkeypatch.setattr(
        Log, "_look_at_tail", lambda _: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O error"))
    )
    with pytest.raises(StoreError):
        scrubbing.scrub(log, SECRET)
    monkeypatch.undo()
    assert list(log.rows()) == before
    scrubbing.scrub(log, SECRET)
    assert held(log.path) == []
