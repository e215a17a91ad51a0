"""What the fields of a plan and of its tasks may hold, and how a wrong one is explained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from parallel_agents.eventstore.submission import APPROVALS, PRIORITIES, Task
from parallel_agents.wording import Misfit, nearest_name, shown

# What prepares a checkout: fields of a task that may also stand at the plan itself, for all tasks that say nothing.
PREPARATION = ("setup", "teardown", "setup_timeout_s")
# `$schema` names the JSON Schema to editors; `stage` of a task is worked out, never written.
PLAN_FIELDS = frozenset(
    {
        "name",
        "strategy",
        "workspace",
        "sparse",
        "include_uncommitted",
        "max_parallel_agents",
        "budget_usd",
        "defaults",
        "tasks",
    }
) | {*PREPARATION, "$schema"}
# A budget is written in dollars and kept in micro-dollars.
TASK_FIELDS = frozenset(Task.model_fields) - {"stage", "budget_usd_micros", "expected_usd_micros", "expected_model"} | {
    "budget_usd"
}
COMMANDS = ("command", "setup", "teardown")
SEQUENCES = frozenset({"dependencies", "tags", "outputs", "env_from", "files", *COMMANDS})

STRATEGY_RULES = "stages and rules belong to the configuration: strategies.pipeline, strategies.hybrid"
# What people write who know other tools; difflib finds none of these.
PLAN_WORDS = {"rules": STRATEGY_RULES, "pipeline": STRATEGY_RULES, "hybrid": STRATEGY_RULES, "stages": STRATEGY_RULES}
TASK_WORDS = {
    "id": "task_id",
    "name": "task_id",
    "type": "agent_type",
    "agent": "agent_type",
    "cmd": "command",
    "run": "command",
    "script": "command",
    "needs": "dependencies",
    "depends": "dependencies",
    "depends_on": "dependencies",
    "dependsOn": "dependencies",
    "after": "dependencies",
    "timeout": "timeout_s",
    "retries": "max_retries",
    "environment": "env",
    "scope": "files",
    "paths": "files",
    "approve": "approval",
    "prepare": "setup",
    "cleanup": "teardown",
}

# What runs a task that is no agent's; the others are the clients of ``scheduler.agents.clients`` and entry points.
RUNNERS = ("shell", "python")
FOR_AGENTS = ("model", "budget_usd")  # Fields that mean nothing to these two.
MAX_BUDGET_USD = 1_000_000

MAX_CONTEXT_DEPTH = 64  # The store's JSON writer gives up at 254 levels.

_SECONDS = "a number of seconds above 0, at most 31536000"
_TEXTS = "a list of texts"
_WORDS = "a list of at least one text"
_CHOICES = {"priority": PRIORITIES, "approval": APPROVALS}
_EXPECTED = {
    "task_id": "a text",
    "agent_type": "a text of 1 to 200 characters",
    "description": "a text",
    **{field: "one of " + ", ".join(names) for field, names in _CHOICES.items()},
    "dependencies": "a list of task ids",
    "context": "a mapping",
    "tags": _TEXTS,
    **dict.fromkeys(COMMANDS, _WORDS),
    "runner": "the name of a runner",
    "model": "a text of 1 to 200 characters",
    "budget_usd": "a number of dollars from 0 to 1000000",
    "outputs": "a list of paths",
    "files": "a list of globs",
    "env": "a mapping of names to texts",
    "env_from": "a list of names of variables",
    "timeout_s": _SECONDS,
    "expected_s": _SECONDS,
    "setup_timeout_s": _SECONDS,
    "max_retries": "a whole number from 0 to 100",
    "allow_failure": "true or false",
}
_ID_RULE = "1 to 100 characters of A-Z a-z 0-9 . _ -, not starting with . or -, without '..', not ending in . or .lock"


def explain(detail: Mapping[str, Any]) -> Misfit:
    """One of pydantic's complaints about a task, in our words."""
    kind, value = detail["type"], detail["input"]
    path = tuple(part for part in detail["loc"] if part != "[key]")
    field = str(path[0])
    if kind == "missing":
        return Misfit((), f"has no {field}", f"give it one, of {_ID_RULE}" if field == "task_id" else "")
    if "[key]" in detail["loc"]:
        return Misfit((field,), f"has the name {shown(value)}, which is no text", "write the name in quotes")
    if kind == "value_error":
        if isinstance(value, str) and "\0" in value and field != "task_id":
            return Misfit(path, "holds a NUL character, which no command or variable can carry")
        return Misfit(path, f"is {shown(value)}, which cannot be a task id", f"an id has {_ID_RULE}")
    wanted = _EXPECTED[field] if len(path) == 1 else "a text"
    hint = ""
    if kind == "literal_error":
        hint = nearest_name(value, _CHOICES[field]) if isinstance(value, str) and value else ""
    elif kind == "string_type" and isinstance(value, int | float):
        hint = "write it in quotes"
    elif isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?|true|false", value) and kind != "string_type":
        hint = "write it without quotes"
    return Misfit(path, f"is {shown(value)}, not {wanted}", hint)


def list_misfit(field: str, value: Any) -> Misfit:
    """What is wrong with a value where a list belongs, and how its writer would put it."""
    hint = ""
    if isinstance(value, str) and len(value) <= 200 and value.isprintable():
        words = f'["sh", "-c", {shown(value)}]' if field in COMMANDS else f"[{shown(value)}]"
        hint = f"write {field}: {words}"
    elif field in COMMANDS:
        hint = f'write it as a list of words, such as {field}: ["make", "test"]'
    return Misfit((field,), f"is {shown(value)}, not {_EXPECTED[field]}", hint)


