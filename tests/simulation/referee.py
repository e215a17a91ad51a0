"""Reads a log event by event and objects to whatever the design forbids. It knows nothing of folds or plans of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.eventstore.submission import Plan, Task, load_plan

MAX_EXECUTION = "max_execution_time"
TASK_ENDED = ("completed", "failed", "cancelled", "skipped")
RUN_ENDED = ("completed", "failed", "cancelled")
FAILURE = (ev.TaskFailed, ev.TaskTimedOut, ev.AttemptLost)
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
    granted: int = 0  # Failures that a retry was granted after. It stands in a fork whose own limit is lower.
    not_before_us: int = 0
    attempts: int = 0
    approved: int | None = None  # The number of the attempt that a person let start.
    cancelling: bool = False
    waits: bool = False  # Whether it is the work of an attempt that waits for a person.
    because: str = ""  # What it was skipped for, while it is skipped.

    @property
    def may_start(self) -> bool:
        """Whether no person has to be asked."""
        return self.task.approval != "required" or self.approved == self.attempts + 1

    @property
    def may_be_tried(self) -> bool:
        """Whether it has not failed too often."""
        return self.failures <= max(self.task.max_retries, self.granted)


@dataclass
class RunNow:
    """One run as of an event; what a rollback takes back."""

    status: str = "submitted"
    cancelling: bool = False
    overdue: bool = False  # Whether it is cancelled because it has run for too long.
    started: bool = False
    tasks: dict[str, TaskNow] = field(default_factory=dict)

    def copy(self) -> RunNow:
        """One that does not change with this one."""
        return replace(self, tasks={name: replace(task) for name, task in self.tasks.items()})

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
    epoch: int = 0
    rests_until_us: dict[str | None, int] = field(default_factory=dict)  # By attempt, on its holder's steady clock.
    after: dict[int, RunNow] = field(default_factory=dict)


class Referee:
    """Follows one log. ``look`` reads what is new and checks it."""

    def __init__(self, log: Log, lives: Callable[[str], bool], steady: Callable[[], int]) -> None:
        self.log = log
        self._lives = lives  # Whether a process is taken for alive, by its name.
        self._steady = steady  # Microseconds on a clock that nobody sets.
        self.runs: dict[str, RunHistory] = {}
        self.slots: dict[str, tuple[str, str]] = {}  # Attempt id -> run and task; rollbacks take no slot back.
        self.attempts: set[str] = set()
        self.seen = 0
        self.at_us = 0  # Of the last event.
        self.torn = 0  # Up to here another one has read; some events of the commit there are gone.
        self._before: Recorded | None = None

    def look(self) -> None:
        """Check every new event."""
        for record in self.log.read(self.seen):
            assert record.seq == self.seen + 1
            assert record.at_us >= self.at_us, "time went back"
            self._check_retried(record)
            self._check_paused(record)
            self.seen, self.at_us = record.seq, record.at_us
            match record.event:
                case ev.RunSubmitted(plan_digest=digest):
                    plan = load_plan(self.log.blob(digest))
                    tasks = {task.task_id: TaskNow(task) for task in plan.tasks}
                    self.runs[record.run_id] = RunHistory(plan, RunNow(tasks=tasks))
                case ev.RunForked():
                    self.runs[record.run_id] = self._forked(record.event)
                case _:
                    self._check(record, self.runs[record.run_id])
            run = self.runs[record.run_id]
            run.after[record.seq] = run.now.copy()
            self.learn(record)
            self._before = record

    def learn(self, record: Recorded) -> None:
        """For who knows more than this one: an event was checked."""

    def _forked(self, event: ev.RunForked) -> RunHistory:
        """A run that stands where its parent stood, with limits of its own; its time and its attempts are its own, too."""
        plan, parent = load_plan(self.log.blob(event.plan_digest)), self.runs[event.parent]
        now = parent.after[max(seq for seq in parent.after if seq <= event.seq)].copy()
        for task in plan.tasks:
            now.tasks[task.task_id].task = task
        over = now.status in RUN_ENDED and now.of(*TASK_ENDED) == list(now.tasks)
        now.started = now.started and over
        return RunHistory(plan, now)

    def _check_retried(self, record: Recorded) -> None:
        """A failure is followed by a retry at once, as long as there is one left."""
        before = self._before
        if before is None or before.seq == self.torn or not isinstance(before.event, FAILURE):
            return
        failed, run = before.event, self.runs[before.run_id]
        task = run.now.tasks[failed.task_id]
        if isinstance(record.event, ev.TaskRetryScheduled) and record.event.attempt_id == failed.attempt_id:
            return
        if isinstance(failed, ev.AttemptLost) and not failed.began:
            raise AssertionError(f"{failed.task_id} was lost before it began, and is not made again")
        again = failed.__dict__.get("retryable", True) and task.failures <= task.task.max_retries
        assert not again, f"{failed.task_id} has failed {task.failures} times, and is not made again"

    def _check_paused(self, record: Recorded) -> None:
        """Of a run that was taken back, or has begun as a fork, what ran is queued again, and nothing starts by itself."""
        before = self._before
        if before is None or before.seq == self.torn:
            return
        event, now = before.event, self.runs[before.run_id].now
        if isinstance(event, ev.RunRolledBack | ev.RunForked) or (isinstance(event, ev.TaskQueued) and event.reason):
            over = now.status in RUN_ENDED and now.of(*TASK_ENDED) == list(now.tasks)
            if not over and not isinstance(record.event, ev.TaskQueued):
                assert isinstance(record.event, ev.RunPaused), "whoever went back is asked before it goes on"
                assert not now.of("running"), "what ran there runs no more"

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
                task.granted, task.cancelling = 0, False
            case ev.TaskBlocked(task_id=name):
                now.tasks[name].status = "blocked"
            case ev.TaskUnblocked(task_id=name):
                now.tasks[name].status, now.tasks[name].approved = "pending", event.attempt
            case ev.RunRolledBack(to_seq=to_seq):
                run.now = run.after[max(seq for seq in run.after if seq <= to_seq)].copy()
            case ev.TaskCancelRequested(task_id=name):
                assert now.tasks[name].status == "running"
                now.tasks[name].cancelling = True
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
        return ready and free and self._stage_is_open(name, run) and self._rest_us(task, run, at_us) <= 0

    def _rest_us(self, task: TaskNow, run: RunHistory, at_us: int) -> int:
        """How long a task still rests. Time goes on although the clock was set back."""
        left_us = task.not_before_us - at_us
        return min(left_us, run.rests_until_us[task.attempt_id] - self._steady()) if _measured(task, run) else left_us

    def _meets(self, name: str, run: RunHistory) -> list[str]:
        """Running tasks that declare a file of this one, too. In these plans a scope is a list of plain names."""
        files = set(run.now.tasks[name].task.files)
        return [one for one in run.now.of("running") if one != name and files & set(run.now.tasks[one].task.files)]

    def _start(self, event: ev.TaskStarted, run: RunHistory, record: Recorded) -> None:
        now, task = run.now, run.now.tasks[event.task_id]
        assert task.status == "queued"
        assert (now.status, now.cancelling) == ("running", False)
        rested = self._rest_us(task, run, record.at_us) <= 0 or not _measured(task, run)
        assert rested or record.seq <= self.torn, "it still rests"
        self._check_ready(event.task_id, run)
        assert task.may_be_tried, "it was tried too often"
        assert event.attempt_id not in self.attempts, "an attempt id was given twice"
        limits, stage = run.plan.settings, run.plan.stages[task.task.stage]
        of_run = sum(run_id == record.run_id for run_id, _ in self.slots.values())
        said = {name: event.facts[name] for name in ("run_slots", "store_slots")}
        assert said == {"run_slots": of_run, "store_slots": len(self.slots)}
        assert of_run < limits.max_parallel_agents
        assert len(self.slots) < limits.store_limit
        assert of_run < (stage.limit or 10**6)
        assert stage.parallel or of_run == 0
        assert task.may_start, "nobody has let this attempt start"
        assert self._meets(event.task_id, run) == [], "declared files are kept apart"
        assert event.attempt == task.attempts + 1
        task.attempts, task.approved, task.cancelling = event.attempt, None, False
        self.attempts.add(event.attempt_id)
        self.slots[event.attempt_id] = (record.run_id, event.task_id)
        task.status, task.attempt_id, task.not_before_us = "running", event.attempt_id, 0  # Its rest is over for good.

    def _end(self, event: ev.Event, run: RunHistory, run_id: str) -> None:
        assert isinstance(event, END_OF_ATTEMPT)
        assert event.attempt_id is not None
        assert self.slots.pop(event.attempt_id, None) == (run_id, event.task_id), "an attempt ends once"
        task = run.now.tasks[event.task_id]
        ours = task.status == "running" and task.attempt_id == event.attempt_id
        assert ours != isinstance(event, ev.ResultDiscarded), "only what the state does not know is discarded"
        if ours and (task.cancelling or run.now.cancelling):
            assert isinstance(event, ev.TaskCompleted | ev.TaskCancelled), "what was to stop ends well or is cancelled"
        match event:
            case ev.TaskCompleted():
                task.status = "completed"
            case ev.TaskCancelled():
                task.status = "cancelled"
            case ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost():
                task.status = "failed"
                task.failures += event.__dict__.get("began", True)
        if ours:
            task.cancelling = False

    def _retry(self, event: ev.TaskRetryScheduled, run: RunHistory) -> None:
        task, before = run.now.tasks[event.task_id], self._before
        assert before is not None
        failed = before.event
        assert isinstance(failed, FAILURE)
        assert (failed.attempt_id, failed.task_id) == (event.attempt_id, event.task_id), "a retry follows its failure"
        assert failed.__dict__.get("retryable", True)
        assert event.failures == task.failures
        assert task.may_be_tried
        task.granted = task.failures
        task.status, task.not_before_us = "queued", from_rfc3339(event.not_before)
        policy, wait_us = run.plan.settings.retry, 0.0
        if failed.__dict__.get("began", True):
            doublings = event.failures - 1 if policy.exponential else 0
            wait_us = min(policy.delay_s * 2**doublings, policy.ceiling_s) * 1e6
        assert wait_us <= event.wait_s * 1e6 <= 1.1 * wait_us + 1, "it rests as its policy says"
        assert task.not_before_us == before.at_us + round(event.wait_s * 1e6), "from its end on"
        run.rests_until_us[task.attempt_id] = self._steady() + round(event.wait_s * 1e6)

    def _skip(self, event: ev.TaskSkipped, run: RunHistory) -> None:
        task, cause = run.now.tasks[event.task_id], run.now.tasks[event.because]
        assert task.status in ("pending", "queued", "blocked")
        if cause.status == "skipped":  # It outlived its own cause, in a fork from the middle of a retry's commit.
            first = run.now.tasks[cause.because]
            stands = first.status in ("failed", "cancelled") and not run.now.satisfied(cause.because)
            assert not stands, "a skip names what failed first"
        else:
            assert cause.status in ("failed", "cancelled"), "a skip names what failed first"
        assert not run.now.satisfied(event.because), "a failure that is allowed skips nothing"
        if event.reason == "dependency":
            assert event.because in self._causes(event.task_id, run)
        else:
            stage, behind = run.plan.stages[cause.task.stage], run.plan.stages[task.task.stage]
            assert stage.fail_fast
            assert stage.phase == behind.phase
            assert cause.task.stage < task.task.stage
        task.status, task.because = "skipped", event.because

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
                assert event.epoch == run.epoch + 1, "a lease is told apart from the one before"
                assert run.holder is None or not self._lives(run.holder), f"{run.holder} lives, and holds it"
                run.holder, run.epoch = event.holder["kind"], event.epoch
                resting = [task for task in now.tasks.values() if task.not_before_us > self.at_us]
                run.rests_until_us = {
                    task.attempt_id: self._steady() + task.not_before_us - self.at_us for task in resting
                }
            case ev.RunReleased():
                assert event.epoch == run.epoch, "only who holds a run lets go of it"
                run.holder = None
            case ev.RunStarted():
                assert now.status == "submitted"
                now.status, now.started = "running", True
            case ev.RunPaused():
                now.status, now.overdue = "paused", False  # Its reason is another one from here on.
            case ev.RunResumed():
                now.status, now.cancelling = "running" if now.started else "submitted", False
            case ev.RunCancelRequested(reason=reason):
                now.cancelling, now.overdue = True, reason == MAX_EXECUTION
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                assert now.status not in RUN_ENDED
                assert now.of(*TASK_ENDED) == list(now.tasks), "a run ends when all of its tasks have"
                assert run_id not in {of for of, _ in self.slots.values()}, "nothing of it holds a slot"
                failed = [name for name in now.of("failed") if not now.tasks[name].task.allow_failure]
                expected = "failed" if failed or now.of("skipped") else "completed"
                if now.cancelling:
                    expected = "failed" if now.overdue else "cancelled"
                now.status = {ev.RunCompleted: "completed", ev.RunFailed: "failed", ev.RunCancelled: "cancelled"}[
                    type(event)
                ]
                assert now.status == expected
                run.holder = None
            case ev.DispatchThrottled() | ev.DispatchUnthrottled() | ev.WorkersScaled():
                assert now.status == "running", "only what could start something waits for the machine"
            case _:
                raise AssertionError(f"nobody should append {event!r} here")

    def check_at_rest(self, run_id: str, now_us: int, due_us: int | None) -> None:
        """What a tick of the process that holds a run has to leave: nothing that is due.

        Args:
            now_us: the time of the next event.
            due_us: when it wants to be called again, as that time goes.
        """
        run = self.runs[run_id]
        now = run.now
        if now.status in RUN_ENDED:
            return
        waiting = now.of("pending", "queued", "blocked")
        if now.cancelling:
            assert not waiting, "what has not started of a run that is cancelled never will"
            return
        for name in waiting:
            assert not self._is_doomed(name, run), f"{name} can never start, and is not skipped"
        if now.status != "running":
            return
        for name in now.of("pending", "queued"):
            task = now.tasks[name]
            full = task.status == "pending" and len(now.of("queued")) >= run.plan.settings.max_queue_size
            if self._can_start(name, run, now_us):
                assert full or self._is_full(name, run, run_id), f"{name} could start, and does not"
            elif not full and _measured(task, run) and self._can_start(name, run, task.not_before_us):
                # Where it is full, it is looked at when there is room.
                assert due_us is not None, f"nobody wakes for {name}"
                assert due_us <= now_us + self._rest_us(task, run, now_us), f"{name} is woken too late"

    def _is_full(self, name: str, run: RunHistory, run_id: str) -> bool:
        """Whether some limit keeps a task from starting."""
        of_run = sum(of == run_id for of, _ in self.slots.values())
        settings, stage = run.plan.settings, run.plan.stages[run.now.tasks[name].task.stage]
        limits = (settings.max_parallel_agents, stage.limit or 10**6, 10**6 if stage.parallel else 1)
        return of_run >= min(limits) or len(self.slots) >= settings.store_limit

    def _is_doomed(self, name: str, run: RunHistory) -> bool:
        """Whether what a task needs, or a stage before it that fails fast, has failed for good."""
        tasks, own = run.now.tasks, run.now.tasks[name].task
        if any(tasks[one].status in TASK_ENDED and not run.now.satisfied(one) for one in own.dependencies):
            return True
        for number, stage in enumerate(run.plan.stages[: own.stage]):
            inside = [task for task in tasks.values() if task.task.stage == number]
            failed = any(task.status == "failed" and not task.task.allow_failure for task in inside)
            over = all(task.status in TASK_ENDED for task in inside)
            if stage.fail_fast and failed and over and stage.phase == run.plan.stages[own.stage].phase:
                return True
        return False


def _measured(task: TaskNow, run: RunHistory) -> bool:
    """Whether it is known how long a task still rests: unless a rollback has brought that back, unseen by who holds the run."""
    return task.attempt_id in run.rests_until_us
