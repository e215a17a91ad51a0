"""What runs and crashes leave behind, as data: what it is, how large, how old, and why it may go or stays."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.errors import InvalidUsage

Kind = Literal["checkout", "attempts", "leftover", "group", "ref", "checkpoints"]
UNDER_WAY_S = 3600.0
"""What is younger may belong to a command that has not come to its end: a snapshot, a submission, a lock of git."""
_AGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhdw]?)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "": 86_400}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that may be removed."""

    kind: Kind
    path: str  # A folder, a file, or a ref.
    why: str
    bytes: int = 0
    run_id: str | None = None
    kept_first: bool = False  # It holds what no ref reaches, which becomes a checkpoint before it goes.
    repository: Repository | None = None
    parts: tuple[str, ...] = ()  # The folders of attempts, or the refs, that it stands for.

    def as_data(self) -> dict[str, Any]:
        """As scripts read it."""
        return {
            "kind": self.kind,
            "path": self.path,
            "run_id": self.run_id,
            "bytes": self.bytes,
            "why": self.why,
            "kept_first": self.kept_first,
            "repository": None if self.repository is None else str(self.repository.git_dir),
            "count": max(1, len(self.parts)),
        }


class Stays(NamedTuple):
    """One thing that nobody needs by the look of it, and that stays all the same."""

    path: str
    why: str
    hint: str = ""


def parse_age(text: str) -> float:
    """An age in seconds: ``7d``, ``12h``, ``90m``, ``30s``, ``2w``, ``0``; a number alone is of days.

    Raises:
        InvalidUsage: it is none.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidUsage(f"{text!r} is no age", hint="write it as 7d, 12h, 90m or 0")
    return float(found[1]) * _UNIT_S[found[2]]


def size_of(path: Path) -> int:
    """What a file, or a folder with all that is in it, takes of the disk, in bytes. What cannot be read counts nothing."""
    total = _blocks(path)
    for folder, folders, names in os.walk(path):
        total += sum(_blocks(Path(folder, name)) for name in (*folders, *names))
    return total


def _blocks(path: Path) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def age_s(path: Path) -> float:
    """Seconds since a file, or anything that lies directly in a folder, was last written; 0 where that is unknown."""
    try:
        newest = path.lstat().st_mtime
        if path.is_dir() and not path.is_symlink():
            newest = max([newest, *(below.lstat().st_mtime for below in path.iterdir())])
    except OSError:
        return 0.0
    return time.time() - newest


def folders_in(path: Path) -> list[Path]:
    """The folders that lie directly in a folder, in order; none where it is not there."""
    try:
        return sorted(below for below in path.iterdir() if below.is_dir() and not below.is_symlink())
    except OSError:
        return []


def delete(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, read-only or not.

    Raises:
        OSError: something of it stays.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    with contextlib.suppress(FileNotFoundError):  # Somebody else deletes it as well.
        shutil.rmtree(path)
