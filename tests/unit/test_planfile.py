"""What a plan may say, and how each thing that it may not say is told."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import examples
from parallel_agents.configuration import DEFAULTS, Configuration, load_configuration
from parallel_agents.eventstore.errors import InvalidPlan, ParallelAgentsError
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.plan_fields import PLAN_FIELDS, TASK_FIELDS
from parallel_agents.planfile import PlanDraft, draft_from_tasks, load_plan_file, parse_plan
from parallel_agents.schemas import plan_schema

KEY = "sk-ant-" + "a1B2c3D4e5F6"
TWO = """\
name: two
tasks:
- task_id: first
  command: [make]
- task_id: second
  command: [make, test]
"""


def plan(text: str | dict[str, Any], source: str = "plan.yaml", configuration: Configuration = DEFAULTS) -> PlanDraft:
    """The plan of a text."""
    return parse_plan(text, source, configuration)


def refusal(text: str | dict[str, Any], source: str = "plan.yaml") -> InvalidPlan:
    """The error that a text gives; it must be fit for a terminal."""
    with pytest.raises(InvalidPlan) as caught:
        plan(text, source)
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
    return caught.value


def configured(tmp_path: Path, **flags: Any) -> Configuration:
    """A configuration with these keys (``__`` for a dot)."""
    return load_configuration(
        tmp_path, environ={}, flags={name.replace("__", "."): value for name, value in flags.items()}
    )


def test_a_plan_is_read_from_yaml_and_json_alike(tmp_path: Path) -> None:
    """Every field of the vocabulary that works today."""
    body = {
        "name": "checkout",
        "strategy": "pipeline",
        "workspace": "worktree",
        "sparse": ["docs", "src/api"],
        "include_uncommitted": True,
        "setup": ["npm", "ci"],
        "setup_timeout_s": 30,
        "max_parallel_agents": 5,
        "defaults": {"timeout_s": 900, "tags": ["d"]},
        "tasks": [
            {
                "task_id": "arch",
                "agent_type": "software-architect",
                "description": "Design ü",
                "priority": "high",
                "dependencies": [],
                "tags": ["design"],
                "outputs": ["docs/api.yaml"],
                "command": ["sh", "-c", "true"],
                "runner": "shell",
                "env": {"STAGE": "test"},
                "env_from": ["API_TOKEN"],
                "timeout_s": 0.5,
                "max_retries": 1,
                "allow_failure": True,
                "expected_s": 12,
                "files": ["docs/**", "README.md"],
                "approval": "result",
                "setup": None,
                "teardown": ["make", "clean"],
                "context": {"a": [1, {"b": None}]},
            },
            {"task_id": "ux", "command": ["true"], "dependencies": ["arch"]},
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(body))
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(body))
    draft = load_plan_file(tmp_path / "p.json", DEFAULTS)
    assert draft == load_plan_file(tmp_path / "p.yaml", DEFAULTS) == plan(body)
    assert (draft.name, draft.strategy, draft.workspace, draft.max_parallel_agents) == (
        "checkout",
        "pipeline",
        "worktree",
        5,
    )
    assert (draft.sparse, draft.include_uncommitted) == (("docs", "src/api"), True)
    arch, ux = draft.tasks
    assert (arch.timeout_s, arch.tags, arch.expected_s) == (0.5, ("design",), 12)
    assert (arch.files, arch.approval) == (("docs/**", "README.md"), "result")
    assert (arch.setup, arch.teardown, arch.setup_timeout_s) == (None, ("make", "clean"), 30)
    assert (ux.setup, ux.teardown, ux.setup_timeout_s, ux.approval) == (("npm", "ci"), None, 30, None)
    assert (ux.timeout_s, ux.tags, ux.dependencies, ux.runner) == (900, ("d",), ("arch",), "shell")
    Plan(name=draft.name, tasks=draft.tasks).to_bytes()


def test_what_plan_and_task_leave_open_comes_from_the_configuration(tmp_path: Path) -> None:
    """A task beats the plan's defaults, which beat the configuration."""
    configuration = configured(
        tmp_path,
        defaultStrategy="hybrid",
        execution__taskQueue__timeout=60,
        execution__taskQueue__defaultPriority="low",
        execution__retryPolicy__maxRetries=7,
    )
    draft = plan("tasks: [{task_id: a, command: [x]}]", "dir/my plan.yaml", configuration)
    task = draft.tasks[0]
    assert (draft.name, draft.strategy, draft.workspace) == ("my plan", "hybrid", None)
    assert (task.timeout_s, task.priority, task.max_retries) == (60, "low", 7)
    text = "defaults: {max_retries: 5, priority: high}\ntasks: [{task_id: a, command: [x], priority: critical}]"
    task = plan(text, "p.yaml", configuration).tasks[0]
    assert (task.timeout_s, task.priority, task.max_retries) == (60, "critical", 5)


