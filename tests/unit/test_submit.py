"""From a plan as it was written, and the configuration, to a run in the log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.configuration import Configuration, load_configuration
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidConfiguration, InvalidPlan, StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, load_plan
from parallel_agents.planfile import parse_plan
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.governing import most_workers
from parallel_agents.submit import make_plan, run_settings, submit

RUN_LIMIT, STORE_LIMIT = "max_parallel_agents", "store_limit"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's root, without a home or an environment that could matter."""
    return tmp_path


def configured(folder: Path, **tree: Any) -> Configuration:
    """What a project's file says, and nothing else."""
    path = folder / ".claude" / "config" / "parallel-agents-config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return load_configuration(folder, environ={"HOME": str(folder / "nobody")})


def planned(configuration: Configuration, *tasks: dict[str, Any], **head: Any) -> Plan:
    """A plan as it is stored."""
    draft = parse_plan({"tasks": [{"command": ["true"], **task} for task in tasks], **head}, "plan", configuration)
    return make_plan(draft, configuration)


@pytest.mark.parametrize(
    ("configuration", "wanted", "expected"),
    [
        ({}, None, (5, 5)),
        ({}, 3, (3, 5)),
        ({}, 8, (8, 8)),  # A limit that nobody set rises to the plan's.
        ({"maxParallelAgents": 3}, None, (3, 3)),
        ({"maxParallelAgents": 3}, 8, (3, 3)),  # An explicit one is a ceiling.
        ({"maxParallelAgents": 9}, None, (9, 9)),
        ({"maxParallelAgents": 9}, 2, (2, 9)),
        ({"execution": {"workerPool": {"maxWorkers": 4}}}, 8, (4, 5)),
        ({"execution": {"workerPool": {"maxWorkers": 7}}}, None, (7, 7)),
        ({"maxParallelAgents": 6, "execution": {"workerPool": {"maxWorkers": 4}}}, None, (4, 6)),
    ],
)
def test_limits_rise_to_the_plans_unless_somebody_set_them(
    folder: Path, configuration: dict[str, Any], wanted: int | None, expected: tuple[int, int]
) -> None:
    """Of the run and of the store."""
    found = run_settings(configured(folder, **configuration), wanted)
    assert (found.max_parallel_agents, found.store_limit) == expected


def test_every_setting_that_shapes_a_decision_is_part_of_the_run(folder: Path) -> None:
    """So that no replay depends on today's configuration."""
    configuration = configured(
        folder,
        execution={
            "taskQueue": {"maxQueueSize": 7},
            "retryPolicy": {"enabled": False, "retryDelay": 2.5, "exponentialBackoff": False},
        },
        safetyFeatures={"maxExecutionTime": 60},
        resourceManagement={
            "disk": {"minFreeMB": 1}, "cpu": {"maxCpuPercent": 70, "throttleThreshold": 95.5, "perAgentLimit": 20},
            "memory": {"maxMemoryMB": 2000, "perAgentLimitMB": 500, "warningThresholdPercent": 60},
        },
    )  # fmt: skip
    assert run_settings(configuration, None) == RunSettings(
        max_queue_size=7, max_execution_s=60.0, retry=RetryPolicy(enabled=False, delay_s=2.5, exponential=False),
        min_free_mb=1, max_cpu_percent=70.0, throttle_cpu_percent=95.5, agent_cpu_percent=20.0, max_memory_mb=2000,
        agent_memory_mb=500, memory_warning_percent=60.0, min_workers=2, auto_scale=True, scaling_threshold=0.8,
        circuit_failures=3, max_output_mb=64, health_check_s=30.0, stuck_after_s=300.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ({}, (2, None, 8)),  # Nobody set maxWorkers: it rises to the plan's.
        ({"maxWorkers": 3}, (2, 3, 3)),
        ({"maxWorkers": 20}, (2, 20, 8)),  # The smallest limit counts.
        ({"maxWorkers": 1}, (1, 1, 1)),  # A least that nobody set gives way.
        ({"minWorkers": 7}, (7, None, 8)),
    ],
)
def test_the_pool_of_workers_is_part_of_the_run(
    folder: Path, pool: dict[str, Any], expected: tuple[int, int | None, int]
) -> None:
    """Its least, its most where somebody set that, and what it begins with."""
    found = run_settings(configured(folder, execution={"workerPool": {**pool, "autoScale": False}}), 8)
    assert (found.min_workers, found.max_workers, most_workers(found)) == expected
    assert not found.auto_scale


def test_tasks_take_what_they_do_not_say_from_the_configuration(folder: Path) -> None:
    """Timeout and retries."""
    configuration = configured(folder, execution={"taskQueue": {"timeout": 30}, "retryPolicy": {"maxRetries": 1}})
    plan = planned(configuration, {"task_id": "a"}, {"task_id": "b", "timeout_s": 5, "max_retries": 0})
    assert [(task.timeout_s, task.max_retries) for task in plan.tasks] == [(30.0, 1), (5.0, 0)]


