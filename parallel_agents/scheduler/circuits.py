"""What a dispatcher knows of the circuits of runners, and what it has to say about them in the log."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode_brief
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.circuits import Circuit, Circuits
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.breaker import (
    PROOF_US,
    CircuitFacts,
    Policy,
    blamed,
    decide_failure,
    decide_proof,
    decide_success,
    decide_trial,
    standing,
    worked,
)
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.scheduler.runners.protocol import Ended

_OF_CIRCUITS: Final = f"type IN {circuits_fold.FOLDED}"
_OWN_KINDS: Final = frozenset({"agent", "no_change", "budget", "rate_limit", "usage_limit", "overload"})
"""Failures of an agent whose client has done its part."""


def read_circuits(log: Log, upto: int | None = None) -> Circuits:
    """The circuits of a store: they stand in the few events of no run."""
    found: Circuits = {}
    for brief in log.briefs(STORE_RUN, 0, upto, where=_OF_CIRCUITS):
        circuits_fold.fold(found, decode_brief(STORE_RUN, brief))
    return found


def policy_of(state: RunState) -> Policy | None:
    """The limits of a run; None where no failure of a runner means anything to it."""
    settings = state.plan.settings
    if settings.circuit_failures is None:
        return None
    return Policy(settings.circuit_failures, round(settings.circuit_reset_s * 1e6))


def facts_of(circuits: Circuits, state: RunState, running: Collection[str], now_us: int) -> CircuitFacts | None:
    """What the starts of a run depend on; None where every runner works as far as anybody knows.

    Args:
        running: attempts of the store that hold a slot.
    """
    if not circuits or policy_of(state) is None:
        return None
    return CircuitFacts(circuits, frozenset(running), now_us, set())


class Breakers:
    """Called from the dispatcher's thread only."""

    def __init__(self, log: Log) -> None:
        self.circuits: Circuits = {}
        self._log = log
        self._alive_us: dict[str, int] = {}  # Trials, and when each was first seen to run, by the steady clock.

    def load(self, upto: int) -> None:
        """Read them anew."""
        self.circuits = read_circuits(self._log, upto)

    def fold(self, record: Recorded) -> None:
        """Keep up with the log."""
        if record.run_id == STORE_RUN:
            circuits_fold.fold(self.circuits, record)

    def facts(self, state: RunState, running: Collection[str], now_us: int) -> CircuitFacts | None:
        """See ``facts_of``."""
        return facts_of(self.circuits, state, running, now_us)

    def judged(self, state: RunState, task: TaskState, ended: Ended, now_us: int) -> tuple[Ended, Event | None]:
        """An end with what it costs its task, where its runner is to blame for it, and what it says of that runner."""
        policy, runner = policy_of(state), task.runner
        if policy is None or runner is None or runner == "python" or ended.attempt_id not in state.running:
            return ended, None
        circuit, started_us = self.circuits.get(runner), task.started_at_us or 0
        if worked(ended):
            if circuit is None:
                return ended, None
            why = "came to its end"
            return ended, decide_success(circuit, runner, ended.attempt_id, started_us, now_us, why)
        if not ended.fault or task.cancel_requested or state.cancel_requested:
            return ended, None
        if not blamed(ended, has_worked=circuit is not None or _has_worked(state, task, now_us)):
            return ended, None
        ended = replace(ended, error=storable_text(ended.error or ended.outcome), retryable=True)
        said = decide_failure(circuit, runner, ended, started_us, now_us, policy)
        return replace(ended, free=said.free), said.event

    def tried(self, start: ev.TaskStarted, now_us: int) -> Event | None:
        """See ``decide_trial``."""
        return decide_trial(self.circuits, start, now_us)

    def proven(self, state: RunState, alive: Collection[str], steady_us: int, now_us: int) -> list[Event]:
        """Runners that work because their trial, in this run, has run for long enough.

        Args:
            alive: attempts whose processes run in this moment.
        """
        found: list[Event] = []
        for runner, circuit in self._on_trial(state, now_us):
            trial = circuit.trial or ""
            if trial not in alive:
                self._alive_us.pop(trial, None)
                continue
            alive_us = steady_us - self._alive_us.setdefault(trial, steady_us)
            closed = decide_proof(circuit, runner, alive_us, now_us)
            found += [] if closed is None else [closed]
        return found

    def asks_for_proof(self, state: RunState, now_us: int) -> bool:
        """Whether a run has a trial under way."""
        return bool(self.circuits) and any(True for _ in self._on_trial(state, now_us))

    def _on_trial(self, state: RunState, now_us: int) -> list[tuple[str, Circuit]]:
        return [
            (runner, circuit)
            for runner, circuit in self.circuits.items()
            if circuit.trial in state.running and standing(circuit, now_us) == "half_open"
        ]

    def next_due_us(self, now_us: int) -> int | None:
        """When the time of the next open circuit is over."""
        due = [one.until_us for one in self.circuits.values() if one.until_us is not None and one.until_us > now_us]
        return min(due, default=None)


def _has_worked(state: RunState, of: TaskState, now_us: int) -> bool:
    """Whether the runner of a task was seen to work in its run. Goes through all tasks, which a failure may cost."""
    return any(
        task.runner == of.runner
        and task is not of
        and (
            task.status == st.COMPLETED
            or task.failure_kind in _OWN_KINDS
            or (task.status == st.RUNNING and now_us - (task.started_at_us or now_us) >= PROOF_US)
        )
        for task in state.tasks.values()
    )
