"""Two versions of a file beside each other, read from the text that a merge leaves between its marks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from rich.text import Text

from parallel_agents.cli.drawing import one_line

CONTEXT = 3  # Lines around a conflict that say where it is.
_NARROWEST = 20  # Characters of a column; where there is no room for two of them, marks are shown.


class Clash(NamedTuple):
    """One place where two sides say different things, with the lines before and after it that both have."""

    line: int  # Of the file with marks, from 1.
    before: list[str]
    ours: list[str]
    theirs: list[str]
    after: list[str]


def clashes(text: str) -> list[Clash]:
    """The conflicts of a text with marks, in order."""
    lines, found, begin = text.splitlines(), list[Clash](), None
    middle = 0
    for place, line in enumerate(lines):
        if line.startswith("<<<<<<<"):
            begin, middle = place, 0
        elif begin is not None and line == "=======" and not middle:
            middle = place
        elif begin is not None and middle and line.startswith(">>>>>>>"):
            found.append(
                Clash(
                    begin + 1, lines[max(0, begin - CONTEXT) : begin], lines[begin + 1 : middle],
                    lines[middle + 1 : place], lines[place + 1 : place + 1 + CONTEXT],
                )
            )  # fmt: skip
            begin = None
    return found


def side_by_side(text: str, width: int, ours: str, theirs: str) -> Iterator[Text]:
    """The conflicts of a text as two columns; the whole text where it has no marks or there is no room.

    Args:
        width: of the terminal, in characters.
        ours, theirs: headings.
    """
    column = (width - 3) // 2
    found = clashes(text)
    if not found or column < _NARROWEST:
        yield from (Text(one_line_kept(line)) for line in text.splitlines())
        return
    yield _row(Text(ours, style="bold cyan"), Text(theirs, style="bold magenta"), column)
    for clash in found:
        yield Text(f"@ line {clash.line}", style="dim")
        yield from (_both(line, column) for line in clash.before)
        for left, right in zip_longest(clash.ours, clash.theirs):
            yield _row(_cell(left, "cyan"), _cell(right, "magenta"), column)
        yield from (_both(line, column) for line in clash.after)


def one_line_kept(line: str) -> str:
    """A line without anything that would move the cursor, its indentation kept."""
    line = line.expandtabs(4)
    return " " * (len(line) - len(line.lstrip(" "))) + one_line(line)


def _cell(line: str | None, style: str) -> Text:
    return Text("", style=style) if line is None else Text(one_line_kept(line), style=style)


def _both(line: str, column: int) -> Text:
    cell = Text(one_line_kept(line), style="dim")
    return _row(cell, cell.copy(), column)


def _row(left: Text, right: Text, column: int) -> Text:
    for cell in (left, right):
        cell.truncate(column, overflow="ellipsis")
    return Text("").append_text(left).append(" " * (column - left.cell_len) + " │ ").append_text(right)
