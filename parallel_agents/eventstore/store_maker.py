"""Makes a new store beside everything else that a command still has to do.

SQLAlchemy, which makes the tables, takes longer to import than the rest of ``run`` together. A child of this process does so
while we read the plan and import what dispatches. Whatever goes wrong there is met again, and said, by whoever opens the store.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.sqlite import open_store
from parallel_agents.version import RELEASE


class StoreMaker:
    """A child process that makes a store once it is told to; one that never is told makes none.

    There is no child where the store exists, or where a process must not be copied: with other threads, which may hold locks
    that the copy would wait for, and on macOS, whose own libraries do not bear it.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._child = 0
        if not sys.platform.startswith("linux") or threading.active_count() > 1 or store.exists():
            return
        told, self._tell = os.pipe()
        try:
            self._child = os.fork()
        except OSError:  # No more processes: the store is made by whoever opens it.
            os.close(self._tell)
        else:
            if not self._child:
                _make_when_told(store, told, self._tell)
        os.close(told)

    def __enter__(self) -> StoreMaker:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until it is made, if it was asked for."""
        if self._child:
            os.close(self._tell)  # Who waits to be told sees that nobody will any more.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)

    def begin(self) -> None:
        """Have it made.

        Raises:
            StoreError: its folder cannot be made.
        """
        make_home(self._store)
        if self._child:
            with contextlib.suppress(OSError):
                os.write(self._tell, b"!")


def _make_when_told(store: Path, told: int, tell: int) -> None:
    """What the child does; it never returns."""
    try:
        os.close(tell)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # Nobody shall wait for the end of an output because we hold it open.
            os.dup2(nothing, stream)
        import sqlalchemy.dialects.sqlite  # noqa: F401

        import parallel_agents.eventstore.schema  # noqa: F401

        if os.read(told, 1):
            for connection in open_store(store, release=RELEASE):
                connection.close()
    finally:
        os._exit(0)