def test_without_a_retry_policy_a_task_is_not_retried_unless_it_says_so(tmp_path: Path) -> None:
    """retryPolicy.enabled is about the default."""
    configuration = configured(tmp_path, execution__retryPolicy__enabled=False)
    tasks = plan(
        "tasks: [{task_id: a, command: [x]}, {task_id: b, command: [x], max_retries: 2}]", "p", configuration
    ).tasks
    assert [task.max_retries for task in tasks] == [0, 2]


def test_a_strategy_that_is_switched_off_is_refused(tmp_path: Path) -> None:
    """The message names the key and who set it."""
    with pytest.raises(InvalidPlan, match=re.escape("strategies.hybrid.enabled = false (flag)")):
        plan("strategy: hybrid\n" + TWO, "p.yaml", configured(tmp_path, strategies__hybrid__enabled=False))


FIELDS_OF_A_TASK = [
    ("priority: hgih", 'priority (task "second") is "hgih", not one of critical, high, medium, low', "'high'"),
    ("priority:", "is empty, not one of", ""),
    ("runner: shel", 'is "shel"; the runners there are: shell, python', "'shell'"),
    ("runner: python", 'is "python", which runs callables', "Python API"),
    ("timeout_s: 0", 'timeout_s (task "second") is 0, not a number of seconds above 0', ""),
    ("timeout_s: -2", "is -2, not a number of seconds", ""),
    ("timeout_s: '3'", 'is "3", not a number of seconds', "without quotes"),
    ("timeout_s: true", "is true, not a number of seconds", ""),
    ("timeout_s: .nan", ".nan is no finite number", ""),
    ("max_retries: -1", "is -1, not a whole number from 0 to 100", ""),
    ("max_retries: 1.5", "is 1.5, not a whole number", ""),
    ("expected_s: 0", 'expected_s (task "second") is 0', ""),
    ("allow_failure: 1", "is 1, not true or false", ""),
    ("agent_type: ''", 'is "", not a text of 1 to 200 characters', ""),
    ('agent_type: "a\\eb"', "which holds control characters", ""),
    ("description: [a]", 'description (task "second") is a list of 1, not a text', ""),
    ("timeout: 3", 'timeout (task "second") is no field of a task', "'timeout_s'"),
    ("depends_on: [first]", "is no field of a task", "'dependencies'"),
    ("dependancies: [first]", "is no field of a task", "'dependencies'"),
    ("Env: {}", "is no field of a task", "'env'"),
    ("stage: 1", "is no field of a task", ""),
    ("call: true", "is no field of a task", ""),
    ("dependencies: first", 'is "first", not a list of task ids', 'write dependencies: ["first"]'),
    ("dependencies: [second]", 'dependencies[0] (task "second") is the task itself', ""),
    (
        "dependencies: [first, frist]",
        'dependencies[1] (task "second") is "frist", and there is no such task',
        "'first'",
    ),
    ("dependencies: [FIRST]", "there is no such task", "'first'"),
    ("dependencies: [1]", 'dependencies[0] (task "second") is 1, not a text', "in quotes"),
    ("outputs: [/etc/x]", 'is "/etc/x", which is no path below the working directory', "without .."),
    ("outputs: [a/../../x]", "which is no path below the working directory", ""),
    ("env: {PORT: 8080}", 'env.PORT (task "second") is 8080, not a text', "in quotes"),
    ("env: {1: a}", "the key 1 is no text", "in quotes"),
    ("env: [PORT]", "is a list of 1, not a mapping of names to texts", ""),
    ("env: {A=B: a}", "which cannot be the name of a variable", ""),
    ("env_from: ['A=B']", "which cannot be the name of a variable", "lists names"),
    ('env: {A: "x\\0"}', 'env.A (task "second") holds a NUL character', ""),
    ("context: [1]", "is a list of 1, not a mapping", ""),
    ("context: {a: 99999999999999999999999}", "which has more than 64 bits", ""),
    ("context: {a: " + "[" * 70 + "]" * 70 + "}", "is nested deeper than 64 levels", ""),
    ("model: ''", 'model (task "second") is "", not a text of 1 to 200 characters', ""),
    ("model: 4", 'model (task "second") is 4, not a text', "in quotes"),
    (
        "runner: claude",
        'runner (task "second") is "claude", which drives an agent, and the task has a command',
        "one of",
    ),
    ("runner: cloud", 'runner (task "second") is "cloud"; the runners there are: shell, python, claude', "'claude'"),
    ("files: docs/**", 'is "docs/**", not a list of globs', 'write files: ["docs/**"]'),
    ("files: [/etc/*]", 'files[0] (task "second") is "/etc/*", which names nothing below', "without .."),
    ("files: [docs, ../x/**]", 'files[1] (task "second") is "../x/**", which names nothing below', "without .."),
    ("files: ['']", "which names nothing below the working directory", ""),
    ("files: ['!docs/old']", "a scope cannot take anything out", "only what"),
    ("files: ['src\\a.py']", "a backslash means nothing here", "/ between folders"),
    ("files: ['src/{a,b}/*']", "braces are not understood", "one glob for each"),
    ("approval: require", 'is "require", not one of required, result', "'required'"),
    ("approval: ''", 'is "", not one of required, result', ""),
    ("approval: true", "is true, not one of required, result", ""),
    ("setup: npm ci", 'setup (task "second") is "npm ci", not a list', 'write setup: ["sh", "-c", "npm ci"]'),
    ("setup: []", "is an empty list, not a list of at least one text", ""),
    ("teardown: [' ']", 'teardown[0] (task "second") is empty, where the name of a program belongs', ""),
    ("setup_timeout_s: 0", "is 0, not a number of seconds above 0", ""),
    ("scope: [docs]", "is no field of a task", "'files'"),
    (f"setup: [x, {KEY}]", 'setup (task "second") holds a secret', "env_from"),
    (f"teardown: [x, {KEY}]", 'teardown (task "second") holds a secret', "env_from"),
    (f"files: [{KEY}]", 'files[0] (task "second") holds a secret', "env_from"),
    ("budget_usd: -1", 'budget_usd (task "second") is -1, not a number of dollars from 0', ""),
    ("budget_usd: '5'", 'budget_usd (task "second") is "5", not a number', "without quotes"),
    ("budget_usd_micros: 5", 'budget_usd_micros (task "second") is no field of a task', "'budget_usd'"),
]


