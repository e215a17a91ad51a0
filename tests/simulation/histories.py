"""Random histories as they could have happened, several runs interleaved, rollbacks included.

The generator keeps a small model of its own, and a copy of it after every event, so that a rollback takes up the copy of
the event that it goes back to. It knows nothing of how folds or effective histories are computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import Plan, Stage, Task
from parallel_agents.scheduler.runners.protocol import FAILURES

ENDED = ("completed", "failed", "cancelled", "skipped")
RUN_ENDED = ("completed", "failed", "cancelled")


@dataclass
class ModelTask:
    """What the generator knows of a task."""

    status: str = "pending"
    attempts: int = 0
    attempt_id: str = ""
    earlier: list[str] = field(default_factory=list)  # All attempts so far.
    failures: int = 0
    cancel_requested: bool = False


@dataclass
class Model:
    """A run as of one event. ``status`` is empty before the submission."""

    status: str = ""
    started: bool = False
    cancel_requested: bool = False
    epoch: int = 0
    throttled: dict[str, str] = field(default_factory=dict)
    workers: int | None = None
    tasks: dict[str, ModelTask] = field(default_factory=dict)

    def names(self, *statuses: str) -> list[str]:
        """The tasks in one of these statuses."""
        return [name for name, task in self.tasks.items() if task.status in statuses]


@dataclass
class RunHistory:
    """One run while it is made: its plan, its model now, and after each of its events by seq."""

    run_id: str
    plan: Plan
    now: Model = field(default_factory=Model)
    after: dict[int, Model] = field(default_factory=dict)
    late: list[tuple[str, str]] = field(default_factory=list)  # (task, attempt) that a rollback let go of.


def random_plan(random: Random) -> Plan:
    """A graph of up to seven tasks in up to three stages; a task may depend on any earlier one."""
    stages = tuple(Stage(name=f"stage {index}") for index in range(random.randint(1, 3)))
    tasks: list[Task] = []
    for index in range(random.randint(1, 7)):
        names = [task.task_id for task in tasks]
        chosen = sorted(random.sample(names, random.randint(0, min(3, len(names)))))
        tasks.append(
            Task(
                task_id=f"t{index}", dependencies=tuple(chosen), allow_failure=random.random() < 0.3,
                stage=random.randrange(len(stages)),
            )
        )  # fmt: skip
    return Plan(name=f"plan {random.randint(0, 9)}", stages=stages, tasks=tuple(tasks))


class Generator:
    """Makes one store's history, event by event. ``events`` is what to append, in order."""

    def __init__(self, random: Random, runs: int = 2) -> None:
        self.random = random
        self.runs = {name: RunHistory(name, random_plan(random)) for name in ("alpha", "beta", "gamma")[:runs]}
        self.events: list[tuple[str, ev.Event]] = []
        self._ids = 0

    def grow(self, events: int) -> None:
        """Go on until there are at least so many events."""
        while len(self.events) < events:
            self._step(self.random.choice(list(self.runs.values())))

    def _step(self, run: RunHistory) -> None:
        if not run.now.status:
            self._submit(run)
            return
        steps: list[Callable[[RunHistory], bool]] = [
            self._start_or_end_run, self._queue, self._start, self._start, self._end_attempt, self._end_attempt,
            self._end_attempt, self._cancel_or_skip, self._reopen, self._block, self._pause_or_resume, self._charge,
            self._budget, self._request, self._lease, self._checkpoint, self._discard, self._roll_back, self._provider,
            self._conflict, self._machine, self._health,
        ]  # fmt: skip
        self.random.shuffle(steps)
        for step in steps:
            if step(run):
                return

    def _add(self, run: RunHistory, event: ev.Event) -> None:
        self.events.append((run.run_id, event))
        run.after[len(self.events)] = copy.deepcopy(run.now)

    def _new_id(self) -> str:
        self._ids += 1
        return f"attempt{self._ids:04}"

    def _submit(self, run: RunHistory) -> None:
        run.now = Model("submitted", tasks={task.task_id: ModelTask() for task in run.plan.tasks})
        self._add(
            run,
            ev.RunSubmitted(
                name=run.plan.name, plan_digest=digest_of(run.plan.to_bytes()), task_count=len(run.plan.tasks),
                strategy=run.plan.strategy, workspace=run.plan.workspace, workdir="/project",
                environment={"LANG": "C"}, budget_usd_micros=self.random.choice([None, 5_000_000]),
            ),
        )  # fmt: skip

    def _open(self, run: RunHistory) -> bool:
        return run.now.status == "running"

    def _start_or_end_run(self, run: RunHistory) -> bool:
        now = run.now
        if now.status == "submitted":
            now.status, now.started = "running", True
            self._add(run, ev.RunStarted())
            return True
        if now.status != "running" or now.names("pending", "queued", "running", "blocked"):
            return False
        counts = {status: len(now.names(status)) for status in ENDED if now.names(status)}
        event: ev.Event
        if now.cancel_requested:
            now.status, event = "cancelled", ev.RunCancelled(counts=counts, reason="asked")
        elif now.names("failed", "cancelled", "skipped"):
            now.status, event = "failed", ev.RunFailed(counts=counts, failed=now.names("failed"))
        else:
            now.status, event = "completed", ev.RunCompleted(counts=counts)
        self._add(run, event)
        return True

    def _satisfied(self, run: RunHistory, name: str) -> bool:
        spec = next(task for task in run.plan.tasks if task.task_id == name)
        status = run.now.tasks[name].status
        return status == "completed" or (spec.allow_failure and status in ("failed", "cancelled"))

    def _queue(self, run: RunHistory) -> bool:
        ready = [
            task.task_id
            for task in run.plan.tasks
            if run.now.tasks[task.task_id].status == "pending"
            and all(self._satisfied(run, name) for name in task.dependencies)
        ]
        if not ready or run.now.status not in ("running", "submitted"):
            return False
        name = self.random.choice(ready)
        run.now.tasks[name].status = "queued"
        self._add(run, ev.TaskQueued(task_id=name))
        return True

    def _start(self, run: RunHistory) -> bool:
        waiting = run.now.names("queued")
        if not waiting or not self._open(run):
            return False
        name = self.random.choice(waiting)
        task = run.now.tasks[name]
        task.status, task.attempts, task.attempt_id = "running", task.attempts + 1, self._new_id()
        task.cancel_requested = False
        agent = self.random.random() < 0.5
        before = task.earlier[-1] if agent and task.earlier and self.random.random() < 0.4 else None
        of_agent = {
            "runner": "claude", "model_reason": "its type gets haiku", "role": self.random.choice(["", "merge-engineer"]),
            "resumes": before, "begin_commit": before and "c7",
            "facts": self.random.choice([{"run_slots": 1}, {"run_slots": 1, "limit_usd_micros": 500}]),
        } if agent else {
            "runner": self.random.choice(["shell", "python"]),
            "facts": self.random.choice([{}, {"memory_bytes": 10**6, "cpu_percent": 7.5, "workers": 2}]),
        }  # fmt: skip
        of_agent["used_s"] = self.random.choice([0.0, 1.5, 7200.000001])
        task.earlier.append(task.attempt_id)
        self._add(
            run,
            ev.TaskStarted.model_validate(
                {
                    "task_id": name, "attempt_id": task.attempt_id, "attempt": task.attempts, "base_commit": "c0",
                    "model": self.random.choice([None, "haiku"]),
                    "reserved_usd_micros": self.random.choice([None, 0, 10**6]), **of_agent,
                }
            ),
        )  # fmt: skip
        return True

    def _end_attempt(self, run: RunHistory) -> bool:
        running = run.now.names("running")
        if not running:
            return False
        name = self.random.choice(running)
        task = run.now.tasks[name]
        who = {"task_id": name, "attempt_id": task.attempt_id}
        measured = {
            "duration_s": self.random.randint(1, 99) / 4, "cpu_s": 0.5, "peak_memory_bytes": 4096,
            "peak_cpu_percent": 12.5, "peak_open_files": 7, "disk_written_bytes": 65536,
        }  # fmt: skip
        task.status, task.cancel_requested = "failed", False
        event: ev.Event
        match self.random.randrange(6):
            case 0:
                kind, resumable = self.random.choice(["", *FAILURES]), self.random.random() < 0.5
                said = {"error": "exit 1", "exit_code": 1, "output": "half", "kind": kind, "resumable": resumable}
                event = ev.TaskFailed.model_validate({**who, **measured, **said})
            case 1:
                event = ev.TaskTimedOut.model_validate({**who, **measured, "timeout_s": 9.0, "error": "too long"})
            case 2:
                resumable = self.random.random() < 0.5
                began = resumable or self.random.random() < 0.7
                said = {"error": "gone", "resumable": resumable, "began": began}
                event = ev.AttemptLost.model_validate({**who, **said})
            case 3:
                task.status = "cancelled"
                event = ev.TaskCancelled.model_validate({**who, **measured, "reason": "asked"})
            case _:
                task.status = "completed"
                output, commit = self.random.choice([None, "done", {"files": [1, 2]}]), self.random.choice([None, "c1"])
                event = ev.TaskCompleted.model_validate(
                    {**who, **measured, "exit_code": 0, "output": output, "commit": commit}
                )
        task.failures += task.status == "failed" and getattr(event, "began", True)
        self._add(run, event)
        if task.status == "failed" and self.random.random() < 0.6:
            task.status = "queued"
            self._add(
                run,
                ev.TaskRetryScheduled(
                    task_id=name, attempt_id=task.attempt_id, failures=task.failures,
                    not_before=rfc3339(self.random.randint(0, 10**15)), wait_s=5.5, jitter_s=0.5,
                ),
            )  # fmt: skip
        return True

    def _cancel_or_skip(self, run: RunHistory) -> bool:
        waiting = run.now.names("pending", "queued", "blocked")
        if not waiting or run.now.status in RUN_ENDED or self.random.random() < 0.6:
            return False
        name = self.random.choice(waiting)
        broken = run.now.names("failed", "cancelled", "skipped")
        run.now.tasks[name].cancel_requested = False
        if broken and self.random.random() < 0.7:
            run.now.tasks[name].status = "skipped"
            self._add(run, ev.TaskSkipped(task_id=name, because=self.random.choice(broken)))
        else:
            run.now.tasks[name].status = "cancelled"
            self._add(run, ev.TaskCancelled(task_id=name, reason="not needed"))
        return True

    def _reopen(self, run: RunHistory) -> bool:
        ended = run.now.names("failed", "cancelled", "skipped")
        if not ended or self.random.random() < 0.6:
            return False
        for name in self.random.sample(ended, self.random.randint(1, len(ended))):
            task = run.now.tasks[name]
            task.status, task.failures, task.cancel_requested = "pending", 0, False
            self._add(run, ev.TaskReopened(task_id=name, reason="again"))
        if run.now.status in RUN_ENDED:
            self._resume(run)
        return True

    def _block(self, run: RunHistory) -> bool:
        blocked, waiting = run.now.names("blocked"), run.now.names("pending", "queued")
        if run.now.status in RUN_ENDED or not (blocked or waiting) or self.random.random() < 0.5:
            return False
        if blocked:
            name = self.random.choice(blocked)
            run.now.tasks[name].status = "pending"
            self._add(run, ev.TaskUnblocked(task_id=name))
        else:
            name = self.random.choice(waiting)
            run.now.tasks[name].status = "blocked"
            self._add(run, ev.TaskBlocked(task_id=name, reason="approval"))
        return True

    def _pause_or_resume(self, run: RunHistory) -> bool:
        if run.now.status in RUN_ENDED or (run.now.status != "paused" and self.random.random() < 0.7):
            return False
        if run.now.status == "paused":
            self._resume(run)
        else:
            run.now.status = "paused"
            self._add(run, ev.RunPaused(reason="lunch"))
        return True

    def _resume(self, run: RunHistory) -> None:
        run.now.status, run.now.cancel_requested = "running" if run.now.started else "submitted", False
        run.now.workers = None
        self._add(run, ev.RunResumed())

    def _charge(self, run: RunHistory) -> bool:
        tried = [(name, task.attempt_id) for name, task in run.now.tasks.items() if task.attempt_id]
        if not tried:
            return False
        name, attempt_id = self.random.choice(tried)
        source = self.random.choice(["agent", "agent", "estimated", "unknown"])
        self._add(
            run,
            ev.CostCharged(
                task_id=name, attempt_id=attempt_id, calls=self.random.randint(0, 9), agent_type="shell", source=source,
                usd_micros=None if source == "unknown" else self.random.randint(0, 10**7),
                model=self.random.choice([None, "haiku", "opus"]), runner=self.random.choice(["", "claude", "codex"]),
                input_tokens=self.random.randint(0, 99), output_tokens=3, partial=self.random.random() < 0.1,
                cache_read_tokens=self.random.choice([0, 500]), cache_write_tokens=self.random.choice([0, 40]),
                prices="0.0.1" if source == "estimated" else "",
            ),
        )  # fmt: skip
        return True

    def _budget(self, run: RunHistory) -> bool:
        if self.random.random() < 0.8:
            return False
        scope, micros = self.random.choice(["run", "task:t0", "day:2026-11-26"]), self.random.randint(0, 10**7)
        event: ev.Event
        match self.random.randrange(3):
            case 0:
                event = ev.BudgetThresholdReached(scope=scope, share=0.75, spent_usd_micros=micros)
            case 1:
                event = ev.BudgetExceeded(scope=scope, spent_usd_micros=micros, budget_usd_micros=10)
            case _:
                scope = "run" if scope.startswith("day") else scope
                event = ev.BudgetChanged(scope=scope, budget_usd_micros=self.random.choice([None, micros]))
        self._add(run, event)
        return True

    def _request(self, run: RunHistory) -> bool:
        open_ = run.now.names("pending", "queued", "running")
        if run.now.status in RUN_ENDED or self.random.random() < 0.8:
            return False
        if open_ and self.random.random() < 0.8:
            name = self.random.choice(open_)
            run.now.tasks[name].cancel_requested = True
            self._add(run, ev.TaskCancelRequested(task_id=name, reason="asked"))
        else:
            run.now.cancel_requested = True
            self._add(run, ev.RunCancelRequested(reason="asked"))
        return True

    def _lease(self, run: RunHistory) -> bool:
        if self.random.random() < 0.8:
            return False
        event: ev.Event
        if run.now.epoch and self.random.random() < 0.4:
            event = ev.RunReleased(epoch=run.now.epoch, left=self.random.random() < 0.5)
        else:
            run.now.epoch += 1
            event = ev.RunClaimed(holder={"pid": self.random.randint(2, 9), "kind": "run"}, epoch=run.now.epoch)
        self._add(run, event)
        return True

    def _checkpoint(self, run: RunHistory) -> bool:
        if self.random.random() < 0.8:
            return False
        name = self.random.choice([None, *run.now.tasks])
        kind, attempt_id = "manual", None
        if name is not None and run.now.tasks[name].attempt_id and self.random.random() < 0.7:
            kind, attempt_id = "after_attempt", self.random.choice(run.now.tasks[name].earlier)
        made = ev.CheckpointCreated(
            checkpoint_id=self._new_id(), kind=kind, task_id=name, attempt_id=attempt_id, commit="c2",
            paths=self.random.choice([[], ["a.txt", "b.txt"]]),
        )  # fmt: skip
        self._add(run, made)
        return True

    def _provider(self, run: RunHistory) -> bool:
        """Of no run; only where there are several anyway."""
        if len(self.runs) == 1 or self.random.random() < 0.8:
            return False
        event: ev.Event = ev.ProviderFreed(provider="anthropic")
        if self.random.random() < 0.7:
            event = ev.ProviderLimited(
                provider=self.random.choice(["anthropic", "openai"]), kind="usage_limit", count=self.random.randint(1, 3),
                until=rfc3339(10**15 + self.random.randint(0, 10**8)), model=self.random.choice([None, "opus", "haiku"]),
            )  # fmt: skip
        if self.random.random() < 0.3:
            event = self._of_a_runner()
        self.events.append(("store", event))
        return True

    def _of_a_runner(self) -> ev.Event:
        """That a runner fails, is left alone, tried or trusted again: whatever comes before it."""
        runner, attempt_id = self.random.choice(["shell", "claude"]), self._new_id()
        until = rfc3339(10**15 + self.random.randint(0, 10**8))
        return self.random.choice(
            [
                ev.RunnerFailed(
                    runner=runner, attempt_id=attempt_id, reason="crashed", lost=self.random.random() < 0.5
                ),
                ev.CircuitOpened(runner=runner, until=until, reason="crashed", failures=3),
                ev.CircuitHalfOpened(runner=runner, attempt_id=attempt_id),
                ev.CircuitClosed(runner=runner),
            ]
        )

    def _health(self, run: RunHistory) -> bool:
        """A running attempt looks stuck, or goes on; a late word of one that has ended does no harm."""
        running = run.now.names("running")
        if not running or self.random.random() < 0.8:
            return False
        name = self.random.choice(running)
        attempt_id = self.random.choice(run.now.tasks[name].earlier) if self.random.random() < 0.1 else None
        attempt_id = attempt_id or run.now.tasks[name].attempt_id or ""
        event: ev.Event = ev.AttemptRevived(task_id=name, attempt_id=attempt_id)
        if self.random.random() < 0.7:
            event = ev.AttemptStuck(task_id=name, attempt_id=attempt_id, kind="silent", silent_s=301.5, reason="silent")
        self._add(run, event)
        return True

    def _conflict(self, run: RunHistory) -> bool:
        running = run.now.names("running")
        if not running or self.random.random() < 0.8:
            return False
        name = self.random.choice(running)
        self._add(
            run,
            ev.ConflictDetected(
                task_id=name, other_task_id="",
                paths=["a.txt"], kinds=["contents"], attempt_id=run.now.tasks[name].attempt_id, onto="c1",
                commit="c2", round=self.random.randint(1, 2), early=self.random.random() < 0.3,
            ),
        )  # fmt: skip
        return True

    def _machine(self, run: RunHistory) -> bool:
        if not self._open(run) or self.random.random() < 0.8:
            return False
        code = self.random.choice(["disk", "cpu", "memory", ""])
        event: ev.Event
        match self.random.randrange(3):
            case 0:
                event = ev.DispatchThrottled(reason=f"short of {code}", code=code)
                run.now.throttled[code or "disk"] = event.reason
            case 1:
                event = ev.DispatchUnthrottled(code=code)
                run.now.throttled.pop(code or "disk", None)
            case _:
                run.now.workers = self.random.randint(1, 5)
                event = ev.WorkersScaled(workers=run.now.workers, reason="busy", wait_s=20.0)
        self._add(run, event)
        return True

    def _discard(self, run: RunHistory) -> bool:
        if not run.late or self.random.random() < 0.5:
            return False
        name, attempt_id = run.late.pop(self.random.randrange(len(run.late)))
        self._add(run, ev.ResultDiscarded(task_id=name, attempt_id=attempt_id, reason="undone"))
        return True

    def _roll_back(self, run: RunHistory) -> bool:
        """To any seq of the store from the run's submission on, an undone one or one of another run too."""
        if self.random.random() < 0.5:
            return False
        first = min(run.after)
        target = self.random.randint(first, len(self.events))
        last = max(seq for seq in run.after if seq <= target)
        epoch = run.now.epoch  # Leases are never taken back.
        kept = {task.attempt_id for task in run.after[last].tasks.values()}
        run.late += [
            (name, run.now.tasks[name].attempt_id)
            for name in run.now.names("running")
            if run.now.tasks[name].attempt_id not in kept
        ]
        run.now = copy.deepcopy(run.after[last])
        run.now.epoch = epoch
        self._add(run, ev.RunRolledBack(to_seq=target))
        for name in run.now.names("running"):
            run.now.tasks[name].status = "queued"
            self._add(run, ev.TaskQueued(task_id=name, reason="rolled_back"))
        if run.now.status not in RUN_ENDED:
            run.now.status = "paused"
            self._add(run, ev.RunPaused(reason="rolled back"))
        return True


def store(log: Log, made: Generator) -> None:
    """Append a history in commits of random size; every seq comes out as the generator counted."""
    left = list(made.events)
    while left:
        size = made.random.randint(1, max(1, len(made.events) // 3))
        commit, left = left[:size], left[size:]

        def decide(draft: Draft, commit: list[tuple[str, ev.Event]] = commit) -> None:
            for run_id, event in commit:
                if isinstance(event, ev.RunSubmitted):
                    draft.add_blob(event.plan_digest, made.runs[run_id].plan.to_bytes())
                draft.add(run_id, event)

        log.transact(decide)
