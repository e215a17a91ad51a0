"""The state of a run from its rows: what ``status.fold`` gives, without an event object for most of a long history.

Five types make up nearly all of a log. They are folded from their parsed bodies, and what hangs on the statuses (counts,
open dependencies, stages, running attempts) is derived once, at the end. Every other row, and every row that is not as
expected, is decoded and folded as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final

import orjson

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Brief, decode_brief
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import letting_go
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import Tasks
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.letting_go import Behind, PassedTasks
from parallel_agents.projections.status import (
    COMPLETED,
    PENDING,
    QUEUED,
    RUNNING,
    RunState,
    TaskState,
)

HOT: Final = (ev.TaskQueued, ev.TaskStarted, ev.TaskCompleted, ev.CostCharged, ev.CheckpointCreated)
"""Whose stored bodies are read here as they are: a later schema version of one of them has to be looked at."""


def replay(
    state: RunState,
    rows: Iterable[Brief],
    blob: Callable[[str], bytes],
    cost: Cost | None = None,
    behind: Behind | None = None,
) -> RunState:
    """The state after some more rows of its run, which no rollback is among. Consumes the state that it is given.

    Args:
        cost: what the rows have cost is added to it.
        behind: from the first row of a large run on, its tasks are not all held (see ``letting_go``).
    """
    rows = iter(rows)
    if behind is not None and state.version == 0 and (first := next(rows, None)) is not None:
        begun = letting_go.begin(decode_brief(state.run_id, first), blob, behind)
        state, rows = (state, chain((first,), rows)) if begun is None else (begun, rows)
    while True:
        passes = isinstance(state.tasks, PassedTasks)
        last = apply(state, islice(rows, letting_go.EVERY) if passes else rows, blob, cost)
        if last is not None:
            state.seq, state.version = last[0], last[1]
        if last is not None or isinstance(state.tasks, Tasks):
            derive(state)
        if last is None or not isinstance(state.tasks, PassedTasks):
            return state
        state.tasks.let_go(state)


def apply(
    state: RunState, rows: Iterable[Brief], blob: Callable[[str], bytes], cost: Cost | None = None
) -> Brief | None:
    """Bring tasks, and the run but for what hangs on their statuses, to what some more rows say.

    One long loop, because a call for every row would take a tenth of the time.

    Returns:
        The last of the rows; None where there is none.
    """
    tasks, loads, charge = state.tasks, orjson.loads, cost_fold.charge
    row: Brief | None = None
    for row in rows:
        _seq, _version, type_, at_us, body = row
        if type_ in _BY_BODY:
            try:
                data = loads(body)
                task = tasks[data["task_id"]]
                status = None if "schema_version" in data or task.cancel_requested else task.status
                if type_ == "TaskStarted" and status == QUEUED:
                    attempt_id, runner, model = data["attempt_id"], data["runner"], data["model"]
                    number, base_commit = data["attempt"], data["base_commit"]
                    if task.attempts or data.get("model_reason"):  # Else there is nothing of an attempt before it.
                        _started_again(task, data)
                    task.attempts, task.attempt_id, task.runner, task.model = number, attempt_id, runner, model
                    task.base_commit, task.work_commit, task.approved_attempt = base_commit, None, None
                    task.status, task.started_at_us = RUNNING, at_us
                    task.ended_at_us = task.duration_s = task.not_before_us = None
                    state.used_us = round(data.get("used_s", 0.0) * 1e6)
                    continue
                if type_ == "TaskCompleted" and status == RUNNING:
                    duration_s, cpu_s, peak = data["duration_s"], data["cpu_s"], data["peak_memory_bytes"]
                    task.exit_code, task.output, task.error = data["exit_code"], data["output"], None
                    task.duration_s, task.cpu_s, task.peak_memory_bytes = duration_s, cpu_s, peak
                    task.peak_cpu_percent = data.get("peak_cpu_percent", 0.0)
                    task.peak_open_files = data.get("peak_open_files", 0)
                    task.disk_written_bytes = data.get("disk_written_bytes", 0)
                    task.status, task.ended_at_us, task.stuck = COMPLETED, at_us, None
                    if (commit := data.get("commit")) is not None:
                        state.integration, task.conflict = commit, None
                    continue
                if type_ == "TaskQueued" and status == PENDING and not data["reason"]:
                    task.status, task.queued_at_us = QUEUED, at_us
                    continue
                if type_ == "CheckpointCreated" and data["kind"] in _OF_ATTEMPTS and data["stage"] is None:
                    checkpoint_id, attempt_id, commit, paths = _of_checkpoint(data)
                    task.checkpoint_id = checkpoint_id
                    if data["kind"] == "after_attempt" and attempt_id == task.attempt_id:
                        task.kept_commit, task.changed = commit, paths or None
                    continue
                if type_ == "CostCharged" and status is not None:
                    if cost is not None:
                        charge(cost, data)
                    continue
            except (KeyError, TypeError, ValueError):  # A body of an older release, or a damaged one.
                pass
        record = decode_brief(state.run_id, row)
        st.fold(state, record, blob)
        if cost is not None:
            cost_fold.fold(cost, record)
    return row


def _started_again(task: TaskState, data: dict[str, Any]) -> None:
    """What a start says besides, of an agent or after another attempt."""
    facts = data["facts"]  # First: where it is missing the event is folded whole, and nothing must have changed.
    task.before = task.error
    st.learn(task)
    task.failure_kind, task.role, task.resumed = "", data.get("role", ""), data.get("resumes")
    task.begin_commit, task.limit_usd_micros = data.get("begin_commit"), facts.get("limit_usd_micros")
    task.resumes = task.kept_commit = task.changed = None


_OF_ATTEMPTS: Final = ("before_attempt", "after_attempt")
_of_checkpoint = itemgetter("checkpoint_id", "attempt_id", "commit", "paths")
_BY_BODY = frozenset(cls.__name__ for cls in HOT)


def derive(state: RunState) -> None:
    """Work out anew what follows from the tasks' statuses. What has failed, and in which order, does not."""
    if isinstance(state.tasks, Tasks) and not state.tasks.is_whole:
        state.tasks.derive(state)
        return
    st.derive(state)
