"""Which commit made each line of a file, as `git blame` says it, and what commits have added.

A user's settings do not count here (revisions to ignore, converters of text): the same question has the same answer
everywhere. White space counts, and a line that was moved or copied is made by whoever moved it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple

from parallel_agents.checkpoint.git import GitFailed, decoded, encoded
from parallel_agents.checkpoint.repository import Repository

# The graph of commits that git keeps in a file would hide the parents that are given here. An empty name takes back all
# files of revisions to ignore, but not in a setting: those are sorted, and it would come first.
_BLAME: Final = ("-c", "core.commitGraph=false", "blame", "--porcelain", "--no-textconv", "--ignore-revs-file=")
_HEADER: Final = re.compile(rb"([0-9a-f]{40,64}) \d+ (\d+)(?: \d+)?\n")
_HUNK: Final = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
_TRAILERS: Final = ("Run", "Task", "Attempt")
_FIELDS: Final = "%x00".join(
    ("%H", "%ct", "%P", "%an", "%s", *(f"%(trailers:key=Parallel-Agents-{name},valueonly,separator=%x2C)" for name in _TRAILERS))
)  # fmt: skip


class Written(NamedTuple):
    """A commit: when (seconds since the epoch), after which others, by whom, and what our trailers in it say."""

    commit: str
    at_s: int
    parents: tuple[str, ...]
    author: str
    summary: str
    run_id: str
    task_id: str
    attempt_id: str


class Binary(NamedTuple):
    """In place of a number of lines, of a file that has none."""


BINARY: Final = Binary()


UNCOMMITTED: Final = "0" * 40
"""What git names lines by that no commit holds."""


def is_uncommitted(commit: str) -> bool:
    """Whether a name is that, of whatever length names of commits have."""
    return not commit.strip("0")


def blame(
    repository: Repository,
    path: str,
    rev: str | None = None,
    *,
    grafts: Mapping[str, Sequence[str]] | None = None,
    since: str | None = None,
) -> list[str] | None:
    """The commit of every line of a file, first line first.

    Args:
        path: below the top of the repository.
        rev: the commit whose file is meant; None is the file in the working tree, in which lines may be uncommitted.
        grafts: parents of commits that count in place of their own.
        since: lines that are as old as this commit need not be told apart: they are all its own.
    Returns:
        None where there is no such file.
    """
    git = repository.git(repository.top if rev is None else None)
    words = [*_BLAME]
    stdin = b""
    if grafts:
        words += ["-S", "/dev/stdin"]
        stdin = "".join(f"{commit} {' '.join(parents)}\n" for commit, parents in grafts.items()).encode()
    revs = [] if rev is None else [rev]
    revs += [f"^{since}"] if since is not None else []
    said = git.run(*words, *revs, "--", path, stdin=stdin, ok=(0, 128))
    if said.code:
        if "no such path" in said.err or "no such ref" in said.err or "bad revision 'HEAD'" in said.err:
            return None
        raise GitFailed(f"git blame failed for {path}: {said.err.strip().removeprefix('fatal: ')}")
    lines = []
    at = 0
    while (found := _HEADER.match(said.out, at)) is not None:
        lines.append(found[1].decode())
        at = said.out.find(b"\n\t", found.end() - 1) + 2
        at = said.out.find(b"\n", at) + 1 or len(said.out)
    return lines


def unchanged_lines(repository: Repository, commit: str, path: str, count: int) -> dict[int, int]:
    """Lines of a file in the working tree that a commit has as well, each with its number there.

    Args:
        count: of the lines of the file; empty where the commit does not have it.
    """
    git = repository.git(repository.top)
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "-U0")
    said = git.run("--literal-pathspecs", "diff", *plain, f"{commit}:{path}", "--", path, ok=(0, 1, 128))
    if said.code == 128 or b"\nBinary files " in said.out:
        return {}
    same: dict[int, int] = {}
    here, there = 1, 1
    for old, old_count, new, new_count in (hunk.groups() for hunk in _HUNK.finditer(said.out)):
        length = int(new_count or 1)
        begin = int(new) if length else int(new) + 1  # Of a mere removal git names the line before it.
        same |= {number: there + number - here for number in range(here, begin)}
        removed = int(old_count or 1)
        here, there = begin + length, (int(old) if removed else int(old) + 1) + removed
    return same | {number: there + number - here for number in range(here, count + 1)}


def written(repository: Repository, commits: Iterable[str]) -> dict[str, Written]:
    """What commits say of themselves; those that are not there any more are left out."""
    return _listed(repository, ("--no-walk=unsorted",), commits)


def between(repository: Repository, tips: Iterable[str], without: Collection[str]) -> dict[str, Written]:
    """The commits that lead to some others, without those that lead to ``without``."""
    return _listed(repository, (), [*tips, *(f"^{commit}" for commit in without)])


def _listed(repository: Repository, options: Sequence[str], commits: Iterable[str]) -> dict[str, Written]:
    asked = "".join(f"{commit}\n" for commit in dict.fromkeys(commits))
    if not asked:
        return {}
    said = repository.git().run(
        "rev-list", *options, "--ignore-missing", "--no-commit-header", f"--format={_FIELDS}", "--stdin", stdin=asked.encode()
    )  # fmt: skip
    found = {}
    for line in said.out.split(b"\n"):
        fields = decoded(line).split("\0")
        if len(fields) == 5 + len(_TRAILERS):
            commit, at, parents, author, summary, *trailers = fields
            found[commit] = Written(commit, int(at), tuple(parents.split()), author, summary, *trailers)
    return found


def is_acyclic(parents: Mapping[str, Sequence[str]]) -> bool:
    """Whether no commit leads to itself, as git itself never finds out when it is given other parents."""
    try:
        TopologicalSorter(parents).prepare()
    except CycleError:
        return False
    return True


def added_lines(repository: Repository, pairs: Mapping[str, str]) -> dict[str, dict[str, int | Binary]]:
    """How many lines commits have added to each path that they changed.

    Args:
        pairs: commits, and the commits that they are compared with.
    """
    asked = "".join(f"{commit} {base}\n" for commit, base in pairs.items())
    plain = ("-r", "-z", "--no-renames", "--numstat", "--no-ext-diff", "--no-textconv")
    said = repository.objects().run("diff-tree", "--stdin", *plain, stdin=asked.encode())
    found: dict[str, dict[str, int | Binary]] = {commit: {} for commit in pairs}
    commit = ""
    for record in said.out.split(b"\0"):
        fields = record.split(b"\t", 2)
        if len(fields) == 3:
            found[commit][decoded(fields[2])] = BINARY if fields[0] == b"-" else int(fields[0])
        elif record:
            commit = record.decode()
    return found


def blobs(repository: Repository, places: Sequence[tuple[str, str]]) -> list[str | None]:
    """The objects of files, each given by commit and path; None where there is no such file."""
    asked = b"".join(encoded(f"{commit}:{path}\0") for commit, path in places if "\n" not in path)
    said = repository.git().run("cat-file", "--batch-check=%(objectname) %(objecttype)", "-z", stdin=asked)
    answers = iter([line.split(" ") for line in decoded(said.out).split("\n")])
    found: list[str | None] = []
    for _, path in places:  # What is not there is answered with its name, which must not be two lines.
        answer = [""] if "\n" in path else next(answers)
        found.append(answer[0] if answer[-1] == "blob" else None)
    return found


def untracked(repository: Repository, path: Path) -> str:
    """Why a file is in no commit: ``ignored``, ``untracked`` or, where it is about to be, ``added``."""
    git, below = repository.git(repository.top), str(path)
    if git.run("--literal-pathspecs", "ls-files", "-z", "--", below).out:
        return "added"
    asked = git.run("check-ignore", "-z", "--stdin", stdin=encoded(below) + b"\0", ok=(0, 1))
    return "ignored" if asked.code == 0 else "untracked"