def name_misfit(name: Any) -> Misfit | None:
    """What is wrong with a plan's name, if anything."""
    if isinstance(name, str) and 1 <= len(name) <= 200 and name.isprintable():
        return None
    return Misfit((), f"is {shown(name)}, not a text of 1 to 200 printable characters")


def special_misfit(task: Task, given: Mapping[str, Any]) -> Misfit | None:
    """What the types of a task cannot say. Only the fields in ``given`` are looked at."""
    if "agent_type" in given and not task.agent_type.isprintable():
        return Misfit(("agent_type",), f"is {shown(task.agent_type)}, which holds control characters")
    for name in COMMANDS:
        if name in given and (words := getattr(task, name)) is not None and not words[0].strip():
            return Misfit((name, 0), "is empty, where the name of a program belongs")
    if "outputs" in given:
        for index, path in enumerate(task.outputs):
            if not _is_below(path):
                message = f"is {shown(path)}, which is no path below the working directory"
                return Misfit(("outputs", index), message, _BELOW_HINT)
    if "files" in given:
        for index, glob in enumerate(task.files):
            if misfit := _glob_misfit(glob):
                return Misfit(("files", index), misfit.message, misfit.hint)
    if "env" in given:
        for name in task.env:
            if not name or "=" in name:
                return Misfit(("env",), f"has {shown(name)}, which cannot be the name of a variable")
    if "env_from" in given:
        for index, name in enumerate(task.env_from):
            if not name or "=" in name:
                message = f"is {shown(name)}, which cannot be the name of a variable"
                return Misfit(("env_from", index), message, "env_from lists names; values come from the environment")
    return None


def agent_misfit(task: Task) -> Misfit | None:
    """Why a task is none for an agent."""
    if task.command is not None:
        message = f"is {shown(task.runner)}, which drives an agent, and the task has a command for the shell"
        return Misfit(("runner",), message, "keep one of the two")
    if not task.description.strip():
        hint = 'write a description, or give it a command, such as command: ["make", "test"]'
        return Misfit((), f"has no command, and no description that says what {task.runner} is to do", hint)
    return None


_BELOW_HINT = "write it relative to the working directory, without .."


def _is_below(path: str) -> bool:
    """Whether a path cannot lead out of the folder that it is taken from."""
    return bool(path) and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _glob_misfit(glob: str) -> Misfit | None:
    """Why a text is no scope. What other tools understand in globs and we do not would fail to keep tasks apart."""
    if not _is_below(glob):
        return Misfit((), f"is {shown(glob)}, which names nothing below the working directory", _BELOW_HINT)
    if glob.startswith("!"):
        message = f"is {shown(glob)}: a scope cannot take anything out"
        return Misfit((), message, "name only what the task means to change")
    if "\\" in glob:
        message = f"is {shown(glob)}: a backslash means nothing here"
        return Misfit((), message, "write / between folders, and [*] for a star that is part of a name")
    if re.search(r"\{[^{}]*,[^{}]*\}", glob):
        return Misfit((), f"is {shown(glob)}: braces are not understood", "write one glob for each of them")
    return None


def budget_misfit(value: Any) -> Misfit | None:
    """What is wrong with a number of dollars, if anything."""
    if type(value) in (int, float) and 0 <= value <= MAX_BUDGET_USD:
        return None
    hint = "write it without quotes and without $" if isinstance(value, str) else ""
    return Misfit((), f"is {shown(value)}, not {_EXPECTED['budget_usd']}", hint)


def micros(usd: float) -> int:
    """Dollars as micro-dollars."""
    return round(usd * 1_000_000)


def sparse_misfit(value: Any) -> Misfit | None:
    """What is wrong with a plan's list of folders, if anything."""
    if not isinstance(value, list | tuple):
        hint = f"write sparse: [{shown(value)}]" if isinstance(value, str) else ""
        return Misfit((), f"is {shown(value)}, not a list of folders", hint)
    for index, folder in enumerate(value):
        if not isinstance(folder, str) or not folder.isprintable():
            return Misfit((index,), f"is {shown(folder)}, not the name of a folder")
        if not _is_below(folder) or not PurePosixPath(folder).parts:
            message = f"is {shown(folder)}, which is no folder below the repository's top"
            return Misfit((index,), message, "write it relative to the repository's top, without ..")
        if "*" in folder or "?" in folder:
            return Misfit((index,), f"is {shown(folder)}: a folder, not a pattern, belongs here")
    return None


def context_misfit(value: Any, path: tuple[str | int, ...]) -> Misfit | None:
    """What in a task's context the store, which holds JSON, could not hold."""
    if len(path) > MAX_CONTEXT_DEPTH:
        return Misfit(path[:1], f"is nested deeper than {MAX_CONTEXT_DEPTH} levels")
    match value:
        case None | bool() | str():
            return None
        case int():
            small = -(2**63) <= value < 2**64
            return None if small else Misfit(path, f"is {shown(value)}, which has more than 64 bits")
        case float():
            return None if math.isfinite(value) else Misfit(path, f"is {shown(value)}, which is no finite number")
        case list() | tuple():
            found = (context_misfit(item, (*path, index)) for index, item in enumerate(value))
            return next((misfit for misfit in found if misfit), None)
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    return Misfit(path, f"has the name {shown(name)}, which is no text", "write the name in quotes")
                if misfit := context_misfit(item, (*path, name)):
                    return misfit
            return None
        case _:
            return Misfit(path, f"is {shown(value)}, which JSON cannot hold")
