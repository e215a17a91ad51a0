"""A shell on a real terminal, with job control: a person who types commands and presses Ctrl-C, Ctrl-Z and Ctrl-\\."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from waiting import DEADLINE_S, wait_until

_READY = "ready> "
_CONTROL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|\r")


class Keyboard:
    """One shell and its terminal.

    Attributes:
        shown: all that was printed there so far.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.shown = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            try:
                for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                os.chdir(folder)
                os.execve("/bin/sh", ["sh", "-i"], {**environment, "PS1": _READY, "TERM": "xterm-256color", "ENV": ""})
            finally:
                os._exit(127)
        os.set_blocking(self._terminal, False)
        self.until(_READY)

    @property
    def open(self) -> bool:
        """Whether the terminal is still there."""
        return self._terminal >= 0

    def type(self, text: str) -> None:
        """Type, as it is; a line needs its end."""
        os.write(self._terminal, text.encode())

    def until(self, what: str, *, after: int = 0) -> int:
        """Wait for a text on the screen; gives where it ends, for what is to come after it."""

        def seen() -> bool:
            self.read()
            return what in self.shown[after:]

        wait_until(seen, f"{what!r} on the terminal that shows {self.shown[-400:]!r}")
        return self.shown.index(what, after) + len(what)

    def command(self, line: str) -> str:
        """Have a command run to its end; what it has printed."""
        begin = len(self.shown)
        self.type(line + "\n")
        end = self.until(_READY, after=begin)
        return self.shown[begin : end - len(_READY)]

    def exit_code(self, *, after: int) -> int:
        """Wait for the prompt, and ask for the code of the command before it."""
        begin = self.until(_READY, after=after)
        self.type("echo code=$?.\n")
        self.until("code=$?.", after=begin)
        end = self.until(".", after=self.until("\ncode=", after=begin))
        return int(self.shown[:end].rpartition("code=")[2].rstrip("."))

    def read(self) -> None:
        """Take up what was printed."""
        with contextlib.suppress(OSError):  # Nothing there, or nobody has the other end any more.
            while part := os.read(self._terminal, 1 << 16):
                self.shown += _CONTROL.sub("", part.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the terminal, as a window is closed, and wait for the shell's end."""
        if self._terminal < 0:
            return
        os.close(self._terminal)
        self._terminal = -1
        deadline = time.monotonic() + DEADLINE_S
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.005)
