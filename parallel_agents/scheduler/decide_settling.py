"""What a person's answer to blocked work means: approvals, conflicts settled, and the run that goes on because of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import Event
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.decide import decide_end, is_stuck, measured, task_of
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.work import (
    CONFLICT,
    Clash,
    Gated,
    Work,
    clashes_of_merge,
    found_out,
    in_conflict,
    named,
)


def is_conflict(task: TaskState) -> bool:
    """Whether a task waits because its work does not merge."""
    return task.status == st.BLOCKED and task.work_commit is not None and task.reason.startswith(CONFLICT)


def awaits_result_approval(task: TaskState) -> bool:
    """Whether the work of a task waits for somebody to have looked at it."""
    return task.status == st.BLOCKED and task.work_commit is not None and not is_conflict(task)


def settling_command(run_id: str, task: TaskState) -> str | None:
    """The command line that settles what a blocked task waits for; None where it does not wait for a person."""
    if task.status != st.BLOCKED:
        return None
    verb, more = ("resolve", " --take SIDE") if is_conflict(task) else ("approve", "")
    return f"parallel-agents {verb} {run_id} {task.task.task_id}{more}"


def looking_command(run_id: str, task: TaskState) -> str | None:
    """The command line that shows what is to be settled; None where nothing has been done yet."""
    if is_conflict(task):
        return f"parallel-agents conflicts {run_id} --show"
    if awaits_result_approval(task) and task.base_commit is not None:
        return f"git diff {task.base_commit[:12]} {str(task.work_commit)[:12]}"
    return None


def waiting(state: RunState, task_id: str, commit: str | None) -> TaskState:
    """A task that waits for a person, with the work that the person has seen.

    Args:
        commit: of that work, at least its first four digits; None: whatever it is now.
    Raises:
        UnknownTask: the run holds no such task.
        NotAllowed: it does not wait, or its work is another one by now.
    """
    task = task_of(state, task_id)
    if state.ended or state.cancel_requested:
        how = f"it is {state.status}" if state.ended else "it is being cancelled"
        raise NotAllowed(f"nothing of run {state.run_id} waits for a person any more: {how}")
    if task.status != st.BLOCKED:
        raise NotAllowed(
            f"task {task_id!r} does not wait for a person: it is {task.status}",
            hint=f"`parallel-agents status {state.run_id}` shows what does",
        )
    if commit is not None and task.work_commit is None:
        raise NotAllowed(
            f"task {task_id!r} has done nothing yet, so there is no commit to approve", hint="leave --commit out"
        )
    if commit is not None and (len(commit) < 4 or not str(task.work_commit).startswith(commit.lower())):
        raise NotAllowed(
            f"the work of task {task_id!r} is {str(task.work_commit)[:12]}, not {commit[:40]}",
            hint=f"look at it: {looking_command(state.run_id, task) or 'git show'}",
        )
    return task


def decide_approve_start(state: RunState, task_id: str) -> list[Event]:
    """Let the next attempt of a task start: that one, and no later one.

    Raises:
        UnknownTask, NotAllowed: see ``waiting``; or it is work that waits, not a start.
    """
    task = waiting(state, task_id, None)
    if task.work_commit is not None:
        raise NotAllowed(f"task {task_id!r} has been started already: its work waits")
    approved = ev.TaskUnblocked(task_id=task_id, reason="approved", attempt=task.attempts + 1)
    return [approved, *_going_on(state, task_id, "approved")]


def decide_approve_result(state: RunState, task_id: str, work: Work, now_us: int) -> list[Event]:
    """What follows once the work of a task is approved: its end where it merges, else a conflict as at any merge.

    Args:
        work: with ``onto`` and ``merged`` or ``clashes``, of the integration line as the state has it, and ``gates``.
        now_us: microseconds since the epoch.
    Raises:
        UnknownTask, NotAllowed: see ``waiting``; or its work does not wait for an approval.
    """
    task = waiting(state, task_id, None)
    if is_conflict(task):
        raise NotAllowed(
            f"task {task_id!r} waits for its conflict to be resolved: {task.reason}",
            hint=f"`{settling_command(state.run_id, task)}`",
        )
    assert awaits_result_approval(task), "its start is approved by another decision"
    running, ended = _as_just_ended(state, task)
    events, clashes = found_out(task_id, ended.attempt_id, work), clashes_of_merge(state.plan.files, work)
    if clashes:
        events += in_conflict(running, task, ended, work, clashes, now_us, 0.0)
    else:
        events += decide_end(running, ended, now_us, 0.0, commit=work.merged)
    if any(isinstance(event, ev.TaskBlocked | ev.RunPaused) for event in events):
        return events
    return [*events, *_going_on(state, task_id, "approved")]


def decide_settled(
    state: RunState, task_id: str, commit: str, how: str, paths: Sequence[str], gates: Sequence[Gated] = ()
) -> list[Event]:
    """A conflict is settled: the task is completed with the merge, and the run goes on if it was paused by a conflict.

    Args:
        commit: the merge, on top of the integration line as the state has it.
        how: ours, theirs, both or files.
        paths: that were in conflict.
        gates: that were run on the merge.
    Raises:
        UnknownTask, NotAllowed: see ``waiting``; or the task waits for something else.
    """
    task = waiting(state, task_id, None)
    if not is_conflict(task):
        raise NotAllowed(
            f"task {task_id!r} waits for {task.reason}, not for a conflict to be resolved",
            hint=f"`{settling_command(state.run_id, task)}`",
        )
    running, ended = _as_just_ended(state, task)
    resolved = ev.ConflictResolved(
        task_id=task_id, how=how, attempt_id=task.attempt_id, commit=commit, paths=list(paths)
    )
    end = decide_end(running, ended, ended.ended_at_us, 0.0, commit=commit)
    checked = found_out(task_id, ended.attempt_id, Work("", commit=commit, gates=tuple(gates)))
    return [*checked, resolved, *end, *_going_on(state, task_id, f"{CONFLICT} resolved")]


def decide_widened(state: RunState, task_id: str, work: Work) -> list[Event]:
    """What is in conflict has become more since it was last told: the task still waits, and says so for the new paths.

    Args:
        work: with ``onto`` and ``clashes`` as they are now.
    Raises:
        UnknownTask, NotAllowed: see ``waiting``.
    """
    task = waiting(state, task_id, None)
    reason = f"{CONFLICT}: {named(work.clashes)}" + (f" with {work.other_task_id}" if work.other_task_id else "")
    return [
        ev.ConflictDetected(
            task_id=task_id, other_task_id=work.other_task_id, paths=[clash.path for clash in work.clashes],
            kinds=[clash.kind for clash in work.clashes], attempt_id=task.attempt_id, onto=work.onto,
            commit=task.work_commit, round=task.conflicts,
        ),
        ev.TaskBlocked(
            task_id=task_id, reason=reason, attempt_id=task.attempt_id, commit=task.work_commit, output=task.output,
            exit_code=task.exit_code, duration_s=task.duration_s, **measured(task),
        ),
    ]  # fmt: skip


def _as_just_ended(state: RunState, task: TaskState) -> tuple[RunState, Ended]:
    """The state and the end of an attempt as they were when it ended well, so that its end is decided as any other."""
    assert task.attempt_id is not None, "no work without an attempt"
    ended = Ended(
        task.attempt_id, "exited", exit_code=task.exit_code, output=task.output,
        ended_at_us=round((task.duration_s or 0.0) * 1e6), **measured(task),
    )  # fmt: skip
    return replace(state, running={**state.running, task.attempt_id: task.task.task_id}), ended


def _going_on(state: RunState, task_id: str, answer: str) -> list[Event]:
    """The run goes on, where nothing but what was answered now held it: the time that a person took is none of its own."""
    if _paused_by_conflict(state):
        held = any(is_conflict(other) for name, other in state.tasks.items() if name != task_id)
    else:
        held = state.status != st.RUNNING or not is_stuck(state)
    return [] if held else [ev.RunResumed(reason=f"{task_id}: {answer}")]


def _paused_by_conflict(state: RunState) -> bool:
    """Whether a run is paused because work did not merge, and for no other reason."""
    task_id, colon, reason = state.reason.partition(": ")
    return state.status == st.PAUSED and bool(colon) and task_id in state.tasks and reason.startswith(CONFLICT)


def clashes_of(task: TaskState) -> tuple[Clash, ...]:
    """What was last told of a task's conflict."""
    told = task.conflict or {}
    return tuple(map(Clash, told.get("paths", ()), told.get("kinds", ())))
