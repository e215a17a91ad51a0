"""The debugger on a terminal: events at the left, at the right the run as it was at the cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.timer import Timer
from textual.widgets import Footer, Static

from parallel_agents import ParallelAgentsError
from parallel_agents.cli import debug_picture as picture
from parallel_agents.cli.debug_asking import ASKS
from parallel_agents.cli.debug_dialogs import Page
from parallel_agents.cli.debug_finding import stop_finding
from parallel_agents.cli.debug_keys import BINDINGS, keys_page
from parallel_agents.cli.debug_lists import EventList, Head, Lines, TabBar, as_shown
from parallel_agents.cli.debug_panes import PANES, Asked, answer
from parallel_agents.cli.drawing import duration, one_line
from parallel_agents.debugger.debugging import TIME_STEPS_S, Debugging

POLL_S: Final = 0.25  # Between two looks for what was appended: the truth is in the log, and a look costs 0.1 ms.
_REST_S: Final = 0.06  # For which the cursor has to rest before a pane asks the log or git.
_WIDE: Final = 110  # Columns from which on the events get more than a third.


class Debugger(App[None]):
    """Shows one run.

    Args:
        session: the run and the cursor.
        own_log: opens the log that a fork of an imported run belongs to; None where that is the log itself.
        project: where files are taken back.
    """

    TITLE = "parallel-agents debug"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #body { height: 1fr; }
    #events { width: 2fr; border-right: vkey $primary; }
    #right { width: 3fr; padding: 0 0 0 1; }
    Screen.-wide #events { width: 1fr; }
    Screen.-wide #right { width: 1fr; }
    #head { height: 4; }
    #watches { height: auto; max-height: 6; }
    #tabs { height: auto; color: $text; border-top: solid $primary; }
    #pane { height: 1fr; }
    #remark { height: auto; max-height: 3; display: none; background: $boost; }
    #remark.-shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(
        self,
        session: Debugging,
        *,
        project: Any = None,
        own_log: Callable[[], Any] | None = None,
        follows: bool = False,
    ) -> None:
        super().__init__()
        self.session = session
        self.project = project
        self.own_log = own_log
        self.follows = follows
        self.tab = "tasks"
        self.task_id: str | None = session.task_before()
        self._step_s = 1
        self._order: list[str] = []
        self._timer: Timer | None = None
        self._asking: tuple[str, int, str | None] | None = None  # What the thread is busy with.
        self._answered: tuple[str, int, str | None] | None = None
        self._searching = False
        self._stop = False
        self.finding = ""  # The text that a thread looks for.
        self.failure: ParallelAgentsError | None = None  # Why it ended by itself.
        self._printed_s = 0.0  # When an output was looked at again.
        self._said = ""  # Above the keys.

    def compose(self) -> ComposeResult:
        """Two halves, and the keys below."""
        with Horizontal(id="body"):
            yield EventList(id="events")
            with Vertical(id="right"):
                yield Head(id="head")
                yield Static(id="watches")
                yield TabBar(id="tabs")
                yield Lines(id="pane")
        yield Static(id="remark")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begin at the cursor."""
        self.query_one("#events", EventList).focus()
        self.set_interval(POLL_S, self.look_for_more)
        self.call_after_refresh(self.show_all)

    def on_resize(self, event: Resize) -> None:
        """Another share for the events where there is room."""
        self.screen.set_class(event.size.width >= _WIDE, "-wide")
        self.call_after_refresh(self.show_all)

    def on_resized(self) -> None:
        """What is cut to a width is cut anew."""
        self.show_head()
        self.show_tabs()

    @property
    def is_idle(self) -> bool:
        """Whether everything that can be shown of the cursor is shown."""
        return (
            not self._searching
            and not self.finding
            and self._asking is None
            and (self.tab not in PANES or self._answered == self._wanted())
        )

    # The picture.

    def show_all(self) -> None:
        """Draw everything for the cursor."""
        session = self.session
        self.task_id = session.task_here() or self.task_id
        events = self.query_one("#events", EventList)
        known = (len(session.tape), dict(session.marks), list(session.breakpoints), events.size.width)
        events.show(len(session.tape), partial(picture.event_line, session), session.position, known=known)
        self.show_head()
        self.show_pane()

    def show_head(self) -> None:
        """The four lines, and the watch expressions."""
        head = self.query_one("#head", Static)
        told = picture.head_lines(self.session, max(10, head.size.width), "following" if self.follows else "")
        head.update(as_shown(told, self), layout=False)
        watches = self.query_one("#watches", Static)
        watches.display = bool(self.session.watches)
        if self.session.watches:
            told = picture.watch_lines(self.session.watched(), max(10, head.size.width))
            watches.update(as_shown(told, self), layout=len(self.session.watches) != watches.size.height)

    def show_pane(self) -> None:
        """The pane that was chosen: at once, or once a thread has its answer."""
        pane, session = self.query_one("#pane", Lines), self.session
        if self.tab in PANES:
            self._ask_soon()
        elif self.tab == "tasks":
            if len(self._order) != len(session.frame.state.tasks):
                self._order = picture.in_order(session)
            order = self._order
            chosen = order.index(self.task_id) if self.task_id in order else None
            pane.show(len(order), lambda number, width: picture.task_line(session, order[number], width), chosen)
        elif self.tab == "event":
            pane.show_texts(picture.event_texts(session))
        else:
            pane.show_texts(picture.set_texts(session))
        self.show_tabs()

    def show_tabs(self) -> None:
        """The names of the panes."""
        self.query_one("#tabs", TabBar).tell(self.tab, self._asking is not None)

    def _wanted(self) -> tuple[str, int, str | None]:
        return self.tab, self.session.position, self.task_id

    def _ask_soon(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_REST_S, self._ask_now)

    def _ask_now(self) -> None:
        """Let a thread find the answer; one at a time, and always the last one that is wanted."""
        self._timer = None
        wanted = self._wanted()
        if self._asking is not None or self.tab not in PANES or self._answered == wanted:
            return
        session, position = self.session, self.session.position
        before = session.frames.at(position - 1).state if position else None
        frame = session.frame
        is_now = position == session.last
        asked = Asked(
            session.log, session.run_id, session.seq, session.tape.at_us[position], frame.state, before, frame.cost,
            self.task_id, is_now,
        )  # fmt: skip
        self._asking = wanted
        self.query_one("#tabs", TabBar).tell(self.tab, True)
        self.run_worker(lambda: self._find(wanted, asked), thread=True, group="pane")

    def _find(self, wanted: tuple[str, int, str | None], asked: Asked) -> None:
        lines = answer(wanted[0], asked)
        self.call_from_thread(self._found, wanted, lines)

    def _found(self, wanted: tuple[str, int, str | None], lines: list[Text]) -> None:
        self._asking = None
        if self.tab == wanted[0]:
            self._answered = wanted
            self.query_one("#pane", Lines).show_texts(lines, at_end=self.tab == "output")
            self.query_one("#tabs", TabBar).tell(self.tab, False)
        if self.tab in PANES and self._wanted() != wanted:
            self._ask_soon()

    def say(self, text: str, *, error: bool = False) -> None:
        """A line above the keys; an empty one takes it away."""
        if not text and not self._said:
            return
        self._said = text
        remark = self.query_one("#remark", Static)
        remark.update(as_shown(Text(f" {one_line(text)}", style="bold red" if error else "bold"), self))
        remark.set_class(bool(text), "-shown")

    def complain(self, error: ParallelAgentsError) -> None:
        """An error of ours, where the cursor stays where it is."""
        self.say(f"{error.message}: {error.hint}" if error.hint else error.message, error=True)

    # Moving.

    def moved(self, move: Callable[[], Any]) -> None:
        """Move the cursor, and draw it there."""
        try:
            move()
        except ParallelAgentsError as error:
            self.complain(error)
            return
        self.say("")
        self.follows = self.follows and self.session.position == self.session.last
        self.show_all()

    def action_step(self, by: int) -> None:
        """By events."""
        self.moved(lambda: self.session.move_to(self.session.position + by))

    def action_page(self, by: int) -> None:
        """By what is in sight."""
        self.action_step(by * max(1, self.query_one("#events", Lines).size.height - 1))

    def action_end(self, last: bool) -> None:
        """To the first event or to the last one."""
        self.moved(lambda: self.session.move_to(self.session.last if last else 0))

    def action_time(self, forward: bool) -> None:
        """By time."""
        self.moved(lambda: self.session.by_time(TIME_STEPS_S[self._step_s] * (1 if forward else -1)))

    def action_time_step(self, by: int) -> None:
        """A longer or shorter step in time."""
        self._step_s = min(max(self._step_s + by, 0), len(TIME_STEPS_S) - 1)
        self.say(f"← and → go by {duration(TIME_STEPS_S[self._step_s])} at least")

    def action_task(self, forward: bool) -> None:
        """To the next change of the chosen task, or the one before."""
        if self.task_id is None:
            self.say("no task is chosen: click one, or press s", error=True)
            return
        name = self.task_id
        self.moved(lambda: self.session.by_task(name, forward=forward))

    def action_hit(self, forward: bool) -> None:
        """To the next event that holds what was looked for."""
        said: list[str] = []

        def move() -> None:
            _, number, count = self.session.next_hit(forward=forward)
            said.append(f"{number} of {count} events with {self.session.sought!r}; n and N go on")

        self.moved(move)
        if said:
            self.say(said[0])

    async def action_run_on(self, forward: bool) -> None:
        """To where a breakpoint is met next."""
        if self._searching:
            return
        try:
            search = self.session.to_breakpoint()
        except ParallelAgentsError as error:
            self.complain(error)
            return
        self.run_worker(self._search(search, forward), group="search")

    async def _search(self, search: Any, forward: bool) -> None:
        self._searching, self._stop = True, False
        try:
            for position in search.steps(self.session.position, forward=forward):
                self.say(f"looking, at event {self.session.tape.seqs[position]}; Esc stops")
                await asyncio.sleep(0)
                if self._stop:
                    self.say("stopped looking")
                    return
        finally:
            self._searching = False
        if search.found is None:
            self.say(f"no breakpoint is met {'after' if forward else 'before'} this event")
            return
        self.moved(lambda: self.session.move_to(search.found))

    def action_stop(self) -> None:
        """Stop a search, or take the line above the keys away."""
        self._stop = True
        if self.finding:
            stop_finding(self)
        elif not self._searching:
            self.say("")

    def on_lines_picked(self, event: Lines.Picked) -> None:
        """A click on an event goes there; one on a task chooses it."""
        if event.lines.id == "events":
            self.moved(lambda: self.session.move_to(event.number))
        elif event.lines.id == "pane" and self.tab == "tasks":
            self.task_id = self._order[event.number]
            self.show_pane()

    def action_pane(self, name: str) -> None:
        """Another pane."""
        self.tab = name
        self._answered = None
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, immediate=True)
        self.show_pane()

    # Following.

    def look_for_more(self) -> None:
        """Take up what was appended; a cursor that follows goes with it. What cannot be read ends the whole with its error."""
        was_last = self.session.position == self.session.last
        try:
            if not self.session.catch_up():
                self._look_at_output(was_last)
                return
            if self.follows and was_last:
                self.session.move_to(self.session.last)
            self.show_all()
        except ParallelAgentsError as error:
            self.failure = error
            self.exit()

    def _look_at_output(self, is_now: bool) -> None:
        """No event tells that a running attempt prints: look again now and then, while somebody looks at it."""
        running = self.session.frame.state.running.values()
        if is_now and self.tab == "output" and self.task_id in running and time.monotonic() - self._printed_s >= 1:
            self._printed_s, self._answered = time.monotonic(), None
            self._ask_now()

    def action_follow(self) -> None:
        """Follow the run from its end on, or no more."""
        self.follows = not self.follows
        if self.follows:
            self.session.move_to(self.session.last)
        self.show_all()

    def action_ask(self, what: str) -> None:
        """Ask for something, then do it."""
        ASKS[what](self)

    def arrived(self, told: str) -> None:
        """The run was taken back: what was appended is at its end."""
        self.session.catch_up()
        self.session.move_to(self.session.last)
        self.show_all()
        self.say(told)

    def action_keys(self) -> None:
        """All of them."""
        self.push_screen(Page(keys_page(), "keys"))

    def action_mark(self) -> None:
        """Mark the event at the cursor."""
        self.moved(lambda: self.session.mark())
        letter = next((one for one, position in self.session.marks.items() if position == self.session.position), "")
        self.say(f"mark {letter} is event {self.session.seq}; ' goes there, D compares two")
