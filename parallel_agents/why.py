"""Why a task stands where it stands, what befell it before, and why it was put before another one. As plain data.

Every reason is the scheduler's own (``why_not``, and the rank by which it starts tasks); here it gets the events that it
stands on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from parallel_agents.broken_runners import why_of_circuit
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.selecting import Wanted, select
from parallel_agents.held_back import why_of_task
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.projections.undone import Spans, undone_spans
from parallel_agents.scheduler.breaker import CIRCUIT_OPEN
from parallel_agents.scheduler.decide import task_of
from parallel_agents.scheduler.decide_settling import looking_command, settling_command
from parallel_agents.scheduler.governing import WORKERS
from parallel_agents.scheduler.plan import Reason, why_not
from parallel_agents.scheduler.precedence import CRITICAL_PATH, PLAN_ORDER, PRIORITY, sooner
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.standpoint import Standpoint, now_of, standpoint
from parallel_agents.task_past import named, tellings

_TASKS_NAMED: Final = 5  # Whose events an answer names.
_STATUS: Final = (
    ev.TaskQueued, ev.TaskStarted, ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.AttemptLost, ev.TaskRetryScheduled,
    ev.TaskCancelled, ev.TaskSkipped, ev.TaskReopened, ev.TaskBlocked, ev.TaskUnblocked,
)  # fmt: skip
_ENDS: Final = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.AttemptLost, ev.TaskCancelled, ev.TaskSkipped)
_BEGUN: Final = ("RunSubmitted", "RunForked")
_OF_RUN: Final = {
    "paused": ("RunPaused",), "cancelling": ("RunCancelRequested",), "cancelled": ("RunCancelRequested",),
    "run_ended": ("RunCompleted", "RunFailed", "RunCancelled"), "no_dispatcher": _BEGUN, "dependencies": _BEGUN,
}  # fmt: skip
"""By code of a reason: the types of events of the run of which the last one is why. Of a wait for others only if nothing of
theirs has happened yet."""
_BESIDE: Final = {
    st.DISK: ("DispatchThrottled",), st.CPU: ("DispatchThrottled",), st.MEMORY: ("DispatchThrottled",),
    WORKERS: ("WorkersScaled",), "budget": ("BudgetExceeded", "CostCharged"), CIRCUIT_OPEN: ("CircuitOpened",),
    "provider": ("ProviderLimited",),
}  # fmt: skip
_READY: Final = frozenset(
    {
        "due",
        "no_slot",
        "one_by_one",
        "lower_rank",
        "queue_full",
        WORKERS,
        st.DISK,
        st.CPU,
        st.MEMORY,
        "no_dispatcher",
        "paused",
    }
)
"""Codes of a task that nothing but its turn keeps from starting."""
_BY_RANK: Final = frozenset({PRIORITY, CRITICAL_PATH, PLAN_ORDER})


class _Evidence:
    """The events of a run up to a moment, by what they are about. Those that a rollback has undone are no evidence."""

    def __init__(self, log: Log, run_id: str, end: int) -> None:
        self._log, self._run_id, self.end = log, run_id, end
        self.spans: Spans | None = undone_spans(log, end, run_id).get(run_id)
        self._of_task: dict[str, list[Recorded]] = {}

    def all_of(self, task_id: str) -> list[Recorded]:
        """Those that name a task as theirs, undone ones too."""
        found = self._of_task.get(task_id)
        if found is None:
            rows = select(self._log, Wanted(self._run_id, task_id=task_id), self.end)
            found = self._of_task[task_id] = list(map(decode, rows))
        return found

    def of(self, task_id: str) -> list[Recorded]:
        """Those that count."""
        spans = self.spans
        return [record for record in self.all_of(task_id) if spans is None or not spans.holds(record.seq)]

    def last(self, task_id: str, types: tuple[type[ev.Event], ...], before: int | None = None) -> Recorded | None:
        """The last one of some types, before a seq."""
        found = self.all_of(task_id) if before is not None else self.of(task_id)
        return next(
            (one for one in reversed(found) if isinstance(one.event, types) and (before is None or one.seq < before)),
            None,
        )

    def of_run(self, types: Sequence[str]) -> Recorded | None:
        """The last event about the run as a whole, of some types."""
        marks = ", ".join("?" * len(types))
        rows = self._log.rows_where(
            f"{RUN_LEVEL} AND +run_id = ? AND seq <= ? AND +type IN ({marks})", (self._run_id, self.end, *types),
            order="seq DESC",
        )  # fmt: skip
        return next((decode(row) for row in rows if self.spans is None or not self.spans.holds(row.seq)), None)

    def beside(self, types: tuple[str, ...]) -> Recorded | None:
        """The last event of the run, or of the store as such, of some types."""
        found = [
            row
            for run_id in (self._run_id, STORE_RUN)
            for row in select(self._log, Wanted(run_id, types=types), self.end, newest=1)
        ]
        return decode(max(found, key=lambda row: row.seq)) if found else None

    def rollbacks(self) -> list[Recorded]:
        """Of the run, oldest first."""
        return [decode(row) for row in select(self._log, Wanted(self._run_id, types=("RunRolledBack",)), self.end)]


def why(log: Log, run_id: str, task_id: str, upto: int | None = None, *, before: str | None = None) -> dict[str, Any]:
    """Why a task stands where it stands, by the scheduler's own reasons, and the events that made it so.

    Args:
        before: a task: why the first one was put before it is the answer then, or that it was not.
    Returns:
        ``code``, ``why`` in words and ``events``, each ``{"seq", "type"}``; ``past``: what befell it before, each with its
        events; and what helps.
    Raises:
        UnknownRun, UnknownTask: there is none.
        InvalidUsage: a task was to be put before itself.
    """
    projector = Projector(log)
    end = log.last_seq() if upto is None else upto
    now_us = now_of(log, upto)
    here = standpoint(projector, run_id, end, now_us)
    state, task = here.state, task_of(here.state, task_id)
    evidence = _Evidence(log, run_id, end)
    answer: dict[str, Any] = {"run_id": run_id, "task_id": task_id, "seq": state.seq, "status": task.status}
    if before is not None:
        return answer | _why_before(projector, here, evidence, task_id, before)
    reason = why_not(state, task_id, here.facts, now_us)
    answer |= {
        "code": reason.code,
        "why": reason.text,
        "tasks": list(reason.tasks),
        "events": _named(_events_of(evidence, state, task_id, reason)),
        "look": looking_command(run_id, task),
        "settle": settling_command(run_id, task),
        "past": _past(evidence, task_id),
    }
    answer |= _what_helps(here, task, reason)
    held = projector.runs(end)[run_id].holder
    if upto is None and not state.ended and (held is None or not holder_alive(held)):
        answer["note"] = "no process dispatches this run; `parallel-agents daemon start` or `resume` does"
    return answer


def _what_helps(here: Standpoint, task: TaskState, reason: Reason) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if here.facts.agents is not None:
        found |= why_of_task(here.state, task, here.facts.agents.books.spend, here.now_us, reason.code)
    if reason.code == CIRCUIT_OPEN:
        found |= why_of_circuit(here.state, task, here.facts.circuits)
    return found


def past_of(log: Log, run_id: str, task_id: str, end: int) -> list[dict[str, Any]]:
    """What befell a task up to a moment: why it was blocked, skipped, tried again, run again and run on its model."""
    return _past(_Evidence(log, run_id, end), task_id)


def _past(evidence: _Evidence, task_id: str) -> list[dict[str, Any]]:
    records = sorted([*evidence.all_of(task_id), *evidence.rollbacks()], key=lambda one: one.seq)
    found = tellings(records, evidence.spans, lambda name, seq: evidence.last(name, _ENDS, seq))
    return [one.as_data() for one in found]


def _events_of(evidence: _Evidence, state: RunState, task_id: str, reason: Reason) -> list[Recorded]:
    """The events that a reason stands on: of the tasks that it names, of the run, of the store, and the task's own last ones."""
    found: list[Recorded | None] = []
    for name in reason.tasks[:_TASKS_NAMED]:
        if name != task_id and name in state.tasks:
            found.append(evidence.last(name, _ENDS if reason.code in ("skipped", "skipping") else _STATUS))
    if reason.code in _OF_RUN and not (reason.code == "dependencies" and any(found)):
        found.append(evidence.of_run(_OF_RUN[reason.code]))
    if reason.code in _BESIDE:
        found.append(evidence.beside(_BESIDE[reason.code]))
    found += _own(evidence, task_id, reason.code)
    return _in_order(evidence, found)


