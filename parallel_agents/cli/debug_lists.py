"""Long lists for a terminal: only the lines in sight are ever made, so a hundred thousand scroll as ten do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

Draw = Callable[[int, int], Text]
"""Makes a line, given its number and the width that there is."""
_CHOSEN = Style(reverse=True, bold=True)


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
        self._texts: Sequence[Text] | None = None  # That are wrapped to the width.

    def show(self, count: int, draw: Draw, chosen: int | None = None) -> None:
        """Show so many lines, one of which may stand out; it comes into sight."""
        self._texts = None
        self._set(count, draw, chosen)

    def show_texts(self, texts: Sequence[Text]) -> None:
        """Show a few texts, wrapped where they are too long."""
        self._texts = texts
        self._wrap()

    def _wrap(self) -> None:
        if self._texts is None:
            return
        width = max(10, self.scrollable_content_region.width)
        lines = [line for text in self._texts for line in text.wrap(self.app.console, width, tab_size=4)]
        self._set(len(lines), lambda number, width: lines[number], None)

    def _set(self, count: int, draw: Draw, chosen: int | None) -> None:
        self.count, self._draw, self.chosen = count, draw, chosen
        self.virtual_size = Size(self.scrollable_content_region.width, count)
        if chosen is not None:
            self.bring_into_sight(chosen)
        elif self.scroll_offset.y > max(0, count - 1):
            self.scroll_to(y=0, animate=False, immediate=True)
        self.refresh()

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
        self._wrap()
        self.virtual_size = Size(self.scrollable_content_region.width, self.count)
        if self.chosen is not None:
            self.bring_into_sight(self.chosen)

    def render_line(self, y: int) -> Strip:
        """One line in sight."""
        width, number = self.scrollable_content_region.width, self.scroll_offset.y + y
        base = self.rich_style
        if number >= self.count:
            return Strip.blank(width, base)
        text = self._draw(number, width)
        if number == self.chosen:  # In one piece: turned round, many colours are a patchwork.
            text = Text(text.plain)
            base += _CHOSEN
        elif text.style:  # Rich leaves it to who prints a text.
            base += self.app.console.get_style(text.style)
        text.no_wrap, text.end = True, ""
        return Strip(Segment.apply_style(text.render(self.app.console), base)).adjust_cell_length(width, base)

    def on_click(self, event: Click) -> None:
        """Tell whoever shows the lines."""
        number = self.scroll_offset.y + event.y
        if 0 <= number < self.count:
            self.post_message(self.Picked(self, number))
