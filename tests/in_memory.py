"""Where the tests of a quick run write: into memory, on a machine that has room there. A disk makes every commit wait for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

TEMPROOT = "PYTEST_DEBUG_TEMPROOT"  # As pytest knows it.
NEEDS = 10**9  # Bytes of room there. A test that has passed leaves nothing, so that a run takes far less.
NO_PROGRAMS = getattr(os, "ST_NOEXEC", 8)


def folder_for(environ: Mapping[str, str], memory: Path = Path("/dev/shm")) -> Path | None:
    """A folder in memory for temporary files, or None: another one is named, all tests run, or there is none with room.

    Args:
        memory: Linux has it nearly everywhere; in a container it may be tiny, or let no program run.
    """
    if TEMPROOT in environ or "TEST_ALL" in environ or not os.access(memory, os.W_OK | os.X_OK):
        return None
    room = os.statvfs(memory)
    fits = room.f_bavail * room.f_frsize >= NEEDS and psutil.virtual_memory().available >= 4 * NEEDS
    return memory if fits and not room.f_flag & NO_PROGRAMS else None


def temporary() -> TemporaryDirectory[str]:
    """A folder beside those of pytest."""
    return TemporaryDirectory(dir=os.environ.get(TEMPROOT))
