"""Which model an attempt gets, and why. Pure: the task, the settings of its run and how tight the budgets are go in.

A model is chosen by alias. What wins, first to last: the task's own ``model``; the one that its agent type names;
``model_of`` of the configuration; the table here, moved by the profile and by words of the description. A choice that
the task did not make itself may still go down a step for a budget, and up one after the agent has failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from parallel_agents.eventstore.submission import AgentSettings, Task

LADDER = ("haiku", "sonnet", "opus")
"""The aliases that steps are taken on, from the smallest model to the strongest."""

MODELS: Mapping[str, Mapping[str, str]] = {
    "haiku": {"claude": "haiku", "codex": "gpt-6-luna"},
    "sonnet": {"claude": "sonnet", "codex": "gpt-6.1-sol"},
    "opus": {"claude": "opus", "codex": "gpt-6-astra"},
}
"""Alias -> runner -> what its client is told. Claude Code resolves these aliases itself, to the newest of each family.
For Codex: of the models that its client 0.171.0 lists and that the price table knows, the newest for complex work, for
everyday work, and for small things; one that the price table does not know could only be billed as unknown."""

PRICES = "genai-prices 0.2.3"
PRICE_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "claude": {"haiku": 0.05, "sonnet": 1.0, "opus": 2.0},
    "codex": {"haiku": 0.05, "sonnet": 1.0, "opus": 5.0},
}
"""Runner -> alias -> price of a token, relative to that runner's ``sonnet``; input and output have the same ratios.
Source: the table named in ``PRICES``, in dollars for a million tokens in and out: claude-haiku-5-5 0.1/0.5,
claude-sonnet-5-5 2/10, claude-opus-5-5 4/20 (the models that Claude Code 2.1.332 asks for by these aliases, and the prices
that it reports), gpt-6-luna 0.1/0.5, gpt-6.1-sol 2/10, gpt-6-astra 10/50. A test compares the weights with it."""

DEFAULT = "sonnet"
MODEL_OF: Mapping[str, str] = {
    "software-architect": "opus",
    "security-engineer": "opus",
    "merge-engineer": "opus",
    "backend-engineer": "sonnet",
    "frontend-engineer": "sonnet",
    "api-engineer": "sonnet",
    "data-engineer": "sonnet",
    "deployment-engineer": "sonnet",
    "ux-designer": "sonnet",
    "reviewer": "sonnet",
    "qa-engineer": "haiku",
    "explore": "haiku",
    "documentation": "haiku",
}
"""The choice per agent type that users know; any other type gets ``DEFAULT``. A merge needs both sides understood."""

HARD_WORDS = (
    "architecture", "architectural", "authentication", "concurrency", "cryptography", "data loss", "deadlock", "deadlocks",
    "memory leak", "migrate", "migration", "migrations", "race condition", "race conditions", "security", "vulnerability",
    "vulnerabilities",
)  # fmt: skip
EASY_WORDS = (
    "changelog", "comment", "comments", "docstring", "docstrings", "format", "formatting", "rename", "renames", "reword",
    "spelling", "typo", "typos", "version bump", "whitespace",
)  # fmt: skip

_STEP_OF_PROFILE = {"quality": 1, "balanced": 0, "fast": -1}


class Choice(NamedTuple):
    """The model of an attempt."""

    model: str | None  # The alias, or the name that the task gave; None: the client's own choice.
    name: str | None  # What the client is told.
    reason: str  # One sentence.


def choose_model(
    task: Task,
    settings: AgentSettings,
    *,
    tight: float = 0.0,
    warning: float = 0.75,
    failures_by_agent: int = 0,
    runner: str | None = None,
    takes_model: bool = True,
    agent_type: str | None = None,
) -> Choice:
    """The model of the next attempt of a task.

    Args:
        tight: the share of the nearest budget that is spent.
        warning: the share from which on a cheaper model is chosen; above 1 where none ever shall be.
        failures_by_agent: attempts of the task that failed by the agent's own fault.
        runner: who will run it, where it is neither the task's nor the run's own (a failover).
        takes_model: whether that runner's client can be told a model at all.
        agent_type: who acts, where it is not the task's own type (one that resolves a conflict).
    """
    runner = runner or task.runner or settings.runner
    if not takes_model:
        return Choice(None, None, f"the runner {runner} takes no model: its client's own choice")
    if task.model is not None:
        return Choice(task.model, name_for(task.model, runner, settings), f"the task names {task.model}")
    alias, why = _wanted(agent_type or task.agent_type, task.description, settings)
    if alias is None:
        return Choice(None, None, why)
    if settings.retry_stronger and failures_by_agent > 0:
        alias, why = _moved(alias, stronger(alias), why, "one up, because the agent itself failed before")
    if tight >= warning:
        alias, why = _moved(alias, cheaper(alias), why, f"one down, because {tight:.0%} of a budget is spent")
    name = _known_name(alias, runner, settings)
    if name is None and is_alias(alias, settings):
        return Choice(None, None, f"the table of models has no {alias} for {runner}: its client's own choice")
    return Choice(alias, name or alias, why)


def stronger(alias: str) -> str:
    """The alias one step up; the same where there is none, or it stands on no step."""
    return _step(alias, 1)


def cheaper(alias: str) -> str:
    """The alias one step down; the same where there is none, or it stands on no step."""
    return _step(alias, -1)


def is_alias(model: str, settings: AgentSettings) -> bool:
    """Whether a model is a name of the table, rather than one that a client knows."""
    return model in MODELS or model in settings.models


def name_for(model: str, runner: str, settings: AgentSettings) -> str:
    """What a runner's client is told for a model.

    What is no alias, or has no name for this runner, is told as it stands: the client knows it, or refuses it by name.
    """
    return _known_name(model, runner, settings) or model


def has_name(model: str, runner: str, settings: AgentSettings) -> bool:
    """Whether the table has a name of a runner's client for a model."""
    return _known_name(model, runner, settings) is not None


