"""Long lists for a terminal: only the lines in sight are ever made, so a hundred thousand scroll as ten do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from parallel_agents.cli.debug_keys import TABS

Draw = Callable[[int, int], Text]
"""Makes a line, given its number and the width that there is."""
_DRAWN = 500  # Lines that are kept as they were made.
_CHOSEN = Style(reverse=True, bold=True)


def as_shown(text: Text, app: App[Any]) -> Text:
    """The same text; where nobody wants colours, by its other signs alone: as grey, red and blue are too dark to be read."""
    if not app.no_color:
        return text
    bare = text.copy()
    bare.style = app.console.get_style(text.style).without_color
    bare.spans = [span._replace(style=app.console.get_style(span.style).without_color) for span in text.spans]
    return bare


class Lines(ScrollView, can_focus=True):
    """Lines that are made when they come into sight. A line's text is never read as markup."""

    DEFAULT_CSS = "Lines { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }"

    class Picked(Message):
        """A line was clicked."""

        def __init__(self, lines: Lines, number: int) -> None:
            super().__init__()
            self.lines = lines
            self.number = number

        @property
        def control(self) -> Lines:
            """Whose line it is."""
            return self.lines

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.count = 0
        self.chosen: int | None = None
        self._draw: Draw = lambda number, width: Text()
        self._drawn: dict[int, Text] = {}  # Lines as they were made last, by number.
        self._width = 0  # That they were made for.
        self._known: object = None
        self._base: Style | None = None
        self._texts: Sequence[Text] | None = None  # That are wrapped to the width.

    def show(self, count: int, draw: Draw, chosen: int | None = None, *, known: object = None) -> None:
        """Show so many lines, one of which may stand out; it comes into sight.

        Args:
            known: what all lines but the chosen ones depend on; where it is what it was, those that were made are still good.
        """
        kept = dict(self._drawn) if known is not None and known == self._known else {}
        for number in (self.chosen, chosen):
            kept.pop(-1 if number is None else number, None)
        self._texts, self._known = None, known
        self._set(count, draw, chosen, kept)

    def show_texts(self, texts: Sequence[Text], *, at_end: bool = False) -> None:
        """Show a few texts, wrapped where they are too long; the last of them in sight, where that is what people look for."""
        self._texts = texts
        self._wrap()
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)

    def _wrap(self) -> None:
        if self._texts is None:
            return
        width = max(10, self.scrollable_content_region.width)
        lines = [line for text in self._texts for line in text.wrap(self.app.console, width, tab_size=4)]
        self._known = None
        self._set(len(lines), lambda number, width: lines[number], None, {})

    def _set(self, count: int, draw: Draw, chosen: int | None, kept: dict[int, Text]) -> None:
        before = (self.count, self.scroll_offset.y, self._drawn, self.chosen)
        self.count, self._draw, self.chosen, self._drawn = count, draw, chosen, kept
        width = self.scrollable_content_region.width
        if before[0] != count:
            self.virtual_size = Size(width, count)
        if chosen is not None:
            self.bring_into_sight(chosen)
        elif self.scroll_offset.y > max(0, count - 1):
            self.scroll_to(y=0, animate=False, immediate=True)
        if before[:2] != (count, self.scroll_offset.y):
            self.refresh()
            return
        top = self.scroll_offset.y  # The same lines are in sight: to paint one costs ten times as much as to make it.
        for number in range(top, min(count, top + self.scrollable_content_region.height)):
            if self._line(number, width) != before[2].get(number) or (number == chosen) != (number == before[3]):
                self.refresh_line(number)
        if not count:
            self.refresh()

    def _line(self, number: int, width: int) -> Text:
        if width != self._width or len(self._drawn) > _DRAWN:
            self._width, self._drawn = width, {}
        found = self._drawn.get(number)
        if found is None:
            found = self._drawn[number] = as_shown(self._draw(number, width), self.app)
            found.no_wrap, found.end = True, ""
        return found

    def bring_into_sight(self, number: int) -> None:
        """Scroll as little as it takes."""
        height = max(1, self.scrollable_content_region.height)
        top = self.scroll_offset.y
        margin = min(2, (height - 1) // 2)
        if number < top + margin:
            top = max(0, number - margin)
        elif number >= top + height - margin:
            top = number - height + 1 + margin
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def on_resize(self, event: Resize) -> None:
        """The lines are made anew for the new width."""
        self._drawn = {}
        self._wrap()
        self.virtual_size = Size(self.scrollable_content_region.width, self.count)
        if self.chosen is not None:
            self.bring_into_sight(self.chosen)

    def notify_style_update(self) -> None:
        """The style beneath the lines is worked out once, and again after a change of it."""
        self._base = None
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """One line in sight."""
        width, number = self.scrollable_content_region.width, self.scroll_offset.y + y
        base = self._base = self._base or self.rich_style
        if number >= self.count:
            return Strip.blank(width, base)
        text = self._line(number, width)
        if number == self.chosen:  # In one piece: turned round, many colours are a patchwork.
            text = Text(text.plain, end="")
            base += _CHOSEN
        elif text.style:  # Rich leaves it to who prints a text.
            base += self.app.console.get_style(text.style)
        return Strip(Segment.apply_style(text.render(self.app.console), base)).adjust_cell_length(width, base)

    def on_click(self, event: Click) -> None:
        """Tell whoever shows the lines."""
        number = self.scroll_offset.y + event.y
        if 0 <= number < self.count:
            self.post_message(self.Picked(self, number))


class EventList(Lines):
    """The events; its arrows move the cursor of the whole."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "app.step(-1)", "Up", show=False),
        Binding("down,j", "app.step(1)", "Step", key_display="↑↓"),
        Binding("pageup", "app.page(-1)", "Page up", show=False),
        Binding("pagedown,space", "app.page(1)", "Page down", show=False),
        Binding("home", "app.end(False)", "First", show=False),
        Binding("end", "app.end(True)", "Last", show=False),
        Binding("left", "app.time(False)", "Back in time", show=False),
        Binding("right", "app.time(True)", "On in time", show=False),
    ]


class Resized(Message):
    """A widget has another width than its text was made for; it comes a moment after the screen's."""


class Head(Static):
    """The lines above the panes, which are cut to the width that there is."""

    def on_resize(self) -> None:
        """Another width."""
        self.post_message(Resized())


class TabBar(Static):
    """The names of the panes; a click shows one."""

    DEFAULT_CSS = """
    TabBar { link-style: none; link-background: transparent; link-style-hover: underline; link-color: $text; }
    """

    _told: Text | None = None

    def on_resize(self) -> None:
        """Another width."""
        self.post_message(Resized())

    def tell(self, shown: str, busy: bool) -> None:
        """Which one is shown, and whether its answer is still being made."""
        width = max(20, self.size.width)
        lines = [Text()]
        for number, name in enumerate(TABS, 1):
            tab = Text(f"{number % 10} {name}", style="bold reverse" if name == shown else "")
            tab.apply_meta({"@click": f"app.pane('{name}')"})
            if lines[-1].cell_len + tab.cell_len + 1 > width:
                lines.append(Text())
            lines[-1].append_text(tab).append(" ")
        lines[-1].append("…" if busy else " ", style="bold")
        if (told := Text("\n").join(lines)) != self._told:
            self.update(told, layout=len(lines) != self.size.height)
            self._told = told
