"""A conflict resolved in a checkout of its own: what it holds, when it counts, and that nothing made there is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gitrepos import belongings
from handmade import HandmadeRun
from paper import task

from parallel_agents import checkpoints, resolving_by_hand
from parallel_agents.checkpoint.worktrees import listed
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.resolving_by_hand import Editing, begin, finish


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandmadeRun]:
    """Work of b that clashes with that of a over a line; c still runs."""
    made = HandmadeRun(tmp_path, monkeypatch, task("a"), task("b"), task("c"))
    made.start("a", "b", "c")
    made.end("a", {"f": "A\n"})
    made.end("b", {"f": "B\n", "new": "b\n"}, other="a")
    yield made
    made.close()


def test_the_whole_merge_is_laid_out_with_the_sides_named(run: HandmadeRun) -> None:
    """Beside the checkouts of attempts; the user's files are not touched."""
    before = belongings(run.repository)
    editing = begin(run.log, run.run_id, "b")
    assert editing.folder == run.project.store.parent / "worktrees" / run.run_id / ".resolve-b"
    assert editing.files == (editing.folder / "f",)
    assert (editing.folder / "f").read_text() == (
        "<<<<<<< ours, merged before\nA\n=======\nB\n>>>>>>> theirs, the work of the task\n"
    )
    assert (editing.folder / "new").read_text() == "b\n"
    assert belongings(run.repository) == before


def test_what_was_made_of_it_is_merged_whole(run: HandmadeRun) -> None:
    """Other files that had to follow too; then its checkout is gone."""
    editing = begin(run.log, run.run_id, "b")
    (editing.folder / "f").write_text("A and B\n")
    (editing.folder / "new").unlink()
    (editing.folder / "more").write_text("more\n")
    done = finish(run.log, editing)
    assert (done["status"], done["how"], done["paths"]) == ("completed", "files", ["f"])
    assert [run.read(path) for path in ("f", "new", "more", "g")] == ["A and B\n", None, "more\n", "one\n"]
    assert not editing.folder.exists()
    assert listed(run.repository, run.project.store.parent) == []


def test_what_is_not_finished_does_not_count_and_is_gone_on_with(run: HandmadeRun) -> None:
    """Nothing changed, marks left: the checkout stays as it is, and the next editor finds it so."""
    editing = begin(run.log, run.run_id, "b")
    with pytest.raises(NotAllowed, match="still in conflict: f") as error:
        finish(run.log, editing)
    assert f"resolve {run.run_id} b --edit` goes on in {editing.folder}" in error.value.hint
    (editing.folder / "f").write_text("half of it\n<<<<<<< ours\n")
    again = begin(run.log, run.run_id, "b")
    assert again.begun
    assert (again.folder / "f").read_text() == "half of it\n<<<<<<< ours\n"
    assert run.state.tasks["b"].status == "blocked"


def test_a_conflict_without_marks_needs_a_change_to_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that was closed says nothing about a file that one side has removed."""
    run = HandmadeRun(tmp_path, monkeypatch)
    run.start("a", "b")
    run.end("a", {"f": None})
    run.end("b", {"f": "B\n"}, other="a")
    editing = begin(run.log, run.run_id, "b")
    assert (editing.folder / "f").read_text() == "B\n"
    for _ in range(2):
        with pytest.raises(NotAllowed, match="nothing was changed") as error:
            finish(run.log, begin(run.log, run.run_id, "b"))
        assert "or take a side" in error.value.hint
    (editing.folder / "f").unlink()
    finish(run.log, editing)
    assert run.read("f") is None
    run.close()


def test_a_file_that_made_way_has_to_be_given_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git puts it beside the other under a name that nobody wants to keep."""
    run = HandmadeRun(tmp_path, monkeypatch)
    run.start("a", "b")
    run.end("a", {"f": None, "f/inside": "A\n"})
    run.end("b", {"f": "B\n"}, other="a")
    editing = begin(run.log, run.run_id, "b")
    beside = editing.folder / f"f~{editing.work}"
    assert beside in editing.files
    (editing.folder / "g").write_text("changed\n")
    with pytest.raises(NotAllowed, match="still in conflict: f~"):
        finish(run.log, editing)
    beside.rename(editing.folder / "f.txt")
    finish(run.log, editing)
    assert (run.read("f/inside"), run.read("f.txt")) == ("A\n", "B\n")
    run.close()


def test_what_was_merged_while_the_editor_was_open_is_in_the_result(run: HandmadeRun) -> None:
    """The answer was given on the line as it was, and holds on what came to it."""
    editing = begin(run.log, run.run_id, "b")
    (editing.folder / "f").write_text("A and B\n")
    run.end("c", {"g": "C\n"})
    finish(run.log, editing)
    assert (run.read("f"), run.read("g")) == ("A and B\n", "C\n")


def test_what_was_made_of_a_conflict_that_is_another_one_now_is_kept(run: HandmadeRun) -> None:
    """As a checkpoint, before its checkout makes way for the new one."""
    editing = begin(run.log, run.run_id, "b")
    (editing.folder / "f").write_text("hours of work\n")
    run.end("c", {"g": "C\n"})
    again = begin(run.log, run.run_id, "b")
    assert not again.begun
    assert (again.folder / "g").read_text() == "C\n"
    kept = checkpoints.list_of(run.log, run.run_id)[-1]
    assert (kept["kind"], kept["label"]) == ("manual", "a resolution of b that was left")
    assert run.read("f", kept["commit"]) == "hours of work\n"
    assert run.reachable(kept["commit"])


def test_a_checkout_that_nobody_worked_in_makes_way_without_a_trace(run: HandmadeRun) -> None:
    """There is nothing in it to be kept."""
    begin(run.log, run.run_id, "b")
    run.end("c", {"g": "C\n"})
    seq = run.log.last_seq()
    editing: Editing = resolving_by_hand.begin(run.log, run.run_id, "b")
    assert (editing.folder / "g").read_text() == "C\n"
    assert run.log.last_seq() == seq


def test_a_name_that_is_no_utf8_can_be_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies there by its bytes."""
    run = HandmadeRun(tmp_path, monkeypatch)
    run.start("a", "b")
    run.end("a", {"na\udcefve": "A\n"})
    run.end("b", {"na\udcefve": "B\n"}, other="a")
    editing = begin(run.log, run.run_id, "b")
    editing.files[0].write_text("both\n")
    assert finish(run.log, editing)["paths"] == ["na\\udcefve"]
    assert run.read("na\udcefve") == "both\n"
    run.close()
