"""The state of one run: the fold that everybody stands on, from `status` to the scheduler.

Scope EFFECTIVE: it is given the history as rolled back (see ``effective``). A fold consumes its state: it changes the one
that it is given and returns it, so that an event costs what it changes and not the size of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import orjson

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.known_plans import KnownPlan, known_plan
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.eventstore.submission import NO_PLAN, Plan, Task, load_plan, plan_of, uncollected

NAME = "status"
VERSION = 5

PENDING, QUEUED, RUNNING, COMPLETED = "pending", "queued", "running", "completed"
FAILED, CANCELLED, SKIPPED, BLOCKED = "failed", "cancelled", "skipped", "blocked"
SUBMITTED, PAUSED = "submitted", "paused"
ENDED = frozenset({COMPLETED, FAILED, CANCELLED, SKIPPED})  # Of tasks; of runs without the last.
TASK_STATUSES = (PENDING, QUEUED, RUNNING, BLOCKED, COMPLETED, FAILED, CANCELLED, SKIPPED)

OWN = frozenset(
    {"", "agent", "no_change", "memory"}
)  # Failures of an attempt's own; of others than agents nobody tells more.
LOST = "infrastructure"  # What the loss of an attempt is.
DISK, CPU, MEMORY = "disk", "cpu", "memory"  # What the machine can be short of.


@dataclass(slots=True)
class TaskState:
    """One task of a run. Times are microseconds since the epoch, UTC."""

    task: Task
    index: int  # Position in the plan.
    open_dependencies: int  # How many of its dependencies are not satisfied yet.
    status: str = PENDING
    attempts: int = 0  # Started so far.
    failures: int = 0  # Failed since it was last opened; counts against max_retries.
    attempt_id: str | None = None  # The running one, else the last one.
    runner: str | None = None
    model: str | None = None
    queued_at_us: int | None = None
    not_before_us: int | None = None
    started_at_us: int | None = None  # Of the last attempt.
    ended_at_us: int | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    error: str | None = None
    output: Any = None
    because: str | None = None  # The task that failed, where this one was skipped.
    reason: str = ""  # Why it was skipped, cancelled or blocked.
    checkpoint_id: str | None = None
    cancel_requested: bool = False
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_cpu_percent: float = 0.0
    peak_open_files: int = 0
    disk_written_bytes: int = 0
    base_commit: str | None = None  # Where the last attempt's files started from.
    work_commit: str | None = None  # What a blocked attempt has left, which waits to be merged.
    approved_attempt: int | None = None  # The number of the attempt that a person has let start.
    conflicts: int = 0  # Attempts that ended in a conflict, since it was last opened.
    conflict: dict[str, Any] | None = None  # The last of them: other_task_id, paths, onto and commit.
    failure_kind: str = ""  # Of an agent's last attempt, where that failed; one of ``runners.protocol.FAILURES``.
    role: str = ""  # The agent type of the last attempt, where it was not the task's own.
    resumes: str | None = None  # The failed attempt whose session the next one can go on with.
    resumed: str | None = None  # The attempt whose session the last one goes on with.
    before: str | None = None  # Why the attempt before the last one failed.
    lesson: dict[str, Any] | None = None  # The last failure that was an attempt's own: error, output, changed.
    limit_usd_micros: int | None = None  # What the last attempt may spend.
    begin_commit: str | None = None  # Whose files the last attempt began with, where that is not its base.
    kept_commit: str | None = None  # What the last attempt has left, where that was kept.
    changed: list[str] | None = None  # The first of the paths that it changed.
    stuck: dict[str, Any] | None = (
        None  # That the running attempt looks stuck: at_us, kind, silent_s, reason, last_output.
    )


@dataclass(slots=True)
class RunState:
    """One run as of ``seq``.

    ``touched`` and ``broken`` name the tasks that changed since the scheduler last looked; they are no part of a snapshot.
    """

    run_id: str
    seq: int = 0
    version: int = 0
    name: str = ""
    status: str = ""
    plan_digest: str = ""
    plan: Plan = NO_PLAN
    workdir: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    callables: bool = False
    repository: str | None = None
    base_commit: str | None = None  # Where its files started from; None where they are not versioned.
    integration: str | None = None  # The commit that holds all merged work: where the next attempt starts from.
    stages_passed: int = 0  # Stages whose end has its checkpoint.
    before_run: str | None = None  # The checkpoint of its start.
    last_stage: tuple[str, str | None] | None = None  # The newest checkpoint of a stage's end, or that of its start.
    restoring: str | None = None  # A commit that the shared directory is being made equal to.
    merged_into: str | None = None  # The user's branch that the result was last brought to.
    throttled: dict[str, str] = field(
        default_factory=dict
    )  # What the machine is short of (disk, cpu, memory), and the words.
    workers: int | None = None  # What the pool of workers was scaled to since the last resume; None: nothing has yet.
    workers_grew: bool = False  # Whether the last change of that was upwards.
    workers_wait_s: float = 0.0  # Of calm, before the next one upwards.
    workers_at_us: int | None = None  # When it was.
    budget_usd_micros: int | None = None
    task_budgets: dict[str, int | None] = field(default_factory=dict)  # Where somebody has set another one, by task.
    submitted_at_us: int = 0
    started_at_us: int | None = None
    active_since_us: int | None = None  # Since the last start or resume; max_execution_s counts from here.
    used_us: int = 0  # How long it has been dispatched since then, as far as events tell.
    ended_at_us: int | None = None
    reason: str = ""
    pause_code: str = ""  # Why it is paused, where a script can do something about it.
    cancel_requested: bool = False
    grace_s: float = 3.0  # Of the cancellation.
    tasks: dict[str, TaskState] = field(default_factory=dict)
    dependents: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # Tasks by status.
    stage_open: list[int] = field(default_factory=list)  # Tasks not ended, by stage.
    stage_failed: dict[int, list[str]] = field(default_factory=dict)  # Tasks failed for good, in that order, by stage.
    running: dict[str, str] = field(default_factory=dict)  # Attempt id -> task id.
    touched: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)  # Touched, and ended in a way that its dependents cannot follow.

    @property
    def ended(self) -> bool:
        """Whether the run has come to an end (a retry or a rollback may open it again)."""
        return self.status in ENDED


BORNE = (FAILED, CANCELLED)
"""What the dependents of a task bear that may fail."""


def satisfies(task: Task, status: str) -> bool:
    """Whether a dependency in this status lets its dependents start."""
    return status == COMPLETED or (task.allow_failure and status in BORNE)


def initial(run_id: str) -> RunState:
    """The state before the first event."""
    return RunState(run_id)


def fold(state: RunState, record: Recorded, blob: Callable[[str], bytes]) -> RunState:
    """The state after one more event.

    Args:
        blob: content by digest; content-addressed, hence still a function of the event alone.
    """
    event = record.event
    match event:
        case ev.CostCharged():  # Folded by cost; first here, because there is one for every attempt.
            pass
        case ev.TaskQueued(task_id=task_id):
            task = state.tasks[task_id]
            task.queued_at_us = record.at_us
            if event.reason:  # Requeued by a rollback: the attempt that ran is no longer ours.
                state.running.pop(task.attempt_id or "", None)
                task.started_at_us = task.stuck = None
            _move(state, task, QUEUED)
        case ev.TaskStarted(task_id=task_id):
            _started(state, state.tasks[task_id], event, record.at_us)
        case ev.TaskCompleted(task_id=task_id):
            task = state.tasks[task_id]
            task.exit_code, task.output, task.error = event.exit_code, event.output, None
            _measured(task, event)
            if event.commit is not None:
                state.integration, task.conflict = event.commit, None
            _end_attempt(state, task, event.attempt_id, COMPLETED, record.at_us)
        case ev.TaskFailed(task_id=task_id):
            task = state.tasks[task_id]
            task.exit_code, task.output, task.error = event.exit_code, event.output, event.error
            task.failure_kind, task.resumes = event.kind, event.attempt_id if event.resumable else None
            _measured(task, event)
            task.failures += 1
            _end_attempt(state, task, event.attempt_id, FAILED, record.at_us)
        case ev.TaskTimedOut(task_id=task_id):
            task = state.tasks[task_id]
            task.exit_code, task.output, task.error = None, None, event.error
            _measured(task, event)
            task.failures += 1
            _end_attempt(state, task, event.attempt_id, FAILED, record.at_us)
        case ev.AttemptLost(task_id=task_id):
            task = state.tasks[task_id]
            task.exit_code, task.error, task.failure_kind = None, event.error, LOST
            task.resumes = event.attempt_id if event.resumable else None
            if not event.began:  # What it was to go on with is as it was.
                task.resumes, task.kept_commit = task.resumed, task.begin_commit
            task.duration_s = _elapsed_s(task.started_at_us, record.at_us)
            task.failures += event.began
            _end_attempt(state, task, event.attempt_id, FAILED, record.at_us)
        case ev.TaskRetryScheduled(task_id=task_id):
            task = state.tasks[task_id]
            task.not_before_us, task.queued_at_us = from_rfc3339(event.not_before), record.at_us
            task.failures = event.failures  # A conflict that is run again counts as no failure.
            task.ended_at_us = None
            _move(state, task, QUEUED)
        case ev.TaskCancelRequested(task_id=task_id):
            state.tasks[task_id].cancel_requested, state.tasks[task_id].reason = True, event.reason
            state.touched.add(task_id)
        case ev.TaskCancelled(task_id=task_id):
            task = state.tasks[task_id]
            task.reason = event.reason
            if event.attempt_id is not None:
                _measured(task, event)
            _end_attempt(state, task, event.attempt_id, CANCELLED, record.at_us)
        case ev.TaskSkipped(task_id=task_id):
            task = state.tasks[task_id]
            task.because, task.reason, task.ended_at_us = event.because, event.reason, record.at_us
            _move(state, task, SKIPPED)
        case ev.TaskReopened(task_id=task_id):
            task = state.tasks[task_id]
            task.failures, task.because, task.reason, task.error = 0, None, "", None
            task.not_before_us = task.ended_at_us = task.work_commit = task.approved_attempt = None
            task.cancel_requested, task.conflicts, task.conflict = False, 0, None
            state.stages_passed = min(state.stages_passed, task.task.stage)
            _move(state, task, PENDING)
            needed = (state.tasks[name] for name in task.task.dependencies)
            state.broken.update(o.task.task_id for o in needed if o.status in ENDED and not satisfies(o.task, o.status))
        case ev.TaskBlocked(task_id=task_id):
            _blocked(state, state.tasks[task_id], event)
        case ev.TaskUnblocked(task_id=task_id):
            task = state.tasks[task_id]
            task.reason, task.approved_attempt = "", event.attempt
            _move(state, task, PENDING)
        case ev.ConflictDetected(task_id=task_id):
            if not event.early:
                task = state.tasks[task_id]
                task.conflicts = event.round
                task.conflict = {
                    "other_task_id": event.other_task_id, "paths": event.paths, "kinds": event.kinds,
                    "onto": event.onto, "commit": event.commit,
                }  # fmt: skip
        case ev.CheckpointCreated():
            if event.task_id is not None and event.task_id in state.tasks:
                task = state.tasks[event.task_id]
                task.checkpoint_id = event.checkpoint_id
                if event.kind == "after_attempt" and event.attempt_id == task.attempt_id:
                    task.kept_commit, task.changed = event.commit, event.paths or None
            if event.kind == "before_run":
                state.before_run, state.last_stage = event.checkpoint_id, (event.checkpoint_id, event.commit)
            if event.stage is not None:
                state.stages_passed = max(state.stages_passed, event.stage + 1)
                state.last_stage = (event.checkpoint_id, event.commit)
        case ev.AttemptStuck(task_id=task_id):
            task = state.tasks[task_id]
            if task.status == RUNNING and task.attempt_id == event.attempt_id:  # Else it has ended meanwhile.
                task.stuck = {
                    "at_us": record.at_us, "kind": event.kind, "silent_s": event.silent_s, "reason": event.reason,
                    "last_output": event.last_output,
                }  # fmt: skip
        case ev.AttemptRevived(task_id=task_id):
            state.tasks[task_id].stuck = None
        case ev.RunSubmitted():
            _submitted(state, event, record.at_us, plan_of(event.plan_digest, blob))
        case ev.RunForked():
            if event.state_digest:  # Release 0.1.0 knew the name of the event, and no way to make it.
                _forked(state, event, record.at_us, blob)
        case _:
            _run_level(state, record)
    state.seq, state.version = record.seq, record.version
    return state


def _run_level(state: RunState, record: Recorded) -> None:
    match record.event:
        case ev.RunStarted():
            state.status = RUNNING
            state.started_at_us = state.started_at_us or record.at_us
            state.active_since_us, state.used_us = record.at_us, 0
        case ev.RunPaused(reason=reason):
            state.status, state.reason, state.pause_code = PAUSED, reason, record.event.code
        case ev.RunResumed():
            state.pause_code = ""
            state.status = RUNNING if state.started_at_us is not None else SUBMITTED
            state.reason, state.ended_at_us, state.cancel_requested = "", None, False
            state.active_since_us, state.used_us, state.workers = record.at_us, 0, None
        case ev.RunCancelRequested(reason=reason):
            state.cancel_requested, state.reason, state.grace_s = True, reason, record.event.grace_s
        case ev.RunCompleted():
            state.status, state.ended_at_us = COMPLETED, record.at_us
        case ev.RunFailed(reason=reason):
            state.status, state.reason, state.ended_at_us = FAILED, reason, record.at_us
        case ev.RunCancelled(reason=reason):
            state.status, state.reason, state.ended_at_us = CANCELLED, reason, record.at_us
        case ev.RunMoved():
            state.workdir, state.repository = record.event.workdir, record.event.repository
        case ev.RunReleased(used_s=used_s):
            state.used_us = round(used_s * 1e6)
        case ev.RunClaimed() | ev.RunRolledBack():
            pass  # Leases are folded by occupancy, rollbacks by effective.
        case ev.CheckpointRestored(commit=commit):
            state.integration, state.restoring = commit or state.integration, None
        case ev.FilesRestoring(commit=commit):
            state.restoring = commit
        case ev.RunMerged(into=into):
            state.merged_into = into
        case ev.BudgetThresholdReached() | ev.BudgetExceeded() | ev.ResultDiscarded() | ev.SecretScrubbed():
            pass  # Folded by cost and occupancy, in scope ALL.
        case ev.ProviderLimited() | ev.ProviderFreed() | ev.ToolsDenied():
            pass  # Folded by cost and occupancy, in scope ALL.
        case ev.RunnerFailed() | ev.CircuitOpened() | ev.CircuitHalfOpened() | ev.CircuitClosed():
            pass  # Of no run; folded by circuits.
        case ev.ConflictResolved() | ev.GateChecked() | ev.SharedStateChanged():
            pass  # What they led to is in the events of the task.
        case ev.BudgetChanged(scope=scope):
            if scope == "run":
                state.budget_usd_micros = record.event.budget_usd_micros
            else:
                state.task_budgets[scope.removeprefix("task:")] = record.event.budget_usd_micros
        case ev.PlanScheduled() | ev.ScheduleFired() | ev.ScheduleSkipped() | ev.ScheduleRemoved() | ev.RunArchived():
            pass  # Of no run.
        case ev.CheckpointsDropped():
            pass  # The files of the past, not where the run stands.
        case ev.DispatchThrottled(reason=reason):
            state.throttled[record.event.code or DISK] = reason
        case ev.DispatchUnthrottled(code=code):
            state.throttled.pop(code or DISK, None)
        case ev.WorkersScaled(workers=workers):
            state.workers_grew = state.workers is not None and workers > state.workers
            state.workers, state.workers_wait_s = workers, record.event.wait_s
            state.workers_at_us = record.at_us
        case _:
            raise AssertionError(f"status does not fold {type(record.event).__name__}")


def submitted(state: RunState, event: ev.RunSubmitted, at_us: int, plan: Plan) -> None:
    """What a submission says of the run as a whole."""
    state.name, state.status, state.plan, state.plan_digest = event.name, SUBMITTED, plan, event.plan_digest
    state.workdir, state.environment, state.callables = event.workdir, event.environment, event.callables
    state.budget_usd_micros, state.submitted_at_us = event.budget_usd_micros, at_us
    state.repository, state.base_commit, state.integration = event.repository, event.base_commit, event.base_commit
    state.counts[PENDING] = len(plan.tasks)


def _submitted(state: RunState, event: ev.RunSubmitted, at_us: int, plan: Plan) -> None:
    submitted(state, event, at_us, plan)
    state.stage_open = [0] * len(plan.stages)
    dependents: dict[str, list[str]] = {}
    with uncollected():
        for index, task in enumerate(plan.tasks):
            task_id, needed = task.task_id, task.dependencies
            state.tasks[task_id] = TaskState(task, index, len(needed))
            state.stage_open[task.stage] += 1
            for name in needed:
                dependents.setdefault(name, []).append(task_id)
    state.dependents = dependents
    state.touched.update(state.tasks)


def _forked(state: RunState, event: ev.RunForked, at_us: int, blob: Callable[[str], bytes]) -> None:
    """Take the parent's state there, with a plan of its own. What ran there is running here only until it is queued again."""
    parent, tasks = load(state.run_id, blob(event.state_digest), blob), state.tasks
    for name in RunState.__slots__:
        setattr(state, name, getattr(parent, name))
    tasks.update(parent.tasks)
    state.tasks = tasks  # Whoever folds has this one at hand.
    plan = load_plan(blob(event.plan_digest))
    for task, spec in zip(state.tasks.values(), plan.tasks, strict=True):
        if spec.budget_usd_micros != task.task.budget_usd_micros:
            state.task_budgets.pop(spec.task_id, None)  # The fork sets one of its own.
        task.task, task.resumes = spec, None  # The sessions of its attempts are its parent's.
    state.plan, state.plan_digest, state.name = plan, event.plan_digest, event.name
    state.base_commit, state.submitted_at_us, state.merged_into = state.integration, at_us, None
    state.workers = None  # Whatever the machine could bear then.
    state.started_at_us = event.started_at_us  # None where it goes on: its time is its own.
    state.touched.update(state.tasks)


