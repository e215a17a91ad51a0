"""The executor: what a Python program gives it, what it gets back, and that the log says the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_S

from parallel_agents import (
    AgentStatus,
    AgentTask,
    ExecutionStrategy,
    InvalidConfiguration,
    InvalidPlan,
    InvalidUsage,
    ParallelAgentsError,
    ParallelExecutor,
    TaskContext,
    look,
)
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import as_json

NO_RETRIES = {"retryPolicy": {"enabled": False}}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own as working directory, that no configuration of the user's reaches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "PARALLEL_AGENTS_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def executor(project: Path) -> Iterator[ParallelExecutor]:
    """An executor that does not repeat what failed."""
    configure(project, NO_RETRIES)
    with ParallelExecutor() as made:
        yield made


def configure(project: Path, configuration: dict[str, Any]) -> None:
    """Write the project's configuration."""
    path = project / ".claude" / "config" / "parallel-agents-config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(configuration))


def history(project: Path, run_id: str) -> list[dict[str, Any]]:
    """The events of a run, as another program reads them."""
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        return [as_json(row) for row in log.run_rows(run_id)]


def store_of(project: Path) -> Path:
    return project / ".parallel-agents" / "events.db"


def agent(task_id: str, **fields: Any) -> AgentTask:
    """A task of some agent."""
    return AgentTask("backend-engineer", task_id, f"Do {task_id}", **fields)


def fail() -> None:
    raise ValueError("no such thing")


# What a task is.


def test_a_task_is_written_in_the_order_that_users_know() -> None:
    """Its first seven fields by position, ours by name only, and a run's still blank."""
    task = AgentTask("qa-engineer", "qa", "Test it", "high", ["build"], {"k": 1}, ["slow"])
    assert (task.agent_type, task.task_id, task.description, task.priority) == ("qa-engineer", "qa", "Test it", "high")
    assert (task.dependencies, task.context, task.tags) == (["build"], {"k": 1}, ["slow"])
    assert (task.status, task.started_at, task.completed_at, task.duration_seconds) == ("pending", None, None, None)
    assert (task.checkpoint_id, task.output, task.error) == (None, None, None)
    assert (task.cpu_usage, task.memory_usage_mb, task.api_calls) == (0.0, 0.0, 0)
    assert AgentTask("a", "b", "c").priority == "medium"
    assert AgentTask("a", "b", "c").dependencies is not AgentTask("a", "b", "c").dependencies


