"""A terminal: a pty, and a screen that does what ours is told. Anything that it does not know is kept, to be looked at."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from scratch import COMMAND, DEADLINE_S, Scratch

_CODES = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b(.)|(.)", re.DOTALL)


class Screen:
    """What is seen after a text was written to a terminal of so many columns and rows.

    Attributes:
        odd: codes that move or change more than ours may.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.odd: list[str] = []
        self._gone: list[str] = []  # What was scrolled away.
        self._lines = [[" "] * columns for _ in range(rows)]
        self._column = self._row = 0

    def write(self, text: str) -> Screen:
        """Take a text; gives itself."""
        for code in _CODES.finditer(text):
            argument, final, escaped, char = code.groups()
            if final:
                self._control(code.group(), argument, final)
            elif escaped:
                self.odd.append(code.group())
            elif char == "\n":
                self._down()
            elif char == "\r":
                self._column = 0
            elif not char.isprintable():
                self.odd.append(char)
            else:
                self._put(char)
        return self

    def _control(self, code: str, argument: str, final: str) -> None:
        count = int(argument) if argument.isdecimal() else 1
        match final:
            case "A":
                self._row = max(0, self._row - count)
            case "K":
                first = 0 if argument == "2" else self._column
                self._lines[self._row][first:] = [" "] * (self.columns - first)
            case "m":
                pass
            case "h" | "l" if argument == "?25":  # The cursor is shown or hidden.
                pass
            case _:
                self.odd.append(code)

    def _down(self) -> None:
        if self._row < self.rows - 1:
            self._row += 1
            return
        self._gone.append("".join(self._lines.pop(0)).rstrip())
        self._lines.append([" "] * self.columns)

    def _put(self, char: str) -> None:
        width = (
            0 if unicodedata.combining(char) or char == "\ufe0f" else 1 + (unicodedata.east_asian_width(char) in "WF")
        )
        if width == 0:
            return
        if self._column + width > self.columns:
            self._column = 0
            self._down()
        self._lines[self._row][self._column : self._column + width] = [char, ""][:width]
        self._column += width

    @property
    def lines(self) -> list[str]:
        """All lines, those that were scrolled away too, without empty ones at the end."""
        return "\n".join([*self._gone, *("".join(line).rstrip() for line in self._lines)]).rstrip().split("\n")


class Shown(NamedTuple):
    """What a command on a terminal left."""

    code: int
    screen: Screen
    raw: str

    @classmethod
    def of(cls, code: int, columns: int, rows: int, written: bytes) -> Shown:
        """What such a terminal shows of what was written to it."""
        text = written.decode("utf-8", "replace")
        assert "Traceback" not in text, text
        return cls(code, Screen(columns, rows).write(text), text)


def quickly_on_terminal(
    scratch: Scratch,
    *words: str,
    size: tuple[int, int] = (80, 24),
    env: Mapping[str, str] | None = None,
    typing: Callable[[str], bytes] = lambda text: b"",
) -> Shown:
    """The same as ``on_terminal`` for most commands, in a fork of a process that has imported everything."""
    columns, rows = size
    terminal, other_end = os.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    files = dict.fromkeys(("terminal", "out", "err"), os.ttyname(other_end))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(scratch.ask, words, files, env={"TERM": "xterm-256color", **(env or {})})
        shown = b""
        while select.select([terminal], [], [], 0.01)[0] or not asked.done():
            if select.select([terminal], [], [], 0)[0]:
                shown += os.read(terminal, 1 << 16)
                if typed := typing(shown.decode("utf-8", "replace")):
                    os.write(terminal, typed)
    os.close(other_end)
    os.close(terminal)
    return Shown.of(asked.result(), columns, rows, shown)


def on_terminal(
    scratch: Scratch,
    *words: str,
    size: tuple[int, int] = (80, 24),
    env: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    typing: Callable[[str], bytes] = lambda text: b"",
) -> Shown:
    """Run a command on a terminal of so many columns and rows, to its end.

    Args:
        stdout: a file that takes its place, while the terminal is still there for the rest.
        typing: what is typed in answer to all that was shown so far.
    """
    columns, rows = size
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(scratch.root)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o600), 1)
            os.execve(COMMAND, [COMMAND, *words], {**scratch.environment, "TERM": "xterm-256color", **(env or {})})
        finally:
            os._exit(127)
    shown = b""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                part = os.read(terminal, 1 << 16)
            except OSError:
                break  # Nobody has the other end any more.
            if not part:
                break
            shown += part
        if typed := typing(shown.decode("utf-8", "replace")):
            os.write(terminal, typed)
    else:
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return Shown.of(code, columns, rows, shown)
