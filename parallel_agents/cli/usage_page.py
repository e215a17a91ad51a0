"""What an attempt has used over time, drawn: a line for each measure, as high as its share of the peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.bars import axis

_HEIGHTS = "▁▂▃▄▅▆▇█"
_LEAST_WIDTH, _MOST_WIDTH = 10, 100
_MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("cpu", "cpu_percent", lambda value: f"{value:.0f} % of the machine"),
    ("memory", "memory_bytes", lambda value: drawing.size(round(value))),
    ("open files", "open_files", lambda value: f"{value:,.0f}"),
    ("written", "disk_written_bytes", lambda value: drawing.size(round(value))),
)
_LABEL = max(len(name) for name, _, _ in _MEASURES)
_PEAK = len("  up to 100 % of the machine")


def usage_page(found: dict[str, Any]) -> None:
    """Print what ``usage_over_time`` gives."""
    points = found["points"]
    if found["attempt_id"] is None:
        drawing.show(Text(f"task {found['task_id']} has not been started yet", style="dim"))
        return
    head = Text.assemble((found["task_id"], "bold"), f"  attempt {found['attempt']}", (f"  {found['run_id']}", "dim"))
    if not points:
        drawing.show(head, Text("nothing was sampled: it was too short, or its samples are gone", style="dim"))
        return
    console = drawing.console()
    room = console.width if console.width < 1000 else 110
    width = max(_LEAST_WIDTH, min(_MOST_WIDTH, room - _LABEL - 1 - _PEAK))
    begun_us = points[0]["at_us"] - round(points[0]["span_s"] * 1e6)
    length_s = max((points[-1]["at_us"] - begun_us) / 1e6, 1.0)
    lines = [head, Text(" " * (_LABEL + 1)).append_text(axis(length_s, width))]
    for name, field, said in _MEASURES:
        values = resampled(points, field, begun_us, length_s, width)
        peak = max(point[field] for point in points)
        line = Text.assemble((f"{name:<{_LABEL}} ", "dim"), (drawn(values, peak), "green"), f"  up to {said(peak)}")
        lines.append(line)
    drawing.show(lines)


def resampled(
    points: Sequence[dict[str, Any]], field: str, begun_us: int, length_s: float, width: int
) -> list[float | None]:
    """The most that was seen in each of ``width`` spans of the same length; None where nothing was sampled.

    Args:
        begun_us: the beginning of the first span, ``length_s`` that of all together.
    """
    found: list[float | None] = [None] * width
    for point in points:
        end = (point["at_us"] - begun_us) / 1e6 * width / length_s
        first = max(0, min(width - 1, int(end - point["span_s"] * width / length_s)))
        for cell in range(first, max(first, min(width - 1, int(end - 1e-9))) + 1):
            before = found[cell]
            found[cell] = point[field] if before is None else max(before, point[field])
    return found


def drawn(values: Sequence[float | None], peak: float) -> str:
    """A character for each value."""
    last = len(_HEIGHTS) - 1
    return "".join(
        " " if value is None else _HEIGHTS[round(value / peak * last) if peak else 0] for value in values
    ).rstrip()