@pytest.mark.parametrize(("line", "found", "hint"), FIELDS_OF_A_TASK, ids=lambda text: text[:40])
def test_a_wrong_field_of_a_task_is_refused_with_its_line(line: str, found: str, hint: str) -> None:
    """The message names file, line, field and task, and says what was found."""
    error = refusal(TWO + f"  {line}\n")
    assert error.message.startswith("plan.yaml, line 7: ")
    assert found in error.message
    assert "more problem" not in error.message
    assert hint in error.hint


@pytest.mark.parametrize("field", ["model:", "budget_usd: null"])
def test_what_an_agent_may_spend_and_on_which_model_may_be_left_open(field: str) -> None:
    """As it holds anyway."""
    assert len(plan(TWO + f"  {field}\n").tasks) == 2


def test_budgets_are_kept_in_micro_dollars() -> None:
    """Of the plan, of all tasks by the defaults, and of a task that says another one."""
    made = plan(
        "budget_usd: 5.5\ndefaults: {budget_usd: 1}\ntasks:\n- {task_id: a, description: Do it}\n"
        "- {task_id: b, description: Do it, budget_usd: 0.25, model: opus, agent_type: reviewer}\n"
    )
    assert made.budget_usd_micros == 5_500_000
    assert [(task.budget_usd_micros, task.runner, task.model, task.agent_type) for task in made.tasks] == [
        (1_000_000, "claude", None, "general"),
        (250_000, "claude", "opus", "reviewer"),
    ]


