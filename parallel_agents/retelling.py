"""A past run, moment after moment, as somebody saw it who watched it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from parallel_agents.costs import usd
from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode_brief, rfc3339
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import letting_go
from parallel_agents.projections import status as st
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.projections.status import RunState


@dataclass(slots=True)
class Moment:
    """What was appended at one time. ``state`` and ``cost`` are those after it, and change with the next moment."""

    at_us: int
    records: list[Recorded]
    state: RunState
    cost: Cost


def moments(
    log: Log,
    run_id: str,
    upto: int | None = None,
    before: Callable[[int], None] = lambda at_us: None,
    *,
    whole: bool = False,
) -> Iterator[Moment]:
    """The moments of a run, oldest first; what a rollback has undone as it was before that.

    Args:
        before: called with the time of a moment while the state is still that of the one before it.
        whole: whether all tasks are looked at, moment after moment; else those of a large run are not all held.
    Raises:
        UnknownRun: there is no such run.
    """
    projector, cost = Projector(log), Cost()
    state, folded = st.initial(run_id), 0
    for at_us, briefs in groupby(log.briefs(run_id, 0, upto), lambda brief: brief[3]):
        before(at_us)
        records = []
        for brief in briefs:
            record = decode_brief(run_id, brief)
            records.append(record)
            if isinstance(record.event, RunRolledBack):
                state = projector.whole_state(run_id, record.seq) if whole else projector.state(run_id, record.seq)
            elif state.version == 0 and not whole:
                state = projector.begin(record)
            else:
                state = st.fold(state, record, log.blob)
            cost = cost_fold.fold(cost, record)
        folded += len(records)
        if folded >= letting_go.EVERY:
            folded = 0
            letting_go.let_go(state)
            state.touched.clear()
        yield Moment(at_us, records, state, cost)
    if state.version == 0:
        raise unknown_run(log, run_id, upto)


def span_us(log: Log, run_id: str, upto: int | None = None) -> tuple[int, int]:
    """When the first and the last event of a run were appended, microseconds since the epoch.

    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq() if upto is None else upto
    ends = log.ends_of_run(run_id, end)
    if ends is None:
        raise unknown_run(log, run_id, upto)
    return ends[0].at_us, ends[1].at_us


def as_json(moment: Moment, began_us: int) -> dict[str, Any]:
    """A moment as scripts read it."""
    state = moment.state
    return {
        "seq": moment.records[-1].seq,
        "at": rfc3339(moment.at_us),
        "elapsed_s": (moment.at_us - began_us) / 1e6,
        "events": [type(record.event).__name__ for record in moment.records],
        "status": state.status,
        "counts": {name: state.counts[name] for name in st.TASK_STATUSES if state.counts[name]},
        "running": sorted(state.running.values()),
        "cost_usd": usd(moment.cost.usd_micros),
    }
