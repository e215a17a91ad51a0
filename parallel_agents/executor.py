"""Running tasks in parallel from a Python program, and waiting for what becomes of them."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from parallel_agents.agent_settings import agent_settings
from parallel_agents.agent_task import AgentStatus, AgentTask, ExecutionStrategy, said
from parallel_agents.configuration import Configuration
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed
from parallel_agents.eventstore.log import wall_clock_us
from parallel_agents.eventstore.submission import Plan
from parallel_agents.execution import MB, Execution, Session, moment
from parallel_agents.file_settings import without_checkpoints
from parallel_agents.held_back import what_it_needs
from parallel_agents.notices import Notices
from parallel_agents.plan_fields import RUNNERS
from parallel_agents.planfile import draft_from_tasks
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.projections.usage import peak_memory_bytes
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.decide import MAX_EXECUTION
from parallel_agents.scheduler.runners.plugged_in import is_plugged_in
from parallel_agents.submit import make_plan, warnings_of
from parallel_agents.versioning import Start, look_at_files
from parallel_agents.wording import nearest_name, shown

if TYPE_CHECKING:
    from parallel_agents.checkpoint_engine import CheckpointEngine
    from parallel_agents.coordinator import MultiAgentCoordinator

PLAN_NAME = "python"
KEPT_TASKS = 10_000  # Of runs that have ended, so that a service may run for ever; those of the last run in any case.
_POOL = {
    "min_workers": "minWorkers",
    "max_workers": "maxWorkers",
    "auto_scale": "autoScale",
    "scaling_threshold": "scalingThreshold",
}

_inherited: list[Session] = []
"""Sessions of the process that this one was forked from: SQLite's connections must not be closed on this side."""


@dataclass
class ParallelExecutionResult:
    """What became of a run. All of it is folded from the run's events; its history shows the same."""

    success: bool  # The run completed: no task failed but those that may, and none was cancelled or skipped.
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    cancelled_tasks: int
    started_at: datetime  # UTC.
    completed_at: datetime
    total_duration_seconds: float
    task_results: list[AgentTask] = field(default_factory=list)  # The tasks that were given, in their order.
    checkpoint_ids: list[str] = field(default_factory=list)
    average_cpu_usage: float = 0.0
    """Processor time of all attempts over the run's duration, in percent of one core: 200 is two cores kept busy."""
    peak_memory_mb: float = 0.0
    """The most that attempts can have held at once, in units of 1,048,576 bytes: the sum of the peaks of those that ran
    together. All calls together count as this one process, with its peak since it began."""
    total_api_calls: int = 0  # Answers of models, subagents included, by what agents have printed.
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    message: str = ""
    run_id: str = ""  # What `parallel-agents history` knows it by.
    total_cost_usd: float = 0.0  # A warning says so where it is not all.
    skipped_tasks: int = 0