@pytest.mark.parametrize(
    ("command", "found", "hint"),
    [
        ("make test", 'command (task "a") is "make test", not a list', 'write command: ["sh", "-c", "make test"]'),
        ("[]", "is an empty list, not a list of at least one text", ""),
        ("['']", 'command[0] (task "a") is empty, where the name of a program belongs', ""),
        ("[echo, yes]", 'command[1] (task "a") is true, not a text', "in quotes"),
        ('["a\\0b"]', 'command[0] (task "a") holds a NUL character', ""),
        ("{a: b}", "is a mapping of 1, not a list", 'command: ["make", "test"]'),
        ("null", "has no command, and no description that says what claude is to do", "a description"),
    ],
)
def test_a_wrong_command_is_refused_with_how_to_write_it(command: str, found: str, hint: str) -> None:
    """The commonest mistake is one text instead of words."""
    error = refusal(f"tasks:\n- task_id: a\n  command: {command}\n")
    assert found in error.message
    assert hint in error.hint


def test_a_task_of_the_shell_needs_a_command() -> None:
    """A description alone is for agents."""
    error = refusal("tasks:\n- {task_id: arch, runner: shell, description: Design it}\n")
    assert error.message == 'plan.yaml, line 2: tasks[0] (task "arch") has no command, which is what the shell runs'
    assert "another runner" in error.hint


@pytest.mark.parametrize(
    ("head", "found", "hint"),
    [
        ("strategy: pipelne", 'strategy is "pipelne", not one of concurrent, pipeline, hybrid', "'pipeline'"),
        ("strategy: 1", "strategy is 1, not one of", ""),
        ("workspace: share", 'workspace is "share", not one of worktree, shared, none', "'shared'"),
        ("max_parallel_agents: 0", "is 0, not a whole number from 1 to 10000", ""),
        ("max_parallel_agents: true", "is true, not a whole number", ""),
        ("max_parallel_agents: -3", "is -3, not a whole number", ""),
        ("maxParallelAgents: 3", "maxParallelAgents is no field of a plan", "'max_parallel_agents'"),
        ("budget_usd: lots", 'budget_usd is "lots", not a number of dollars from 0 to 1000000', "without quotes"),
        ("include_uncommitted: 1", "include_uncommitted is 1, not true or false", ""),
        ("{workspace: none, include_uncommitted: true, ", "with workspace: none no files are kept", "worktree"),
        ("sparse: docs", 'sparse is "docs", not a list of folders', 'write sparse: ["docs"]'),
        ("sparse: [docs, ../x]", 'sparse[1] is "../x", which is no folder below', "without .."),
        ("sparse: [/docs]", "which is no folder below the repository's top", ""),
        ("sparse: [.]", "which is no folder below the repository's top", ""),
        ("sparse: [src/*]", "a folder, not a pattern, belongs here", ""),
        ("sparse: [1]", "sparse[0] is 1, not the name of a folder", ""),
        (f"sparse: [{KEY}]", "sparse[0] holds a secret", ""),
        ("{workspace: none, sparse: [docs], ", "with workspace: none there are none", "worktree"),
        ("{workspace: shared, sparse: [docs], ", "with workspace: shared there are none", "worktree"),
        ("setup: make", 'setup is "make", not a list', 'write setup: ["sh", "-c", "make"]'),
        ("teardown: ['']", "teardown[0] is empty, where the name of a program belongs", ""),
        ("setup_timeout_s: -1", "setup_timeout_s is -1, not a number of seconds above 0", ""),
        (f"setup: [x, {KEY}]", "setup holds a secret", "env_from"),
        (
            "{setup: [x], defaults: {setup: [y]}, ",
            "defaults.setup is said by the plan itself as well",
            "one of the two",
        ),
        (
            "{workspace: none, defaults: {approval: result}, ",
            "defaults.approval is result, and with workspace: none no files are kept",
            "approval: required",
        ),
        ("rules: []", "rules is no field of a plan", "configuration"),
        ("pipeline: {}", "pipeline is no field of a plan", "configuration"),
        ("defaults: []", "defaults is an empty list, not a mapping", ""),
        ("defaults: {priorty: low}", "defaults.priorty is no field of a task", "'priority'"),
        ("defaults: {timeout_s: 0}", "defaults.timeout_s is 0", ""),
        ("defaults: {task_id: x}", "defaults.task_id cannot be the same for all tasks", ""),
        ("defaults: {budget_usd: -2}", "defaults.budget_usd is -2, not a number of dollars", ""),
        ("defaults: {runner: shel}", "defaults.runner", "'shell'"),
        (f"defaults: {{description: {KEY}}}", "defaults.description holds a secret", "env_from"),
    ],
)
def test_a_wrong_field_of_the_plan_is_refused_with_its_line(head: str, found: str, hint: str) -> None:
    """Also where it stands among the defaults; then it is told once, not once for every task."""
    if head.startswith("{"):  # Several fields at once.
        text = head + "tasks: [{task_id: first, command: [make]}, {task_id: second, command: [make, test]}]}"
    else:
        text = TWO.replace("name: two", head)
    error = refusal(text)
    assert error.message.startswith("plan.yaml, line 1: ")
    assert found in error.message
    assert "more problem" not in error.message
    assert hint in error.hint


