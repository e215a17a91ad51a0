"""The state of one task, folded from the events that name it: what it costs does not grow with its run.

Where the task has very many of them, it goes on from the nearest snapshot of it (see ``task_snapshots``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from parallel_agents.eventstore.errors import UnknownRun, UnknownTask, nearest
from parallel_agents.eventstore.events import RunForked, RunRolledBack, RunSubmitted
from parallel_agents.eventstore.known_plans import KnownPlan, known_plan
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Brief, decode_brief
from parallel_agents.projections import status as st
from parallel_agents.projections import task_snapshots
from parallel_agents.projections.effective import kept_spans
from parallel_agents.projections.replay import apply
from parallel_agents.projections.status import RunState, TaskState

_TOGETHER: Final = 32  # From so many tasks on their events are asked for together, and no snapshots of them.
_OF_THE_RUN: Final = ("RunSubmitted", "RunForked", "RunRolledBack")


class OneTask:
    """Tasks of a run as of one moment, each by itself.

    Args:
        use_snapshots: go on from snapshots of tasks, and leave some where very many events of one were folded.
    Raises (all methods):
        UnknownRun: the run had not begun by then.
    """

    def __init__(self, log: Log, run_id: str, upto: int, *, use_snapshots: bool = True) -> None:
        self._log = log
        self._use_snapshots = use_snapshots
        self._run_id = run_id
        self._upto = upto
        self._known: KnownPlan | None = None
        self._inherited: dict[str, Any] = {}  # Of a fork: the snapshot of its parent's state.
        self._archived = False  # Whether bodies of the run were moved to an archive.
        self._spans: Sequence[tuple[int, int]] = ()  # Of the events that count.

    def of(self, task_id: str) -> TaskState:
        """The task, and how many of its dependencies are not satisfied.

        Raises:
            UnknownTask: the run has no such task.
        """
        task = self.state(task_id)
        needed = (self.state(name) for name in task.task.dependencies)
        task.open_dependencies = sum(not st.satisfies(one.task, one.status) for one in needed)
        return task

    @property
    def has_all(self) -> bool:
        """Whether the store holds all bodies of the run; else those that were moved are found one task after the other."""
        self._known = self._known or self._look()
        return not self._archived

    def some(self, task_ids: Sequence[str]) -> list[TaskState]:
        """Some tasks but for their open dependencies, in the order that they are given in. The run has to have them."""
        if len(task_ids) < _TOGETHER or not self.has_all:
            return list(map(self.state, task_ids))
        rows = self._log.briefs_of_tasks(self._run_id, task_ids, self._upto)
        run = self._begun(self._known or self._look(), task_ids)
        apply(run, filter(self._counts, rows) if len(self._spans) > 1 else rows, self._log.blob)
        return [run.tasks[task_id] for task_id in task_ids]

    def state(self, task_id: str) -> TaskState:
        """The task but for its open dependencies.

        Raises:
            UnknownTask: the run has no such task.
        """
        known = self._known or self._look()
        index = known.positions.get(task_id)
        if index is None:
            raise UnknownTask(f"run {self._run_id} has no task {task_id!r}", hint=nearest(task_id, known.positions))
        base = self._nearest(task_id) if self._use_snapshots else None
        run = self._begun(known, (task_id,), inherits=base is None)
        task, spec, after = run.tasks[task_id], known.plan.tasks[index], 0
        if base is not None:
            after, values = base
            run.tasks[task_id] = task = st.task_of(spec, index, values)
            if task.status == st.FAILED and not spec.allow_failure:
                run.stage_failed[spec.stage] = [task_id]  # Where the fold looks for it.
        rows = self._log.task_briefs(self._run_id, task_id, self._upto, after_version=after, archived=self._archived)
        if len(self._spans) > 1:
            rows = [row for row in rows if self._counts(row)]
        if self._use_snapshots and len(rows) >= task_snapshots.WORTH_KEEPING:
            self._fold_and_leave(run, task, rows)
        else:
            apply(run, rows, self._log.blob)
        return task

    def _begun(self, known: KnownPlan, task_ids: Sequence[str], *, inherits: bool = True) -> RunState:
        """A run that has these tasks as they were at its start, and of those that they need no more than that they are there.

        Args:
            inherits: whether what a fork took over from its parent is wanted.
        """
        specs = [known.plan.tasks[known.positions[name]] for name in task_ids]
        needed = {name for spec in specs for name in spec.dependencies}
        tasks = {name: TaskState(known.plan.tasks[known.positions[name]], 0, 0) for name in needed}
        tasks |= {spec.task_id: TaskState(spec, known.positions[spec.task_id], 0) for spec in specs}
        run = RunState(self._run_id, plan=known.plan, tasks=tasks, stage_open=[0] * len(known.plan.stages))
        there = self._inherited.get("tasks", {}) if inherits else {}
        for name in task_ids:
            if (values := there.get(name)) is not None:
                st.set_task_values(run, tasks[name], self._inherited.get("fields"), values)
                tasks[name].resumes = None  # The sessions of its attempts are the parent's.
        return run

    def _nearest(self, task_id: str) -> tuple[int, list[Any]] | None:
        """The newest snapshot of the task from which on nothing that counts is undone: of one of the spans, up to its end."""
        for after, upto in self._spans:
            if (found := task_snapshots.nearest(self._log, self._run_id, task_id, after, upto)) is not None:
                return found
        return None

    def _fold_and_leave(self, run: RunState, task: TaskState, rows: Sequence[Brief]) -> None:
        """Fold very many events of one task, and leave snapshots of it for those who come next."""
        made = []
        for first in range(0, len(rows), task_snapshots.EVERY):
            some = rows[first : first + task_snapshots.EVERY]
            apply(run, some, self._log.blob)
            if len(some) == task_snapshots.EVERY:
                made.append(task_snapshots.dump(task, some[-1][0], some[-1][1]))
        self._log.leave_snapshots(self._run_id, made)

    def _counts(self, row: Brief) -> bool:
        return any(after < row[0] <= upto for after, upto in self._spans)

    def _look(self) -> KnownPlan:
        """What the events of the run say that name no task."""
        rollbacks, begun = [], None
        rows, self._archived = self._log.taskless_briefs(self._run_id, _OF_THE_RUN, self._upto)
        for row in rows:
            match decode_brief(self._run_id, row).event:
                case RunRolledBack(to_seq=to_seq):
                    rollbacks.append((row[0], to_seq))
                case RunSubmitted() | RunForked() as event:
                    begun = begun or event
                case _:
                    pass
        if begun is None or not begun.plan_digest:
            raise UnknownRun(f"there is no run {self._run_id!r} at event {self._upto}")
        if isinstance(begun, RunForked):
            self._inherited = orjson.loads(self._log.blob(begun.state_digest))
        self._spans = kept_spans(rollbacks, self._upto)
        self._known = known_plan(begun.plan_digest, self._log.blob)
        return self._known
