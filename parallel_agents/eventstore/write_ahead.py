"""The write-ahead log of a store: how large it is, and who keeps it from being folded into the database.

SQLite appends every commit to the file ``-wal`` and copies it back now and then. As long as a reader looks at an old moment,
what came after that moment cannot be copied over, and the file grows. Readers of ours read a page at a time, so they hold no
moment longer than a page takes; a shell in which somebody has begun a transaction may.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 16_777_216
"""Above it a dispatcher folds the file at a quiet moment, and SQLite cuts it when it begins it anew."""
_READ_MARKS: Final = range(123, 128)  # The bytes of the -shm file that readers lock (SQLite's wal.c and os_unix.c).


def wal_file(store: Path) -> Path:
    """Beside the store."""
    return store.with_name(store.name + "-wal")


def wal_bytes(store: Path) -> int:
    """How large it is; 0 where there is none."""
    try:
        return os.stat(wal_file(store)).st_size
    except OSError:
        return 0


def readers(store: Path) -> list[int] | None:
    """The processes, but for this one, that look at some moment of a store just now, as the system's locks tell.

    Returns:
        Their pids, ascending; None where the system does not tell.
    """
    try:
        found = os.stat(store.with_name(store.name + "-shm"))
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = set()
    for line in lines:
        words = line.split()  # Such as: 1: POSIX ADVISORY READ 4711 08:01:123456 123 123
        numbers = len(words) >= 8 and words[4].isdecimal() and words[6].isdecimal()
        if numbers and words[5] == file and int(words[6]) in _READ_MARKS:
            pids.add(int(words[4]))
    return sorted(pids - {os.getpid()})
