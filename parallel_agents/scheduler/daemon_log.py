"""The log of a daemon in the background: kept from growing for ever, by the daemon itself."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 5_000_000
"""Some 50,000 lines: days of an ordinary daemon, and little enough to be read."""
KEPT: Final = 3
"""Older files that are kept, as ``NAME.1`` (the newest) and so on: what went wrong is seldom found out at once."""


def rotate(log: Path, *, limit: int = LIMIT_BYTES) -> bool:
    """Begin a new log where the one that our standard error goes to has become too large.

    Nothing is lost in between: what is written until the new one is there goes to the old one, under its new name.

    Args:
        log: the file; where our standard error goes elsewhere, nothing is done.
    Returns:
        Whether a new one was begun.
    Raises:
        OSError: it cannot be; the old one goes on.
    """
    said = os.fstat(2)
    if said.st_size < limit:
        return False
    with contextlib.suppress(FileNotFoundError):
        there = os.stat(log)
        if (there.st_dev, there.st_ino) != (said.st_dev, said.st_ino):
            return False
        for number in range(KEPT - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{log}.{number}", f"{log}.{number + 1}")
        os.rename(log, f"{log}.1")
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):  # What an interpreter says in its last moments goes there too.
            os.dup2(fd, standard)
        os.close(fd)
        return True
    return False
