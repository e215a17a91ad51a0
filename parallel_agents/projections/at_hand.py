"""The state of a run from a light snapshot: what it says of the run as a whole, and of a task when that is asked for.

A whole state takes longer to load than to ask what anybody wants to know of it. So a light snapshot holds the run,
a letter for the status of each task, and whole only the tasks that something is about to happen to. Any other one is folded
from its own few events when somebody looks at it. Whoever goes through all of them has the whole run folded; of a large one
they pass by instead, some at a time, so that it fits into memory whatever its size.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Protocol

import orjson

from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.known_plans import KnownPlan, known_plan
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState

NAME: Final = "light"
VERSION: Final = 1
"""Of what ``dump`` gives and of what the fold of ``status`` makes of it; another one makes old snapshots void."""
NEAR: Final = 2000
"""Tasks that a light snapshot of a large run holds whole, at most; a run that has more tasks than these is large."""
NEAR_OF_SMALL: Final = 16
"""The same of a run that is not large, of which there are more snapshots; besides as many as run."""
SINGLY: Final = 16
"""So many tasks are folded each by itself, and a part of all; who asks for more has all made in one go, which is faster."""
_PART: Final = 32
_PASSING: Final = 1024
"""Tasks of a large run that pass by together, some megabytes."""

DAMAGED: Final = (zlib.error, ValueError, KeyError, TypeError)
"""What ``load`` may raise of a snapshot that is none."""

_LETTERS: Final = {
    st.PENDING: "p", st.QUEUED: "q", st.RUNNING: "r", st.BLOCKED: "b", st.COMPLETED: "c", st.FAILED: "f",
    st.CANCELLED: "x", st.SKIPPED: "s",
}  # fmt: skip
BLANK: Final = "p"
"""The letter of a task that is pending, and as the plan made it."""
_TOUCHED: Final = "P"  # Pending, and something has happened to it before.
_IS_BLANK: Final = ord(BLANK)
_STATUS_OF: Final = {ord(letter): status for status, letter in _LETTERS.items()} | {ord(_TOUCHED): st.PENDING}
_OPEN: Final = frozenset({st.RUNNING, st.QUEUED, st.BLOCKED})
_TRACES: Final = (
    "attempts", "queued_at_us", "approved_attempt", "cancel_requested", "checkpoint_id", "reason", "error", "because",
    "conflict", "ended_at_us",
)  # fmt: skip
"""Whatever has happened to a task that is pending has left something in one of these."""
_NO_TRACES: Final = tuple(TaskState.__dataclass_fields__[name].default for name in _TRACES)
_traces = attrgetter(*_TRACES)


class Singles(Protocol):
    """Folds tasks of a run by themselves, as of a moment (see ``one_task``)."""

    @property
    def has_all(self) -> bool:
        """Whether many of them are found together as fast as in a fold of the whole run."""
        ...

    def some(self, task_ids: Sequence[str]) -> list[TaskState]:
        """Some tasks but for their open dependencies."""
        ...


class Tasks(dict[str, TaskState]):
    """The tasks of a run by id, in the order of its plan. One is made when it is looked up, all when they are gone through;
    those of a large run pass by then.
    """

    _letters: bytearray  # The status of each task as of the base, in the order of the plan.
    _counts: dict[str, int]  # Tasks by status, as of the base.
    _stage_open: list[int]
    _running: dict[str, str]  # Attempt id -> task id.
    _near: dict[str, list[Any]]  # What the snapshot says of those that it holds whole.
    _fields: tuple[str, ...]

    def __init__(self, known: KnownPlan, single: Singles, whole: Callable[[], Iterable[TaskState]]) -> None:
        """Those of a base that ``from_snapshot`` or ``rebase`` gives, of which none is made yet.

        Args:
            single: gives tasks as of the base.
            whole: gives all of them.
        """
        super().__init__()
        self._known, self._single = known, single
        self._whole: Callable[[], Iterable[TaskState]] | None = whole  # None: every task is there.
        self._singly = 0  # How many were folded by themselves.

    def from_snapshot(self, raw: dict[str, Any]) -> None:
        """Stand on a light snapshot."""
        self._letters, self._counts = bytearray(raw["letters"], "ascii"), raw["counts"]
        self._stage_open, self._running = raw["stage_open"], raw["running"]
        self._near, self._fields = raw["near"], tuple(raw["fields"])
        if not self._near.keys() <= self._known.positions.keys():
            raise ValueError("a snapshot of a run holds tasks of its plan")
        if not set(map(len, self._near.values())) <= {len(self._fields)}:
            raise ValueError("a task of a snapshot has a value for each field")

    @property
    def is_whole(self) -> bool:
        """Whether every task is there."""
        return self._whole is None

    def __missing__(self, task_id: str) -> TaskState:
        if self._whole is None:
            raise KeyError(task_id)
        index = self._known.positions[task_id]
        task = self._at_hand(task_id, index)
        if task is None and self._singly < SINGLY + len(self) // _PART:
            self._singly += 1
            (task,) = self._single.some((task_id,))
        if task is None:
            self.fill()
            return self[task_id]
        if task.task.dependencies:
            task.open_dependencies = self._open_dependencies(task)
        self[task_id] = task
        return task

    def _at_hand(self, task_id: str, index: int) -> TaskState | None:
        """A task that the snapshot alone tells all of; None of another one."""
        if (values := self._near.get(task_id)) is not None:
            return self._as_stored(index, values)
        return TaskState(self._known.plan.tasks[index], index, 0) if self._letters[index] == _IS_BLANK else None

    def _as_stored(self, index: int, values: list[Any]) -> TaskState:
        spec = self._known.plan.tasks[index]
        if self._fields == st.TASK_FIELDS:
            return TaskState(spec, index, 0, *values)
        task = TaskState(spec, index, 0)
        for name, value in zip(self._fields, values, strict=True):
            setattr(task, name, value)
        return task

    def _open_dependencies(self, task: TaskState) -> int:
        """How many of its dependencies are not satisfied, by their statuses now."""
        return sum(not self._is_satisfied(name) for name in task.task.dependencies)

    def _is_satisfied(self, task_id: str) -> bool:
        status = self.status_of(task_id)
        return status == st.COMPLETED or st.satisfies(self._known.plan.tasks[self._known.positions[task_id]], status)

    def derive(self, state: RunState) -> None:
        """Work out anew what follows from the statuses of the tasks that were looked at since the snapshot."""
        counts, stage_open = Counter(self._counts), list(self._stage_open)
        running = {attempt_id: name for attempt_id, name in self._running.items() if dict.get(self, name) is None}
        for task in dict.values(self):
            was, now, stage = _STATUS_OF[self._letters[task.index]], task.status, task.task.stage
            if was != now:
                counts[was] -= 1
                counts[now] += 1
                stage_open[stage] += (now not in st.ENDED) - (was not in st.ENDED)
            if now == st.RUNNING and task.attempt_id is not None:
                running[task.attempt_id] = task.task.task_id
            if task.task.dependencies:
                task.open_dependencies = self._open_dependencies(task)
        order = sorted(running, key=lambda attempt_id: self._known.positions[running[attempt_id]])
        state.running = {attempt_id: running[attempt_id] for attempt_id in order}
        state.counts, state.stage_open = counts, stage_open

    def fill(self) -> None:
        """Make every task that is not there yet: as of the snapshot, for nothing has happened to it since."""
        if self._whole is None:
            return
        here, whole = dict(dict.items(self)), list(self.passing() if self._passes_by() else self._whole())
        self._whole = None
        self.clear()
        for task in whole:
            self[task.task.task_id] = here.get(task.task.task_id, task)
        for task_id, task in self.items():
            if task.task.dependencies and task_id not in here:  # What is here was brought up to date by who folded it.
                task.open_dependencies = self._open_dependencies(task)

    def rebase(self, state: RunState, single: Singles) -> None:
        """Let go of the tasks that are there: what they are now is their base from here on.

        Args:
            state: of the run, with what hangs on the statuses of its tasks.
            single: gives tasks as they are now.
        """
        self._letters = self.letters()
        self.clear()
        self._single, self._singly, self._near = single, 0, {}
        self._counts, self._stage_open, self._running = dict(state.counts), list(state.stage_open), dict(state.running)

    def passing(self) -> Iterator[TaskState]:
        """Every task in the order of the plan. Those that nobody has looked up are made anew, and not kept."""
        task_ids = list(self._known.positions)
        for first in range(0, len(task_ids), _PASSING):
            part = task_ids[first : first + _PASSING]
            made: dict[str, TaskState] = {}
            for index, task_id in enumerate(part, first):
                task = dict.get(self, task_id) or self._at_hand(task_id, index)
                if task is not None:
                    made[task_id] = task
            if left := [task_id for task_id in part if task_id not in made]:
                made |= zip(left, self._single.some(left), strict=True)
            for task_id in part:
                task = made[task_id]
                if task.task.dependencies and not dict.__contains__(self, task_id):
                    task.open_dependencies = self._open_dependencies(task)
                yield task

    def made(self) -> Iterable[TaskState]:
        """Those that are there."""
        return dict.values(self)

    def statuses(self) -> Iterator[tuple[str, str]]:
        """Every task with its status, in the order of the plan; none is made for it."""
        return ((task_id, self.status_of(task_id)) for task_id in self._known.positions)

    def status_of(self, task_id: str) -> str:
        """Of one task, which is not made for it."""
        made = dict.get(self, task_id)
        return _STATUS_OF[self._letters[self._known.positions[task_id]]] if made is None else made.status

    def letters(self) -> bytearray:
        """A letter for the status of each task, in the order of the plan."""
        letters = bytearray(self._letters)
        for task in dict.values(self):
            letters[task.index] = ord(_letter(task))
        return letters

    def _passes_by(self) -> bool:
        return self._whole is not None and len(self) > NEAR and self._single.has_all

    def get(self, task_id: str, default: Any = None) -> Any:
        """As of any dict."""
        return self[task_id] if task_id in self._known.positions else default

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._known.positions

    def __len__(self) -> int:
        return len(self._known.positions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known.positions)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._known.positions)

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """As of any dict; no task is made for them."""
        return self._known.positions.keys()

    def values(self) -> ValuesView[TaskState]:  # type: ignore[override]
        """As of any dict; those of a large run pass by."""
        if self._passes_by():
            return _PassingValues(self)
        self.fill()
        return super().values()

    def items(self) -> ItemsView[str, TaskState]:  # type: ignore[override]
        """As of any dict; those of a large run pass by."""
        if self._passes_by():
            return _PassingItems(self)
        self.fill()
        return super().items()

    def __eq__(self, other: object) -> bool:
        self.fill()
        if isinstance(other, Tasks):
            other.fill()
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:  # A copy has no store to ask.
        return dict, (dict(self.items()),)


class _PassingValues(ValuesView[TaskState]):
    """The tasks of a large run, made anew by each who goes through them."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def __iter__(self) -> Iterator[TaskState]:
        return self._tasks.passing()

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, value: object) -> bool:
        return any(task is value or task == value for task in self)


