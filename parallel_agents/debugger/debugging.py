"""A run under the magnifying glass: a cursor on its events, and what somebody has set beside it. Pure but for reading the log.

Positions count from 0. Every move gives the new position, or raises where there is nothing to move to; then the cursor stays.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from parallel_agents import moments
from parallel_agents.debugger.breakpoints import Breakpoint, Search, breakpoint_of, changes_of, here_at
from parallel_agents.debugger.expressions import Expression, Value, expression
from parallel_agents.debugger.frames import Frame, Frames
from parallel_agents.debugger.tape import Tape
from parallel_agents.debugger.text_search import TextSearch
from parallel_agents.eventstore.errors import InvalidUsage, UnknownEvent, UnknownTask, nearest
from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row
from parallel_agents.eventstore.selecting import Wanted, select
from parallel_agents.projections.undone import Spans, undone_spans
from parallel_agents.scheduler.graph import levels

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
TIME_STEPS_S: Final = (0.1, 1, 10, 60, 600, 3600)
_RELATIVE: Final = re.compile(r"([+-])\s*(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS_S: Final = {
    "ms": 0.001, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400,
    "day": 86400,
}  # fmt: skip
_NEARBY: Final = 100  # Events.
_SUCH_AS: Final = "such as 412, +100, -30s, 50%, 14:30, '2 hours ago', or a checkpoint"


class Watched(NamedTuple):
    """A watch expression with its value at the cursor, and at the event before."""

    text: str
    value: Value
    before: Value


class Debugging:
    """One run, and the position that is looked at.

    Raises:
        UnknownRun: there is no such run.
    """

    def __init__(self, log: Log, run_id: str, position: int | None = None) -> None:
        self.log = log
        self.run_id = run_id
        self.tape = Tape(log, run_id)
        self.frames = Frames(self.tape)
        self.position = self.last if position is None else position
        self.breakpoints: list[Breakpoint] = []
        self.watches: list[Expression] = []
        self.marks: dict[str, int] = {}
        self.sought = ""
        self._hits: list[int] = []
        self._undone: Spans | None = None
        self._levels: dict[str, int] | None = None
        self._look_at_rollbacks()

    @property
    def last(self) -> int:
        """The last position that there is."""
        return len(self.tape) - 1

    @property
    def frame(self) -> Frame:
        """The run at the cursor."""
        return self.frames.at(self.position)

    @property
    def seq(self) -> int:
        """The number of the event at the cursor."""
        return self.tape.seqs[self.position]

    @property
    def row(self) -> Row:
        """The event at the cursor."""
        return self.tape.row(self.position)

    @property
    def task_ids(self) -> list[str]:
        """The tasks of the run, in the order of its plan."""
        return list(self.frames.at(self.last).state.tasks)

    def levels(self) -> dict[str, int]:
        """How many tasks in a row have to end before each can start, by task; a task comes behind all that it needs."""
        if self._levels is None:
            tasks = self.frames.at(self.last).state.tasks.values()
            found = levels({one.task.task_id: one.task.dependencies for one in tasks})
            self._levels = {name: depth for depth, names in enumerate(found) for name in names}
        return self._levels

    def is_undone(self, position: int) -> bool:
        """Whether an event counts no more, as of the end of the tape."""
        return self._undone is not None and self._undone.holds(self.tape.seqs[position])

    def is_known(self, position: int) -> bool:
        """Whether an event is of a type of this release. Of a run that goes on by a later one it may be none."""
        return self.tape.row(position).type in EVENT_TYPES

    def catch_up(self) -> int:
        """Take up what was appended since; the cursor stays. Gives how many events that were."""
        rollbacks = len(self.tape.rollbacks)
        fresh = self.tape.catch_up()
        if len(self.tape.rollbacks) > rollbacks:
            self._look_at_rollbacks()
        if fresh and self.sought:
            self._seek(self.tape.seqs[-fresh - 1])
        return fresh

    def _look_at_rollbacks(self) -> None:
        found = undone_spans(self.log, self.tape.seqs[-1], self.run_id) if self.tape.rollbacks else {}
        self._undone = found.get(self.run_id)

    def move_to(self, position: int) -> int:
        """Go to a position; beyond an end, to that end."""
        self.position = min(max(position, 0), self.last)
        return self.position

    def go_to(self, text: str) -> int:
        """Go where a text says: an event's number, a time, a checkpoint, a share of all events, or so far from here.

        Raises:
            UnknownEvent, UnknownCheckpoint, Ambiguous, InvalidUsage: there is no such place; the hint says what there is.
        """
        said = text.strip()
        if not said:
            raise InvalidUsage("where to?", hint=_SUCH_AS)
        if (share := _share(said)) is not None:
            return self.move_to(round(share * self.last))
        if (match := _RELATIVE.fullmatch(said)) is not None:
            sign, number, unit = -1 if match[1] == "-" else 1, float(match[2]), match[3].lower()
            if not unit or unit.rstrip("s") in ("event", "e"):
                return self.move_to(self.position + sign * int(number))
            seconds = _UNITS_S.get(unit) or _UNITS_S.get(unit.rstrip("s"))
            if seconds is None:
                raise InvalidUsage(f"{match[3]!r} is no unit of time", hint="ms, s, min, h or d")
            return self.by_time(sign * number * seconds)
        meant = moments.in_run(self.log, lambda: self.run_id, said)
        position = self.tape.position_of(meant.seq)
        if position < 0:
            first = self.tape.seqs[0]
            raise UnknownEvent(
                f"run {self.run_id} had not begun at event {meant.seq}", hint=f"its first event is {first}"
            )
        return self.move_to(position)

    def by_time(self, seconds: float) -> int:
        """Go on by some seconds of the run's own time, or back: at least to the next event there.

        Raises:
            UnknownEvent: there is no event that way.
        """
        here_us = self.tape.at_us[self.position]
        there_us = here_us + round(seconds * 1e6)
        if seconds >= 0:
            found = max(self.tape.first_at(there_us), self.position + 1)
            if self.position == self.last:
                raise UnknownEvent("this is the last event of the run")
            return self.move_to(found)
        if self.position == 0:
            raise UnknownEvent("this is the first event of the run")
        return self.move_to(min(self.tape.position_at(there_us), self.position - 1))

    def by_task(self, task_id: str, *, forward: bool) -> int:
        """Go to the next event that changes a task, or the last one before.

        Raises:
            UnknownEvent: nothing happens to it that way.
        """
        places = changes_of(self.tape, self.frames, task_id)
        at = bisect_right(places, self.position) if forward else bisect_left(places, self.position) - 1
        if not 0 <= at < len(places):
            raise UnknownEvent(f"nothing happens to task {task_id} {'after' if forward else 'before'} this event")
        return self.move_to(places[at])

    def searching(self, text: str) -> TextSearch:
        """A search for a text in all events that there are now, to be done by whoever has the time; then see ``take``."""
        return TextSearch(self.run_id, text, self.tape.seqs[:])

    def take(self, done: TextSearch) -> int:
        """Go on with what a search has found, and with what was appended since it began. Gives how many events hold it."""
        self.sought, self._hits = done.text, [self.tape.position_of(seq) for seq in done.found]
        self._seek(done.upto)
        return len(self._hits)

    def search(self, text: str) -> int:
        """Look for a text in all events of the run, whatever the case. Gives how many hold it."""
        search = self.searching(text)
        for _ in search.steps(self.log):
            pass
        return self.take(search)

    def _seek(self, after_seq: int) -> None:
        if self.sought and after_seq < self.tape.seqs[-1]:
            wanted = Wanted(self.run_id, text=self.sought, first=after_seq + 1)
            self._hits += [self.tape.position_of(row.seq) for row in select(self.log, wanted, self.tape.seqs[-1])]

    def next_hit(self, *, forward: bool) -> tuple[int, int, int]:
        """Go to the next event that holds what was looked for, or the last one before; round the end where there is none.

        Returns:
            The position, which of the hits it is (from 1), and how many there are.
        Raises:
            UnknownEvent: nothing was looked for, or no event holds it.
        """
        if not self._hits:
            raise UnknownEvent(f"no event holds {self.sought!r}" if self.sought else "nothing was looked for yet")
        if forward:
            at = bisect_right(self._hits, self.position) % len(self._hits)
        else:
            at = (bisect_left(self._hits, self.position) - 1) % len(self._hits)
        return self.move_to(self._hits[at]), at + 1, len(self._hits)

    def mark(self) -> str:
        """Give the position the next letter that is free, or say the one that it has.

        Raises:
            InvalidUsage: every letter is given.
        """
        for letter, position in self.marks.items():
            if position == self.position:
                return letter
        letter = next((one for one in LETTERS if one not in self.marks), "")
        if not letter:
            raise InvalidUsage("every letter from a to z is a mark", hint="take one away first")
        self.marks[letter] = self.position
        return letter

    def marked(self, word: str) -> int:
        """The position of a mark; a dot is the cursor.

        Raises:
            InvalidUsage: there is no such mark.
        """
        if word == ".":
            return self.position
        if word not in self.marks:
            there = ", ".join(self.marks) or "none yet"
            raise InvalidUsage(f"there is no mark {word!r}", hint=f"marks: {there}; a dot is the cursor")
        return self.marks[word]

    def watch(self, text: str) -> Expression:
        """Show an expression's value from here on.

        Raises:
            ExpressionError: it makes no sense.
        """
        found = expression(text, self.task_ids)
        self.watches.append(found)
        return found

    def watched(self) -> list[Watched]:
        """All watch expressions with their values."""
        if not self.watches:
            return []
        before = here_at(self.tape, self.frames.at(self.position - 1)) if self.position else None
        now = here_at(self.tape, self.frame)  # One event further, which is a short way.
        return [
            Watched(one.text, one.value(now), None if before is None else one.value(before)) for one in self.watches
        ]

    def break_at(self, text: str) -> Breakpoint:
        """Stop there from here on.

        Raises:
            InvalidUsage, UnknownTask, ExpressionError: the text makes no sense; the hint says what would.
        """
        found = breakpoint_of(text, self.task_ids)
        if found not in self.breakpoints:
            self.breakpoints.append(found)
        return found

    def take_away(self, word: str) -> str:
        """Take away a breakpoint or a watch expression by its number, those first, or a mark by its letter. Gives what it was.

        Raises:
            InvalidUsage: there is no such thing.
        """
        said = word.strip()
        if said in self.marks:
            return f"mark {said} at event {self.tape.seqs[self.marks.pop(said)]}"
        number = int(said) if said.isdecimal() and len(said) < 5 else 0
        if 1 <= number <= len(self.breakpoints):
            return self.breakpoints.pop(number - 1).text
        number -= len(self.breakpoints)
        if 1 <= number <= len(self.watches):
            return self.watches.pop(number - 1).text
        there = len(self.breakpoints) + len(self.watches)
        raise InvalidUsage(
            f"nothing is called {said[:20]!r}", hint=f"numbers to {there}, marks: {', '.join(self.marks) or 'none'}"
        )

    def task_named(self, word: str) -> str:
        """The task that a word means: its id, or what one id alone begins with.

        Raises:
            UnknownTask: there is no such task; the hint names the nearest.
        """
        said, known = word.strip(), self.task_ids
        fitting = [name for name in known if name == said] or [name for name in known if said and name.startswith(said)]
        if len(fitting) != 1:
            raise UnknownTask(f"the run has no task {said!r}", hint=nearest(said, known))
        return fitting[0]

    def task_here(self) -> str | None:
        """The task that the event at the cursor names."""
        found = self.tape.task_of(self.position)
        return found if found in self.frame.state.tasks else None

    def task_before(self) -> str | None:
        """The task that the nearest event up to the cursor names that names any; None where there is none nearby."""
        tasks = self.frame.state.tasks
        nearby = range(self.position, max(-1, self.position - _NEARBY), -1)
        return next((name for at in nearby if (name := self.tape.task_of(at)) in tasks), None)

    def to_breakpoint(self) -> Search:
        """A search for where the cursor stops next.

        Raises:
            InvalidUsage: there is no breakpoint.
        """
        if not self.breakpoints:
            raise InvalidUsage("there is no breakpoint", hint="b sets one, such as TaskFailed or cost > 1.5")
        return Search(self.tape, self.frames, self.breakpoints)


def _share(said: str) -> float | None:
    """A share such as 50%; None where it is none."""
    if not said.endswith("%"):
        return None
    try:
        share = float(said[:-1]) / 100
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
