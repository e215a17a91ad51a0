"""parallel-agents: runs several AI coding agents at once on one project and never loses anything they did.

The names below are imported when they are first used, so that a command which needs none of them starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parallel_agents.version import RELEASE as __version__

if TYPE_CHECKING:
    from parallel_agents.agent_task import AgentStatus, AgentTask, ExecutionStrategy
    from parallel_agents.dependency_manager import AgentDependency, DependencyManager
    from parallel_agents.eventstore.errors import (
        Ambiguous,
        ChainBroken,
        InvalidConfiguration,
        InvalidPlan,
        InvalidUsage,
        LeaseHeld,
        NotAllowed,
        ParallelAgentsError,
        ReplayDiffers,
        StoreError,
        UnknownCheckpoint,
        UnknownRun,
        UnknownTask,
    )
    from parallel_agents.executor import ParallelExecutionResult, ParallelExecutor
    from parallel_agents.scheduler.runners.callables import TaskContext
    from parallel_agents.task_queue import Priority, QueuedTask, TaskQueue

__all__ = [
    "AgentDependency",
    "AgentStatus",
    "AgentTask",
    "Ambiguous",
    "ChainBroken",
    "DependencyManager",
    "ExecutionStrategy",
    "InvalidConfiguration",
    "InvalidPlan",
    "InvalidUsage",
    "LeaseHeld",
    "NotAllowed",
    "ParallelAgentsError",
    "ParallelExecutionResult",
    "ParallelExecutor",
    "Priority",
    "QueuedTask",
    "ReplayDiffers",
    "StoreError",
    "TaskContext",
    "TaskQueue",
    "UnknownCheckpoint",
    "UnknownRun",
    "UnknownTask",
    "__version__",
]

_ERRORS = "eventstore.errors"
_HOMES = {
    "AgentDependency": "dependency_manager",
    "AgentStatus": "agent_task",
    "AgentTask": "agent_task",
    "Ambiguous": _ERRORS,
    "ChainBroken": _ERRORS,
    "DependencyManager": "dependency_manager",
    "ExecutionStrategy": "agent_task",
    "InvalidConfiguration": _ERRORS,
    "InvalidPlan": _ERRORS,
    "InvalidUsage": _ERRORS,
    "LeaseHeld": _ERRORS,
    "NotAllowed": _ERRORS,
    "ParallelAgentsError": _ERRORS,
    "ParallelExecutionResult": "executor",
    "ParallelExecutor": "executor",
    "Priority": "task_queue",
    "QueuedTask": "task_queue",
    "ReplayDiffers": _ERRORS,
    "StoreError": _ERRORS,
    "TaskContext": "scheduler.runners.callables",
    "TaskQueue": "task_queue",
    "UnknownCheckpoint": _ERRORS,
    "UnknownRun": _ERRORS,
    "UnknownTask": _ERRORS,
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # The next use need not come here.
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
