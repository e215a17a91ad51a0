"""Looking at runs and ending them while they go: status, cancellation, shutdown, interruption."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import DEADLINE_S, wait_until

from parallel_agents import AgentTask, NotAllowed, ParallelExecutionResult, ParallelExecutor, TaskContext, look, steer
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.process import MARKER


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own as working directory, where nothing that failed is tried again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "PARALLEL_AGENTS_STORE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "parallel-agents.yaml").write_text("retry_policy: {enabled: false}\nmax_parallel_agents: 2\n")
    return tmp_path


class Background:
    """A run in a thread of its own."""

    def __init__(self, executor: ParallelExecutor, tasks: list[AgentTask]) -> None:
        self.executor = executor
        self.result: ParallelExecutionResult | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(tasks,), daemon=True)
        self.thread.start()

    def _run(self, tasks: list[AgentTask]) -> None:
        try:
            self.result = self.executor.execute_parallel(tasks)
        except BaseException as error:
            self.error = error

    def end(self) -> ParallelExecutionResult:
        """Its result, once it has one."""
        self.thread.join(DEADLINE_S)
        assert self.error is None
        assert self.result is not None, "the run does not end"
        return self.result


@pytest.fixture
def executor() -> Iterator[ParallelExecutor]:
    """An executor whose runs end with the test."""
    made = ParallelExecutor()
    yield made
    made.shutdown(wait=False)


def agent(task_id: str, **fields: Any) -> AgentTask:
    """A task of some agent."""
    return AgentTask("backend-engineer", task_id, f"Do {task_id}", **fields)


def patient(context: TaskContext) -> str:
    """A call that goes on until it is cancelled."""
    assert context.wait(DEADLINE_S), "nobody cancels it"
    return "late"


def started(executor: ParallelExecutor, *task_ids: str) -> None:
    """Wait until tasks run."""
    for task_id in task_ids:
        wait_until(
            lambda task_id=task_id: (task := executor.get_task_status(task_id)) and task.status == "running", task_id
        )


def events(project: Path, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of a run's events."""
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        return [(row.type, json.loads(row.body)) for row in log.run_rows(run_id)]


def processes_of(task: AgentTask, folder: Path) -> list[psutil.Process]:
    """What lives of the attempts of runs in this project."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if MARKER in process.environ() and process.cwd() == str(folder) and process.status() != "zombie":
                found.append(process)
    return found


def engine_threads() -> set[str]:
    """Threads that an engine has, and that nothing else is called."""
    names = {"dispatch", "doorbell", "callable", "supervisor", "sampler", "APScheduler", "git worktrees", "git objects"}
    return {thread.name for thread in threading.enumerate()} & names


# Looking.


def test_a_task_can_be_looked_at_while_it_runs_and_afterwards(executor: ParallelExecutor) -> None:
    """It is the object that was given; an id that was never given is nobody."""
    go = threading.Event()
    task = agent("a", call=lambda: go.wait(DEADLINE_S))
    later = agent("b", call=lambda: 1, dependencies=["a"])
    assert executor.get_task_status("a") is None
    run = Background(executor, [task, later])
    started(executor, "a")
    assert executor.get_task_status("a") is task
    assert task.started_at is not None
    assert (task.completed_at, task.duration_seconds, later.status) == (None, None, "pending")
    go.set()
    run.end()
    assert executor.get_task_status("a") is task
    assert (task.status, task.output) == ("completed", True)
    assert executor.get_task_status("c") is None
    again = agent("a", call=lambda: 2)
    executor.execute_parallel([again])
    assert executor.get_task_status("a") is again
    assert executor.get_task_status("b") is later


def test_a_run_that_goes_on_is_looked_at_before_one_that_is_over(executor: ParallelExecutor) -> None:
    """However late that began."""
    go = threading.Event()
    first = agent("a", call=lambda: go.wait(DEADLINE_S))
    run = Background(executor, [first])
    started(executor, "a")
    executor.execute_parallel([agent("a", call=lambda: 2)])
    assert executor.get_task_status("a") is first
    go.set()
    run.end()


def test_an_executor_does_not_remember_without_end(executor: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest tasks are forgotten first, those of the last run never."""
    monkeypatch.setattr("parallel_agents.executor.KEPT_TASKS", 4)
    for number in range(4):
        executor.execute_parallel([agent(f"{letter}{number}", call=lambda: 1) for letter in "abc"])
    known = [number for number in range(4) if executor.get_task_status(f"a{number}")]
    assert known[-1] == 3
    assert 0 not in known