def unnamed(task: Task, settings: AgentSettings) -> str | None:
    """What is wrong with the model that a task names, where its runner has no name for the alias. For a plan's check."""
    runner = task.runner or settings.runner
    if task.model is None or not is_alias(task.model, settings):
        return None
    if has_name(task.model, runner, settings):
        return None
    return f"the table of models has no {task.model!r} for the runner {runner!r}"


def price_weight(model: str | None, runner: str) -> float | None:
    """The price of a token relative to the runner's ``sonnet``; None where nobody knows."""
    return None if model is None else PRICE_WEIGHTS.get(runner, {}).get(model)


def _known_name(model: str, runner: str, settings: AgentSettings) -> str | None:
    return settings.models.get(model, {}).get(runner) or MODELS.get(model, {}).get(runner)


def _wanted(agent_type: str, description: str, settings: AgentSettings) -> tuple[str | None, str]:
    """The alias before budgets and failures move it, and why."""
    role = settings.roles.get(agent_type)
    if role is not None and role.model not in (None, "inherit"):
        return role.model, f"the agent type {agent_type} names {role.model}"
    if agent_type in settings.model_of:
        alias = settings.model_of[agent_type]
        return alias, f"the configuration gives {agent_type} {alias}"
    if not settings.choose_models:
        return None, "the choice of models is switched off: the client's own choice"
    alias = MODEL_OF.get(agent_type, DEFAULT)
    why = f"{agent_type} gets {alias}" if agent_type in MODEL_OF else f"{alias} is the default"
    if settings.profile == "ultra-fast":
        return LADDER[0], f"the profile ultra-fast gives everybody {LADDER[0]}"
    if step := _STEP_OF_PROFILE[settings.profile]:
        said = f"one {'up' if step > 0 else 'down'} by the profile {settings.profile}"
        alias, why = _moved(alias, _step(alias, step), why, said)
    hard, easy = _first_of(HARD_WORDS, description), _first_of(EASY_WORDS, description)
    if hard and not easy:
        alias, why = _moved(alias, stronger(alias), why, f"one up for the word {hard!r}")
    elif easy and not hard:
        alias, why = _moved(alias, cheaper(alias), why, f"one down for the word {easy!r}")
    return alias, why


def _moved(before: str, after: str, why: str, said: str) -> tuple[str, str]:
    return (before, why) if before == after else (after, f"{why}; {said}: {after}")


def _step(alias: str, by: int) -> str:
    if alias not in LADDER:
        return alias
    return LADDER[min(max(LADDER.index(alias) + by, 0), len(LADDER) - 1)]


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    spaced = (re.escape(word).replace(r"\ ", r"\s+") for word in words)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(spaced)})(?![\w-])", re.IGNORECASE)


_PATTERNS: Mapping[tuple[str, ...], re.Pattern[str]] = {words: _pattern(words) for words in (HARD_WORDS, EASY_WORDS)}


def _first_of(words: tuple[str, ...], text: str) -> str:
    """The first of the words that stands in a text as a whole word; empty where none does."""
    found = _PATTERNS[words].search(text)
    return " ".join(found[0].lower().split()) if found else ""