def _blocked(state: RunState, task: TaskState, event: ev.TaskBlocked) -> None:
    task.reason, task.work_commit = event.reason, event.commit
    if event.attempt_id is not None:
        state.running.pop(event.attempt_id, None)
        task.exit_code, task.output, task.error = event.exit_code, event.output, None
        _measured(task, event)
        task.cancel_requested, task.stuck = False, None
    _move(state, task, BLOCKED)


def _measured(
    task: TaskState, event: ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.TaskCancelled | ev.TaskBlocked
) -> None:
    task.duration_s, task.cpu_s, task.peak_memory_bytes = event.duration_s, event.cpu_s, event.peak_memory_bytes
    task.peak_cpu_percent, task.peak_open_files = event.peak_cpu_percent, event.peak_open_files
    task.disk_written_bytes = event.disk_written_bytes


def _started(state: RunState, task: TaskState, event: ev.TaskStarted, at_us: int) -> None:
    task.attempts, task.attempt_id = event.attempt, event.attempt_id
    task.runner, task.model, task.base_commit = event.runner, event.model, event.base_commit
    task.before = task.error
    if task.error is not None:
        learn(task)
    task.failure_kind, task.role, task.resumed = "", event.role, event.resumes
    task.limit_usd_micros = event.facts.get("limit_usd_micros")
    task.resumes = task.kept_commit = task.changed = None
    task.begin_commit = event.begin_commit
    task.work_commit = task.approved_attempt = None
    task.started_at_us, task.ended_at_us, task.duration_s, task.not_before_us = at_us, None, None, None
    task.cancel_requested, task.stuck = False, None
    state.running[event.attempt_id] = event.task_id
    state.used_us = round(event.used_s * 1e6)
    _move(state, task, RUNNING)


