"""Checkouts of attempts: one after another in each repository, because git itself races there.

A worktree is locked for its life, so that neither `git worktree prune` nor a garbage collection of the user takes it
away; the reason in the lock is what tells it from the user's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint.git import RAW, WRITING, Git, GitFailed, decoded, told
from parallel_agents.checkpoint.repository import NOT_OURS, OURS, Repository, linked_git_dir
from parallel_agents.checkpoint.snapshot import SPARSE_MARK, sparse_settings
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.location import FOLDER

REASON = "in use by parallel-agents"
_STAYS = {"HEAD", "commondir", "gitdir", "index", "locked"}  # In the git directory of a worktree that is used again.
_TRASH = ".removed-"
_LEFT_BEHIND_S = 86_400.0  # No command takes a day.


class Worktree(NamedTuple):
    """A worktree of ours as git lists it."""

    path: Path
    head: str
    locked: bool
    prunable: bool


def add(repository: Repository, path: Path, commit: str, *, sparse: Sequence[str] = ()) -> None:
    """Check a commit out into a new worktree, detached. A stale one of ours at that path makes way.

    Args:
        repository: of the user.
        path: where; what a stopped process left half made there is replaced.
        commit: what it holds.
        sparse: folders of the repository that it is to hold; none means all of them.
    Raises:
        GitFailed: something that is not ours lies at the path, or git failed.
    """
    path = _place(path)
    try:
        with _alone(repository):
            _make(repository, path, commit, sparse)
    finally:
        _sweep(path.parent)


def reuse(repository: Repository, old: Path, new: Path, commit: str, *, sparse: Sequence[str] = ()) -> None:
    """Make a finished worktree the next one: moved, set to a commit, and emptied of everything else, ignored files too.

    Quicker than a new one, because only files that differ are written. Where the old one is sparse, is to be, or cannot be
    trusted, a new one is made all the same.
    """
    old, new = _place(old), _place(new)
    with _alone(repository):
        admin = None if sparse else _usable(repository, old)
        if admin is not None and old != new:
            _clear(repository, new)
            _make_private(new.parent)
            os.rename(old, new)
            reach("worktree.moved")
            _write(admin / "gitdir", f"{new / '.git'}\n")
        reused = admin is not None and _set_to(repository, admin, new, commit)
        if not reused and old != new:
            _clear(repository, old)
    _sweep(old.parent)
    if not reused:
        add(repository, new, commit, sparse=sparse)


def remove(repository: Repository, path: Path, *, if_still: Callable[[], bool] = lambda: True) -> bool:
    """Remove a worktree of ours with all that is in it, or what is left of one.

    Args:
        if_still: asked while nobody else can make or remove worktrees; where it says no, everything stays.
    Returns:
        Whether it was removed.
    Raises:
        GitFailed: what lies there is not ours.
    """
    path = _place(path)
    with _alone(repository):
        if not if_still():
            return False
        _clear(repository, path)
    _sweep(path.parent)
    return True


def listed(repository: Repository, below: Path | None = None) -> list[Worktree]:
    """The worktrees of ours, below a folder or all of them; those that have gone missing too."""
    found = []
    for block in repository.git().run("worktree", "list", "--porcelain", "-z").out.split(b"\0\0"):
        fields = dict(line.partition(" ")[::2] for line in decoded(block).split("\0") if line)
        if "worktree" not in fields:
            continue
        path = Path(fields["worktree"])
        if fields.get("locked") == REASON or FOLDER in path.parts[:-1]:
            found.append(Worktree(path, fields.get("HEAD", ""), "locked" in fields, "prunable" in fields))
    if below is None:
        return found
    folder = Path(os.path.realpath(below))
    return [worktree for worktree in found if folder in worktree.path.parents]


def copy_included(repository: Repository, path: Path) -> list[str]:
    """Copy what ``.worktreeinclude`` of the user's tree names into a worktree, such as ``.env``.

    The file has the syntax of ``.gitignore``. Only ignored files are copied, and never over one that is there.

    Returns:
        The paths that were copied.
    """
    named = repository.top / ".worktreeinclude"
    if not named.is_file():
        return []
    git = repository.git(repository.top)
    matching = git.run("ls-files", "-z", "--others", "--ignored", f"--exclude-from={named}", "--", *NOT_OURS).out
    if not matching:
        return []
    ignored = git.run("check-ignore", "-z", "--stdin", stdin=matching, ok=(0, 1)).out
    copied = []
    for name in map(decoded, filter(None, ignored.split(b"\0"))):
        source, target = repository.top / name, path / name
        if name.endswith("/") or os.path.lexists(target) or not _stays_inside(path, target):
            continue
        with told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        copied.append(name)
    return copied


def _stays_inside(folder: Path, target: Path) -> bool:
    """Whether no link of the commit leads a copy out of the worktree."""
    top = os.path.realpath(folder)
    return os.path.commonpath((top, os.path.realpath(target.parent))) == top


@contextlib.contextmanager
def _alone(repository: Repository) -> Iterator[None]:
    """One change of worktrees at a time in a repository, over threads and processes; a dead holder holds nothing."""
    own = repository.own_folder()
    with told(own), open(own / "worktrees.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in own.iterdir():  # Temporary indexes of processes that were killed.
            if left.is_dir() and time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                _delete(left)
        yield


def _make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for us alone."""
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def _make(repository: Repository, path: Path, commit: str, sparse: Sequence[str]) -> None:
    _clear(repository, path)
    _make_private(path.parent)
    reach("worktree.before-add")
    repository.git().run(
        "worktree", "add", "--no-checkout", "--detach", "--lock", "--reason", REASON, "--", str(path), commit
    )
    reach("worktree.registered")
    try:
        _check_out(path, commit, sparse)
    except GitFailed:
        _clear(repository, path)  # Half of a checkout is worth nothing, and the disk may be full.
        raise
    reach("worktree.filled")


