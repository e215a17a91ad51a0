"""parallel-agents: runs several AI coding agents at once on one project and never loses anything they did."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_agents.eventstore.errors import ChainBroken as ChainBroken
    from parallel_agents.eventstore.errors import InvalidUsage as InvalidUsage
    from parallel_agents.eventstore.errors import LeaseHeld as LeaseHeld
    from parallel_agents.eventstore.errors import NotAllowed as NotAllowed
    from parallel_agents.eventstore.errors import ParallelAgentsError as ParallelAgentsError
    from parallel_agents.eventstore.errors import UnknownRun as UnknownRun

_WHERE = dict.fromkeys(
    ("ChainBroken", "InvalidUsage", "LeaseHeld", "NotAllowed", "ParallelAgentsError", "UnknownRun"), "eventstore.errors"
)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"parallel_agents.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'parallel_agents' has no attribute {name!r}")
