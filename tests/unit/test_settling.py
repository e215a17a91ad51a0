"""A person's answers to blocked work, in a real repository: approvals, sides taken, files given, and a line that moves on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gitrepos import belongings, user_git
from handmade import HandmadeRun, Make, commit_of
from paper import task

from parallel_agents import settling
from parallel_agents.checkpoint import merging, refs
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed, StaleRun
from parallel_agents.scheduler.process import own_identity
from parallel_agents.scheduler.work import Gated


def clashing(make: Make, **more: Any) -> HandmadeRun:
    """Work of b that does not merge with that of a, over one line of one file."""
    run = make(**more)
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n", "new": "b\n"}, other="a")
    return run


@pytest.mark.parametrize(("take", "content"), [("ours", "A\n"), ("theirs", "B\n"), ("both", "A\nB\n")])
def test_a_side_is_taken_of_what_clashes_and_the_rest_of_the_work_is_merged(
    make: Make, take: str, content: str
) -> None:
    """Its commit is held, the branch shows it, and nothing of the user's has changed."""
    run = clashing(make)
    before = belongings(run.repository)
    done = settling.resolve(run.log, run.run_id, "b", take)
    assert (run.read("f"), run.read("new")) == (content, "b\n")
    assert (done["status"], done["how"], done["paths"], done["waiting"]) == ("completed", take, ["f"], [])
    assert done["commit"] == run.state.integration == refs.branch_commit(run.repository, run.run_id)
    assert refs.held(run.repository)[refs.checkpoint_ref(run.run_id, "b1")] == done["commit"]
    assert run.types()[-3:] == ["ConflictResolved", "TaskCompleted", "RunResumed"]
    assert user_git(run.repository.top, "log", "-1", "--format=%s %(trailers:key=Parallel-Agents-Task,valueonly)",
                    done["commit"]) == "Merge b b"  # fmt: skip
    assert belongings(run.repository) == before


def test_a_file_says_what_a_path_is_to_hold(make: Make, tmp_path: Path) -> None:
    """A path that does not clash too; None takes one away."""
    run = clashing(make)
    (tmp_path / "mine").write_text("mine\n")
    settling.resolve(run.log, run.run_id, "b", files={"f": tmp_path / "mine", "g": None})
    assert (run.read("f"), run.read("g"), run.read("new")) == ("mine\n", None, "b\n")
    assert run.state.tasks["b"].output == "b says"


@pytest.mark.parametrize(
    ("answer", "expected"), [({"take": "both"}, "A\nB\n"), ({"files": {"na\udcefve": b"mine\n"}}, "mine\n")]
)
def test_a_name_that_is_no_utf8_is_told_and_settled_like_any_other(
    make: Make, answer: dict[str, Any], expected: str
) -> None:
    """Events hold it as an escape, git as the bytes that it is."""
    run = make()
    run.start("a", "b")
    run.end("a", {"na\udcefve": "A\n"})
    run.end("b", {"na\udcefve": "B\n"}, other="a")
    (path,) = settling.conflicts(run.log, run.run_id, hunks=True)[0]["paths"]
    assert path["path"] == "na\\udcefve"
    assert "A\n=======\nB\n" in path["hunks"]
    done = settling.resolve(run.log, run.run_id, "b", **answer)
    assert (done["paths"], run.read("na\udcefve")) == (["na\\udcefve"], expected)


def test_what_is_left_in_conflict_is_named(make: Make) -> None:
    """Nothing is decided about it unasked."""
    run = make(content={"f": "one\n", "g": "one\n"})
    run.start("a", "b")
    run.end("a", {"f": "A\n", "g": "A\n"})
    run.end("b", {"f": "B\n", "g": "B\n"}, other="a")
    with pytest.raises(NotAllowed, match="still in conflict: g"):
        settling.resolve(run.log, run.run_id, "b", files={"f": b"x\n"})
    settling.resolve(run.log, run.run_id, "b", "theirs", files={"f": b"x\n"})
    assert (run.read("f"), run.read("g")) == ("x\n", "B\n")