# Cancelling one task.


def test_a_running_task_can_be_cancelled_from_another_thread(executor: ParallelExecutor, project: Path) -> None:
    """A command with its processes, a call when it returns; what needs them is skipped, the rest goes on."""
    tasks = [
        agent("command", command=["sleep", "600"]),
        agent("call", call=patient),
        agent("after", command=["true"], dependencies=["command"]),
        agent("other", command=["true"]),
    ]
    run = Background(executor, tasks)
    started(executor, "command", "call")
    assert executor.cancel_task("command")
    assert executor.cancel_task("call")
    result = run.end()
    assert [str(task.status) for task in tasks] == ["cancelled", "cancelled", "skipped", "completed"]
    assert (result.success, result.cancelled_tasks, result.skipped_tasks) == (False, 2, 1)
    assert tasks[0].error == "cancelled: cancelled by its executor"
    assert tasks[1].output is None
    assert processes_of(tasks[0], project) == []


def test_a_waiting_task_can_be_cancelled(executor: ParallelExecutor) -> None:
    """It never starts."""
    go = threading.Event()
    tasks = [agent("a", call=lambda: go.wait(DEADLINE_S)), agent("b", call=lambda: 1, dependencies=["a"])]
    run = Background(executor, tasks)
    started(executor, "a")
    assert executor.cancel_task("b")
    go.set()
    assert run.end().cancelled_tasks == 1
    assert (tasks[1].status, tasks[1].started_at) == ("cancelled", None)


def test_only_what_has_not_ended_can_be_cancelled(executor: ParallelExecutor) -> None:
    """Neither an unknown task, nor one that is over, in a run that goes on or is over too."""
    go = threading.Event()
    assert not executor.cancel_task("a")
    run = Background(
        executor, [agent("a", call=lambda: 1), agent("b", dependencies=["a"], call=lambda: go.wait(DEADLINE_S))]
    )
    started(executor, "b")
    assert not executor.cancel_task("a")
    assert not executor.cancel_task("c")
    go.set()
    run.end()
    assert not executor.cancel_task("b")


def test_a_listener_can_cancel(project: Path) -> None:
    """It is called in the thread that waits, which is no hindrance."""
    answers: list[bool] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["type"] == "TaskStarted":
            answers.append(executor.cancel_task(event["data"]["task_id"]))

    executor = ParallelExecutor(on_event=on_event)
    with executor:
        result = executor.execute_parallel([agent("a", command=["sleep", "600"]), agent("b", call=patient)])
    assert answers == [True, True]
    assert result.cancelled_tasks == 2


def test_others_can_steer_a_run_of_an_executor(executor: ParallelExecutor, project: Path) -> None:
    """As the command line does: it is a run of the store like any other."""
    go = threading.Event()
    tasks = [agent("a", call=lambda: go.wait(DEADLINE_S)), agent("b", call=lambda: 1, dependencies=["a"])]
    run = Background(executor, tasks)
    started(executor, "a")
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        [listed] = look.runs(log)
        run_id = listed["run_id"]
        steer.pause(log, run_id)
        go.set()
        wait_until(lambda: tasks[0].status == "completed", "the running task to finish")
        wait_until(lambda: look.status(log, run_id)["counts"].get("running") is None, "nothing to run")
        assert tasks[1].status in ("pending", "queued")
        steer.resume(log, run_id)
    assert run.end().success


# Shutting down.


def test_a_shutdown_lets_finish_what_runs_and_starts_nothing(executor: ParallelExecutor, project: Path) -> None:
    """It returns when that is done; the run then counts as cancelled, and another one is refused."""
    go = threading.Event()
    tasks = [agent("a", call=lambda: go.wait(DEADLINE_S)), agent("b", command=["touch", "b"], dependencies=["a"])]
    run = Background(executor, tasks)
    started(executor, "a")
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    wait_until(lambda: "RunPaused" in dict(events(project, _only_run(project))), "the shutdown to begin")
    assert ending.is_alive()
    go.set()
    ending.join(DEADLINE_S)
    assert not ending.is_alive()
    result = run.end()
    assert [str(task.status) for task in tasks] == ["completed", "cancelled"]
    assert (result.success, result.errors) == (False, ["the run was cancelled: its executor was shut down"])
    assert not (project / "b").exists()
    with pytest.raises(NotAllowed, match="has been shut down"):
        executor.execute_parallel([agent("c", call=lambda: 1)])
    assert executor.get_task_status("a") is tasks[0]
    executor.shutdown()
    assert engine_threads() == set()


