"""What can be seen of a store, as plain data: the JSON that scripts read and the command line draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from parallel_agents import moments
from parallel_agents.archived import at_hand, is_kept
from parallel_agents.attempt_details import details
from parallel_agents.attempt_files import CUT, cut_bytes
from parallel_agents.costs import usd
from parallel_agents.eventstore.errors import InvalidUsage, UnknownEvent, UnknownRun
from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import Recorded, Row, as_json, decode_brief, from_rfc3339, rfc3339
from parallel_agents.follow import POLL_S, wait_for_bell
from parallel_agents.held_back import money_and_waits
from parallel_agents.machine_waits import machine_waits
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import status as st
from parallel_agents.projections import timeline as timeline_fold
from parallel_agents.projections.at_hand import statuses
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import Projector, RunView, unknown_run
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.status import TaskState
from parallel_agents.projections.timeline import Span as Span
from parallel_agents.projections.timeline import timeline
from parallel_agents.projections.undone import undone_of, undone_spans
from parallel_agents.scheduler.decide import task_of
from parallel_agents.scheduler.decide_settling import looking_command, settling_command
from parallel_agents.scheduler.plan import outlook, why_not
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.scheduler.runners.folder import PROMPT
from parallel_agents.standpoint import facts_at, now_of

LATEST = "latest"


def resolve_run(log: Log, named: str | None, upto: int | None = None) -> str:
    """The run that a text means: an id, a unique prefix of one, ``latest``, or None (the latest).

    Raises:
        UnknownRun: there is none.
        InvalidUsage: the prefix fits several.
    """
    known = list(Projector(log).runs(upto))
    if named is None or named == LATEST:
        if not known and upto is not None:
            raise UnknownRun(f"the store held no run at event {upto}", hint="`parallel-agents runs` lists those of now")
        if not known:
            raise UnknownRun("the store holds no run yet", hint="`parallel-agents run PLAN` makes one")
        return known[-1]
    if named in known:
        return named
    fitting = [run_id for run_id in known if run_id.startswith(named)] if named else []
    if not fitting and named and upto is not None:
        later = [run_id for run_id in Projector(log).runs() if run_id.startswith(named)]
        named = later[0] if len(later) == 1 else named  # The error says that it had not begun.
    if len(fitting) > 1:
        shown = ", ".join(fitting[:5]) + (", ..." if len(fitting) > 5 else "")
        raise InvalidUsage(f"{named!r} fits {len(fitting)} runs", hint=f"type more of it: {shown}")
    if not fitting:
        raise unknown_run(log, named, upto)
    return fitting[0]


def elapsed_s(line: dict[str, Any], now_us: int | None = None) -> float | None:
    """Seconds from ``started_at`` to ``ended_at``, or to now while it runs; None before the start.

    Args:
        now_us: the moment that is looked at, where it is not this one.
    """
    if not line["started_at"]:
        return None
    end_us = from_rfc3339(line["ended_at"]) if line["ended_at"] else (now_us or wall_clock_us())
    return max(0, end_us - from_rfc3339(line["started_at"])) / 1e6


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def runs(log: Log, upto: int | None = None) -> list[dict[str, Any]]:
    """The list of runs, oldest first."""
    return [_run_line(summary) for summary in Projector(log).runs(upto).values()]


def _run_line(run: RunSummary) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "strategy": run.strategy,
        "tasks": run.task_count,
        "counts": run.counts,
        "submitted_at": _time(run.submitted_at_us),
        "started_at": _time(run.started_at_us),
        "ended_at": _time(run.ended_at_us),
        "holder": run.holder,
        "seq": run.seq,
    }


class TaskLines:
    """The tasks of ``status``, in the order of the plan, each made as it is gone to: a large run has too many to hold."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view.state.tasks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        view = self._view
        return (task_line(task, view.cost, view.state.run_id) for task in view.state.tasks.values())


def status(log: Log, run_id: str, upto: int | None = None) -> dict[str, Any]:
    """One run, with all of its tasks, as a reader saw it at a seq."""
    found = status_passing(log, run_id, upto)
    return {**found, "tasks": list(found["tasks"])}


def status_passing(log: Log, run_id: str, upto: int | None = None) -> dict[str, Any]:
    """The same, whose tasks are ``TaskLines``: the log is read as they are gone through."""
    projector = Projector(log)
    view = projector.view(run_id, upto)
    return {**_status_of(view, upto), **money_and_waits(projector, view.state, upto), **machine_waits(view.state)}