def learn(task: TaskState) -> None:
    """Keep what an attempt has done wrong for those after it. What befell it from outside is nothing to learn from."""
    if task.error is not None and task.failure_kind in OWN and (task.failure_kind or task.conflict is None):
        task.lesson = {"error": task.error, "output": task.output, "changed": task.changed}


def _end_attempt(state: RunState, task: TaskState, attempt_id: str | None, status: str, at_us: int) -> None:
    if attempt_id is not None:
        state.running.pop(attempt_id, None)
    if task.cancel_requested and status != CANCELLED:
        task.reason = ""  # It ended before it could be stopped.
    task.ended_at_us, task.cancel_requested, task.work_commit, task.stuck = at_us, False, None, None
    _move(state, task, status)


def _move(state: RunState, task: TaskState, status: str) -> None:
    """Change a status, and what hangs on it: counts, the dependents' open dependencies, the stage."""
    before, spec = task.status, task.task
    task_id = spec.task_id
    state.touched.add(task_id)
    if before == status:
        return
    counts = state.counts
    counts[before] -= 1
    counts[status] += 1
    if before not in ENDED and status not in ENDED:
        task.status = status
        return
    if task_id in state.dependents:
        if (change := satisfies(spec, status) - satisfies(spec, before)) != 0:
            for name in state.dependents[task_id]:  # One that is made only now counts by the status before.
                state.tasks[name].open_dependencies -= change
                state.touched.add(name)
        elif status in ENDED:
            state.broken.add(task_id)
    task.status = status
    stage = spec.stage
    state.stage_open[stage] += (before in ENDED) - (status in ENDED)
    if status == FAILED and not spec.allow_failure:
        state.stage_failed.setdefault(stage, []).append(spec.task_id)
    elif before == FAILED and not spec.allow_failure:
        state.stage_failed[stage].remove(spec.task_id)
        if not state.stage_failed[stage]:
            del state.stage_failed[stage]


