"""Writing SVG: elements, text that is safe in it, colours for light and dark, and an axis of time. Pure.

A picture is text of its own: no script, no font and no address of anything else, so it looks the same in a browser, in a
README and in a mail. What is written for the same data is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from parallel_agents.eventstore.errors import NotAllowed

CHAR_PX: Final = 6.7  # About the width of a character of 12 px in the sans-serif fonts of browsers.
MOST_LABELLED: Final = 400  # Tasks; more of them are drawn small and without their names, which are in the tooltips.
TOLD_US: Final = 100_000  # What is shorter is not told of in words.
MOST: Final = 2000  # Tasks; a picture of more is nothing that anybody can look at.

# Fills and strokes by class: on light ground, on dark ground. The colours of attempts are those of Okabe & Ito (2008), which
# people who confuse red and green can tell apart.
COLOURS: Final[dict[str, tuple[str, str]]] = {
    "completed": ("#009e73", "#2bbd92"), "running": ("#0072b2", "#56b4e9"), "failed": ("#d55e00", "#f0803c"),
    "timed_out": ("#e69f00", "#f0b840"), "lost": ("#8c2d04", "#d98a63"), "cancelled": ("#cc79a7", "#dd9cc0"),
    "discarded": ("#999999", "#8b949e"), "blocked": ("#b8a900", "#f0e442"), "skipped": ("#bbbbbb", "#6e7681"),
    "pending": ("#dddddd", "#484f58"), "queued": ("#9ecae1", "#3b6a86"),
    "w-dependencies": ("#c4c9d0", "#454c56"), "w-stage": ("#a6b1c2", "#5d6b80"), "w-slot": ("#6fa8dc", "#4a86bd"),
    "w-files": ("#a78bda", "#9673d6"), "w-rest": ("#e3a35b", "#c98a43"), "w-provider": ("#e06c9f", "#d65c92"),
    "w-money": ("#d9b800", "#d9bd27"), "w-machine": ("#b5835a", "#b98b64"), "w-paused": ("#7f7f7f", "#a0a0a0"),
    "w-person": ("#e05252", "#ef6a6a"), "w-turn": ("#8fbf9f", "#5f9c77"),
}  # fmt: skip
_INKS: Final = {  # Of everything else: property, light, dark.
    "ground": ("fill", "#ffffff", "#0d1117"), "ink": ("fill", "#1f2328", "#e6edf3"), "dim": ("fill", "#59636e", "#9198a1"),
    "grid": ("stroke", "#d8dee4", "#2a313a"), "edge": ("stroke", "#8b949e", "#6e7681"), "path": ("stroke", "#111111", "#ffffff"),
    "tip": ("fill", "#8b949e", "#6e7681"), "path-tip": ("fill", "#111111", "#ffffff"), "mark": ("fill", "#cf222e", "#ff7b72"),
    "undo": ("stroke", "#cf222e", "#ff7b72"), "band": ("fill", "#f6f8fa", "#151b23"),
}  # fmt: skip


def check_size(tasks: int, what: str) -> None:
    """Refuse a picture that nobody could look at.

    Raises:
        NotAllowed: it has too many tasks.
    """
    if tasks > MOST:
        raise NotAllowed(
            f"a {what} of {tasks:,} tasks is no picture: at most {MOST:,} are drawn",
            hint="`parallel-agents export RUN --chrome FILE` writes it for a viewer that zooms",
        )


def number(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def clean(text: str) -> str:
    """Text without what XML cannot hold or what would move a cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def shortened(text: str, most: int) -> str:
    """Cut in its middle, because names begin and end with what tells them apart."""
    text = clean(text)
    if len(text) <= most:
        return text
    left = (most - 1) // 2
    return f"{text[: most - 1 - left]}…{text[len(text) - left :]}"


