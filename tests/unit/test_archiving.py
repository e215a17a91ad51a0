"""Archives: what moves, that every answer stays, and that nothing is lost or believed that was changed."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_agents import archiving, costs, look
from parallel_agents.archived import at_hand
from parallel_agents.checkpoints import list_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import archive_folder, archives_of
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.history import Question, history
from parallel_agents.past_attempts import read_past
from parallel_agents.projections import projector as projector_module
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.runners.output_cap import Cut, kept_pieces, write_cut
from parallel_agents.travel import fork
from parallel_agents.verification import verify
from parallel_agents.why import why

PLAN = Plan(name="house", workspace="none", tasks=(Task(task_id="dig"), Task(task_id="build")))
OUTPUT = "It is dug. " * 40
TEXTS = ("It is Dug", "bed_29", "house", "nothing")
PATHS = [f"garden/bed_{number}.txt" for number in range(30)]


def attempt(task_id: str, attempt_id: str) -> list[ev.Event]:
    """From queued to completed, with an output and a list of paths."""
    return [
        ev.TaskQueued(task_id=task_id),
        ev.TaskStarted(task_id=task_id, attempt_id=attempt_id, attempt=1, runner="shell", reserved_usd_micros=9),
        ev.CostCharged(task_id=task_id, attempt_id=attempt_id, usd_micros=5),
        ev.CheckpointCreated(
            checkpoint_id=f"c{task_id}", kind="after_attempt", task_id=task_id, attempt_id=attempt_id, paths=PATHS,
            changed=30,
        ),
        ev.TaskCompleted(task_id=task_id, attempt_id=attempt_id, duration_s=1.0, output=OUTPUT),
    ]  # fmt: skip


def add_run(log: Log, run_id: str) -> None:
    """One that has completed, with what its attempts wrote."""
    submitted = ev.RunSubmitted(
        name="house", plan_digest=digest_of(PLAN.to_bytes()), task_count=2, strategy="concurrent", workspace="none",
        workdir="/project",
    )  # fmt: skip
    events = [submitted, ev.RunStarted(), *attempt("dig", f"{run_id}1"), *attempt("build", f"{run_id}2")]
    end = ev.RunCompleted(counts={"completed": 2})
    log.append(run_id, 0, [*events, end], blobs={submitted.plan_digest: PLAN.to_bytes()})
    for task_id, attempt_id in (("dig", f"{run_id}1"), ("build", f"{run_id}2")):
        folder = attempts_folder(log.path) / run_id / task_id / attempt_id
        (folder / "gates").mkdir(parents=True)
        (folder / "stdout.log").write_text(f"{task_id}\n" * 1000)
        (folder / "prompt.md").write_text(f"Please {task_id}.")
        (folder / "gates" / "1.log").write_bytes(b"\xff\x00")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Two runs that have completed."""
    (tmp_path / ".parallel-agents").mkdir()
    with Log(tmp_path / ".parallel-agents" / "events.db", environ={}) as made:
        add_run(made, "alpha")
        add_run(made, "beta")
        yield made


def answers(log: Log, run_id: str) -> dict[str, Any]:
    """What a user can see of a run."""
    end = 15
    return {
        "history": [look.history_row(row) for row in history(log, Question(run_id)) if row is not None],
        "texts": [
            row.seq
            for text in ("It is Dug", "bed_29", "nothing")
            for row in history(log, Question(run_id, text=text))
            if row
        ],
        "attempt": [row.seq for row in history(log, Question(None, attempt=f"{run_id}1")) if row is not None],
        "task": [
            row.seq for of in (run_id, None) for row in history(log, Question(of, task_id="dig")) if row is not None
        ],
        "status": look.status(log, run_id),
        "status then": look.status(log, run_id, end),
        "show": [look.show(log, run_id, name) for name in ("dig", "build")],
        "prompt": look.prompt_of(log, run_id, "build"),
        "timeline": look.timeline_of(log, run_id),
        "cost": costs.cost(log, run_id, None, None),
        "checkpoints": list_of(log, run_id),
        "all checkpoints": list_of(log, None),
        "why": why(log, run_id, "build"),
        "tasks": [Projector(log).task(run_id, name, seq) for name in ("dig", "build") for seq in (14, end, 20, None)],
        "stdout": _stdout(log, run_id),
        "runs": look.runs(log),
    }


def _stdout(log: Log, run_id: str) -> bytes:
    with at_hand(log.path, attempts_folder(log.path) / run_id / "dig" / f"{run_id}1") as folder:
        return (folder / "stdout.log").read_bytes() + (folder / "gates" / "1.log").read_bytes()


