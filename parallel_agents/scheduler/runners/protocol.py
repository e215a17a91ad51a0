"""What every runner is: one way to execute an attempt, with start, stop and poll.

A runner never touches the log. It is told what to run and says how each attempt ended; the loop turns that into events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Outcome = Literal["exited", "timed_out", "stopped", "not_started", "lost"]


@dataclass(slots=True)  # To make a frozen one takes three times as long.
class Launch:
    """All that a runner needs to start one attempt."""

    run_id: str
    task_id: str
    attempt_id: str
    folder: str | Path  # runs/<run>/<task>/<attempt>/; the runner makes it.
    workdir: Path
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # The whole environment of the process, marker excluded.
    timeout_s: float = 600.0  # From the start of the process.
    call: Callable[..., Any] | None = None  # A Python callable instead of a command.
    task: Any = None  # What a callable sees as ``context.task``.


@dataclass(slots=True)
class Ended:
    """How an attempt ended. Times are microseconds since the epoch (UTC)."""

    attempt_id: str
    outcome: Outcome
    exit_code: int | None = None  # Negative: the signal that ended the process.
    error: str | None = None  # One line for a person; None where the attempt succeeded.
    retryable: bool = True  # False where the same attempt would fail the same way (no such command).
    output: Any = None  # What a callable returned, or the last line of stdout.
    started_at_us: int = 0
    ended_at_us: int = 0
    cpu_s: float = 0.0  # Of the whole process tree.
    peak_memory_bytes: int = 0
    began: bool = True  # False where a lost attempt is known never to have run at all, and never to run any more.


class Runner(Protocol):
    """One way to execute attempts. ``start`` and ``stop`` return at once; ends are drained by ``poll``.

    A runner is made with ``on_end``, which it calls (from any thread) after an end can be polled.
    """

    name: str

    def start(self, launch: Launch) -> None:
        """Begin an attempt. Whatever goes wrong is an ``Ended`` with outcome ``not_started``, never an exception."""

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Take over attempts that the log says are running, from a dispatcher that is dead."""

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """End an attempt and all its descendants. Idempotent; its ``Ended`` says ``stopped`` or ``timed_out``."""

    def poll(self) -> list[Ended]:
        """The ends since the last call, each exactly once. Never blocks."""

    def close(self) -> None:
        """Let go. Attempts that live on their own go on; nothing else of ours does."""
