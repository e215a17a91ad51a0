"""Secrets that stand in a plan as they are. The store would keep them for ever, so the plan is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from parallel_agents.eventstore.redaction import MIN_LENGTH, find_secret, is_secret_name
from parallel_agents.eventstore.submission import Task
from parallel_agents.wording import Misfit

_BATCH = 1000  # Tasks looked at in one go; a search costs more to start than to run over their texts.
# A header whose value is a variable, a placeholder or a word of a sentence: right what env_from is for.
# Its quantifiers are possessive, or the header's name alone would be found harmless and taken away.
_HARMLESS_HEADER = re.compile(
    r"authorization[\"']?\s*+[:=]\s*+[\"']?+(?:(?:bearer|basic|token)\b\s*+)?+"
    r"(?:[$<{%]\S*|(?:(?-i:[A-Z]?[a-z-]{0,20})|[^\s\"',;]{0,7})(?=[\s\"',;.]|\Z))",
    re.IGNORECASE,
)

Text = tuple[tuple[str | int, ...], str]  # Where in the task, and what stands there.


def secret_tasks(tasks: Sequence[tuple[int, Task]]) -> Iterator[tuple[int, list[Misfit]]]:
    """The tasks that hold a secret, or text that no file could hold, each with where."""
    for start in range(0, len(tasks), _BATCH):
        batch = tasks[start : start + _BATCH]
        if _is_clean("\n".join(text for _, task in batch for _, text in _texts(task))) and not any(
            task.env and _secret_variables(task) for _, task in batch
        ):
            continue
        for index, task in batch:
            if misfits := secrets_in(task):
                yield index, misfits


def secrets_in(task: Task) -> list[Misfit]:
    """What in a task must not be written down, or cannot be."""
    found = [misfit for path, text in _texts(task) if (misfit := text_misfit(path, text))]
    return found + _secret_variables(task)


def text_misfit(path: tuple[str | int, ...], text: str) -> Misfit | None:
    """Why a text may not stand in a plan, if so."""
    if rule := find_secret(_HARMLESS_HEADER.sub(" ", text)):
        return Misfit(path, f"holds a secret ({rule})", _hint("a variable"))
    if not _is_utf8(text):
        return Misfit(path, "holds half of a surrogate pair, which is no character")
    return None


def _is_clean(text: str) -> bool:
    return _is_utf8(text) and not find_secret(_HARMLESS_HEADER.sub(" ", text))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hint(variable: str) -> str:
    return f"take it from the environment: name {variable} under env_from, and use it from there"


def _secret_variables(task: Task) -> list[Misfit]:
    return [
        Misfit(("env", name), "is named like a secret and given a value in the plan", _hint(name))
        for name, value in task.env.items()
        if len(value) >= MIN_LENGTH and is_secret_name(name) and not find_secret(value)
    ]


def _texts(task: Task) -> Iterator[Text]:
    """Every text of a task that a person chose freely. A command is one text: a secret may span its words."""
    yield ("description",), task.description
    yield ("agent_type",), task.agent_type
    for field, words in (("command", task.command), ("setup", task.setup), ("teardown", task.teardown)):
        if words:
            yield (field,), " ".join(words)
    for field in ("tags", "outputs", "env_from", "files"):
        for index, text in enumerate(getattr(task, field)):
            yield (field, index), text
    for name, value in task.env.items():
        yield ("env",), name
        yield ("env", name), value
    if task.context:
        yield from _nested(("context",), task.context)


def _nested(path: tuple[str | int, ...], value: Any) -> Iterator[Text]:
    match value:
        case str():
            yield path, value
        case dict():
            for name, item in value.items():
                yield path, name
                yield from _nested((*path, name), item)
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _nested((*path, index), item)
        case _:
            pass
