"""A repository that borrows another one's objects: checkouts laid out as somebody left them, and changes made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitrepos import as_git_keeps, belongings, head, make_project, tree, user_git, write

from parallel_agents.checkpoint import worktrees
from parallel_agents.checkpoint.contents import read_commits
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.scratch import ScratchRepository
from parallel_agents.checkpoint.snapshot import tree_of

FILES = {
    "a": "1\n2\n3\n4\n5\n",
    "d/e/f": "deep\n",
    "gone": "x\n",
    "folder/in": "y\n",
    "file": "z\n",
    "crlf": "a\r\nb\r\n",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of the user's."""
    return make_project(tmp_path, monkeypatch, FILES)


@pytest.fixture
def scratch(source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScratchRepository]:
    """One that borrows from it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    made = ScratchRepository(source)
    yield made
    made.close()


def committed(source: Repository, message: str = "next") -> str:
    """All that lies in the user's tree, committed."""
    user_git(source.top, "add", "-A")
    user_git(source.top, "commit", "-q", "-m", message)
    return head(source)


def change_everything(top: Path) -> None:
    """Whatever can happen to a path: removed, made a link, executable, a folder or a file, with any name."""
    (top / "gone").unlink()
    (top / "d/e/f").unlink()
    (top / "d/e").rmdir()
    (top / "d").rmdir()
    write(
        top, {"folder2/new": "n\n", "a": "1\n2\nthree\n4\n5\n", "-dash": "d\n", ":(top)": "t\n", "naïve \n name": "i\n"}
    )
    (top / "folder/in").unlink()
    (top / "folder").rmdir()
    write(top, {"folder": "now a file\n"})
    (top / "file").unlink()
    write(top, {"file/now": "a folder\n"})
    os.symlink("a", top / "link")
    write(top, {"tool": "#!/bin/sh\n"})
    (top / "tool").chmod(0o755)


def test_a_checkout_is_what_somebody_left_and_the_source_is_as_it_was(
    source: Repository, scratch: ScratchRepository, tmp_path: Path
) -> None:
    """Every kind of change, to the byte; own commits are led to, and the folder goes with all that is in it."""
    base = head(source)
    change_everything(source.top)
    left = committed(source)
    before, wanted = belongings(source), as_git_keeps(tree(source.top))
    place = scratch.store.parent / "worktrees" / "run" / "task"
    worktrees.add(scratch.repository, place, base)
    assert as_git_keeps(tree(place)) != wanted
    scratch.lay(place, left)
    assert as_git_keeps(tree(place)) == wanted
    git = scratch.repository.git(place)
    assert git.text("rev-parse", "HEAD") == base
    scratch.lay(place, left, left)
    assert git.text("rev-parse", "HEAD") == left
    assert as_git_keeps(tree(place)) == wanted
    assert belongings(source) == before
    scratch.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_change_is_made_to_other_files(source: Repository, scratch: ScratchRepository) -> None:
    """Where it fits, both are in; where it does not, what it made is, and the paths are told."""
    base = head(source)
    write(source.top, {"a": "one\n2\n3\n4\n5\n"})
    other = committed(source)
    user_git(source.top, "checkout", "-q", base)
    write(source.top, {"a": "1\n2\n3\n4\nfive\n", "new": "n\n"})
    fits = committed(source)
    user_git(source.top, "checkout", "-q", base)
    write(source.top, {"a": "uno\n2\n3\n4\n5\n", "new": "n\n"})
    clashes = committed(source)

    def content(found: str) -> str:
        return user_git(scratch.repository.top, "show", f"{found}:a")

    made, paths = scratch.moved(base, fits, other)
    assert (content(made), paths) == ("one\n2\n3\n4\nfive", ())
    made, paths = scratch.moved(base, clashes, other)
    assert (content(made), paths) == ("uno\n2\n3\n4\n5", ("a",))
    assert scratch.moved(base, fits, base) == (tree_of(source, fits), ())


def test_what_commits_say_of_themselves_is_read_at_once(source: Repository) -> None:
    """Also a message of many paragraphs; what is no commit, or is not there, is left out."""
    first = head(source)
    write(source.top, {"a": "2\n"})
    second = committed(source, "what\n\nwas made\n\nKey: value")
    found = read_commits(source, {first, second, "0" * 40, tree_of(source, first)})
    assert found.keys() == {first, second}
    assert (found[second].tree, found[second].parents) == (tree_of(source, second), (first,))
    assert found[second].message == "what\n\nwas made\n\nKey: value\n"
    assert found[second].at_us == int(user_git(source.top, "log", "-1", "--format=%ct", second)) * 1_000_000
    assert found[first].parents == ()


def test_a_shallow_source_serves_too(source: Repository, tmp_path: Path) -> None:
    """Its oldest commit has no parents that anybody could look at."""
    write(source.top, {"a": "2\n"})
    base = committed(source)
    user_git(tmp_path, "clone", "-q", "--depth", "1", f"file://{source.top}", "shallow")
    shallow = Repository(tmp_path / "shallow", tmp_path / "shallow" / ".git")
    scratch = ScratchRepository(shallow)
    try:
        place = scratch.store.parent / "worktrees" / "run" / "task"
        worktrees.add(scratch.repository, place, base)
        assert (place / "a").read_text() == "2\n"
        assert user_git(scratch.repository.top, "log", "--oneline", base).count("\n") == 0
    finally:
        scratch.close()
