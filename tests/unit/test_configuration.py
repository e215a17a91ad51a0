"""What a configuration may say, where it may say it, and who wins."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_agents.configuration import DEFAULTS, Configuration, environment_names, load_configuration
from parallel_agents.configuration_keys import BY_PATH, KEYS, snake_case
from parallel_agents.eventstore.errors import InvalidConfiguration, ParallelAgentsError
from parallel_agents.schemas import configuration_schema

JSON_FILE = ".claude/config/parallel-agents-config.json"

# The configuration that the project's first document prints, as its users have it on disk.
SEED = {
    "enabled": True,
    "maxParallelAgents": 5,
    "defaultStrategy": "concurrent",
    "execution": {
        "workerPool": {"minWorkers": 2, "maxWorkers": 5, "autoScale": True},
        "taskQueue": {"maxQueueSize": 100, "priorityLevels": ["critical", "high", "medium", "low"], "timeout": 600},
    },
    "strategies": {
        "concurrent": {"enabled": True, "maxConcurrency": 5},
        "pipeline": {"enabled": True, "checkpointBetweenStages": True, "failFast": True},
        "hybrid": {"enabled": True},
    },
    "checkpointIntegration": {"enabled": True, "autoCheckpointBeforeParallel": True, "rollbackOnFailure": True},
    "costOptimization": {"enabled": True, "budgetAware": True},
}
SEED_PARTS: list[dict[str, Any]] = [
    {
        "pipeline": {
            "defaultPipeline": [
                {"stage": "design", "agents": ["software-architect", "ux-designer"], "parallel": True},
                {"stage": "test", "agents": ["qa-engineer"], "parallel": False},
            ],
            "checkpointBetweenStages": True,
            "failFast": True,
        }
    },
    {
        "hybrid": {
            "rules": [
                {"condition": "architecture_phase", "strategy": "concurrent", "agents": ["software-architect"]},
                {"condition": "quality_phase", "strategy": "pipeline", "agents": ["qa-engineer", "security-engineer"]},
            ]
        }
    },
    {"checkpointIntegration": {"enabled": True, "rollbackOnFailure": True, "preserveSuccessfulAgents": True}},
    {"costOptimization": {"budgetAware": True, "pauseOnBudgetExceeded": True, "priorityBasedExecution": True}},
    {"monitoring": {"realTimeProgress": True, "progressUpdateInterval": 1, "performanceMetrics": True}},
    {
        "resourceManagement": {
            "cpu": {"maxCpuPercent": 80, "perAgentLimit": 25, "throttleThreshold": 90},
            "memory": {"maxMemoryMB": 4096, "perAgentLimitMB": 1024},
            "api": {"maxConcurrentRequests": 10, "perAgentLimit": 3},
        }
    },
    {"retryPolicy": {"enabled": True, "maxRetries": 3, "retryDelay": 5, "exponentialBackoff": True}},
    {"conflictResolution": {"enabled": True, "strategy": "interactive", "pauseOnConflict": True}},
    {"$schema": "x", "version": "3.8.0", "description": "d", "lastUpdated": "2026", "performance": {"any": ["thing"]}},
]


def put(root: Path, name: str, text: str) -> Path:
    """A file in the project."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(root: Path, text: str | None = None, name: str = JSON_FILE, **more: Any) -> Configuration:
    """The configuration of a project that has this one file, in an environment that says nothing."""
    if text is not None:
        put(root, name, text)
    return load_configuration(root, **{"environ": {}, **more})


def refusal(root: Path, text: str | None = None, name: str = JSON_FILE, **more: Any) -> InvalidConfiguration:
    """The error that it gives."""
    with pytest.raises(InvalidConfiguration) as caught:
        load(root, text, name, **more)
    assert caught.value.exit_code == 2
    return caught.value


def nested(path: str, value: Any) -> dict[str, Any]:
    """A tree with this one key."""
    *groups, leaf = path.split(".")
    tree = {leaf: value}
    for group in reversed(groups):
        tree = {group: tree}
    return tree


def test_a_project_without_any_file_has_the_defaults(tmp_path: Path) -> None:
    """Nothing is explicit, and no home is needed."""
    configuration = load(tmp_path)
    assert configuration.get("maxParallelAgents") == 5
    assert configuration.get("execution.taskQueue.timeout") == 600
    assert configuration.origin("maxParallelAgents") == "default"
    assert not configuration.is_explicit("maxParallelAgents")