class ParallelExecutor:
    """Runs tasks in parallel: commands as processes, Python callables in threads of this process.

    Every run is one of the project's store, as `parallel-agents runs` lists them. An executor may be used for several
    runs, one after another or from several threads at once. Notifications go to stderr, unless the configuration switches
    them off (``monitoring.realTimeProgress``, ``notifications``).

    Args:
        config_path: a configuration file that takes the place of the project's own.
        framework_root: the same as ``project_root``.
        checkpoint_engine, coordinator: of the same project and store. With one of them the files of calls are versioned
            too, as those of commands are in any case: a run has its checkpoints, and its tasks their ``checkpoint_id``.
        store: a path or URL that takes the place of the project's store.
        project_root: the project's root, where commands run; else both are found from the working directory.
        runner: of tasks that name none and have neither command nor call: shell, python, or an agent (claude, codex, ...).
        on_event: called with every event of every run, in its order, as `parallel-agents history --json` prints it, in
            the thread that waits for the run. What it raises becomes a warning in the result.
    Raises:
        InvalidUsage: arguments that do not fit together, or are of a part that is not built yet.
        InvalidConfiguration: the configuration is refused.
    """

    def __init__(
        self,
        config_path: str | Path | None = None,
        framework_root: str | Path | None = None,
        checkpoint_engine: CheckpointEngine | None = None,
        coordinator: MultiAgentCoordinator | None = None,
        *,
        store: str | Path | None = None,
        project_root: str | Path | None = None,
        runner: str | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        if on_event is not None and not callable(on_event):
            raise InvalidUsage(f"on_event is {shown(on_event)}, which cannot be called")
        root = _one_root(framework_root, project_root)
        self._project = Project.find(start=root, store=None if store is None else str(store), root=root)
        self._versions_calls = checkpoint_engine is not None or coordinator is not None
        if self._versions_calls:
            _check_checkpoints(checkpoint_engine, coordinator, self._project)
        self._configuration: Configuration = self._project.configuration(
            config_path=None if config_path is None else Path(config_path)
        )
        known = (*RUNNERS, *clients(self._configuration.get("agents.runners")))
        if runner is not None and runner not in known and not is_plugged_in(str(runner)):
            hint = nearest_name(runner, known) if isinstance(runner, str) else ""
            raise InvalidUsage(f"runner is {shown(runner)}; the runners there are: {', '.join(known)}", hint=hint)
        self._runner = runner
        self._on_event = on_event
        self._lock = threading.Lock()
        self._runs: deque[Execution] = deque()  # In order of their submission; the oldest are forgotten.
        self._kept_tasks = 0
        self._session: Session | None = None
        self._finalizer: weakref.finalize[..., ParallelExecutor] | None = None
        self._shut_down = False

    def execute_parallel(
        self,
        tasks: Iterable[AgentTask],
        strategy: ExecutionStrategy | str | None = None,
        auto_checkpoint: bool = True,
    ) -> ParallelExecutionResult:
        """Run tasks to their end.

        The tasks given are filled in while they run. On Ctrl-C the run is cancelled and its processes are stopped before
        KeyboardInterrupt goes on to the caller.

        Args:
            strategy: None is the configuration's ``defaultStrategy``.
            auto_checkpoint: whether checkpoints are made by themselves, as far as the configuration wants them.
        Raises:
            InvalidPlan: the tasks cannot be run as they stand; nothing was recorded.
            InvalidUsage: something among them is no task, or is in a run that has not ended.
            NotAllowed: the executor has been shut down.
            StoreError: the store cannot be written.
        """
        given = list(tasks)
        plan, start, warnings = self._plan(given, strategy, auto_checkpoint)
        session, execution = self._begin(given, plan, start)
        try:
            try:
                session.follow(execution, self._on_event)
            except BaseException:
                self._abort(session, execution)
                raise
            return _result(execution, given, warnings, _needs(session, execution))
        finally:
            session.leave(execution)

    def get_task_status(self, task_id: str) -> AgentTask | None:
        """The task of that id, as far as it has come: of the latest run that has one. None for an unknown id.

        Tasks of ended runs are remembered too, the last 10,000 of them or those of the last run.
        """
        execution = self._run_of(task_id)
        return None if execution is None else execution.tasks[task_id]

    def cancel_task(self, task_id: str) -> bool:
        """End one task, from any thread or from ``on_event``. What depends on it is skipped.

        A command is stopped with all its descendants. A call sees ``cancelled`` in its ``TaskContext``, and its task ends
        when it returns.

        Returns:
            False where there is no such task, or it has ended.
        """
        execution = self._run_of(task_id)
        session = self._session
        if execution is None or execution.left or session is None:
            return False
        return session.cancel_task(execution, task_id)

    def shutdown(self, wait: bool = True) -> None:
        """End all runs of this executor, and with them the executor: it refuses further ones.

        Called from ``on_event`` or from a call of one of its runs, it does not wait: that run cannot end before.

        Args:
            wait: nothing starts any more, what runs finishes, what has not started is cancelled; returns when that is
                done. False is the emergency stop: all is stopped at once, processes are killed, and calls that do not
                return within a second are left to themselves. It does not wait for that either.
        """
        with self._lock:
            self._shut_down = True
            session = self._session
            if session is None or session.foreign:
                return
            executions = list(session.executions.values())
        for execution in executions:
            if wait:
                session.drain(execution)
            else:
                session.stop(execution, "emergency stop", at_once=True)
        session.retire()
        here = threading.get_ident()
        if wait and not session.engine.calls_here() and all(execution.thread != here for execution in executions):
            session.closed.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=True)

    def _plan(
        self, tasks: list[AgentTask], strategy: ExecutionStrategy | str | None, checkpoints: bool
    ) -> tuple[Plan, Start, list[str]]:
        """The plan of these tasks, where its files are, and what is odd about it. Nothing is recorded yet."""
        for index, task in enumerate(tasks):
            if not isinstance(task, AgentTask):
                raise InvalidUsage(f"tasks[{index}] is {shown(task)}, not an AgentTask")
            if task.call is not None and not callable(task.call):
                raise InvalidUsage(
                    f"tasks[{index}].call (task {shown(task.task_id)}) is {shown(task.call)}, which cannot be called"
                )
        draft = draft_from_tasks(
            [said(task, self._runner) for task in tasks],
            name=PLAN_NAME,
            configuration=self._configuration,
            strategy=strategy.value if isinstance(strategy, ExecutionStrategy) else strategy,
            workspace="shared" if self._versions_calls and tasks and all(task.call for task in tasks) else None,
        )
        start = look_at_files(draft, self._project)
        agents, odd = agent_settings(draft, self._configuration, self._project)
        plan = make_plan(draft, self._configuration, start.workspace, agents)
        if not checkpoints:
            plan = plan.model_copy(update={"files": without_checkpoints(plan.files)})
        return plan, start, [*draft.warnings, *start.warnings, *odd, *warnings_of(plan)]

    def _begin(self, tasks: list[AgentTask], plan: Plan, start: Start) -> tuple[Session, Execution]:
        with self._lock:
            if self._shut_down:
                raise NotAllowed("this executor has been shut down", hint="make another ParallelExecutor")
            session = self._open()
            busy = {id(task) for run in session.executions.values() for task in run.tasks.values()}
            for task in tasks:
                if id(task) in busy:
                    raise InvalidUsage(
                        f"task {shown(task.task_id)} is in a run that has not ended",
                        hint="give this run tasks of its own",
                    )
            follows = self._on_event is not None
            wanted = self._configuration.get("monitoring.realTimeProgress")
            notices = Notices(self._configuration) if wanted else None
            execution = session.begin(plan, tasks, project=self._project, follows=follows, notices=notices, start=start)
            self._remember(execution)
            return session, execution

    def _open(self) -> Session:
        """The session that there is, or a new one. The lock is held."""
        session = self._session
        if session is not None and session.usable:
            return session
        if self._finalizer is not None:
            self._finalizer.detach()
        if session is not None and session.foreign:
            _inherited.append(session)
        elif session is not None:
            session.retire()
        pool = {name: self._configuration.get(f"execution.workerPool.{key}") for name, key in _POOL.items()}
        self._session = session = Session(self._project, pool)
        # Also when the program ends, or has no use for its executor any more.
        self._finalizer = weakref.finalize(self, session.finish)
        return session

    def _remember(self, execution: Execution) -> None:
        while self._runs and self._kept_tasks > KEPT_TASKS and self._runs[0].left:
            self._kept_tasks -= len(self._runs.popleft().tasks)
        self._runs.append(execution)
        self._kept_tasks += len(execution.tasks)

    def _run_of(self, task_id: str) -> Execution | None:
        """The latest run with a task of that id; one that somebody waits for goes before those that are over."""
        with self._lock:
            found = [run for run in self._runs if task_id in run.tasks]
        return next((run for run in reversed(found) if not run.left), found[-1] if found else None)

    def _abort(self, session: Session, execution: Execution) -> None:
        """The wait for a run was broken off: stop it, all the same, before anybody goes on."""
        try:
            session.stop(execution, "interrupted")
            session.follow(execution, None)
        except KeyboardInterrupt:
            session.stop(execution, "interrupted", at_once=True)
            session.follow(execution, None)
        except Exception:
            pass  # The store refuses, for instance. What broke the wait off is what the caller hears of.


