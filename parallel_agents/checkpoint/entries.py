"""What a repository has on record of its worktrees, read from its files: also of those that git would not list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint.git import decoded
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.worktrees import REASON


class Entry(NamedTuple):
    """One linked worktree, ours or not."""

    admin: Path  # Its git directory.
    path: Path | None  # Of its files, which may be gone; None where the entry does not say.
    reason: str | None  # Of its lock; None: it is not locked.

    @property
    def ours(self) -> bool:
        """Whether its lock says that we made it."""
        return self.reason == REASON

    @property
    def foreign(self) -> bool:
        """Whether somebody else has locked it."""
        return self.reason is not None and self.reason != REASON


def entries(repository: Repository) -> list[Entry]:
    """All linked worktrees of a repository."""
    try:
        folders = sorted(folder for folder in (repository.git_dir / "worktrees").iterdir() if folder.is_dir())
    except OSError:
        return []
    return [Entry(folder, _path(folder), _text(folder / "locked")) for folder in folders]


def head_of(repository: Repository, entry: Entry) -> str | None:
    """The commit that a worktree stands on; None where it stands on none, or that commit is not there any more."""
    stands = (_text(entry.admin / "HEAD") or "").removeprefix("ref: ")
    if not stands:
        return None
    asked = repository.git().run("rev-parse", "--verify", "--quiet", f"{stands}^{{commit}}", ok=(0, 1, 128))
    return decoded(asked.out).strip() or None


def is_half_made(entry: Entry) -> bool:
    """Whether its checkout has never come to its end: only that writes an index."""
    return not (entry.admin / "index").exists()


def _path(admin: Path) -> Path | None:
    named = _bytes(admin / "gitdir")
    return None if not named else Path(os.path.normpath(os.fsdecode(named.rstrip(b"\n")))).parent


def _text(path: Path) -> str | None:
    found = _bytes(path)
    return None if found is None else found.decode("utf-8", "replace").strip()


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
