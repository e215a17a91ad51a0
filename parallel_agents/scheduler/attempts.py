"""Attempts in the world: made ready, started, adopted, refused and stopped, and the ends that come of it.

The dispatcher decides what is to be and appends it; after the commit it is made so here. What an end means, it decides again.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Task
from parallel_agents.projections import task_snapshots
from parallel_agents.projections.at_hand import Writer
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.agents.clients import BUILT_IN, CLIENTS, Client, clients, environment
from parallel_agents.scheduler.agents.errands import errand as errand_of
from parallel_agents.scheduler.agents.granting import runner_name
from parallel_agents.scheduler.environment import missing_variables, process_environment
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.plan import Agenda
from parallel_agents.scheduler.runners import plugged_in
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT, last_line
from parallel_agents.scheduler.runners.limits import Limits
from parallel_agents.scheduler.runners.protocol import NO_AGENTS, Ended, Fault, Launch, Outcome, Runner
from parallel_agents.scheduler.steps_around import steps_told, with_steps
from parallel_agents.scheduler.throttle import MEGABYTE

if TYPE_CHECKING:
    from parallel_agents.scheduler.checkouts import LaneMaker, Order, Prepared
    from parallel_agents.scheduler.run_files import RunFiles


@dataclass(slots=True)
class Held:
    """A run that this process dispatches."""

    state: RunState
    agenda: Agenda
    workdir: Path
    light: Writer  # What makes its light snapshots.
    snapshot_seq_count: int = 0  # Events since the last snapshot.
    agents: bool = False  # Whether it has tasks of agents.
    light_seq_count: int = 0  # Events since the last light one.
    has_light: bool = False
    light_made: list[tuple[int, bytes]] = field(
        default_factory=list
    )  # Those that are not written yet, with their seqs.
    single: task_snapshots.Writer = field(default_factory=task_snapshots.Writer)


def checked(state: RunState, task: TaskState, ended: Ended) -> Ended:
    """An attempt that ended well has failed all the same if a declared output is not there."""
    if not task.task.outputs or ended.outcome != "exited" or ended.error is not None:
        return ended
    missing = [name for name in task.task.outputs if not os.path.exists(f"{state.workdir}/{name}")]
    return replace(ended, error=f"declared output is missing: {', '.join(missing)}") if missing else ended


def limits_of(state: RunState) -> Limits:
    """What one attempt of a run may use."""
    settings = state.plan.settings
    memory_mb = settings.agent_memory_mb
    return Limits(settings.agent_cpu_percent, None if memory_mb is None else memory_mb * MEGABYTE)


class Attempts:
    """The attempts that one dispatcher has in the world. Called from the dispatcher's thread only.

    Args:
        held: the runs that the dispatcher holds at any time, and ``wanted``, those that it is to hold; both only looked at.
        slots_of: the attempts of a run that hold a slot, those that a rollback has undone included.
        clock, steady: microseconds, by a clock that may be set and by one that nobody sets.
        wake: called from other threads when something is done about files.
        cut: attempts that are to be stopped because a budget is spent.
        used: what an attempt that has ended was seen to use; each is asked for once.
        lane: where what is to be done about files is done; see ``Checkouts``.
    """

    def __init__(
        self,
        log: Log,
        runners: Mapping[str, Runner],
        held: Mapping[str, Held],
        wanted: Container[str],
        slots_of: Callable[[str], Collection[str]],
        *,
        clock: Callable[[], int],
        steady: Callable[[], int],
        environ: Mapping[str, str] | None,
        used: Callable[[str], Usage | None],
        wake: Callable[[], None],
        cut: Container[str] = (),
        lane: LaneMaker | None = None,
    ) -> None:
        self.calls: dict[tuple[str, str], tuple[Callable[..., Any], Any]] = {}  # (run, task) -> callable and its task.
        self.files: RunFiles | None = None  # Made with the first run that versions its files.
        self.polled: list[Ended] = []  # Drained from the runners, not yet looked at.
        self.ends: list[Ended] = []  # All that there is to know of them is known; not yet committed.
        self.launched: dict[str, str] = {}  # Attempt id -> run id, of what this process started or adopted.
        self._to_start: list[tuple[str, str]] = []  # Said to have started. Of some somebody is still in their checkout.
        self._to_adopt: list[str] = []  # Runs of which it is not known yet what runs: the store could not be read.
        self._deadlines: list[tuple[int, str]] = []  # Of those that no supervisor ends, by the steady clock.
        self._log = log
        self._runners = runners
        self._held = held
        self._wanted = wanted
        self._slots_of = slots_of
        self._clock = clock
        self._steady = steady
        self._environ = os.environ if environ is None else environ
        self._used = used
        self._wake = wake
        self._cut = cut
        self._lane = lane
        self._folder = str(attempts_folder(log.path))

    def poll(self) -> None:
        """Drain the runners."""
        for runner in self._runners.values():
            self.polled += runner.poll()

    def look_at_ends(self) -> None:
        """Of an attempt with files, first see to these; its end comes back when they are kept and merged."""
        looked_at = 0
        try:
            for ended in self.polled:
                self._look_at_end(ended)
                looked_at += 1
        finally:
            del self.polled[:looked_at]  # What could not be read now is looked at again.
        if self.files is not None:
            self.ends += self.files.poll()

    def _look_at_end(self, ended: Ended) -> None:
        if self.files is not None and self.files.harvest.gate_ended(ended):
            return
        ended = self._measured(ended)
        run_id = self.launched.get(ended.attempt_id, "")
        held = self._held.get(run_id)
        files = None if held is None else self.files_of(held.state)
        if held is not None and (task_id := held.state.running.get(ended.attempt_id)) is not None:
            folder = self.folder_of(run_id, task_id, ended.attempt_id)
            ended = steps_told(held.state.tasks[task_id].task, ended, folder)
        if held is None or files is None or ended.outcome == "not_started" or not ended.began:
            self.ends.append(ended)
            return
        order = self._order(held.state, ended.attempt_id, run_id)
        files.keep(held.state, order, ended) if order else self.ends.append(ended)

    def merge_again(self, ended: Ended) -> None:
        """An end that cannot be committed: its work was merged with an integration line that is another one by now."""
        assert self.files is not None
        self.ends.remove(ended)
        self.files.merge_again(ended)

    def committed(self, completed: Collection[str]) -> None:
        """All ends that were known are in the log.

        Args:
            completed: attempts among them whose task is completed by that.
        """
        for ended in self.ends:
            self.launched.pop(ended.attempt_id, None)
            if self.files is not None:
                self.files.committed(ended, completed=ended.attempt_id in completed)
        self.ends.clear()

    def make_so(self, started: Iterable[tuple[str, str]], adopted: Iterable[str]) -> None:
        """After a commit: start these attempts of these runs, adopt what these runs have running, and stop what must end."""
        self._to_start += started
        self._to_adopt += adopted
        self._start_all()
        while self._to_adopt:
            self._adopt(self._to_adopt[0])
            del self._to_adopt[0]
        if self.files is not None:
            self._go_on_with_files(self.files)
        self._stop_what_must_end()

    @property
    def has_news(self) -> bool:
        """Whether there is something for the next tick: ends, gates of a stage, or refs that follow."""
        return bool(self.polled or self.ends) or (self.files is not None and self.files.has_news)

    def alive(self) -> dict[str, int]:
        """Attempts that run in processes in this moment, as far as their runners can tell, with the pids of these."""
        found: dict[str, int] = {}
        for runner in self._runners.values():
            living = getattr(runner, "live", None)  # Not every runner has processes.
            found.update(living() if living is not None else {})
        return found

    def last_words(self, task: TaskState, folder: str) -> str:
        """The last that a running attempt has printed; of an agent what it has said."""
        said = getattr(self._runner_of(task), "last_words", None)
        if said is not None:  # What it prints is for programs.
            return str(said(task.attempt_id))
        files = sorted((f"{folder}/{name}" for name in (STDOUT, STDERR)), key=_changed_at, reverse=True)
        return next(filter(None, map(last_line, files)), "")

    def folder_of(self, run_id: str, task_id: str, attempt_id: str) -> str:
        """Where the files of an attempt lie."""
        return f"{self._folder}/{run_id}/{task_id}/{attempt_id}"

    def due(self) -> list[int]:
        """When something of attempts or their files is to be done, in microseconds since the epoch."""
        due = [self._clock() + when - self._steady() for when, _ in self._deadlines[:1]]
        if self.ends:
            due.append(self._clock())
        if self.files is not None and (wait_s := self.files.next_due_s()) is not None:
            due.append(self._clock() + round(wait_s * 1e6))
        return due

    def close(self) -> None:
        """Let what is done about files come to its end. After the last tick."""
        if self.files is not None:
            self.files.checkouts.close()
            self.files.harvest.poll()
            self.files.last_words()

    def files_of(self, state: RunState) -> RunFiles | None:
        """What is done about the files of a run; None where they are not versioned."""
        if state.integration is None or state.plan.workspace == "none":
            return None
        if self.files is None:
            from parallel_agents.scheduler.run_files import RunFiles  # Other runs need no git.

            self.files = RunFiles(self._log, self._start_gate, self._wake, self._lane)
        return self.files

    def environment(self, state: RunState, spec: Task | None) -> dict[str, str]:
        """Of an attempt's process, or of a gate at the end of a stage."""
        identity = {"RUN": state.run_id} | ({} if spec is None else {"TASK": spec.task_id})
        env, names = ({}, ()) if spec is None else (spec.env, spec.env_from)
        return process_environment(self._environ, state.environment, env, names, identity)

    def start_of(self, run_id: str, attempt_id: str) -> ev.TaskStarted:
        """The event of an attempt that the state of its run may not know any more."""
        for record in self._log.read_run(run_id):
            if isinstance(record.event, ev.TaskStarted) and record.event.attempt_id == attempt_id:
                return record.event
        raise AssertionError(f"attempt {attempt_id} holds a slot but was never started")

    def _measured(self, ended: Ended) -> Ended:
        """With what samples saw of it, where that is more than its supervisor could tell."""
        used = self._used(ended.attempt_id)
        if used is None:
            return ended
        return replace(
            ended,
            cpu_s=max(ended.cpu_s, round(used.cpu_s, 6)),
            peak_cpu_percent=round(used.peak_cpu_percent, 2),
            peak_memory_bytes=max(ended.peak_memory_bytes, used.peak_memory_bytes),
            peak_open_files=used.peak_open_files,
            disk_written_bytes=max(ended.disk_written_bytes, used.disk_written_bytes),
        )

    def _order(self, state: RunState, attempt_id: str, run_id: str) -> Order | None:
        files = self.files_of(state)
        if files is None:
            return None
        task_id = state.running.get(attempt_id)
        if task_id is None:
            return files.undone_order(state, self.start_of(run_id, attempt_id), {})
        task = state.tasks[task_id]
        return files.order(state, task, attempt_id, self.environment(state, task.task))

    def _start(self, run_id: str, attempt_id: str) -> None:
        held = self._held.get(run_id)
        if held is None:
            return
        state = held.state
        task = state.tasks[state.running[attempt_id]]
        self.launched[attempt_id] = run_id
        runner = self._runner_of(task)
        needed = task.task.env_from
        missing = missing_variables(self._environ, needed) if needed else []
        if runner is None:
            self._refuse(attempt_id, f"there is no runner {task.runner!r}", fault="installation")
        elif missing:
            self._refuse(attempt_id, f"not set in the dispatcher's environment: {', '.join(missing)}")
        elif (order := self._order(state, attempt_id, run_id)) is not None:
            assert self.files is not None
            if self._undone_in_the_way(held, task.task.task_id):
                self._to_start.append((run_id, attempt_id))
            else:
                self.files.checkouts.prepare(order)
        else:
            self._run(held, task, attempt_id, runner)

    def _undone_in_the_way(self, held: Held, task_id: str) -> bool:
        """Whether an attempt that a rollback has undone is still in the checkout of a task: it runs, or is not kept yet."""
        run_id, running = held.state.run_id, held.state.running
        undone = [name for name in self._slots_of(run_id) if name not in running]
        return any(self.start_of(run_id, name).task_id == task_id for name in undone)

    def _run(
        self, held: Held, task: TaskState, attempt_id: str, runner: Runner, prepared: Prepared | None = None
    ) -> None:
        if _is_timed_here(task):
            if len(self._deadlines) > 2 * len(self.launched) + _DEADLINES_KEPT:  # Most are of calls that have returned.
                self._deadlines = [one for one in self._deadlines if one[1] in self.launched]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (self._steady() + round(task.task.timeout_s * 1e6), attempt_id))
        reach("attempt.before-start")
        try:
            runner.start(self._launch(held, task, attempt_id, prepared, begins=True))
            if self.files is not None and prepared is not None:
                self.files.begun.add(attempt_id)
        except Exception as error:  # A runner promises not to; the attempts after this one must be started.
            trouble.report_exception("attempt {} could not be started", attempt_id)
            self._refuse(attempt_id, f"cannot be started: {error}", retryable=True, fault="runner")

    def _launch(
        self, held: Held, task: TaskState, attempt_id: str, prepared: Prepared | None = None, *, begins: bool = False
    ) -> Launch:
        state, spec = held.state, task.task
        run_id, task_id = state.run_id, spec.task_id
        call, call_task = self.calls.get((run_id, task_id), _NO_CALL)
        folder = f"{self._folder}/{run_id}/{task_id}/{attempt_id}"
        if call is not None and prepared is None:  # It has no process; its folder is made for a traceback only.
            return Launch(run_id, task_id, attempt_id, folder, held.workdir, (), {}, spec.timeout_s, call, call_task)
        env: dict[str, str] = {} if call else self.environment(state, spec)
        errand, client = None, None
        if task.runner is None or task.runner in NO_AGENTS:
            pass
        elif (client := clients(state.plan.agents.clients).get(task.runner)) is not None:
            config = os.path.join(os.path.dirname(self._folder), CLIENTS, client.name)
            env = environment(client, self._environ, env, config)
        elif plugged_in.is_plugged_in(task.runner):
            client = Client(name=task.runner, command=(), model=("{model}",))  # What it makes of it is its own affair.
        if client is not None:
            attempts = f"{self._folder}/{run_id}"
            errand = errand_of(state, task, attempt_id, client, attempts, begins=begins)
        return Launch(
            run_id=run_id,
            task_id=task_id,
            attempt_id=attempt_id,
            folder=folder,
            workdir=held.workdir if prepared is None else prepared.cwd,
            command=with_steps(spec, folder),
            env=env if prepared is None else {**env, **prepared.env},
            timeout_s=spec.timeout_s,
            call=call,
            task=call_task,
            errand=errand,
            sandbox=state.plan.settings.sandbox,
            store=os.path.dirname(self._folder),
            limits=limits_of(state),
            max_output_bytes=state.plan.settings.max_output_bytes,
        )

    def _refuse(
        self,
        attempt_id: str,
        error: str,
        *,
        retryable: bool = False,
        outcome: Outcome = "not_started",
        fault: Fault = "",
    ) -> None:
        now_us = self._clock()
        self.ends.append(
            Ended(
                attempt_id, outcome, error=error, retryable=retryable, started_at_us=now_us, ended_at_us=now_us,
                fault=fault,
            )
        )  # fmt: skip

    def _runner_of(self, task: TaskState) -> Runner | None:
        """Of a task that has been started."""
        try:
            return self._runners[task.runner or runner_name(task.task)]
        except KeyError:
            return None

    def _start_all(self) -> None:
        """Start what is to be. What cannot be started now, because the store cannot be read, is so at the next look."""
        waiting, self._to_start = self._to_start, []
        for place, (run_id, attempt_id) in enumerate(waiting):
            try:
                self._start_if_wanted(run_id, attempt_id)
            except BaseException:
                self._to_start += waiting[place:]
                raise

    def _start_if_wanted(self, run_id: str, attempt_id: str) -> None:
        held = self._held.get(run_id)
        if held is not None and attempt_id in held.state.running:
            self._start(run_id, attempt_id)
        elif held is not None:
            self._refuse(attempt_id, "stopped before it began", outcome="stopped")
        elif run_id in self._wanted:  # The last commit failed; it is ours again with the next.
            self._to_start.append((run_id, attempt_id))

    def _go_on_with_files(self, files: RunFiles) -> None:
        """Start what has its checkout now, and begin the merges that are next."""
        for prepared in files.prepared():
            order = prepared.order
            held = self._held.get(order.run_id)
            if held is None:
                if order.run_id in self._wanted:  # The last commit failed; it is ours again with the next.
                    files.harvest.prepared.append(prepared)
                continue
            state, attempt_id = held.state, order.attempt_id
            if prepared.error is not None:
                self._refuse(attempt_id, prepared.error, retryable=True)
            elif attempt_id not in state.running or self._is_to_stop(state, state.tasks[order.task_id], attempt_id):
                self._refuse(attempt_id, "stopped before it began", outcome="stopped")
            else:
                task = state.tasks[order.task_id]
                runner = self._runner_of(task)
                assert runner is not None, "its checkout was made for it"
                self._run(held, task, attempt_id, runner, prepared)
        for held in self._held.values():
            files.go_on(held.state)

    def _is_to_stop(self, state: RunState, task: TaskState, attempt_id: str) -> bool:
        return state.cancel_requested or task.cancel_requested or attempt_id in self._cut

    def _adopt(self, run_id: str) -> None:
        """Attempts that the log says are running, but that this process never started."""
        held = self._held.get(run_id)
        if held is None:
            return
        by_runner: dict[str, list[tuple[TaskState, str]]] = {}
        for attempt_id in sorted(self._slots_of(run_id)):
            if attempt_id in self.launched:
                continue
            task_id = held.state.running.get(attempt_id)
            if task_id is not None and (run_id, task_id) in self.calls:
                self._start(run_id, attempt_id)  # Nobody else could have: only its appending was not acknowledged.
                continue
            task = held.state.tasks[task_id or self.start_of(run_id, attempt_id).task_id]
            by_runner.setdefault(task.runner or runner_name(task.task), []).append((task, attempt_id))
        for found in by_runner.values():  # From here on the store is not read.
            self.launched.update((attempt_id, run_id) for _, attempt_id in found)
            runner = self._runner_of(found[0][0])
            if runner is None:
                for task, attempt_id in found:
                    self._refuse(attempt_id, f"there is no runner {task.runner!r}")
                continue
            for task, attempt_id in found:
                if _is_timed_here(task):  # What is left of its time, as far as the time of day tells.
                    used_us = max(0, self._clock() - (task.started_at_us or self._clock()))
                    left_us = max(0, round(task.task.timeout_s * 1e6) - used_us)
                    heapq.heappush(self._deadlines, (self._steady() + left_us, attempt_id))
            reach("attempt.before-adopt")
            runner.adopt(self._launch(held, *of) for of in found)
            reach("attempt.adopted")

    def _stop_what_must_end(self) -> None:
        now_us = self._steady()
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, attempt_id = heapq.heappop(self._deadlines)
            held = self._held.get(self.launched.get(attempt_id, ""))
            if held is not None and (task_id := held.state.running.get(attempt_id)) is not None:
                overdue = self._runner_of(held.state.tasks[task_id])
                if overdue is not None:
                    overdue.stop(attempt_id, timed_out=True)
        for run_id, held in self._held.items():
            state = held.state
            for attempt_id in self._slots_of(run_id):
                task_id = state.running.get(attempt_id)
                if task_id is None:  # Undone by a rollback; which runner has it, the state does not say any more.
                    for runner in self._runners.values():
                        runner.stop(attempt_id)
                    self._stop_gates(attempt_id, 3.0)
                elif self._is_to_stop(state, state.tasks[task_id], attempt_id):
                    grace_s = state.grace_s if state.cancel_requested else 3.0
                    runner_of = self._runner_of(state.tasks[task_id])
                    if runner_of is not None:
                        runner_of.stop(attempt_id, grace_s=grace_s)
                    self._stop_gates(attempt_id, grace_s)
            if state.cancel_requested:
                self._stop_gates(run_id, state.grace_s)

    def _stop_gates(self, of: str, grace_s: float) -> None:
        """Of an attempt or of a run."""
        if self.files is not None:
            for gate_id in self.files.harvest.gates_of(of):
                self._runners["shell"].stop(gate_id, grace_s=grace_s)

    def _start_gate(self, launch: Launch) -> None:
        held = self._held.get(launch.run_id)
        if held is not None:
            launch.max_output_bytes = held.state.plan.settings.max_output_bytes
        try:
            self._runners["shell"].start(launch)
        except Exception as error:  # As in ``_run``.
            trouble.report_exception("gate {} could not be started", launch.attempt_id)
            now_us, said = self._clock(), f"cannot be started: {error}"
            self.polled.append(
                Ended(launch.attempt_id, "not_started", error=said, started_at_us=now_us, ended_at_us=now_us)
            )


def _is_timed_here(task: TaskState) -> bool:
    """Whether a task's time is kept by its dispatcher: of callables, and of runners that another package brings along.

    The supervisor of a command, or of an agent's client, keeps it itself, also where its dispatcher has died.
    """
    runner = task.runner
    if runner == "python":
        return True
    return runner not in (None, *NO_AGENTS, *BUILT_IN) and plugged_in.is_plugged_in(runner or "")


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


_NO_CALL: tuple[None, None] = (None, None)
_DEADLINES_KEPT = 1000
