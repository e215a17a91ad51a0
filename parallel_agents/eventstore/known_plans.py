"""Plans that this process has read lately, with what every look at a moment of their runs asks of them.

A plan never changes, and its name is its digest; so states of one run share it. What is given here must not be changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from parallel_agents.eventstore.submission import Plan, StoredTasks, load_plan, uncollected

_BYTES: Final = 4_000_000  # Of their stored form, together; the last one is kept whatever its size.


@dataclass(frozen=True, slots=True)
class KnownPlan:
    """A plan, and where each of its tasks stands."""

    plan: Plan
    positions: dict[str, int]
    dependents: dict[str, list[str]]
    stages: list[int]  # Of each task.
    size: int

    @property
    def ids(self) -> list[str]:
        """The tasks in the order of the plan."""
        return list(self.positions)


_known: OrderedDict[str, KnownPlan] = OrderedDict()
_lock = threading.Lock()


def known_plan(digest: str, blob: Callable[[str], bytes]) -> KnownPlan:
    """The plan of a digest."""
    with _lock:
        found = _known.get(digest)
        if found is not None:
            _known.move_to_end(digest)
            return found
    made = _made(blob(digest))
    with _lock:
        _known[digest] = made
        while len(_known) > 1 and sum(one.size for one in _known.values()) > _BYTES:
            _known.popitem(last=False)
    return made


def _made(stored: bytes) -> KnownPlan:
    plan = load_plan(stored)
    tasks = plan.tasks
    assert isinstance(tasks, StoredTasks)
    dependents: dict[str, list[str]] = {}
    with uncollected():
        positions = {task_id: index for index, task_id in enumerate(tasks.fields("task_id"))}
        for task_id, needed in zip(positions, tasks.fields("dependencies"), strict=True):
            for name in needed or ():
                dependents.setdefault(name, []).append(task_id)
    return KnownPlan(plan, positions, dependents, [stage or 0 for stage in tasks.fields("stage")], len(stored))
