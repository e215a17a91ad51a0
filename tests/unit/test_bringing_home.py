"""The result of a run brought to a branch of the user's, and every reason not to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gitrepos import belongings, user_git, write
from handmade import HandmadeRun
from paper import task

from parallel_agents import bringing_home
from parallel_agents.bringing_home import MergeRefused
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.eventstore import events as ev
from parallel_agents.project import Project


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandmadeRun]:
    """A completed run that has changed one file and made another."""
    made = HandmadeRun(tmp_path, monkeypatch)
    made.start("a", "b")
    made.end("a", {"f": "A\n"})
    made.end("b", {"new": "b\n"})
    made.finish()
    user_git(made.repository.top, "config", "user.name", "Ana")
    user_git(made.repository.top, "config", "user.email", "ana@localhost")
    write(made.repository.top, {".git/info/exclude": "/.parallel-agents\n*.log\n"})
    yield made
    made.close()


def merge(run: HandmadeRun, into: str | None = None, **how: Any) -> dict[str, Any]:
    """Bring it home."""
    return bringing_home.merge(run.log, run.project, run.run_id, into, **how)


def git(run: HandmadeRun, *words: str) -> str:
    """A git command of the user's own."""
    return user_git(run.repository.top, *words)


def commit(run: HandmadeRun, files: dict[str, str], message: str = "theirs") -> str:
    """The user goes on."""
    write(run.repository.top, files)
    git(run, "add", "-A")
    git(run, "commit", "-qm", message)
    return git(run, "rev-parse", "HEAD")


def files(run: HandmadeRun) -> dict[str, str]:
    """What lies in the user's working tree."""
    top = run.repository.top
    return {path: (top / path).read_text() for path in ("f", "g", "new", "mine") if (top / path).exists()}


def merged_events(run: HandmadeRun) -> list[ev.RunMerged]:
    """What the log says of it."""
    return [record.event for record in run.log.read_run(run.run_id) if isinstance(record.event, ev.RunMerged)]


def test_a_branch_that_has_not_moved_goes_forward_with_index_and_files(run: HandmadeRun) -> None:
    """To the very commit of the run; the reflog says why, and the log what."""
    done = merge(run)
    assert (done["how"], done["into"], done["before"], done["commit"]) == (
        "forward", "main", run.base, run.state.integration,
    )  # fmt: skip
    assert files(run) == {"f": "A\n", "g": "one\n", "new": "b\n"}
    assert git(run, "status", "--porcelain") == ""
    assert sorted(done["paths"]) == ["f", "new"]
    assert f"parallel-agents merge {run.run_id}" in git(run, "reflog", "-1")
    assert merged_events(run) == [ev.RunMerged(into="main", commit=done["commit"])]
    assert run.state.merged_into == "main"


def test_a_second_merge_says_that_it_is_there(run: HandmadeRun) -> None:
    """And changes nothing, in the log neither."""
    merge(run)
    seq, before = run.log.last_seq(), belongings(run.repository)
    done = merge(run)
    assert (done["merged"], done["how"]) == (False, "already")
    assert (run.log.last_seq(), belongings(run.repository)) == (seq, before)


def test_a_branch_that_has_moved_gets_a_merge_by_the_users_name(run: HandmadeRun) -> None:
    """With both histories in it, and what was done in its message."""
    theirs = commit(run, {"mine": "mine\n"})
    done = merge(run)
    assert done["how"] == "merge"
    assert files(run) == {"f": "A\n", "g": "one\n", "new": "b\n", "mine": "mine\n"}
    assert git(run, "log", "-1", "--format=%P %an %ce") == f"{theirs} {run.state.integration} Ana ana@localhost"
    assert git(run, "log", "-1", "--format=%B").splitlines() == [
        f"Merge run {run.run_id} (shop)", "", "- a", "- b", "", f"Parallel-Agents-Run: {run.run_id}",
    ]  # fmt: skip
    assert git(run, "status", "--porcelain") == ""


@pytest.mark.parametrize("moved", [True, False])
def test_a_squash_is_one_commit_on_the_branch(run: HandmadeRun, moved: bool) -> None:
    """Also where the branch could have gone forward; a second one finds nothing to do."""
    tip = commit(run, {"mine": "mine\n"}) if moved else run.base
    done = merge(run, squash=True)
    assert (done["how"], done["commits"]) == ("squash", 3)
    assert git(run, "log", "-1", "--format=%P %an %s") == f"{tip} Ana shop"
    assert files(run)["f"] == "A\n"
    assert merge(run, squash=True)["how"] == "already"
    assert [event.squash for event in merged_events(run)] == [True]


