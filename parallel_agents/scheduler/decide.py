"""Commands into events, or an error for the caller. Pure: what was decided depends on the state and the arguments alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, UnknownTask, nearest
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.granting import Grant
from parallel_agents.scheduler.plan import Facts, stage_gates
from parallel_agents.scheduler.retry import JITTER, retries_left, retry_wait_s
from parallel_agents.scheduler.runners.protocol import NO_AGENTS, Ended

USED: Final = "used_s"
"""Among the facts of a decision: how long the run had been dispatched, in seconds."""
MAX_EXECUTION = "max_execution_time"
"""The reason of a run that was stopped because it ran longer than ``safetyFeatures.maxExecutionTime``."""
GATE_FAILED = "quality gate failed"
"""How the reason of a run begins that was stopped because its files did not pass a gate."""


def task_of(state: RunState, task_id: str) -> TaskState:
    """A task of the run.

    Raises:
        UnknownTask: the run holds no such task.
    """
    task = state.tasks.get(task_id)
    if task is None:
        raise UnknownTask(f"run {state.run_id} has no task {task_id!r}", hint=nearest(task_id, state.tasks))
    return task


def decide_start(
    state: RunState, task_id: str, attempt_id: str, runner: str, facts: Facts, granted: Grant | None = None,
    figures: Mapping[str, Any] | None = None,
) -> ev.TaskStarted:  # fmt: skip
    """Begin an attempt. The facts are those of the decision, so that it can be checked by a replay.

    Args:
        granted: how it starts, where it is an agent's.
        figures: of the machine, where it was asked.
    """
    known = {"run_slots": facts.run_slots, "store_slots": facts.store_slots, **(figures or {})}
    if granted is not None:
        return _agent_start(state, state.tasks[task_id], attempt_id, known, granted, facts.used_s)
    # Every field is ours: to have it validated takes twice as long, for every attempt.
    return ev.TaskStarted.trusted(
        {
            "task_id": task_id, "attempt_id": attempt_id, "attempt": state.tasks[task_id].attempts + 1, "runner": runner,
            "model": None, "base_commit": state.integration, "begin_commit": None,
            "facts": known, "model_reason": "",
            "reserved_usd_micros": None, "resumes": None, "role": "", "used_s": facts.used_s,
        }
    )  # fmt: skip


def _agent_start(
    state: RunState, task: TaskState, attempt_id: str, known: dict[str, Any], granted: Grant, used_s: float
) -> ev.TaskStarted:
    """An agent that goes on with a session finds its files as it left them."""
    goes_on = granted.resumes is not None and state.integration is not None
    limit = {} if granted.limit_usd_micros is None else {"limit_usd_micros": granted.limit_usd_micros}
    return ev.TaskStarted(
        task_id=task.task.task_id, attempt_id=attempt_id, attempt=task.attempts + 1, runner=granted.runner,
        model=granted.choice.model, model_reason=granted.choice.reason,
        base_commit=task.base_commit if goes_on else state.integration, begin_commit=task.kept_commit if goes_on else None,
        reserved_usd_micros=granted.reserve_usd_micros, resumes=granted.resumes, role=granted.role, used_s=used_s,
        facts={**known, **limit},
    )  # fmt: skip


def decide_end(
    state: RunState, ended: Ended, now_us: int, draw: float, *, commit: str | None = None, outcome: str = ""
) -> list[Event]:
    """What the end of an attempt means: its one end event, and the retry where there is one.

    Args:
        now_us: microseconds since the epoch.
        draw: in [0, 1), drawn once for the jitter.
        commit: the integration line with its work merged, where it succeeded and files are versioned.
        outcome: of a success, what is special about it.
    """
    task_id = state.running.get(ended.attempt_id)
    if task_id is None:
        raise AssertionError(f"attempt {ended.attempt_id} is not running in {state.run_id}")
    task = state.tasks[task_id]
    ended = _storable(ended)
    if task.cancel_requested or state.cancel_requested:
        if ended.outcome != "exited" or ended.error is not None:
            return [_cancelled(state, task, ended)]
    elif ended.outcome == "stopped":  # Nobody asked for it in the log: a stop of the whole process.
        ended = replace(ended, error=ended.error or "stopped")
    end = _end_event(task, ended, commit, outcome)
    if isinstance(end, ev.TaskCompleted):
        return [end]
    if isinstance(end, ev.AttemptLost) and not end.began:
        # Its dispatcher died in between. That is no failure of the task, and there is nothing to wait for.
        now = rfc3339(now_us)
        return [
            end,
            ev.TaskRetryScheduled(
                task_id=task_id, attempt_id=ended.attempt_id, failures=task.failures, not_before=now, wait_s=0.0,
                jitter_s=0.0,
            ),
        ]  # fmt: skip
    if no_fault(task, ended):
        return [end, *_again(state, task, ended, rfc3339(now_us))]
    failures = task.failures + 1
    policy = state.plan.settings.retry
    if not retries_left(failures, task.task.max_retries, policy, retryable=ended.retryable):
        return [end]
    wait_s = retry_wait_s(failures, policy)
    jitter_s = round(wait_s * JITTER * draw, 6)
    not_before = rfc3339(now_us + round((wait_s + jitter_s) * 1e6))
    retry = ev.TaskRetryScheduled(
        task_id=task_id, attempt_id=ended.attempt_id, failures=failures, not_before=not_before,
        wait_s=wait_s + jitter_s, jitter_s=jitter_s,
    )  # fmt: skip
    return [end, retry]


PAUSES = {
    "authentication": "its agent cannot authenticate",
    "spend_cap": "the account of its agent has no money left",
}
"""Failures that would meet whatever starts next as well, until a person has done something about it."""


def attributed(task: TaskState, ended: Ended) -> Ended:
    """The end of an agent's attempt that has not done what was asked for, such as an output or a gate: its own failure."""
    if ended.outcome != "exited" or ended.error is None or ended.kind or task.runner in (None, *NO_AGENTS):
        return ended
    return replace(ended, kind="agent")


