"""Ctrl-Z for a process that dispatches: it stops at a moment when it holds no lock that others would wait for."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel_agents.scheduler.loop import Loop


def stop_between_ticks(loop: Loop) -> None:
    """Stop this process as Ctrl-Z does, and return when it is continued. Called from the main thread only.

    A process that is stopped in the middle of a commit would lock everybody else out of the store. Where no shell could
    continue it, the system ignores the signal, and so do we.
    """
    with loop.between_ticks():
        earlier = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # Has acted when this returns.
        finally:
            signal.signal(signal.SIGTSTP, earlier)