def _check_checkpoints(engine: Any, coordinator: Any, project: Project) -> None:
    from parallel_agents.checkpoint import CheckpointEngine, MultiAgentCoordinator

    for name, part, kind in (
        ("checkpoint_engine", engine, CheckpointEngine),
        ("coordinator", coordinator, MultiAgentCoordinator),
    ):
        if part is not None and not isinstance(part, kind):
            raise InvalidUsage(f"{name} is {shown(part)}, not a {kind.__name__}")
    for found in (engine, None if coordinator is None else coordinator.checkpoint_engine):
        if found is not None and found.project.store != project.store:
            raise InvalidUsage(
                f"the checkpoint engine works on {found.project.store}, this executor on {project.store}",
                hint="make both with the same root and the same store",
            )


def _one_root(framework_root: str | Path | None, project_root: str | Path | None) -> Path | None:
    roots = {Path(root).resolve() for root in (framework_root, project_root) if root is not None}
    if len(roots) > 1:
        raise InvalidUsage(
            f"framework_root is {shown(str(framework_root))} and project_root {shown(str(project_root))}",
            hint="they mean the same: give one of them",
        )
    root = next(iter(roots), None)
    if root is not None and not root.is_dir():
        raise InvalidUsage(f"there is no folder {shown(str(root))}", hint="project_root is an existing folder")
    return root


