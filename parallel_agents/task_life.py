"""What ``show`` tells of a task besides its attempts: checkpoints, conflicts, who waited for it, and every event of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parallel_agents.conflicts import conflicts
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode, rfc3339
from parallel_agents.eventstore.selecting import Wanted, select
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.projections.undone import Spans
from parallel_agents.task_past import named


def checkpoints_of(records: Sequence[Recorded], task_id: str, spans: Spans | None) -> list[dict[str, Any]]:
    """The checkpoints that were made for a task, oldest first, undone ones too."""
    return [
        {
            "checkpoint_id": event.checkpoint_id, "seq": record.seq, "at": rfc3339(record.at_us), "kind": event.kind,
            "label": event.label, "commit": event.commit, "attempt_id": event.attempt_id, "changed": event.changed,
            "undone": spans is not None and spans.holds(record.seq),
        }
        for record in records
        if isinstance(event := record.event, ev.CheckpointCreated) and event.task_id == task_id
    ]  # fmt: skip


def conflicts_of(log: Log, run_id: str, task_id: str, upto: int | None) -> list[dict[str, Any]]:
    """The conflicts of a task, and those of other tasks with its work; see ``conflicts``."""
    return [one for one in conflicts(log, run_id, upto) if task_id in (one["task_id"], one["other_task_id"])]


def events_of(records: Sequence[Recorded], task_id: str, spans: Spans | None) -> list[dict[str, Any]]:
    """Every event that names a task as its own."""
    return [
        {**named(record), "at": rfc3339(record.at_us), "undone": spans is not None and spans.holds(record.seq)}
        for record in records
        if getattr(record.event, "task_id", None) == task_id
    ]


def waited_for(log: Log, state: RunState, task_id: str, end: int, now_us: int) -> list[dict[str, Any]]:
    """The tasks that need this one, and how long they have waited for it.

    Args:
        end: the last event that is looked at.
        now_us: up to when those have waited that still do.
    Returns:
        Of each ``waited_s``, from the start of the run, or from when it was opened again, until this task was done; of that
        ``alone_s``, in which it waited for nothing else; and ``waits``, whether it still does. Null before the run's start.
    """
    waiters = state.dependents.get(task_id, ())
    if not waiters:
        return []
    reopened = map(decode, select(log, Wanted(state.run_id, types=(ev.TaskReopened.__name__,)), end))
    opened = {
        record.event.task_id: record.at_us for record in reopened if isinstance(record.event, ev.TaskReopened)
    }  # The last time counts.
    return [_wait(state, state.tasks[name], task_id, opened.get(name), now_us) for name in waiters]


def _wait(state: RunState, waiter: TaskState, task_id: str, opened_us: int | None, now_us: int) -> dict[str, Any]:
    mine, others = state.tasks[task_id], [state.tasks[name] for name in waiter.task.dependencies if name != task_id]
    done_us = _done_us(mine)
    since_us = max(filter(None, (state.started_at_us, opened_us)), default=None)
    waits = done_us is None and waiter.status not in st.ENDED
    until_us = done_us if done_us is not None else waiter.ended_at_us or now_us
    answer: dict[str, Any] = {"task_id": waiter.task.task_id, "status": waiter.status, "waits": waits}
    if since_us is None:
        return {**answer, "waited_s": None, "alone_s": None}
    done = [_done_us(other) for other in others]
    free_us = None if None in done else max((one for one in done if one is not None), default=since_us)
    alone_us = 0 if free_us is None else until_us - max(since_us, free_us)
    return {**answer, "waited_s": max(0, until_us - since_us) / 1e6, "alone_s": max(0, alone_us) / 1e6}


def _done_us(task: TaskState) -> int | None:
    """Since when a task lets those that need it start; None: it does not."""
    return task.ended_at_us if st.satisfies(task.task, task.status) else None