def element(name: str, attributes: Mapping[str, str | float], *inside: str) -> str:
    """One element. What is inside is XML already; values are text or numbers."""
    shown = "".join(
        f" {key}={quoteattr(clean(value) if isinstance(value, str) else number(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{shown}>{''.join(inside)}</{name}>" if inside else f"<{name}{shown}/>"


def words(text: str, x: float, y: float, kind: str = "ink", anchor: str = "start", *inside: str) -> str:
    """A line of text."""
    attributes: dict[str, str | float] = {"class": kind, "x": x, "y": y}
    if anchor != "start":
        attributes["text-anchor"] = anchor
    return element("text", attributes, escape(clean(text)), *inside)


def title(*lines: str) -> str:
    """A tooltip."""
    return f"<title>{escape(chr(10).join(clean(line) for line in lines if line))}</title>"


def box(kind: str, x: float, y: float, width: float, height: float, *inside: str, radius: float = 0) -> str:
    """A rectangle."""
    attributes: dict[str, str | float] = {"class": kind, "x": x, "y": y, "width": width, "height": height}
    return element("rect", attributes | ({"rx": radius} if radius else {}), *inside)


def line(kind: str, points: Sequence[tuple[float, float]], *inside: str) -> str:
    """A line through points."""
    drawn = " ".join(f"{'M' if index == 0 else 'L'}{number(x)} {number(y)}" for index, (x, y) in enumerate(points))
    return element("path", {"class": kind, "d": drawn}, *inside)


def document(width: float, height: float, heading: str, description: str, body: Sequence[str]) -> str:
    """A whole picture.

    Args:
        heading, description: for who cannot see it.
    """
    head = element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height,
            "viewBox": f"0 0 {number(width)} {number(height)}", "role": "img", "aria-labelledby": "t d",
        },
        "",
    ).removesuffix("</svg>")  # fmt: skip
    return "\n".join(
        [
            head, f'<title id="t">{escape(clean(heading))}</title>', f'<desc id="d">{escape(clean(description))}</desc>',
            f"<style>{_style()}</style>", box("ground", 0, 0, width, height), *body, "</svg>", "",
        ]
    )  # fmt: skip


def _style() -> str:
    light = [f".{name}{{fill:{colours[0]}}}" for name, colours in COLOURS.items()]
    dark = [f".{name}{{fill:{colours[1]}}}" for name, colours in COLOURS.items()]
    light += [f".{name}{{{what}:{colour}}}" for name, (what, colour, _) in _INKS.items()]
    dark += [f".{name}{{{what}:{colour}}}" for name, (what, _, colour) in _INKS.items()]
    shapes = [
        "text{font:12px sans-serif}", ".dim{font-size:11px}", ".h{font-size:15px;font-weight:bold}",
        ".grid,.edge,.path,.undo,.slot{fill:none}", ".path-tip{stroke:none}", ".grid{stroke-width:1}", ".edge{stroke-width:1.2}",
        ".path{stroke-width:2.5;stroke-linejoin:round}", ".slot{stroke-dasharray:5 4;stroke-width:1.3}",
        ".undo{stroke-width:1.5;stroke-dasharray:4 3}", ".undone{opacity:.35}", ".h,.b{font-weight:bold}",
        ".thin{stroke-width:1}",
    ]  # fmt: skip
    return "".join(["\n", *shapes, "\n", *light, "\n@media (prefers-color-scheme:dark){", *dark, "}\n"])


_STEPS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800,
    21600, 43200, 86400, 172800, 604800, 1209600,
)  # fmt: skip
"""Seconds between two marks of an axis: numbers that people count time in."""


def ticks(length_s: float, most: int) -> list[float]:
    """Marks of an axis that begins at 0, in seconds: as many as fit at a round distance, at least the first."""
    step: float = next((step for step in _STEPS if length_s <= step * most), 0.0)
    if not step:
        step = _STEPS[-1]
        while length_s > step * most:
            step *= 2
    return [step * index for index in range(int(length_s / step + 1e-9) + 1)]


def tick_text(seconds: float, step_s: float) -> str:
    """Such as 0.2 s, 5 min, 1:30 h, 2 d."""
    if seconds == 0:
        return "0"
    if step_s < 60 and seconds < 60:
        return f"{seconds:g} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}:{rest:02d}" if rest else f"{minutes} min"
    if seconds < 86400 or step_s < 86400:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours}:{rest:02d} h" if rest else f"{hours} h"
    return f"{seconds / 86400:g} d"


def span_text(length_us: int) -> str:
    """A duration as people say it: 0.4 s, 12.5 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    seconds = length_us / 1e6
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def money_text(usd_micros: int) -> str:
    """Money, to the hundredth of a cent where it is little."""
    value = usd_micros / 1e6
    return f"${value:.2f}" if value == 0 or value >= 1 else f"${value:.4f}"
