"""The course of a run, which pictures show: what its tasks did all the time, its critical path, its cost, what befell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.pictures.critical_hops import Hop, critical_hops
from parallel_agents.pictures.stretches import ATTEMPT, Waits
from parallel_agents.pictures.waits import waits
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.projections.timeline import Span, timeline
from parallel_agents.projections.undone import Spans, undone_spans

CONFLICT, ROLLBACK, CHECKPOINT, PAUSE = "conflict", "rollback", "checkpoint", "pause"


class Mark(NamedTuple):
    """Something that happened at one time, which is microseconds since the epoch.

    Attributes:
        task_id: whom it befell; None: the run.
        undone: a rollback has taken it back.
    """

    seq: int
    at_us: int
    kind: str
    task_id: str | None
    text: str
    undone: bool = False


class Worked(NamedTuple):
    """How long attempts of a task ran, in microseconds: those that stand, and those that a rollback has undone."""

    stands_us: int
    undone_us: int


class Course(NamedTuple):
    """One run as of ``waits.seq``."""

    waits: Waits
    hops: list[Hop]
    spans: dict[str, Span]  # By attempt id, in order of their starts; those that a rollback has undone are marked.
    cost: Cost
    marks: list[Mark]
    records: Sequence[Recorded]  # Every event of the run, undone ones too.
    undone: Spans | None  # Where those are.

    @property
    def state(self) -> RunState:
        """The run at the end."""
        return self.waits.state

    def worked(self, task_id: str) -> Worked:
        """How long attempts of a task ran."""
        found = {False: 0, True: 0}
        for one in self.waits.by_task[task_id]:
            if one.kind == ATTEMPT:
                span = self.spans.get(one.attempt_id)
                found[span is not None and span.undone] += one.length_us
        return Worked(found[False], found[True])

    def end_us(self, span: Span) -> int:
        """When an attempt ended; of one that runs the moment that is looked at."""
        return max(span.started_at_us, self.waits.end_us if span.ended_at_us is None else span.ended_at_us)


def course(log: Log, run_id: str, upto: int | None = None) -> Course:
    """The course of a run.

    Args:
        upto: as a reader saw it at this seq; None: at the last event. The same log and seq always give the same course.
    Raises:
        UnknownRun: the run has no event up to there.
    """
    end = log.last_seq() if upto is None else upto
    projector = Projector(log)
    records = projector.records(run_id, end)
    undone = undone_spans(log, end, run_id).get(run_id)
    found = waits(log, run_id, end)
    spans = {span.attempt_id: span for span in timeline(records)}
    marks = [
        mark._replace(undone=undone is not None and undone.holds(mark.seq))
        for record in records
        for mark in _marks(record)
    ]
    return Course(found, critical_hops(found), spans, projector.cost(run_id, end), marks, records, undone)


def _marks(record: Recorded) -> Iterator[Mark]:
    seq, at_us = record.seq, record.at_us
    match record.event:
        case ev.ConflictDetected(task_id=task_id, other_task_id=other, paths=paths, early=early):
            shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
            words = "may conflict" if early else "conflict"
            yield Mark(seq, at_us, CONFLICT, task_id, f"{words}{f' with {other}' if other else ''}: {shown}")
        case ev.RunRolledBack(to_seq=to_seq):
            yield Mark(seq, at_us, ROLLBACK, None, f"rolled back to event {to_seq}")
        case ev.CheckpointCreated(kind=kind, task_id=task_id, checkpoint_id=checkpoint_id) if kind != "before_attempt":
            yield Mark(seq, at_us, CHECKPOINT, task_id, f"checkpoint {checkpoint_id} ({kind.replace('_', ' ')})")
        case ev.RunPaused():
            yield Mark(seq, at_us, PAUSE, None, "paused")
        case _:
            pass
