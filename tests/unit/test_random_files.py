"""Random trees: a snapshot brings back exactly what there was, and changes that do not meet all arrive."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gitrepos import AT_US, as_git_keeps, belongings, head, make_project, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import temporary

from examples import examples
from parallel_agents.checkpoint import worktrees
from parallel_agents.checkpoint.merging import merge
from parallel_agents.checkpoint.repository import Repository, shadow_repository
from parallel_agents.checkpoint.snapshot import restore, snapshot

File = tuple[str, bytes]  # "file", "program" or "link", and its content.
Tree = dict[bytes, File]

NAMES = [b"a", b"b", b"-c", b"d e", b".f", b"\xc3\xa9", b"\xff", b"new\nline", b"*", b"\\"]
CONTENTS = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"a\r\nb\n", b"a\nb", b"\0", b"x" * 100_000]))
FILES = st.one_of(
    st.tuples(st.sampled_from(["file", "program"]), CONTENTS),
    st.tuples(st.just("link"), st.sampled_from([b"a", b"nowhere", b"..", b"\xff/\n"])),
)


def without_files_as_folders(files: Tree) -> Tree:
    """What can be on a disk: nothing lies below a file."""
    return {path: file for path, file in files.items() if not any(path.startswith(other + b"/") for other in files)}


PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
TREES = st.dictionaries(PATHS, FILES, max_size=12).map(without_files_as_folders)


@contextmanager
def project() -> Iterator[Repository]:
    """A repository for one example."""
    with temporary() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        yield make_project(Path(os.path.realpath(folder)), monkeypatch)


def lay(folder: Path, files: Tree) -> None:
    """Make a folder hold exactly these files."""
    top = os.fsencode(folder)
    for name in os.listdir(top):
        if name not in (b".git", b".parallel-agents"):
            path = os.path.join(top, name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    for name, (kind, content) in files.items():
        path = os.path.join(top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if kind == "link":
            os.symlink(content, path)
        else:
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, 0o755 if kind == "program" else 0o644)


@settings(max_examples=examples(9))
@given(first=TREES, second=TREES, versioned=st.booleans())
def test_every_tree_comes_back_exactly(first: Tree, second: Tree, versioned: bool) -> None:
    """Into a new folder and in place, there and back; with git and without."""
    with project() as repository:
        top = repository.top
        if not versioned:
            shutil.rmtree(repository.git_dir)
            repository = shadow_repository(top, top / ".parallel-agents")
        commits, seen = [], []
        for files in (first, second):
            lay(top, files)
            commits.append(snapshot(repository, top, message="m", parents=commits[-1:], at_us=AT_US).commit)
            seen.append(as_git_keeps(tree(top)))
            assert len(seen[-1]) == len(files)
        index = None if repository.shadow else belongings(repository)[b".git/index"]
        for number, commit in enumerate(commits):
            restore(repository, commit, top.parent / f"fresh{number}")
            assert as_git_keeps(tree(top.parent / f"fresh{number}", without=())) == seen[number]
        for number in (0, 1, 0):
            restore(repository, commits[number], top, in_place=True)
            assert as_git_keeps(tree(top)) == seen[number]
        assert index is None or belongings(repository)[b".git/index"] == index


PLACES = [folder + name for folder in (b"", b"d/", b"d/e/") for name in (b"1", b"2", b"\xff", b"new\nline")]
CHANGES = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(["file", "program", "link", "gone"]), max_size=8)


def changed(files: Tree, changes: dict[bytes, str], whose: str) -> Tree:
    """A tree after some changes. No content is like another, or it would be taken for a renamed one."""
    after = {path: file for path, file in files.items() if changes.get(path) != "gone"}
    for path, kind in changes.items():
        words = [hashlib.sha256(b"%d" % number + whose.encode() + path).hexdigest() for number in range(4)]
        if kind != "gone":
            after[path] = (kind, (" " if kind == "link" else "\n").join(words).encode())
    return after


@settings(max_examples=examples(8))
@given(base=CHANGES, ours=CHANGES, theirs=CHANGES)
def test_changes_that_do_not_meet_all_arrive(
    base: dict[bytes, str], ours: dict[bytes, str], theirs: dict[bytes, str]
) -> None:
    """Whatever they are: the merge is clean and holds all of both sides, in either order."""
    theirs = {path: kind for path, kind in theirs.items() if path not in ours}
    start = changed({}, base, "base")
    with project() as repository:
        folder = repository.top.parent / "worktree"
        worktrees.add(repository, folder, head(repository))
        commits, parents = [], [head(repository)]
        for files in (start, changed(start, ours, "ours"), changed(start, theirs, "theirs")):
            lay(folder, files)
            commits.append(snapshot(repository, folder, message="m", parents=parents, at_us=AT_US).commit)
            parents = commits[:1]
        wanted = changed(changed(start, ours, "ours"), theirs, "theirs")
        lay(folder, wanted)
        for pair in ((1, 2), (2, 1)):
            made = merge(repository, commits[pair[0]], commits[pair[1]], message="m", at_us=AT_US)
            assert made.conflicts == ()
            assert made.commit is not None
            fresh = repository.top.parent / f"fresh{pair[0]}"
            restore(repository, made.commit, fresh)
            assert as_git_keeps(tree(fresh, without=())) == as_git_keeps(tree(folder))
