"""One tick of dispatching: catch up with the log, drain ends, plan, append in one commit, then make the world so.

The dispatcher owns the state of the runs that its process holds. It decides inside the write transaction, so slots and
leases hold across processes; what it decided is folded before the commit, and thrown away and read anew if the commit fails.
"""

from __future__ import annotations

import heapq
import os
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import Recorded, decode, new_id
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import SNAPSHOT_EVERY, Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.environment import missing_variables, process_environment
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan
from parallel_agents.scheduler.process import holder_alive, own_identity
from parallel_agents.scheduler.runners.protocol import Ended, Launch, Runner

CHECK_HOLDERS_US = 1_000_000
"""How often the holders of other runs are looked at: a dead one is seen within a second."""


class Progress(NamedTuple):
    """What a waiting caller needs to know of a run, as of the last tick."""

    status: str
    running: int
    stuck: bool  # Only a person can go on: paused, or nothing left but what is blocked.


@dataclass(slots=True)
class Held:
    """A run that this process dispatches."""

    state: RunState
    agenda: Agenda
    snapshot_seq_count: int = 0  # Events since the last snapshot.


class Dispatcher:
    """Dispatches the runs that it is told to hold, or all that nobody holds. One thread at a time calls ``tick``."""

    def __init__(
        self,
        log: Log,
        runners: Mapping[str, Runner],
        *,
        kind: str,
        takes_all: bool = False,
        clock: Callable[[], int] = wall_clock_us,
        draw: Callable[[], float] = random.random,
        environ: Mapping[str, str] | None = None,
        peak_memory: Callable[[str], int] = lambda attempt_id: 0,
    ) -> None:
        self.log = log
        self.runners = runners
        self.projector = Projector(log)
        self.held: dict[str, Held] = {}
        self.progress: dict[str, Progress] = {}
        self.listeners: list[Callable[[list[Recorded]], None]] = []
        self.calls: dict[tuple[str, str], tuple[Callable[..., Any], Any]] = {}  # (run, task) -> callable and its task.
        self._me: dict[str, Any] = {**own_identity().to_dict(), "kind": kind}
        self._takes_all = takes_all
        self._clock = clock
        self._draw = draw
        self._environ = os.environ if environ is None else environ
        self._peak_memory = peak_memory
        self._wanted: set[str] = set()  # Runs to claim by name.
        self._leaving: set[str] = set()  # Runs to let go of.
        self._requests: deque[tuple[str, str]] = deque()  # From other threads.
        self._ends: list[Ended] = []  # Drained from the runners, not yet committed.
        self._launched: dict[str, str] = {}  # Attempt id -> run id, of what this process started or adopted.
        self._deadlines: list[tuple[int, str]] = []
        self._seen = -1  # The last seq folded; -1 before the first look.
        self._occupancy = Occupancy()
        self._summaries: dict[str, RunSummary] = {}
        self._free_runs: set[str] = set()  # Not ended and not held by this process.
        self._holders_checked_us = 0

    def hold(self, run_id: str) -> None:
        """Ask for a run to be dispatched by this process from the next tick on. Any thread."""
        self._requests.append(("hold", run_id))

    def let_go(self, run_id: str) -> None:
        """Ask for a run to be released at the next tick, unless it can go on. Any thread."""
        self._requests.append(("let_go", run_id))

    @property
    def busy(self) -> bool:
        """Whether this process has a run to dispatch, or an end or a request to take up. Any thread."""
        return bool(self.held or self._requests or self._wanted or self._ends)

    def tick(self) -> int | None:
        """Do all that is due now.

        Returns:
            When something is due next, in microseconds since the epoch; None where only an event can change that.
        Raises:
            StoreError: the store refuses; nothing was appended, running attempts go on, the next tick starts anew.
        """
        for runner in self.runners.values():
            self._ends += runner.poll()
        while self._requests:
            what, run_id = self._requests.popleft()
            (self._wanted if what == "hold" else self._leaving).add(run_id)
        if self._seen < 0:
            self._load()
        started: list[tuple[str, str]] = []
        adopted: list[str] = []
        fresh: list[Recorded] = []

        def decide_all(draft: Draft) -> None:
            self._catch_up(draft, fresh)
            self._claim(draft, adopted)
            self._take_ends(draft)
            self._let_go(draft)
            self._plan(draft, started)

        try:
            fresh += self.log.transact(decide_all, actor=str(self._me["kind"]))
        except BaseException:
            self._forget()
            raise
        for ended in self._ends:
            self._launched.pop(ended.attempt_id, None)
        self._ends.clear()
        if fresh:
            self._seen = fresh[-1].seq
            self._publish(fresh)
        for run_id, attempt_id in started:
            self._start(run_id, attempt_id)
        for run_id in adopted:
            self._adopt(run_id)
        self._stop_what_must_end()
        return self._next_due()

    def _load(self) -> None:
        end = self.log.last_seq()
        self._summaries = self.projector.runs(end)
        self._occupancy = self.projector.occupancy(end)
        self._free_runs = {name for name, run in self._summaries.items() if run.status not in status_fold.ENDED}
        self._seen = end
        self._holders_checked_us = 0

    def _forget(self) -> None:
        """After a failed commit the folded state is ahead of the log: read everything anew at the next tick."""
        self._wanted.update(self.held)
        self.held.clear()
        self._seen = -1

    def _add(self, draft: Draft, run_id: str, event: Event) -> None:
        self._fold(draft.add(run_id, event))

    def _fold(self, record: Recorded) -> None:
        occupancy_fold.fold(self._occupancy, record)
        if isinstance(record.event, _RUN_LEVEL):
            self._fold_run_level(record)
        held = self.held.get(record.run_id)
        if held is not None:
            status_fold.fold(held.state, record, self.log.blob)
            held.snapshot_seq_count += 1

    def _fold_run_level(self, record: Recorded) -> None:
        runs_fold.fold(self._summaries, record)
        summary = self._summaries.get(record.run_id)
        if summary is None:
            return
        if isinstance(record.event, ev.RunClaimed) and record.event.holder != self._me:
            self.held.pop(record.run_id, None)  # Somebody took it over: whatever we still do for it is theirs.
        if summary.status in status_fold.ENDED or record.run_id in self.held:
            self._free_runs.discard(record.run_id)
        else:
            self._free_runs.add(record.run_id)
            self._holders_checked_us = 0

    def _catch_up(self, draft: Draft, fresh: list[Recorded]) -> None:
        """Fold what other processes appended since the last tick."""
        if draft.seq == self._seen:
            return
        stale: set[str] = set()
        for row in self.log.rows(self._seen, draft.seq):
            record = decode(row)
            fresh.append(record)
            if isinstance(record.event, ev.RunRolledBack) and record.run_id in self.held:
                stale.add(record.run_id)
                del self.held[record.run_id]
            self._fold(record)
        for run_id in stale:
            self._take(run_id)
        self._seen = draft.seq

    def _take(self, run_id: str) -> None:
        state = self.projector.state(run_id)
        self.held[run_id] = Held(state, Agenda(state))
        self._free_runs.discard(run_id)

    def _claim(self, draft: Draft, adopted: list[str]) -> None:
        """Take the runs that this process was told to hold, and those whose holder is dead or that nobody holds."""
        now_us = draft.at_us
        candidates = self._wanted & self._free_runs
        self._wanted -= {run_id for run_id in self._wanted if run_id in self._summaries}
        if self._takes_all and now_us - self._holders_checked_us >= CHECK_HOLDERS_US:
            self._holders_checked_us = now_us
            candidates |= self._free_runs
        for run_id in sorted(candidates, key=lambda name: self._summaries[name].submitted_at_us):
            summary = self._summaries[run_id]
            if summary.holder is not None and summary.holder != self._me and holder_alive(summary.holder):
                continue
            claim = ev.RunClaimed(holder=self._me, epoch=summary.epoch + 1)
            if summary.holder == self._me:
                self._take(run_id)
            else:
                record = draft.add(run_id, claim)
                self._take(run_id)
                self._fold(record)
            adopted.append(run_id)

    def _take_ends(self, draft: Draft) -> None:
        for ended in self._ends:
            run_id = self._launched.get(ended.attempt_id, "")
            held = self.held.get(run_id)
            if held is None:
                continue
            if ended.attempt_id in held.state.running:
                task = held.state.tasks[held.state.running[ended.attempt_id]]
                ended = self._measured(self._checked(held.state, task, ended))
                for event in decide.decide_end(held.state, ended, draft.at_us, self._draw()):
                    self._add(draft, run_id, event)
            elif ended.attempt_id in self._occupancy.slots:
                task_id = self._task_of_attempt(run_id, ended.attempt_id)
                reason = "its attempt was undone by a rollback"
                self._add(
                    draft, run_id, ev.ResultDiscarded(task_id=task_id, attempt_id=ended.attempt_id, reason=reason)
                )

    def _checked(self, state: RunState, task: TaskState, ended: Ended) -> Ended:
        """An attempt that ended well has failed all the same if a declared output is not there."""
        if ended.outcome != "exited" or ended.error is not None or not task.task.outputs:
            return ended
        missing = [name for name in task.task.outputs if not (Path(state.workdir) / name).exists()]
        return replace(ended, error=f"declared output is missing: {', '.join(missing)}") if missing else ended

    def _measured(self, ended: Ended) -> Ended:
        peak = self._peak_memory(ended.attempt_id)
        return replace(ended, peak_memory_bytes=peak) if peak > ended.peak_memory_bytes else ended

    def _task_of_attempt(self, run_id: str, attempt_id: str) -> str:
        for record in self.log.read_run(run_id):
            if isinstance(record.event, ev.TaskStarted) and record.event.attempt_id == attempt_id:
                return record.event.task_id
        raise AssertionError(f"attempt {attempt_id} holds a slot but was never started")

    def _let_go(self, draft: Draft) -> None:
        for run_id in self._leaving & set(self.held):
            state = self.held[run_id].state
            if not state.ended and (self.log.path and decide.is_stuck(state)):
                self._add(draft, run_id, ev.RunReleased(epoch=self._summaries[run_id].epoch))
                del self.held[run_id]
                self._free_runs.add(run_id)
        self._leaving.clear()

    def _plan(self, draft: Draft, started: list[tuple[str, str]]) -> None:
        for run_id, held in self.held.items():
            state = held.state
            if state.status == status_fold.SUBMITTED and not state.cancel_requested:
                self._add(draft, run_id, ev.RunStarted())
            overdue = decide.decide_overdue(state, draft.at_us)
            if overdue is not None:
                self._add(draft, run_id, overdue)
        levels = range(4) if len(self.held) > 1 else (3,)
        for priority in levels:
            for run_id, held in self.held.items():
                facts = Facts(len(self._occupancy.slots), self._occupancy.of_run(run_id))
                decision = plan(held.state, held.agenda, facts, draft.at_us, priority=priority)
                self._carry_out(draft, run_id, held.state, decision, started)
        for run_id, held in list(self.held.items()):
            finish = decide.decide_finish(held.state)
            if finish is not None and self._occupancy.of_run(run_id) == 0:
                self._add(draft, run_id, finish)

    def _carry_out(
        self, draft: Draft, run_id: str, state: RunState, decision: Decision, started: list[tuple[str, str]]
    ) -> None:
        for skip in decision.skips:
            self._add(draft, run_id, ev.TaskSkipped(task_id=skip.task_id, because=skip.because, reason=skip.reason))
        for task_id in decision.cancels:
            self._add(draft, run_id, ev.TaskCancelled(task_id=task_id, reason=state.reason))
        for what, task_id in decision.steps:
            if what == "queue":
                self._add(draft, run_id, ev.TaskQueued(task_id=task_id))
            else:
                attempt_id = new_id()
                facts = Facts(len(self._occupancy.slots), self._occupancy.of_run(run_id))
                runner = self._runner_name(state.tasks[task_id])
                self._add(draft, run_id, decide.decide_start(state, task_id, attempt_id, runner, facts))
                started.append((run_id, attempt_id))

    def _runner_name(self, task: TaskState) -> str:
        return task.task.runner or ("shell" if task.task.command else "python")

    def _publish(self, fresh: list[Recorded]) -> None:
        """Tell who listens, before anything is started and while the state of a run that has ended is still there."""
        ended = []
        for run_id in {record.run_id for record in fresh}:
            held = self.held.get(run_id)
            if held is not None:
                state = held.state
                self.progress[run_id] = Progress(state.status, len(state.running), decide.is_stuck(state))
                if held.snapshot_seq_count >= max(SNAPSHOT_EVERY, len(state.tasks)):
                    held.snapshot_seq_count = 0
                    self.projector.save_snapshot(state)
                if state.ended:
                    ended.append(run_id)
            elif run_id in self._summaries:
                summary = self._summaries[run_id]
                self.progress[run_id] = Progress(summary.status, 0, False)
        for listener in self.listeners:
            try:
                listener(fresh)
            except Exception:
                logger.exception("a listener failed; dispatching goes on")
        for run_id in ended:
            del self.held[run_id]

    def _launch(self, state: RunState, task: TaskState, attempt_id: str) -> Launch:
        spec = task.task
        call, call_task = self.calls.get((state.run_id, spec.task_id), (None, None))
        identity = {"RUN": state.run_id, "TASK": spec.task_id}
        return Launch(
            run_id=state.run_id,
            task_id=spec.task_id,
            attempt_id=attempt_id,
            folder=attempts_folder(self.log.path) / state.run_id / spec.task_id / attempt_id,
            workdir=Path(state.workdir),
            command=spec.command or (),
            env=process_environment(self._environ, state.environment, spec.env, spec.env_from, identity)
            if not call
            else {},
            timeout_s=spec.timeout_s,
            call=call,
            task=call_task,
        )

    def _start(self, run_id: str, attempt_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        state = held.state
        task = state.tasks[state.running[attempt_id]]
        self._launched[attempt_id] = run_id
        missing = missing_variables(self._environ, task.task.env_from)
        if missing:
            error = f"not set in the dispatcher's environment: {', '.join(missing)}"
            now_us = self._clock()
            refused = Ended(
                attempt_id, "not_started", error=error, retryable=False, started_at_us=now_us, ended_at_us=now_us
            )
            self._ends.append(refused)
            return
        if task.runner == "python":
            assert task.started_at_us is not None
            heapq.heappush(self._deadlines, (task.started_at_us + round(task.task.timeout_s * 1e6), attempt_id))
        self.runners[task.runner or "shell"].start(self._launch(state, task, attempt_id))

    def _adopt(self, run_id: str) -> None:
        """Attempts that the log says are running, but that this process never started."""
        held = self.held.get(run_id)
        if held is None:
            return
        by_runner: dict[str, list[Launch]] = {}
        for attempt_id in self._occupancy.by_run.get(run_id, ()):
            if attempt_id in self._launched:
                continue
            self._launched[attempt_id] = run_id
            task_id = held.state.running.get(attempt_id) or self._task_of_attempt(run_id, attempt_id)
            task = held.state.tasks[task_id]
            by_runner.setdefault(task.runner or "shell", []).append(self._launch(held.state, task, attempt_id))
        for name, launches in by_runner.items():
            self.runners[name].adopt(launches)

    def _stop_what_must_end(self) -> None:
        now_us = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, attempt_id = heapq.heappop(self._deadlines)
            held = self.held.get(self._launched.get(attempt_id, ""))
            if held is not None and attempt_id in held.state.running:
                self.runners["python"].stop(attempt_id, timed_out=True)
        for run_id, held in self.held.items():
            state = held.state
            for attempt_id in self._occupancy.by_run.get(run_id, ()):
                task_id = state.running.get(attempt_id)
                if task_id is None or state.cancel_requested or state.tasks[task_id].cancel_requested:
                    grace_s = state.grace_s if state.cancel_requested else 3.0
                    name = state.tasks[task_id].runner if task_id else "shell"
                    self.runners[name or "shell"].stop(attempt_id, grace_s=grace_s)

    def _next_due(self) -> int | None:
        due = [when for when, _ in self._deadlines[:1]]
        for held in self.held.values():
            for when in (held.agenda.next_due_us(held.state), decide.overdue_at_us(held.state)):
                if when is not None:
                    due.append(when)
        if self._ends:
            due.append(self._clock())
        return min(due, default=None)


_RUN_LEVEL = (
    ev.RunSubmitted, ev.RunClaimed, ev.RunReleased, ev.RunStarted, ev.RunPaused, ev.RunResumed, ev.RunCancelRequested,
    ev.RunCompleted, ev.RunFailed, ev.RunCancelled, ev.RunRolledBack, ev.RunForked,
)  # fmt: skip
