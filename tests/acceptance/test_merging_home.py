"""The verb merge: the result of a run brought to the user's branch when they ask for it, and not a moment before."""

from __future__ import annotations

import pytest
from scratch import Scratch, shell
from terminal import quickly_on_terminal
from versioned import belongings, git, versioned


@pytest.fixture
def done(cli: Scratch) -> Scratch:
    """A project with a completed run that changed one file and made another."""
    versioned(cli, {"f": "start\n", "g": "start\n"})
    before = belongings(cli)
    cli.quick("run", cli.plan(shell("one", "echo one > f"), shell("two", "echo two > new", "one")))
    assert {**belongings(cli), "./plan.json": b""} == {**before, "./plan.json": b""}
    return cli


def test_the_result_comes_to_the_branch_and_its_files_when_it_is_asked_for(done: Scratch) -> None:
    """The second time it says that it is there; nothing is in the index or left over."""
    run = done.quick("runs", "--json").data[-1]["run_id"]
    before = git(done, "rev-parse", "HEAD")
    said = done.quick("merge")
    assert f"run {run} is merged into main: 2 files, commit " in said.out
    assert f"`git reset --keep {before[:12]}` on main takes that back" in said.err
    assert [(done.root / name).read_text() for name in ("f", "g", "new")] == ["one\n", "start\n", "two\n"]
    assert git(done, "status", "--porcelain") == ""
    assert git(done, "rev-parse", "HEAD") == git(done, "rev-parse", f"parallel-agents/{run}")
    event = done.quick("history", run, "--type", "RunMerged", "--json").lines[0]
    assert event["data"] == {"into": "main", "commit": git(done, "rev-parse", "HEAD"), "squash": False}
    assert f"the result of run {run} is in main already" in done.quick("merge").out
    assert done.quick("merge", "--json").data["how"] == "already"
    git(done, "reset", "-q", "--keep", before[:12])
    assert (done.root / "f").read_text() == "start\n"


def test_another_branch_and_one_commit_can_be_asked_for(done: Scratch) -> None:
    """What the user stands on is untouched by a merge into another branch."""
    git(done, "branch", "release")
    git(done, "config", "user.name", "Ana")
    git(done, "config", "user.email", "ana@localhost")
    head = git(done, "rev-parse", "HEAD")
    found = done.quick("merge", "--into", "release", "--squash", "--json").data
    assert (found["merged"], found["how"], found["into"], found["commits"]) == (True, "squash", "release", 2)
    assert git(done, "log", "-1", "--format=%P %an", "release") == f"{head} Ana"
    assert (git(done, "rev-parse", "HEAD"), (done.root / "f").read_text()) == (head, "start\n")


def test_what_would_be_lost_or_mixed_up_is_refused_with_the_way_out(done: Scratch) -> None:
    """Each until it is mended; the last one merges."""
    run = done.quick("runs", "--json").data[-1]["run_id"]

    def refused(words: str, hint: str, *more: str) -> None:
        before = belongings(done)
        complaint = done.quick("merge", *more, "--json", code=2).complaint
        assert words in complaint["message"]
        assert hint in complaint["hint"]
        assert belongings(done) == before

    done.write("g", "changed\n")
    refused("uncommitted changes in", "git stash")
    git(done, "checkout", "-q", "g")
    done.write("new", "mine\n")
    refused("that git does not know would be overwritten: new", "move them away")
    (done.root / "new").unlink()
    git(done, "checkout", "-q", "--detach")
    refused("stands on no branch", "--into BRANCH")
    git(done, "switch", "-q", "main")
    refused("there is no branch 'mian'", "did you mean 'main'?", "--into", "mian")
    done.write("f", "moved\n")
    git(done, "commit", "-qam", "moved")
    refused("does not merge with its result: f (content)", f"git merge parallel-agents/{run}")
    git(done, "merge", "-q", f"parallel-agents/{run}", code=1)
    refused("does not merge with its result", "lets you resolve it")
    done.write("f", "both\n")
    git(done, "commit", "-qam", "resolved")
    assert done.quick("merge", "--json").data["how"] == "already"
    assert done.quick("history", run, "--type", "RunMerged", "--json").lines[0]["data"]["into"] == "main"


def test_on_a_terminal_it_shows_what_will_change_and_asks(done: Scratch) -> None:
    """No is no; with --yes nobody is asked."""
    before = belongings(done)
    shown = quickly_on_terminal(done, "merge", typing=lambda text: b"n\n" if "Merge?" in text else b"")
    assert "main gets 2 commits of run" in "\n".join(shown.screen.lines)
    assert (shown.code, belongings(done) == before) == (130, True)
    assert quickly_on_terminal(done, "merge", "--yes").code == 0
    assert (done.root / "new").read_text() == "two\n"


def test_a_run_in_the_users_directory_has_nothing_to_bring(cli: Scratch) -> None:
    """Its files are there; and a run that failed says what is missing."""
    versioned(cli, {"f": "start\n"})
    cli.quick("run", cli.plan(shell("one", "echo one > f"), workspace="shared"))
    assert "there is nothing to merge" in cli.quick("merge").out
    cli.quick("run", cli.plan(shell("bad", "exit 3")), code=1)
    run = cli.quick("runs", "--json").data[-1]["run_id"]
    complaint = cli.quick("merge", "--json", code=2).complaint
    assert complaint["message"] == f"run {run} has failed, so not everything is in its result"
    assert f"`parallel-agents retry {run}` opens what is missing" in complaint["hint"]
