"""What refs reach, and how much of the disk that takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from parallel_agents.checkpoint.git import decoded
from parallel_agents.checkpoint.repository import OURS, Repository

OUR_REFS = f"refs/{OURS}/"


def all_refs(repository: Repository) -> dict[str, str]:
    """Every ref of a repository with what it names."""
    said = repository.git().run("for-each-ref", "--format=%(objectname) %(refname)")
    pairs = (line.split(" ", 1) for line in decoded(said.out).splitlines())
    return {ref: oid for oid, ref in pairs}


def unreached(repository: Repository, commits: Collection[str], without: Collection[str] = ()) -> set[str]:
    """Those of some commits that no ref reaches. The HEADs of worktrees reach nothing: they go with these.

    Args:
        commits: that are in the repository.
        without: refs that do not count.
    """
    if not commits:
        return set()
    kept = {oid for ref, oid in all_refs(repository).items() if ref not in without}
    asked = "".join([*(f"{commit}\n" for commit in commits), *(f"^{oid}\n" for oid in kept)])
    said = repository.git().run("rev-list", "--stdin", stdin=asked.encode())
    return set(commits) & set(decoded(said.out).split())


def kept_trees(repository: Repository, without: Collection[str] = ()) -> set[str]:
    """The trees of what our refs and all branches name."""
    wanted = ("--format=%(tree) %(refname)", OUR_REFS, "refs/heads/")
    pairs = (line.split(" ", 1) for line in decoded(repository.git().run("for-each-ref", *wanted).out).splitlines())
    return {tree for tree, ref in pairs if tree and ref not in without}


def bytes_of(repository: Repository, commits: Iterable[str], without: Collection[str] = ()) -> int:
    """What commits take of the disk that no other ref reaches.

    Args:
        without: the refs that hold them.
    """
    wanted = set(commits)
    if not wanted:
        return 0
    kept = {oid for ref, oid in all_refs(repository).items() if ref not in without}
    asked = "".join([*(f"{commit}\n" for commit in wanted), *(f"^{oid}\n" for oid in kept)])
    said = repository.git().run("rev-list", "--objects", "--disk-usage", "--stdin", stdin=asked.encode())
    return int(said.out)


def missing(repository: Repository, commits: Collection[str]) -> set[str]:
    """Those of some commits that are not in a repository."""
    asked = "".join(f"{commit}\n" for commit in commits)
    said = repository.git().run("cat-file", "--batch-check=%(objecttype)", stdin=asked.encode())
    found = decoded(said.out).splitlines()
    return {commit for commit, answer in zip(commits, found, strict=True) if answer != "commit"}


def written_at(repository: Repository, ref: str) -> float | None:
    """When a ref was written, in seconds since the epoch, or later; None where nobody can tell."""
    for file in (repository.git_dir / ref, repository.git_dir / "packed-refs"):
        try:
            return Path(file).stat().st_mtime
        except OSError:
            continue
    return None