def no_fault(task: TaskState, ended: Ended) -> bool:
    """Whether an attempt is made again without counting. Something else has to bound each of these."""
    if ended.free:
        return True  # Its runner is left alone for a while.
    match ended.kind:
        case "authentication" | "spend_cap":
            return True  # The run is paused.
        case "usage_limit":
            return ended.retryable and bool(ended.provider)  # Its provider is waited for.
        case "budget":
            return ended.retryable  # It has spent what there was.
        case "configuration":  # The session that it was to go on with is not there. The next one begins anew.
            return ended.retryable and task.resumed is not None
        case _:
            return False


def _again(state: RunState, task: TaskState, ended: Ended, now: str) -> list[Event]:
    task_id = task.task.task_id
    events: list[Event] = [
        ev.TaskRetryScheduled(
            task_id=task_id,
            attempt_id=ended.attempt_id,
            failures=task.failures,
            not_before=now,
            wait_s=0.0,
            jitter_s=0.0,
        )
    ]
    pause = decide_end_pause(state, task_id, ended.kind, ended.error)
    return events if pause is None else [*events, pause]


def decide_end_pause(state: RunState, task_id: str, kind: str, error: str | None) -> ev.RunPaused | None:
    """The pause of a run, where an attempt of it has met what would meet any other one as well.

    Args:
        kind, error: of its failure.
    """
    if kind not in PAUSES or state.status != st.RUNNING:
        return None
    return ev.RunPaused(reason=f"{task_id}: {PAUSES[kind]}: {error}", code=kind)