def _only_run(project: Path) -> str:
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        [run] = look.runs(log)
    return str(run["run_id"])


def test_a_shutdown_does_not_wait_for_a_rest_before_a_retry(project: Path) -> None:
    """What would be tried again later is not."""
    (project / "parallel-agents.yaml").write_text("retry_policy: {retry_delay: 3600}\n")
    executor = ParallelExecutor()
    task = agent("a", command=["false"])
    run = Background(executor, [task])
    wait_until(lambda: task.status == "queued" and task.error, "the first attempt to fail")
    executor.shutdown()
    assert run.end().cancelled_tasks == 1


def test_the_emergency_stop_kills_at_once(executor: ParallelExecutor, project: Path) -> None:
    """Processes that are deaf to being asked, too; it does not wait itself."""
    deaf = "trap '' TERM; touch begun; while :; do sleep 0.1; done"
    tasks = [agent("a", command=["sh", "-c", deaf]), agent("b", call=patient), agent("c", call=patient)]
    run = Background(executor, tasks)
    wait_until((project / "begun").exists, "the command")
    executor.shutdown(wait=False)
    result = run.end()
    assert [str(task.status) for task in tasks] == ["cancelled"] * 3
    assert result.errors == ["the run was cancelled: emergency stop"]
    assert processes_of(tasks[0], project) == []
    wait_until(lambda: not engine_threads(), "the engine to be gone")


def test_an_emergency_stop_hurries_a_shutdown_that_waits(executor: ParallelExecutor) -> None:
    """The second one is the stronger."""
    task = agent("a", command=["sleep", "600"])
    run = Background(executor, [task])
    started(executor, "a")
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    executor.shutdown(wait=False)
    assert run.end().cancelled_tasks == 1
    ending.join(DEADLINE_S)
    assert not ending.is_alive()


def test_a_call_that_does_not_return_holds_up_no_emergency_stop(executor: ParallelExecutor) -> None:
    """Its task counts as cancelled, with a warning; what it returns later is nobody's."""
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def deaf() -> str:
        begun.set()
        go.wait(DEADLINE_S)
        over.set()
        return "too late"

    task = agent("a", call=deaf)
    run = Background(executor, [task])
    assert begun.wait(DEADLINE_S)
    executor.shutdown(wait=False)
    result = run.end()
    assert not over.is_set()
    assert (task.status, task.output) == ("cancelled", None)
    assert "a: its call has not returned, and goes on in its thread" in result.warnings
    go.set()
    assert over.wait(DEADLINE_S)
    wait_until(lambda: "callable" not in engine_threads(), "its thread to end")
    assert (task.status, task.output) == ("cancelled", None)


@pytest.mark.parametrize("wait", [True, False])
def test_a_listener_can_shut_down(wait: bool) -> None:
    """Either way; neither waits for the run that it is called by."""
    go = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        if event["type"] == "TaskStarted":
            executor.shutdown(wait=wait)
            go.set()

    executor = ParallelExecutor(on_event=on_event)
    first = (lambda: go.wait(DEADLINE_S)) if wait else patient
    tasks = [agent("a", call=first), agent("b", command=["true"], dependencies=["a"])]
    result = executor.execute_parallel(tasks)
    assert not result.success
    assert tasks[1].status == "cancelled"
    assert tasks[0].status == ("completed" if wait else "cancelled")
    wait_until(lambda: not engine_threads(), "its threads to end")  # Who did not wait may see that of a call end.


def test_a_call_can_shut_down(executor: ParallelExecutor) -> None:
    """It does not wait for itself; what it returns still counts."""
    tasks = [agent("a", call=executor.shutdown), agent("b", call=lambda: 1, dependencies=["a"])]
    executor.execute_parallel(tasks)
    assert [str(task.status) for task in tasks] == ["completed", "cancelled"]
    executor.shutdown()
    wait_until(lambda: engine_threads() == set(), "no thread of ours is left")


