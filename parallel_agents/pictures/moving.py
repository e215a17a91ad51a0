"""A run as its scheduler saw it, moved on event by event: a ``Standpoint`` at each, and nothing is read twice."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import groupby

from parallel_agents.around import before_of, types_around
from parallel_agents.eventstore.events import RunClaimed, RunReleased, RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections import needs as needs_fold
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.needs import FOLDED as OF_NEEDS
from parallel_agents.projections.projector import Projector, placed, unknown_run
from parallel_agents.projections.spend import DAY_US, MINUTE_US, Spend
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.accounts import agent_facts, has_agents
from parallel_agents.scheduler.budget import BudgetsAtHand
from parallel_agents.scheduler.circuits import facts_of as circuit_facts
from parallel_agents.scheduler.circuits import read_circuits
from parallel_agents.scheduler.governing import limited, machine_of
from parallel_agents.scheduler.machine_load import UNKNOWN
from parallel_agents.scheduler.plan import Facts

_AROUND = types_around(agents=True) | {cls.__name__ for cls in OF_NEEDS} | {"RunArchived"}
_OF_OTHERS = f"type IN {tuple(sorted(_AROUND))}"


class Moving:
    """One run between its first event and the last one that is looked at.

    Args:
        upto: look at no later event of the store; None: at all of them.
    Raises:
        UnknownRun: the run has no event up to there.
    """

    def __init__(self, log: Log, run_id: str, upto: int | None = None) -> None:
        end = log.last_seq() if upto is None else upto
        ends = log.ends_of_run(run_id, end)
        if ends is None:
            raise unknown_run(log, run_id, upto)
        self.first, last = (row.seq for row in ends)
        self.log, self.run_id, self._projector = log, run_id, Projector(log)
        self.state = st.initial(run_id)
        self.held = True  # Whether a process dispatches the run, as far as its leases tell.
        # What comes after a run that has ended is none of its waits, and of one that was imported nothing is known.
        over = log.carried is not None or self._projector.runs(end)[run_id].status in st.ENDED
        self.end = last if over else end
        row = log.row(self.end)
        assert row is not None
        self.end_us = row.at_us
        before = self.first - 1
        elsewhere = None if log.carried is None else before_of(log.carried.around)
        self.occupancy = self._projector.occupancy(before) if elsewhere is None else elsewhere.occupancy
        self.circuits = read_circuits(log, before) if elsewhere is None else elsewhere.circuits
        self._before = None if elsewhere is None else elsewhere.spend or Spend()
        self._spend: Spend | None = None
        self._needs = self._projector.needs(before)
        self._budgets = BudgetsAtHand()
        self._others: dict[str, RunState] = {}

    def moments(self) -> Iterator[tuple[int, list[Recorded]]]:
        """The events that make a difference to the run, those of one time together. Times are microseconds since the epoch."""
        own = self.log.rows(self.first - 1, self.end, run_id=self.run_id)
        # Also out of archives: whose slot was freed stands in the body of an end.
        around = self.log.rows(self.first - 1, self.end, where=_OF_OTHERS)
        others = (row for row in around if row.run_id != self.run_id and row.body)
        rows = heapq.merge(own, others, key=lambda row: row.seq)
        for at_us, together in groupby(rows, lambda row: row.at_us):
            yield at_us, [decode(row) for row in together]

    def fold(self, record: Recorded) -> bool:
        """Move on by one event; gives whether the state is another one from here on."""
        event, other = record.event, False
        if record.run_id == self.run_id:
            if isinstance(event, RunRolledBack):
                self.state, other = self._projector.whole_state(self.run_id, record.seq), True
            else:
                self.state = placed(self.log, st.fold(self.state, record, self.log.blob))
            if isinstance(event, RunClaimed | RunReleased):
                self.held = isinstance(event, RunClaimed)
            if self._spend is None and self.state.version == 1 and has_agents(self.state):
                self._spend = self._projector.spend(self.first - 1) if self._before is None else self._before
        occupancy_fold.fold(self.occupancy, record)
        circuits_fold.fold(self.circuits, record)
        needs_fold.fold(self._needs, record)
        if self._spend is not None:
            spend_fold.fold(self._spend, record)
        return other

    def facts(self, now_us: int) -> Facts:
        """What the starts of the run depend on at this place, as far as the log tells of it."""
        state, slots = self.state, self.occupancy
        agents = None
        if self._spend is not None:
            others = {one.run_id for one in self._spend.running.values() if one.agent} - {self.run_id}
            states = {self.run_id: state, **{name: self._other(name) for name in others if self.log.carried is None}}
            agents = agent_facts(self._spend, state, states, now_us, {}, self._budgets.of(self.state))
        circuits = circuit_facts(self.circuits, state, slots.slots, now_us)
        machine = machine_of(UNKNOWN, slots, self._needs) if limited(state.plan.settings) else None
        return Facts(len(slots.slots), slots.of_run(self.run_id), agents, circuits, machine=machine)

    def _other(self, run_id: str) -> RunState:
        if run_id not in self._others:
            self._others[run_id] = self._projector.state(run_id, self.end)
        return self._others[run_id]

    def due_after(self, now_us: int) -> int | None:
        """When next something changes for its starts without an event, but for the ends of rests; None: never."""
        due = [one.until_us for one in self.circuits.values() if one.until_us is not None]
        if self._spend is not None:
            due += [wait.until_us for wait in self._spend.waits.values()]
            due += [at_us + MINUTE_US for at_us, _ in self._spend.recent]
            if self._budgets.of(self.state).limited:
                due.append((now_us // DAY_US + 1) * DAY_US)  # Days, and hence weeks and months, are UTC.
        return min((when for when in due if when > now_us), default=None)
