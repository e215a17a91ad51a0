"""The live view of a run: its tasks with their state, time and last words, and how far it is. Drawn on stderr by Rich."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.pages import limit_lines, machine_lines, stuck_words
from parallel_agents.follow import last_output
from parallel_agents.held_back import limits_of
from parallel_agents.machine_waits import machine_waits
from parallel_agents.notices import news

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_REFRESH_PER_S = 8
_NEWS = 3  # Lines about money that stay in sight.
# Which tasks are shown first where the terminal cannot hold all of them.
_ORDER = {
    "running": 0,
    "failed": 1,
    "blocked": 1,
    "queued": 2,
    "pending": 3,
    "completed": 4,
    "cancelled": 4,
    "skipped": 5,
}


class LiveView:
    """Shows a run until it is left; then the last picture stays.

    Args:
        follower: the run's state; changed and read by the thread that calls ``told``.
        interval_s: between two looks at what running tasks put out.
        interrupts: how often Ctrl-C was pressed.
        clock: seconds since the epoch; of a past run that of its own time.
        past: whether it is a past run, of which no event tells what its tasks had put out by then.
    """

    def __init__(
        self, log: Any, follower: Any, *, interval_s: float, interrupts: Any = None,
        clock: Callable[[], float] = time.time, past: bool = False,
    ) -> None:  # fmt: skip
        self._log = log
        self._clock = clock
        self._past = past
        self._follower = follower
        self._interval_s = interval_s
        self._interrupts = interrupts
        if interrupts is not None:
            interrupts.put_away = self.put_away
        self._lock = threading.Lock()
        self._words: dict[str, str] = {}
        self._news: list[str] = []
        self._limits: list[dict[str, Any]] = []
        self._looked = 0.0
        self._left = False
        self._console = drawing.console(sys.stderr)
        self._live = Live(
            self, console=self._console, refresh_per_second=_REFRESH_PER_S, transient=False, redirect_stdout=False,
            redirect_stderr=True, vertical_overflow="crop",
        )  # fmt: skip

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._left = True
            self._look_at_output()
        with contextlib.suppress(OSError):  # The terminal has gone away.
            self._live.stop()

    @contextlib.contextmanager
    def put_away(self) -> Iterator[None]:
        """Leave the terminal to others, cursor included; drawn anew below what they wrote."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def told(self, records: list[Any]) -> None:
        """Take up what is new."""
        with self._lock:
            self._news = [*self._news, *news(records, self._follower.state)][-_NEWS:]
            if records or time.monotonic() - self._looked >= self._interval_s:
                self._look_at_output()

    def _look_at_output(self) -> None:
        self._looked = time.monotonic()
        if self._past:
            return
        state = self._follower.state
        self._limits = [] if state.ended else limits_of(self._log, state)
        for task_id in list(state.running.values()):
            words = last_output(self._log, state, state.tasks[task_id])
            if words:
                self._words[task_id] = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            state = self._follower.state
            machine = machine_lines({"status": state.status, **machine_waits(state)})
            said = [
                *machine,
                *limit_lines(self._limits),
                *(Text(drawing.one_line(line), style="yellow") for line in self._news),
            ]
            room = (options.height or console.height) - 4 - len(said)
            yield self._head(state)
            yield self._progress(state, options.max_width)
            table, more = self._tasks(state, max(3, room))
            yield table
            if more:
                yield Text(f"   … {more}", style="dim")
            for line in said:
                line.no_wrap, line.overflow = True, "ellipsis"
                yield line
        hint = self._hint(state)
        if hint:
            yield Text(hint, style="dim")
        yield Segment("")

    def _head(self, state: Any) -> Text:
        took_s = 0.0
        if state.started_at_us is not None:
            took_s = (state.ended_at_us or self._clock() * 1e6) / 1e6 - state.started_at_us / 1e6
        parts = [drawing.state_text(state.status), Text(state.name, style="bold"), Text(state.plan.strategy, style="dim"),
                 Text(f"run {state.run_id}", style="dim"), Text(drawing.duration(took_s) or "")]  # fmt: skip
        return Text("  ").join(parts)

    def _progress(self, state: Any, width: int) -> Table:
        ended = sum(state.counts[status] for status in ("completed", "failed", "cancelled", "skipped"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=len(state.tasks), completed=ended, width=max(10, min(40, width - 50)))
        grid.add_row(bar, drawing.counts_text({name: state.counts[name] for name in _SHOWN}, len(state.tasks)))
        return grid

    def _tasks(self, state: Any, room: int) -> tuple[Table, str]:
        """The tasks that the terminal has room for, and how many more there are."""
        rows = list(state.tasks.values())
        hidden: list[Any] = []
        if len(rows) > room:
            rows.sort(key=lambda task: (_ORDER[task.status], -(task.ended_at_us or 0), task.index))
            rows, hidden = rows[: room - 1], rows[room - 1 :]
            rows.sort(key=lambda task: task.index)
        made = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False, expand=True)
        made.add_column(no_wrap=True)
        made.add_column(no_wrap=True, max_width=32, overflow="ellipsis")
        made.add_column(no_wrap=True, max_width=24, overflow="ellipsis", style="dim")
        made.add_column(no_wrap=True, justify="right")
        made.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for task in rows:
            made.add_row(_sign(task), task.task.task_id, task.task.agent_type, self._took(task), self._said(task))
        more = Counter(task.status for task in hidden)
        return made, ", ".join(f"{number} {status}" for status, number in more.items())

    def _took(self, task: Any) -> Text:
        if task.started_at_us is None:
            return Text("")
        if task.status == "running":
            passed_s = max(0.0, self._clock() - task.started_at_us / 1e6)
            return Text(drawing.duration(passed_s) or "", style="yellow")
        return Text(drawing.duration(task.duration_s) or "", style="dim")

    def _said(self, task: Any) -> Text:
        words = self._words.get(task.task.task_id, "")
        match task.status:
            case "running" if task.stuck is not None:
                return Text(f"looks stuck: {drawing.one_line(stuck_words(task.stuck))}", style="yellow")
            case "running":
                return Text(drawing.one_line(words))
            case "completed":
                return Text(drawing.one_line(str(task.output) if task.output is not None else words), style="dim")
            case "failed":
                return Text(drawing.one_line(task.error or ""), style="red")
            case "skipped":
                return Text(f"because of {task.because}", style="dim")
            case "queued" if task.not_before_us is not None:
                rest_s = task.not_before_us / 1e6 - self._clock()
                if rest_s <= 0:  # Something else keeps it: a slot, a provider, a budget, a pause.
                    return Text(f"again: {drawing.one_line(task.error or '')}", style="yellow")
                return Text(f"again in {rest_s:.0f} s: {drawing.one_line(task.error or '')}", style="yellow")
            case "pending" if task.task.dependencies:
                return Text("after " + ", ".join(task.task.dependencies), style="dim")
            case _:
                return Text(drawing.one_line(task.reason), style="dim")

    def _hint(self, state: Any) -> str:
        if self._left or state.ended or self._interrupts is None:
            return ""
        if self._interrupts.count == 0:
            lift = "".join(f"; `{limit['lift']}`: start them now" for limit in self._limits)
            return f"Ctrl-C: start nothing more{lift}"
        if self._interrupts.count == 1:
            return f"starting nothing more; {len(state.running)} running, Ctrl-C again stops them"
        return "stopping what runs"


_SHOWN = ("completed", "running", "queued", "blocked", "failed", "cancelled", "skipped")


def _sign(task: Any) -> Text:
    if task.status == "running":
        return Text(_FRAMES[int(time.monotonic() * 10) % len(_FRAMES)], style="bold yellow")
    sign, style = drawing.SIGNS[task.status]
    return Text(sign, style=style)