# Interruptions.


def test_an_interrupted_wait_stops_the_run_first(executor: ParallelExecutor, project: Path) -> None:
    """Ctrl-C reaches the caller when the processes are gone, and the executor still works."""

    def on_event(event: dict[str, Any]) -> None:
        if event["type"] == "TaskStarted":
            raise KeyboardInterrupt

    tasks = [
        agent("a", command=["sleep", "600"]),
        agent("b", call=patient),
        agent("c", call=lambda: 1, dependencies=["a"]),
    ]
    interrupted = ParallelExecutor(on_event=on_event)
    with pytest.raises(KeyboardInterrupt):
        interrupted.execute_parallel(tasks)
    assert [str(task.status) for task in tasks] == ["cancelled"] * 3
    assert processes_of(tasks[0], project) == []
    assert events(project, _only_run(project))[-1] == (
        "RunCancelled", {"counts": {"cancelled": 3}, "reason": "interrupted"},
    )  # fmt: skip
    interrupted.shutdown()


def test_an_interrupted_call_that_does_not_return_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the executor has threads for what comes next."""
    monkeypatch.setattr("parallel_agents.execution.STOP_GRACE_S", 0.0)
    monkeypatch.setattr("parallel_agents.execution.RETURN_S", 0.0)
    go = threading.Event()
    interrupt = [True]

    def on_event(event: dict[str, Any]) -> None:
        if interrupt and event["type"] == "TaskStarted":
            raise KeyboardInterrupt

    with ParallelExecutor(on_event=on_event) as executor:
        deaf = [agent(f"deaf{number}", call=lambda: go.wait(DEADLINE_S)) for number in range(2)]
        with pytest.raises(KeyboardInterrupt):
            executor.execute_parallel(deaf)
        assert [str(task.status) for task in deaf] == ["cancelled"] * 2
        interrupt.clear()
        assert executor.execute_parallel([agent(f"t{number}", call=lambda: 1) for number in range(20)]).success
        go.set()


def test_a_store_that_refuses_ends_the_wait(executor: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the store's own error, and the next run gets an engine that works."""
    from parallel_agents import StoreError

    real = Log.transact
    broken = [False]

    def transact(log: Log, *args: Any, **kwargs: Any) -> Any:
        if broken[0]:
            raise StoreError("the disk is full")
        return real(log, *args, **kwargs)

    monkeypatch.setattr(Log, "transact", transact)
    task = agent("a", call=lambda: broken.__setitem__(0, True))
    with pytest.raises(StoreError, match="the disk is full"):
        executor.execute_parallel([task])
    broken[0] = False
    assert executor.execute_parallel([agent("b", call=lambda: 1)]).success


# What is left of an executor.


def test_an_executor_that_nobody_has_any_more_leaves_nothing() -> None:
    """Neither threads nor the supervisor of its commands, though it was never shut down."""
    executor: ParallelExecutor | None = ParallelExecutor()
    assert executor is not None
    before = set(psutil.Process().children())
    executor.execute_parallel([agent("a", command=["true"]), agent("b", call=lambda: 1)])
    wait_until(lambda: len(set(psutil.Process().children()) - before) == 1, "git to hold the last checkpoint")
    supervisors = set(psutil.Process().children()) - before
    del executor
    gc.collect()
    wait_until(lambda: not engine_threads(), "its threads to end")
    assert not any(process.is_running() for process in supervisors)


def test_a_shutdown_takes_the_supervisor_with_it() -> None:
    """When it returns, not a moment later."""
    before = set(psutil.Process().children())
    with ParallelExecutor() as executor:
        executor.execute_parallel([agent("a", command=["true"])])
        assert set(psutil.Process().children()) - before
    assert set(psutil.Process().children()) - before == set()
    assert engine_threads() == set()


def test_runs_one_after_another_share_an_engine(executor: ParallelExecutor) -> None:
    """No thread more after many of them than after the first."""
    executor.execute_parallel([agent("a", call=lambda: 1), agent("b", command=["true"])])
    threads = threading.active_count()
    for _ in range(8):
        executor.execute_parallel([agent("a", call=lambda: 1), agent("b", command=["true"])])
    assert threading.active_count() <= threads + 1  # The pool of calls may have grown.
