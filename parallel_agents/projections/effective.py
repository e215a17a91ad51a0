"""The effective history: what counts after rollbacks. Nothing is deleted; undone events are only jumped over."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

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
    targets = {
        position: record.event.to_seq
        for position, record in enumerate(records)
        if isinstance(record.event, RunRolledBack)
    }
    positions, jumped_to = kept_positions([record.seq for record in records], targets)
    return [records[position] for position in positions], jumped_to


def kept_positions(seqs: Sequence[int], targets: Mapping[int, int]) -> tuple[list[int], int | None]:
    """The same by position, for who has the rows and not the events.

    Args:
        seqs: of the events, ascending.
        targets: where the rollbacks among them go, by their position.
    """
    kept: list[int] = []
    position = len(seqs) - 1
    while position >= 0:
        target = targets.get(position)
        if target is None:
            kept.append(position)
            position -= 1
            continue
        position = bisect_right(seqs, target, 0, position) - 1
        if position < 0:
            kept.reverse()
            return kept, target
    kept.reverse()
    return kept, None


def kept_spans(rollbacks: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """The same as spans of seqs, for who has the rollbacks alone.

    Args:
        rollbacks: the seq of each and where it goes, ascending.
        end: the last seq that is looked at.
    Returns:
        Spans ``(after, upto)``: of a run's events those with ``after < seq <= upto`` count, but for the rollbacks themselves.
    """
    spans = []
    for seq, target in reversed(rollbacks):
        if seq <= end:
            spans.append((seq, end))
            end = target
    return [*spans, (0, end)]
