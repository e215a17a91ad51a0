"""JSON Schemas (draft 2020-12) of plans and of the configuration file, from which editors complete and check."""

from __future__ import annotations

from typing import Any

from parallel_agents.configuration_keys import ALIASES, KEYS, Key
from parallel_agents.eventstore.submission import APPROVALS, PRIORITIES, STRATEGIES, WORKSPACES
from parallel_agents.plan_fields import MAX_BUDGET_USD

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_TEXT = {"type": "string", "pattern": "^[^\\u0000]*$"}
_NULLABLE = ["array", "null"]
_DOLLARS: dict[str, Any] = {"type": ["number", "null"], "minimum": 0, "maximum": MAX_BUDGET_USD}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 31_536_000}


def _texts(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": _TEXT, "description": description, **more}


# What prepares a checkout; it may stand at a task and, for all tasks that say nothing, at the plan.
_PREPARATION: dict[str, dict[str, Any]] = {
    "setup": {**_texts("Run before the command, in its checkout.", minItems=1), "type": _NULLABLE},
    "teardown": {**_texts("Run after the command, however it ended.", minItems=1), "type": _NULLABLE},
    "setup_timeout_s": {**_SECONDS, "description": "Seconds that setup and teardown may take each; default 600."},
}

_TASK_ID = {
    "type": "string",
    "pattern": r"^(?!.*\.\.)(?!.*\.lock$)[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?$",
    "description": "Unique in the plan, also among ids that differ by case only.",
}

# Every field that a task of a plan may have; a test holds this against the fields that are read.
_TASK: dict[str, dict[str, Any]] = {
    "agent_type": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Such as backend-engineer."},
    "description": {**_TEXT, "description": "What the task is about."},
    "priority": {"enum": list(PRIORITIES), "description": "The configuration's default: medium."},
    "dependencies": {"type": "array", "items": _TASK_ID, "description": "Tasks that must have ended well before."},
    "context": {"type": "object", "description": "Free data that the task is handed."},
    "tags": _texts("Labels."),
    "command": {**_texts("What the shell runner starts, word by word.", minItems=1), "type": _NULLABLE},
    "runner": {
        "type": ["string", "null"],
        "description": "shell, python (in the Python API), or an agent: claude, codex, or one of agents.runners.",
    },
    "model": {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": 200,
        "description": "opus, sonnet, haiku or another alias, or a name that the agent knows. Default: by agent type.",
    },
    "budget_usd": {**_DOLLARS, "description": "Dollars that the task may cost, all of its attempts together."},
    "outputs": _texts("Paths below the working directory that must exist afterwards."),
    "env": {"type": "object", "additionalProperties": _TEXT, "description": "Variables; never secrets."},
    "env_from": _texts("Names of variables taken from the dispatcher's environment, such as secrets."),
    "timeout_s": {**_SECONDS, "description": "Seconds from the start of the process; fractions allowed."},
    "max_retries": {"type": "integer", "minimum": 0, "maximum": 100, "description": "Attempts after the first."},
    "files": _texts("Globs of what it means to change; tasks whose globs meet never run at once."),
    "approval": {
        "enum": [*APPROVALS, None],
        "description": "Waits for a person: required, before it starts; result, before its work is merged.",
    },
    **_PREPARATION,
    "allow_failure": {"type": "boolean", "description": "true: dependents run although the task failed."},
    "expected_s": {
        **_SECONDS,
        "type": ["number", "null"],
        "description": "Expected duration in seconds; long chains are started first.",
    },
}


def plan_schema() -> dict[str, Any]:
    """The schema of a plan file."""
    task = _TASK
    head = {
        "$schema": {"type": "string", "description": "Where an editor finds this schema; ignored."},
        "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 200, "description": "Default: the file's."},
        "strategy": {"enum": [*STRATEGIES, None], "description": "Default: the configuration's."},
        "workspace": {
            "enum": [*WORKSPACES, None],
            "description": "Where tasks work. Default: worktree in a git repository that has a commit, else shared.",
        },
        "sparse": {**_texts("Folders of the repository that a checkout holds; none means all."), "type": _NULLABLE},
        "include_uncommitted": {"type": ["boolean", "null"], "description": "Start from the files as they are."},
        **_PREPARATION,
        "budget_usd": {**_DOLLARS, "description": "Dollars that the whole run may cost."},
        "max_parallel_agents": {"type": ["integer", "null"], "minimum": 1, "maximum": 10_000},
        "defaults": {
            "type": ["object", "null"],
            "properties": task,
            "additionalProperties": False,
            "description": "Fields that hold for every task that does not have them itself.",
        },
        "tasks": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"task_id": _TASK_ID, **task},
                "required": ["task_id"],
                "additionalProperties": False,
            },
        },
    }
    return {
        "$schema": DRAFT,
        "title": "Plan of parallel-agents",
        "type": "object",
        "properties": head,
        "required": ["tasks"],
        "additionalProperties": False,
    }


def configuration_schema() -> dict[str, Any]:
    """The schema of ``.claude/config/parallel-agents-config.json``. A key of a part to come allows its default only."""
    root = _group()
    for key in KEYS:
        group = root
        *groups, leaf = key.path.split(".")
        for name in groups:
            group = group["properties"].setdefault(name, _group())
        group["properties"][leaf] = _key_schema(key)
    for alias, path in ALIASES.items():
        parts = path.split(".")
        root["properties"][alias] = {"$ref": "#/properties/" + "/properties/".join(parts)}
    return {"$schema": DRAFT, "title": "Configuration of parallel-agents", **root}


def _group() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _key_schema(key: Key) -> dict[str, Any]:
    match key.force:
        case "ignored":
            return {"description": "Ignored."}
        case "fixed":
            return {"const": key.default, "default": key.default, "description": key.why}
        case "not built":
            return {"const": key.default, "default": key.default, "description": "Not yet in force."}
        case "in force":
            return {**key.shape, "default": key.default, **({"description": key.why} if key.why else {})}
        case _:
            raise AssertionError(key.force)
