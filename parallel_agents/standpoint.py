"""A run as its scheduler saw it at a moment: its state, and what the starts of its tasks depended on."""

from __future__ import annotations

from typing import NamedTuple

from parallel_agents.broken_runners import circuit_facts
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.held_back import facts_of
from parallel_agents.machine_waits import machine_in_log
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.plan import Facts


class Standpoint(NamedTuple):
    """What ``why_not`` is asked with."""

    state: RunState
    facts: Facts
    now_us: int


def now_of(log: Log, upto: int | None) -> int:
    """The present, or the time of an event."""
    row = None if upto is None else log.row(upto)
    return wall_clock_us() if row is None else row.at_us


def facts_at(projector: Projector, state: RunState, slots: Occupancy, now_us: int, end: int) -> Facts:
    """What the starts of a run depend on, as far as the log tells of it.

    Args:
        slots: of the whole store at ``end``, the last event that is looked at.
    """
    agents = facts_of(projector, state, now_us, end)
    circuits = circuit_facts(projector.log, state, slots.slots, now_us, end)
    machine = machine_in_log(projector, state, slots, end)
    return Facts(len(slots.slots), slots.of_run(state.run_id), agents, circuits, machine=machine)


def standpoint(projector: Projector, run_id: str, end: int, now_us: int) -> Standpoint:
    """A run at an event.

    Raises:
        UnknownRun: it has no event up to there.
    """
    state = projector.state(run_id, end)
    return Standpoint(state, facts_at(projector, state, projector.occupancy(end), now_us, end), now_us)
