"""Screens that are kept as pictures: an SVG by Textual's own harness, compared cell by cell with the one that is kept.

What counts is what is seen: the sign in every cell, its colours and how it is written. How the file says so does not, so a
release of Rich that writes it otherwise changes nothing here. ``FREEZE=1`` in the environment keeps the screens of now.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

KEPT: Final = Path(__file__).parents[1] / "data" / "debug"
_CELL_WIDTH, _CELL_HEIGHT = 12.2, 24.4
_TOP: Final = 20  # Where the letters of the first line stand.
_STYLE: Final = re.compile(r"\.[\w-]+-(r\d+) \{ ([^}]*?) ?\}")
_TEXT: Final = re.compile(r'<text class="[\w-]+-(r\d+)" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>')
_GROUND: Final = re.compile(r'<rect fill="(#\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*crispEdges[^>]*/>')
_NAME: Final = re.compile(r"terminal-\d+")
# What shows nothing: fonts from elsewhere, and the edges of lines that nothing is longer than.
_NOTHING: Final = re.compile(
    r"""@font-face \{[^}]*\}\s*|<clipPath id="\S+-line-.*?</clipPath>\s*| clip-path="url\([^"]*-line-\d+\)\"""",
    re.DOTALL,
)
_SHOWN: Final = 12  # Lines that differ.


class Cell(NamedTuple):
    """One cell of a terminal. A space has the look of what is beneath it alone."""

    sign: str
    look: str  # As CSS.
    ground: str


def slim(svg: str) -> str:
    """The same picture, by names that do not depend on what it shows, a part a line."""
    return re.sub(r"(?<=/>)(?=<)|(?<=</text>)(?=<)", "\n", _NOTHING.sub("", _NAME.sub("debug", svg))).rstrip() + "\n"


def cells(svg: str, size: tuple[int, int]) -> list[list[Cell]]:
    """What is seen in each cell of a picture of a terminal of so many columns and lines."""
    width, height = size
    looks = dict(_STYLE.findall(svg))
    seen = [[Cell(" ", "", "")] * width for _ in range(height)]
    for colour, x, y, wide in _GROUND.findall(svg):
        row, column = round((float(y) - 1.5) / _CELL_HEIGHT), round(float(x) / _CELL_WIDTH)
        for at in range(column, min(width, column + round(float(wide) / _CELL_WIDTH))):
            seen[row][at] = Cell(" ", "", colour)
    for look, x, y, text in _TEXT.findall(svg):
        row, column = round((float(y) - _TOP) / _CELL_HEIGHT), round(float(x) / _CELL_WIDTH)
        for at, sign in enumerate(html.unescape(text).replace("\u00a0", " "), column):
            if at < width and row < height and sign != " ":
                seen[row][at] = Cell(sign, looks[look], seen[row][at].ground)
    return seen


def plain(svg: str, size: tuple[int, int]) -> str:
    """The signs of a picture, a line a row."""
    return "".join("".join(cell.sign for cell in row).rstrip() + "\n" for row in cells(svg, size))


def differences(kept: Sequence[Sequence[Cell]], now: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """What differs between two screens of one size: of a line its signs, or where those are the same, how they look."""
    for number, (before, after) in enumerate(zip(kept, now, strict=True), 1):
        columns = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        if not columns:
            continue
        yield f"line {number}, {_ranges(columns)}:"
        was, there = ("".join(cell.sign for cell in row).rstrip() for row in (before, after))
        if was != there:
            yield f"  kept |{was}\n  now  |{there}"
        else:
            one, other = before[columns[0]], after[columns[0]]
            yield f"  {one.sign!r} was {one.look or 'nothing'} on {one.ground or 'nothing'}"
            yield f"  {' ' * len(repr(one.sign))} is  {other.look or 'nothing'} on {other.ground or 'nothing'}"


def _ranges(columns: Sequence[int]) -> str:
    """Columns from 1 on, those in a row as one."""
    runs = [list(run) for _, run in groupby(enumerate(columns), lambda pair: pair[1] - pair[0])]
    said = [f"{run[0][1] + 1}" if len(run) == 1 else f"{run[0][1] + 1}-{run[-1][1] + 1}" for run in runs]
    return f"column{'' if len(columns) == 1 else 's'} {', '.join(said)}"


def check(name: str, svg: str, size: tuple[int, int], folder: Path) -> None:
    """Fail where a screen is not the one that is kept under a name.

    Args:
        folder: where the screen of now is left to be looked at.
    """
    kept, now = KEPT / f"{name}.svg", slim(svg)
    if os.environ.get("FREEZE"):
        kept.write_text(now, encoding="utf-8")
    said = [f"there is no {kept}"]
    if kept.exists():
        said = list(differences(cells(kept.read_text(encoding="utf-8"), size), cells(now, size)))
    if said:
        left = folder / f"{name}.svg"
        left.write_text(now, encoding="utf-8")
        more = [f"and {len(said) - 3 * _SHOWN} more lines of this"] if len(said) > 3 * _SHOWN else []
        where = f"kept: {kept}\nnow:  {left}\nFREEZE=1 in the environment keeps the screens of now."
        raise AssertionError("\n".join([f"the screen {name} is another one:", *said[: 3 * _SHOWN], *more, where]))
