"""In place of the threads that do what there is to be done about files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class SteppedLane:
    """In place of a lane with a thread: what is handed to it waits until it is told to go on."""

    def __init__(self, name: str, take: Callable[[Any], None]) -> None:
        self.name = name
        self.take = take
        self.queue: deque[Callable[[], Any]] = deque()

    def put(self, work: Callable[[], Any]) -> None:
        """Wait."""
        self.queue.append(work)

    def step(self, *, told: bool = True) -> None:
        """Do what is next; untold, nobody ever hears of its end."""
        result = self.queue.popleft()()
        if result is not None and told:
            self.take(result)

    def end(self) -> None:
        """There is no thread."""

    def join(self, timeout_s: float) -> None:
        """There is no thread."""
