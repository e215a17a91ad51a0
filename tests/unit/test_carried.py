"""The store of an imported run: its chain, which secrets were taken out of, and that nobody appends to it."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from parallel_agents import travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import ChainBroken, NotAllowed
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.exporting import export
from parallel_agents.importing import bring_in
from parallel_agents.project import Project
from parallel_agents.verification import verify

RUN = "aaaaaaaaaa"
OLD, NEW = '"error":"a secret"', '"error":"[scrubbed]"'


@pytest.fixture
def store(tmp_path: Path) -> Project:
    """A store with one run, between two others; somebody has found a secret in an event of it."""
    project = Project(tmp_path, tmp_path / "events.db", tmp_path)
    plan = Plan(name="p", workspace="none", tasks=(Task(task_id="a", command=("true",)),)).to_bytes()
    with Log(project.store, environ={}) as log:
        for run_id in ("bbbbbbbbbb", RUN, "cccccccccc"):
            submitted = ev.RunSubmitted(
                name="p", plan_digest=digest_of(plan), task_count=1, strategy="concurrent", workspace="none",
                workdir=str(tmp_path),
            )  # fmt: skip
            log.append(run_id, 0, [submitted, ev.TaskQueued(task_id="a")], blobs={digest_of(plan): plan})
        failed = ev.TaskFailed(task_id="a", attempt_id="x", duration_s=1.0, error="a secret")
        started = ev.TaskStarted(task_id="a", attempt_id="x", attempt=1, runner="process")
        *_, last = log.append(RUN, 2, [started, failed])
        row = log.row(last.seq)
        assert row is not None
        body = row.body.replace(OLD, NEW)
        digests = (row.body_digest.hex(), hashlib.sha256(body.encode()).hexdigest())
        scrubbed = ev.SecretScrubbed(seq=last.seq, old_digest=digests[0], new_digest=digests[1])
        log.append(STORE_RUN, 0, [scrubbed])
    with closing(sqlite3.connect(project.store)) as connection:
        connection.execute("UPDATE events SET body = ? WHERE seq = ?", (body, last.seq))
        connection.commit()
    return project


def carried(project: Project, folder: Path) -> Path:
    """The store of the run, imported elsewhere."""
    folder.mkdir()
    with Log(project.store, environ={}) as log:
        export(log, project, RUN, folder / "file")
    return Path(bring_in(folder / "file", Project.find(start=folder, root=folder))["store"])


def test_an_event_that_a_secret_was_taken_out_of_is_proved_by_the_logs_own_word(store: Project, tmp_path: Path) -> None:
    """That came along, though it is an event of no run."""
    with Log(carried(store, tmp_path / "here"), create=False, environ={}) as log:
        found = verify(log)
        assert (found["ok"], found["events"], found["carried"]["first"]) == (True, 7, 3)
        assert NEW in next(row.body for row in log.rows(run_id=RUN, where="type = 'TaskFailed'"))


def test_without_that_word_it_is_not_exported(store: Project, tmp_path: Path) -> None:
    """It is a changed event as any other."""
    with closing(sqlite3.connect(store.store)) as connection:
        connection.execute("DELETE FROM events WHERE type = 'SecretScrubbed'")
        connection.commit()
    with Log(store.store, environ={}) as log, pytest.raises(ChainBroken, match="event 8 is not what was written"):
        export(log, store, RUN, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_the_hashes_are_those_of_the_store_that_it_came_from(store: Project, tmp_path: Path) -> None:
    """So a head that somebody has kept elsewhere fits both."""
    with Log(store.store, environ={}) as there, Log(carried(store, tmp_path / "here"), create=False) as log:
        assert verify(log)["head"] == verify(there)["head"]
        for row in log.rows(run_id=RUN):
            assert there.row(row.seq) == row


def test_nobody_appends_to_it(store: Project, tmp_path: Path) -> None:
    """Whatever asks for it."""
    path = carried(store, tmp_path / "here")
    with Log(path, create=False, environ={}) as log:
        with pytest.raises(NotAllowed, match="was imported"):
            log.append(RUN, 4, [ev.RunStarted()])
        with pytest.raises(NotAllowed, match="was imported"):
            travel.fork(log, RUN, log.last_seq(), {})
