"""Git in memory does with checkouts what git does, or the stories told on it would say nothing of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import files_world  # noqa: F401  It knows where repositories are described.
import pytest
from gitrepos import head, make_project
from memory_git import HEAD, MemoryGit, in_place_of_git

from parallel_agents.checkpoint import worktrees
from parallel_agents.checkpoint.repository import Repository

Opened = tuple[Repository, str, Callable[[Path], set[str]]]


@contextmanager
def in_memory(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A repository with one commit, and what tells the files of a checkout."""
    git = MemoryGit()
    git.refs[HEAD] = git.commit({"readme": "hello\n"}, (), "first")
    with in_place_of_git(git, folder) as repository:
        yield repository, git.refs[HEAD], lambda path: set(git.checkouts[path])


@contextmanager
def on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """The same of git itself."""
    project = make_project(folder, monkeypatch, {"readme": "hello\n"})
    yield project, head(project), lambda path: {file.name for file in path.iterdir()} - {".git"}


@pytest.mark.parametrize("opened", [in_memory, on_disk])
def test_a_checkout_that_is_gone_may_be_removed_or_used_again(
    opened: Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Opened]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To remove it is no trouble, and in place of one that cannot be used again there is a new one."""
    with opened(tmp_path, monkeypatch) as (repository, commit, files):
        home = repository.top / ".parallel-agents" / "worktrees" / "run"
        one, other = home / "one", home / "other"
        worktrees.add(repository, one, commit)
        assert [worktrees.remove(repository, one) for _ in range(2)] == [True, True]
        assert not one.exists()
        worktrees.reuse(repository, one, other, commit)
        assert files(other) == {"readme"}
        assert not one.exists()
        worktrees.remove(repository, other)
        worktrees.reuse(repository, other, other, commit)
        assert files(other) == {"readme"}