@pytest.mark.parametrize("tree", [SEED, *SEED_PARTS], ids=lambda tree: next(iter(tree)))
def test_every_configuration_that_users_have_is_accepted(tmp_path: Path, tree: dict[str, Any]) -> None:
    """As it is printed in the document that they know."""
    assert load(tmp_path, json.dumps(tree)).get("enabled") is True


@pytest.mark.parametrize("key", [key for key in KEYS if key.force != "ignored"], ids=lambda key: key.path)
def test_every_key_is_accepted_at_its_default_wherever_it_may_stand(tmp_path: Path, key: Any) -> None:
    """In camelCase in JSON, in snake_case in YAML, and in the environment, with the origin told."""
    from_json = load(tmp_path / "json", json.dumps(nested(key.path, key.default)))
    assert from_json.get(key.path) == key.default
    assert from_json.origin(key.path).startswith("project file ")
    snake = ".".join(snake_case(part) for part in key.path.split("."))
    in_yaml = json.dumps(nested(snake, key.default)).replace("dependsOn", "depends_on")
    assert load(tmp_path / "yaml", in_yaml, "parallel-agents.yaml").is_explicit(key.path)
    name = next(name for name, other in environment_names().items() if other is key)
    text = key.default if isinstance(key.default, str) else json.dumps(key.default)
    assert load(tmp_path, environ={name: text}).origin(key.path) == f"environment {name}"


def test_flags_beat_the_environment_which_beats_the_project_which_beats_the_user(tmp_path: Path) -> None:
    """Taking the strongest away shows the next."""
    user = tmp_path / "home"
    put(user, "config.toml", "max_parallel_agents = 2\n")
    assert load(tmp_path, user_dir=user).get("maxParallelAgents") == 2
    assert load(tmp_path, user_dir=user).origin("maxParallelAgents") == f"user file {user / 'config.toml'}"
    put(tmp_path, JSON_FILE, '{"maxParallelAgents": 3}')
    assert load(tmp_path, user_dir=user).get("maxParallelAgents") == 3
    environ = {"PARALLEL_AGENTS_MAX_PARALLEL_AGENTS": "4"}
    assert load(tmp_path, user_dir=user, environ=environ).get("maxParallelAgents") == 4
    with_flag = load(tmp_path, user_dir=user, environ=environ, flags={"maxParallelAgents": 6})
    assert (with_flag.get("maxParallelAgents"), with_flag.origin("maxParallelAgents")) == (6, "flag")
    assert load(tmp_path, environ=environ, flags={"maxParallelAgents": None}).get("maxParallelAgents") == 4


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_CONFIG_HOME": "{}/x"}, "x"),
        ({"HOME": "{}"}, ".config"),
        ({"XDG_CONFIG_HOME": "r", "HOME": "{}"}, ".config"),
    ],
)
def test_the_users_file_is_found_by_the_xdg_rules(tmp_path: Path, environ: dict[str, str], folder: str) -> None:
    """A relative XDG_CONFIG_HOME counts for nothing."""
    put(tmp_path / folder / "parallel-agents", "config.json", '{"maxParallelAgents": 9}')
    environ = {name: value.format(tmp_path) for name, value in environ.items()}
    assert load(tmp_path / "project", environ=environ).get("maxParallelAgents") == 9


def test_two_project_files_are_refused_naming_both(tmp_path: Path) -> None:
    """Nobody could tell which one counts."""
    put(tmp_path, "parallel-agents.toml", "")
    error = refusal(tmp_path, "", "parallel-agents.yaml")
    assert "parallel-agents.toml" in error.message
    assert "parallel-agents.yaml" in error.message


def test_a_named_file_takes_the_place_of_the_projects_own(tmp_path: Path) -> None:
    """The project's own is not even read."""
    put(tmp_path, JSON_FILE, "this is no JSON")
    named = put(tmp_path, "other.yml", "max_parallel_agents: 7\n")
    assert load(tmp_path, config_path=named).get("maxParallelAgents") == 7
    error = refusal(tmp_path, config_path=tmp_path / "othr.yml")
    assert "there is no such configuration file" in error.message
    assert error.hint == "did you mean 'other.yml'?"


