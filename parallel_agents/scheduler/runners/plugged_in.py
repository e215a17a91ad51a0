"""Runners that other packages bring along: entry points of the group ``parallel_agents.runners``.

Such an entry point has the runner's name and is a callable that is given ``on_end`` (see ``protocol.Runner``) and makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from parallel_agents.scheduler.runners.protocol import Runner

GROUP: Final = "parallel_agents.runners"


@cache
def names() -> tuple[str, ...]:
    """What is installed. Asked for only where a name is none of ours: to look takes as long as to start a task."""
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def is_plugged_in(name: str) -> bool:
    """Whether a package brings a runner of that name along."""
    return name in names()


def make(name: str, on_end: Callable[[], None]) -> Runner:
    """The runner of that name.

    Raises:
        KeyError: no package brings one along.
        Whatever its package raises.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        runner: Runner = point.load()(on_end)
        return runner
    raise KeyError(name)
