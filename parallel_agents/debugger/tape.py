"""The events of one run by position, for who goes to and fro in it: a light index in memory, everything else read when asked for.

A position counts from 0: the run's first event. Its version is one more.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Final

from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Brief, Row, decode_brief
from parallel_agents.projections.projector import unknown_run

_PAGE: Final = 128  # Rows that are read at once: more than a terminal shows.
_PAGES: Final = 32  # That stay in memory.
_TASK: Final = re.compile(
    '"task_id":"([^"]*)"'
)  # The first of that name is the event's own; see ``eventstore.of_task``.
_ROLLED_BACK: Final = RunRolledBack.__name__
_MOVED: Final = "RunMoved"


class Tape:
    """One run's events. ``catch_up`` takes up what was appended since; a position never changes its event.

    Raises:
        UnknownRun: there is no such run.
    """

    def __init__(self, log: Log, run_id: str) -> None:
        self.log = log
        self.run_id = run_id
        self.seqs = array("q")
        self.at_us = array("q")
        self._kinds = array("H")  # Numbers of types.
        self._types: list[str] = []
        self._number: dict[str, int] = {}
        self.rollbacks: dict[int, int] = {}  # Position of each -> the one that it goes back to; -1: before the first.
        self._pages: OrderedDict[int, list[Row]] = OrderedDict()
        self._of_task: dict[str, list[int]] = {}
        self.catch_up()
        if not self.seqs:
            raise unknown_run(log, run_id, None)

    def __len__(self) -> int:
        return len(self.seqs)

    def catch_up(self) -> int:
        """Take up what was appended to the run. Gives how many events that were."""
        before = len(self.seqs)
        for seq, type_, at_us in self.log.outline(self.run_id, before):
            number = self._number.get(type_)
            if number is None:
                number = self._number[type_] = len(self._types)
                self._types.append(type_)
            self.seqs.append(seq)
            self.at_us.append(at_us)
            self._kinds.append(number)
        for position in self.positions_of((_ROLLED_BACK,), before):
            event = decode_brief(self.run_id, next(self.briefs(position - 1, position))).event
            assert isinstance(event, RunRolledBack)
            self.rollbacks[position] = self.position_of(event.to_seq)
        fresh = len(self.seqs) - before
        if fresh:
            self._of_task.clear()
            self._pages.pop(before // _PAGE, None)  # It was not full.
        return fresh

    def type_of(self, position: int) -> str:
        """The type of an event."""
        return self._types[self._kinds[position]]

    def types(self) -> list[str]:
        """The types of all its events, each once."""
        return sorted(self._types)

    def position_of(self, seq: int) -> int:
        """The last event at or before a seq; -1 where the run had not begun."""
        return bisect_right(self.seqs, seq) - 1

    def position_at(self, at_us: int) -> int:
        """The last event at or before a time, in microseconds since the epoch; -1 where the run had not begun."""
        return bisect_right(self.at_us, at_us) - 1

    def first_at(self, at_us: int) -> int:
        """The first event at or after a time; the length of the tape where there is none."""
        return bisect_left(self.at_us, at_us)

    def row(self, position: int) -> Row:
        """An event as it stands in the log."""
        number = position // _PAGE
        page = self._pages.get(number)
        if page is None:
            first = number * _PAGE
            last = min(first + _PAGE, len(self.seqs)) - 1
            page = self._pages[number] = self.log.run_rows(self.run_id, first, self.seqs[last])
            if len(self._pages) > _PAGES:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(number)
        return page[position - number * _PAGE]

    def task_of(self, position: int) -> str:
        """The task that an event names; an empty text where it names none."""
        found = _TASK.search(self.row(position).body)
        return "" if found is None else found[1]

    def briefs(self, after: int, upto: int) -> Iterator[Brief]:
        """What folds need of the events with ``after < position <= upto``."""
        if upto <= after:
            return iter(())
        return self.log.briefs(self.run_id, after + 1, self.seqs[upto], after_seq=self.seqs[after] if after >= 0 else 0)

    def positions_of(self, types: Collection[str], first: int = 0) -> Iterator[int]:
        """Where events of some types stand, from a position on."""
        numbers = {self._number[name] for name in types if name in self._number}
        if numbers:
            kinds = self._kinds
            for position in range(first, len(kinds)):
                if kinds[position] in numbers:
                    yield position

    def next_of(self, types: Collection[str], position: int) -> int | None:
        """The next event of some types behind a position."""
        return next(self.positions_of(types, position + 1), None)

    def previous_of(self, types: Collection[str], position: int) -> int | None:
        """The last event of some types before a position."""
        numbers = {self._number[name] for name in types if name in self._number}
        kinds = self._kinds
        return next((at for at in range(position - 1, -1, -1) if kinds[at] in numbers), None) if numbers else None

    def of_task(self, task_id: str) -> list[int]:
        """Where the events stand that name a task, ascending."""
        found = self._of_task.get(task_id)
        if found is None:
            rows = self.log.task_briefs(self.run_id, task_id, self.seqs[-1])
            found = self._of_task[task_id] = [row[1] - 1 for row in rows]
        return found

    def last_rollback(self, after: int, upto: int) -> int | None:
        """The last rollback with ``after < position <= upto``."""
        return max((at for at in self.rollbacks if after < at <= upto), default=None)

    def last_moved(self, upto: int) -> int | None:
        """The last event up to a position that says where the run's files are."""
        return self.previous_of((_MOVED,), upto + 1)