@pytest.mark.parametrize("text", ["", "# nothing\n", "execution:\n"])
def test_a_file_or_group_that_says_nothing_is_no_error(tmp_path: Path, text: str) -> None:
    """Everything commented out is a state that files are in."""
    assert load(tmp_path, text, "parallel-agents.yaml").get("maxParallelAgents") == 5


@pytest.mark.parametrize(
    ("tree", "key", "hint"),
    [
        ({"maxParalelAgents": 3}, "maxParalelAgents", "'maxParallelAgents'"),
        ({"max_parallel_agents": 3}, "max_parallel_agents", "'maxParallelAgents'"),
        ({"execution": {"taskQueue": {"timout": 3}}}, "execution.taskQueue.timout", "'execution.taskQueue.timeout'"),
        ({"timeout": 3}, "timeout", "'execution.taskQueue.timeout'"),
        ({"notifications": {"agentStart": {}}}, "notifications.agentStart", "'notifications.agentStarted'"),
        ({"x": 1}, "x", "there are: "),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one(
    tmp_path: Path, tree: dict[str, Any], key: str, hint: str
) -> None:
    """A key in the wrong place is told where it belongs."""
    error = refusal(tmp_path, json.dumps(tree))
    assert error.message == f"{tmp_path / JSON_FILE}, line 1: unknown key {key}"
    assert hint in error.hint


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("maxParallelAgents", "3", 'is "3", not a whole number from 1 to 10000'),
        ("maxParallelAgents", True, "is true, not a whole number"),
        ("maxParallelAgents", 3.0, "is 3.0, not a whole number"),
        ("maxParallelAgents", 0, "is 0, not a whole number"),
        ("maxParallelAgents", None, "is empty, not a whole number"),
        ("enabled", 1, "is 1, not true or false"),
        ("enabled", "true", 'is "true", not true or false'),
        ("defaultStrategy", "pipelne", 'is "pipelne", not one of concurrent, pipeline, hybrid'),
        ("execution.taskQueue.timeout", 0, "is 0, not a number above 0, at most 31536000"),
        ("execution.taskQueue.timeout", -1.5, "is -1.5, not a number above 0"),
        ("execution.taskQueue.timeout", 10**400, "not a number above 0"),
        ("execution.taskQueue", 5, "is 5, not a group of keys"),
        ("execution.retryPolicy.maxRetries", -1, "is -1, not a whole number from 0 to 100"),
        ("strategies.pipeline.defaultPipeline", "design", 'is "design", not a list'),
        ("strategies.hybrid.rules", [{"condition": "a", "strategy": "hybrid", "agents": ["x"]}], "[0].strategy is"),
        ("dependencies.dependencyGraph", {"a": {"dependson": []}}, ".a.dependson is no field of this key"),
        ("costOptimization.costThresholds.warning", 1.5, "is 1.5, not a number above 0, at most 1"),
        ("conflictResolution.strategy", 5, "is 5, not one of interactive, ours, theirs, rebase, abort"),
        ("conflictResolution.strategy", "their", 'is "their", not one of interactive'),
        ("qualityGates.commands", "make test", 'is "make test", not a list'),
        ("qualityGates.commands", [{"after": "task"}], "[0] has no 'command'"),
        ("qualityGates.commands", [{"command": ["x"], "after": "run"}], '[0].after is "run", not one of task, stage'),
        ("qualityGates.commands", [{"command": ["x"], "timeout": 0}], "[0].timeout is 0, not a number above 0"),
        ("qualityGates.commands", [{"command": ["x"], "timeout_s": 1}], "[0].timeout_s is no field of this key"),
        ("qualityGates.commands", [[]], "[0] is an empty list, not a list of at least one"),
        ("qualityGates.commands", [["x"], [""]], "[1][0] is empty, where the name of a program belongs"),
        ("qualityGates.commands", [["x", 1]], "[0][1] is 1, not a text"),
        ("qualityGates.commands", [["a\0b"]], "[0] holds a NUL character"),
        ("qualityGates.commands", [7], "[0] is 7, not a list of at least one or a mapping"),
        ("qualityGates.commands", [{"command": ["x", "sk-ant-" + "a1B2c3D4e5F6"]}], "[0].command holds a secret"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused(tmp_path: Path, path: str, value: Any, found: str) -> None:
    """The message names the file, the key and what was found."""
    error = refusal(tmp_path, json.dumps(nested(path, value)))
    assert str(tmp_path / JSON_FILE) in error.message
    assert f": {path}" in error.message
    assert found in error.message


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, text: str) -> None:
    """TOML can write them, the environment and JSON nearly."""
    assert (
        "timeout is" in refusal(tmp_path, f"[execution.task_queue]\ntimeout = {text}", "parallel-agents.toml").message
    )
    name = "PARALLEL_AGENTS_EXECUTION__TASK_QUEUE__TIMEOUT"
    assert name in refusal(tmp_path / "e", environ={name: text}).message
    assert "NaN" in refusal(tmp_path / "j", '{"execution": {"taskQueue": {"timeout": NaN}}}').message


def test_a_key_of_a_part_to_come_is_refused_by_name_at_another_value(tmp_path: Path) -> None:
    """Accepting it would promise what nobody does."""
    error = refusal(tmp_path, '{"outputAggregation":\n {"combineOutputs": false}}')
    wanted = "outputAggregation.combineOutputs = false: this part is not built yet; only true is accepted"
    assert error.message == f"{tmp_path / JSON_FILE}, line 2: {wanted}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("execution.taskQueue.priorityLevels", ["low", "high"]),
        ("dependencies.circularDependencyDetection", False),
        ("conflictResolution.autoMerge", True),
        ("notifications.agentFailed.channels", ["console", "email"]),
        ("experimentalFeatures.aiTaskScheduling.enabled", True),
        ("strategies.concurrent.agentGroups", {"a": ["b"]}),
    ],
)
def test_a_key_with_one_possible_value_names_it(tmp_path: Path, path: str, value: Any) -> None:
    """What is accepted stands in the message."""
    message = refusal(tmp_path, json.dumps(nested(path, value))).message
    assert f"{path} = " in message
    assert f"only {json.dumps(BY_PATH[path].default)} is accepted" in message


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ("make test", '["sh", "-c", "make test"]'),
        ({"command": "make test"}, '["sh", "-c", "make test"]'),
        ("", '["make", "test"]'),
    ],
)
def test_a_gate_that_is_one_text_is_refused_with_how_to_write_it(tmp_path: Path, item: Any, hint: str) -> None:
    """The commonest mistake, as with the command of a task."""
    assert hint in refusal(tmp_path, json.dumps({"qualityGates": {"commands": [item]}})).hint