def test_the_strategy_becomes_stages(folder: Path) -> None:
    """By the pipeline and the rules of the configuration."""
    configuration = configured(
        folder,
        strategies={
            "concurrent": {"maxConcurrency": 2},
            "pipeline": {
                "failFast": False,
                "defaultPipeline": [{"stage": "qa", "agents": ["tester"], "parallel": False}],
            },
            "hybrid": {"rules": [{"condition": "first", "strategy": "pipeline", "agents": ["tester"]}]},
        },
    )
    tasks = [{"task_id": "a", "agent_type": "writer"}, {"task_id": "b", "agent_type": "tester"}]
    concurrent = planned(configuration, *tasks)
    assert [(stage.name, stage.limit) for stage in concurrent.stages] == [("all", 2)]
    pipeline = planned(configuration, *tasks, strategy="pipeline")
    assert [(stage.name, stage.parallel, stage.fail_fast) for stage in pipeline.stages] == [
        ("qa", False, False), ("rest", True, False),
    ]  # fmt: skip
    assert [task.stage for task in pipeline.tasks] == [1, 0]
    hybrid = planned(configuration, *tasks, strategy="hybrid")
    assert [(stage.name, stage.phase, stage.limit) for stage in hybrid.stages] == [
        ("first/qa", 0, None), ("rest", 1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "error", "words"),
    [
        ({"enabled": False}, InvalidConfiguration, "switches parallel agents off"),
        ({"strategies": {"concurrent": {"enabled": False}}}, InvalidPlan, "strategies.concurrent.enabled = false"),
    ],
)
def test_what_is_switched_off_is_refused(
    folder: Path, tree: dict[str, Any], error: type[Exception], words: str
) -> None:
    """By the key that does it."""
    with pytest.raises(error, match=words):
        planned(configured(folder, **tree), {"task_id": "a"})


GRAPH = {"writer": {"dependsOn": []}, "tester": {"dependsOn": ["writer", "nobody"]}}


def by_agents(folder: Path, *tasks: dict[str, Any], **dependencies: Any) -> dict[str, tuple[str, ...]]:
    """What each task depends on, under a graph of agent types."""
    plan = planned(configured(folder, dependencies={"dependencyGraph": GRAPH, **dependencies}), *tasks)
    return {task.task_id: task.dependencies for task in plan.tasks}


def test_a_graph_of_agent_types_orders_a_plan_without_dependencies(folder: Path) -> None:
    """A type that the plan does not have is no dependency."""
    tasks = [
        {"task_id": "t", "agent_type": "tester"}, {"task_id": "w1", "agent_type": "writer"},
        {"task_id": "w2", "agent_type": "writer"}, {"task_id": "x"},
    ]  # fmt: skip
    assert by_agents(folder, *tasks) == {"t": ("w1", "w2"), "w1": (), "w2": (), "x": ()}
    for off in ({"enabled": False}, {"automaticResolution": False}):
        assert by_agents(folder, *tasks, **off)["t"] == ()
    own = [*tasks, {"task_id": "y", "dependencies": ["x"]}]
    assert by_agents(folder, *own)["t"] == ()


def test_a_graph_of_agent_types_that_goes_in_a_circle_is_refused(folder: Path) -> None:
    """By the tasks that it makes wait for each other, or by the type that waits for itself."""
    for graph, tasks, words in (
        ({"a": {"dependsOn": ["b"]}, "b": {"dependsOn": ["a"]}}, "ab", "circular"),
        ({"a": {"dependsOn": ["a"]}}, "a", "depends on itself"),
    ):
        with pytest.raises((InvalidPlan, InvalidConfiguration), match=words):
            planned(
                configured(folder, dependencies={"dependencyGraph": graph}),
                *({"task_id": name, "agent_type": name} for name in tasks),
            )


@pytest.fixture
def log(folder: Path) -> Iterator[Log]:
    """An empty store."""
    with Log(folder / "events.db", environ={}) as opened:
        yield opened


def plan(folder: Path) -> Plan:
    """Any."""
    return planned(configured(folder), {"task_id": "a"}, {"task_id": "b", "dependencies": ["a"]}, name="any")


def test_a_submission_is_one_event_that_names_the_plan(folder: Path, log: Log) -> None:
    """The plan is read back as it was; of the environment only what commands need to be found and to print is kept."""
    environ = {"PATH": "/bin", "LANG": "C", "HOME": "/root", "API_TOKEN": "secret-value", "TZ": "UTC"}
    run_id = submit(log, plan(folder), workdir=folder, environ=environ)
    (record,) = log.read()
    event = record.event
    assert isinstance(event, ev.RunSubmitted)
    assert load_plan(log.blob(event.plan_digest)) == plan(folder)
    assert (record.run_id, event.name, event.task_count, event.strategy) == (run_id, "any", 2, "concurrent")
    assert event.environment == {"PATH": "/bin", "LANG": "C", "TZ": "UTC"}
    assert Projector(log).state(run_id).counts == {"pending": 2}


def test_a_run_that_its_submitter_dispatches_is_held_from_its_first_moment(folder: Path, log: Log) -> None:
    """In the same commit, so that no daemon can come in between."""
    me = {"pid": os.getpid(), "start_time": 1, "boot_id": "b", "kind": "run"}
    run_id = submit(log, plan(folder), workdir=folder, callables=True, claim=me)
    submitted, claimed = log.read()
    assert submitted.at_us == claimed.at_us
    summary = Projector(log).runs()[run_id]
    assert (summary.holder, summary.epoch, summary.callables) == (me, 1, True)


def test_two_submissions_of_one_plan_are_two_runs(folder: Path, log: Log) -> None:
    """They share its bytes."""
    runs = {submit(log, plan(folder), workdir=folder) for _ in range(3)}
    assert len(runs) == 3
    assert list(Projector(log).runs()) == [record.run_id for record in log.read()]


def test_a_submission_that_the_store_refuses_leaves_nothing(folder: Path, log: Log) -> None:
    """No event, no blob."""
    log._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        submit(log, plan(folder), workdir=folder)
    log._writer.execute("PRAGMA query_only = OFF")
    assert log.last_seq() == 0
    assert log._reader.execute("SELECT count(*) FROM blobs").fetchone()[0] == 0


def test_the_working_directory_is_recorded_in_full(folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dispatches stands somewhere else."""
    monkeypatch.chdir(folder)
    (folder / "below").mkdir()
    run_id = submit(log, plan(folder), workdir=Path("below"))
    assert Projector(log).state(run_id).workdir == str(folder / "below")