def standing(log: Log, run_id: str, upto: int | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """How a run stands, as ``status`` gives it but for its money; and the status of each task by name, none of which is made."""
    state = Projector(log).state(run_id, upto)
    return _status_of(RunView(state, Cost()), upto), dict(statuses(state))


def _status_of(view: RunView, at_seq: int | None) -> dict[str, Any]:
    state = view.state
    end_us = state.ended_at_us or wall_clock_us()
    return {
        "run_id": state.run_id,
        "name": state.name,
        "status": state.status,
        "seq": state.seq,
        "strategy": state.plan.strategy,
        "reason": state.reason,
        "counts": {name: state.counts[name] for name in st.TASK_STATUSES if state.counts[name]},
        "submitted_at": _time(state.submitted_at_us),
        "started_at": _time(state.started_at_us),
        "ended_at": _time(state.ended_at_us),
        "duration_s": _span_s(state.started_at_us, end_us if at_seq is None else state.ended_at_us),
        "max_parallel_agents": state.plan.settings.max_parallel_agents,
        "tasks": TaskLines(view),
        "cost_usd": usd(view.cost.usd_micros),
        "unknown_attempts": len(view.cost.unknown),  # What they cost is not in cost_usd: it is at least that much.
        "budget_usd": None if state.budget_usd_micros is None else usd(state.budget_usd_micros),
    }


def task_line(task: TaskState, cost: Cost, run_id: str) -> dict[str, Any]:
    """One task of ``status``."""
    spec = task.task
    return {
        "task_id": spec.task_id,
        "agent_type": spec.agent_type,
        "status": task.status,
        "priority": spec.priority,
        "dependencies": list(spec.dependencies),
        "attempts": task.attempts,
        "started_at": _time(task.started_at_us),
        "ended_at": _time(task.ended_at_us),
        "duration_s": task.duration_s,
        "cost_usd": usd(cost.by_task[spec.task_id]),
        "model": task.model,
        "checkpoint_id": task.checkpoint_id,
        "error": task.error,
        "exit_code": task.exit_code,
        "output": task.output,
        "because": task.because,
        "reason": task.reason,
        "not_before": _time(task.not_before_us),
        "attempt_id": task.attempt_id,
        "runner": task.runner or spec.runner,
        "failure_kind": task.failure_kind or None,
        "cpu_s": task.cpu_s,
        "peak_memory_bytes": task.peak_memory_bytes,
        "peak_cpu_percent": task.peak_cpu_percent,
        "peak_open_files": task.peak_open_files,
        "disk_written_bytes": task.disk_written_bytes,
        "work_commit": task.work_commit,
        "stuck": None if task.stuck is None else {**task.stuck, "at": rfc3339(task.stuck["at_us"])},
        "look": looking_command(run_id, task),
        "settle": settling_command(run_id, task),
    }


def _span_s(start_us: int | None, end_us: int | None) -> float | None:
    return None if start_us is None or end_us is None else (end_us - start_us) / 1e6


def queue(log: Log, run_id: str | None = None, upto: int | None = None) -> list[dict[str, Any]]:
    """What waits for a slot, in the order in which it will start, run by run, with the reason why it waits."""
    projector = Projector(log)
    end = log.last_seq() if upto is None else upto
    now_us = now_of(log, upto)
    slots = projector.occupancy(end)
    chosen = [run_id] if run_id is not None else [
        name for name, run in projector.runs(upto).items() if run.status not in st.ENDED
    ]  # fmt: skip
    lines = []
    for name in chosen:
        state = projector.state(name, end)
        facts = facts_at(projector, state, slots, now_us, end)
        seen = outlook(state, facts, now_us)
        waiting = [state.tasks[name] for name, status in statuses(state) if status == st.QUEUED]
        for position, task in enumerate(sorted(waiting, key=seen.rank), start=1):
            lines.append(
                {
                    "run_id": name,
                    "position": position,
                    "task_id": task.task.task_id,
                    "agent_type": task.task.agent_type,
                    "priority": task.task.priority,
                    "status": task.status,
                    "queued_at": _time(task.queued_at_us),
                    "not_before": _time(task.not_before_us),
                    "attempts": task.attempts,
                    "why": why_not(state, task.task.task_id, facts, now_us, seen).text,
                }
            )
    return lines


def timeline_of(log: Log, run_id: str, upto: int | None = None) -> list[dict[str, Any]]:
    """Every attempt of a run as a span of time, undone ones too."""
    return list(map(span_line, spans_of(log, run_id, upto)))


def timeline_passing(log: Log, run_id: str, upto: int | None = None) -> Iterator[dict[str, Any]]:
    """The same, each made as it is gone to."""
    return map(span_line, spans_of(log, run_id, upto))


def spans_of(log: Log, run_id: str, upto: int | None = None) -> list[Span]:
    """The same as the fold gives them.

    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq() if upto is None else upto
    if not log.has_begun(run_id, end):
        raise unknown_run(log, run_id, upto)
    rows = log.briefs(run_id, 0, end, where=_OF_SPANS)
    return timeline((decode_brief(run_id, row) for row in rows), undone_of(log, run_id, end))


_OF_SPANS = f"type IN {timeline_fold.FOLDED}"


def span_line(span: Span) -> dict[str, Any]:
    """One attempt of ``timeline``."""
    return {
        "task_id": span.task_id,
        "attempt_id": span.attempt_id,
        "attempt": span.attempt,
        "queued_at": _time(span.queued_at_us),
        "started_at": _time(span.started_at_us),
        "ended_at": _time(span.ended_at_us),
        "duration_s": _span_s(span.started_at_us, span.ended_at_us),
        "outcome": span.outcome,
        "undone": span.undone,
    }


def _prompt(log: Log, folder: Path) -> dict[str, Any]:
    """Where what an agent was told lies, if it is one's attempt and still there, or in an archive."""
    return {"prompt": str(folder / PROMPT) if is_kept(log.path, folder / PROMPT) else None}


def _cut_bytes(log: Log, folder: Path) -> dict[str, int]:
    with at_hand(log.path, folder, CUT) as there:
        return cut_bytes(there)


def prompt_of(log: Log, run_id: str, task_id: str, number: int | None = None, upto: int | None = None) -> str:
    """What an attempt of an agent was told, who it is included; the last attempt's where none is named.

    Raises:
        UnknownEvent: there is no such attempt, or nothing is left of what it was told.
    """
    found = attempt(log, run_id, task_id, number, upto)
    if found is None:
        raise UnknownEvent(f"task {task_id!r} has not been started yet", hint="its prompt is made when it starts")
    if found["prompt"] is None:
        raise UnknownEvent(f"attempt {found['attempt']} of task {task_id!r} has left no prompt", hint="agents have one")
    path = Path(found["prompt"])
    with at_hand(log.path, path.parent, path.name) as folder:
        return (folder / path.name).read_text("utf-8", "replace")


def _attempts(log: Log, run_id: str, task_id: str, records: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Every attempt of a task with its files."""
    folder = attempts_folder(log.path) / run_id / task_id
    more = details(records)
    return [
        {
            **span_line(span),
            "folder": str(folder / span.attempt_id),
            **_prompt(log, folder / span.attempt_id),
            "cut_bytes": _cut_bytes(log, folder / span.attempt_id),
            **more[span.attempt_id],
        }
        for span in timeline(records)
        if span.task_id == task_id
    ]


def show(log: Log, run_id: str, task_id: str, upto: int | None = None) -> dict[str, Any]:
    """One task's whole life: what it was asked, every attempt with its files, what became of it, and who waited for it."""
    from parallel_agents import task_life
    from parallel_agents.why import past_of

    end = log.last_seq() if upto is None else upto
    projector = Projector(log)
    state = projector.state(run_id, upto)
    task = task_of(state, task_id)
    spec = task.task
    records = projector.task_records(run_id, task_id, end)
    spans = undone_spans(log, end, run_id).get(run_id)
    return {
        "run_id": run_id,
        **task_line(task, reduce(cost_fold.fold, records, Cost()), run_id),
        "description": spec.description,
        "command": None if spec.command is None else list(spec.command),
        "runner": task.runner or spec.runner or ("shell" if spec.command else "python"),
        "tags": list(spec.tags),
        "outputs": list(spec.outputs),
        "timeout_s": spec.timeout_s,
        "max_retries": spec.max_retries,
        "allow_failure": spec.allow_failure,
        "stage": state.plan.stages[spec.stage].name,
        "workdir": state.workdir,
        "dependents": list(state.dependents.get(task_id, ())),
        "attempt_list": _attempts(log, run_id, task_id, records),
        "checkpoints": task_life.checkpoints_of(records, task_id, spans),
        "conflicts": task_life.conflicts_of(log, run_id, task_id, upto),
        "waited_for": task_life.waited_for(log, state, task_id, end, now_of(log, upto)),
        "past": past_of(log, run_id, task_id, end),
        "events": task_life.events_of(records, task_id, spans),
    }


def history_row(row: Row) -> dict[str, Any]:
    """One event of ``history --json``."""
    return as_json(row)


def fields_of(event: dict[str, Any]) -> dict[str, Any]:
    """What an event of ``history_row`` says, with the defaults of fields that the release which wrote it did not know."""
    known = EVENT_TYPES.get(event["type"])
    return {**(known.field_defaults if known else {}), **event["data"]}


def moment(log: Log, text: str | None) -> int | None:
    """The seq that ``--at`` names where it is about the whole store (see ``moments``); None where nothing was named."""
    return None if text is None else moments.in_store(log, text).seq


def moment_of_run(log: Log, text: str | None, run: str | None) -> int | None:
    """The same where it is about one run, whose checkpoint may be named.

    Args:
        run: what ``resolve_run`` takes; it is looked up only where the text is neither a number nor a time.
    """
    return None if text is None else moments.in_run(log, lambda: resolve_run(log, run), text).seq


def time_of(log: Log, seq: int | None) -> int | None:
    """When an event was appended, in microseconds; None for none."""
    row = None if seq is None else log.row(seq)
    return None if row is None else row.at_us


def time_text(at_us: int | None = None) -> str:
    """A moment as JSON has it; None is this one."""
    return rfc3339(wall_clock_us() if at_us is None else at_us)


def slots(log: Log) -> list[dict[str, Any]]:
    """Who holds the store's slots: one line a run, with whether a living process dispatches it."""
    projector = Projector(log)
    holders = {name: run.holder for name, run in projector.runs().items()}
    held = {name: len(attempts) for name, attempts in projector.occupancy().by_run.items() if attempts}
    return [
        {"run_id": name, "slots": count, "dispatched": (who := holders[name]) is not None and holder_alive(who)}
        for name, count in held.items()
    ]


def has_ended(log: Log, run_id: str) -> bool:
    """Whether a run has come to an end."""
    return Projector(log).runs()[run_id].status in st.ENDED


def running_count(log: Log, run_id: str) -> int:
    """How many attempts of a run are running."""
    return len(Projector(log).state(run_id).running)


def wait_ended(log: Log, run_ids: Sequence[str], *, timeout_s: float) -> list[str]:
    """Wait until runs have ended.

    Returns:
        Those that have not when the time is up.
    """
    deadline = time.monotonic() + timeout_s
    while left := [run_id for run_id in run_ids if not has_ended(log, run_id)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def undone(log: Log, upto: int | None = None, run_id: str | None = None) -> Callable[[str, int], bool]:
    """Tells of a run and a seq whether that event is undone, as of a moment.

    Args:
        run_id: only of this run; None: of all.
    """
    spans = undone_spans(log, log.last_seq() if upto is None else upto, run_id)
    return lambda run, seq: run in spans and spans[run].holds(seq)


def attempt(
    log: Log, run_id: str, task_id: str, number: int | None = None, upto: int | None = None
) -> dict[str, Any] | None:
    """An attempt of a task, as ``show`` lists it: the last one, or the one of a number; None before the first.

    Raises:
        UnknownTask: the run holds no such task.
        UnknownEvent: the task has no attempt of that number.
    """
    records = Projector(log).task_records(run_id, task_id, upto)
    task_of(Projector(log).state(run_id, upto), task_id)
    attempts = _attempts(log, run_id, task_id, records)
    if number is None:
        return attempts[-1] if attempts else None
    for one in reversed(attempts):
        if one["attempt"] == number:
            found: dict[str, Any] = one
            return found
    raise UnknownEvent(f"task {task_id!r} has no attempt {number}", hint=f"it has {len(attempts)}")


def wait_for_attempt(log: Log, run_id: str, task_id: str) -> dict[str, Any] | None:
    """Wait until a task has been started, and give its attempt; None where it has ended without one."""
    listener = log.doorbell.listen()
    try:
        while True:
            if (found := attempt(log, run_id, task_id)) is not None:
                return found
            if Projector(log).state(run_id).tasks[task_id].status in st.ENDED or has_ended(log, run_id):
                return None
            wait_for_bell(listener, POLL_S)
    finally:
        if listener is not None:
            listener.close()


def is_running(log: Log, run_id: str, attempt_id: str) -> bool:
    """Whether the log says that an attempt runs."""
    return attempt_id in Projector(log).state(run_id).running
