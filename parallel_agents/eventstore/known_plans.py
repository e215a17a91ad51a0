"""Plans that this process has read lately, with what every look at a moment of their runs asks of them.

A plan never changes, and its name is its digest; so states of one run share it. What is given here must not be changed.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final

from parallel_agents.eventstore.submission import Plan, StoredTasks, load_plan, uncollected

_BYTES: Final = 4_000_000  # Of their stored form, together; the last one is kept whatever its size.
_LARGE: Final = 2_000  # Tasks, above which a plan is packed.


class KnownPlan:
    """A plan, and what is asked of its tasks as a whole: worked out when somebody asks first."""

    def __init__(self, plan: Plan, size: int) -> None:
        self.plan = plan
        self.size = size  # Bytes of its stored form.

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where each task stands, in the order of the plan."""
        with uncollected():
            return {task_id: index for index, task_id in enumerate(self._fields("task_id"))}

    @cached_property
    def dependents(self) -> dict[str, list[str]]:
        """Who depends on a task, where anybody does."""
        found: dict[str, list[str]] = {}
        with uncollected():
            for task_id, needed in zip(self.positions, self._fields("dependencies"), strict=True):
                for name in needed or ():
                    found.setdefault(name, []).append(task_id)
        return found

    @cached_property
    def stage_sizes(self) -> list[int]:
        """How many tasks each stage has."""
        found = Counter(stage or 0 for stage in self._fields("stage"))
        return [found[stage] for stage in range(len(self.plan.stages))]

    def pack(self) -> None:
        """Hold the tasks packed (see ``StoredTasks``). What would go through all of them is asked before."""
        assert len(self.positions) == sum(self.stage_sizes) >= len(self.dependents)
        self._tasks.pack()

    def _fields(self, name: str) -> Iterator[Any]:
        return self._tasks.fields(name)

    @property
    def _tasks(self) -> StoredTasks:
        assert isinstance(self.plan.tasks, StoredTasks)
        return self.plan.tasks


class _Plans(OrderedDict[str, KnownPlan]):
    """By digest, the one that was asked for last at the end."""

    held = 0  # Bytes, of all of them.

    def keep(self, digest: str, plan: KnownPlan) -> None:
        """Add one; the oldest go where they are too many."""
        self.held += plan.size if digest not in self else 0
        self[digest] = plan
        while len(self) > 1 and self.held > _BYTES:
            self.held -= self.popitem(last=False)[1].size


_known = _Plans()
_lock = threading.Lock()


def known_plan(digest: str, blob: Callable[[str], bytes]) -> KnownPlan:
    """The plan of a digest."""
    with _lock:
        found = _known.get(digest)
        if found is not None:
            _known.move_to_end(digest)
            return found
    stored = blob(digest)
    made = KnownPlan(load_plan(stored), len(stored))
    if len(made.plan.tasks) > _LARGE:
        made.pack()
    with _lock:
        _known.keep(digest, made)
    return made
