"""Faults that are planted in a real history, one at a time: each is found and named, by `verify`, by `--deep` or by a seal.

The history is of a run with a failure, a retry, a conflict that was settled, a rollback, and a fork, made by the program itself.
What the chain alone cannot find (an end that was cut off, a tail that was written anew with right hashes) is said as well:
`verify` passes there, `--deep` finds it where files or snapshots contradict it, and a seal always does.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from crashing import World
from daemons import wait_until

from parallel_agents.cli import main
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.links import event_hash
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.projections.projector import Projector

COLUMNS = "seq, run_id, version, type, at, actor, body, body_digest, prev_hash, hash"


class History(NamedTuple):
    """A project with its store, as it was when it was whole.

    Attributes:
        pristine: a copy of all of it.
        seqs: the last event of each type.
    """

    folder: Path
    pristine: Path
    run_id: str
    fork_id: str
    end: int
    seqs: dict[str, int]

    @property
    def store(self) -> Path:
        """The log's file."""
        return self.folder / ".parallel-agents/events.db"

    def rows(self) -> list[list[Any]]:
        """All events, as they are stored."""
        with closing(sqlite3.connect(self.store)) as connection:
            return [list(row) for row in connection.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq")]

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Put these in the place of all events."""
        with closing(sqlite3.connect(self.store)) as connection, connection:
            connection.execute("DELETE FROM events")
            connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * 10)})", rows)

    def change(self, statement: str, *values: Any) -> None:
        """One statement, behind our back."""
        with closing(sqlite3.connect(self.store)) as connection, connection:
            assert connection.execute(statement, values).rowcount > 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """The history, made once."""
    with pytest.MonkeyPatch.context() as patch:
        outside = Path(tempfile.mkdtemp(prefix="faults-"))
        (outside / "tmp").mkdir()
        for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
            patch.setenv(name, os.devnull)
        patch.setenv("HOME", str(outside))
        patch.setenv("TMPDIR", str(outside / "tmp"))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        patch.setattr(tempfile, "tempdir", str(outside / "tmp"))
        folder = tmp_path_factory.mktemp("faults") / "project"
        folder.mkdir()
        world = World(folder, outside)
        try:
            yield _lived(world, folder, folder.with_name("pristine"))
        finally:
            world.log = Log(world.path)
            world.close()
            shutil.rmtree(outside, ignore_errors=True)


def standing(world: World, run_id: str) -> dict[str, str]:
    """The tasks of a run with their states."""
    return {name: task.status for name, task in world.state(run_id).tasks.items()}


def _lived(world: World, folder: Path, pristine: Path) -> History:
    """A run that fails, is tried again, meets a conflict, is taken back and gone on with; and a fork of it."""
    tasks = [
        world.task("a", "write:file:a", "wait:go"), world.task("b", "write:file:b", "wait:go"),
        world.task("c", "once", "write:c:1", max_retries=1), world.task("d", "write:d:1", after=("a", "b", "c")),
    ]  # fmt: skip
    run_id = world.plan(*tasks, at_once=3)
    with world.dispatching():
        for name in ("a", "b"):
            world.wait_for("begins", name)
        wait_until(lambda: standing(world, run_id)["c"] == "completed", "the second attempt")
        world.go()
        wait_until(lambda: Counter(standing(world, run_id).values())["blocked"] == 1, "the conflict")
    (blocked,) = [name for name, status in standing(world, run_id).items() if status == "blocked"]
    world.cli("resolve", run_id, blocked, "--take", "both")
    assert world.run_to_end(run_id) == "completed"
    (before,) = [
        one.seq for one in world.records(run_id) if isinstance(one.event, ev.TaskStarted) and one.event.task_id == "d"
    ]
    world.cli("rollback", run_id, "--to", str(before - 1), "--yes")
    world.cli("resume", run_id)
    world.cli("fork", run_id, "--at", str(before - 1))
    [fork_id] = [name for name in Projector(world.log).runs() if name != run_id]
    world.cli("resume", fork_id)
    projector = Projector(world.log)
    for name in (run_id, fork_id):
        projector.save_snapshot(projector.state(name))
    world.cli("seal", "--out", str(folder / ".git/seal.json"))
    seqs = {type(one.event).__name__: one.seq for one in world.log.read()}
    assert seqs.keys() >= {
        "TaskFailed", "TaskRetryScheduled", "ConflictDetected", "ConflictResolved", "RunRolledBack", "RunForked",
    }  # fmt: skip
    end = world.log.last_seq()
    world.log.close()
    shutil.copytree(folder, pristine, symlinks=True)
    return History(folder, pristine, run_id, fork_id, end, seqs)


@pytest.fixture
def history(made: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """The same, whole again, in the place that its events name."""
    shutil.rmtree(made.folder)
    shutil.copytree(made.pristine, made.folder, symlinks=True)
    monkeypatch.chdir(made.folder)
    return made


def rechained(rows: list[list[Any]], first: int) -> list[list[Any]]:
    """Rows whose digests and hashes fit again from an event on, as somebody makes them who knows how."""
    for at in range(first - 1, len(rows)):
        row = rows[at]
        row[7] = sha256(row[6].encode()).digest()
        row[8] = rows[at - 1][9] if at else bytes(32)
        row[9] = event_hash(row[8], *row[:6], row[7])
    return rows


# The faults. Each gives what has to be said of it.


def reordered(history: History) -> list[str]:
    """Two events change places."""
    rows = history.rows()
    rows[20][0], rows[21][0] = 22, 21
    history.write(rows)
    return ["event 21 was changed", "does not follow", "moved"]


def dropped(history: History) -> list[str]:
    """An event is gone."""
    history.change("DELETE FROM events WHERE seq = 20")
    return ["event 20 was changed", "event 20 is missing; the next one is 21"]


def dropped_and_closed_up(history: History) -> list[str]:
    """An event is gone, and those behind it were numbered anew."""
    rows = history.rows()
    del rows[19]
    history.write([[at, *row[1:]] for at, row in enumerate(rows, start=1)])
    return ["event 20 was changed", "does not follow", "taken out"]


def altered(history: History) -> list[str]:
    """A failure was none."""
    seq = history.seqs["TaskFailed"]
    history.change("UPDATE events SET body = replace(body, '\"exit_code\":1', '\"exit_code\":0') WHERE seq = ?", seq)
    return [f"event {seq} was changed", "its body is not the one that was recorded"]


def altered_envelope(history: History) -> list[str]:
    """Somebody else did it."""
    history.change("UPDATE events SET actor = 'nobody' WHERE seq = 9")
    return ["event 9 was changed", "actor"]


def duplicated(history: History) -> list[str]:
    """An event happened twice."""
    rows = history.rows()
    copy, run_id = list(rows[19]), rows[19][1]
    copy[2] = max(row[2] for row in rows if row[1] == run_id) + 1
    rows.insert(20, copy)
    history.write([[at, *row[1:]] for at, row in enumerate(rows, start=1)])
    return ["event 21 was changed", "it is a copy of the event before it"]


def truncated_event(history: History) -> list[str]:
    """The end of a body is gone."""
    history.change("UPDATE events SET body = substr(body, 1, length(body) / 2) WHERE seq = 1")
    return ["event 1 was changed", "its body is not the one that was recorded"]


def wrong_digest(history: History) -> list[str]:
    """Of a body that is as it was."""
    history.change("UPDATE events SET body_digest = zeroblob(32) WHERE seq = 12")
    return ["event 12 was changed", "its digest is not the one that was recorded"]


def changed_plan(history: History) -> list[str]:
    """A task ran something else."""
    digest = orjson.loads(history.rows()[0][6])["plan_digest"]
    history.change("UPDATE blobs SET bytes = replace(bytes, '\"write:d:1\"', '\"write:d:2\"') WHERE digest = ?", digest)
    return [digest[:12], "gone or changed"]


def lost_plan(history: History) -> list[str]:
    """Nobody can tell what a task ran."""
    digest = orjson.loads(history.rows()[0][6])["plan_digest"]
    history.change("DELETE FROM blobs WHERE digest = ?", digest)
    return [digest[:12], "gone or changed"]


def foreign_snapshot(history: History) -> list[str]:
    """The state of one run under the name of another."""
    history.change(
        "UPDATE snapshots SET state = (SELECT state FROM snapshots WHERE run_id = ?) WHERE run_id = ?",
        history.fork_id, history.run_id,
    )  # fmt: skip
    return [f"the snapshot of run {history.run_id}", "is not what its events say"]


def stranger_snapshot(history: History) -> list[str]:
    """The state of a run that this store does not know."""
    history.change("UPDATE snapshots SET run_id = 'stranger12' WHERE run_id = ?", history.fork_id)
    return ["run stranger12, which the log does not know"]


def missing_commit(history: History) -> list[str]:
    """The work of the last task is gone from git."""
    (commit,) = {orjson.loads(row[6])["commit"] for row in history.rows() if row[0] == history.seqs["TaskCompleted"]}
    refs = history.folder / ".git/refs"
    for ref in [path for path in refs.rglob("*") if path.is_file() and path.read_text().strip() == commit]:
        ref.unlink()
    (history.folder / ".git/objects" / commit[:2] / commit[2:]).unlink()
    return [f"commit {commit}", "is not in"]


def truncated_log(history: History) -> list[str]:
    """Nothing of the fork has happened; its snapshot, its branch and its refs are still there."""
    history.change("DELETE FROM events WHERE seq >= ?", history.seqs["RunForked"])
    return [f"the log ends with event {history.seqs['RunForked'] - 1}", "the end of the log is gone"]


def truncated_log_without_snapshots(history: History) -> list[str]:
    """The last task was not done, as far as events tell; its branch says otherwise."""
    history.change("DELETE FROM events WHERE seq >= ?", history.seqs["TaskCompleted"])
    history.change("DELETE FROM snapshots")
    return [f"parallel-agents/{history.fork_id}", "which we have made and no event names", "the end of the log is gone"]


def truncated_log_and_files(history: History) -> list[str]:
    """The same, and whoever did it has cleaned up behind them."""
    seq = history.seqs["TaskCompleted"]
    truncated_log_without_snapshots(history)
    before = next(orjson.loads(row[6])["commit"] for row in history.rows() if row[3] == "RunForked")
    (history.folder / f".git/refs/heads/parallel-agents/{history.fork_id}").write_text(before + "\n")
    return [f"events {seq} to {history.end}", "are gone", f"it had {history.end}"]


def rewritten_commit(history: History) -> list[str]:
    """The last task has made something else, and every hash from there on is right."""
    rows, seq = history.rows(), history.seqs["TaskCompleted"]
    body = orjson.loads(rows[seq - 1][6])
    commit, body["commit"] = body["commit"], "0" * 40
    rows[seq - 1][6] = orjson.dumps(body).decode()
    history.write(rechained(rows, seq))
    assert commit != "0" * 40
    return [f"commit {'0' * 40}", f"which event {seq} names", "is not in"]


def rewritten_words(history: History) -> list[str]:
    """A failure had another reason; a snapshot from then says otherwise."""
    rows, seq = history.rows(), history.seqs["TaskFailed"]
    assert "exit code 1" in rows[seq - 1][6]
    rows[seq - 1][6] = rows[seq - 1][6].replace("exit code 1", "exit code 7")
    history.write(rechained(rows, seq))
    return [f"the snapshot of run {history.run_id}", "is not what its events say"]


def rewritten_words_without_snapshots(history: History) -> list[str]:
    """The same where nothing is left that could contradict it."""
    rewritten_words(history)
    history.change("DELETE FROM snapshots")
    return [f"the history up to event {history.end} is not the one of the seal", f"between events 1 and {history.end}"]


def rewritten_plan(history: History) -> list[str]:
    """The run had another plan, under its right digest, and every hash is right."""
    rows, digest = history.rows(), orjson.loads(history.rows()[0][6])["plan_digest"]
    with closing(sqlite3.connect(history.store)) as connection, connection:
        (plan,) = connection.execute("SELECT bytes FROM blobs WHERE digest = ?", (digest,)).fetchone()
        other = plan.replace(b'"write:d:1"', b'"write:d:2"')
        assert other != plan
        connection.execute("INSERT INTO blobs VALUES (?, ?)", (digest_of(other), other))
        connection.execute("DELETE FROM snapshots")
    rows[0][6] = rows[0][6].replace(digest, digest_of(other))
    history.write(rechained(rows, 1))
    return ["another store, or this one was rewritten from its first event on"]


Plant = Callable[[History], list[str]]
QUICK, DEEP, SEAL = ("verify",), ("verify", "--deep"), ("verify", "--against", ".git/seal.json")
FOUND_BY: dict[tuple[str, ...], tuple[Plant, ...]] = {
    QUICK: (
        reordered, dropped, dropped_and_closed_up, altered, altered_envelope, duplicated, truncated_event, wrong_digest,
        changed_plan, lost_plan,
    ),
    DEEP: (
        foreign_snapshot, stranger_snapshot, missing_commit, truncated_log, truncated_log_without_snapshots,
        rewritten_commit, rewritten_words,
    ),
    SEAL: (truncated_log_and_files, rewritten_words_without_snapshots, rewritten_plan),
}  # fmt: skip
"""By the least that finds it: what stands before it passes, what stands behind it fails as well, but for a seal, which is of
the log alone."""
TAILS = (truncated_log, truncated_log_without_snapshots, rewritten_commit, rewritten_words)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command, and all that it said."""
    capsys.readouterr()
    code = main.exit_code_of(list(words))
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize("verb", [QUICK, DEEP, SEAL, (*DEEP, *SEAL[1:])])
def test_nothing_is_found_in_the_history_as_it_is(
    history: History, verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the other tests would say nothing."""
    code, text = said(capsys, *verb)
    assert (code, "ok: " in text) == (0, True), text


@pytest.mark.parametrize(
    ("verb", "plant"),
    [pytest.param(verb, plant, id=plant.__name__) for verb, some in FOUND_BY.items() for plant in some],
)
def test_a_planted_fault_is_found_and_named(
    history: History, verb: tuple[str, ...], plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 8, what it is and where, by the least that can find it and by all that looks at more."""
    words = plant(history)
    order = list(FOUND_BY)
    for weaker in order[: order.index(verb)]:
        assert said(capsys, *weaker)[0] == 0, f"{weaker} finds it as well"
    code, text = said(capsys, *verb)
    assert code == 8, text
    missing = [word for word in words if word not in " ".join(text.split())]
    assert missing == [], text
    assert said(capsys, *DEEP, *SEAL[1:])[0] == 8


@pytest.mark.parametrize("plant", TAILS)
def test_a_seal_finds_a_tail_that_was_cut_off_or_written_anew(
    history: History, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the chain holds and no other look is taken."""
    plant(history)
    code, text = said(capsys, *SEAL)
    assert code == 8
    assert ("are gone" if "truncated" in plant.__name__ else "is not the one of the seal") in text
