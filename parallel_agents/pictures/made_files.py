"""Files that are made of a run: whole or not at all, and in place of nothing but an earlier one of their kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from parallel_agents.eventstore.errors import InvalidUsage

STDOUT: Final = "-"


def make_file(target: str, content: str, kind: str, begins: tuple[str, ...], *, private: bool = False) -> int:
    """Write a file, by a temporary one beside it that takes its place.

    Args:
        target: where to; ``-`` is standard output.
        kind: what it is, for errors.
        begins: how files of that kind begin: one that is there and begins otherwise is somebody's, and stays.
        private: only for who makes it to read.
    Returns:
        Its size in bytes.
    Raises:
        InvalidUsage: there is no such folder, or something else of that name.
        OSError: it cannot be written.
    """
    data = content.encode("utf-8", "replace")
    if target == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return len(data)
    path = Path(target)
    if not target or path.is_dir():
        raise InvalidUsage(f"{target or 'an empty name'} is a folder, no file", hint=f"name a file for the {kind}")
    if not path.parent.is_dir():
        raise InvalidUsage(f"there is no folder {path.parent}", hint="make it first, or name another file")
    if path.exists() and not path.is_file():  # A pipe or a device: it is written to, and nothing takes its place.
        path.write_bytes(data)
        return len(data)
    if path.is_file() and not _replaceable(path, begins):
        raise InvalidUsage(
            f"{path} is there, and is no {kind}: it is left as it is", hint="name another file, or remove it"
        )
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return len(data)


def _replaceable(path: Path, begins: tuple[str, ...]) -> bool:
    with open(path, "rb") as file:
        head = file.read(100).decode("utf-8", "replace")
    return not head or head.startswith(begins)
