"""A secret that was found later, in every spelling in which the log and files may hold it, and what is put in its place.

JSON may stand in JSON, as the output of a tool in a transcript in an event: each time quotes and backslashes are escaped once
more, and any character may be written as ``\\uXXXX``. Not found: what was encoded otherwise (base64, percent signs, hex), and
a part of it that was cut off at the edge of an output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.redaction import REDACTED

LEAST: Final = 6
"""Characters. What is shorter stands by chance in ids, digests and times."""
_DEEP: Final = 3  # JSON in JSON in JSON.
_MOST_BACKSLASHES: Final = 16  # Bounded, so that a text of nothing but backslashes takes no longer than any other.
_SHORT: Final = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_ANY_ESCAPE: Final = "\\u"


class Secret:
    """What is to be removed. Never printed, also not by accident.

    Raises:
        InvalidUsage: it is too short to be told from other text.
    """

    def __init__(self, text: str) -> None:
        if len(text.strip()) < LEAST:
            raise InvalidUsage(
                f"the secret has fewer than {LEAST} characters, and so short a text stands everywhere by chance",
                hint="the end of a line behind it does not count; is it the right file or variable?",
            )
        self._text = text
        plain = re.findall(r"[A-Za-z0-9 !#-.:-\[\]-~]+", text)  # Characters that an escape changes only as \uXXXX.
        self.core: str = max(plain, key=len, default="")
        self._bytes = self.core.encode()

    def __repr__(self) -> str:
        return "Secret(...)"

    @cached_property
    def _in_text(self) -> re.Pattern[str]:
        return re.compile("".join(map(_spelled, self._text)))

    @cached_property
    def _in_bytes(self) -> re.Pattern[bytes]:
        return re.compile("".join(map(_spelled, self._text)).encode())

    @cached_property
    def longest(self) -> int:
        """No spelling has more bytes."""
        return len(self._text) * 2 * (_MOST_BACKSLASHES + 5)

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """The spellings that programs write, for a quick look into much."""
        found = {self._text}
        for ascii_only in (True, False):
            text = self._text
            for _ in range(_DEEP):
                text = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
                found.add(text)
        return tuple(sorted(one.encode("utf-8", "surrogatepass") for one in found))

    def may_be_in(self, raw: str | bytes) -> bool:
        """A quick look: False where it cannot be in there, in no spelling."""
        if isinstance(raw, bytes):
            return self._bytes in raw or _ANY_ESCAPE.encode() in raw
        return self.core in raw or _ANY_ESCAPE in raw

    def is_in(self, text: str) -> bool:
        """Whether a text holds it."""
        return self.may_be_in(text) and self._in_text.search(text) is not None

    def is_in_bytes(self, content: bytes) -> bool:
        """The same of bytes."""
        return self.may_be_in(content) and self._in_bytes.search(content) is not None

    def spans(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Where it stands in bytes: begin and end of each find."""
        if self.may_be_in(content):
            for found in self._in_bytes.finditer(content):
                yield found.span()

    def without(self, text: str) -> str:
        """A text with ``[redacted]`` in its place."""
        return self._in_text.sub(REDACTED, text) if self.may_be_in(text) else text

    def is_in_value(self, value: Any) -> bool:
        """Whether any text inside a JSON value holds it, keys included."""
        match value:
            case str():
                return self.is_in(value)
            case dict():
                return any(self.is_in(key) or self.is_in_value(item) for key, item in value.items())
            case list():
                return any(map(self.is_in_value, value))
            case _:
                return False

    def without_in(self, value: Any) -> Any:
        """A JSON value with ``[redacted]`` in its place in every text, keys included."""
        match value:
            case str():
                return self.without(value)
            case dict():
                return {self.without(key): self.without_in(item) for key, item in value.items()}
            case list():
                return [self.without_in(item) for item in value]
            case _:
                return value


def mark(length: int) -> bytes:
    """What is put in the place of so many bytes of a file, so that nothing behind them moves."""
    return REDACTED.encode().ljust(length, b"*") if length >= len(REDACTED) else b"*" * length


def _spelled(char: str) -> str:
    """A pattern of one character: as it is, or escaped for JSON however often."""
    backslashes = r"\\{1," + str(_MOST_BACKSLASHES) + "}"
    units = char.encode("utf-16-be", "surrogatepass")
    numbers = "".join(f"{backslashes}u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2))
    if char == "\\":
        return f"(?:{backslashes}(?!u005[cC])|{numbers})"
    if char in '"/':
        return rf"(?:\\{{0,{_MOST_BACKSLASHES}}}{char}|{numbers})"
    if char in _SHORT:
        return f"(?:{re.escape(char)}|{backslashes}{_SHORT[char]}|{numbers})"
    return f"(?:{re.escape(char)}|{numbers})"
