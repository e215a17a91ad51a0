"""Runs that a Python program waits for: the engine that dispatches them, and their tasks, filled in as they go."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from parallel_agents import steer
from parallel_agents.agent_task import AgentStatus, AgentTask, clear
from parallel_agents.eventstore.errors import NotAllowed, UnknownTask
from parallel_agents.eventstore.events import CheckpointCreated, RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, as_json
from parallel_agents.eventstore.submission import Plan
from parallel_agents.foreground import LEAVE_S, identity
from parallel_agents.held_back import limits_of
from parallel_agents.notices import Notices, waiting
from parallel_agents.project import Project
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import status as st
from parallel_agents.projections import usage as usage_fold
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.projections.usage import Usage
from parallel_agents.scheduler.engine import Engine
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

# Now, because an engine may be made when the main thread has ended, and then APScheduler cannot be imported any more.
import_module("parallel_agents.scheduler.loop")

KIND = "python"  # What leases and events call a program that dispatches its own runs.
MB = 1024 * 1024
STOP_GRACE_S = 3.0  # Between asking the processes of a run to end and killing them; calls have as long to return.
RETURN_S = 1.0  # How long a call that was told to stop is waited for in an emergency.
EXIT_S = 5.0  # How long the interpreter's exit may wait for what is left to stop.
_POLL_S = 1.0  # The truth behind the bells.
_LOOK_S = 0.05  # Between two looks for calls to be given up.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = {status.value: status for status in AgentStatus}

Tell = Callable[[dict[str, Any]], object]


class Execution:
    """One run, and what became of it so far.

    The dispatching thread calls ``take`` with every commit, before it starts what that commit allows: so whatever a task
    leaves stands in its ``AgentTask`` before a task that depends on it begins.
    """

    def __init__(self, run_id: str, tasks: Sequence[AgentTask], *, follows: bool, notices: Notices | None) -> None:
        self.run_id = run_id
        self.tasks = {task.task_id: task for task in tasks}
        self.cost = Cost()
        self.usage = Usage()
        self.state: RunState | None = None  # The dispatcher's; nobody changes it any more once the run has ended.
        self.ended = False
        self.waits = False  # Only a person can go on; the run was let go of, so that any process may.
        self.checkpoints: list[str] = []
        self.left = False  # Nobody waits for it any more.
        self.thread = threading.get_ident()  # That waits for it.
        self.bell: SimpleQueue[None] = SimpleQueue()  # Rung when it has ended; at every commit if somebody follows.
        self.follows = follows or notices is not None
        self.notices = notices
        self.told_limits: set[tuple[str, str]] = set()  # Waits of providers that were told, by provider and until when.
        self.lines: SimpleQueue[str] = SimpleQueue()  # Notifications that are still to be printed.
        self.seq = 0  # Of the last event that has been taken.
        self.told_version = 0
        self.complaints: Counter[str] = Counter()  # What the caller's own code has raised.
        self.draining = False  # Nothing starts any more; it ends with what runs.
        self.give_up_at: float | None = None  # When calls that were told to stop are waited for no longer (monotonic).
        self.given_up: list[str] = []  # Tasks whose calls had not returned then.

    def take(self, records: Sequence[Recorded], state: RunState | None) -> None:
        """Fold new events of the run, and fill in the tasks that they name."""
        touched: set[str] = set()
        for record in records:
            cost_fold.fold(self.cost, record)
            usage_fold.fold(self.usage, record)
            if isinstance(record.event, CheckpointCreated):
                self.checkpoints.append(record.event.checkpoint_id)
            task_id = getattr(record.event, "task_id", None)
            if task_id in self.tasks:
                touched.add(task_id)
            elif isinstance(record.event, RunRolledBack):
                touched.update(self.tasks)
        if state is not None:
            self.state = state
            for task_id in touched:
                try:
                    fill(self.tasks[task_id], state.tasks[task_id], self.usage.calls[task_id])
                except Exception as problem:  # A class of the caller's own may refuse; the run must end all the same.
                    self.complaints[f"{task_id}: cannot be filled in: {type(problem).__name__}: {problem}"] += 1
            if self.notices is not None:
                for line in self.notices.of(records, state):
                    self.lines.put(line)
        self.seq = records[-1].seq
        self.ended = state is not None and state.ended  # After all else: then somebody reads it.
        if self.ended or self.follows or self.draining:
            self.bell.put(None)


def fill(task: AgentTask, state: TaskState, api_calls: int) -> None:
    """Write down in a task where it stands."""
    task.started_at, task.completed_at = moment(state.started_at_us), moment(state.ended_at_us)
    task.duration_seconds = state.duration_s
    task.checkpoint_id = state.checkpoint_id
    task.output = state.output
    task.error = _error(state)
    task.cpu_usage = 100.0 * state.cpu_s / state.duration_s if state.duration_s else 0.0
    task.memory_usage_mb = state.peak_memory_bytes / MB
    task.api_calls = api_calls
    task.status = _STATUSES[state.status]  # Last: who sees a task completed sees its output.


def _error(state: TaskState) -> str | None:
    match state.status:
        case st.SKIPPED if state.reason == "fail_fast":
            return f"skipped: {state.because} failed, and its pipeline fails fast"
        case st.SKIPPED:
            return f"skipped: {state.because} did not complete"
        case st.CANCELLED:
            return f"cancelled: {state.reason}" if state.reason else "cancelled"
        case st.BLOCKED:
            return f"waits for a person: {state.reason}"
        case _:
            return state.error


def moment(at_us: int | None) -> datetime | None:
    """Microseconds since the epoch as an aware time."""
    return None if at_us is None else _EPOCH + timedelta(microseconds=at_us)


def _print_lines(execution: Execution) -> None:
    with contextlib.suppress(Empty, OSError, ValueError):  # A program may have closed its stderr.
        while True:
            print(execution.lines.get_nowait(), file=sys.stderr, flush=True)


class Session:
    """An open store and the engine that dispatches a program's runs in it, until it is closed.

    Whoever waits for a run does so in ``follow``. While there is no run, none of its threads does anything.
    """

    def __init__(self, project: Project, pool: Mapping[str, Any]) -> None:
        self.log: Log = project.open(create=True, actor=KIND)
        try:
            self.engine = Engine(self.log, kind=KIND, pool=pool, rests=True)
        except BaseException:
            self.log.close()
            raise
        self.executions: dict[str, Execution] = {}
        self.retired = False  # No run will be begun any more.
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closing = False
        self.engine.dispatcher.listeners.append(self._take)
        try:
            self.engine.start()
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether another run can be begun: its engine goes, and is of this process and not of the one it forked from."""
        return not (self.retired or self.foreign) and self.engine.loop.failure is None

    @property
    def foreign(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self._pid != os.getpid()

    def begin(
        self,
        plan: Plan,
        tasks: Sequence[AgentTask],
        *,
        project: Project,
        follows: bool,
        notices: Notices | None,
        start: Start | None = None,
    ) -> Execution:
        """Submit a run and dispatch it.

        Args:
            follows: whether somebody wants to be told of every event.
            notices: what is printed on stderr while it runs.
            start: where its files are; without it nothing is versioned.
        """
        callables = any(task.call is not None for task in tasks)
        if any(task.command is not None for task in tasks):
            self.engine.need_shell()
        claim = identity(KIND)
        run_id = submit(self.log, plan, workdir=project.workdir, callables=callables, claim=claim, start=start)
        execution = Execution(run_id, tasks, follows=follows, notices=notices)
        calls = self.engine.dispatcher.calls
        for task in tasks:
            clear(task)
            if task.call is not None:
                calls[run_id, task.task_id] = (task.call, task)
        self.executions[run_id] = execution
        self.engine.hold(run_id)
        return execution

    def follow(self, execution: Execution, tell: Tell | None) -> None:
        """Wait for the end of a run.

        Args:
            tell: called with each of its events, in this thread; what it raises is kept as a complaint.
        Where all that is left waits for a person, the run is let go of.
        Raises:
            Whatever stopped the engine. What runs goes on, and can be adopted.
        """
        while not execution.ended:
            waits_s = _POLL_S
            if execution.give_up_at is not None:
                waits_s = min(_POLL_S, max(_LOOK_S, execution.give_up_at - time.monotonic()))
            with contextlib.suppress(Empty):
                execution.bell.get(timeout=waits_s)
                while True:
                    execution.bell.get_nowait()
            if self.engine.loop.failure is not None and not execution.ended:
                raise self.engine.loop.failure
            self._tell_limits(execution)
            _print_lines(execution)
            if tell is not None:
                self._tell(execution, tell)
            progress = self.engine.dispatcher.progress.get(execution.run_id)
            if execution.draining and progress is not None and progress.stuck:
                self.stop(execution, "its executor was shut down")
            elif progress is not None and progress.stuck and self._waits_for_person(execution):
                execution.waits = True
                break
            if execution.give_up_at is not None and time.monotonic() >= execution.give_up_at:
                execution.given_up += self.engine.give_up_callables(execution.run_id)
        _print_lines(execution)
        if tell is not None:
            self._tell(execution, tell)

    def _tell_limits(self, execution: Execution) -> None:
        """Say once of each provider that it lets nobody work, where a run has nothing else to do."""
        state = execution.state
        if execution.notices is None or state is None or state.running:
            return
        for limit in limits_of(self.log, state):
            if (key := (limit["provider"] or limit["runner"], limit["until"])) not in execution.told_limits:
                execution.told_limits.add(key)
                execution.lines.put(waiting(limit))

    def _waits_for_person(self, execution: Execution) -> bool:
        """Whether something is blocked, or money or a key is missing, and the run could be let go of.

        False where somebody just moved it, and of a run that somebody has paused: whoever did that goes on with it.
        """
        state = execution.state
        if state is None or not (state.counts[st.BLOCKED] or state.pause_code):
            return False
        dispatcher, run_id = self.engine.dispatcher, execution.run_id
        dispatcher.let_go(run_id)
        self.engine.loop.wake()
        self.engine.loop.wait(lambda: run_id not in dispatcher.held or not dispatcher.progress[run_id].stuck, LEAVE_S)
        return run_id not in dispatcher.held

    def drain(self, execution: Execution) -> None:
        """Start nothing any more; what runs finishes, and then the run is cancelled. Any thread."""
        execution.draining = True
        with contextlib.suppress(NotAllowed):  # It is paused already, or has ended.
            steer.pause(self.log, execution.run_id, "its executor is being shut down")
        self.engine.loop.wake()
        execution.bell.put(None)

    def stop(self, execution: Execution, reason: str, *, at_once: bool = False) -> None:
        """Cancel a run; calls that do not return in time are given up. Any thread.

        Args:
            at_once: processes have no time to end in their own way.
        """
        grace_s = 0.0 if at_once else STOP_GRACE_S
        with contextlib.suppress(NotAllowed):  # It has ended, or is being cancelled.
            steer.cancel(self.log, execution.run_id, reason=reason, grace_s=grace_s)
        execution.give_up_at = time.monotonic() + max(grace_s, RETURN_S)
        self.engine.loop.wake()
        execution.bell.put(None)

    def cancel_task(self, execution: Execution, task_id: str) -> bool:
        """Cancel one task. Any thread.

        Returns:
            Whether it had not ended.
        """
        try:
            steer.cancel(self.log, execution.run_id, task_id, "cancelled by its executor")
        except (NotAllowed, UnknownTask):
            return False
        self.engine.loop.wake()
        return True

    def leave(self, execution: Execution) -> None:
        """Nobody waits for this run any more: of what is known of it, only its tasks are kept."""
        execution.left = True
        execution.state, execution.usage = None, Usage()
        dispatcher = self.engine.dispatcher
        for task_id in execution.tasks:
            dispatcher.calls.pop((execution.run_id, task_id), None)
        dispatcher.progress.pop(execution.run_id, None)
        with self._lock:
            self.executions.pop(execution.run_id, None)
            last = self.retired and not self.executions
        if last:
            self.close()

    def retire(self) -> None:
        """Begin no run any more, and close as soon as nobody waits for one."""
        with self._lock:
            self.retired = True
            last = not self.executions
        if last:
            self.close()

    def close(self) -> None:
        """Stop dispatching, and let go of everything."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self.engine.close()
        self.log.close()
        self.closed.set()

    def finish(self) -> None:
        """What is due when the program ends or has forgotten its executor: stop what runs, then close."""
        if self.foreign or self.closed.is_set():
            return
        if threading.current_thread() is not threading.main_thread():
            # The garbage collector may run in any thread, one that close would wait for included.
            with contextlib.suppress(RuntimeError):  # Too late for another thread.
                threading.Thread(target=self._finish, name="closing", daemon=True).start()
                return
        self._finish()

    def _finish(self) -> None:
        for execution in list(self.executions.values()):
            self.stop(execution, "its program has ended", at_once=True)
        self.retire()
        if not self.closed.wait(EXIT_S):
            self.close()

    def _take(self, records: list[Recorded]) -> None:
        """A commit, in the dispatching thread: hand every run its part of it."""
        for run_id in {record.run_id for record in records}:
            execution = self.executions.get(run_id)
            if execution is not None:
                held = self.engine.dispatcher.held.get(run_id)
                mine = [record for record in records if record.run_id == run_id]
                execution.take(mine, None if held is None else held.state)

    def _tell(self, execution: Execution, tell: Tell) -> None:
        # No further than the tasks have been filled in.
        for row in self.log.run_rows(execution.run_id, execution.told_version, execution.seq):
            execution.told_version = row.version
            try:
                tell(as_json(row))
            except Exception as problem:
                execution.complaints[f"on_event raised {type(problem).__name__}: {problem}"] += 1
