"""Which commits of a repository hold some bytes: every object is looked into, those too that no ref reaches any more.

The bytes are never an argument of git, because anybody can read the arguments of a process.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Iterator
from typing import IO, Final, NamedTuple

from parallel_agents.checkpoint.git import QUIET, GitFailed, decoded, environment
from parallel_agents.checkpoint.repository import Repository

SHOWN: Final = 50
"""Objects whose commits are looked for; each takes a walk through the history."""
_REFS_SHOWN: Final = 10
_CHUNK_BYTES: Final = 4 * 1024 * 1024


class Holding(NamedTuple):
    """One commit that holds the bytes.

    Attributes:
        commit: that brought them in or took them out, or in whose message they stand; empty where no ref reaches the object.
        paths: of files; empty where they stand in the commit itself.
        refs: the first of those that reach it.
        object: the object in which they stand.
    """

    commit: str
    paths: list[str]
    refs: list[str]
    object: str


def commits_holding(
    repository: Repository, needles: Collection[bytes], told: Callable[[int], None] = lambda done: None
) -> list[Holding]:
    """The commits in which any of some byte strings stands, in a file, a file's name or a message.

    Raises:
        GitFailed: the repository cannot be read.
    """
    found: dict[str, Holding] = {}
    for kind, oid in list(_objects_holding(repository, needles, told))[:SHOWN]:
        for commit, paths in [(oid, [])] if kind == "commit" else list(_commits_of(repository, oid)) or [("", [])]:
            key = commit or oid
            if key in found:
                found[key].paths.extend(path for path in paths if path not in found[key].paths)
            else:
                found[key] = Holding(commit, paths, _refs_of(repository, commit) if commit else [], oid)
    return list(found.values())


def _objects_holding(
    repository: Repository, needles: Collection[bytes], told: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    """Type and name of each object that holds one."""
    words = (
        "cat-file",
        "--batch-all-objects",
        "--unordered",
        "--buffer",
        "--batch=%(objectname) %(objecttype) %(objectsize)",
    )
    with subprocess.Popen(
        ["git", *QUIET, *words],
        cwd=repository.git_dir, env={**environment(), "GIT_DIR": str(repository.git_dir)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            number = 0
            while line := process.stdout.readline():
                oid, kind, size = line.split()
                if _holds(process.stdout, int(size), needles):
                    yield kind.decode(), oid.decode()
                number += 1
                told(number)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise GitFailed(f"the objects of {repository.git_dir} cannot be read", hint="`git fsck` says more")


def _holds(source: IO[bytes], size: int, needles: Collection[bytes]) -> bool:
    """Read one object and the line end behind it."""
    keep, rest, found, left = max(map(len, needles)), b"", False, size
    while left:
        chunk = source.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise GitFailed("git has ended in the middle of an object")
        left -= len(chunk)
        window = rest + chunk
        found = found or any(needle in window for needle in needles)
        rest = window[-keep:]
    source.read(1)
    return found


def _commits_of(repository: Repository, oid: str) -> Iterator[tuple[str, list[str]]]:
    """The commits that bring an object in or take it out, with its paths."""
    words = ("log", "--all", "-m", f"--find-object={oid}", "-t", "-z", "--no-renames", "--name-only", "--format=%x01%H")
    for block in decoded(repository.git().run(*words).out).split("\x01")[1:]:
        commit, *paths = [part.strip("\n") for part in block.split("\0")]
        yield commit, [path for path in paths if path]


def _refs_of(repository: Repository, commit: str) -> list[str]:
    words = ("for-each-ref", f"--count={_REFS_SHOWN}", "--format=%(refname)", "--contains", commit)
    return decoded(repository.git().run(*words).out).splitlines()