@pytest.mark.parametrize("name", ["''", "[a]", '"a\\nb"', "x" * 201])
def test_a_name_that_would_not_fit_a_line_is_refused(name: str) -> None:
    """Names are printed in lists."""
    assert "printable" in refusal(TWO.replace("two", name)).message


@pytest.mark.parametrize(
    "task_id",
    ["../x", "a/b", "a..b", ".a", "-a", "a.", "a.lock", "a b", "ä", "", "a\x1b[31m", "a\n", "x" * 101, "x" * 5000],
)
def test_an_id_that_could_be_no_folder_or_ref_is_refused(task_id: str) -> None:
    """It is shown cut and escaped, with the rule."""
    error = refusal({"tasks": [{"task_id": task_id, "command": ["x"]}]})
    assert "which cannot be a task id" in error.message
    assert "1 to 100 characters" in error.hint


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("first", 'tasks[2].task_id (task "first") is used already by tasks[0]'),
        ("First", 'differs from "first" of tasks[0] by case only'),
    ],
)
def test_two_tasks_whose_ids_clash_are_refused(other: str, found: str) -> None:
    """Folders of some file systems know no case."""
    error = refusal(TWO + f"- task_id: {other}\n  command: [x]\n")
    assert error.message.startswith("plan.yaml, line 7: ")
    assert found in error.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "plan.yaml: is empty"),
        ("# only a comment\n", "is empty"),
        ("name: x\n", "the plan holds no tasks"),
        ("tasks: []\n", "tasks is an empty list"),
        ("tasks:\n", "tasks is empty, not a list"),
        ("tasks: {a: {command: [x]}}\n", "tasks is a mapping of 1, not a list"),
        ("tasks: [make]\n", 'tasks[0] is "make", not a mapping'),
        ("tasks:\n- command: [x]\n", "line 2: tasks[0] has no task_id"),
        ("- task_id: a\n", "is a list of 1, not a mapping"),
        ("just words", 'is "just words", not a mapping'),
    ],
)
def test_what_holds_no_tasks_is_refused(text: str, found: str) -> None:
    """An empty plan is a mistake, not a run that is done at once."""
    assert found in refusal(text).message