def _elapsed_s(start_us: int | None, end_us: int) -> float:
    return 0.0 if start_us is None else (end_us - start_us) / 1e6


TASK_FIELDS = tuple(
    name
    for name in TaskState.__slots__
    if name not in ("task", "index", "open_dependencies")  # Derived from the plan.
)
_TASK_BLANK = tuple(TaskState.__dataclass_fields__[name].default for name in TASK_FIELDS)
task_values = attrgetter(*TASK_FIELDS)
_RUN_FIELDS = (
    "seq", "version", "name", "status", "plan_digest", "workdir", "environment", "callables", "budget_usd_micros",
    "submitted_at_us", "started_at_us", "active_since_us", "used_us", "ended_at_us", "reason",
    "cancel_requested", "grace_s", "running", "repository", "base_commit", "integration", "stages_passed", "merged_into",
    "before_run", "last_stage", "restoring", "throttled", "task_budgets", "pause_code",
    "workers", "workers_grew", "workers_wait_s", "workers_at_us",
)  # fmt: skip


def run_values(state: RunState) -> dict[str, Any]:
    """What a snapshot holds of the run as a whole."""
    return {name: getattr(state, name) for name in _RUN_FIELDS}


def set_run_values(state: RunState, raw: Mapping[str, Any]) -> None:
    """Set what ``run_values`` gave; some of it was taken by versions that knew less."""
    for name in _RUN_FIELDS:
        if name in raw:
            setattr(state, name, raw[name])
    if not isinstance(state.throttled, dict):  # Until version 4 there was only the disk to be short of.
        state.throttled = {} if state.throttled is None else {DISK: state.throttled}
    state.last_stage = None if state.last_stage is None else (state.last_stage[0], state.last_stage[1])


