"""How tests wait: for a condition or for what a child says, never for a time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import IO, Any

DEADLINE_S = 60.0  # Only a hang reaches it.
SELDOM_S = 0.025


def wait_until(condition: Callable[[], Any], what: str, *, every_s: float = 0.005) -> Any:
    """Wait for a condition and give what it gave; fail after a deadline that only a hang reaches.

    It is looked at less and less often, because many a look takes from the processor what is waited for.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(every_s)
        every_s = max(every_s, min(every_s * 1.1, SELDOM_S))
    return found


def next_line(pipe: IO[Any] | None) -> str:
    """Wait for the next line of a child, with its end; empty where there is none any more.

    ``readline`` takes more than the line into a buffer of ``pipe``, which ``communicate`` knows nothing of: what the child
    said in one breath is lost. This leaves all that follows in the pipe.
    """
    assert pipe is not None
    deadline, line = time.monotonic() + DEADLINE_S, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"waited in vain for the end of the line {line!r}"
        if not (byte := os.read(pipe.fileno(), 1)):
            break
        line += byte
    return line.decode("utf-8", "replace")


def line_with(words: str, pipe: IO[Any] | None) -> str:
    """Wait for the first line of a child that holds these words; nothing behind it is taken."""
    while words not in (line := next_line(pipe)):
        assert line, f"it ended without a word of {words!r}"
    return line