def _in_order(evidence: _Evidence, found: Iterable[Recorded | None]) -> list[Recorded]:
    """Each once, oldest first. What nothing has befallen yet stands as it does since its run began."""
    by_seq = {one.seq: one for one in found if one is not None}
    if not by_seq and (begun := evidence.of_run(_BEGUN)) is not None:
        return [begun]
    return [by_seq[seq] for seq in sorted(by_seq)]


def _own(evidence: _Evidence, task_id: str, code: str) -> list[Recorded | None]:
    """The last events by which a task came to where it stands: from its last start on where it has ended or is blocked."""
    own = evidence.of(task_id)
    moves = [one for one in own if isinstance(one.event, _STATUS)]
    match code:
        case "running":
            stuck = [one for one in own if isinstance(one.event, ev.AttemptStuck | ev.AttemptRevived)]
            return [evidence.last(task_id, (ev.TaskStarted,)), *stuck[-1:]]
        case "blocked":
            met = [one for one in own if isinstance(one.event, ev.ConflictDetected) and not one.event.early]
            return [*met[-1:], *moves[-1:]]
        case "cancelled":
            asked = [one for one in own if isinstance(one.event, ev.TaskCancelRequested)]
            return [*asked[-1:], *moves[-1:]]
        case "completed" | "failed" | "not_before":
            return list(moves[-2:])
        case _:
            return list(moves[-1:])


