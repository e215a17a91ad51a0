"""Snapshots of single tasks: one that was opened again and again is folded from the nearest of its own, not from its start.

A row for each so many events that name the task, which holds what the fold makes of them. Most tasks of most runs have fewer
events than that in all, and no row. Caches as all snapshots are: a dispatcher leaves them as a run goes on, and whoever had to
fold very many events of one task leaves those that were not there.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState

VERSION: Final = 1
"""Of what ``dump`` gives and of what the fold of ``status`` makes of a task; another one makes old rows void."""
EVERY: Final = 8
"""Events of one task between two rows of it. Where every task has a thousand, the rows are a fifth of the log."""
WORTH_KEEPING: Final = 4 * EVERY
"""Events that somebody had to fold for one task, from which on rows are left for those who come next."""
DAMAGED: Final = (ValueError, TypeError, IndexError)
"""What ``load`` may raise of a row that is none."""
_PREFIX: Final = "task:"
_AT_ONCE: Final = 100  # Rows of one commit.


class Row(NamedTuple):
    """One row as it is stored."""

    projection: str
    version: int
    seq: int
    state: bytes


def is_one(projection: str, version: int) -> bool:
    """Whether a snapshot is one of a single task that somebody reads."""
    return version == VERSION and projection.startswith(_PREFIX)


def dump(task: TaskState, seq: int, version: int) -> Row:
    """A task as of an event.

    Args:
        seq, version: of the event.
    """
    return Row(_PREFIX + task.task.task_id, VERSION, seq, orjson.dumps([version, *st.task_values(task)]))


def load(state: bytes) -> tuple[int, list[Any]]:
    """What ``dump`` has stored: the version of the run, and the values of ``TASK_FIELDS``."""
    version, *values = orjson.loads(state)
    if type(version) is not int or len(values) != len(st.TASK_FIELDS):
        raise ValueError("a snapshot of a task has a version and its fields")
    return version, values


def nearest(log: Log, run_id: str, task_id: str, after: int, upto: int) -> tuple[int, list[Any]] | None:
    """The newest one with ``after < seq <= upto``, as ``load`` gives it; None where there is none."""
    found = log.load_snapshot(run_id, _PREFIX + task_id, VERSION, upto)
    if found is None or found[0] <= after:
        return None
    try:
        return load(found[1])
    except DAMAGED:  # It is a cache.
        return None


def is_right(row: bytes, projection: str, state: RunState) -> bool:
    """Whether a row says what the state of its seq says."""
    task = state.tasks[projection.removeprefix(_PREFIX)]
    return load(row) == load(dump(task, state.seq, state.version).state)


class Writer:
    """Makes such rows of one run as it goes on."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # Events of a task since its last row.
        self._due: dict[str, None] = {}
        self._rows: list[Row] = []

    def learn(self, event: Event) -> None:
        """An event of the run was folded into its state."""
        task_id = getattr(event, "task_id", None)
        if task_id is not None:
            count = self._counts[task_id] = self._counts.get(task_id, 0) + 1
            if count >= EVERY:
                self._due[task_id] = None

    def take(self, state: RunState) -> list[Row]:
        """The rows that are to be written now, where they are worth a commit.

        Args:
            state: of the run, with all that was learned.
        """
        for task_id in self._due:
            del self._counts[task_id]
            self._rows.append(dump(state.tasks[task_id], state.seq, state.version))
        self._due.clear()
        if len(self._rows) < _AT_ONCE:
            return []
        rows, self._rows = self._rows, []
        return rows