def test_gates_come_from_the_environment_too(tmp_path: Path) -> None:
    """As JSON; what an item does not say stays unsaid, but for the time it may take."""
    text = '[["make", "test"], {"command": ["make", ""], "after": "task"}]'
    commands = load(tmp_path, environ={"PARALLEL_AGENTS_QUALITY_GATES__COMMANDS": text}).get("qualityGates.commands")
    assert commands == [["make", "test"], {"command": ["make", ""], "after": "task", "timeout": 600}]


def test_gates_cannot_roll_back_where_there_are_no_checkpoints(tmp_path: Path) -> None:
    """Both keys are named, and either way out works."""
    tree = {"checkpointIntegration": {"enabled": False}, "qualityGates": {"autoRollbackOnFailure": True}}
    error = refusal(tmp_path, json.dumps(tree))
    assert "qualityGates.autoRollbackOnFailure is true" in error.message
    assert "checkpointIntegration.enabled = false" in error.message
    tree["qualityGates"]["enabled"] = False
    assert load(tmp_path, json.dumps(tree)).get("qualityGates.autoRollbackOnFailure") is True


def test_the_three_groups_at_top_level_mean_the_ones_below(tmp_path: Path) -> None:
    """Said twice is fine, said differently is not."""
    assert load(tmp_path, '{"retryPolicy": {"maxRetries": 1}}').get("execution.retryPolicy.maxRetries") == 1
    assert load(tmp_path, '{"pipeline": {"failFast": false}}').get("strategies.pipeline.failFast") is False
    both = '{"retryPolicy": {"maxRetries": %d}, "execution": {"retryPolicy": {"maxRetries": 2}}}'
    assert load(tmp_path, both % 2).get("execution.retryPolicy.maxRetries") == 2
    assert "retryPolicy.maxRetries say different things" in refusal(tmp_path, both % 1).message


