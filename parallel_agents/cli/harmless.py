"""What programs printed, made harmless for a terminal: colours stay, everything else that a terminal would obey is shown.

An escape sequence in an agent's output can set the clipboard or the title, answer in the user's name, hide text or make a link
lead elsewhere. Only SGR (colours and weights, ECMA-48 8.3.117), tabs and line ends get through.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_HALF_SGR: Final = re.compile(r"\x1b(\[[0-9;:]{0,40})?\Z")  # May go on in the next chunk.
# In JSON only texts can hold them, and there an escape means the same. ESC and its like are escaped by `json` itself.
_IN_JSON: Final = {
    number: f"\\u{number:04x}"
    for number in (*range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}
_KEPT: Final = frozenset("\n\t")


class Harmless:
    """Takes bytes as they come, cut anywhere, and gives them back harmless."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # The beginning of what may be a colour.

    def feed(self, chunk: bytes, *, last: bool = False) -> bytes:
        """The next piece. With ``last`` nothing is held back for more to come."""
        text = self._rest + self._decoder.decode(chunk, last)
        self._rest = ""
        if not last and (half := _HALF_SGR.search(text)):
            text, self._rest = text[: half.start()], half.group()
        return harmless(text).encode("utf-8", "replace")


def harmless(text: str) -> str:
    """A whole text. A carriage return before a line's end is dropped, any other is shown: it would hide what stands before it."""
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    parts: list[str] = []
    begin = 0
    for colour in _SGR.finditer(text):
        parts += (_shown(text[begin : colour.start()]), colour.group())
        begin = colour.end()
    return "".join((*parts, _shown(text[begin:])))


def json_text(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """JSON with readable letters, in which no character makes a terminal do anything or turns the reading direction."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=default).translate(_IN_JSON)


def json_pieces(value: Any, default: Callable[[Any], Any]) -> Iterator[str]:
    """The same, indented, piece by piece: what is no list but can be gone through is, as it is printed.

    Args:
        value: may be such a thing, or a mapping with some among its values.
    """
    if isinstance(value, dict) and any(map(_is_passing, value.values())):
        before = "{\n"
        for name, part in value.items():
            yield f"{before}  {json_text(name)}: "
            if _is_passing(part):
                yield from _array(part, default, "  ")
            else:
                yield _indented(part, default, "  ")
            before = ",\n"
        yield "\n}"
    elif _is_passing(value):
        yield from _array(value, default, "")
    else:
        yield _indented(value, default, "")


def _is_passing(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | list | tuple)


def _array(values: Iterable[Any], default: Callable[[Any], Any], margin: str) -> Iterator[str]:
    before = "["
    for value in values:
        yield f"{before}\n  {margin}{_indented(value, default, '  ' + margin)}"
        before = ","
    yield "[]" if before == "[" else f"\n{margin}]"


def _indented(value: Any, default: Callable[[Any], Any], margin: str) -> str:
    try:
        text = orjson.dumps(value, default, orjson.OPT_INDENT_2).decode()
    except TypeError:  # A number of more than 64 bits, a half of a letter: what JSON can hold, and few can read.
        text = json.dumps(value, indent=2, ensure_ascii=False, default=default)
    if not (text.isascii() and "\x7f" not in text):
        text = text.translate(_IN_JSON)
    return text.replace("\n", "\n" + margin) if margin else text


def _shown(text: str) -> str:
    return "".join(
        char if char in _KEPT or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
