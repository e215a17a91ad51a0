"""What a commit holds, and how two of them differ, for people and programs to read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint.git import decoded
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.location import FOLDER


class File(NamedTuple):
    """One file of a commit: its path, git's mode (such as 100755) and its size in bytes."""

    path: str
    mode: str
    size: int


def files_of(repository: Repository, commit: str) -> list[File]:
    """The files of a commit in the order of their paths; a submodule has size 0."""
    said = repository.git().run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
    found = []
    for record in said.out.split(b"\0")[:-1]:
        fields, _, path = record.partition(b"\t")
        mode, _, _, size = fields.split()
        found.append(File(decoded(path), decoded(mode), int(size) if size.isdigit() else 0))
    return found


def patch(repository: Repository, a: str, b: str) -> bytes:
    """The unified difference between two commits or trees, whatever the user's configuration says of differences."""
    plain = ("--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
    return repository.objects().run("diff-tree", "-r", "-p", *plain, a, b).out


def changes_between(repository: Repository, pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The paths that differ within each of many pairs of commits, by one process; a rename is two of them.

    Raises:
        GitFailed: one of the commits is not there.
    """
    asked = "".join(f"{new} {old}\n" for old, new in pairs).encode()
    options = ("--stdin", "--always", "-r", "-z", "--no-renames", "--name-status")
    fields = repository.objects().run("diff-tree", *options, stdin=asked).out.split(b"\0")[:-1]
    found: list[list[str]] = []
    place = 0
    while place < len(fields):
        if len(fields[place]) > 1:  # A commit; of a path git's letter comes first.
            found.append([])
            place += 1
        else:
            found[-1].append(decoded(fields[place + 1]))
            place += 2
    return found


def has_commit(repository: Repository, commit: str) -> bool:
    """Whether a commit, and with it all of its files, is in a repository."""
    return repository.git().run("cat-file", "-e", f"{commit}^{{commit}}", ok=(0, 1, 128)).code == 0


class Commit(NamedTuple):
    """What a commit says of itself."""

    tree: str
    parents: tuple[str, ...]
    at_us: int  # When it was made, in microseconds since the epoch: whole seconds, as git has them.
    message: str


def read_commits(repository: Repository, names: Collection[str]) -> dict[str, Commit]:
    """Many commits by one process. Those that are not there are left out."""
    found: dict[str, Commit] = {}
    wanted = sorted(names)
    out = repository.git().run("cat-file", "--batch", stdin="".join(f"{name}\n" for name in wanted).encode()).out
    place = 0
    for name in wanted:
        end = out.index(b"\n", place)
        head, place = out[place:end].split(b" "), end + 1
        if head[-1] == b"missing":
            continue
        size = int(head[2])
        if head[1] == b"commit":
            found[name] = _commit(out[place : place + size])
        place += size + 1
    return found


def _commit(content: bytes) -> Commit:
    header, _, message = content.partition(b"\n\n")
    tree, parents, at_us = "", [], 0
    for line in header.split(b"\n"):
        match line.split(b" "):
            case [b"tree", name]:
                tree = name.decode()
            case [b"parent", name]:
                parents.append(name.decode())
            case [b"committer", *_, seconds, _]:
                at_us = int(seconds) * 1_000_000
            case _:
                pass
    return Commit(tree, tuple(parents), at_us, decoded(message))


def first_parent(repository: Repository, commit: str) -> str | None:
    """The commit before; None where there is none."""
    said = repository.git().run("rev-parse", "--verify", "--quiet", f"{commit}^1", ok=(0, 1, 128))
    return decoded(said.out).strip() or None


def is_left_out(repository: Repository, path: Path) -> bool:
    """Whether a file is in no snapshot: it lies outside of the working tree, or is ignored."""
    try:
        below = path.resolve().relative_to(repository.top.resolve())
    except ValueError:
        return True
    if FOLDER in below.parts:
        return True
    asked = repository.git(repository.top).run("check-ignore", "-z", "--stdin", stdin=bytes(below) + b"\0", ok=(0, 1))
    return asked.code == 0