def _check_out(path: Path, commit: str, sparse: Sequence[str]) -> None:
    admin = _admin_of(path)
    _set_sparse(admin, sparse)
    settings = (*RAW, *sparse_settings(admin))
    Git(admin, path, settings=settings).run(*WRITING, "read-tree", "-m", "-u", commit)


def _admin_of(path: Path) -> Path:
    admin = linked_git_dir(path)
    assert admin is not None, f"{path} was just made a worktree"
    return admin


def _set_sparse(admin: Path, sparse: Sequence[str]) -> None:
    """Which folders a worktree holds, said in its own files: the shared configuration is the user's."""
    named = admin / "info" / "sparse-checkout"
    if sparse:
        named.parent.mkdir(exist_ok=True)
        _write(named, "\n".join([SPARSE_MARK, *_cone(sparse)]) + "\n")
    else:
        named.unlink(missing_ok=True)  # Git copies the user's when it makes a worktree.


def _cone(folders: Sequence[str]) -> list[str]:
    """The patterns of a cone: every file beside the folders and on the way to them, and all below them."""
    wanted = {folder.strip("/") for folder in folders} - {""}
    above = {folder[:at] for folder in wanted for at in range(len(folder)) if folder[at] == "/"}
    lines = ["/*", "!/*/"]
    for folder in sorted(above | wanted):
        name = "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in folder)
        lines += [f"/{name}/"] if folder in wanted else [f"/{name}/", f"!/{name}/*/"]
    return lines


def _usable(repository: Repository, path: Path) -> Path | None:
    """The entry of a worktree whose index says which of its files have changed; None where it cannot be trusted."""
    admin = linked_git_dir(path)
    if admin is None or not _is_ours(repository, admin, path) or _path_of(admin) != path:
        return None
    try:
        tags = Git(admin, path).run("ls-files", "-v", "-z").out
    except GitFailed:
        return None
    # Any other tag is of a file that git would pass over, or of a merge that was left half done.
    plain = tags.startswith(b"H ") + tags.count(b"\0H ") == tags.count(b"\0")
    return admin if tags and plain else None


