"""Who holds which run, and which attempts hold a slot. Scope ALL: over the whole store, rollbacks or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

CALLABLE = "python"  # The runner of what is no process of its own.
EXPECTED_MEMORY = "memory_bytes"  # Among the facts of a start: what such attempts have needed before.


@dataclass(slots=True)
class Lease:
    """A run's holder: a process identity (pid, start_time, boot_id, kind), or None after a release."""

    holder: dict[str, Any] | None
    epoch: int


@dataclass(slots=True)
class Occupancy:
    """Leases by run, and the attempts that were started and have not ended, with their run."""

    leases: dict[str, Lease] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)  # Attempt id -> run id.
    by_run: dict[str, set[str]] = field(default_factory=dict)  # Run id -> its attempt ids in `slots`.
    calls: set[str] = field(default_factory=set)  # Those that are no processes: callables of a Python program.
    memory: dict[str, int] = field(
        default_factory=dict
    )  # Attempt id -> bytes that it was expected to need, where known.

    def of_run(self, run_id: str) -> int:
        """How many slots a run holds."""
        return len(self.by_run.get(run_id, ()))


def fold(state: Occupancy, record: Recorded) -> Occupancy:
    """The occupancy after one more event of any run."""
    event = record.event
    if type(event) not in _FOLDED:  # A look in a set instead of a dozen at classes, for most events of a log.
        return state
    match event:
        case ev.TaskStarted(attempt_id=attempt_id):
            state.slots[attempt_id] = record.run_id
            state.by_run.setdefault(record.run_id, set()).add(attempt_id)
            if event.runner == CALLABLE:
                state.calls.add(attempt_id)
            elif (expected := event.facts.get(EXPECTED_MEMORY)) is not None:
                state.memory[attempt_id] = expected
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost() | ev.ResultDiscarded():
            _free(state, event.attempt_id)
        case ev.TaskCancelled(attempt_id=attempt_id) | ev.TaskBlocked(attempt_id=attempt_id):
            _free(state, attempt_id or "")  # Empty: no attempt of it was running.
        case ev.RunClaimed():
            state.leases[record.run_id] = Lease(event.holder, event.epoch)
        case ev.RunReleased():
            lease = state.leases.get(record.run_id)
            if lease is not None and lease.epoch == event.epoch:
                lease.holder = None
        case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
            if record.run_id in state.leases:  # A run that has ended is held by nobody.
                state.leases[record.run_id].holder = None
        case _:
            raise AssertionError(f"occupancy does not fold {type(event).__name__}")
    return state


_FOLDED = frozenset(
    {
        ev.TaskStarted, ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.AttemptLost,
        ev.TaskBlocked, ev.ResultDiscarded, ev.RunClaimed, ev.RunReleased, ev.RunCompleted, ev.RunFailed, ev.RunCancelled,
    }
)  # fmt: skip


def _free(state: Occupancy, attempt_id: str) -> None:
    run_id = state.slots.pop(attempt_id, None)
    if run_id is not None:
        state.by_run[run_id].discard(attempt_id)
        state.calls.discard(attempt_id)
        state.memory.pop(attempt_id, None)
