"""What the debugger asks: a line of text, a yes or no, and the page of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from parallel_agents import ParallelAgentsError
from parallel_agents.cli.debug_lists import Lines, as_shown
from parallel_agents.cli.drawing import one_line


class Ask(ModalScreen[bool]):
    """Asks for a line, and asks on while it makes no sense. Its answer is whether one was taken.

    Args:
        take: does something with the line; an error of ours is shown, and the line can be mended.
    """

    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 76; max-width: 100%; height: auto; border: round $primary; background: $surface; padding: 0 1; }
    Ask Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def __init__(self, title: str, such_as: str, take: Callable[[str], None], value: str = "") -> None:
        super().__init__()
        self._title, self._such_as, self._take, self._value = title, such_as, take, value

    def compose(self) -> ComposeResult:
        """A title, the line, and what is wrong with it."""
        with Vertical():
            yield Static(Text(self._title, style="bold"))
            yield Input(self._value, id="answer")
            yield Static(Text(self._such_as, style="dim"), id="wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take it, or say why not."""
        try:
            self._take(event.value)
        except ParallelAgentsError as error:
            said = Text(one_line(error.message), style="bold red")
            if error.hint:
                said.append(f"\n{one_line(error.hint)}", style="not bold default")
            self.query_one("#wrong", Static).update(as_shown(said, self.app))
            return
        self.dismiss(True)

    def action_leave(self) -> None:
        """Ask no more."""
        self.dismiss(False)


class Confirm(ModalScreen[bool]):
    """Shows what would be done, and asks whether to."""

    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: 90%; max-width: 100; height: 80%; border: round $warning; background: $surface; padding: 0 1; }
    Confirm Lines { height: 1fr; }
    Confirm Horizontal { height: 3; align: right middle; }
    Confirm Static { width: auto; }
    Confirm Button { margin-left: 2; min-width: 11; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, lines: Sequence[str | Text], question: str) -> None:
        super().__init__()
        self._lines = [line if isinstance(line, Text) else Text(one_line_kept(line)) for line in lines]
        self._question = question

    def compose(self) -> ComposeResult:
        """What would change, and two buttons."""
        with Vertical():
            yield Lines(id="preview")
            with Horizontal():
                yield Static(Text(f"{self._question} "))
                yield Button("Yes (y)", id="yes", variant="warning")
                yield Button("No (n)", id="no")

    def on_mount(self) -> None:
        """Nothing happens by a stray Enter."""
        self.query_one("#no", Button).focus()
        self.query_one(Lines).show_texts(self._lines)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """By mouse."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """By key."""
        self.dismiss(yes)


class Page(ModalScreen[None]):
    """Lines to read, until a key is pressed."""

    DEFAULT_CSS = """
    Page { align: center middle; }
    Page > Lines { width: 95%; height: 90%; border: round $primary; background: $surface; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "leave", "Leave")]

    def __init__(self, lines: Sequence[Text], title: str) -> None:
        super().__init__()
        self._lines, self._title = lines, title

    def compose(self) -> ComposeResult:
        """The lines alone."""
        yield Lines(id="page")

    def on_mount(self) -> None:
        """Shown once there is a width."""
        page = self.query_one(Lines)
        page.border_title, page.border_subtitle = Text(self._title).markup, "Esc closes"
        page.show_texts(self._lines)
        page.focus()

    def action_leave(self) -> None:
        """Back to the run."""
        self.dismiss(None)


def one_line_kept(text: str) -> str:
    """A line whose indentation stays, without anything that would move the cursor."""
    return " " * (len(text) - len(text.lstrip(" "))) + one_line(text)
