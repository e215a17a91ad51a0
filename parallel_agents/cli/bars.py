"""A run as bars over time: for each task a line, its waits light and its attempts dark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.text import Text

from parallel_agents import look
from parallel_agents.cli import drawing

LEAST_WIDTH, MOST_WIDTH = 20, 100  # Of the bars, in characters.
_WAIT = "░"
_PARTS = " ▏▎▍▌▋▊▉█"  # Eighths of a character.
_STYLES = {
    "completed": "green",
    "running": "yellow",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "cancelled": "magenta",
    "discarded": "magenta",
}


def timeline_page(
    found: dict[str, Any], states: Mapping[str, str], spans: list[look.Span], now_us: int | None = None
) -> None:
    """Print the timeline of a run.

    Args:
        found: its status, as ``look.status`` gives it.
        spans: its attempts, as ``look.spans_of`` gives them; they are put into another order.
        now_us: the moment of the past that is shown.
    """
    from parallel_agents.cli.pages import head_line

    console = drawing.console()
    console.print(head_line(found, now_us))
    if not spans:
        console.print(Text("no attempt was started", style="dim"))
        return
    start_s = _stamp(found["started_at"]) if found["started_at"] else spans[0].started_at_us / 1e6
    end_s = max([span.ended_at_us / 1e6 for span in spans if span.ended_at_us is not None] + [_now(found, now_us)])
    first: dict[str, int] = {}  # By task: its place is that of its first attempt.
    for at, span in enumerate(spans):
        first.setdefault(span.task_id, at)
    spans.sort(key=lambda span: first[span.task_id])
    label = max(map(len, states))
    room = console.width if console.width < 1000 else 110
    width = max(LEAST_WIDTH, min(MOST_WIDTH, room - label - 24))
    scale = width / max(end_s - start_s, 1e-6)
    console.print(Text(" " * (label + 3)) + axis(end_s - start_s, width))

    def show(name: str, mine: Sequence[dict[str, Any]]) -> None:
        sign, style = drawing.SIGNS[states[name]]
        line = Text(sign, style=style) + Text(f" {name:<{label}} ", style="" if mine else "dim")
        line.append_text(bar(mine, start_s, end_s, scale, width))
        line.append_text(Text(" " + _remark(mine, states[name]), style="dim"))
        console.print(line, crop=True, no_wrap=True, overflow="ellipsis")

    for name, own in groupby(spans, lambda span: span.task_id):
        show(name, list(map(look.span_line, own)))
    for name in states:
        if name not in first:
            show(name, ())


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _now(found: dict[str, Any], now_us: int | None) -> float:
    if found["ended_at"]:
        return _stamp(found["ended_at"])
    running = found["counts"].get("running")
    return (time.time() if now_us is None else now_us / 1e6) if running else 0.0


def axis(length_s: float, width: int) -> Text:
    """A ruler with about one mark in twelve characters, at round seconds."""
    step = next((s for s in _STEPS if s * width / max(length_s, 1e-6) >= 10), _STEPS[-1])
    marks = [" "] * (width + 8)
    number = 0
    while (at := round(number * step * width / max(length_s, 1e-6))) <= width:
        for offset, char in enumerate("╵" + _mark(number * step)):
            if at + offset < len(marks):
                marks[at + offset] = char
        number += 1
    return Text("".join(marks).rstrip(), style="dim")


_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)


def _mark(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g}s"
    return f"{seconds / 60:g}m" if seconds < 3600 else f"{seconds / 3600:g}h"


def bar(spans: Sequence[dict[str, Any]], start_s: float, end_s: float, scale: float, width: int) -> Text:
    """One line of ``width`` characters; an attempt is shown by at least an eighth of one."""
    cells: list[tuple[str, str]] = [(" ", "")] * width
    for span in spans:
        began = (_stamp(span["started_at"]) - start_s) * scale
        ended = ((_stamp(span["ended_at"]) if span["ended_at"] else end_s) - start_s) * scale
        if span["queued_at"]:
            for cell in range(max(0, int((_stamp(span["queued_at"]) - start_s) * scale)), min(width, int(began))):
                cells[cell] = (_WAIT, "dim")
        style = "dim strike" if span["undone"] else _STYLES.get(span["outcome"], "")
        first, last = int(began), min(width - 1, int(ended))
        first = min(first, width - 1)
        for cell in range(first, last + 1):
            part = 8 if cell < last else max(1, round((ended - last) * 8)) if ended < width else 8
            cells[cell] = (_PARTS[min(8, part)], style)
    line = Text()
    for char, style in cells:
        line.append(char, style=style)
    return line


def _remark(spans: Sequence[dict[str, Any]], status: str) -> str:
    if not spans:
        return status
    took = drawing.duration(spans[-1]["duration_s"])
    tries = f", {len(spans)} tries" if len(spans) > 1 else ""
    return (took or status) + tries