class _PassingItems(ItemsView[str, TaskState]):
    """The same with their ids."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def __iter__(self) -> Iterator[tuple[str, TaskState]]:
        return ((task.task.task_id, task) for task in self._tasks.passing())

    def __len__(self) -> int:
        return len(self._tasks)


def statuses(state: RunState) -> Iterator[tuple[str, str]]:
    """Every task of a run with its status, in the order of the plan; of a large run none is made for it."""
    tasks = state.tasks
    if isinstance(tasks, Tasks) and not tasks.is_whole:
        return tasks.statuses()
    return ((name, task.status) for name, task in tasks.items())


def status_of(state: RunState, task_id: str) -> str:
    """The status of one task; of a large run it is not made for it."""
    tasks = state.tasks
    return tasks.status_of(task_id) if isinstance(tasks, Tasks) and not tasks.is_whole else tasks[task_id].status


def is_large(state: RunState) -> bool:
    """Whether a run is so large that whole snapshots of it have to be few."""
    return len(state.tasks) > NEAR


class Writer:
    """Makes light snapshots of a run as it goes on: what one costs does not grow with the number of tasks.

    Args:
        state: of the run; it is looked at again at every snapshot.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._open: dict[str, None] = {}  # A set that keeps its order.
        self._changed: set[str] = set()
        if isinstance(state.tasks, Tasks) and not state.tasks.is_whole:
            self._letters = state.tasks.letters()
            self._open.update((task_id, None) for task_id, status in state.tasks.statuses() if status in _OPEN)
        else:
            self._letters = bytearray(len(state.tasks))
            self._changed.update(state.tasks)

    def learn(self, event: Event) -> None:
        """An event of the run was folded into its state."""
        task_id = getattr(event, "task_id", None)
        if task_id is not None:
            self._changed.add(task_id)

    def dump(self) -> bytes:
        """A light snapshot of the state as it is: some kilobytes, however many tasks there are."""
        state, raw = self._state, self.values()
        most = NEAR if is_large(state) else min(NEAR, NEAR_OF_SMALL + len(state.running))
        raw["near"] = {task_id: st.task_values(state.tasks[task_id]) for task_id in islice(self._open, most)}
        return zlib.compress(orjson.dumps(raw), 1)

    def values(self) -> dict[str, Any]:
        """What a light snapshot holds but for the tasks that are whole in it."""
        state, tasks = self._state, self._state.tasks
        for task_id in self._changed:
            task = tasks[task_id]
            self._letters[task.index] = ord(_letter(task))
            if task.status in _OPEN:
                self._open[task_id] = None
            else:
                self._open.pop(task_id, None)
        self._changed.clear()
        return {
            **st.run_values(state),
            "letters": self._letters.decode(),
            "counts": state.counts,
            "stage_open": state.stage_open,
            "stage_failed": {str(stage): task_ids for stage, task_ids in state.stage_failed.items()},
            "fields": st.TASK_FIELDS,
        }