def test_defaults_that_would_blow_the_plan_up_are_refused() -> None:
    """A megabyte of default text in each of three hundred tasks would lie in the store."""
    tasks = [{"task_id": f"t{index}", "command": ["x"]} for index in range(300)]
    error = refusal({"defaults": {"description": "x" * 1_000_000}, "tasks": tasks})
    assert "are too much for a store" in error.message


def test_of_several_problems_the_first_is_told_and_the_others_are_counted() -> None:
    """One message, not a page."""
    error = refusal(TWO + "  priority: x\n  timeout_s: 0\n- make\n")
    assert "tasks[1].priority" in error.message
    assert error.message.endswith("(2 more problems in this plan)")
    many = [{"task_id": f"t{index}", "comand": ["x"]} for index in range(5000)]
    assert refusal({"tasks": many}).message.endswith("(at least 999 more problems in this plan)")


def test_a_dependency_named_twice_is_a_warning() -> None:
    """It means what it means once."""
    draft = plan(TWO + "  dependencies: [first, first]\n")
    assert draft.tasks[1].dependencies == ("first",)
    assert draft.warnings == ("tasks[1] (second) names a dependency twice",)


def test_a_long_or_wild_value_is_cut_and_escaped() -> None:
    """A plan must not paint the terminal red."""
    message = refusal(TWO + '  priority: "\\e[31m' + "x" * 5000 + '"\n').message
    assert "\\u001b[31m" in message
    assert "..." in message


SECRETS = [
    KEY,
    "sk-" + "a1B2c3D4e5F6g7H8i9J0k1",
    "ghp_" + "a1B2c3D4e5" * 4,
    "AKIA" + "ABCDEFGH12345678",
    "xoxb-" + "1234567890-abcdef",
    "AIza" + "a1B2c3D4e5" * 4,
    "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
    "Authorization: Bearer " + "a1B2c3D4e5F6",
    "curl -H 'authorization: Basic " + "dXNlcjpwYXNzd29yZA=='",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("field", "place"),
    [
        (lambda secret: {"env": {"STAGE": secret}}, "env.STAGE"),
        (lambda secret: {"command": ["sh", "-c", f"run {secret}"]}, "command"),
        (lambda secret: {"description": f"use {secret} please"}, "description"),
        (lambda secret: {"context": {"a": [{"b": secret}]}}, "context.a[0].b"),
        (lambda secret: {"tags": [secret]}, "tags[0]"),
    ],
    ids=["env", "command", "description", "context", "tags"],
)
def test_a_secret_in_a_plan_is_refused_without_being_shown(secret: str, field: Any, place: str) -> None:
    """The store would keep it for ever; env_from is the way."""
    error = refusal({"tasks": [{"task_id": "a", "command": ["x"], **field(secret)}]})
    assert error.message.startswith(f'plan.yaml: tasks[0].{place} (task "a") holds a secret (')
    assert "env_from" in error.hint
    assert secret[-10:] not in error.message + error.hint


