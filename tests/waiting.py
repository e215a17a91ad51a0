"""How tests wait: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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
