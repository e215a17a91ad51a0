"""What the debugger asks for by a line of text: where to go, what to look for, where to stop, what to show or take away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from parallel_agents.cli.debug_changes import ask_diff, ask_fork, roll_back
from parallel_agents.cli.debug_dialogs import Ask
from parallel_agents.cli.debug_finding import find
from parallel_agents.cli.debug_settling import settle

if TYPE_CHECKING:
    from parallel_agents.cli.debug_app import Debugger

_SUCH_AS: Final = "cost > 1.5, failed >= 2, status('NAME') == 'running'"


def _ask(app: Debugger, title: str, such_as: str, take: Callable[[str], None]) -> None:
    app.push_screen(Ask(title, such_as, take), lambda _: app.show_all())


def _go(app: Debugger) -> None:
    def take(text: str) -> None:
        app.session.go_to(text)
        app.follows = False
        app.say("")

    _ask(app, "Go to", "an event (412), +100, -30s, 50%, 14:30, '2 hours ago', a checkpoint, or words for one", take)


def _find(app: Debugger) -> None:
    _ask(
        app,
        "Find events that hold",
        "any text of theirs, whatever the case; n and N go on",
        lambda text: find(app, text),
    )


def _break(app: Debugger) -> None:
    such_as = f"TaskFailed, task NAME, conflict, or what comes to hold: {_SUCH_AS}; c runs on, C back"
    _ask(app, "Stop at", such_as, lambda text: app.say(f"c runs on to: {app.session.break_at(text).text}"))


def _watch(app: Debugger) -> None:
    _ask(app, "Watch", f"such as cost, or {_SUCH_AS}", lambda text: app.say(f"watched: {app.session.watch(text).text}"))


def _away(app: Debugger) -> None:
    app.action_pane("set")
    told = "a number or a letter of the pane at the right"
    _ask(app, "Take away", told, lambda text: app.say(f"taken away: {app.session.take_away(text)}"))


def _task(app: Debugger) -> None:
    def take(text: str) -> None:
        app.task_id = app.session.task_named(text)

    app.push_screen(Ask("Choose a task", "its id; t and T go to its changes", take), lambda _: app.show_pane())


def _mark(app: Debugger) -> None:
    def take(text: str) -> None:
        app.session.move_to(app.session.marked(text.strip()))

    there = ", ".join(app.session.marks) or "m sets one"
    _ask(app, "Go to mark", there, take)


ASKS: Final[dict[str, Callable[[Debugger], None]]] = {
    "go": _go, "find": _find, "break": _break, "watch": _watch, "away": _away, "task": _task, "mark": _mark,
    "diff": ask_diff, "fork": ask_fork, "back": roll_back, "settle": settle,
}  # fmt: skip
"""By the words of the key bindings."""