def task_of(spec: Task, index: int, values: Sequence[Any]) -> TaskState:
    """A task by what ``task_values`` gave, but for its open dependencies."""
    return TaskState(spec, index, 0, *values)


def set_task_values(state: RunState, task: TaskState, fields: Sequence[str] | None, values: Any) -> None:
    """Set what a snapshot holds of a task. Until version 2 each had its fields by name; what a fork began from may be of then."""
    named = dict(values if fields is None else zip(fields, values, strict=True))
    _move(state, task, named.pop("status", PENDING))
    for name, value in named.items():
        setattr(task, name, value)


def derive(state: RunState) -> None:
    """Work out anew what follows from the statuses of tasks. What has failed, and in which order, does not."""
    counts: Counter[str] = Counter()
    stage_open = [0] * len(state.stage_open)
    running: dict[str, str] = {}
    tasks = state.tasks
    for name, task in tasks.items():
        status, spec = task.status, task.task
        counts[status] += 1
        if status not in ENDED:
            stage_open[spec.stage] += 1
            if status == RUNNING and task.attempt_id is not None:
                running[task.attempt_id] = name
        if spec.dependencies:
            needed = [tasks[other] for other in spec.dependencies]
            task.open_dependencies = sum(not satisfies(other.task, other.status) for other in needed)
    state.counts, state.stage_open, state.running = counts, stage_open, running
    state.touched.update(tasks)


