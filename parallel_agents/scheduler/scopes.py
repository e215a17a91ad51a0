"""Whether two tasks mean to change the same file, by the globs that they declare. Pure: no file is looked at.

Within a part of a path ``*`` stands for any characters, ``?`` for one, ``[abc]``, ``[a-c]`` and ``[!abc]`` for one of
a set; ``**`` as a part of its own stands for any number of parts, none included. A last part without any of these names
a file or a folder, so it stands for all that lies below as well, and so does every glob that ends in a slash. Upper and
lower case differ. A name such as ``[id]`` is taken both ways: as a set and as it is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

Ranges = tuple[tuple[int, int], ...]
"""The characters that one place may hold: first and last code points, ascending and apart from each other."""
Reading = tuple[Ranges | None, ...]
"""A part of a path, place by place; None is ``*``."""
Part = tuple[Reading, ...]
"""All that a part can be understood as."""

_T = TypeVar("_T")
_ANY: Ranges = ((0, sys.maxunicode),)
_MAGIC = frozenset("*?[")


def meet(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether some path could match both a glob of ``a`` and a glob of ``b``.

    Args:
        a, b: globs, all relative to the same folder.
    Returns:
        True wherever such a path can exist; what matches nothing meets nothing.
    """
    return any(_pair_meets(one, other) for one in a for other in b)


@lru_cache(maxsize=16384)  # A tick asks about the same pairs as the one before.
def _pair_meets(a: str, b: str) -> bool:
    return a == b or _join(_parts(a), _parts(b), _parts_meet)


@lru_cache(maxsize=16384)
def _parts(glob: str) -> tuple[Part | None, ...]:
    """A glob part by part; None is ``**``."""
    names = [name for name in glob.split("/") if name not in ("", ".")]
    if not names or glob.endswith("/") or not _MAGIC & set(names[-1]):
        names.append("**")
    return tuple(None if name == "**" else _part(name) for name in names)


def _part(name: str) -> Part:
    places: list[Ranges | None] = []
    is_set = False
    index = 0
    while index < len(name):
        char = name[index]
        index += 1
        if char == "*":
            places.append(None)
        elif char == "?":
            places.append(_ANY)
        elif char == "[" and (end := _end_of_set(name, index)):
            places.append(_set(name[index:end]))
            index = end + 1
            is_set = True
        else:
            places.append(((ord(char), ord(char)),))
    written = tuple(((ord(char), ord(char)),) for char in name)
    return (tuple(places), written) if is_set else (tuple(places),)


def _end_of_set(name: str, start: int) -> int:
    """Where the set that begins at ``start`` ends, or 0: then its bracket stands for itself."""
    first = start + 1 if name[start : start + 1] in ("!", "^") else start
    return max(0, name.find("]", first + 1))  # A bracket that comes first is a member.


def _set(text: str) -> Ranges:
    without = text[0] in "!^"
    members = text[1:] if without else text
    found: list[tuple[int, int]] = []
    index = 0
    while index < len(members):
        if members[index + 1 : index + 2] == "-" and index + 2 < len(members):
            found.append((ord(members[index]), ord(members[index + 2])))
            index += 3
        else:
            found.append((ord(members[index]), ord(members[index])))
            index += 1
    ranges = tuple(sorted((first, last) for first, last in found if first <= last))
    return _all_but(ranges) if without else ranges


def _all_but(ranges: Ranges) -> Ranges:
    rest = []
    start = 0
    for first, last in ranges:
        if start < first:
            rest.append((start, first - 1))
        start = max(start, last + 1)
    return (*rest, (start, sys.maxunicode)) if start <= sys.maxunicode else tuple(rest)


def _parts_meet(a: Part, b: Part) -> bool:
    return a == b or any(_join(one, other, _places_meet) for one in a for other in b)


def _places_meet(a: Ranges, b: Ranges) -> bool:
    return any(first <= other_last and other_first <= last for first, last in a for other_first, other_last in b)


def _join(a: Sequence[_T | None], b: Sequence[_T | None], alike: Callable[[_T, _T], bool]) -> bool:
    """Whether one sequence fits two patterns in which None stands for any number of items.

    The pairs of places that can be reached in both patterns at once are walked through, each one once.
    """
    seen = {(0, 0)}
    reached = [(0, 0)]
    while reached:
        i, j = reached.pop()
        if i == len(a) and j == len(b):
            return True
        one = a[i] if i < len(a) else None
        other = b[j] if j < len(b) else None
        steps = []
        if i < len(a) and one is None:
            steps.append((i + 1, j))
            if j < len(b):
                steps.append((i, j + 1))
        if j < len(b) and other is None:
            steps.append((i, j + 1))
            if i < len(a):
                steps.append((i + 1, j))
        if one is not None and other is not None and alike(one, other):
            steps.append((i + 1, j + 1))
        new = [step for step in steps if step not in seen]
        seen.update(new)
        reached += new
    return False
