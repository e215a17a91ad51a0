"""The checkpoints of a run, or those made by hand, as a line with branches: which follows which, and which are undone.

Scope ALL: a checkpoint that a rollback has undone still holds its files, and can be gone back to.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

TYPES = "type IN ('CheckpointCreated', 'CheckpointRestored', 'RunRolledBack')"
"""The condition on rows that this fold looks at."""
CREATED = "type = 'CheckpointCreated'"
"""That on those that make one."""


@dataclass(slots=True)
class Checkpoint:
    """One checkpoint, with its place on the line. What it is stands in its event: there may be very many."""

    seq: int
    checkpoint_id: str
    parent: Checkpoint | None  # The one before it on its line.
    depth: int  # How many are before it.
    undone_at_us: int | None = None  # Since when it is off the line that leads to the present; None: it is on it.


@dataclass(slots=True)
class Line:
    """The checkpoints of one run, by id, in the order in which they were made."""

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    head: Checkpoint | None = None  # The last one on the line.
    seqs: list[int] = field(default_factory=list)  # Where the head moved, and to which checkpoint.
    heads: list[Checkpoint | None] = field(default_factory=list)


def fold(line: Line, record: Recorded) -> Line:
    """The line after one more event of its run."""
    match record.event:
        case ev.CheckpointCreated() as event:
            parent = line.head
            made = Checkpoint(record.seq, event.checkpoint_id, parent, 0 if parent is None else parent.depth + 1)
            line.checkpoints[event.checkpoint_id] = made
            line.head = made
        case ev.CheckpointRestored(in_place=True, checkpoint_id=checkpoint_id) if checkpoint_id in line.checkpoints:
            _move(line, line.checkpoints[checkpoint_id], record.at_us)
        case ev.RunRolledBack(to_seq=to_seq):
            place = bisect_right(line.seqs, to_seq) - 1
            _move(line, line.heads[place] if place >= 0 else None, record.at_us)
        case _:
            return line
    line.seqs.append(record.seq)
    line.heads.append(line.head)
    return line


def _move(line: Line, target: Checkpoint | None, at_us: int) -> None:
    """Go to another head: what led to the old one alone is undone, what leads to the new one is not any more."""
    old, new = line.head, target
    while old is not new:
        if new is None or (old is not None and old.depth > new.depth):
            assert old is not None
            old.undone_at_us, old = at_us, old.parent
        elif old is None or new.depth > old.depth:
            new.undone_at_us, new = None, new.parent
        else:
            old.undone_at_us, old = at_us, old.parent
            new.undone_at_us, new = None, new.parent
    line.head = target