def storable_text(text: str) -> str:
    """A text that JSON can hold: names of files and arguments may be any bytes, which Python shows as surrogates."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _storable(ended: Ended) -> Ended:
    error, output = ended.error, ended.output
    if (error is None or error.isascii()) and (not isinstance(output, str) or output.isascii()):
        return ended
    output = storable_text(output) if isinstance(output, str) else output
    return replace(ended, error=error and storable_text(error), output=output)


def _duration_s(ended: Ended) -> float:
    return max(0, ended.ended_at_us - ended.started_at_us) / 1e6


def _cancelled(state: RunState, task: TaskState, ended: Ended) -> Event:
    reason = task.reason or (state.reason if state.cancel_requested else "")
    return ev.TaskCancelled(
        task_id=task.task.task_id, attempt_id=ended.attempt_id, reason=reason, duration_s=_duration_s(ended),
        **measured(ended),
    )  # fmt: skip


def measured(of: Ended | TaskState) -> dict[str, Any]:
    """What an attempt has used, as the events have it that end one."""
    return {
        "cpu_s": of.cpu_s, "peak_memory_bytes": of.peak_memory_bytes, "peak_cpu_percent": of.peak_cpu_percent,
        "peak_open_files": of.peak_open_files, "disk_written_bytes": of.disk_written_bytes,
    }  # fmt: skip


def _end_event(task: TaskState, ended: Ended, commit: str | None, outcome: str = "") -> Event:
    task_id, attempt_id, duration_s = task.task.task_id, ended.attempt_id, _duration_s(ended)
    if ended.outcome == "exited" and ended.error is None:
        body = {
            "task_id": task_id, "attempt_id": attempt_id, "duration_s": duration_s, "exit_code": ended.exit_code,
            "output": ended.output, **measured(ended), "commit": commit, "outcome": outcome,
        }  # fmt: skip
        # Only what a supervisor's file says can be anything else, and needs to be validated.
        told = (ended.exit_code, ended.cpu_s, ended.peak_memory_bytes, ended.disk_written_bytes)
        if tuple(map(type, told)) == _AS_IN_EVENTS:
            return ev.TaskCompleted.trusted(body)
        return ev.TaskCompleted(**body)
    if ended.outcome == "timed_out":
        return ev.TaskTimedOut(
            task_id=task_id, attempt_id=attempt_id, duration_s=duration_s, timeout_s=task.task.timeout_s,
            error=f"timed out after {task.task.timeout_s:g} s", **measured(ended),
        )  # fmt: skip
    if ended.outcome == "lost":
        error = ended.error or "its process vanished and left no result"
        return ev.AttemptLost(
            task_id=task_id,
            attempt_id=attempt_id,
            error=error,
            retryable=ended.retryable,
            began=ended.began,
            resumable=ended.resumable,
        )
    return ev.TaskFailed(
        task_id=task_id, attempt_id=attempt_id, duration_s=duration_s, error=ended.error or ended.outcome,
        exit_code=ended.exit_code, retryable=ended.retryable, output=ended.output, **measured(ended), kind=ended.kind,
        resumable=ended.resumable,
    )  # fmt: skip


_AS_IN_EVENTS = (int, float, int, int)


def decide_finish(state: RunState) -> Event | None:
    """The run's end, once every task has ended; None before that."""
    open_tasks = sum(state.counts[status] for status in (st.PENDING, st.QUEUED, st.RUNNING, st.BLOCKED))
    if state.ended or open_tasks or state.running:
        return None
    counts = {status: state.counts[status] for status in st.TASK_STATUSES if state.counts[status]}
    if state.cancel_requested and state.reason == MAX_EXECUTION:
        return ev.RunFailed(counts=counts, reason=MAX_EXECUTION, failed=_failed(state))
    if state.cancel_requested and state.reason.startswith(GATE_FAILED):
        return ev.RunFailed(counts=counts, reason=state.reason, failed=_failed(state))
    if state.cancel_requested:
        return ev.RunCancelled(counts=counts, reason=state.reason)
    if any(state.stage_failed.values()) or state.counts[st.SKIPPED]:
        return ev.RunFailed(counts=counts, failed=_failed(state))
    if stage_gates(state) and state.stages_passed < len(state.plan.stages):
        return None  # Its gates come first.
    return ev.RunCompleted(counts=counts)


def is_last(state: RunState, stage: int) -> bool:
    """Whether no stage comes after this one."""
    return stage == len(state.plan.stages) - 1


