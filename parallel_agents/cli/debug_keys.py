"""The keys of the debugger and the words of its expressions, on one page."""

from __future__ import annotations

from typing import Final

from rich.text import Text
from textual.binding import Binding, BindingType

from parallel_agents.debugger.expressions import CALLS, NAMES

TABS: Final = ("tasks", "queue", "cost", "machine", "conflicts", "files", "output", "task", "event", "set")
"""The panes, in the order of their digits."""

BINDINGS: Final[list[BindingType]] = [
    Binding("t", "task(True)", "Task"),
    Binding("T", "task(False)", "Task before", show=False),
    Binding("c", "run_on(True)", "Run"),
    Binding("C", "run_on(False)", "Run back", show=False),
    Binding("b", "ask('break')", "Break"),
    Binding("g", "ask('go')", "Go"),
    Binding("slash", "ask('find')", "Find", key_display="/"),
    Binding("n", "hit(True)", "Next", show=False),
    Binding("N", "hit(False)", "Before", show=False),
    Binding("f", "follow", "Follow"),
    Binding("R", "ask('back')", "Back"),
    Binding("F", "ask('fork')", "Fork"),
    Binding("question_mark", "keys", "Keys", key_display="?"),
    Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
    Binding("m", "mark", "Mark"),
    Binding("apostrophe", "ask('mark')", "To mark", show=False),
    Binding("S", "ask('settle')", "Settle"),
    Binding("D", "ask('diff')", "Diff"),
    Binding("w", "ask('watch')", "Watch"),
    Binding("x", "ask('away')", "Take away"),
    Binding("s", "ask('task')", "Choose task", show=False),
    Binding("plus", "time_step(1)", "Longer", show=False),
    Binding("minus", "time_step(-1)", "Shorter", show=False),
    *(Binding(str(number % 10), f"pane('{name}')", name, show=False) for number, name in enumerate(TABS, 1)),
    Binding("escape", "stop", "Stop", show=False),
]
"""Of the whole screen; what a narrow one has no room for comes last."""

_KEYS: Final = (
    ("go", (
        ("↓ ↑  j k", "to the next event, and back"),
        ("PgDn PgUp", "by a screen; Home and End go to an end"),
        ("→ ←", "on and back in time; + and - change how far"),
        ("t T", "to the next change of the chosen task, and back"),
        ("s", "choose a task, as a click on it does"),
        ("g", "go to an event (412), a time (14:30, '2 hours ago'),"),
        ("", "a checkpoint, +100, -30s, 50%"),
        ("/  n N", "find events that hold a text; the next, and back"),
        ("m  '", "mark this event; go to a mark"),
        ("f", "follow the run from its end on, or no more"),
    )),
    ("stop", (
        ("b", "stop at: TaskFailed (any type), task NAME, conflict,"),
        ("", "or an expression that comes to hold"),
        ("c C", "run on to where one is met, and back; Esc stops"),
        ("w", "watch an expression; changes stand out"),
        ("x", "take a breakpoint, a watch or a mark away"),
    )),
    ("change", (
        ("D", "compare two marks: tasks, cost, files"),
        ("R", "roll the run back to this event; shown first"),
        ("F", "fork a new run from this event; shown first"),
        ("S", "settle a conflict that waits now; shown first"),
    )),
    ("look", (
        ("1 … 0", "the panes; Tab goes to the pane, to scroll it"),
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
        lines += [Text().append(f"  {key:<16} ", style="cyan").append(what) for key, what in keys]
    lines += [Text(), Text("names in expressions", style="bold")]
    lines += [Text().append(f"  {name:<16} ", style="cyan").append(what) for name, (_, _, what) in NAMES.items()]
    lines.append(Text("of a task, by its id", style="bold"))
    lines += [Text().append(f"  {_call(name):<16} ", style="cyan").append(what) for name, (_, _, what) in CALLS.items()]
    lines.append(Text("  with and or not, < <= > >= == !=, in, + - * / // %, numbers, 'texts', None", style="dim"))
    return lines
