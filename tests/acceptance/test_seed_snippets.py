"""The snippets that users know, from ``seed_snippets.md``: they run as they are written.

A task of a snippet says neither command nor call, so it is for an agent; here a fake one does it. The same snippet with
``call=`` in each task works too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeagent.installing import install

from parallel_agents import (
    AgentTask,
    ExecutionStrategy,
    InvalidPlan,
    NotAllowed,
    ParallelExecutionResult,
    ParallelExecutor,
    TaskContext,
    look,
)
from parallel_agents.configuration import load_configuration
from parallel_agents.configuration_keys import ALIASES
from parallel_agents.eventstore.log import Log

DEADLINE_S = 30.0
_DOCUMENT = Path(__file__).with_name("seed_snippets.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^## (?P<heading>[^\n]+)\n\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = {block["heading"]: block for block in _BLOCK.finditer(_DOCUMENT)}
_BRACES = re.compile(r"^\{\n.*?^\}$", re.MULTILINE | re.DOTALL)  # A configuration, in the middle of a snippet too.

PYTHON = {heading: block["code"] for heading, block in _BLOCKS.items() if block["language"] == "python"}
CONFIGURATIONS = {heading: found[0] for heading, block in _BLOCKS.items() if (found := _BRACES.search(block["code"]))}
QUICK_START = "Basic Concurrent Execution"
TOGETHER = {  # Which tasks of a snippet meet: they run at the same time, as its comments say.
    "1. Concurrent Strategy": [{"task_1", "task_2", "task_3"}],
    "Use Case 1: Full Stack Feature Development": [{"ux", "backend"}, {"qa", "security"}],
    "Use Case 2: Microservices Development": [{"auth", "user", "payment"}],
    "Use Case 3: Codebase Refactoring": [{"auth_refactor", "db_refactor", "ui_refactor"}],
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own as working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "PARALLEL_AGENTS_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def executor() -> Iterator[ParallelExecutor]:
    """The executor of the snippets that make none themselves."""
    with ParallelExecutor() as made:
        yield made


def configure(project: Path, text: str) -> None:
    """Write a snippet to where the project's configuration is."""
    path = project / ".claude" / "config" / "parallel-agents-config.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a snippet; gives the names that it knows and makes."""
    names.update(
        {"AgentTask": AgentTask, "ExecutionStrategy": ExecutionStrategy}
    )  # Imported by the first of them only.
    exec(compile(code, "seed_snippets.md", "exec"), names)
    return names


def with_calls(code: str) -> str:
    """The snippet with ``call=work`` in every task that it makes."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AgentTask":
            node.keywords.append(ast.keyword("call", ast.Name("work", ast.Load())))
    return ast.unparse(ast.fix_missing_locations(tree))


def meeting(groups: list[set[str]]) -> Callable[[TaskContext], str]:
    """Work that does not get past the others of its group before all of them are there."""
    barriers = [(group, threading.Barrier(len(group))) for group in groups]

    def work(context: TaskContext) -> str:
        for group, barrier in barriers:
            if context.task.task_id in group:
                barrier.wait(DEADLINE_S)
        return f"{context.task.agent_type} is done"

    return work


def order_of(project: Path, run_id: str) -> list[tuple[str, str]]:
    """Starts and ends of tasks, as the log has them."""
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        rows = log.run_rows(run_id)
    kinds = {"TaskStarted": "start", "TaskCompleted": "end"}
    return [(kinds[row.type], json.loads(row.body)["task_id"]) for row in rows if row.type in kinds]


def assert_dependencies_held(project: Path, result: ParallelExecutionResult) -> None:
    """No task has begun before all that it depends on had ended."""
    order = order_of(project, result.run_id)
    for task in result.task_results:
        for needed in task.dependencies:
            assert order.index(("end", needed)) < order.index(("start", task.task_id))


def test_the_document_was_understood() -> None:
    """Every snippet has been found, and of every kind."""
    assert len(_BLOCKS) == _DOCUMENT.count("```") / 2
    assert len(PYTHON) > 15
    assert len(CONFIGURATIONS) == 9


# What runs as it is written.


def test_agents_are_ordered_by_what_they_depend_on() -> None:
    """Exactly as the comments say."""
    names = run(PYTHON["Automatic Dependency Resolution"])
    assert names["ordered"] == [
        "software-architect",
        "ux-designer",
        "backend-engineer",
        "frontend-engineer",
        "qa-engineer",
    ]
    assert names["errors"] == []
    assert names["groups"] == [
        ["software-architect", "ux-designer"],
        ["backend-engineer"],
        ["frontend-engineer"],
        ["qa-engineer"],
    ]


def test_cycles_of_agents_are_detected(capsys: pytest.CaptureFixture[str]) -> None:
    """There is none at first; with one, its path is printed."""
    names = run(PYTHON["Automatic Dependency Resolution"])
    snippet = PYTHON["Circular Dependency Detection"]
    assert run(snippet, **names)["cycle"] is None
    assert capsys.readouterr().out == ""
    names["manager"].add_dependency("software-architect", ["qa-engineer"])
    cycle = run(snippet, **names)["cycle"]
    assert cycle[0] == cycle[-1]
    assert capsys.readouterr().out == f"Circular dependency detected: {cycle}\n"


def test_the_queue_hands_out_the_highest_priority() -> None:
    """The rest follows in the order of its priorities."""
    names = run(PYTHON["Priority-Based Task Queue"])
    assert (names["task"].task_id, names["task"].agent_type) == ("task_1", "software-architect")
    assert [names["queue"].dequeue().task_id for _ in range(3)] == ["task_2", "task_3", "task_4"]
    assert names["queue"].dequeue() is None


def test_an_executor_is_shut_down(executor: ParallelExecutor) -> None:
    """The last line of the snippet about failures."""
    code = PYTHON["Failure Handling"]
    run(_BRACES.sub("", code), executor=executor)
    with pytest.raises(NotAllowed, match="has been shut down"):
        executor.execute_parallel([AgentTask("a", "b", "c", call=lambda: 1)])


@pytest.mark.parametrize("heading", CONFIGURATIONS)
def test_configurations_are_accepted(heading: str, project: Path) -> None:
    """Also where a key belongs to a part to come: they say its default. Comments are no JSON, so they go."""
    text = re.sub(r"\s+#.*", "", CONFIGURATIONS[heading])
    configure(project, text)
    configuration = load_configuration(project, environ={})
    for key, value in _leaves(json.loads(text)):
        group, _, rest = key.partition(".")
        full = f"{ALIASES.get(group, group)}.{rest}" if rest else key
        assert (configuration.get(full), configuration.is_explicit(full)) == (value, True)
    with ParallelExecutor() as executor:
        assert executor.execute_parallel([AgentTask("explore", "a", "Look around", call=lambda: 1)]).success


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# What needs agents.


def test_tasks_for_agents_are_refused_where_there_is_no_agent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with what to do; nothing is recorded."""
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.setattr("parallel_agents.scheduler.agents.finding.find_spec", lambda _: None)  # Of the extra `claude`.
    with pytest.raises(InvalidPlan) as caught, ParallelExecutor() as executor:
        run(PYTHON[QUICK_START], executor=executor)
    assert caught.value.message == "task 'task_1' is for the agent claude, and there is no 'claude' on PATH"
    assert "install claude so that it is on PATH" in caught.value.hint
    assert not (project / ".parallel-agents").exists()