@pytest.mark.parametrize("name", ["API_TOKEN", "DB_PASSWORD", "CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "api_key"])
def test_a_variable_named_like_a_secret_takes_no_literal(name: str) -> None:
    """A value of fewer than eight characters is no secret."""
    error = refusal({"tasks": [{"task_id": "a", "command": ["x"], "env": {name: "hunter22"}}]})
    assert f"env.{name}" in error.message
    assert f"name {name} under env_from" in error.hint
    assert "hunter22" not in error.message
    assert plan({"tasks": [{"task_id": "a", "command": ["x"], "env": {name: "false"}}]}).tasks


@pytest.mark.parametrize(
    "text",
    [
        'curl -H "Authorization: Bearer $API_TOKEN" x',
        "curl -H 'Authorization: token ${TOKEN}' x",
        "check the Authorization: Bearer header",
        "authorization: required on all endpoints",
        "run the task-queue and ask-anything tests",
    ],
)
def test_speaking_of_secrets_is_allowed(text: str) -> None:
    """A header filled from a variable is right what env_from is for."""
    assert plan({"tasks": [{"task_id": "a", "command": ["sh", "-c", text], "description": text}]}).tasks


def test_a_value_shown_in_another_error_is_not_a_secret_either() -> None:
    """A key in the wrong field is hidden as well."""
    assert "a1B2c3" not in refusal(TWO + f"  priority: {KEY}\n").message


def test_tasks_made_in_python_take_the_same_route() -> None:
    """None stands for what was not given; callables work on nothing that is versioned."""
    tasks = [
        {"task_id": "a", "agent_type": "x", "call": True, "command": None, "timeout_s": None, "dependencies": []},
        {"task_id": "b", "call": True, "dependencies": ("a",)},
    ]
    draft = draft_from_tasks(tasks, name="n", configuration=DEFAULTS)
    assert [task.runner for task in draft.tasks] == ["python", "python"]
    assert (draft.workspace, draft.strategy, draft.tasks[0].timeout_s) == ("none", "concurrent", 600)
    mixed = draft_from_tasks([*tasks, {"task_id": "c", "command": ["x"]}], name="n", configuration=DEFAULTS)
    assert mixed.workspace is None


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ({"task_id": "a"}, 'tasks[0] (task "a") has no command, and no description that says what claude is to do'),
        ({"task_id": "a", "call": True, "command": ["x"]}, "has a command and is a callable"),
        ({"task_id": "a", "call": True, "runner": "shell"}, "but a callable is run by python"),
        ({"task_id": "a", "call": True, "setup": ["x"]}, 'tasks[0].setup (task "a") is for commands'),
        ({"task_id": "a", "call": True, "teardown": ["x"]}, "a callable has no process and no checkout"),
        ({"task_id": "a", "call": True, "approval": "result"}, "with workspace: none no files are kept"),
        ({"task_id": "a", "command": ["x"], "files": "docs"}, "not a list of globs"),
        ({"task_id": "a", "command": ["x"], "priority": "urgent"}, "tasks[0].priority"),
        ({"task_id": "a", "command": ["\ud800"]}, "half of a surrogate pair"),
        ({"task_id": "a", "command": ["x"], "context": {"a": object()}}, "is a Python object, which JSON cannot hold"),
        ({"task_id": "a", "command": ["x"], "context": {"a": float("nan")}}, "which is no finite number"),
        ({"task_id": "a", "command": ["x"], "context": {1: 2}}, "has the name 1, which is no text"),
        ({"task_id": "a", "command": ["x"], 1: 2}, "tasks[0].1"),
        ("make", 'tasks[0] is "make", not a mapping'),
    ],
)
def test_tasks_made_in_python_are_refused_in_the_same_words(task: Any, found: str) -> None:
    """Without the name of a file that there never was."""
    with pytest.raises(InvalidPlan) as caught:
        draft_from_tasks([task], name="n", configuration=DEFAULTS)
    assert found in caught.value.message
    assert caught.value.message.startswith("tasks[0]")


def test_a_task_beats_the_plans_preparation_and_its_null_takes_it_away() -> None:
    """Plan, defaults and task say it one nearer than the other."""
    text = "setup: [npm, ci]\nteardown: [x]\ndefaults: {setup_timeout_s: 5}\ntasks:\n"
    text += "- {task_id: a, command: [x], setup: [pip]}\n- {task_id: b, command: [x], setup: null}\n"
    tasks = plan(text).tasks
    assert [(task.setup, task.teardown, task.setup_timeout_s) for task in tasks] == [
        (("pip",), ("x",), 5), (None, ("x",), 5),
    ]  # fmt: skip


@pytest.mark.parametrize("workspace", ["worktree", "shared", None])
def test_results_can_wait_for_approval_wherever_files_are_kept(workspace: str | None) -> None:
    """A workspace that nobody named is not none."""
    head = {} if workspace is None else {"workspace": workspace}
    draft = plan(
        {**head, "include_uncommitted": True, "tasks": [{"task_id": "a", "command": ["x"], "approval": "result"}]}
    )
    assert (draft.workspace, draft.include_uncommitted, draft.tasks[0].approval) == (workspace, True, "result")