def test_an_answer_that_is_none_is_refused_and_changes_nothing(make: Make, tmp_path: Path) -> None:
    """Each by what is wrong with it."""
    run = clashing(make)
    seq = run.log.last_seq()
    marked = b"<<<<<<< ours\nA\n=======\nB\n>>>>>>> theirs\n"
    for answer, error, words in (
        ({}, InvalidUsage, "nothing says how"),
        ({"take": "mine"}, InvalidUsage, "there is no side 'mine'"),
        ({"files": {"f": marked}}, NotAllowed, "the file for f still holds marks"),
        ({"files": {"F": b""}}, InvalidUsage, "'F' is no path of the merge"),
        ({"files": {"f": tmp_path / "missing"}}, InvalidUsage, "cannot be read: No such file"),
    ):
        with pytest.raises(error, match=words):
            settling.resolve(run.log, run.run_id, "b", **answer)
    assert run.log.last_seq() == seq


def test_a_file_that_is_about_marks_may_hold_them(make: Make) -> None:
    """Where one of the sides has had them already."""
    text = "How a conflict looks:\n<<<<<<< ours\n"
    run = make(content={"f": text, "g": ""})
    run.start("a", "b")
    run.end("a", {"f": f"{text}A\n"})
    run.end("b", {"f": f"{text}B\n"}, other="a")
    settling.resolve(run.log, run.run_id, "b", files={"f": f"{text}A and B\n".encode()})
    assert run.read("f") == f"{text}A and B\n"


def test_no_lines_can_be_taken_of_both_where_there_are_none(make: Make) -> None:
    """Such as of a binary file, or of one that is gone on a side."""
    run = make(content={"f": "one\n", "g": "a\0b"})
    run.start("a", "b")
    run.end("a", {"g": "a\0A"})
    run.end("b", {"g": "a\0B"}, other="a")
    with pytest.raises(GitFailed, match="g cannot be taken from both sides"):
        settling.resolve(run.log, run.run_id, "b", "both")
    settling.resolve(run.log, run.run_id, "b", "theirs")
    assert run.read("g") == "a\0B"


def test_what_nobody_was_told_of_is_not_resolved_unseen(make: Make) -> None:
    """Other work was merged since, and clashes too: that is told first, then it can be settled."""
    run = make(task("a"), task("b"), task("c"))
    run.start("a", "b", "c")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n", "g": "B\n"}, other="a")
    run.end("c", {"g": "C\n"})
    with pytest.raises(NotAllowed, match="now there is more in conflict: g") as error:
        settling.resolve(run.log, run.run_id, "b", "theirs")
    assert f"conflicts {run.run_id} --show" in error.value.hint
    assert run.state.tasks["b"].reason == "conflict: f, g with c"
    (told,) = settling.conflicts(run.log, run.run_id)
    assert ([path["path"] for path in told["paths"]], told["other_task_id"]) == (["f", "g"], "c")
    settling.resolve(run.log, run.run_id, "b", "theirs")
    assert (run.read("f"), run.read("g")) == ("B\n", "B\n")


def test_an_answer_holds_on_a_line_that_has_moved_on_without_touching_it(make: Make) -> None:
    """What was merged meanwhile is in the result, and so is the answer."""
    run = make(task("a"), task("b"), task("c"))
    run.start("a", "b", "c")
    run.end("a", {"f": "A\n"})
    work = run.end("b", {"f": "B\n"}, other="a")
    onto = run.state.integration
    assert onto is not None
    made = merging.merge(run.repository, onto, work, message="m", at_us=0, take="both").commit
    assert made is not None
    run.end("c", {"g": "C\n"})
    done = settling.settle(run.log, run.run_id, "b", made, onto, "both", ["f"])
    assert (run.read("f"), run.read("g"), done["status"]) == ("A\nB\n", "C\n", "completed")
    assert run.reachable(made)


def test_an_answer_that_clashes_with_what_was_merged_meanwhile_is_asked_for_again(make: Make) -> None:
    """It was given without having seen that."""
    run = make(task("a"), task("b"), task("c"))
    run.start("a", "b", "c")
    run.end("a", {"f": "A\n"})
    work = run.end("b", {"f": "B\n", "g": "B\n"}, other="a")
    onto = run.state.integration
    assert onto is not None
    made = merging.merge(run.repository, onto, work, message="m", at_us=0, take="both").commit
    assert made is not None
    run.end("c", {"g": "C\n"})
    with pytest.raises(NotAllowed, match="what was merged meanwhile is in conflict with it: g"):
        settling.settle(run.log, run.run_id, "b", made, onto, "both", ["f"])
    assert run.state.tasks["b"].status == "blocked"


