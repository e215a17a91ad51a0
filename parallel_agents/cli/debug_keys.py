"""The keys of the debugger and the words of its expressions, on one page."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from parallel_agents.expressions import CALLS, NAMES

_KEYS: Final = (
    ("go", (
        ("↓ ↑  j k", "to the next event, and back"),
        ("PgDn PgUp  Home End", "by a screen; to the first and the last event"),
        ("→ ←", "on and back in time; + and - make the step longer and shorter"),
        ("t T", "to the next change of the chosen task, and back; s or a click chooses one"),
        ("g", "go to an event (412), a time (14:30, '2 hours ago'), a checkpoint, +100, -30s, 50%"),
        ("/  n N", "find events that hold a text; the next of them, and back"),
        ("m  '", "mark this event; go to a mark"),
        ("f", "follow the run from its end on"),
    )),
    ("stop", (
        ("b", "stop at: TaskFailed (any type), task NAME, conflict, or an expression that comes to hold"),
        ("c C", "run on to where one is met, and back; Esc stops looking"),
        ("w", "watch an expression; a value that the event has changed stands out"),
        ("x", "take a breakpoint, a watch expression or a mark away"),
    )),
    ("change", (
        ("D", "compare two marks: tasks, cost, configuration, files"),
        ("R", "roll the run back to this event; what that changes is shown first"),
        ("F", "fork a new run from this event; what it begins with is shown first"),
    )),
    ("look", (
        ("1 … 0", "tasks, queue, cost, machine, conflicts, files, output, task, event, what is set"),
        ("Tab", "to the pane at the right and back, to scroll it"),
        ("?  q", "this page; leave"),
    )),
)  # fmt: skip


def _call(name: str) -> str:
    return f"{name}('TASK')"


def keys_page() -> list[Text]:
    """All keys, then all names that an expression may use."""
    lines: list[Text] = []
    for heading, keys in _KEYS:
        lines.append(Text(heading, style="bold"))
        lines += [Text().append(f"  {key:<20} ", style="cyan").append(what) for key, what in keys]
    lines += [Text(), Text("names in expressions", style="bold")]
    lines += [Text().append(f"  {name:<20} ", style="cyan").append(what) for name, (_, _, what) in NAMES.items()]
    lines.append(Text("of a task, by its id", style="bold"))
    lines += [Text().append(f"  {_call(name):<20} ", style="cyan").append(what) for name, (_, _, what) in CALLS.items()]
    lines.append(Text("  with and or not, < <= > >= == !=, in, + - * / // %, numbers, 'texts', None", style="dim"))
    return lines
