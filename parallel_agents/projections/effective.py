"""The effective history: what counts after rollbacks. Nothing is deleted; undone events are only jumped over."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.record import Recorded


def effective(records: Sequence[Recorded]) -> tuple[list[Recorded], int | None]:
    """Walk back from the end; at a rollback jump to its target, otherwise keep the event.

    A rollback to an event that was itself undone is therefore a redo.

    Args:
        records: events of one run, ascending, without gaps in version.
    Returns:
        The events that count, ascending, and the seq before all of ``records`` where the walk left them (a rollback's
        target), or None where it reached the first of them.
    """
    seqs = [record.seq for record in records]
    kept: list[Recorded] = []
    position = len(records) - 1
    while position >= 0:
        record = records[position]
        if isinstance(record.event, RunRolledBack):
            target = record.event.to_seq
            position = bisect_right(seqs, target, 0, position) - 1
            if position < 0:
                kept.reverse()
                return kept, target
            continue
        kept.append(record)
        position -= 1
    kept.reverse()
    return kept, None
