"""Which attempts hold a slot. Scope ALL: over the whole store, rollbacks or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.record import Recorded, Row, decode

CALLABLE = "python"  # The runner of what is no process of its own.
EXPECTED_MEMORY = "memory_bytes"  # Among the facts of a start: what such attempts have needed before.


@dataclass(slots=True)
class Occupancy:
    """The attempts that were started and have not ended, with their run."""

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
            take(state, attempt_id, record.run_id, event.runner, event.facts)
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost() | ev.ResultDiscarded():
            _free(state, event.attempt_id)
        case ev.TaskCancelled(attempt_id=attempt_id) | ev.TaskBlocked(attempt_id=attempt_id):
            _free(state, attempt_id or "")  # Empty: no attempt of it was running.
        case ev.RunArchived(run_id=run_id):  # It held none, but ends that it tells of may not be readable any more.
            for attempt_id in list(state.by_run.get(run_id, ())):
                _free(state, attempt_id)
        case _:
            raise AssertionError(f"occupancy does not fold {type(event).__name__}")
    return state


TYPES: Final = (
    "TaskStarted", "TaskCompleted", "TaskFailed", "TaskTimedOut", "TaskCancelled", "AttemptLost", "TaskBlocked",
    "ResultDiscarded",
)  # fmt: skip
_FOLDED = frozenset({*(ev.EVENT_TYPES[name] for name in TYPES), ev.RunArchived})


def fold_row(state: Occupancy, row: Row) -> Occupancy:
    """The same from a stored row of one of the types. The attempt's id says all."""
    if row.body == ELSEWHERE:
        return state
    try:
        data = orjson.loads(row.body)
        if "schema_version" not in data and row.type != "RunArchived":
            if row.type == "TaskStarted":
                take(state, data["attempt_id"], row.run_id, data["runner"], data["facts"])
            else:
                _free(state, data.get("attempt_id") or "")
            return state
    except (KeyError, TypeError, ValueError, AttributeError):  # Damaged.
        pass
    return fold(state, decode(row))


def take(state: Occupancy, attempt_id: str, run_id: str, runner: str, facts: Mapping[str, Any]) -> None:
    """An attempt holds a slot from here on."""
    state.slots[attempt_id] = run_id
    state.by_run.setdefault(run_id, set()).add(attempt_id)
    if runner == CALLABLE:
        state.calls.add(attempt_id)
    elif (expected := facts.get(EXPECTED_MEMORY)) is not None:
        state.memory[attempt_id] = expected


def _free(state: Occupancy, attempt_id: str) -> None:
    run_id = state.slots.pop(attempt_id, None)
    if run_id is not None:
        state.calls.discard(attempt_id)
        state.memory.pop(attempt_id, None)
        of = state.by_run[run_id]
        of.discard(attempt_id)
        if not of:
            del state.by_run[run_id]


def of_runs(state: Occupancy, run_ids: Collection[str]) -> Occupancy:
    """The part of it that is of some runs. Consumes the whole."""
    for attempt_id in [attempt_id for attempt_id, run_id in state.slots.items() if run_id not in run_ids]:
        _free(state, attempt_id)
    return state
