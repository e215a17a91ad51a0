"""A task as Python programs write it, and as a run fills it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_agents.scheduler.runners.callables import TaskContext


class AgentStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"  # Something that it depends on has not been completed.
    QUEUED = "queued"  # Ready; waits for a slot, or rests before its next attempt.
    RUNNING = "running"
    BLOCKED = "blocked"  # Waits for a person.
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # Something that it depends on has failed.


class ExecutionStrategy(StrEnum):
    """How the tasks of a run follow each other. Dependencies hold in each of them."""

    CONCURRENT = "concurrent"  # Whatever is ready, best rank first, up to the limits.
    PIPELINE = "pipeline"  # Stage by stage.
    HYBRID = "hybrid"  # Phases by the rules of the configuration, each with a strategy of its own.


class _Unsaid(str):
    """A priority that nobody set: the configuration's default takes its place."""

    __slots__ = ()


@dataclass
class AgentTask:
    """One task of a run: what is to be done, and, from ``status`` to ``api_calls``, what became of it.

    It is given a ``command``, which runs as a process, or a ``call``, which runs in a thread of this process. What a run
    fills in is filled in before any task that depends on this one starts. A field that is None counts as not given.
    """

    agent_type: str
    task_id: str
    description: str
    priority: str = _Unsaid("medium")  # critical, high, medium or low.
    dependencies: Sequence[str] = field(default_factory=list)  # Ids of tasks that must be completed before.
    context: Mapping[str, Any] = field(default_factory=dict)  # Kept with the plan, so it holds what JSON holds.
    tags: Sequence[str] = field(default_factory=list)

    status: AgentStatus = AgentStatus.PENDING
    started_at: datetime | None = None  # UTC, as are all times; of the last attempt.
    completed_at: datetime | None = None  # Its end, however it ended.
    duration_seconds: float | None = None  # Of the last attempt, from the start of its process or call to its end.
    checkpoint_id: str | None = None
    output: Any = None  # What the call returned, or the last line that the command printed.
    error: str | None = None  # Why it did not complete.
    cpu_usage: float = 0.0  # Of the last attempt, in percent of one core over its duration.
    memory_usage_mb: float = (
        0.0  # Peak in units of 1,048,576 bytes: of its processes; of this whole process for a call.
    )
    api_calls: int = 0

    command: Sequence[str] | None = field(default=None, kw_only=True)
    call: Callable[[TaskContext], Any] | Callable[[], Any] | None = field(default=None, kw_only=True)
    runner: str | None = field(default=None, kw_only=True)  # shell or python; None: what fits.
    model: str | None = field(default=None, kw_only=True)
    files: Sequence[str] | None = field(default=None, kw_only=True)  # Globs of what it means to change.
    timeout_s: float | None = field(default=None, kw_only=True)
    max_retries: int | None = field(default=None, kw_only=True)
    budget_usd: float | None = field(default=None, kw_only=True)
    allow_failure: bool = field(default=False, kw_only=True)  # True: what depends on it runs although it failed.
    outputs: Sequence[str] = field(default_factory=list, kw_only=True)  # Files that must exist afterwards.
    env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    env_from: Sequence[str] = field(default_factory=list, kw_only=True)  # Names, taken from this process's environment.
    approval: str | None = field(default=None, kw_only=True)  # required: before its start; result: before its merge.
    setup: Sequence[str] | None = field(default=None, kw_only=True)  # A command before its own, in its checkout.
    teardown: Sequence[str] | None = field(default=None, kw_only=True)  # And one after it, however it ended.
    setup_timeout_s: float | None = field(default=None, kw_only=True)  # Of each of the two.
    expected_s: float | None = field(default=None, kw_only=True)  # How long it is expected to take.


_FILLED = (
    "status", "started_at", "completed_at", "duration_seconds", "checkpoint_id", "output", "error", "cpu_usage",
    "memory_usage_mb", "api_calls",
)  # fmt: skip
_BLANK = {one.name: one.default for one in fields(AgentTask) if one.name in _FILLED}
_SAID = tuple(one.name for one in fields(AgentTask) if one.name not in (*_FILLED, "call"))


def said(task: AgentTask, runner: str | None = None) -> dict[str, Any]:
    """The fields of a task in a plan (see ``planfile.draft_from_tasks``).

    Args:
        runner: of a task that names none, and has neither command nor call, by which its runner would be known.
    """
    values = {name: getattr(task, name) for name in _SAID}
    if isinstance(task.priority, _Unsaid):
        values["priority"] = None
    if task.call is not None:
        values["call"] = True
    elif task.runner is None and task.command is None:
        values["runner"] = runner
    return values


def clear(task: AgentTask) -> None:
    """Forget what a run has filled in."""
    for name, value in _BLANK.items():
        setattr(task, name, value)
