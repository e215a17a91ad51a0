"""The files of an attempt, as its supervisor writes them and as whoever takes over reads them.

``lock`` is held (flock) as long as the attempt lives; ``revoked`` says that it must not start any more; ``process.json``
says who runs; ``exit.json``, renamed into place, how it ended; ``stop`` asks a supervisor without dispatcher to end it.
Stdlib only and few modules, because the supervisor starts with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from typing import Any, Final

from parallel_agents.eventstore.crash_points import reach

LOCK: Final = "lock"
REVOKED: Final = "revoked"
PROCESS: Final = "process.json"
EXIT: Final = "exit.json"
STOP: Final = "stop"
STDOUT: Final = "stdout.log"
STDERR: Final = "stderr.log"
PROMPT: Final = "prompt.md"  # What an agent was told.
SESSION: Final = "session.json"  # What can be gone on with.

_TAIL_BYTES: Final = 8192
_OUTPUT_CHARS: Final = 500
_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What makes a terminal do something, or turns the direction of reading. Colours go whole."""


class LockHeld(Exception):
    """Somebody holds the attempt: it lives, or is being recovered."""


def make_folder(folder: str) -> None:
    """Make an attempt's folder and those above it, private to us; one that is there is fine."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def take_lock(folder: str) -> int:
    """Make the folder where there is none and take its lock.

    Returns:
        The descriptor that holds the lock until it is closed.
    Raises:
        LockHeld: somebody else has it.
        OSError: folder or lock cannot be made.
    """
    make_folder(folder)
    fd = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LockHeld from None
    except OSError:
        os.close(fd)
        raise
    return fd


def write_whole(folder: str, name: str, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    path = f"{folder}/{name}"
    fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(fd, content) != len(content):  # The disk is nearly full.
            raise OSError(f"{path}: not written whole")
    finally:
        os.close(fd)
    reach("file.before-rename")
    os.rename(f"{path}.tmp", path)


def read_object(folder: str, name: str) -> dict[str, Any] | None:
    """What a file of ours says, or None where it is not there or not whole."""
    try:
        with open(f"{folder}/{name}", "rb") as file:
            data = json.loads(file.read())
    except (OSError, ValueError, RecursionError):  # Brackets without end, from whoever can write there.
        return None
    return data if isinstance(data, dict) else None


def last_bytes(path: str, count: int) -> str:
    """The end of a log, of about so many characters; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - count))
            return file.read(count).decode("utf-8", "replace")
    except OSError:
        return ""


def last_line(path: str, *, begin: int = 0, end: int | None = None, but: str = "") -> str | None:
    """The last line of a log that is not empty: without control characters, at most 500 characters, or None.

    Only the end of the file is read, whatever its size.

    Args:
        begin, end: the part of the file that is looked at, in bytes.
        but: a line that is passed over.
    """
    try:
        size = os.stat(path).st_size if end is None else end
        if size <= begin:
            return None
        fd = os.open(path, os.O_RDONLY)
        try:
            first = max(begin, size - _TAIL_BYTES)
            tail = os.pread(fd, size - first, first)
        finally:
            os.close(fd)
    except OSError:
        return None
    for raw in reversed(re.split(rb"[\r\n]+", tail)):
        line = _CONTROL.sub("", raw.decode("utf-8", "replace")).strip()
        if line and line != but:
            return line[:_OUTPUT_CHARS]
    return None