def test_an_answer_survives_that_the_run_goes_on_while_it_is_given(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody else appends first."""
    run = clashing(make)
    append, raced = run.log.append, []

    def append_late(run_id: str, version: int, events: Any, **more: Any) -> Any:
        if len(raced) < 5:
            raced.append(append(run_id, version, [ev.RunPaused(reason=f"race {len(raced)}")]))
            raise StaleRun("lost")
        return append(run_id, version, events, **more)

    monkeypatch.setattr(run.log, "append", append_late)
    done = settling.resolve(run.log, run.run_id, "b", "ours")
    assert (done["status"], len(raced)) == ("completed", 3)
    assert run.types().count("TaskCompleted") == 2


def test_while_a_living_process_dispatches_the_branch_is_left_to_it(make: Make) -> None:
    """Two who move it would fight."""
    run = clashing(make)
    run.add(ev.RunClaimed(holder={**own_identity().to_dict(), "kind": "daemon"}, epoch=1))
    done = settling.resolve(run.log, run.run_id, "b", "ours")
    assert done["dispatched"]
    assert refs.branch_commit(run.repository, run.run_id) is None


def test_a_commit_of_somebody_else_on_the_branch_is_left_there(make: Make) -> None:
    """The log has the merge all the same."""
    run = clashing(make)
    foreign = commit_of(run.repository, run.base, {"mine": "x"})
    user_git(run.repository.top, "branch", f"parallel-agents/{run.run_id}", foreign)
    done = settling.resolve(run.log, run.run_id, "b", "ours")
    assert (done["status"], done["warning"].startswith("somebody put")) == ("completed", True)
    assert refs.branch_commit(run.repository, run.run_id) == foreign


def test_a_branch_that_somebody_stands_on_is_warned_of_and_the_answer_counts(make: Make) -> None:
    """It does not move under their feet."""
    run = clashing(make)
    user_git(run.repository.top, "switch", "-q", "-c", f"parallel-agents/{run.run_id}")
    done = settling.resolve(run.log, run.run_id, "b", "ours")
    assert (done["status"], "is checked out in" in done["warning"]) == ("completed", True)
    assert refs.branch_commit(run.repository, run.run_id) == run.base


GATE = Gated("merge", "make test", 2, 1.0, "2 tests failed\n")


def test_a_merge_that_does_not_pass_its_gate_is_settled_by_a_person_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mended files, as it is, or without the work; there is no side of the task's alone."""
    answers: dict[str, dict[str, Any]] = {
        "both": {"take": "both"},
        "ours": {"take": "ours"},
        "files": {"files": {"f": b"mended\n"}},
    }
    expected = {"both": ("A\n", "b\n"), "ours": ("A\n", None), "files": ("mended\n", "b\n")}
    for how, answer in answers.items():
        (tmp_path / how).mkdir()
        run = HandmadeRun(tmp_path / how, monkeypatch)
        run.start("a", "b")
        run.end("a", {"f": "A\n"})
        run.end("b", {"new": "b\n"}, other="a", gates=(GATE,))
        (told,) = settling.conflicts(run.log, run.run_id, hunks=True)
        assert (told["paths"][0]["kind"], told["paths"][0]["hunks"]) == ("gate exit 2", "2 tests failed\n")
        assert not any("theirs" in command for command in told["settle"])
        with pytest.raises(NotAllowed, match="do not clash, so there is no side to take"):
            settling.resolve(run.log, run.run_id, "b", "theirs")
        settling.resolve(run.log, run.run_id, "b", **answer)
        assert (run.read("f"), run.read("new")) == expected[how]
        run.close()


def awaiting(make: Make, **more: Any) -> HandmadeRun:
    """Work of a that waits for somebody to have looked at it."""
    run = make(task("a", approval="result"), task("b"), **more)
    run.start("a", "b")
    return run


def test_approved_work_is_merged_with_what_came_before_the_approval(make: Make) -> None:
    """The approval names the work that was seen; another one is refused."""
    run = awaiting(make)
    seen = run.end("a", {"f": "A\n"})
    run.end("b", {"g": "B\n"})
    with pytest.raises(NotAllowed, match="the work of task 'a' is"):
        settling.approve(run.log, run.run_id, "a", run.base)
    done = settling.approve(run.log, run.run_id, "a", seen[:8])
    assert (done["approved"], done["status"], run.read("f"), run.read("g")) == ("result", "completed", "A\n", "B\n")
    assert refs.held(run.repository)[refs.checkpoint_ref(run.run_id, "a1")] == done["commit"]
    with pytest.raises(NotAllowed, match="does not wait for a person: it is completed"):
        settling.approve(run.log, run.run_id, "a")


def test_approved_work_that_does_not_merge_becomes_a_conflict(make: Make) -> None:
    """With the other task's name; it is resolved like any other, and approved no second time."""
    run = awaiting(make)
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n"})
    done = settling.approve(run.log, run.run_id, "a")
    assert (done["status"], done["reason"], done["run_status"]) == ("blocked", "conflict: f with b", "paused")
    with pytest.raises(NotAllowed, match="waits for its conflict to be resolved"):
        settling.approve(run.log, run.run_id, "a")
    settling.resolve(run.log, run.run_id, "a", "both")
    assert (run.read("f"), run.state.status) == ("B\nA\n", "running")


def test_approved_work_is_merged_by_the_side_that_is_configured(make: Make) -> None:
    """Nobody is asked twice."""
    run = awaiting(make, conflicts="theirs")
    run.end("a", {"f": "A\n"})
    run.end("b", {"f": "B\n"})
    assert settling.approve(run.log, run.run_id, "a")["status"] == "completed"
    assert run.read("f") == "A\n"
    assert run.types()[-3:-1] == ["ConflictResolved", "TaskCompleted"]


def test_in_a_shared_directory_what_lies_there_is_what_was_approved(make: Make) -> None:
    """There is nothing to merge, and what others have done since stays on the line."""
    run = make(task("a", approval="result"), task("b"), workspace="shared")
    run.start("a", "b")
    run.end("a", {"f": "A\n"})
    (run.repository.top / "f").write_text("A\n")
    (run.repository.top / "later").write_text("b\n")
    done = settling.approve(run.log, run.run_id, "a")
    assert (done["status"], run.read("f"), run.read("later")) == ("completed", "A\n", "b\n")


def test_an_approval_of_a_start_lets_it_start(make: Make) -> None:
    """And says for which attempt."""
    run = make(task("a", approval="required"))
    run.add(ev.TaskBlocked(task_id="a", reason="approval"))
    done = settling.approve(run.log, run.run_id, "a")
    assert (done["approved"], done["status"], run.state.tasks["a"].approved_attempt) == ("start", "pending", 1)


def test_a_conflict_lists_what_each_side_has_and_how_to_see_it(make: Make) -> None:
    """As it stood at a moment too; the commands are for a shell."""
    run = clashing(make)
    (one,) = settling.conflicts(run.log, run.run_id, hunks=True)
    (path,) = one["paths"]
    assert path["hunks"] == "<<<<<<< ours\nA\n=======\nB\n>>>>>>> theirs\n"
    assert all(set(path[side]) == {"mode", "blob"} for side in ("base", "ours", "theirs"))
    top = run.repository.top
    assert "+A" in user_git(top, *one["show"]["ours"].split()[1:])
    assert "+B" in user_git(top, *one["show"]["theirs"].split()[1:])
    assert [one["task_id"], one["other_task_id"], one["status"]] == ["b", "a", "waiting"]
    assert f"parallel-agents resolve {run.run_id} b --take both" in one["settle"]
    settling.resolve(run.log, run.run_id, "b", "ours")
    (after,) = settling.conflicts(run.log, None)
    assert (after["status"], after["how"], after["settle"]) == ("resolved", "ours", [])
    assert settling.conflicts(run.log, run.run_id, one["seq"])[0]["status"] == "waiting"
    assert settling.conflicts(run.log, run.run_id, one["seq"] - 1) == []


def test_a_conflict_that_a_rollback_has_undone_is_none(make: Make) -> None:
    """And is one again after a redo."""
    run = clashing(make)
    (one,) = settling.conflicts(run.log, run.run_id)
    last = run.log.last_seq()
    run.add(ev.RunRolledBack(to_seq=one["seq"] - 1))
    assert settling.conflicts(run.log, run.run_id) == []
    run.add(ev.RunRolledBack(to_seq=last))
    assert settling.conflicts(run.log, run.run_id) == [one]
