"""Makes a new store beside everything else that a command still has to do.

SQLAlchemy, which makes the tables, takes longer to import than the rest of ``run`` together. A child of this process does so
while we read the plan and import what dispatches. Whatever goes wrong there is met again, and said, by whoever opens the store.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.sqlite import open_store
from parallel_agents.version import RELEASE


class StoreMaker:
    """A child process that makes a store once it is told which; one that never is told makes none.

    There is no child where a process must not be copied: with other threads, which may hold locks that the copy would wait
    for, and on macOS, whose own libraries do not bear it.
    """

    def __init__(self) -> None:
        self._child = 0
        self._begun = False
        if not sys.platform.startswith("linux") or threading.active_count() > 1:
            return
        told, self._tell = os.pipe()
        try:
            self._child = os.fork()
        except OSError:  # No more processes: the store is made by whoever opens it.
            os.close(self._tell)
        else:
            if not self._child:
                _make_when_told(told, self._tell)
        os.close(told)

    def begin(self, store: Path) -> None:
        """Have it made. The folder is there when this returns; the store is when ``finish`` does.

        Raises:
            StoreError: its folder cannot be made.
        """
        make_home(store)
        if self._child and not self._begun:
            self._begun = True
            with contextlib.suppress(OSError):
                os.write(self._tell, os.fsencode(store.absolute()))
            os.close(self._tell)

    def finish(self) -> None:
        """Wait until it is made, or take back that it should be. Said again, it does nothing."""
        child, self._child = self._child, 0
        if not child:
            return
        if not self._begun:
            os.close(self._tell)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # It has touched nothing.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _make_when_told(told: int, tell: int) -> None:
    """What the child does; it never returns."""
    try:
        os.close(tell)
        gc.disable()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # Nobody shall wait for the end of an output because we hold it open.
            os.dup2(nothing, stream)
        import_module("sqlalchemy.dialects.sqlite")
        import_module("parallel_agents.eventstore.schema")
        import_module("parallel_agents.eventstore.views")
        store = b""
        while part := os.read(told, 1 << 16):
            store += part
        if store:
            for connection in open_store(Path(os.fsdecode(store)), release=RELEASE):
                connection.close()
    finally:
        os._exit(0)