def test_a_branch_that_nobody_stands_on_moves_alone(run: HandmadeRun) -> None:
    """Index and files belong to another one."""
    git(run, "branch", "release")
    before = files(run)
    done = merge(run, "release")
    assert git(run, "rev-parse", "release") == done["commit"] == run.state.integration
    assert (files(run), git(run, "rev-parse", "HEAD"), git(run, "status", "--porcelain")) == (before, run.base, "")
    assert merged_events(run)[0].into == "release"


def test_a_branch_that_another_working_tree_stands_on_takes_that_tree_along(run: HandmadeRun, tmp_path: Path) -> None:
    """The one that the run was started in stays as it is."""
    git(run, "worktree", "add", "-q", "-b", "release", str(tmp_path / "second"))
    merge(run, "release")
    assert (tmp_path / "second" / "new").read_text() == "b\n"
    assert user_git(tmp_path / "second", "status", "--porcelain") == ""
    assert "new" not in files(run)


def test_who_works_in_another_working_tree_gets_it_there(run: HandmadeRun, tmp_path: Path) -> None:
    """The branch that is meant is the one that they stand on."""
    git(run, "worktree", "add", "-q", "-b", "release", str(tmp_path / "second"))
    there = Project.find(start=tmp_path / "second", store=str(run.project.store))
    assert bringing_home.merge(run.log, there, run.run_id)["into"] == "release"
    assert (tmp_path / "second" / "new").read_text() == "b\n"


def refused(run: HandmadeRun, words: str, hint: str, into: str | None = None) -> None:
    """It is refused with a way out, and nothing has changed: not a byte of the user's, and no event."""
    before, seq = belongings(run.repository), run.log.last_seq()
    with pytest.raises(MergeRefused, match=words) as error:
        merge(run, into)
    assert hint in error.value.hint
    assert (belongings(run.repository), run.log.last_seq()) == (before, seq)


def test_uncommitted_changes_are_refused_by_name(run: HandmadeRun) -> None:
    """In files and in the index alike; what git ignores or does not know is in nobody's way."""
    write(run.repository.top, {"g": "changed\n", "build.log": "x", "unknown": "x"})
    refused(run, "uncommitted changes in .*: g", "git stash")
    git(run, "add", "g")
    refused(run, "uncommitted changes in .*: g", "commit them")
    git(run, "checkout", "-q", "HEAD", "--", "g")
    assert merge(run)["merged"]
    assert (run.repository.top / "unknown").read_text() == "x"


@pytest.mark.parametrize("ignored", [False, True])
def test_files_that_git_does_not_know_are_never_written_over(run: HandmadeRun, ignored: bool) -> None:
    """Ignored ones neither, which git itself would not spare."""
    write(run.repository.top, {"new": "mine\n"})
    if ignored:
        write(run.repository.top, {".git/info/exclude": "/.parallel-agents\nnew\n"})
    refused(run, "that git does not know would be overwritten: new", "move them away")


def test_a_branch_that_does_not_merge_names_the_paths(run: HandmadeRun) -> None:
    """The way out is git's own, and afterwards the run counts as merged."""
    commit(run, {"f": "mine\n"})
    refused(run, r"main has moved .* does not merge with its result: f \(content\)", "git merge parallel-agents/")
    result = run.state.integration
    assert result is not None
    user_git(run.repository.top, "merge", "-q", "-X", "ours", "--no-edit", result)
    assert merge(run)["how"] == "already"
    assert run.state.merged_into == "main"
    assert files(run)["f"] == "mine\n"


def test_no_branch_to_bring_it_to(run: HandmadeRun) -> None:
    """None at HEAD, none of that name, or one of a run."""
    git(run, "checkout", "-q", "--detach")
    refused(run, "stands on no branch", "--into BRANCH")
    refused(run, "there is no branch 'maim'", "did you mean 'main'?", "maim")
    refused(run, "is the branch of a run", "a branch of your own", f"parallel-agents/{run.run_id}")
    assert merge(run, "main")["how"] == "forward"
    assert git(run, "rev-parse", "HEAD") == run.base


def test_a_branch_without_a_commit_is_refused(run: HandmadeRun) -> None:
    """There is nothing that it could be merged with."""
    git(run, "switch", "-q", "--orphan", "empty")
    refused(run, "the branch empty has no commit yet", "git reset --hard")


@pytest.mark.parametrize(
    ("begun", "words", "way_out"),
    [
        ("merge", "a merge is under way", "git merge --abort"),
        ("cherry-pick", "a cherry-pick is under way", "git cherry-pick --abort"),
        ("revert", "a revert is under way", "git revert --abort"),
    ],
)
def test_what_the_user_has_begun_comes_first(run: HandmadeRun, begun: str, words: str, way_out: str) -> None:
    """It would be mixed up with the result."""
    git(run, "switch", "-q", "-c", "side")
    side = commit(run, {"g": "side\n"}, "side")
    git(run, "switch", "-q", "main")
    if begun == "revert":
        commit(run, {"g": "once\n"})
        side = git(run, "rev-parse", "HEAD")
    commit(run, {"g": "main\n"})
    with pytest.raises(AssertionError):  # It stops at a conflict.
        git(run, begun, "--no-edit", side) if begun != "cherry-pick" else git(run, begun, side)
    refused(run, words, way_out)