def _failed(state: RunState) -> list[str]:
    return [name for ids in state.stage_failed.values() for name in ids][:20]


def is_stuck(state: RunState) -> bool:
    """Whether only a person can go on: the run is paused and nothing runs, or all that is left is blocked."""
    if state.ended or state.running:
        return False
    if state.status == st.PAUSED:
        return not state.cancel_requested
    return state.counts[st.BLOCKED] > 0 and not state.cancel_requested and not _can_move(state)


def _can_move(state: RunState) -> bool:
    stage = next((number for number, open_tasks in enumerate(state.stage_open) if open_tasks), 0)
    return any(
        task.status in (st.PENDING, st.QUEUED) and task.open_dependencies == 0 and task.task.stage <= stage
        for task in state.tasks.values()
    )


def decide_overdue(state: RunState, used_us: int) -> ev.RunCancelRequested | None:
    """The stop of a run that has run longer than its settings allow.

    Args:
        used_us: how long it has been dispatched since its start or its last resume, in microseconds.
    """
    left = time_left_us(state, used_us)
    if left is None or left > 0:
        return None
    return ev.RunCancelRequested(reason=MAX_EXECUTION, facts={USED: used_us / 1e6})


def time_left_us(state: RunState, used_us: int) -> int | None:
    """How long a run may go on until ``max_execution_s``; None while it does not run, or only waits for a person."""
    if state.status != st.RUNNING or state.cancel_requested or state.active_since_us is None or is_stuck(state):
        return None
    return round(state.plan.settings.max_execution_s * 1e6) - used_us


def decide_pause(state: RunState, reason: str = "") -> list[Event]:
    """No task starts any more; running ones finish.

    Raises:
        NotAllowed: the run has ended, is being cancelled or is paused.
    """
    _refuse_ended(state, "paused")
    _refuse_cancelling(state)
    if state.status == st.PAUSED:
        raise NotAllowed(
            f"run {state.run_id} is paused already", hint=f"`parallel-agents resume {state.run_id}` goes on"
        )
    return [ev.RunPaused(reason=storable_text(reason))]


def decide_resume(state: RunState, reason: str = "") -> list[Event]:
    """Go on after a pause.

    Raises:
        NotAllowed: the run is not paused, or is being cancelled.
    """
    _refuse_ended(state, "resumed")
    _refuse_cancelling(state)
    if state.status != st.PAUSED:
        raise NotAllowed(f"run {state.run_id} is not paused: it is {state.status}")
    if state.restoring is not None:
        raise NotAllowed(
            f"the files of run {state.run_id} are still being taken back",
            hint=f"`parallel-agents resume {state.run_id}` at the command line ends that first",
        )
    return [ev.RunResumed(reason=storable_text(reason))]


def decide_cancel(state: RunState, reason: str = "", *, grace_s: float = 3.0) -> list[Event]:
    """End the whole run: what has not started never will, what runs is stopped.

    Args:
        grace_s: between asking the processes to end and killing them.
    Raises:
        NotAllowed: the run has ended.
    """
    _refuse_ended(state, "cancelled")
    if state.cancel_requested and grace_s > 0:
        raise NotAllowed(
            f"run {state.run_id} is being cancelled already", hint="`parallel-agents stop --now` does not wait"
        )
    return [ev.RunCancelRequested(reason=storable_text(reason), grace_s=grace_s)]


def decide_cancel_task(state: RunState, task_id: str, reason: str = "") -> list[Event]:
    """End one task. Its dependents will be skipped.

    Raises:
        UnknownTask, NotAllowed: there is no such task; it, or the run, has ended; it is being cancelled.
    """
    task = task_of(state, task_id)
    _refuse_ended(state, "changed")
    if task.status in st.ENDED:
        raise NotAllowed(f"task {task_id!r} has ended already: it is {task.status}")
    if task.status == st.RUNNING:
        if task.cancel_requested:
            raise NotAllowed(f"task {task_id!r} is being cancelled already")
        return [ev.TaskCancelRequested(task_id=task_id, reason=storable_text(reason))]
    return [cancelled_unstarted(task, storable_text(reason))]


