"""Reads a log event by event and objects to whatever the design forbids. It knows nothing of folds or plans of ours."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.eventstore.submission import Plan, Task, load_plan

TASK_ENDED = ("completed", "failed", "cancelled", "skipped")
RUN_ENDED = ("completed", "failed", "cancelled")
END_OF_ATTEMPT = (
    ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.AttemptLost, ev.ResultDiscarded,
)  # fmt: skip


@dataclass
class TaskNow:
    """One task as of an event."""

    task: Task
    status: str = "pending"
    attempt_id: str | None = None
    failures: int = 0
    not_before_us: int = 0
    attempts: int = 0
    approved: int | None = None  # The number of the attempt that a person let start.

    @property
    def may_start(self) -> bool:
        """Whether no person has to be asked."""
        return self.task.approval != "required" or self.approved == self.attempts + 1


@dataclass
class RunNow:
    """One run as of an event; what a rollback takes back."""

    status: str = "submitted"
    cancelling: bool = False
    started: bool = False
    tasks: dict[str, TaskNow] = field(default_factory=dict)

    def of(self, *statuses: str) -> list[str]:
        """The tasks in one of these statuses."""
        return [name for name, task in self.tasks.items() if task.status in statuses]

    def satisfied(self, name: str) -> bool:
        """Whether what depends on a task may start."""
        task = self.tasks[name]
        return task.status == "completed" or (task.task.allow_failure and task.status in ("failed", "cancelled"))


@dataclass
class RunHistory:
    """One run, its plan, and how it stood after each of its events."""

    plan: Plan
    now: RunNow
    holder: str | None = None
    after: dict[int, RunNow] = field(default_factory=dict)


class Referee:
    """Follows one log. ``look`` reads what is new and checks it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.runs: dict[str, RunHistory] = {}
        self.slots: dict[str, tuple[str, str]] = {}  # Attempt id -> run and task; rollbacks take no slot back.
        self.attempts: set[str] = set()
        self.seen = 0
        self._at_us = 0
        self.set_back_us = 0  # By how much in all somebody has set the clock back.
        self._before: Recorded | None = None

    def look(self) -> None:
        """Check every new event."""
        for record in self.log.read(self.seen):
            assert record.seq == self.seen + 1
            assert record.at_us >= self._at_us, "time went back"
            self.seen, self._at_us = record.seq, record.at_us
            if isinstance(record.event, ev.RunSubmitted):
                plan = load_plan(self.log.blob(record.event.plan_digest))
                tasks = {task.task_id: TaskNow(task) for task in plan.tasks}
                self.runs[record.run_id] = RunHistory(plan, RunNow(tasks=tasks))
            else:
                self._check(record, self.runs[record.run_id])
            run = self.runs[record.run_id]
            run.after[record.seq] = copy.deepcopy(run.now)
            self._before = record

    def _check(self, record: Recorded, run: RunHistory) -> None:
        event, now = record.event, run.now
        if record.actor not in ("local", run.holder) and not isinstance(event, ev.RunClaimed):
            raise AssertionError(f"{record.actor} decides for a run that {run.holder} holds: {event!r}")
        if isinstance(event, END_OF_ATTEMPT) and event.attempt_id is not None:
            self._end(event, run, record.run_id)
            return
        match event:
            case ev.TaskQueued(task_id=name, reason=""):
                self._queue(name, run, record.at_us)
            case ev.TaskQueued(task_id=name):
                assert now.tasks[name].status == "running", "only what ran is queued again by a rollback"
                now.tasks[name].status = "queued"
            case ev.TaskStarted():
                self._start(event, run, record)
            case ev.TaskRetryScheduled(task_id=name):
                self._retry(event, run)
            case ev.TaskCancelled(task_id=name):
                assert now.tasks[name].status in ("pending", "queued", "blocked")
                now.tasks[name].status = "cancelled"
            case ev.TaskSkipped():
                self._skip(event, run)
            case ev.TaskReopened(task_id=name):
                task = now.tasks[name]
                assert task.status in ("failed", "cancelled", "skipped")
                task.status, task.failures, task.not_before_us, task.approved = "pending", 0, 0, None
            case ev.TaskBlocked(task_id=name):
                now.tasks[name].status = "blocked"
            case ev.TaskUnblocked(task_id=name):
                now.tasks[name].status, now.tasks[name].approved = "pending", event.attempt
            case ev.RunRolledBack(to_seq=to_seq):
                run.now = copy.deepcopy(run.after[max(seq for seq in run.after if seq <= to_seq)])
            case ev.TaskCancelRequested():
                pass
            case _:
                self._run_level(event, run, record.run_id)

    def _queue(self, name: str, run: RunHistory, at_us: int) -> None:
        now, task = run.now, run.now.tasks[name]
        assert task.status == "pending"
        assert now.status == "running"
        self._check_ready(name, run)
        if len(now.of("queued")) >= run.plan.settings.max_queue_size:
            assert not any(self._can_start(one, run, at_us) for one in now.of("queued")), "the queue is full"
        task.status = "queued"

    def _check_ready(self, name: str, run: RunHistory) -> None:
        task = run.now.tasks[name].task
        assert all(run.now.satisfied(needed) for needed in task.dependencies), f"{name} is not ready"
        assert self._stage_is_open(name, run), f"the stage of {name} is not open"

    def _stage_is_open(self, name: str, run: RunHistory) -> bool:
        stage = run.now.tasks[name].task.stage
        return all(one.status in TASK_ENDED for one in run.now.tasks.values() if one.task.stage < stage)

    def _can_start(self, name: str, run: RunHistory, at_us: int) -> bool:
        """But for a slot."""
        task = run.now.tasks[name]
        ready = all(run.now.satisfied(needed) for needed in task.task.dependencies)
        free = task.may_start and not self._meets(name, run)
        return ready and free and self._stage_is_open(name, run) and task.not_before_us <= at_us

    def _meets(self, name: str, run: RunHistory) -> list[str]:
        """Running tasks that declare a file of this one, too. In these plans a scope is a list of plain names."""
        files = set(run.now.tasks[name].task.files)
        return [one for one in run.now.of("running") if one != name and files & set(run.now.tasks[one].task.files)]

    def _start(self, event: ev.TaskStarted, run: RunHistory, record: Recorded) -> None:
        now, task = run.now, run.now.tasks[event.task_id]
        assert task.status == "queued"
        assert (now.status, now.cancelling) == ("running", False)
        # A clock that was set back holds up the time of events, but no rest.
        assert record.at_us + self.set_back_us >= task.not_before_us, "it still rests"
        self._check_ready(event.task_id, run)
        assert task.failures <= task.task.max_retries, "it was tried too often"
        assert event.attempt_id not in self.attempts, "an attempt id was given twice"
        limits, stage = run.plan.settings, run.plan.stages[task.task.stage]
        of_run = sum(run_id == record.run_id for run_id, _ in self.slots.values())
        assert (event.facts["run_slots"], event.facts["store_slots"]) == (of_run, len(self.slots))
        assert of_run < limits.max_parallel_agents
        assert len(self.slots) < limits.store_limit
        assert of_run < (stage.limit or 10**6)
        assert stage.parallel or of_run == 0
        assert task.may_start, "nobody has let this attempt start"
        assert self._meets(event.task_id, run) == [], "declared files are kept apart"
        task.attempts, task.approved = event.attempt, None
        self.attempts.add(event.attempt_id)
        self.slots[event.attempt_id] = (record.run_id, event.task_id)
        task.status, task.attempt_id = "running", event.attempt_id

    def _end(self, event: ev.Event, run: RunHistory, run_id: str) -> None:
        assert isinstance(event, END_OF_ATTEMPT)
        assert event.attempt_id is not None
        assert self.slots.pop(event.attempt_id, None) == (run_id, event.task_id), "an attempt ends once"
        task = run.now.tasks[event.task_id]
        ours = task.status == "running" and task.attempt_id == event.attempt_id
        assert ours != isinstance(event, ev.ResultDiscarded), "only what the state does not know is discarded"
        match event:
            case ev.TaskCompleted():
                task.status = "completed"
            case ev.TaskCancelled():
                task.status = "cancelled"
            case ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost():
                task.status = "failed"
                task.failures += event.__dict__.get("began", True)

    def _retry(self, event: ev.TaskRetryScheduled, run: RunHistory) -> None:
        task, before = run.now.tasks[event.task_id], self._before
        assert before is not None
        failed = before.event
        assert isinstance(failed, ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost)
        assert (failed.attempt_id, failed.task_id) == (event.attempt_id, event.task_id), "a retry follows its failure"
        assert failed.__dict__.get("retryable", True)
        assert event.failures == task.failures <= task.task.max_retries
        task.status, task.not_before_us = "queued", from_rfc3339(event.not_before)
        assert task.not_before_us >= before.at_us

    def _skip(self, event: ev.TaskSkipped, run: RunHistory) -> None:
        task, cause = run.now.tasks[event.task_id], run.now.tasks[event.because]
        assert task.status in ("pending", "queued", "blocked")
        assert cause.status in ("failed", "cancelled"), "a skip names what failed first"
        if event.reason == "dependency":
            assert event.because in self._causes(event.task_id, run)
        else:
            stage, behind = run.plan.stages[cause.task.stage], run.plan.stages[task.task.stage]
            assert stage.fail_fast
            assert stage.phase == behind.phase
            assert cause.task.stage < task.task.stage
        task.status = "skipped"

    def _causes(self, name: str, run: RunHistory) -> set[str]:
        """What a task needs, directly or not, and what stopped one of those."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for needed in run.now.tasks[waiting.pop()].task.dependencies:
                if needed not in found:
                    found.add(needed)
                    waiting.append(needed)
        skipped = [one for one in found if run.now.tasks[one].status in ("skipped", "pending", "queued", "blocked")]
        stages = {run.now.tasks[one].task.stage for one in skipped}
        return found | {one for one in run.now.of("failed") if any(run.now.tasks[one].task.stage < s for s in stages)}

    def _run_level(self, event: ev.Event, run: RunHistory, run_id: str) -> None:
        now = run.now
        match event:
            case ev.RunClaimed():
                run.holder = event.holder["kind"]
            case ev.RunReleased():
                run.holder = None
            case ev.RunStarted():
                assert now.status == "submitted"
                now.status, now.started = "running", True
            case ev.RunPaused():
                now.status = "paused"
            case ev.RunResumed():
                now.status, now.cancelling = "running" if now.started else "submitted", False
            case ev.RunCancelRequested():
                now.cancelling = True
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                assert now.status not in RUN_ENDED
                assert now.of(*TASK_ENDED) == list(now.tasks), "a run ends when all of its tasks have"
                assert run_id not in {of for of, _ in self.slots.values()}, "nothing of it holds a slot"
                failed = [name for name in now.of("failed") if not now.tasks[name].task.allow_failure]
                expected = "failed" if failed or now.of("skipped") else "completed"
                expected = "cancelled" if now.cancelling else expected
                now.status = {ev.RunCompleted: "completed", ev.RunFailed: "failed", ev.RunCancelled: "cancelled"}[
                    type(event)
                ]
                assert now.status == expected
                run.holder = None
            case ev.DispatchThrottled() | ev.DispatchUnthrottled() | ev.WorkersScaled():
                assert now.status == "running", "only what could start something waits for the machine"
            case _:
                raise AssertionError(f"nobody should append {event!r} here")
