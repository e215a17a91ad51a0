"""Which texts a block of events may hold: one bit for each three bytes that follow each other in one of its values.

A Bloom filter of one hash over trigrams, as code search engines have it (Cox, "Regular Expression Matching with a Trigram
Index", 2012). It may say that a text is there that is not, and never that one is not there that is. Numbers, times and
digests are left out, which would set most of the bits; a text that may be a part of one has to be looked for everywhere.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

BITS: Final = 16_384
"""Of a block. 256 events of agents set a tenth of them."""
ANYTHING: Final = bytes([255]) * (BITS // 8)
"""The marks of a block of which nobody can tell what it holds."""
_SHORTEST: Final = 3  # Bytes.
_OPAQUE: Final = re.compile(r"[0-9a-f]+|[0-9:.tz+-]+")  # In lower case, like all that is looked at.
_OF_OPAQUE: Final = re.compile(r"[0-9a-f:.tz+-]*")  # And of numbers, whose letter is an e.
_MULTIPLIER: Final = 2_654_435_761  # Knuth's for hashes of 32 bits, TAOCP 6.4: the golden ratio.
_SHIFT: Final = 32 - (BITS.bit_length() - 1)

_LONG: Final = 16  # Characters of a text that is looked at whether it is opaque.
_KEPT: Final = 200_000


class Texts:
    """The texts of some events, of which those that repeat are looked at once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def add(self, body: str) -> bool:
        """One more event, by what is stored of it.

        Returns:
            Whether its texts are known: False where the body is in an archive, or damaged.
        """
        data = parsed(body)
        if data is None:
            return False
        if "\\" in body:
            self._walk(data)
        else:
            self._seen.update(body.split('"')[1::2])  # Names of fields too: it may say too much.
        return True

    def marks(self) -> bytes:
        """``BITS`` bits, the first one the lowest of the first byte."""
        texts = {text.lower() for text in self._seen}
        opaque = [text for text in texts if len(text) >= _LONG and _OPAQUE.fullmatch(text)]
        return _marks("\0".join(texts.difference(opaque)))

    def _walk(self, value: Any) -> None:
        match value:
            case str():
                self._seen.add(value)
            case dict():
                self._seen.update(value)
                for inner in value.values():
                    self._walk(inner)
            case list():
                for inner in value:
                    self._walk(inner)
            case _:
                pass  # A number, or none.


class _Bits(dict[tuple[int, int, int], int]):
    """The bit of a trigram; those that were asked for are kept, which are few where texts are of one language."""

    def __missing__(self, trigram: tuple[int, int, int]) -> int:
        one, two, three = trigram
        bit = ((one << 16 | two << 8 | three) * _MULTIPLIER & 0xFFFFFFFF) >> _SHIFT
        if len(self) < _KEPT:
            self[trigram] = bit
        return bit


_bits = _Bits()


def _marks(text: str) -> bytes:
    marks = bytearray(BITS // 8)
    stored = text.encode(errors="surrogatepass")
    trigrams = set(zip(stored, stored[1:], stored[2:], strict=False))
    for bit in {_bits[trigram] for trigram in trigrams if 0 not in trigram}:  # A zero keeps texts apart.
        marks[bit >> 3] |= 1 << (bit & 7)
    return bytes(marks)


def asked(text: str) -> int | None:
    """The bits that a block has to have where one of its events holds a text, whatever the case of its letters.

    None where no block can be told from another by it.
    """
    return int.from_bytes(_marks(text.lower()), "little") if can_tell(text) else None


def can_tell(text: str) -> bool:
    """Whether blocks can be told from each other by a text."""
    text = text.lower()
    return not _OF_OPAQUE.fullmatch(text) and len(text.encode(errors="surrogatepass")) >= _SHORTEST


def may_hold(marks: bytes, wanted: int) -> bool:
    """Whether a block with these marks may hold what was asked for."""
    return int.from_bytes(marks, "little") & wanted == wanted


def tells(marks: bytes, more: bytes) -> bool:
    """Whether marks say all that others say."""
    return may_hold(marks, int.from_bytes(more, "little"))


def parsed(body: str) -> dict[str, Any] | None:
    """A body as parsed; None where it is in an archive, or damaged."""
    try:
        data = orjson.loads(body)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
