"""What an agent's output says so far, whichever client printed it. Parsers fill it line by line; it is changed in place.

An output is written by a program that nobody here controls: nothing in it is believed before its type has been looked at.
"""

from __future__ import annotations

import json
import math
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

LONGEST_TEXT = 20_000  # Characters of a text that is kept: an event's body is to stay small.
MOST_FAILURES = 16  # That are kept; the last ones tell why an attempt failed.
_MOST_TOKENS = 2**53  # More than anybody will ever pay for: such a figure is garbage.


@dataclass(slots=True)
class Tokens:
    """Tokens by kind. ``input`` are those from and to no cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def kinds(self) -> tuple[int, int, int, int]:
        """The four figures, in the order of the fields."""
        return self.input, self.output, self.cache_read, self.cache_write

    def grown_to(self, other: Tokens) -> Tokens:
        """The larger figure of each kind: counters of one message only grow, and some lines leave kinds out."""
        return Tokens(*map(max, self.kinds(), other.kinds()))

    def plus(self, other: Tokens) -> Tokens:
        """The sum of each kind."""
        return Tokens(*map(operator.add, self.kinds(), other.kinds()))

    def minus(self, other: Tokens) -> Tokens | None:
        """The difference of each kind; None where one would be negative: then the other is no earlier state of this."""
        kinds = tuple(map(operator.sub, self.kinds(), other.kinds()))
        return Tokens(*kinds) if min(kinds) >= 0 else None


@dataclass(slots=True)
class Spent:
    """What was spent on one model, as the agent says."""

    tokens: Tokens
    usd: float | None = None  # None where it tells tokens only.
    guessed: bool = False  # The agent does not know the model's price.


@dataclass(slots=True)
class Reported:
    """The totals of a session, by model; ``""`` is a model whose name was not told."""

    models: dict[str, Spent] = field(default_factory=dict)

    def plus(self, other: Reported) -> Reported:
        """The sum by model."""
        models = dict(self.models)
        for model, spent in other.models.items():
            known = models.get(model)
            if known is not None:
                usd = None if known.usd is None or spent.usd is None else known.usd + spent.usd
                spent = Spent(known.tokens.plus(spent.tokens), usd, known.guessed or spent.guessed)
            models[model] = spent
        return Reported(models)

    def as_json(self) -> dict[str, Any]:
        """For a file that the next attempt of the session reads."""
        return {model: [*spent.tokens.kinds(), spent.usd, spent.guessed] for model, spent in self.models.items()}

    @classmethod
    def from_json(cls, stored: Any) -> Reported:
        """What ``as_json`` gave; whatever is none of it is left out."""
        models = {}
        for model, row in as_object(stored).items():
            if isinstance(row, list) and len(row) == 6:
                tokens = Tokens(*(as_count(value) or 0 for value in row[:4]))
                models[str(model)] = Spent(tokens, as_amount(row[4]), row[5] is True)
        return cls(models)


@dataclass(slots=True)
class Result:
    """The last result line: how the agent itself says that it ended."""

    subtype: str = ""
    is_error: bool = False
    terminal_reason: str = ""
    text: str = ""
    num_turns: int | None = None
    api_error_status: int | None = None
    errors: tuple[str, ...] = ()


@dataclass(slots=True)
class ApiFailure:
    """An answer of the provider's that was none."""

    text: str = ""
    status: int | None = None  # Of HTTP, where it was told.
    code: str = ""  # The client's own word for it, such as ``rate_limit``.
    retried: bool = False  # The client tried again by itself.
    after: int = 0  # So many messages had come before it.


@dataclass(slots=True)
class RateLimit:
    """The last word on the plan's allowance."""

    status: str = ""  # allowed, allowed_warning, rejected.
    resets_at_s: int | None = None  # Since the epoch.
    kind: str = ""


@dataclass(slots=True)
class Reading:
    """What an agent's output says so far; one per attempt."""

    session_id: str | None = None
    model: str | None = None
    messages: dict[str, tuple[str | None, Tokens]] = field(default_factory=dict)  # Each id once; the last word wins.
    settled: int = 0  # So many of the messages, in order, came before the last result line: it has them in its totals.
    reported: Reported | None = None  # Totals of the session, by the last line that told them.
    own: Reported | None = None  # What this process alone has spent, where its result lines told the difference.
    result: Result | None = None
    results: int = 0
    failures: list[ApiFailure] = field(default_factory=list)
    limit: RateLimit | None = None
    last_text: str = ""  # The last thing that the agent itself said.
    denials: tuple[str, ...] = ()  # Names of the tools that it was not allowed to use.
    asked: bool = False  # It has asked its model something, whatever came of it.
    answered: bool = False  # And the provider has answered at least once.
    background: set[str] = field(default_factory=set)  # Agents of its own that are at work beside it.
    at_once: int = 1  # The most agents in there that have worked at the same time, itself included.
    open_messages: dict[str, str] = field(default_factory=dict)  # Of each agent in there: the message being streamed.
    lines: int = 0
    bad_lines: int = 0
    unknown: Counter[str] = field(default_factory=Counter)  # Types of lines that no parser of ours knows.

    @property
    def calls(self) -> int:
        """Answers of the model, subagents included, each counted once."""
        return len(self.messages)

    @property
    def concluded(self) -> bool:
        """Its result is its last word: nothing that it was charged for came after."""
        return self.result is not None and self.settled == len(self.messages)

    def count(self, message_id: str, model: str | None, tokens: Tokens) -> None:
        """Take what a line says of a message; lines of one message repeat each other, and only the last are complete."""
        known = self.messages.get(message_id)
        if known is not None:
            model, tokens = model or known[0], known[1].grown_to(tokens)
        self.messages[message_id] = (model, tokens)
        self.asked = self.answered = True

    def fail(self, failure: ApiFailure) -> None:
        """Remember an answer that was none."""
        self.asked = True
        failure.after = len(self.messages)
        self.failures.append(failure)
        if len(self.failures) > MOST_FAILURES:
            del self.failures[0]

    def unknown_type(self, name: object) -> None:
        """A type of line that is not known, of which there may be any number of names."""
        known = as_text(name)[:60]
        if known in self.unknown or len(self.unknown) < 100:
            self.unknown[known] += 1


class Parser(Protocol):
    """Reads one client's output. It never raises, whatever a line holds."""

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line, without its line break."""


def decoded(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds; None where it holds none.

    The standard library is asked where orjson refuses: half of a surrogate pair (a text cut in the middle of an emoji, which
    JavaScript prints without a qualm) and bytes that are no UTF-8 must not cost an attempt its result.
    """
    value: Any
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def as_object(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is a text, else an empty one; fit to be stored, and cut in the middle where it is long."""
    if not isinstance(value, str):
        return ""
    if len(value) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        value = f"{value[:half]}\n[{len(value) - 2 * half} characters left out]\n{value[-half:]}"
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def as_name(value: object) -> str:
    """The value if it is a short text, else an empty one: ids, and names of models and tools."""
    if not isinstance(value, str) or len(value) > 300:
        return ""
    return value if value.isascii() else as_text(value)


def as_count(value: object) -> int | None:
    """The value if it is a number of something, else None."""
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


def as_amount(value: object) -> float | None:
    """The value if it is an amount of money, else None."""
    if type(value) not in (int, float):
        return None
    assert isinstance(value, int | float)
    return float(value) if 0 <= value < _MOST_TOKENS and math.isfinite(value) else None
