"""What every runner is: one way to execute an attempt, with start, stop and poll.

A runner never touches the log. It is told what to run and says how each attempt ended; the loop turns that into events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from parallel_agents.scheduler.runners.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from parallel_agents.scheduler.agents.clients import Client

Outcome = Literal["exited", "timed_out", "stopped", "not_started", "lost"]

NO_AGENTS = ("shell", "python")
"""The runners of tasks that are no agent's."""

FAILURES = {
    "agent": "the agent itself did not succeed; the same again would hardly do better",
    "no_change": "it ended well and changed nothing, where changes were asked for",
    "budget": "stopped because a budget is spent; it can go on where it was",
    "infrastructure": "network, server, a killed process: nothing that the agent did",
    "overload": "the provider has no capacity at the moment (529 and its like)",
    "rate_limit": "too many requests (a transient 429)",
    "usage_limit": "the plan's allowance is used up until a stated time",
    "authentication": "no key, or a wrong one",
    "spend_cap": "the account has no money left, or a cap of the provider's is reached",
    "memory": "it used more memory than one attempt may",
    "output": "it printed more than is kept, on a disk where the rest cannot be given back",
    "configuration": "no such model, a wrong argument: it would fail the same way again",
}
"""Why an attempt of an agent failed. Of others only ``memory`` and ``output`` are told."""

Fault = Literal["", "runner", "installation"]
"""What of a runner is to blame: it broke in some way, or it is not there (any more), or not able to begin."""

ChargeSource = Literal["agent", "estimated", "unknown"]


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt has cost on one model. Tokens by kind; ``input_tokens`` are those from and to no cache."""

    model: str | None
    usd_micros: int | None  # None where nobody knows.
    source: ChargeSource
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    calls: int = 0
    partial: bool = False
    prices: str = ""  # Version of the price table, where it was used.


@dataclass(slots=True)
class Errand:
    """What an agent is asked to do, for a runner that drives agents."""

    client: Client  # The row that says how it is driven.
    prompt: str  # Empty of an attempt that is taken over.
    resume_prompt: str = ""  # In place of it, where a session is gone on with.
    model: str | None = None  # As its client is told; None: the client's own choice.
    role_prompt: str = ""  # Who it is; the prompt says what is to be done.
    tools: tuple[str, ...] | None = None  # That it may use without asking; None: those of the configuration.
    session_id: str = ""  # A UUID; the client is told to use it, where it lets itself be told.
    resumes_folder: str | None = None  # Of the attempt whose session is to be gone on with.
    limit_usd_micros: int | None = None  # That the client shall stop at, where it can.
    permission_mode: str = ""
    silence_s: float = 0.0  # After so long without a sign it is stopped; 0: never.
    grace_s: float = 30.0  # Between its last sign after a result and the end of its process.
    setup: tuple[str, ...] | None = None  # Commands before and after it, with so much time each.
    teardown: tuple[str, ...] | None = None
    setup_timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Talk:
    """A standard input that stays open: what is said on it first, and what asks the command there to stop."""

    first: str  # A file.
    interrupt: str


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
    errand: Errand | None = None  # Instead of a command, for the runner of an agent.
    stdin: str | None = None  # A file that the command reads; None: it has nothing to read.
    talk: Talk | None = None  # In place of that.
    sandbox: tuple[str, ...] = ()  # What goes before the command (see ``scheduler.sandbox``).
    store: str = ""  # The folder of the store, where there is a sandbox to keep it from.
    limits: Limits = NO_LIMITS  # Of what is no callable.
    max_output_bytes: int | None = None  # Kept of each of its two outputs; None: all.


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
    peak_cpu_percent: float = 0.0  # Of all processors together; 0 where it was too short for a sample, as the next one.
    peak_open_files: int = 0
    disk_written_bytes: int = 0
    began: bool = True  # False where a lost attempt is known never to have run at all, and never to run any more.
    kind: str = ""  # One of FAILURES, where an agent failed.
    charges: tuple[Charge, ...] = ()
    denied: tuple[str, ...] = ()  # Tools that an agent was not allowed to use.
    at_once: int = 0  # How many requests it was seen to make at the same time; 0: that cannot be told.
    resumable: bool = False  # Another attempt could go on with its session.
    provider: str = ""  # Who refused, where that is why it failed ...
    until_us: int | None = None  # ... and until when, where that was said.
    got_through: bool = False  # The provider has answered at least once.
    fault: Fault = ""  # Of its runner, where it is to blame that the attempt failed.
    free: bool = False  # It is made again and counts as no failure, since its runner is left alone meanwhile.


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