def bodies_stored(log: Log) -> int:
    """How many events have their body in the table."""
    return sum(bool(row.body) for row in log.rows(stored=True))


def test_every_answer_is_the_same_out_of_an_archive(log: Log) -> None:
    """In the process that archived, and in one that never read the run before."""
    before = answers(log, "alpha")
    done = archiving.archive(log, ["alpha"], named=True)
    (one,) = done["archived"]
    assert (one["run_id"], one["events"], one["files"]) == ("alpha", 4, 6)
    assert answers(log, "alpha") == before
    with Log(log.path, environ={}) as fresh:
        assert answers(fresh, "alpha") == before
        assert [row.body for row in fresh.rows(run_id="alpha") if not row.body] == []
    assert bodies_stored(log) == log.last_seq() - 4
    assert not (attempts_folder(log.path) / "alpha").exists()
    assert (attempts_folder(log.path) / "beta").exists()
    assert archives_of(log.path, "alpha")[0].stat().st_mode & 0o777 == 0o600
    assert verify(log)["ok"]


def test_a_fork_of_an_archived_run_starts_from_what_it_was(log: Log) -> None:
    """Its state is read from the archive; and as long as the fork is open its parent is not archived again."""
    archiving.archive(log, ["alpha"], named=True)
    child = fork(log, "alpha", 9, {})["run_id"]
    assert Projector(log).state(child).tasks["dig"].output == OUTPUT
    with pytest.raises(NotAllowed, match=f"run {child}, which is .*, was forked from it"):
        archiving.archive(log, ["alpha"], named=True)


def test_a_run_that_is_not_over_stays(log: Log) -> None:
    """By name that is an error, by age it is told."""
    log.append("beta", log.version("beta"), [ev.RunResumed()])
    with pytest.raises(NotAllowed, match="run beta cannot be archived: its run is running"):
        archiving.archive(log, ["beta"], named=True)
    done = archiving.archive(log, ["alpha", "beta"], named=False)
    assert [one["run_id"] for one in done["archived"]] == ["alpha"]
    assert done["left"] == [{"run_id": "beta", "why": "its run is running"}]
    assert archiving.ended_before(log, 0) == ["alpha"]
    assert archiving.ended_before(log, 3600) == []


def test_archived_twice_what_came_since_moves_into_a_file_of_its_own(log: Log) -> None:
    """A run can be opened again; both files are read."""
    archiving.archive(log, ["alpha"], named=True)
    assert archiving.archive(log, ["alpha"], named=True) == {"archived": [], "left": []}
    again = [ev.TaskReopened(task_id="dig"), ev.RunResumed(), *attempt("dig", "third"), ev.RunCompleted(counts={})]
    log.append("alpha", log.version("alpha"), again)
    before = answers(log, "alpha")
    archiving.archive(log, ["alpha"], named=True)
    assert len(archives_of(log.path, "alpha")) == 2
    assert answers(log, "alpha") == before
    assert verify(log)["ok"]


def test_without_its_archive_the_chain_still_holds_and_readers_say_what_is_missing(log: Log) -> None:
    """Put back, all is as it was. What the store folds over all runs needs no archive."""
    held = Projector(log).spend()
    archiving.archive(log, ["alpha"], named=True)
    (path,) = archives_of(log.path, "alpha")
    away = path.rename(path.with_suffix(".away"))
    with Log(log.path, environ={}) as fresh:
        found = verify(fresh)
        assert (found["ok"], found["missing_archives"]) == (True, [path.name])
        with pytest.raises(StoreError, match="run alpha was archived, and event 6 is in no archive") as caught:
            look.status(fresh, "alpha")
        assert "alpha-*.zip" in caught.value.hint
        assert look.status(fresh, "beta")["status"] == "completed"
        assert (Projector(fresh).spend(), Projector(fresh).occupancy().slots) == (held, {})
        assert list(read_past(fresh, "house").by_task) == ["dig", "build"]  # Of the other run.
    away.rename(path)
    with Log(log.path, environ={}) as fresh:
        assert verify(fresh)["missing_archives"] == []
        assert look.status(fresh, "alpha")["tasks"][0]["output"] == OUTPUT


def test_a_changed_archive_is_found(log: Log) -> None:
    """By its digest, whatever was changed in it."""
    archiving.archive(log, ["alpha"], named=True)
    (path,) = archives_of(log.path, "alpha")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", "")
    found = verify(log)
    assert (found["ok"], found["changed_archives"], found["broken"]) == (False, [path.name], None)
    path.write_bytes(b"no archive")
    with Log(log.path, environ={}) as fresh, pytest.raises(StoreError, match="cannot be read"):
        look.status(fresh, "alpha")