@pytest.mark.parametrize("heading", [QUICK_START, *TOGETHER])
def test_a_snippet_runs_as_it_is_written(
    heading: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each task by an agent, after those that it needs, on the model that its type gets; the bill adds up."""
    monkeypatch.setenv("PATH", f"{install(project / 'home' / 'bin')}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "-".join(("key", "of", "nobody")))
    monkeypatch.setenv("FAKE_AGENT", "say It is done.")
    configure(project, json.dumps({"agents": {"runners": {"claude": {"passes": ["ANTHROPIC_*", "FAKE_*"]}}}}))
    with ParallelExecutor() as executor:
        result = run(PYTHON[heading], executor=executor)["result"]
    assert result.success
    assert {task.output for task in result.task_results} == {"It is done."}
    assert result.total_api_calls == len(result.task_results)
    harder = sum("authentication" in task.description.split() for task in result.task_results)  # One step up.
    expected = sum(_PRICE[task.agent_type] for task in result.task_results) + harder * 0.003
    assert result.total_cost_usd == pytest.approx(expected)
    if heading == QUICK_START:
        assert f"Completed: 3/3\nDuration: {result.total_duration_seconds:.2f}s" in capsys.readouterr().out


# What one call costs that the fake agent makes, on the model that each type gets: opus, sonnet, haiku.
_PRICE = {
    **dict.fromkeys(("software-architect", "security-engineer"), 0.006),
    **dict.fromkeys(("backend-engineer", "frontend-engineer", "api-engineer", "data-engineer"), 0.003),
    **dict.fromkeys(("ux-designer", "deployment-engineer"), 0.003),
    "qa-engineer": 0.00015,
}


def test_the_quick_start_works_with_calls(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Concurrently, then as a pipeline; the results print as in the document, and so do the metrics."""
    code = with_calls(PYTHON[QUICK_START])
    names = run(code, work=meeting([{"task_2", "task_3"}]))
    result = names["result"]
    assert capsys.readouterr().out == f"Completed: 3/3\nDuration: {result.total_duration_seconds:.2f}s\n"
    assert_dependencies_held(project, result)

    result = run(PYTHON["Pipeline Execution"], **names)["result"]
    assert result.success
    assert_dependencies_held(project, result)

    result = run(PYTHON["Performance Metrics"], **names)["result"]
    assert capsys.readouterr().out.splitlines() == [
        "Total tasks: 3",
        "Completed: 3",
        "Failed: 0",
        f"Duration: {result.total_duration_seconds:.2f}s",
        f"Average CPU: {result.average_cpu_usage:.1f}%",
        f"Peak Memory: {result.peak_memory_mb:.1f}MB",
        "API Calls: 0",
    ]

    run(PYTHON["Automatic Checkpoints"], **names)
    assert capsys.readouterr().out.splitlines() == [
        f"Task {agent} checkpoint: None" for agent in ("software-architect", "backend-engineer", "frontend-engineer")
    ]
    with Log(project / ".parallel-agents" / "events.db", create=False) as log:
        assert [line["strategy"] for line in look.runs(log)] == ["concurrent", "pipeline", "concurrent", "concurrent"]
    names["executor"].shutdown()


@pytest.mark.parametrize("heading", TOGETHER)
def test_what_runs_together_meets(heading: str, project: Path, executor: ParallelExecutor) -> None:
    """And everything comes after what it waits for."""
    names = run(with_calls(PYTHON[heading]), executor=executor, work=meeting(TOGETHER[heading]))
    result = names["result"]
    assert result.success
    assert [task.output for task in result.task_results] == [
        f"{task.agent_type} is done" for task in result.task_results
    ]
    assert_dependencies_held(project, result)


def test_a_use_case_works_with_commands(project: Path, executor: ParallelExecutor) -> None:
    """The same tasks as real processes."""
    code = with_calls(PYTHON["Use Case 1: Full Stack Feature Development"]).replace("call=work", "command=work")
    names = run(code, executor=executor, work=["sh", "-c", 'echo "$PARALLEL_AGENTS_TASK" | tee -a done'])
    assert names["result"].success
    done = (project / "done").read_text().split()
    assert (done[0], set(done[1:3]), done[3]) == ("arch", {"ux", "backend"}, "frontend")
    assert (set(done[4:6]), done[6]) == ({"qa", "security"}, "deploy")


def test_the_state_of_a_task_is_told(executor: ParallelExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    """The snippet makes a task, and looks at it when it has run."""
    making, looking = with_calls(PYTHON["Task Status Tracking"]).split("status = ")
    task = run(making, work=lambda: None)["task"]
    assert str(task.status) == "pending"
    executor.execute_parallel([task])
    run("status = " + looking, executor=executor)
    assert capsys.readouterr().out == f"Status: completed\nDuration: {task.duration_seconds}s\n"


def test_checkpoints_have_the_names_and_the_engine_of_the_snippet(project: Path) -> None:
    """All of it that comes before the executor."""
    (project / "kept").write_text("1\n")
    snippet = PYTHON["With Checkpoint System (v3.7.0)"]
    names = run(snippet[: snippet.index("executor =")])
    engine, coordinator = names["checkpoint_engine"], names["coordinator"]
    before = coordinator.pre_agent_execution_checkpoint("backend-engineer")
    (project / "kept").write_text("2\n")
    coordinator.post_agent_execution_checkpoint("backend-engineer", True)
    assert coordinator.get_coordination_status()["total_checkpoints"] == 2
    assert engine.rollback_to_checkpoint(before).success
    assert (project / "kept").read_text() == "1\n"


# Strategies by configuration.


def test_a_pipeline_follows_the_configured_stages(project: Path) -> None:
    """Where no task declares a dependency; the agents of a stage run together unless it says otherwise."""
    configure(project, CONFIGURATIONS["2. Pipeline Strategy"])
    kinds = ["deployment-engineer", "qa-engineer", "frontend-engineer", "backend-engineer", "ux-designer",
             "software-architect"]  # fmt: skip
    work = meeting([{"ux-designer", "software-architect"}, {"frontend-engineer", "backend-engineer"}])
    tasks = [AgentTask(kind, kind, "", call=work) for kind in kinds]
    with ParallelExecutor() as executor:
        result = executor.execute_parallel(tasks, strategy="pipeline")
    started = [task_id for what, task_id in order_of(project, result.run_id) if what == "start"]
    assert (set(started[:2]), set(started[2:4])) == ({"ux-designer", "software-architect"}, set(kinds[2:4]))
    assert started[4:] == ["qa-engineer", "deployment-engineer"]


def test_a_hybrid_follows_the_configured_rules(project: Path) -> None:
    """Phase after phase, each by its own strategy; what no rule names comes at the end."""
    configure(project, CONFIGURATIONS["3. Hybrid Strategy"])
    kinds = ["explore", "qa-engineer", "security-engineer", "ux-designer", "software-architect"]
    tasks = [AgentTask(kind, kind, "", call=meeting([])) for kind in kinds]
    both = meeting([{"ux-designer", "software-architect"}])
    tasks[3].call = tasks[4].call = both
    with ParallelExecutor() as executor:
        result = executor.execute_parallel(tasks, strategy="hybrid")
    order = order_of(project, result.run_id)
    started = [task_id for what, task_id in order if what == "start"]
    assert (set(started[:2]), set(started[2:4]), started[4]) == (set(kinds[3:]), set(kinds[1:3]), "explore")
    assert order.index(("end", started[2])) < order.index(("start", started[3]))