def _needs(session: Session, execution: Execution) -> list[str]:
    """What a run that money or a key holds up needs to go on."""
    state = execution.state
    agents = state is not None and (state.pause_code or any(t.failure_kind == "budget" for t in state.tasks.values()))
    return what_it_needs(session.log, state) if agents and state is not None else []


def _result(
    execution: Execution, tasks: list[AgentTask], warnings: list[str], needs: list[str]
) -> ParallelExecutionResult:
    state = execution.state
    assert state is not None
    ended_at_us = state.ended_at_us or wall_clock_us()  # It has none where it waits for a person.
    started_at_us = state.submitted_at_us if state.started_at_us is None else state.started_at_us
    duration_s = (ended_at_us - started_at_us) / 1e6
    counts = {status: state.counts[status.value] for status in AgentStatus}
    errors, odd = _problems(execution, tasks)
    if state.reason == MAX_EXECUTION:
        errors.append("the run took longer than safetyFeatures.maxExecutionTime allows")
    elif state.status == st.CANCELLED:
        errors.append(f"the run was cancelled: {state.reason}")
    elif execution.waits and state.pause_code:
        errors.append(f"the run is paused: {state.reason}")
    elif execution.waits:
        hint = f"`parallel-agents conflicts {state.run_id}`, or `approve`, and then `resume`"
        errors.append(f"the run waits for a person: {hint}")
    errors += needs
    if unknown := len(execution.cost.unknown):
        named = "1 attempt" if unknown == 1 else f"{unknown} attempts"
        odd.append(f"total_cost_usd is at least that much: nobody knows what {named} cost")
    return ParallelExecutionResult(
        success=state.status == st.COMPLETED,
        total_tasks=len(tasks),
        completed_tasks=counts[AgentStatus.COMPLETED],
        failed_tasks=counts[AgentStatus.FAILED],
        cancelled_tasks=counts[AgentStatus.CANCELLED],
        started_at=_known(started_at_us),
        completed_at=_known(ended_at_us),
        total_duration_seconds=duration_s,
        task_results=tasks,
        checkpoint_ids=list(execution.checkpoints),
        average_cpu_usage=100.0 * execution.usage.cpu_s / duration_s if duration_s > 0 else 0.0,
        peak_memory_mb=peak_memory_bytes(execution.usage) / MB,
        total_api_calls=execution.cost.calls,
        warnings=warnings + odd,
        errors=errors,
        message=_message(state.status, counts, len(tasks)),
        run_id=execution.run_id,
        total_cost_usd=execution.cost.usd_micros / 1e6,
        skipped_tasks=counts[AgentStatus.SKIPPED],
    )


def _known(at_us: int) -> datetime:
    at = moment(at_us)
    assert at is not None
    return at


def _problems(execution: Execution, tasks: list[AgentTask]) -> tuple[list[str], list[str]]:
    """What made the run fail, and what is merely worth to know."""
    errors, warnings = [], []
    for task in tasks:
        if (task.status is AgentStatus.FAILED and not task.allow_failure) or task.status is AgentStatus.BLOCKED:
            errors.append(f"{task.task_id}: {task.error}")
        elif task.status is not AgentStatus.COMPLETED and task.error is not None:
            warnings.append(f"{task.task_id}: {task.error}")
    warnings += [f"{task_id}: its call has not returned, and goes on in its thread" for task_id in execution.given_up]
    warnings += [text if times == 1 else f"{text} ({times} times)" for text, times in execution.complaints.items()]
    return errors, warnings


def _message(status: str, counts: dict[AgentStatus, int], total: int) -> str:
    others = (AgentStatus.FAILED, AgentStatus.CANCELLED, AgentStatus.SKIPPED, AgentStatus.BLOCKED)
    rest = ", ".join(f"{counts[other]} {other}" for other in others if counts[other])
    done = f"Parallel execution {status}: {counts[AgentStatus.COMPLETED]}/{total} successful"
    return f"{done} ({rest})" if rest else done