@pytest.mark.parametrize("of", ["alpha", "beta"])
def test_an_empty_body_that_no_archive_accounts_for_breaks_the_chain(log: Log, of: str) -> None:
    """Of a run that never was archived, and of one that was: that body is not in there."""
    archiving.archive(log, ["alpha"], named=True)
    seq = next(row.seq for row in log.rows(run_id=of) if row.type == "TaskStarted")
    with sqlite3.connect(log.path) as other:
        other.execute("UPDATE events SET body = '' WHERE seq = ?", (seq,))
    other.close()
    assert verify(log)["broken"] == {"seq": seq, "what": "its body is not the one that was recorded"}


def test_a_changed_body_is_not_archived(log: Log) -> None:
    """Or the archive would make it look right."""
    with sqlite3.connect(log.path) as other:
        other.execute("UPDATE events SET body = replace(body, 'dug', 'dig') WHERE seq = 7")
    other.close()
    with pytest.raises(StoreError, match="event 7 of run alpha was changed"):
        archiving.archive(log, ["alpha"], named=True)
    assert bodies_stored(log) == log.last_seq()


def test_what_was_written_after_the_copy_stays_in_its_place(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlived its attempt may still write."""
    late = attempts_folder(log.path) / "alpha" / "dig" / "alpha1" / "stdout.log"
    emptied = log.empty_bodies

    def writes(*args: Any) -> None:
        emptied(*args)
        late.write_text("later")

    monkeypatch.setattr(log, "empty_bodies", writes)
    archiving.archive(log, ["alpha"], named=True)
    assert late.read_text() == "later"
    assert not (attempts_folder(log.path) / "alpha" / "build").exists()


def test_folds_of_the_store_are_the_same_when_a_run_was_archived(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are folded from rows whose bodies are away, and the run goes on again."""
    projector, plain = Projector(log), Projector(log, use_snapshots=False)
    archiving.archive(log, ["alpha"], named=True)
    log.append("alpha", log.version("alpha"), [ev.RunResumed()])
    monkeypatch.setattr(projector_module, "KEEP_EVERY", 1)
    for _ in range(2):  # From nothing, then from the snapshot.
        assert projector.occupancy() == plain.occupancy()
        assert projector.spend() == plain.spend()
        assert projector.occupancy().slots == {}


def test_room_is_given_back_a_piece_at_a_time(log: Log) -> None:
    """A store that is made by this release can be cut; an older one keeps the room for what comes, or is rewritten."""
    for number in range(40):
        add_run(log, f"run{number}")
    big = [ev.TaskCompleted(task_id="dig", attempt_id="x", duration_s=1.0, output="o" * 3000) for _ in range(500)]
    log.append("run0", log.version("run0"), big)
    archiving.archive(log, [f"run{number}" for number in range(40)], named=True)
    assert log.free_bytes() > 1_000_000
    before = log.last_seq()
    assert log.give_back() > 1_000_000
    assert log.free_bytes() == 0
    assert (log.last_seq(), verify(log)["ok"]) == (before, True)
    assert log._writer.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_with_a_hole_is_archived_without_it_and_read_with_it(log: Log) -> None:
    """As outputs are whose middle was given back to the disk; the cut is told as before."""
    folder = attempts_folder(log.path) / "alpha" / "dig" / "alpha1"
    with open(folder / "stdout.log", "wb") as file:
        file.write(b"head\n" * 1000)
        file.seek(3_000_000_000)
        file.write(b"tail\n" * 1000)
    write_cut(str(folder), "stdout.log", Cut(5000, 3_000_000_000, 2_999_995_000, True))
    before = look.show(log, "alpha", "dig"), list(kept_pieces(str(folder / "stdout.log"), 0))
    assert before[0]["attempt_list"][0]["cut_bytes"] == {"stdout": 2_999_995_000}
    (one,) = archiving.archive(log, ["alpha"], named=True)["archived"]
    assert one["bytes"] < 100_000
    assert not folder.exists()
    with at_hand(log.path, folder) as there:
        assert (look.show(log, "alpha", "dig"), list(kept_pieces(str(there / "stdout.log"), 0))) == before
        assert (there / "stdout.log").stat().st_size == 3_000_005_000
    assert not there.exists()


def test_an_attempt_with_links_is_left_as_it_is(log: Log) -> None:
    """A link would be followed, or lost."""
    folder = attempts_folder(log.path) / "alpha" / "dig" / "alpha1"
    (folder / "link").symlink_to("stdout.log")
    (one,) = archiving.archive(log, ["alpha"], named=True)["archived"]
    assert one["files"] == 3
    assert (folder / "link").is_symlink()
    assert archive_folder(log.path).is_dir()
