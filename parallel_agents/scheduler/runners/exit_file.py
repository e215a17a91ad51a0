"""What an exit file says of an attempt. It lies where the attempt itself can write, so nothing in it is believed unseen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, get_args

from parallel_agents.scheduler.runners.protocol import FAILURES, Ended, Fault, Outcome

_OUTCOMES: Final = frozenset(get_args(Outcome))
_MOST: Final = 2**63


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _MOST and math.isfinite(value)


def _text(value: Any) -> bool:
    return value is None or (type(value) is str and value.isascii()) or (type(value) is str and _encodes(value))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _switch(value: Any) -> bool:
    return type(value) is bool


def _code(value: Any) -> bool:
    return value is None or (type(value) is int and -256 <= value <= 256)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "exit_code": _code, "error": _text, "output": _text, "retryable": _switch, "began": _switch,
    "kind": lambda value: isinstance(value, str) and (not value or value in FAILURES),
    "fault": lambda value: isinstance(value, str) and value in get_args(Fault),
}  # fmt: skip
# What a supervisor of a later release writes besides is left; a figure of ours is a count or seconds by its default.
_KNOWN: Final[dict[str, Callable[[Any], bool]]] = {
    field.name: _CHECKS.get(field.name, _count if type(field.default) is int else _seconds)
    for field in fields(Ended)
    if field.name in _CHECKS or type(field.default) in (int, float)
}


def ended_of(data: Mapping[str, Any] | None, attempt_id: str) -> Ended | None:
    """The end of an attempt by its exit file, or None where that is not there or is not about this attempt.

    A field that holds what it cannot hold is taken for not written.
    """
    if data is None or data.get("attempt_id") != attempt_id:
        return None
    outcome = data.get("outcome")
    if not isinstance(outcome, str) or outcome not in _OUTCOMES:
        return None
    found = {name: data[name] for name, fits in _KNOWN.items() if name in data and fits(data[name])}
    return Ended(attempt_id, data["outcome"], **found)
