"""A queue in memory that hands out tasks by priority, once what they depend on is completed.

It stands alone: nothing here is written to the log, and ``ParallelExecutor`` does not go through it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any, TypedDict

from parallel_agents.eventstore.errors import InvalidUsage, nearest


class Priority(IntEnum):
    """How soon a task is wanted: the smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3


_NAMES = {priority.name.lower(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task as it was enqueued."""

    task_id: str
    agent_type: str
    priority: Priority
    dependencies: list[str] = field(default_factory=list)  # Ids of tasks, as they were given.
    queued_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    metadata: dict[str, Any] = field(default_factory=dict)


class QueueStatistics(TypedDict):
    """What ``TaskQueue.get_statistics`` answers. All numbers are counts of tasks."""

    total_queued: int  # Waiting in the queue now, ready or not.
    by_priority: dict[str, int]  # The same, by lower-case name of the priority; all four are always there.
    completed: int  # Different ids that were marked as completed.


@dataclass(slots=True)
class _Held:
    """A task whose dependencies are open."""

    task: QueuedTask
    number: int  # Position in the order of arrival.
    open_dependencies: int


class TaskQueue:
    """Priority first, then order of arrival, among the tasks whose dependencies are completed. Thread-safe.

    A dependency is completed once ``mark_completed`` was called with its id, whether or not it ever was in the queue;
    until then whatever depends on it stays. Tasks that depend on each other in a circle therefore stay until somebody
    marks one of them as completed: the queue cannot know that nobody will.
    """

    def __init__(self, max_size: int = 100) -> None:
        """An empty queue.

        Args:
            max_size: how many tasks may wait in it at once, >= 1.
        Raises:
            InvalidUsage: max_size is below 1.
        """
        if max_size < 1:
            raise InvalidUsage(f"max_size is {max_size}", hint="a queue holds at least 1 task")
        self.max_size = max_size
        self._changed = threading.Condition()
        self._arrivals = 0
        self._ready: list[
            tuple[Priority, int, QueuedTask]
        ] = []  # A heap; the number decides before the task is looked at.
        self._held_by: dict[str, list[_Held]] = {}  # By the id of an open dependency.
        self._queued: set[str] = set()
        self._by_priority = dict.fromkeys(Priority, 0)
        self._completed: set[str] = set()

    def enqueue(
        self,
        task_id: str,
        agent_type: str,
        priority: str | Priority = "medium",
        dependencies: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Put a task into the queue.

        An id may come again once its task was dequeued, which is how a failed task is tried again.

        Args:
            task_id: its id; other tasks name it as a dependency.
            agent_type: the kind of agent that it is for.
            priority: "critical", "high", "medium", "low" or a ``Priority``.
            dependencies: ids of the tasks that must be completed before.
            metadata: anything that is to come back with the task.
        Returns:
            False where the queue is full and the task was not taken.
        Raises:
            InvalidUsage: an unknown priority, a task that depends on itself, dependencies that are one string, or an id
                that waits in the queue already.
        """
        rank = _priority(task_id, priority)
        needed = _dependencies(task_id, dependencies)
        with self._changed:
            if task_id in self._queued:
                raise InvalidUsage(
                    f"task {task_id!r} is in the queue already",
                    hint="give it another id, or dequeue the first one before",
                )
            if len(self._queued) >= self.max_size:
                return False
            self._arrivals += 1
            self._queued.add(task_id)
            self._by_priority[rank] += 1
            task = QueuedTask(task_id, agent_type, rank, needed, metadata=dict(metadata or {}))
            missing = {dependency for dependency in needed if dependency not in self._completed}
            if missing:
                held = _Held(task, self._arrivals, len(missing))
                for dependency in missing:
                    self._held_by.setdefault(dependency, []).append(held)
            else:
                heappush(self._ready, (rank, self._arrivals, task))
                self._changed.notify()
        return True

    def dequeue(self, timeout: float | None = None) -> QueuedTask | None:
        """Take the task that is next: of the highest priority, and of those the one that arrived first.

        Args:
            timeout: seconds to wait for a task to become ready; None, 0 or less: do not wait.
        Returns:
            The task, which is no longer in the queue; None where none is ready, or became ready in time.
        """
        with self._changed:
            if not self._ready and timeout is not None and timeout > 0:
                self._changed.wait_for(lambda: bool(self._ready), min(timeout, threading.TIMEOUT_MAX))
            if not self._ready:
                return None
            priority, _, task = heappop(self._ready)
            self._queued.remove(task.task_id)
            self._by_priority[priority] -= 1
            return task

    def mark_completed(self, task_id: str) -> None:
        """Record that a task is completed, so that what depends on it may go on. Doing it twice changes nothing.

        This is about the tasks that depend on it: a task of this id that still waits in the queue stays there.
        """
        with self._changed:
            self._completed.add(task_id)
            for held in self._held_by.pop(task_id, ()):
                held.open_dependencies -= 1
                if not held.open_dependencies:
                    heappush(self._ready, (held.task.priority, held.number, held.task))
                    self._changed.notify()

    def size(self) -> int:
        """How many tasks wait in the queue, ready or not."""
        with self._changed:
            return len(self._queued)

    def get_statistics(self) -> QueueStatistics:
        """Counts of what waits and of what is completed, taken at one moment."""
        with self._changed:
            return {
                "total_queued": len(self._queued),
                "by_priority": {name: self._by_priority[priority] for name, priority in _NAMES.items()},
                "completed": len(self._completed),
            }


def _priority(task_id: str, given: str | Priority) -> Priority:
    """The priority of a name, or of itself."""
    if isinstance(given, Priority):
        return given
    found = _NAMES.get(given) if isinstance(given, str) else None
    if found is None:
        hint = nearest(str(given).lower(), _NAMES)
        raise InvalidUsage(f"task {task_id!r} has an unknown priority {given!r}", hint=hint)
    return found


def _dependencies(task_id: str, given: Iterable[str] | None) -> list[str]:
    """A list of our own. One string is refused: taken letter by letter, its task would wait for ever."""
    if isinstance(given, str):
        raise InvalidUsage(f"dependencies of task {task_id!r} are the string {given!r}", hint=f"write [{given!r}]")
    needed = list(given or ())
    if task_id in needed:
        raise InvalidUsage(f"task {task_id!r} depends on itself", hint="it could never be dequeued")
    return needed
