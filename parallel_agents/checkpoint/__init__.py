"""Files: snapshots, worktrees, merging and the refs that hold them, through plain git commands.

The names below are what Python programs make checkpoints with. They need the project, its store and its configuration, so
they lie above this room, which imports none of that; they are looked up by name when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

HOMES = {
    "CheckpointCategory": "checkpoint_metadata",
    "CheckpointEngine": "checkpoint_engine",
    "CheckpointLevel": "checkpoint_metadata",
    "CheckpointMetadata": "checkpoint_metadata",
    "MultiAgentCoordinator": "coordinator",
    "RollbackResult": "checkpoint_metadata",
}


def __getattr__(name: str) -> Any:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"parallel_agents.{home}"), name)
    globals()[name] = value  # The next use need not come here.
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
