"""What people did in a run that is played again otherwise: done again where it can be, and told where it cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.otherwise.recording import Look, Recording
from parallel_agents.otherwise.virtual_run import VirtualRun
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide import (
    decide_cancel,
    decide_cancel_task,
    decide_pause,
    decide_resume,
    decide_retry,
)
from parallel_agents.scheduler.decide_settling import decide_approve_start
from parallel_agents.scheduler.work import APPROVAL

_STEERS: Final = (
    ev.RunPaused | ev.RunResumed | ev.RunCancelRequested | ev.TaskCancelRequested | ev.TaskCancelled | ev.BudgetChanged
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something that was done then and is not done now."""

    at: str
    what: str
    why: str


@dataclass(slots=True)
class Steering:
    """What is still to be done in one run.

    Attributes:
        timed: at which time which commands come, oldest first; those of other runs as events.
        approvals: by task, how long each wait for an approval took, in microseconds.
        retries: how long after its end the run was opened again, and which tasks were.
        dropped: what could not be done.
    """

    timed: list[tuple[int, list[Recorded]]] = field(default_factory=list)
    approvals: dict[str, list[int]] = field(default_factory=dict)
    retries: list[tuple[int, list[str]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    _answers: dict[str, int] = field(default_factory=dict)  # By task, when its start is approved.
    _answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def next_us(self, state: RunState) -> int | None:
        """When somebody does something next."""
        times = [self.timed[0][0]] if self.timed else []
        times += self._answers.values()
        if self.retries and state.ended and state.ended_at_us is not None:
            times.append(state.ended_at_us + self.retries[0][0])
        return min(times, default=None)

    def begin(self, records: Sequence[Recorded], run_id: str) -> None:
        """Take note of the waits for approvals that have begun, and of those that are over."""
        for one in records:
            if one.run_id == run_id:
                self.look(one)

    def look(self, record: Recorded) -> None:
        """Take note of what has happened: a task that waits for an approval gets it after as long as then."""
        match record.event:
            case ev.TaskBlocked(task_id=name, attempt_id=None, reason=reason) if reason == APPROVAL:
                waits, number = self.approvals.get(name, []), self._answered[name]
                if number < len(waits):
                    self._answers[name] = record.at_us + waits[number]
                    self._answered[name] += 1
            case ev.TaskUnblocked(task_id=name):
                self._answers.pop(name, None)
            case _:
                pass

    def act(self, world: VirtualRun, state: RunState) -> None:
        """Do what is due."""
        while self.timed and self.timed[0][0] <= world.now_us:
            at_us, records = self.timed.pop(0)
            self._steer(world, state, at_us, records)
        for name in [name for name, at_us in self._answers.items() if at_us <= world.now_us]:
            del self._answers[name]
            self._append(world, world.now_us, "approve", partial(decide_approve_start, state, name))
        if self.retries and state.ended and state.ended_at_us is not None:
            after_us, names = self.retries[0]
            if state.ended_at_us + after_us <= world.now_us:
                self.retries.pop(0)
                open_ = [name for name in names if state.tasks[name].status in (st.FAILED, st.CANCELLED)]
                if not open_:
                    self.dropped.append(Dropped(rfc3339(world.now_us), "retry", "nothing of it has failed"))
                else:
                    self._append(world, world.now_us, "retry", lambda: decide_retry(state, open_))

    def _steer(self, world: VirtualRun, state: RunState, at_us: int, records: Sequence[Recorded]) -> None:
        others = [(one.run_id, one.event) for one in records if one.run_id != world.run_id]
        if others:
            world.append(others)
        for one in records:
            if one.run_id == world.run_id:
                self._command(world, state, at_us, one.event)

    def _command(self, world: VirtualRun, state: RunState, at_us: int, event: Event) -> None:
        match event:
            case ev.RunPaused(reason=reason):
                self._append(world, at_us, "pause", lambda: decide_pause(state, reason))
            case ev.RunResumed(reason=reason):
                self._append(world, at_us, "resume", lambda: decide_resume(state, reason))
            case ev.RunCancelRequested(reason=reason, grace_s=grace_s):
                self._append(world, at_us, "cancel", lambda: decide_cancel(state, reason, grace_s=grace_s))
            case ev.TaskCancelRequested(task_id=name) | ev.TaskCancelled(task_id=name):
                self._append(world, at_us, f"cancel {name}", lambda: decide_cancel_task(state, name, event.reason))
            case ev.BudgetChanged():
                self._append(world, at_us, "budget", lambda: [event])
            case _:
                raise AssertionError(f"nobody steers by {type(event).__name__}")

    def _append(self, world: VirtualRun, at_us: int, what: str, decide: Callable[[], list[Event]]) -> None:
        try:
            events = decide()
        except ParallelAgentsError as error:
            self.dropped.append(Dropped(rfc3339(at_us), what, error.message))
        else:
            world.append([(world.run_id, event) for event in events])


def steering_of(recording: Recording, first: int) -> Steering:
    """What was done in a run from a look on, by the look's number, and how long people took for answers."""
    found = Steering()
    found.approvals = _approvals(recording)
    ended_us: int | None = None
    for number, look in enumerate(recording.looks):
        own = [one for one in look.records if one.run_id == recording.run_id]
        if number >= first:
            _take(found, look, own, recording.run_id, ended_us)
        for one in own:
            if isinstance(one.event, ev.RunCompleted | ev.RunFailed | ev.RunCancelled):
                ended_us = one.at_us
            elif isinstance(one.event, ev.RunResumed):
                ended_us = None
    return found


def _take(found: Steering, look: Look, own: list[Recorded], run_id: str, ended_us: int | None) -> None:
    records = [one for one in look.records if one.run_id != run_id]
    if not look.dispatcher:
        back = next((one for one in own if isinstance(one.event, ev.RunRolledBack)), None)
        opened = [one.event.task_id for one in own if isinstance(one.event, ev.TaskReopened)]
        if back is not None:
            found.dropped.append(
                Dropped(rfc3339(look.at_us), "rollback", "where it would go back to is another place by then")
            )
        elif opened and ended_us is not None:
            found.retries.append((look.at_us - ended_us, opened))
        elif opened:
            found.dropped.append(Dropped(rfc3339(look.at_us), "retry", "made before the run had ended"))
        else:
            records += [one for one in own if isinstance(one.event, _STEERS)]
    if records:
        found.timed.append((look.at_us, records))


def _approvals(recording: Recording) -> dict[str, list[int]]:
    waits: dict[str, list[int]] = defaultdict(list)
    since: dict[str, int] = {}
    for look in recording.looks:
        for one in look.records:
            if one.run_id != recording.run_id:
                continue
            match one.event:
                case ev.TaskBlocked(task_id=name, attempt_id=None, reason=reason) if reason == APPROVAL:
                    since[name] = one.at_us
                case ev.TaskUnblocked(task_id=name) if name in since:
                    waits[name].append(one.at_us - since.pop(name))
                case _:
                    pass
    return waits