def test_a_rebase_under_way_is_named_where_its_branch_is_meant(run: HandmadeRun) -> None:
    """HEAD is detached then, so the branch has to be named, and nobody stands on it but the rebase."""
    git(run, "switch", "-q", "-c", "side")
    commit(run, {"g": "side\n"})
    git(run, "switch", "-q", "main")
    commit(run, {"g": "main\n"})
    with pytest.raises(AssertionError):
        git(run, "rebase", "side")
    refused(run, "stands on no branch", "git switch")


def test_only_a_completed_run_comes_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state names what comes first: a person's answer, its end, or what has failed."""
    run = HandmadeRun(tmp_path, monkeypatch, task("a"), task("b"), task("c", max_retries=0))
    try:
        refused(run, "has not been completed: it is running", f"parallel-agents wait {run.run_id}")
        run.add(ev.RunPaused())
        refused(run, "it is paused", f"parallel-agents resume {run.run_id}")
        run.start("a", "b")
        run.end("a", {"f": "A\n"})
        run.end("b", {"f": "B\n"}, other="a")
        refused(run, "waits for a person: b", f"parallel-agents resolve {run.run_id} b")
        run.add(ev.TaskCancelled(task_id="b", attempt_id="b1"))
        run.start("c")
        run.add(ev.TaskFailed(task_id="c", attempt_id="c1", duration_s=1.0, error="exit code 1"))
        run.finish()
        refused(run, "has failed, so not everything is in its result", f"parallel-agents retry {run.run_id}")
    finally:
        run.close()


def test_a_run_without_a_line_of_its_own_has_left_its_files_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to bring."""
    run = HandmadeRun(tmp_path, monkeypatch, workspace="shared")
    assert merge(run) == {
        "run_id": run.run_id, "merged": False, "how": "in_place", "into": None, "commit": None, "before": None,
        "commits": 0, "paths": [],
    }  # fmt: skip
    run.close()


def test_a_run_that_changed_nothing_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is what the user has."""
    run = HandmadeRun(tmp_path, monkeypatch, task("a"))
    run.start("a")
    run.end("a", {})
    run.finish()
    before = belongings(run.repository)
    assert merge(run)["how"] == "already"
    assert belongings(run.repository) == before
    run.close()


def test_a_merge_needs_to_know_who_the_user_is(run: HandmadeRun) -> None:
    """A fast-forward does not: its commits are there."""
    git(run, "config", "--unset", "user.name")
    git(run, "config", "--unset", "user.email")
    git(run, "config", "user.useConfigOnly", "true")
    before = belongings(run.repository)
    with pytest.raises(GitFailed, match="git does not know who you are") as error:
        merge(run, squash=True)
    assert "git config user.name" in error.value.hint
    assert belongings(run.repository) == before
    assert merge(run)["how"] == "forward"


def test_a_branch_that_moves_at_the_last_moment_is_not_pushed_aside(
    run: HandmadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is checked out nor another."""
    git(run, "branch", "release")
    for branch in ("main", "release"):
        planned = bringing_home.look_ahead(run.log, run.project, run.run_id, branch)
        theirs = commit(run, {"mine": branch})
        if branch == "release":
            git(run, "branch", "-f", "release", theirs)
        with pytest.raises(MergeRefused):
            bringing_home.carry_out(run.log, run.run_id, planned)
        assert git(run, "rev-parse", branch) == theirs
        assert merged_events(run) == []


@pytest.mark.parametrize("setting", ["merge.ff=false", "branch.main.mergeOptions=--squash", "merge.autoStash=true"])
def test_settings_of_the_user_do_not_turn_a_step_forward_into_something_else(run: HandmadeRun, setting: str) -> None:
    """What was decided is what happens."""
    git(run, "config", *setting.split("="))
    done = merge(run)
    assert git(run, "rev-parse", "HEAD") == done["commit"] == run.state.integration
    assert git(run, "status", "--porcelain") == ""


def test_the_users_hooks_see_their_branch_move(run: HandmadeRun) -> None:
    """It is their merge, asked for by them, so what keeps their working tree right after one runs."""
    hook = run.repository.git_dir / "hooks" / "post-merge"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho ran > hook.log\n")
    hook.chmod(0o755)
    merge(run)
    assert (run.repository.top / "hook.log").read_text() == "ran\n"


def test_variables_of_a_hook_lead_nowhere_else(
    run: HandmadeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Git sets them for whatever it calls."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    done = merge(run)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert git(run, "rev-parse", "main") == done["commit"]
    assert not (tmp_path / "index").exists()
