"""How things look: colours and signs of states, tables, times. Rich does the drawing, and is imported with this."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import IO, Any

from rich.console import Console
from rich.text import Text

SIGNS = {
    "pending": ("·", "dim"),
    "queued": ("○", "blue"),
    "running": ("●", "bold yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "cancelled": ("⊘", "magenta"),
    "skipped": ("↷", "dim"),
    "blocked": ("◆", "bold magenta"),
    "submitted": ("○", "blue"),
    "paused": ("‖", "bold magenta"),
}
_WIDE = 10_000  # Where nobody looks, nothing is cut or wrapped.


def console(file: IO[str] | None = None) -> Console:
    """A console on stdout (or ``file``): coloured and as wide as the terminal, plain and endless elsewhere."""
    out = file or sys.stdout
    on_terminal = out.isatty()
    width = None if on_terminal else _WIDE  # Rich asks the terminal, also where stdout is not the one.
    plain = not on_terminal or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return Console(file=out, width=width, no_color=plain, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(*what: Text | str | Sequence[Text]) -> None:
    """Print lines to stdout; without the spaces at their ends that nobody sees, and no line is broken or cut here."""
    target = console()
    lines = [line for part in what for line in ([part] if isinstance(part, Text | str) else part)]
    if target.is_terminal and not target.no_color:
        for line in lines:
            target.print(line, soft_wrap=True)
        return
    plain = (line if isinstance(line, str) else line.plain for line in lines)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in plain))


def state_text(status: str) -> Text:
    """A state with its sign and colour."""
    sign, style = SIGNS.get(status, ("?", ""))
    return Text(f"{sign} {status}", style=style)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()) -> list[Text]:
    """A table without rules, a line each. (Rich's own takes a second for two thousand rows.)

    Args:
        headings: one a column; the one that ends in ``…`` is cut where the terminal is narrow. All empty: no heading.
        rows: texts, ``Text`` or numbers; None is shown as a dash.
        right: the columns that hold numbers.
    """
    numbers = set(right)
    cells = [[_cell(value) for value in row] for row in rows]
    names = [Text(heading.rstrip("…"), style="bold") for heading in headings]
    if any(names):
        cells.insert(0, names)
    return _lines(headings, cells, _widths(headings, cells), numbers)


def long_table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()
) -> Iterator[list[Text]]:
    """The same in parts, for rows that may be very many: each is as wide as what has come so far."""
    numbers, left = set(right), iter(rows)
    names = [Text(heading.rstrip("…"), style="bold") for heading in headings]
    widths = [name.cell_len for name in names]
    cells = [names]
    while True:
        cells += [[_cell(value) for value in row] for row in islice(left, _PART)]
        if not cells:
            return
        widths = list(map(max, widths, _widths(headings, cells)))
        yield _lines(headings, cells, widths, numbers)
        cells = []


_PART = 1000  # Rows of a long table.


def _widths(headings: Sequence[str], cells: Sequence[Sequence[Text]]) -> list[int]:
    return [max((row[index].cell_len for row in cells), default=0) for index in range(len(headings))]


def _lines(
    headings: Sequence[str], cells: Sequence[Sequence[Text]], widths: Sequence[int], numbers: Container[int]
) -> list[Text]:
    others = sum(width for width, heading in zip(widths, headings, strict=True) if not heading.endswith("…"))
    room = max(8, console().width - others - 2 * (len(headings) - 1))
    lines = []
    for row in cells:
        line = Text()
        for index, (cell, heading) in enumerate(zip(row, headings, strict=True)):
            width = min(widths[index], room) if heading.endswith("…") else widths[index]
            gap = width - cell.cell_len
            if gap < 0:
                cell.truncate(width, overflow="ellipsis")
                gap = 0
            line.append("  " if index else "").append(" " * gap if index in numbers else "").append_text(cell)
            line.append("" if index in numbers else " " * gap)
        lines.append(line)
    return lines


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("–", style="dim") if value is None or value == "" else Text(one_line(str(value)))


def one_line(text: str) -> str:
    """The text without anything that would move the cursor."""
    if text.isprintable():
        return text.strip()
    return "".join(char if char.isprintable() else " " for char in text).strip()


def duration(seconds: float | None) -> str | None:
    """A duration as people say it: 0.4 s, 12.5 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def local_time(text: str | None, *, precise: bool = False) -> str | None:
    """An RFC 3339 time as local time: the time of day, with the date where it is another day."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text).astimezone()
    clock = moment.strftime("%H:%M:%S") + (f".{moment.microsecond // 1000:03d}" if precise else "")
    return clock if moment.date() == datetime.now().astimezone().date() else f"{moment:%Y-%m-%d} {clock}"


def size(count: int) -> str:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError(count)


def counts_text(counts: dict[str, int], total: int) -> Text:
    """Such as ``5/7 completed, 1 failed, 1 skipped``."""
    parts = [Text(f"{counts.get('completed', 0)}/{total} completed", style="green" if counts.get("completed") else "")]
    parts += [Text(f"{number} {status}", style=SIGNS[status][1]) for status, number in counts.items()
              if number and status != "completed"]  # fmt: skip
    return Text(", ").join(parts)


def dollars(value: float) -> str:
    """Money, to the hundredth of a cent where it is little."""
    return f"${value:.2f}" if value == 0 or value >= 1 else f"${value:.4f}"


def as_json(value: Any) -> str:
    """A value of the configuration, on one line."""
    return json.dumps(value, ensure_ascii=False)