def _letter(task: TaskState) -> str:
    letter = _LETTERS[task.status]
    return _TOUCHED if letter == BLANK and _traces(task) != _NO_TRACES else letter


def dump(state: RunState) -> bytes:
    """One light snapshot of a state."""
    return Writer(state).dump()


def differing(snapshot: bytes, state: RunState, writer: Writer) -> list[str]:
    """The names of what a light snapshot says otherwise than the state of its seq.

    Args:
        writer: of the state.
    """
    stored, right = orjson.loads(zlib.decompress(snapshot)), orjson.loads(orjson.dumps(writer.values()))
    for one in (stored, right):
        one["counts"] = {status: count for status, count in one["counts"].items() if count}
    near, fields = stored.pop("near"), stored["fields"]  # Which of very many open tasks it holds is no matter.
    values = attrgetter(*fields)
    wrong = [name for name, held in near.items() if orjson.loads(orjson.dumps(values(state.tasks[name]))) != held]
    return [name for name in stored.keys() | right.keys() if stored.get(name) != right.get(name)] + wrong


def load(
    run_id: str,
    snapshot: bytes,
    blob: Callable[[str], bytes],
    single: Singles,
    whole: Callable[[], RunState],
) -> RunState:
    """The state of a light snapshot (see ``Tasks``), but for what ``derive`` has to work out once it was folded on."""
    raw = orjson.loads(zlib.decompress(snapshot))
    known = known_plan(raw["plan_digest"], blob)
    tasks = Tasks(known, single, lambda: whole().tasks.values())
    tasks.from_snapshot(raw)
    state = RunState(run_id, plan=known.plan, tasks=tasks, dependents=known.dependents)
    st.set_run_values(state, raw)
    state.stage_failed = {int(stage): task_ids for stage, task_ids in raw["stage_failed"].items()}
    state.stage_open, state.running = list(raw["stage_open"]), dict(raw["running"])
    return state
