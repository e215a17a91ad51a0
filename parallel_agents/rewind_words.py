"""Words compared as people mean them: by stem, with near misses, and whether or not they are written together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

SAME, NEAR = 1.0, 0.75  # How well two words fit.
_WORD = re.compile(r"[^\W_]+")
_VOWEL = re.compile(r"[aeiouy]")
_SHORTEST_TYPED_WRONG = 5  # Letters; among shorter words a single letter makes another word.
_FORGIVES_TWO = 9


def words(text: str) -> list[str]:
    """The words of a text in lower case: ``fix_bug in API-client`` is fix, bug, in, api, client."""
    return _WORD.findall(text.casefold())


FILLERS = frozenset(
    words(
        "a an and as at been began begun by checkpoint checkpoints did do done everything files for from had has have i in"
        " into is it made my of on our point right snapshot started state that the there this to version was we were when"
        " where with work"
    )
)
"""Said around what is meant, and meaning nothing by themselves."""


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """What the forms of an English word have together: fix, fixes, fixed and fixing are all ``fix``.

    A handful of endings, after the first steps of Porter's algorithm (An algorithm for suffix stripping, 1980): both sides
    of a comparison are cut alike, so a stem need not be a word.
    """
    if word.isdigit() or len(word) < 4:
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif re.search(r"(?:ss|sh|ch|x|z)es$", word):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and _VOWEL.search(rest):
            word = rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
            break
    for ending in ("ment", "ion", "e"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 4 and (ending != "ion" or rest[-1] in "st"):
            return rest
    return word


@lru_cache(maxsize=1 << 16)
def likeness(one: str, other: str) -> float:
    """How well two words fit: SAME by their stems, NEAR for a likely slip of the hand, else 0."""
    if one == other or stem(one) == stem(other):
        return SAME
    if one.isdigit() or other.isdigit() or min(len(one), len(other)) < _SHORTEST_TYPED_WRONG:
        return 0.0
    allowed = 2 if min(len(one), len(other)) >= _FORGIVES_TWO else 1
    return NEAR if slips(one, other, allowed) <= allowed else 0.0


def slips(one: str, other: str, most: int) -> int:
    """How many letters were left out, added, mistaken or swapped with their neighbour; more than ``most`` is most + 1.

    Source: optimal string alignment, after Damerau 1964.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        last, before, row = before, row, [i]
        for j, found in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != found))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == found:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def fit(asked: Sequence[str], text: Sequence[str]) -> float:
    """Which share of the words asked for a text holds, near misses counting less: 1.0 is all of them."""
    if not asked:
        return 0.0
    found = [max((likeness(word, other) for other in text), default=0.0) for word in asked]
    if min(found) < SAME:
        _try_together(asked, text, found)
    return sum(found) / len(asked)


def _try_together(asked: Sequence[str], text: Sequence[str], found: list[float]) -> None:
    """Two words that the other side writes as one: ``bug fix``, or a fix of bugs, and ``bugfix``."""
    joined = {one for pair in pairwise(text) for one in _joined(*pair)}
    whole = {stem(word) for word in text}
    for place, word in enumerate(asked):
        if stem(word) in joined:
            found[place] = SAME
    for place, pair in enumerate(pairwise(asked)):
        if whole & _joined(*pair):
            found[place] = found[place + 1] = SAME


def _joined(first: str, second: str) -> set[str]:
    return {stem(stem(first) + second), stem(stem(second) + first)}