def _named(records: Iterable[Recorded]) -> list[dict[str, Any]]:
    return [named(record) for record in records]


def _why_before(
    projector: Projector, here: Standpoint, evidence: _Evidence, task_id: str, other_id: str
) -> dict[str, Any]:
    """Why one task was put before another one, or was not."""
    task_of(here.state, other_id)
    if task_id == other_id:
        raise InvalidUsage(f"{task_id} cannot be put before itself", hint="name two tasks of the run")
    both = (task_id, other_id)
    begun = {name: [one for one in evidence.of(name) if isinstance(one.event, ev.TaskStarted)] for name in both}
    # Of two that have started the first starts are compared; else the last one of that which has is why the other waits.
    place = 0 if all(begun.values()) else -1
    starts = {name: found[place] for name, found in begun.items() if found}
    began = min(starts, key=lambda name: starts[name].seq) if starts else None
    at = here
    if began is not None:  # What was decided before it in the same commit is in that state: the plan had seen it, too.
        seq = starts[began].seq - 1
        at = standpoint(projector, here.state.run_id, seq, starts[began].at_us)
    first, reason = _first_of(at, both, began)
    records = list(starts.values())
    records += [
        one for name in both if (one := evidence.last(name, (ev.TaskQueued, ev.TaskRetryScheduled))) is not None
    ]
    if reason.code not in _BY_RANK:
        held = other_id if first == task_id else task_id
        then = _Evidence(projector.log, at.state.run_id, at.state.seq)
        records += _events_of(then, at.state, held, reason)
    was = (
        ("was started" if first == task_id else "was not started")
        if began
        else "goes"
        if first == task_id
        else "does not go"
    )
    return {
        "code": reason.code, "why": f"{task_id} {was} before {other_id}: {reason.text}", "tasks": [other_id],
        "first": first, "asked_seq": at.state.seq, "events": _named(_in_order(evidence, records)),
    }  # fmt: skip


def _first_of(at: Standpoint, both: tuple[str, str], began: str | None) -> tuple[str, Reason]:
    """Which of two tasks came first, or will, and why: by the reason that held the other one, else by their ranks.

    Args:
        at: how the scheduler saw them when the first of them started; where none has, how it sees them now.
        began: the one that started first.
    """
    reasons = {name: why_not(at.state, name, at.facts, at.now_us) for name in both}
    better, by_rank = sooner(at.state, *both)
    for name in both if began is None else (both[0] if began == both[1] else both[1],):
        other = both[0] if name == both[1] else both[1]
        reason = reasons[name]
        if reason.code in _READY or (began is None and reasons[other].code not in _READY):
            continue
        over = at.state.tasks[name].status in (st.RUNNING, *st.ENDED)
        how = "was not waiting" if over else "could not start" if began else "cannot start"
        return other, Reason(reason.code, f"{name} {how} then: {reason.text}", reason.tasks)
    if began is not None and better != began:
        return began, reasons[better]._replace(
            text=f"{better} was held back: {reasons[better].text}; but {by_rank.text}"
        )
    return better, by_rank