def test_states_and_strategies_have_the_values_that_users_know() -> None:
    """Lower-case names, which they also print as."""
    assert {status.name: status.value for status in AgentStatus} == {
        name: name.lower()
        for name in ("PENDING", "QUEUED", "RUNNING", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED")
    }
    assert [strategy.value for strategy in ExecutionStrategy] == ["concurrent", "pipeline", "hybrid"]
    assert f"{AgentStatus.COMPLETED}" == "completed"


# What becomes of a run.


def test_calls_and_commands_run_and_the_tasks_given_say_how(executor: ParallelExecutor, project: Path) -> None:
    """The very objects that were given come back, in their order, filled in."""
    tasks = [
        agent("last", dependencies=["first"], command=["sh", "-c", "echo one; echo two > made; echo three"]),
        agent("first", call=lambda: {"answer": 42}),
    ]
    before = datetime.now(UTC)
    result = executor.execute_parallel(tasks, ExecutionStrategy.CONCURRENT)
    after = datetime.now(UTC)
    assert result.success
    assert all(one is other for one, other in zip(result.task_results, tasks, strict=True))
    assert [task.status for task in tasks] == [AgentStatus.COMPLETED] * 2
    assert [task.output for task in tasks] == ["three", {"answer": 42}]
    assert [task.error for task in tasks] == [None, None]
    assert (project / "made").read_text() == "two\n"
    last, first = tasks
    assert first.started_at is not None
    assert first.completed_at is not None
    assert last.started_at is not None
    assert last.completed_at is not None
    times = [before, result.started_at, first.started_at, first.completed_at, last.started_at, last.completed_at,
             result.completed_at, after]  # fmt: skip
    assert times == sorted(times)
    assert all(time.tzinfo is UTC for time in times)
    assert result.total_duration_seconds == (result.completed_at - result.started_at).total_seconds()
    assert last.duration_seconds is not None
    assert 0 < last.duration_seconds <= result.total_duration_seconds
    assert (result.total_tasks, result.completed_tasks, result.failed_tasks) == (2, 2, 0)
    assert (result.cancelled_tasks, result.skipped_tasks) == (0, 0)
    assert (result.total_api_calls, result.total_cost_usd) == (0, 0.0)
    assert (result.warnings, result.errors) == ([], [])
    assert result.message == "Parallel execution completed: 2/2 successful"


def test_there_are_no_checkpoints_yet_whether_they_are_asked_for_or_not(executor: ParallelExecutor) -> None:
    """The default asks for them."""
    for asked in (True, False):
        result = executor.execute_parallel([agent("a", call=lambda: None)], auto_checkpoint=asked)
        assert result.checkpoint_ids == []
        assert result.task_results[0].checkpoint_id is None


def test_what_a_task_leaves_is_there_when_its_dependent_starts(executor: ParallelExecutor) -> None:
    """A call can read the output of those it depends on, out of their tasks."""
    tasks = [agent("t0", call=lambda: 0)]
    for number in range(1, 50):
        needed = tasks[-1]
        tasks.append(
            agent(
                f"t{number}",
                dependencies=[needed.task_id],
                call=lambda needed=needed: (needed.output + 1, needed.status)[0],
            )
        )
    assert executor.execute_parallel(tasks).success
    assert [task.output for task in tasks] == list(range(50))


def test_a_failure_is_told_and_what_needs_it_is_skipped(executor: ParallelExecutor) -> None:
    """What does not need it goes on."""
    tasks = [
        agent("build", call=fail),
        agent("test", dependencies=["build"], call=lambda: 1),
        agent("deploy", dependencies=["test"], call=lambda: 1),
        agent("docs", command=["true"]),
        agent("lint", allow_failure=True, command=["sh", "-c", "echo bad style >&2; exit 3"]),
    ]
    result = executor.execute_parallel(tasks)
    assert not result.success
    assert [str(task.status) for task in tasks] == ["failed", "skipped", "skipped", "completed", "failed"]
    assert (result.completed_tasks, result.failed_tasks, result.skipped_tasks, result.cancelled_tasks) == (1, 2, 2, 0)
    assert result.errors == ["build: ValueError: no such thing"]
    assert tasks[2].error == "skipped: build did not complete"
    assert result.warnings[:2] == [
        "test: skipped: build did not complete",
        "deploy: skipped: build did not complete",
    ]
    assert "exit code 3" in result.warnings[2]
    assert result.message == "Parallel execution failed: 1/5 successful (2 failed, 2 skipped)"


def test_a_failed_task_is_tried_again_as_the_configuration_says(project: Path) -> None:
    """The result is that of the last attempt."""
    configure(project, {"retryPolicy": {"maxRetries": 2, "retryDelay": 0}})
    tries: list[int] = []

    def third_time_lucky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    with ParallelExecutor() as executor:
        tasks = [agent("a", call=third_time_lucky), agent("b", call=fail, max_retries=0)]
        executor.execute_parallel(tasks)
    assert (tasks[0].status, tasks[0].output, tasks[0].error) == ("completed", 3, None)
    assert tasks[1].status == "failed"


def test_the_same_tasks_can_be_run_again(executor: ParallelExecutor) -> None:
    """By another strategy, as users do; what the first run left is forgotten."""
    fails = [True]
    tasks = [agent("a", call=lambda: fail() if fails else 1), agent("b", dependencies=["a"], call=lambda: 2)]
    first = executor.execute_parallel(tasks)
    assert [task.status for task in tasks] == ["failed", "skipped"]
    fails.clear()
    second = executor.execute_parallel(tasks, strategy="pipeline")
    assert (first.run_id, first.success) != (second.run_id, second.success)
    assert [(task.status, task.output, task.error) for task in tasks] == [
        ("completed", 1, None),
        ("completed", 2, None),
    ]


def test_the_strategy_decides_what_runs_together(executor: ParallelExecutor) -> None:
    """A pipeline without dependencies goes by the type of agent; concurrent tasks meet."""
    order: list[str] = []
    both = threading.Barrier(2)

    def note(context: TaskContext) -> None:
        order.append(context.task.agent_type)

    kinds = ["deployment-engineer", "qa-engineer", "software-architect"]
    tasks = [AgentTask(kind, f"t{index}", "", call=note) for index, kind in enumerate(kinds)]
    assert executor.execute_parallel(tasks, ExecutionStrategy.PIPELINE).success
    assert order == list(reversed(kinds))
    meeting = [agent(name, call=lambda: both.wait(DEADLINE_S)) for name in "ab"]
    assert executor.execute_parallel(meeting, "concurrent").success


def test_a_call_gets_its_own_task_and_a_working_directory(executor: ParallelExecutor, project: Path) -> None:
    """Or nothing, if it takes nothing."""
    seen: list[TaskContext] = []
    task = agent("a", call=seen.append, context={"part": 3})
    assert executor.execute_parallel([task]).success
    assert seen[0].task is task
    assert (seen[0].workdir, seen[0].cancelled) == (project, False)


def test_what_a_task_may_say_is_obeyed(executor: ParallelExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, declared outputs and timeouts of commands and calls."""
    monkeypatch.setenv("PASSED_ON", "from us")
    script = 'echo "$PARALLEL_AGENTS_TASK $STAGE $PASSED_ON"'
    tasks = [
        agent("env", command=["sh", "-c", script], env={"STAGE": "test"}, env_from=["PASSED_ON"]),
        agent("outputs", command=["true"], outputs=["never-made"]),
        agent("slow", command=["sleep", "600"], timeout_s=0.05),
        agent("slow_call", call=lambda context: context.wait(DEADLINE_S), timeout_s=0.05),
    ]
    executor.execute_parallel(tasks)
    assert tasks[0].output == "env test from us"
    assert [task.status for task in tasks[1:]] == ["failed"] * 3
    assert [task.error for task in tasks[1:]] == [
        "declared output is missing: never-made", "timed out after 0.05 s", "timed out after 0.05 s",
    ]  # fmt: skip


def test_a_priority_that_nobody_set_is_the_configuration_s(project: Path) -> None:
    """One that was set stands, and so does what is shown."""
    configure(project, {"maxParallelAgents": 1, "execution": {"taskQueue": {"defaultPriority": "low"}}})
    order: list[str] = []
    tasks = [
        agent(name, call=lambda context: order.append(context.task.task_id), **fields)
        for name, fields in {"unsaid": {}, "medium": {"priority": "medium"}, "high": {"priority": "high"}}.items()
    ]
    with ParallelExecutor() as executor:
        executor.execute_parallel(tasks)
    assert order == ["high", "medium", "unsaid"]
    assert tasks[0].priority == "medium"


def test_use_of_the_machine_is_measured(executor: ParallelExecutor) -> None:
    """Processor time in percent of one core, and peaks of memory."""

    def burn() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    hog = "x = bytearray(80_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1"
    tasks = [agent("burn", call=burn), agent("hog", command=["python3", "-c", hog], dependencies=["burn"])]
    result = executor.execute_parallel(tasks)
    assert result.success
    burnt, hogged = tasks
    assert 0 < burnt.cpu_usage <= 110
    assert hogged.cpu_usage > 0
    assert hogged.memory_usage_mb > 75
    assert result.peak_memory_mb == max(burnt.memory_usage_mb, hogged.memory_usage_mb)  # They did not run together.
    seconds = sum(task.cpu_usage / 100 * (task.duration_seconds or 0) for task in tasks)
    assert result.average_cpu_usage == pytest.approx(100 * seconds / result.total_duration_seconds)


# The log.


def test_a_run_is_one_of_the_project_s_store(executor: ParallelExecutor, project: Path) -> None:
    """Another program sees what the result says."""
    tasks = [agent("a", call=lambda: "done"), agent("b", call=fail), agent("c", dependencies=["b"], command=["true"])]
    result = executor.execute_parallel(tasks, "pipeline")
    with Log(store_of(project), create=False) as log:
        [run] = look.runs(log)
        status = look.status(log, result.run_id)
    assert (run["run_id"], run["status"], run["name"]) == (result.run_id, "failed", "python")
    assert status["strategy"] == "pipeline"
    assert status["duration_s"] == result.total_duration_seconds
    assert status["cost_usd"] == result.total_cost_usd
    assert status["counts"] == {"completed": 1, "failed": 1, "skipped": 1}
    for line, task in zip(status["tasks"], tasks, strict=True):
        assert line["status"] == task.status
        assert line["output"] == task.output
        assert line["duration_s"] == task.duration_seconds
        at = task.started_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if task.started_at else None
        assert line["started_at"] == at


def test_every_event_is_told_in_order_as_history_shows_it(project: Path) -> None:
    """In the thread that waits, when the tasks have been filled in."""
    told: list[dict[str, Any]] = []
    states: list[str] = []
    task = agent("a", call=lambda: 1)

    def on_event(event: dict[str, Any]) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(event)
        if event["type"] == "TaskCompleted":
            states.append(task.status)

    with ParallelExecutor(on_event=on_event) as executor:
        result = executor.execute_parallel([task, agent("b", command=["true"], dependencies=["a"])])
    assert result.warnings == []
    assert told == history(project, result.run_id)
    assert [event["version"] for event in told] == list(range(1, len(told) + 1))
    assert [told[index]["type"] for index in (0, -2, -1)] == ["RunSubmitted", "CheckpointCreated", "RunCompleted"]
    assert states[0] == "completed"


def test_what_on_event_raises_is_a_warning_and_no_end(project: Path) -> None:
    """The same complaint is counted, not repeated."""

    def on_event(event: dict[str, Any]) -> None:
        if event["type"].startswith("Task"):
            raise RuntimeError("no more events, please")

    with ParallelExecutor(on_event=on_event) as executor:
        result = executor.execute_parallel([agent("a", call=lambda: 1)])
    assert result.success
    assert result.warnings == ["on_event raised RuntimeError: no more events, please (3 times)"]


# Several runs.


def test_two_threads_share_an_executor_each_with_a_run_of_its_own(executor: ParallelExecutor) -> None:
    """Their tasks meet, so they run at the same time."""
    meeting = threading.Barrier(2)
    results: dict[str, Any] = {}

    def run(name: str) -> None:
        tasks = [
            agent(name, call=lambda: meeting.wait(DEADLINE_S)),
            agent("same", call=lambda: name, dependencies=[name]),
        ]
        results[name] = executor.execute_parallel(tasks)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert {name: result.task_results[1].output for name, result in results.items()} == {"one": "one", "two": "two"}
    assert results["one"].run_id != results["two"].run_id


def test_a_task_is_in_one_run_at_a_time(executor: ParallelExecutor) -> None:
    """Two runs would fill in the same object."""
    refused: list[InvalidUsage] = []

    def again(context: TaskContext) -> None:
        with pytest.raises(InvalidUsage, match='task "a" is in a run that has not ended') as caught:
            executor.execute_parallel([context.task])
        refused.append(caught.value)

    assert executor.execute_parallel([agent("a", call=again)]).success
    assert len(refused) == 1


def test_an_executor_in_a_call_of_another_works(executor: ParallelExecutor) -> None:
    """And so does the same one."""

    def nested() -> int:
        inner = executor.execute_parallel([agent("inner", call=lambda: 7)])
        with ParallelExecutor() as other:
            outer = other.execute_parallel([agent("inner", call=lambda: 8)])
        return inner.task_results[0].output * 10 + outer.task_results[0].output

    task = agent("outer", call=nested)
    assert executor.execute_parallel([task]).success
    assert task.output == 78


# What is refused.


@pytest.mark.parametrize("name", ["checkpoint_engine", "coordinator"])
def test_what_is_no_part_of_ours_is_refused_by_name(name: str) -> None:
    """An executor that would ignore it would lie."""
    with pytest.raises(InvalidUsage, match=f"{name} is a Python object, not a"):
        ParallelExecutor(**{name: object()})


@pytest.mark.parametrize(("field", "value"), [("model", "opus"), ("budget_usd", 1.0)])
def test_fields_for_agents_are_refused_on_other_tasks(
    executor: ParallelExecutor, project: Path, field: str, value: Any
) -> None:
    """With the task's id, and before anything is recorded."""
    with pytest.raises(InvalidPlan, match=rf'tasks\[0\]\.{field} \(task "a"\) is for agents, and this task is run by'):
        executor.execute_parallel([agent("a", command=["true"], **{field: value})])
    assert not store_of(project).exists()


def test_a_task_with_nothing_to_run_is_refused_with_the_runners_there_are(project: Path) -> None:
    """Of an agent that is not on this machine, with how to get it. The real one may be there, and must not be asked."""
    (project / "parallel-agents.toml").write_text('[agents.runners.claude]\ncommand = ["no-such-agent"]\n')
    with ParallelExecutor() as executor, pytest.raises(InvalidPlan) as caught:
        executor.execute_parallel([agent("a", call=lambda: 1), agent("b")])
    assert caught.value.message == "task 'b' is for the agent claude, and there is no 'no-such-agent' on PATH"
    assert "install no-such-agent" in caught.value.hint
    with pytest.raises(InvalidPlan, match=r'tasks\[1\] \(task "b"\) has no command, which is what the shell runs'):
        ParallelExecutor(runner="shell").execute_parallel([agent("a", call=lambda: 1), agent("b")])
    with pytest.raises(InvalidPlan, match='"python", which runs callables'):
        ParallelExecutor(runner="python").execute_parallel([agent("b")])
    assert not store_of(project).exists()


def test_a_default_runner_is_only_for_what_says_nothing_else(project: Path) -> None:
    """A command is a command, and a call a call."""
    with ParallelExecutor(runner="python") as executor:
        assert executor.execute_parallel([agent("a", command=["true"]), agent("b", call=lambda: 1)]).success


@pytest.mark.parametrize(
    ("tasks", "error", "said"),
    [
        ([], InvalidPlan, "tasks is an empty list"),
        ([agent("a", call=lambda: 1, dependencies=["b"])], InvalidPlan, "there is no such task"),
        ([agent("a", call=lambda: 1, priority="urgent")], InvalidPlan, "not one of critical"),
        ([agent("../a", call=lambda: 1)], InvalidPlan, "cannot be a task id"),
        ([agent("a", call=lambda: 1, context={"now": datetime.now(UTC)})], InvalidPlan, "JSON cannot hold"),
        ([agent("a", call=lambda: 1, command=["true"])], InvalidPlan, "has a command and is a callable"),
        ([agent("a", call="work")], InvalidUsage, "cannot be called"),
        (
            [agent("a", call=lambda: 1), {"task_id": "b"}],
            InvalidUsage,
            r"tasks\[1\] is a mapping of 1, not an AgentTask",
        ),
        (
            [agent("a", call=fail, dependencies=["b"]), agent("b", call=fail, dependencies=["a"])],
            InvalidPlan,
            "a -> b -> a|b -> a -> b",
        ),
    ],
)
def test_wrong_tasks_are_refused_before_anything_is_recorded(
    executor: ParallelExecutor, project: Path, tasks: list[Any], error: type[ParallelAgentsError], said: str
) -> None:
    """In the words in which a plan is refused."""
    with pytest.raises(error, match=said):
        executor.execute_parallel(tasks)
    assert not store_of(project).exists()


def test_a_wrong_strategy_is_refused(executor: ParallelExecutor) -> None:
    """With the nearest right one."""
    with pytest.raises(InvalidPlan, match='strategy is "pipelin", not one of concurrent, pipeline, hybrid') as caught:
        executor.execute_parallel([agent("a", call=lambda: 1)], "pipelin")
    assert "pipeline" in caught.value.hint


def test_a_wrong_executor_is_refused(project: Path) -> None:
    """Runner, configuration, roots and listener."""
    with pytest.raises(InvalidUsage, match='runner is "cloude"; the runners there are: shell, python, claude'):
        ParallelExecutor(runner="cloude")
    with pytest.raises(InvalidConfiguration, match="no such configuration file"):
        ParallelExecutor("nowhere.json")
    with pytest.raises(InvalidUsage, match="framework_root is"):
        ParallelExecutor(framework_root=project, project_root=project.parent)
    with pytest.raises(InvalidUsage, match="there is no folder"):
        ParallelExecutor(project_root=project / "missing")
    with pytest.raises(InvalidUsage, match=r"on_event is .* cannot be called"):
        ParallelExecutor(on_event="print")
    configure(project, {"enabled": False})
    with pytest.raises(InvalidConfiguration, match="enabled = false"):
        ParallelExecutor().execute_parallel([agent("a", call=lambda: 1)])


# Where it works.


def test_root_store_and_configuration_can_be_named(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands run at the root; the store and the configuration may lie elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "own.json").write_text(json.dumps({"defaultStrategy": "pipeline"}))
    executor = ParallelExecutor(
        str(elsewhere / "own.json"), framework_root=elsewhere, project_root=str(elsewhere), store=elsewhere / "own.db"
    )
    with executor:
        result = executor.execute_parallel([agent("a", command=["pwd"])])
    assert result.task_results[0].output == str(elsewhere)
    assert not store_of(project).exists()
    with Log(elsewhere / "own.db", create=False) as log:
        assert look.status(log, result.run_id)["strategy"] == "pipeline"


def test_limits_of_the_configuration_hold(project: Path) -> None:
    """Across the runs of one executor too."""
    configure(project, {"maxParallelAgents": 2})
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.002)
        with lock:
            running.pop()

    with ParallelExecutor() as executor:
        threads = [
            threading.Thread(target=executor.execute_parallel, args=([agent(f"t{i}", call=work) for i in range(10)],))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert len(most) == 20
    assert max(most) <= 2
