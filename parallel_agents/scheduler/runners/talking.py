"""What a supervisor says to commands on their standard input: what they are to do, and later that they may stop.

Stdlib only and few modules, because the supervisor starts with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from parallel_agents.scheduler.runners.launcher import Attempt


class Talking:
    """The commands that are talked to, by our end of their standard input.

    Attributes:
        alone: there is no dispatcher any more that could see that a command is done, so each is to end when it is.
    """

    def __init__(self, poller: select.poll) -> None:
        self.alone = False
        self._poller = poller
        self._attempts: dict[int, Attempt] = {}

    def begin(self, attempt: Attempt) -> None:
        """Say what there is to say as soon as it is listened to."""
        if attempt.stdin_fd >= 0:
            self._attempts[attempt.stdin_fd] = attempt
            self._poller.register(attempt.stdin_fd, select.POLLOUT)

    def go_on(self) -> None:
        """Tell those that are still to be told something, as far as they take it."""
        for attempt in list(self._attempts.values()):
            if not attempt.unsent:
                continue
            try:
                attempt.unsent = attempt.unsent[os.write(attempt.stdin_fd, attempt.unsent) :]
            except BlockingIOError:
                continue
            except OSError:  # It has closed its end, or is gone.
                self.hang_up(attempt)
                continue
            if not attempt.unsent:
                self._poller.modify(attempt.stdin_fd, 0)
                if self.alone or attempt.kill_at is not None:
                    self.hang_up(attempt)

    def leave_alone(self) -> None:
        """The dispatcher has gone."""
        self.alone = True
        for attempt in list(self._attempts.values()):
            if not attempt.unsent:
                self.hang_up(attempt)

    def polled(self, fd: int, flags: int) -> None:
        """A command does not listen any more; poll would return for ever."""
        if flags & (select.POLLERR | select.POLLHUP) and fd in self._attempts:
            self.hang_up(self._attempts[fd])

    def interrupt(self, attempt: Attempt) -> None:
        """Ask a command to stop, in its own words where it still listens, by SIGINT otherwise."""
        if attempt.stdin_fd < 0:
            with contextlib.suppress(OSError):
                os.killpg(attempt.pid, signal.SIGINT)
            return
        attempt.unsent += attempt.interrupt  # Never into the middle of what it is being told.
        self._poller.modify(attempt.stdin_fd, select.POLLOUT)
        self.go_on()

    def hang_up(self, attempt: Attempt) -> None:
        """Close our end: there will be nothing more for it to do."""
        attempt.unsent = b""
        if attempt.stdin_fd >= 0:
            self._poller.unregister(attempt.stdin_fd)
            del self._attempts[attempt.stdin_fd]
            os.close(attempt.stdin_fd)
            attempt.stdin_fd = -1