@pytest.mark.parametrize("kind", ["stage", "condition"])
def test_an_agent_type_in_two_stages_or_rules_is_refused(tmp_path: Path, kind: str) -> None:
    """A task runs once, so only one of them could have it."""
    entry = {"agents": ["x"]} | ({"strategy": "concurrent"} if kind == "condition" else {})
    entries = [{**entry, kind: "a"}, {**entry, kind: "b"}]
    tree = {"pipeline": {"defaultPipeline": entries}} if kind == "stage" else {"hybrid": {"rules": entries}}
    assert '[1].agents has "x"' in refusal(tmp_path, json.dumps(tree)).message


def test_fields_left_out_of_a_stage_get_their_defaults(tmp_path: Path) -> None:
    """A stage is parallel unless it says otherwise."""
    text = "pipeline: {default_pipeline: [{stage: a, agents: [x]}]}"
    stages = load(tmp_path, text, "parallel-agents.yaml").get("strategies.pipeline.defaultPipeline")
    assert stages == [{"stage": "a", "agents": ["x"], "parallel": True}]


def test_snake_case_fields_inside_a_value_are_understood_too(tmp_path: Path) -> None:
    """Names of agents are not fields and stay as they are."""
    text = "dependencies: {dependency_graph: {back_end: {depends_on: [Front]}}}"
    graph = load(tmp_path, text, "parallel-agents.yaml").get("dependencies.dependencyGraph")
    assert graph == {"back_end": {"dependsOn": ["Front"], "provides": []}}
    assert snake_case("maxMemoryMB") == "max_memory_mb"
    assert snake_case("perAgentLimitMB") == "per_agent_limit_mb"


@pytest.mark.parametrize(
    ("template", "found"),
    [("{agent}", "agent_type"), ("{", "braces"), ("{agent_type.x}", ""), ("{agent_type!r}", "alone"), ("{}", "")],
)
def test_a_notification_names_only_what_it_knows(tmp_path: Path, template: str, found: str) -> None:
    """A format is checked before the first notification is due."""
    error = refusal(tmp_path, json.dumps(nested("notifications.agentStarted.format", template)))
    assert found in error.hint


def test_the_least_and_the_most_workers_must_be_possible_together(tmp_path: Path) -> None:
    """A default gives way to what somebody set."""
    assert (
        load(tmp_path, '{"execution": {"workerPool": {"maxWorkers": 1}}}').get("execution.workerPool.minWorkers") == 1
    )
    error = refusal(tmp_path, '{"execution": {"workerPool": {"maxWorkers": 1, "minWorkers": 9}}}')
    assert "minWorkers is 9, more than execution.workerPool.maxWorkers, which is 1" in error.message


def test_an_unknown_variable_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    """Those that are no configuration are left alone."""
    told = ("STORE", "ATTEMPT", "RUN", "TASK", "PORT", "BASE", "CONFLICT")
    load(tmp_path, environ={f"PARALLEL_AGENTS_{name}": "x" for name in told})
    error = refusal(tmp_path, environ={"PARALLEL_AGENTS_MAX_PARALEL_AGENTS": "3"})
    assert "PARALLEL_AGENTS_MAX_PARALEL_AGENTS" in error.message
    assert error.hint == "did you mean 'PARALLEL_AGENTS_MAX_PARALLEL_AGENTS'?"
    assert "'PARALLEL_AGENTS_STORE'" in refusal(tmp_path, environ={"PARALLEL_AGENTS_STOR": "x"}).hint


def test_variables_are_read_by_the_type_of_their_key(tmp_path: Path) -> None:
    """An empty one counts as not set."""
    environ = {
        "PARALLEL_AGENTS_ENABLED": "False",
        "PARALLEL_AGENTS_DEFAULT_STRATEGY": "hybrid",
        "PARALLEL_AGENTS_EXECUTION__TASK_QUEUE__TIMEOUT": "1.5",
        "PARALLEL_AGENTS_RETRY_POLICY__MAX_RETRIES": "0",
        "PARALLEL_AGENTS_MAX_PARALLEL_AGENTS": "",
    }
    configuration = load(tmp_path, environ=environ)
    assert configuration.get("enabled") is False
    assert configuration.get("defaultStrategy") == "hybrid"
    assert configuration.get("execution.taskQueue.timeout") == 1.5
    assert configuration.get("execution.retryPolicy.maxRetries") == 0
    assert not configuration.is_explicit("maxParallelAgents")
    assert "not a whole number" in refusal(tmp_path, environ={"PARALLEL_AGENTS_MAX_PARALLEL_AGENTS": "many"}).message


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    """So is a value that the key cannot have."""
    assert refusal(tmp_path, flags={"maxParallelAgent": 1}).hint == "did you mean 'maxParallelAgents'?"
    assert refusal(tmp_path, flags={"maxParallelAgents": 0}).message.startswith("flag: maxParallelAgents is 0")


