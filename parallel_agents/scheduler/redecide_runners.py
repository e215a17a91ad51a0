"""What was said of runners and of providers, decided again. Pure.

It stands in events of no run. Those are judged with the run whose attempt they tell of: why an attempt failed (by its runner's
fault, since its provider refused) is what was seen, and what follows from that is decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.projections.circuits import Circuit
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import BUILT_IN, clients
from parallel_agents.scheduler.agents.granting import provider_of
from parallel_agents.scheduler.breaker import (
    ALIVE,
    decide_failure,
    decide_proof,
    decide_success,
    decide_trial,
    worked,
)
from parallel_agents.scheduler.circuits import policy_of
from parallel_agents.scheduler.decide_money import WAITS, decide_provider
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged, missing


@dataclass(slots=True)
class RunnersAgain:
    """The runners and the providers of one run's attempts, event after event.

    Args:
        judged: counts go there.
    """

    judged: Judged
    trials: set[str] = field(default_factory=set)  # Attempts that were said to try a runner.
    refused: set[str] = field(default_factory=set)  # Attempts that were said to be refused by a provider.

    def judge(self, state: RunState, record: Recorded, coming: Sequence[Recorded], around: Around) -> Divergence | None:
        """Decide again what was said of a runner or of a provider, where an attempt of the run is why.

        Args:
            state: of the run, before that event.
            coming: events of the run that were appended together with it, and after it.
        """
        match record.event:
            case ev.RunnerFailed(attempt_id=attempt_id) | ev.CircuitOpened(attempt_id=attempt_id):
                task = _task_of(state, attempt_id)
                return None if task is None else self._judge_failure(state, task, record, coming, around)
            case ev.CircuitHalfOpened(attempt_id=attempt_id):
                self.trials.add(attempt_id)
                start = next((one.event for one in coming if _starts(one.event, attempt_id)), None)
                if not isinstance(start, ev.TaskStarted):
                    return None
                made = decide_trial(around.circuits, start, record.at_us)
                return self.judged.as_made(record, made, ("runner", "attempt_id"))
            case ev.CircuitClosed(attempt_id=attempt_id):
                return self._judge_closed(state, record, coming, around)
            case ev.ProviderLimited(attempt_id=attempt_id):
                self.refused.add(attempt_id)
                task = _task_of(state, attempt_id)
                if task is None:
                    if around.occupancy.slots.get(attempt_id) == state.run_id:
                        self.judged.unjudged(record)  # A rollback has undone it: when it began stands in no state.
                    return None
                return self._judge_limited(task, record, coming, around)
            case ev.ProviderFreed():
                return self._judge_freed(state, record, coming, around)
            case _:
                return None

    def untried(self, starts: Sequence[Recorded], around: Around) -> Divergence | None:
        """A start that tries a runner whose circuit is half open, of which that was not said."""
        for record in starts:
            start = record.event
            if isinstance(start, ev.TaskStarted) and start.attempt_id not in self.trials:
                trial = decide_trial(around.circuits, start, record.at_us)
                if trial is not None:
                    return missing(record, None, trial, "before")
        return None

    def unsaid(self, state: RunState, record: Recorded, around: Around) -> Divergence | None:
        """Something that the end of an attempt says of its runner or its provider, and that was not said before it."""
        match record.event:
            case ev.TaskCompleted(attempt_id=attempt_id):
                task = _task_of(state, attempt_id)
                due = None if task is None else _closed_by(state, task, record, around)
            case ev.TaskFailed(attempt_id=attempt_id, kind=kind) if kind in WAITS and attempt_id not in self.refused:
                task = _task_of(state, attempt_id)
                due = None if task is None else _refused_by(state, task, kind, record, around)
            case _:
                due = None
        return None if due is None else missing(record, None, due, "before")

    def _judge_failure(
        self, state: RunState, task: TaskState, record: Recorded, coming: Sequence[Recorded], around: Around
    ) -> Divergence | None:
        told, policy, runner = record.event, policy_of(state), task.runner
        assert isinstance(told, ev.RunnerFailed | ev.CircuitOpened)
        if policy is None or runner in (None, "python") or task.cancel_requested or state.cancel_requested:
            return self.judged.as_made(record, None, ())
        assert runner is not None
        end = _end_of(told.attempt_id, coming)
        lost = told.lost if end is None else isinstance(end, ev.AttemptLost)
        ended = Ended(told.attempt_id, "lost" if lost else "exited", error=told.reason)
        circuit, started_us = around.circuits.get(runner), task.started_at_us or 0
        made = decide_failure(circuit, runner, ended, started_us, record.at_us, policy).event
        opened = ("until", "failures", "openings") if isinstance(told, ev.CircuitOpened) else ()
        return self.judged.as_made(record, made, ("runner", "attempt_id", "lost", *opened))

    def _judge_closed(
        self, state: RunState, record: Recorded, coming: Sequence[Recorded], around: Around
    ) -> Divergence | None:
        told = record.event
        assert isinstance(told, ev.CircuitClosed)
        circuit = around.circuits.get(told.runner)
        ended_well = (task for task in _ended_well(state, coming) if task.runner == told.runner)
        task = _task_of(state, told.attempt_id) if told.attempt_id else next(ended_well, None)
        if task is None:
            if not told.attempt_id and circuit is not None and circuit.trial in state.running:
                self.judged.unjudged(record)  # An older release did not say for how long its trial had run.
            return None
        made = None if circuit is None else _works(circuit, told, task, record, coming)
        return self.judged.as_made(record, made, ("runner",))

    def _judge_freed(
        self, state: RunState, record: Recorded, coming: Sequence[Recorded], around: Around
    ) -> Divergence | None:
        told, spend, table = record.event, around.spend, clients(state.plan.agents.clients)
        assert isinstance(told, ev.ProviderFreed)
        ended_well = (
            task for task in _ended_well(state, coming) if provider_of(task.runner or "", table) == told.provider
        )
        task = _task_of(state, told.attempt_id) if told.attempt_id else next(ended_well, None)
        if task is None or spend is None:
            return None
        attempt_id = task.attempt_id or ""
        ended = Ended(attempt_id, "exited", provider=told.provider, got_through=True)
        made = decide_provider(spend, ended, task.started_at_us or 0, task.model, record.at_us)
        return self.judged.as_made(record, made, ("provider",))

    def _judge_limited(
        self, task: TaskState, record: Recorded, coming: Sequence[Recorded], around: Around
    ) -> Divergence | None:
        told, spend = record.event, around.spend
        assert isinstance(told, ev.ProviderLimited)
        if spend is None:
            return self.judged.as_made(record, None, ())
        end = _end_of(told.attempt_id, coming)
        kind = end.kind if isinstance(end, ev.TaskFailed) else told.kind
        until_us = from_rfc3339(told.until) if told.stated else None
        ended = Ended(
            told.attempt_id, "exited", error=told.reason, kind=kind, provider=told.provider, until_us=until_us
        )
        made = decide_provider(spend, ended, task.started_at_us or 0, task.model, record.at_us)
        return self.judged.as_made(record, made, ("kind", "until", "model", "stated", "count"))


def _works(
    circuit: Circuit, told: ev.CircuitClosed, task: TaskState, record: Recorded, coming: Sequence[Recorded]
) -> ev.CircuitClosed | None:
    """What closes a circuit: the end of an attempt, or that its trial was seen to run for long."""
    if ALIVE in told.facts:
        return decide_proof(circuit, told.runner, round(told.facts[ALIVE] * 1e6), record.at_us)
    attempt_id = task.attempt_id or ""
    end = _end_of(attempt_id, coming)
    if end is None or isinstance(end, ev.AttemptLost | ev.TaskTimedOut):
        return None
    if not worked(Ended(attempt_id, "exited", kind=end.kind if isinstance(end, ev.TaskFailed) else "")):
        return None
    return decide_success(circuit, task.runner or "", attempt_id, task.started_at_us or 0, record.at_us, "")


def _closed_by(state: RunState, task: TaskState, record: Recorded, around: Around) -> Event | None:
    """That a circuit is closed by an attempt that has come to its end."""
    circuit = around.circuits.get(task.runner or "")
    if circuit is None or policy_of(state) is None or record.at_us in (circuit.opened_us, *circuit.failures[-1:]):
        return None  # What failed in the same moment may have been looked at after it.
    return decide_success(circuit, task.runner or "", task.attempt_id or "", task.started_at_us or 0, record.at_us, "")


def _refused_by(state: RunState, task: TaskState, kind: str, record: Recorded, around: Around) -> Event | None:
    """That a provider has refused an attempt that began after the last time that this was found out."""
    spend, runner = around.spend, task.runner or ""
    if spend is None or runner not in BUILT_IN:
        return None  # Only of those is it known whom they ask.
    provider = provider_of(runner, clients(state.plan.agents.clients))
    before, started_us = spend.waits.get(provider), task.started_at_us or 0
    if before is not None and started_us < before.seen_us:
        return None
    ended = Ended(task.attempt_id or "", "exited", kind=kind, provider=provider)
    return decide_provider(spend, ended, started_us, task.model, record.at_us)


def _task_of(state: RunState, attempt_id: str) -> TaskState | None:
    task_id = state.running.get(attempt_id)
    return None if task_id is None else state.tasks[task_id]


def _ended_well(state: RunState, coming: Sequence[Recorded]) -> Iterator[TaskState]:
    """The tasks whose attempts have come to a good end, among events that were appended together."""
    for one in coming:
        if isinstance(one.event, ev.TaskCompleted) and (task := _task_of(state, one.event.attempt_id)) is not None:
            yield task


def _starts(event: Event, attempt_id: str) -> bool:
    return isinstance(event, ev.TaskStarted) and event.attempt_id == attempt_id


def _end_of(attempt_id: str, coming: Sequence[Recorded]) -> Event | None:
    """What ends an attempt, among events that were appended together."""
    ends = ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost | ev.TaskCancelled | ev.TaskBlocked
    return next(
        (one.event for one in coming if isinstance(one.event, ends) and one.event.attempt_id == attempt_id), None
    )
