"""The debugger on a terminal: events at the left, at the right the run as it was at the cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.timer import Timer
from textual.widgets import Footer, Static

from parallel_agents import ParallelAgentsError
from parallel_agents.cli import debug_picture as picture
from parallel_agents.cli.debug_changes import ask_diff, ask_fork, roll_back
from parallel_agents.cli.debug_dialogs import Ask, Page
from parallel_agents.cli.debug_keys import keys_page
from parallel_agents.cli.debug_lists import Lines
from parallel_agents.cli.debug_panes import PANES, Asked, answer
from parallel_agents.cli.drawing import duration, one_line
from parallel_agents.debugging import TIME_STEPS_S, Debugging

POLL_S: Final = 0.25  # Between two looks for what was appended: the truth is in the log, and a look costs 0.1 ms.
_REST_S: Final = 0.06  # For which the cursor has to rest before a pane asks the log or git.
TABS: Final = ("tasks", "queue", "cost", "machine", "conflicts", "files", "output", "task", "event", "set")
_SUCH_AS: Final = "cost > 1.5, failed >= 2, status('NAME') == 'running'"
_WIDE: Final = 110  # Columns from which on the events get more than a third.


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


class TabBar(Static):
    """The names of the panes; a click shows one."""

    DEFAULT_CSS = """
    TabBar { link-style: none; link-background: transparent; link-style-hover: underline; link-color: $text; }
    """

    _told: Text | None = None

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
    #remark { height: 1; display: none; background: $boost; }
    #remark.-shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "task(True)", "Task"),
        Binding("T", "task(False)", "Task before", show=False),
        Binding("c", "run_on(True)", "Run"),
        Binding("C", "run_on(False)", "Run back", show=False),
        Binding("b", "ask_break", "Break"),
        Binding("g", "ask_go", "Go"),
        Binding("slash", "ask_search", "Find", key_display="/"),
        Binding("n", "hit(True)", "Next", show=False),
        Binding("N", "hit(False)", "Before", show=False),
        Binding("f", "follow", "Follow"),
        Binding("R", "rollback", "Back"),
        Binding("F", "ask_fork", "Fork"),
        Binding("question_mark", "keys", "Keys", key_display="?"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
        Binding("m", "mark", "Mark"),
        Binding("apostrophe", "ask_mark", "To mark", show=False),
        Binding("D", "ask_diff", "Diff"),
        Binding("w", "ask_watch", "Watch"),
        Binding("x", "ask_away", "Take away"),
        Binding("s", "ask_task", "Choose task", show=False),
        Binding("plus", "time_step(1)", "Longer", show=False),
        Binding("minus", "time_step(-1)", "Shorter", show=False),
        *(Binding(str(number % 10), f"pane('{name}')", name, show=False) for number, name in enumerate(TABS, 1)),
        Binding("escape", "stop", "Stop", show=False),
    ]

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
        self._said = ""  # Above the keys.

    def compose(self) -> ComposeResult:
        """Two halves, and the keys below."""
        with Horizontal(id="body"):
            yield EventList(id="events")
            with Vertical(id="right"):
                yield Static(id="head")
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

    @property
    def is_idle(self) -> bool:
        """Whether everything that can be shown of the cursor is shown."""
        return (
            not self._searching and self._asking is None and (self.tab not in PANES or self._answered == self._wanted())
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
        head.update(told, layout=False)
        watches = self.query_one("#watches", Static)
        watches.display = bool(self.session.watches)
        if self.session.watches:
            told = picture.watch_lines(self.session.watched(), max(10, head.size.width))
            watches.update(told, layout=len(self.session.watches) != watches.size.height)

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
            pane = self.query_one("#pane", Lines)
            pane.show_texts(lines)
            self.query_one("#tabs", TabBar).tell(self.tab, False)
        if self.tab in PANES and self._wanted() != wanted:
            self._ask_soon()

    def say(self, text: str, *, error: bool = False) -> None:
        """A line above the keys; an empty one takes it away."""
        if not text and not self._said:
            return
        self._said = text
        remark = self.query_one("#remark", Static)
        remark.update(Text(f" {one_line(text)}", style="bold red" if error else "bold"))
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
        if not self._searching:
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
        """Take up what was appended; a cursor that follows goes with it."""
        was_last = self.session.position == self.session.last
        if not self.session.catch_up():
            return
        if self.follows and was_last:
            self.session.move_to(self.session.last)
        self.show_all()

    def action_follow(self) -> None:
        """Follow the run from its end on, or no more."""
        self.follows = not self.follows
        if self.follows:
            self.session.move_to(self.session.last)
        self.show_all()

    # What is asked for.

    def _ask(self, title: str, such_as: str, take: Callable[[str], None], value: str = "") -> None:
        self.push_screen(Ask(title, such_as, take, value), lambda _: self.show_all())

    def action_ask_go(self) -> None:
        """Where to."""
        such_as = "an event (412), +100, -30s, 50%, 14:30, '2 hours ago', a checkpoint, or words for one"
        self._ask("Go to", such_as, self._go)

    def _go(self, text: str) -> None:
        self.session.go_to(text)
        self.follows = False
        self.say("")

    def action_ask_search(self) -> None:
        """What for."""
        self._ask("Find events that hold", "any text of theirs, whatever the case; n and N go on", self._look_for)

    def _look_for(self, text: str) -> None:
        if text:
            self.session.search(text)
            _, number, count = self.session.next_hit(forward=True)
            self.say(f"{number} of {count} events with {text!r}; n and N go on")

    def action_ask_break(self) -> None:
        """Where to stop."""
        such_as = f"TaskFailed, task NAME, conflict, or what comes to hold: {_SUCH_AS}; c runs on, C back"
        self._ask("Stop at", such_as, lambda text: self.say(f"c runs on to: {self.session.break_at(text).text}"))

    def action_ask_watch(self) -> None:
        """What to show."""
        self._ask(
            "Watch", f"such as cost, or {_SUCH_AS}", lambda text: self.say(f"watched: {self.session.watch(text).text}")
        )

    def action_ask_away(self) -> None:
        """What is to go."""
        self.action_pane("set")
        self._ask("Take away", "a number or a letter of the pane at the right", self._away)

    def _away(self, text: str) -> None:
        self.say(f"taken away: {self.session.take_away(text)}")

    def action_ask_task(self) -> None:
        """Which one."""
        self._ask("Choose a task", "its id; t and T go to its changes", self._choose)

    def _choose(self, text: str) -> None:
        self.task_id = self.session.task_named(text)
        self.session.move_to(self.session.position)

    def action_mark(self) -> None:
        """Here."""
        self.moved(lambda: self.session.mark())
        letter = next((one for one, position in self.session.marks.items() if position == self.session.position), "")
        self.say(f"mark {letter} is event {self.session.seq}; ' goes there, D compares two")

    def action_ask_mark(self) -> None:
        """Which one."""
        self._ask("Go to mark", ", ".join(self.session.marks) or "m sets one", self._go_to_mark)

    def _go_to_mark(self, text: str) -> None:
        self.session.move_to(self.session.marked(text.strip()))

    def action_ask_diff(self) -> None:
        """Of two marks."""
        ask_diff(self)

    def action_ask_fork(self) -> None:
        """From here."""
        ask_fork(self)

    def action_rollback(self) -> None:
        """To here."""
        roll_back(self)

    def arrived(self, told: str) -> None:
        """The run was taken back: what was appended is at its end."""
        self.session.catch_up()
        self.session.move_to(self.session.last)
        self.show_all()
        self.say(told)

    def action_keys(self) -> None:
        """All of them."""
        self.push_screen(Page(keys_page(), "keys"))