def cancelled_unstarted(task: TaskState, reason: str) -> Event:
    """The end of a task of which nothing runs. Where an attempt's work waits for a person, it is that attempt's end."""
    waiting = task.status == st.BLOCKED and task.work_commit is not None
    return ev.TaskCancelled(
        task_id=task.task.task_id, attempt_id=task.attempt_id if waiting else None, reason=reason,
        duration_s=task.duration_s if waiting else None, **(measured(task) if waiting else {}),
    )  # fmt: skip


def decide_retry(state: RunState, task_ids: Sequence[str] = ()) -> list[Event]:
    """Open failed, cancelled or skipped tasks again, and what was skipped because of them.

    Args:
        task_ids: none means every task that failed or was cancelled.
    Raises:
        UnknownTask, NotAllowed: there is no such task; none of them can be retried; the run is being cancelled.
    """
    if not state.ended:
        _refuse_cancelling(state)
        if state.restoring is not None:
            raise NotAllowed(
                f"the files of run {state.run_id} are still being taken back", hint="say it again once that is done"
            )
    wanted = [task_of(state, name).task.task_id for name in task_ids]
    if not wanted:
        wanted = [name for name, task in state.tasks.items() if task.status in (st.FAILED, st.CANCELLED)]
    for name in wanted:
        status = state.tasks[name].status
        if status not in (st.FAILED, st.CANCELLED, st.SKIPPED):
            raise NotAllowed(
                f"task {name!r} cannot be retried: it is {status}", hint="only failed, cancelled or skipped ones"
            )
    if not wanted:
        raise NotAllowed(f"run {state.run_id} has no failed task to retry")
    opened = _with_skipped(state, wanted)
    ordered = sorted(opened, key=lambda name: state.tasks[name].index)
    events: list[Event] = [ev.TaskReopened(task_id=name, reason="retry") for name in ordered]
    if state.ended:
        events.append(ev.RunResumed(reason="retry"))
    return events


def _with_skipped(state: RunState, wanted: list[str]) -> set[str]:
    """The tasks and all that was skipped because of them, or must run for them to run."""
    stopped_by: dict[str, list[str]] = {}
    for name, task in state.tasks.items():
        if task.status == st.SKIPPED and task.reason == "fail_fast" and task.because:
            stopped_by.setdefault(task.because, []).append(name)
    opened: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in opened:
            continue
        opened.add(name)
        task = state.tasks[name]
        if task.status == st.SKIPPED:
            needed = (state.tasks[other] for other in task.task.dependencies)
            waiting += [o.task.task_id for o in needed if o.status in st.ENDED and not st.satisfies(o.task, o.status)]
            if task.reason == "fail_fast":
                waiting += _stopped_by(state, task)
        waiting += [other for other in state.dependents.get(name, ()) if state.tasks[other].status == st.SKIPPED]
        waiting += stopped_by.get(name, ())
    return opened


def _stopped_by(state: RunState, task: TaskState) -> list[str]:
    """What has failed in the stages before a task's own that fail fast, and would end it again."""
    stages, own = state.plan.stages, task.task.stage
    return [
        name
        for number, names in state.stage_failed.items()
        if number < own and stages[number].fail_fast and stages[number].phase == stages[own].phase
        for name in names
    ]


def _refuse_cancelling(state: RunState) -> None:
    if state.cancel_requested:
        raise NotAllowed(
            f"run {state.run_id} is being cancelled", hint=f"once it has ended, `parallel-agents retry {state.run_id}`"
        )


def _refuse_ended(state: RunState, what: str) -> None:
    if state.ended:
        hint = f"`parallel-agents retry {state.run_id}` opens what failed" if state.status != st.COMPLETED else ""
        raise NotAllowed(f"run {state.run_id} has ended and cannot be {what}: it is {state.status}", hint=hint)
