"""Refs hold what is ours, all or nothing, and the branch of a run moves by compare-and-swap."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gitrepos import AT_US, head, make_project, user_git, write

from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.refs import (
    BranchInUse,
    branch_commit,
    branch_ref,
    checkpoint_ref,
    drop,
    held,
    hold,
    move_branch,
)
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import commit_tree, tree_of


def commits(repository: Repository, count: int) -> list[str]:
    """Commits that no ref reaches."""
    tree = tree_of(repository, head(repository))
    return [
        commit_tree(repository, tree, message=str(number), parents=[head(repository)], at_us=AT_US)
        for number in range(count)
    ]


def test_held_commits_outlive_a_garbage_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that are not held do not."""
    project = make_project(tmp_path, monkeypatch)
    kept, lost = commits(project, 2)
    hold(project, {checkpoint_ref("run", "one"): kept})
    user_git(project.top, "gc", "-q", "--prune=now")
    assert project.git().run("cat-file", "-e", kept).code == 0
    assert project.git().run("cat-file", "-e", lost, ok=(1,)).code == 1


def test_refs_are_held_and_dropped_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose name begins like another's has nothing to do with it."""
    project = make_project(tmp_path, monkeypatch)
    one, two = commits(project, 2)
    refs = {checkpoint_ref("run", "a"): one, checkpoint_ref("run", "b"): two, checkpoint_ref("run2", "a"): two}
    hold(project, refs)
    hold(project, {branch_ref("run"): one})
    assert held(project) == refs
    assert held(project, "run2") == {checkpoint_ref("run2", "a"): two}
    drop(project, [checkpoint_ref("run", "a"), checkpoint_ref("run", "missing"), branch_ref("run")])
    assert held(project, "run") == {checkpoint_ref("run", "b"): two}
    assert user_git(project.top, "branch", "--list", "parallel-agents/*") == ""
    hold(project, {})
    drop(project, [])


def test_refs_are_moved_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be made keeps the others from being made."""
    project = make_project(tmp_path, monkeypatch)
    one, two = commits(project, 2)
    hold(project, {checkpoint_ref("run", "a"): one})
    with pytest.raises(GitFailed):
        hold(project, {checkpoint_ref("run", "a"): two, checkpoint_ref("run", "b"): "0123456789" * 4})
    assert held(project) == {checkpoint_ref("run", "a"): one}


def test_what_is_not_ours_is_never_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither is anything beside it."""
    project = make_project(tmp_path, monkeypatch)
    hold(project, {checkpoint_ref("run", "a"): head(project)})
    with pytest.raises(GitFailed, match="refs/heads/main is not ours"):
        drop(project, [checkpoint_ref("run", "a"), "refs/heads/main"])
    assert len(held(project)) == 1


def test_a_branch_moves_only_from_where_it_is_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign commit is told and kept; whoever finds the work done is content."""
    project = make_project(tmp_path, monkeypatch)
    one, two, foreign = commits(project, 3)

    def stands() -> str:
        return user_git(project.top, "rev-parse", branch_ref("run"))

    assert move_branch(project, "run", one, None) is None
    assert move_branch(project, "run", one, None) is None
    assert move_branch(project, "run", two, one) is None
    assert stands() == two
    assert move_branch(project, "run", two, one) is None
    user_git(project.top, "update-ref", branch_ref("run"), foreign)
    assert move_branch(project, "run", one, two) == foreign
    assert move_branch(project, "run", one, None) == foreign
    assert stands() == foreign


def test_a_branch_that_the_user_deleted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of theirs was on it."""
    project = make_project(tmp_path, monkeypatch)
    one, two = commits(project, 2)
    move_branch(project, "run", one, None)
    user_git(project.top, "branch", "-q", "-D", "parallel-agents/run")
    assert move_branch(project, "run", one, one) is None
    user_git(project.top, "branch", "-q", "-D", "parallel-agents/run")
    assert move_branch(project, "run", two, one) is None
    assert user_git(project.top, "rev-parse", branch_ref("run")) == two


def test_of_many_that_move_a_branch_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told by whom."""
    project = make_project(tmp_path, monkeypatch)
    start, *targets = commits(project, 7)
    move_branch(project, "run", start, None)
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda commit: move_branch(project, "run", commit, start), targets))
    winner = targets[told.index(None)]
    assert told.count(None) == 1
    assert {foreign for foreign in told if foreign} == {winner}


@pytest.mark.parametrize("where", ["project", "side"])
def test_a_branch_that_somebody_stands_on_does_not_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Their files would suddenly look changed."""
    project = make_project(tmp_path, monkeypatch)
    one, two = commits(project, 2)
    move_branch(project, "run", one, None)
    if where == "side":
        user_git(project.top, "worktree", "add", "-q", "--detach", str(tmp_path / "side"))
    user_git(tmp_path / where, "checkout", "-q", "parallel-agents/run")
    assert move_branch(project, "run", one, one) is None
    with pytest.raises(BranchInUse, match=f"checked out in .*{where}") as caught:
        move_branch(project, "run", two, one)
    assert "git switch" in caught.value.hint
    write(tmp_path / where, {"readme": "x"})
    user_git(tmp_path / where, "checkout", "-q", "--detach")
    assert move_branch(project, "run", two, one) is None


def test_a_branch_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what may stand in its way."""
    project = make_project(tmp_path, monkeypatch)
    user_git(project.top, "branch", "parallel-agents")
    with pytest.raises(GitFailed, match="parallel-agents/run cannot be moved") as caught:
        move_branch(project, "run", head(project), None)
    assert "a branch named parallel-agents" in caught.value.hint


def test_where_a_branch_stands_is_read_wherever_git_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of its own, among the packed refs, through a symbolic ref, or nowhere."""
    project = make_project(tmp_path, monkeypatch)
    (one,) = commits(project, 1)
    assert branch_commit(project, "run") is None
    assert move_branch(project, "run", one, None) is None
    assert branch_commit(project, "run") == one
    user_git(project.top, "pack-refs", "--all")
    assert not (project.git_dir / branch_ref("run")).exists()
    assert branch_commit(project, "run") == one
    user_git(project.top, "symbolic-ref", branch_ref("other"), branch_ref("run"))
    assert branch_commit(project, "other") == one
