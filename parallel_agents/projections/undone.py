"""What rollbacks have undone, told by the rollbacks alone: however long a run is, it was rolled back a few times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL


class Rollback(NamedTuple):
    """One rollback of a run: its own seq, and the seq that it goes back to."""

    run_id: str
    seq: int
    to_seq: int


class Spans:
    """The stretches of a log in which the events of one run are undone. Both ends are outside of a stretch."""

    def __init__(self, rollbacks: Iterable[Rollback]) -> None:
        """From all rollbacks of the run up to the moment that is looked at, oldest first."""
        made = list(rollbacks)
        self.rollbacks = frozenset(one.seq for one in made)
        self.spans: list[tuple[int, int]] = []
        # Walk back from the end: at a rollback jump to its target (see ``effective``).
        while made:
            last = made.pop()
            self.spans.append((last.to_seq, last.seq))
            while made and made[-1].seq > last.to_seq:
                made.pop()
        self.spans.reverse()
        self._begins = [begin for begin, _ in self.spans]

    def holds(self, seq: int) -> bool:
        """Whether an event of the run is undone. A rollback itself never is: it is what has undone the others."""
        place = bisect_right(self._begins, seq - 1) - 1
        return place >= 0 and seq < self.spans[place][1] and seq not in self.rollbacks


Undone = Callable[[int], bool]
"""Tells of a seq whether that event of a run is undone."""


def undone_among(records: Iterable[Recorded]) -> Undone:
    """By the rollbacks among the events of one run, oldest first."""
    return Spans(
        Rollback(record.run_id, record.seq, record.event.to_seq)
        for record in records
        if isinstance(record.event, RunRolledBack)
    ).holds


def undone_of(log: Log, run_id: str, upto: int) -> Undone:
    """By the rollbacks of a run up to a seq."""
    spans = undone_spans(log, upto, run_id).get(run_id)
    return (lambda seq: False) if spans is None else spans.holds


def undone_spans(log: Log, upto: int, run_id: str | None = None) -> Mapping[str, Spans]:
    """By run, of those that were ever rolled back.

    Args:
        upto: as it was at this seq.
        run_id: only of this run.
    """
    by_run: dict[str, list[Rollback]] = {}
    for row in log.rows(0, upto, where=f"{RUN_LEVEL} AND type = 'RunRolledBack'"):
        event = decode(row).event
        if isinstance(event, RunRolledBack) and run_id in (None, row.run_id):
            by_run.setdefault(row.run_id, []).append(Rollback(row.run_id, row.seq, event.to_seq))
    return {name: Spans(made) for name, made in by_run.items()}