def test_rows_tell_value_origin_and_whether_a_key_acts_yet(tmp_path: Path) -> None:
    """Mere description is not shown."""
    rows = {key: rest for key, *rest in load(tmp_path, '{"enabled": true, "version": "1"}').rows()}
    assert rows["enabled"] == [True, f"project file {tmp_path / JSON_FILE}", True]
    assert rows["outputAggregation.enabled"] == [True, "default", False]
    assert rows["checkpointIntegration.enabled"] == [True, "default", True]
    assert "version" not in rows


def test_what_a_caller_does_to_a_value_does_not_change_the_configuration() -> None:
    """Lists are handed out as copies."""
    DEFAULTS.get("strategies.pipeline.defaultPipeline").clear()
    assert len(DEFAULTS.get("strategies.pipeline.defaultPipeline")) == 5
    with pytest.raises(KeyError):
        DEFAULTS.get("no.such.key")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (JSON_FILE, '{"enabled": true,\n "enabled": true}', 'line 2: the key "enabled" is given twice'),
        (JSON_FILE, '{"enabled": true,\n}', "line 2: is no JSON"),
        (JSON_FILE, "[]", "is an empty list, not a mapping"),
        (JSON_FILE, "", "is empty"),
        ("parallel-agents.toml", "enabled =", "is no TOML"),
        ("parallel-agents.toml", "enabled = true\nenabled = true", "is no TOML"),
        ("parallel-agents.yaml", "enabled: true\nenabled: true", 'line 2: the key "enabled" is given twice'),
        ("parallel-agents.yaml", "a: [", "is no YAML"),
    ],
)
def test_a_file_that_is_broken_is_refused_with_its_line(tmp_path: Path, name: str, text: str, found: str) -> None:
    """Whatever its form."""
    message = refusal(tmp_path, text, name).message
    assert message.startswith(str(tmp_path / name))
    assert found in message


def test_the_schema_knows_exactly_the_keys_that_are_read() -> None:
    """Each with its default, and the top-level names of three groups."""
    schema = configuration_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    found = {}

    def walk(group: dict[str, Any], prefix: str) -> None:
        for name, part in group["properties"].items():
            if "$ref" in part:
                continue
            if part.get("additionalProperties") is False and "properties" in part:
                walk(part, f"{prefix}{name}.")
            else:
                found[prefix + name] = part

    walk(schema, "")
    assert set(found) == set(BY_PATH)
    assert found["maxParallelAgents"] == {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 5}
    assert found["outputAggregation.combineOutputs"]["const"] is True
    assert found["checkpointIntegration.rollbackOnFailure"] == {"type": "boolean", "default": True}
    assert schema["properties"]["retryPolicy"]["$ref"] == "#/properties/execution/properties/retryPolicy"
    json.dumps(schema)


def test_control_characters_never_reach_the_terminal(tmp_path: Path) -> None:
    """Neither from a key nor from a value."""
    for tree in ({"\x1b[31mx": 1}, {"defaultStrategy": "\x1b[31m"}):
        error = refusal(tmp_path, json.dumps(tree))
        assert not re.search(r"[\x00-\x1f\x7f]", error.message + error.hint)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))),
    name=st.sampled_from([JSON_FILE, "parallel-agents.toml", "parallel-agents.yaml"]),
)
def test_no_bytes_at_all_raise_anything_but_our_error(tmp_path: Path, content: bytes, name: str) -> None:
    """A configuration or one message."""
    path = tmp_path / Path(name).name
    path.write_bytes(content)
    with contextlib.suppress(ParallelAgentsError):
        load(tmp_path / "none", config_path=path)
