"""A commit of everything that lies in a working tree, and the way back.

Both work through a temporary index, so neither the index nor the HEAD of the tree is changed. The temporary index begins
as a copy of the real one, with its times: git then reads only files that changed since, and knows which of them it
cannot tell by their time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint.git import (
    RAW,
    WRITING,
    Git,
    GitFailed,
    Output,
    decoded,
    encoded,
    last_words,
    refuse_disk,
    told,
)
from parallel_agents.checkpoint.repository import NOT_OURS, Repository
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.location import FOLDER

SPARSE_MARK = "# parallel-agents"  # The first line of a sparse-checkout file of ours.
_GITLINK_MODE = b"\x00\x00\xe0\x00"  # As an index stores it.
_TRIES = 5  # While somebody writes in the tree, files vanish or grow under the reader.
_TEMPORARY_FAILURES = ("No such file or directory", "short read", "unable to stat", "file changed")


class Snapshot(NamedTuple):
    """The commit that was made, and its tree."""

    commit: str
    tree: str


class Change(NamedTuple):
    """A path that differs between two commits; status is git's letter: A, M, D or T."""

    path: str
    status: str


class _Entries(NamedTuple):
    """What has to be known of an index before the tree is compared with it."""

    assumed: list[bytes]  # Never looked at, because the user said so.
    converted: list[bytes]  # Their bytes in the tree are not those in the repository.
    ours: list[bytes]  # Of the store; tracked by mistake.
    sparse: bool = False  # Some files are not checked out.


def snapshot(
    repository: Repository,
    folder: Path,
    *,
    message: str,
    parents: Sequence[str],
    at_us: int,
    as_committed: bool = False,
) -> Snapshot:
    """Commit a whole working tree, untracked files included and ignored ones not; nobody's HEAD or index moves.

    The same files, parents, message and second make the same commit.

    Args:
        repository: of which the folder is a working tree.
        folder: the top of that tree: the user's own, or a worktree.
        message: of the commit.
        parents: of the commit; the first one stands in where the tree has no index.
        at_us: the date of the commit, microseconds since the epoch.
        as_committed: line ends as the user's own commit would have them, instead of those of the files. For what is to
            be merged into the user's branch: with ``core.autocrlf`` every file would differ there.
    Raises:
        GitFailed: something in the tree cannot be kept exactly, such as a repository in the repository.
    """
    with _captured(repository, folder, parents[0] if parents else None, () if as_committed else RAW) as git:
        tree = git.text("write-tree")
    reach("files.tree")
    commit = commit_tree(repository, tree, message=message, parents=parents, at_us=at_us)
    reach("files.commit")
    return Snapshot(commit, tree)