def whole_values(state: RunState) -> dict[str, Any]:
    """What a whole snapshot holds besides the tasks."""
    failed = {str(stage): task_ids for stage, task_ids in state.stage_failed.items()}
    return {**run_values(state), "fields": TASK_FIELDS, "stage_failed": failed}


def dump(state: RunState) -> bytes:
    """A snapshot: JSON of what the plan's blob does not say."""
    tasks = {task_id: values for task_id, task in state.tasks.items() if (values := task_values(task)) != _TASK_BLANK}
    return orjson.dumps({**whole_values(state), "tasks": tasks})


def load(run_id: str, snapshot: bytes, blob: Callable[[str], bytes]) -> RunState:
    """The state of a snapshot; what hangs on the statuses is derived again."""
    raw = orjson.loads(snapshot)
    state = RunState(run_id)
    if raw["plan_digest"] and tuple(raw.get("fields") or ()) == TASK_FIELDS:
        _set_tasks(state, raw["tasks"], known_plan(raw["plan_digest"], blob))
    elif raw["plan_digest"]:
        submitted = ev.RunSubmitted.trusted({name: raw[name] for name in ("name", "plan_digest", "workdir")})
        _submitted(state, submitted, raw["submitted_at_us"], load_plan(blob(raw["plan_digest"])))
        for task_id, values in raw["tasks"].items():
            set_task_values(state, state.tasks[task_id], raw.get("fields"), values)
    set_run_values(state, raw)
    state.stage_failed = {int(stage): task_ids for stage, task_ids in raw["stage_failed"].items()}
    return state


def _set_tasks(state: RunState, stored: Mapping[str, Sequence[Any]], known: KnownPlan) -> None:
    """The tasks of a snapshot whose fields are those of today, without a call for each value."""
    state.plan, state.dependents, state.stage_open = known.plan, known.dependents, [0] * len(known.plan.stages)
    with uncollected():
        for index, task in enumerate(known.plan.tasks):
            values = stored.get(task.task_id, ())
            state.tasks[task.task_id] = TaskState(task, index, len(task.dependencies), *values)
    derive(state)
    ended = ((task_id, task) for task_id, task in state.tasks.items() if task.status in ENDED)
    state.broken = {name for name, o in ended if name in state.dependents and not satisfies(o.task, o.status)}