def _set_to(repository: Repository, admin: Path, path: Path, commit: str) -> bool:
    """Make a used worktree equal to a commit; False where that fails."""
    reach("worktree.before-set")
    _write(admin / "HEAD", f"{commit}\n")
    for left in admin.iterdir():
        if left.name not in _STAYS:
            _delete(left)  # A merge or rebase that was under way, reflogs, a lock, a configuration of its own.
    _write(admin / "locked", f"{REASON}\n")
    settings = (*RAW, "-c", "core.trustctime=true", "-c", "core.checkStat=default")
    git = Git(admin, path, settings=settings)
    try:
        # A `read-tree` does the same, but looks at one file after the other, which takes half as long again.
        git.run(*WRITING, "checkout", "--quiet", "--force", "--detach", commit)
        git.run("clean", "-ffdxq")
    except GitFailed:
        return False
    reach("worktree.set")
    return True


def _clear(repository: Repository, path: Path) -> None:
    """Take away whatever a worktree of ours left at a path: its files, its entry in the repository, or one of them."""
    entries = [entry for entry in _registered(repository) if _path_of(entry) == path]
    foreign = [entry for entry in entries if not _is_ours(repository, entry, path)]
    if os.path.lexists(path):
        admin = linked_git_dir(path)
        known = entries or FOLDER in path.parts[:-1] or (admin is not None and _is_ours(repository, admin, path))
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if foreign or not (known or empty):
            raise GitFailed(f"{path} is no worktree of parallel-agents, so it stays", hint="move it away")
        trash = path.with_name(f"{_TRASH}{os.getpid()}-{os.urandom(4).hex()}")
        os.rename(path, trash)  # At once, so that a crash leaves either a worktree or a thing to sweep away.
        reach("worktree.put-aside")
        if admin is not None and _is_ours(repository, admin, path) and not _in_use(admin):
            entries.append(admin)
    for entry in entries:
        if entry not in foreign:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        (repository.git_dir / "worktrees").rmdir()
    if entries:
        reach("worktree.forgotten")


def _sweep(folder: Path) -> None:
    """Delete what was put aside in a folder, by us or by a process that is no more. Long, so nobody waits for it."""
    for left in folder.glob(f"{_TRASH}*"):
        _delete(left)


def _place(path: Path) -> Path:
    """A path as git writes it down: without links on the way to it."""
    path = Path(os.path.abspath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def _registered(repository: Repository) -> list[Path]:
    """The git directories of all linked worktrees."""
    try:
        return [entry for entry in (repository.git_dir / "worktrees").iterdir() if entry.is_dir()]
    except OSError:
        return []


def _path_of(admin: Path) -> Path | None:
    """The worktree that an entry of the repository stands for."""
    try:
        return Path(os.path.normpath(os.fsdecode((admin / "gitdir").read_bytes().rstrip(b"\n")))).parent
    except OSError:
        return None


def _in_use(admin: Path) -> bool:
    """Whether an entry and its worktree name each other, so that no other folder stands for it."""
    path = _path_of(admin)
    return path is not None and linked_git_dir(path) == admin


def _is_ours(repository: Repository, admin: Path, path: Path) -> bool:
    """Whether an entry is a worktree of this repository that we made: by its lock, or by where it lies."""
    if os.path.realpath(admin.parent) != os.path.realpath(repository.git_dir / "worktrees"):
        return False
    try:
        reason = (admin / "locked").read_text(errors="replace").strip()
    except OSError:
        reason = ""
    return reason == REASON or FOLDER in path.parts[:-1]


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{OURS}")
    beside.write_bytes(os.fsencode(text))
    os.replace(beside, path)


def _delete(path: Path) -> None:
    """Delete a file or a whole folder, one that somebody made read-only too."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