def commit_tree(repository: Repository, tree: str, *, message: str, parents: Sequence[str], at_us: int) -> str:
    """A commit of a tree that depends on nothing but the arguments."""
    date = f"@{at_us // 1_000_000} +0000"
    said = repository.git().run(
        "commit-tree",
        tree,
        *(part for parent in parents for part in ("-p", parent)),
        "-F",
        "-",
        stdin=encoded(message),
        env={"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date},
    )
    return decoded(said.out).strip()


def tree_of(repository: Repository, commit: str) -> str:
    """The tree of a commit.

    Raises:
        GitFailed: there is no such commit.
    """
    return repository.git().text("rev-parse", "--verify", f"{commit}^{{tree}}")


def changed_paths(repository: Repository, a: str, b: str) -> list[Change]:
    """What differs between two commits or trees, path by path; a rename is a deletion and an addition."""
    said = repository.objects().run("diff-tree", "-r", "-z", "--no-renames", "--name-status", a, b)
    fields = said.out.split(b"\0")
    return [Change(decoded(path), decoded(status)) for status, path in zip(fields[::2], fields[1::2], strict=False)]


class ChangedMeanwhile(GitFailed):
    """The files of a folder are not those that were looked at before; somebody writes there."""

    code = "changed_meanwhile"


def restore(
    repository: Repository,
    commit: str,
    folder: Path,
    *,
    in_place: bool = False,
    told_of: Callable[[int, int], None] | None = None,
) -> int:
    """Write the files of a commit; the index and the HEAD of nobody change.

    Args:
        repository: that holds the commit.
        commit: whose files are wanted.
        folder: a new or empty folder; in place, the top of a working tree that is made equal to the commit.
        in_place: make the folder equal to the commit. What is there and not ignored is lost: see ``compared`` to keep it.
        told_of: is told in a new folder how many files are written, and of how many.
    Returns:
        How many files were written or removed.
    Raises:
        GitFailed: the folder is not empty; in place, ignored files lie where files of the commit belong. A folder that was
            made for it is gone again then.
        ChangedMeanwhile: in place, somebody writes there.
    """
    if in_place:
        with compared(repository, commit, folder) as seen:
            return seen.replace()
    with told(folder):
        was_there = folder.exists()
        if was_there and (not folder.is_dir() or any(folder.iterdir())):
            raise GitFailed(f"{folder} is not empty, so nothing is restored into it", hint="name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_index(repository) as index:
            settings = (*RAW, *WRITING, "-c", "core.sparseCheckout=false")
            git = Git(repository.git_dir, folder, index=index, settings=settings)
            _write(git, commit, told_of)
    except BaseException:
        if (
            not was_there
        ):  # Whoever interrupts it wants no half of it; in a folder of theirs it stays, beside what is theirs.
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return repository.git().run("ls-tree", "-r", "-z", "--name-only", commit).out.count(b"\0")


def _write(git: Git, commit: str, told_of: Callable[[int, int], None] | None) -> None:
    words = ("read-tree", "-u", "--reset", commit)
    if told_of is None:
        git.run(*words)
        return

    def heard(chunk: bytes) -> None:
        if (progress := _WRITTEN.findall(chunk)) and told_of is not None:
            told_of(int(progress[-1][0]), int(progress[-1][1]))

    git.watched(words[0], "-v", *words[1:], heard=heard)


_WRITTEN = re.compile(rb"Updating files: +\d+% \((\d+)/(\d+)\)")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A working tree as it was looked at, beside a commit."""

    folder: Path
    commit: str
    tree: str  # Of what lies in the folder.
    changes: list[Change]  # From there to the commit.
    in_the_way: list[str]  # Ignored files, in no tree, where the commit has files.
    _git: Git

    def replace(self) -> int:
        """Make the folder equal to the commit, if all that this replaces is still as it was looked at.

        Returns:
            How many files were written or removed.
        Raises:
            GitFailed: something is in the way; nothing was changed.
            ChangedMeanwhile: some of the files are others by now; nothing was changed.
        """
        if self.in_the_way:
            more = len(self.in_the_way) - 5
            shown = ", ".join(self.in_the_way[:5]) + (f" and {more} more" if more > 0 else "")
            raise GitFailed(
                f"ignored files in {self.folder} would be overwritten: {shown}",
                hint="move them away, or restore into a new folder",
            )
        if self.changes:
            try:
                self._git.run(*WRITING, "read-tree", "-m", "-u", self.tree, self.commit)
            except GitFailed as error:
                if _WRITTEN_MEANWHILE.search(error.message) is None:
                    raise
                raise ChangedMeanwhile(
                    f"files in {self.folder} have just been changed", hint="wait until nobody writes there"
                ) from error
        return len(self.changes)


_WRITTEN_MEANWHILE = re.compile("not uptodate|would be (overwritten|removed) by|would lose untracked")


@contextlib.contextmanager
def compared(repository: Repository, commit: str, folder: Path) -> Iterator[Comparison]:
    """Look at a working tree as ``snapshot`` does. What is seen can be committed, and then replaced.

    Args:
        commit: that the folder may be made equal to.
        folder: the top of a working tree.
    """
    with _captured(repository, folder, None) as git:
        tree = git.text("write-tree")
        changes = changed_paths(repository, tree, commit)
        yield Comparison(folder, commit, tree, changes, ignored_in_the_way(repository, tree, folder, changes), git)


def ignored_in_the_way(repository: Repository, before: str, folder: Path, changes: Sequence[Change]) -> list[str]:
    """What lies where a commit has files, and is in no snapshot: git would write over it without a word.

    Args:
        before: the tree that a snapshot of the folder gave.
        changes: what is to be changed of it.
    """
    top, found = os.fsencode(folder), set[bytes]()
    for path in (encoded(change.path) for change in changes if change.status in "AT"):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            there = os.path.join(top, above)
            if os.path.islink(there) or os.path.isfile(there):
                found.add(above)
                break
        else:
            found.update(_everything_at(top, path))
    if not found:  # As a rule: to list a large tree takes longer than all the rest of this.
        return []
    names = repository.git().run("ls-tree", "-r", "-z", "--name-only", before).out
    return sorted(map(decoded, found.difference(names.split(b"\0"))))


def _everything_at(top: bytes, path: bytes) -> Iterator[bytes]:
    """The path itself where it is a file, else every file below it."""
    there = os.path.join(top, path)
    if os.path.isdir(there) and not os.path.islink(there):
        for name in os.listdir(there):
            yield from _everything_at(top, path + b"/" + name)
    elif os.path.lexists(there):
        yield path


@contextlib.contextmanager
def temporary_index(repository: Repository) -> Iterator[Path]:
    """A name for an index that nobody else sees; what is there at the end is removed.

    Raises:
        GitFailed: also where the system refuses whatever is done with it.
    """
    with (
        told(repository.git_dir),
        tempfile.TemporaryDirectory(prefix="index-", dir=repository.own_folder()) as folder,
    ):
        yield Path(folder) / "index"


@contextlib.contextmanager
def _captured(
    repository: Repository, folder: Path, parent: str | None, line_ends: Sequence[str] = RAW
) -> Iterator[Git]:
    """Commands on a temporary index that holds all that lies in a tree."""
    git_dir = repository.git_dir_of(folder)
    with temporary_index(repository) as index:
        git = Git(git_dir, folder, index=index, settings=(*line_ends, *sparse_settings(git_dir)))
        sparse = _begin(git, git_dir, index, parent, raw=bool(line_ends))
        _add_all(git, folder, sparse)
        if _holds_submodules(git, index):
            _refuse_dirty_submodules(git, folder)
        yield git
        if repository.shadow:  # Its index is ours: the next snapshot begins where this one ended.
            os.replace(index, git_dir / "index")


def sparse_settings(git_dir: Path) -> tuple[str, ...]:
    """What a command must be told in a sparse worktree of ours: the shared configuration says nothing of it."""
    try:
        with open(git_dir / "info" / "sparse-checkout", encoding="utf-8", errors="replace") as file:
            ours = file.readline().startswith(SPARSE_MARK)
    except OSError:
        ours = False
    return ("-c", "core.sparseCheckout=true", "-c", "core.sparseCheckoutCone=true") if ours else ()


def _begin(git: Git, git_dir: Path, index: Path, parent: str | None, *, raw: bool) -> bool:
    """Copy the real index, and make it look at every file. Gives whether some files are not checked out."""
    try:
        shutil.copy2(git_dir / "index", index)  # With its time: a file as young as its index is compared by content.
    except FileNotFoundError:
        git.run("read-tree", parent or "--empty")
        return False
    entries = _entries(git, raw)
    if entries.ours:
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=b"\0".join(entries.ours))
    if entries.assumed:
        git.run("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=b"\0".join(entries.assumed))
    if entries.converted:
        where = ("--pathspec-from-file=-", "--pathspec-file-nul")
        git.run("--literal-pathspecs", "add", "--renormalize", "--sparse", *where, stdin=b"\0".join(entries.converted))
    return entries.sparse


def _holds_submodules(git: Git, index: Path) -> bool:
    """Whether one of the entries of an index is a submodule. The bytes of its mode may also be part of a file's number."""
    if _GITLINK_MODE not in index.read_bytes():
        return False
    listed = git.run("ls-files", "-s", "-z").out
    return listed.startswith(b"160000 ") or b"\x00160000 " in listed


_CONVERTING = re.compile(rb"true|input", re.IGNORECASE)
_OF_THE_STORE = re.compile(rb". (?:.*/)?%s/" % re.escape(FOLDER.encode()), re.DOTALL)
_DEBUGGED = re.compile(
    rb"(?P<tag>[A-Za-z?]) (?P<mode>\d+) (?P<oid>[0-9a-f]+) \d\t(?P<path>[^\0]*)\0"
    rb"  ctime: [^\n]*\n  mtime: [^\n]*\n  dev: [^\n]*\n  uid: [^\n]*\n  size: (?P<size>\d+)\t[^\n]*\n"
)


def _entries(git: Git, raw: bool) -> _Entries:
    """Look through an index for what `git add` passes over. That is seldom anything, and counting is quick."""
    said = git.run("ls-files", "-v", "-z").out
    store = FOLDER.encode()
    usual = said.startswith(b"H ") + said.count(b"\0H ") == said.count(b"\0") and store not in said
    listed = [] if usual else said.split(b"\0")
    tags = {line[:1] for line in listed}
    # Asked without our settings, which say that nothing is converted.
    converting = raw and Git(git.git_dir, git.work_tree).run("config", "--get", "core.autocrlf", ok=(0, 1)).out
    return _Entries(
        assumed=[line[2:] for line in listed if line[:1].islower()] if any(map(bytes.islower, tags)) else [],
        converted=_converted(git) if converting and _CONVERTING.match(converting) else [],
        ours=[line[2:] for line in listed if store in line and _OF_THE_STORE.match(line)],
        sparse=not tags.isdisjoint((b"S", b"s")),
    )


def _converted(git: Git) -> list[bytes]:
    """Files that are of another size than what the index has of them, so that their line ends have been converted."""
    found = _DEBUGGED.finditer(git.run("ls-files", "-v", "-s", "-z", "--debug").out)
    files = [entry for entry in found if entry["mode"].startswith(b"100") and entry["tag"] not in b"Ss"]
    asked = b"\n".join(entry["oid"] for entry in files)
    sizes = git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).out.split(b"\n")
    return [
        entry["path"]
        for entry, size in zip(files, sizes, strict=False)
        if size.isdigit() and int(size) & 0xFFFFFFFF != int(entry["size"])
    ]


def _add_all(git: Git, folder: Path, sparse: bool) -> None:
    """Bring a temporary index to what lies in the tree now.

    In a sparse tree a file is looked at too that lies where none was checked out; that takes twice as long.

    Raises:
        GitFailed: something cannot be kept.
    """
    settings = ("-c", "core.sparseCheckout=true", "-c", "sparse.expectFilesOutsideOfPatterns=false") if sparse else ()
    for tries in range(1, _TRIES + 1):
        said = git.run(*settings, "add", "-A", "--sparse", "--", *NOT_OURS, ok=range(256))
        if said.code == 0 or tries == _TRIES or not any(words in said.err for words in _TEMPORARY_FAILURES):
            break
    nested = re.findall(r"adding embedded git repository: (.*)|'(.*)/' does not have a commit checked out", said.err)
    if nested:
        names = sorted(first or second for first, second in nested)
        raise GitFailed(
            f"{folder} holds repositories that a snapshot cannot keep: {', '.join(names)}",
            hint="add them to .gitignore, move them out, or make them submodules",
        )
    names = re.findall(r"invalid path '(.*)'", said.err)
    if names:
        raise GitFailed(
            f"{folder} holds names that git does not keep: {', '.join(names)}", hint="rename them, or ignore them"
        )
    if said.code:
        refuse_disk(git.git_dir, said.err)
    if said.code or "could not open directory" in said.err:
        raise GitFailed(
            f"not every file in {folder} can be read: {_without_warnings(said)}", hint="look at its permissions"
        )


def _without_warnings(said: Output) -> str:
    """Git's last words without those about line ends and hints."""
    lines = [line for line in said.err.splitlines() if "will be replaced by" not in line]
    return last_words(said._replace(err="\n".join(lines)))


def _refuse_dirty_submodules(git: Git, folder: Path) -> None:
    """A snapshot keeps of a submodule which commit it stands on, and nothing else."""
    said = git.run("status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=none")
    dirty = [
        decoded(fields[8])
        for record in said.out.split(b"\0")
        if len(fields := record.split(b" ", 8)) == 9 and fields[0] == b"1" and re.match(rb"S.(M.|.U)", fields[2])
    ]
    if dirty:
        raise GitFailed(
            f"submodules in {folder} hold changes that a snapshot cannot keep: {', '.join(dirty)}",
            hint="commit them there first",
        )
