"""How values and names that a user wrote are shown back in an error message."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from parallel_agents.eventstore.errors import nearest
from parallel_agents.eventstore.redaction import find_secret

_LONGEST_SHOWN = 60  # Characters of a value in a message; a terminal line holds about 100.
_LONGEST_COMPARED = 2000  # Names that difflib is asked about; it takes some 20 us for each.


class Misfit(Exception):
    """A value that a field or key cannot hold; readers turn it into an error that names file and line."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.path = path  # Below what is being looked at.
        self.message = message
        self.hint = hint


def escaped(text: str, limit: int = 300) -> str:
    """The text cut to ``limit`` characters, with everything that would disturb a terminal shown as an escape."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)


def shown(value: Any) -> str:
    """A value as its writer would recognise it: short, escaped, and never a secret."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**30:  # Python refuses to print integers of many thousand digits.
            return f"a number of {value.bit_length()} bits"
        case int() | float():
            return repr(value)
        case str():
            if rule := find_secret(value[:4096]):
                return f"a text that looks like a secret ({rule})"
            cut = value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "..."
            return escaped(json.dumps(cut, ensure_ascii=False))
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            return f"a mapping of {len(value)}" if value else "an empty mapping"
        case _:
            return f"a Python {type(value).__name__}"


def place(path: Iterable[str | int]) -> str:
    """A path into a document: ``tasks[3].env.STAGE``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + escaped(part, _LONGEST_SHOWN)
    return text


def nearest_name(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest right spelling; case, ``_`` and ``-`` count for nothing."""
    names = list(known)
    plain = _plain(word)
    for name in names:
        if _plain(name) == plain:
            return f"did you mean {name!r}?"
    if len(names) > _LONGEST_COMPARED:
        alike = [name for name in names if abs(len(name) - len(word)) <= 2 and _share_an_end(name, word)]
        names = alike[:_LONGEST_COMPARED] or names[:_LONGEST_COMPARED]
    return nearest(word[:200], names)


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")


def _share_an_end(one: str, other: str) -> bool:
    return one[:2] == other[:2] or one[-2:] == other[-2:]