def test_without_kept_files_a_start_can_still_wait_for_approval() -> None:
    """Of a command and of a callable; declared scopes keep tasks apart there too."""
    given = {"task_id": "a", "approval": "required", "files": ["docs"]}
    assert plan({"workspace": "none", "tasks": [{**given, "command": ["x"]}]}).tasks[0].approval == "required"
    draft = draft_from_tasks([{**given, "call": True}], name="n", configuration=DEFAULTS)
    assert (draft.workspace, draft.tasks[0].approval, draft.tasks[0].files) == ("none", "required", ("docs",))


def test_no_tasks_at_all_are_refused_in_python_too() -> None:
    """As an empty plan is."""
    with pytest.raises(InvalidPlan, match="tasks is an empty list"):
        draft_from_tasks([], name="n", configuration=DEFAULTS)


def test_a_plan_of_many_tasks_is_read_whole() -> None:
    """An error in the last of them is found and has its line."""
    tasks = [
        {"task_id": f"t{index}", "command": ["true"], "dependencies": [f"t{index - 1}"] if index else []}
        for index in range(5000)
    ]
    text = "{\n" + f'"tasks": {json.dumps(tasks)}'.replace("}, {", "},\n{") + "}"
    assert len(plan(text, "p.json").tasks) == 5000
    error = refusal(text.replace('["t4998"]', '["t49988"]'), "p.json")
    assert error.message.startswith('p.json, line 5001: tasks[4999].dependencies[0] (task "t4999") is "t49988"')
    assert error.hint == "did you mean 't4998'?"


def test_the_schema_knows_exactly_the_fields_that_are_read() -> None:
    """And its pattern for ids agrees with what is accepted."""
    schema = plan_schema()
    task = schema["properties"]["tasks"]["items"]
    assert set(schema["properties"]) == PLAN_FIELDS
    assert set(task["properties"]) == TASK_FIELDS
    assert set(schema["properties"]["defaults"]["properties"]) == TASK_FIELDS - {"task_id"}
    pattern = task["properties"]["task_id"]["pattern"]
    for task_id in ["a", "_", "a.b-c", "x" * 100, "x" * 101, "a.", "a..b", "a.lock", "-a", ".a", "a/b", "", "a.lockx"]:
        with contextlib.suppress(ValueError):
            assert bool(re.search(pattern, Task(task_id=task_id).task_id)), task_id
            continue
        assert not re.search(pattern, task_id), task_id
    orjson.dumps(schema)


PLAN_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "b", KEY]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(TASK_FIELDS | PLAN_FIELDS | {"x"})), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")),
        st.text(alphabet="[]{}:,-&*!?<>|#%@'\"` \n\tab01.", max_size=60).map(str.encode),
        PLAN_LIKE.map(lambda value: json.dumps({"tasks": [value], "defaults": value}).encode()),
    ),
    name=st.sampled_from(["p.json", "p.yaml"]),
)
def test_no_bytes_at_all_raise_anything_but_our_error(tmp_path: Path, content: bytes, name: str) -> None:
    """A plan or one message."""
    path = tmp_path / name
    path.write_bytes(content)
    with contextlib.suppress(ParallelAgentsError):
        load_plan_file(path, DEFAULTS)


@settings(max_examples=examples(60), deadline=None)
@given(
    tasks=st.lists(st.dictionaries(st.sampled_from(sorted(TASK_FIELDS | {"call"})), PLAN_LIKE, max_size=6), max_size=3)
)
def test_no_tasks_at_all_raise_anything_but_our_error(tasks: list[dict[str, Any]]) -> None:
    """What passes can be stored."""
    with contextlib.suppress(ParallelAgentsError):
        draft = draft_from_tasks(tasks, name="n", configuration=DEFAULTS)
        Plan(name="n", tasks=draft.tasks).to_bytes()
