"""Checkpoints of a project's files, under the name that programs know: ``from checkpoint import CheckpointEngine``.

All of it lies in ``parallel_agents``; only these names are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_agents.checkpoint_engine import CheckpointEngine
    from parallel_agents.checkpoint_metadata import (
        CheckpointCategory,
        CheckpointLevel,
        CheckpointMetadata,
        RollbackResult,
    )
    from parallel_agents.coordinator import MultiAgentCoordinator

__all__ = [
    "CheckpointCategory",
    "CheckpointEngine",
    "CheckpointLevel",
    "CheckpointMetadata",
    "MultiAgentCoordinator",
    "RollbackResult",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from parallel_agents import checkpoint

    value = getattr(checkpoint, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
