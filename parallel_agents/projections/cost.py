"""What was spent, in all and by task. Scope ALL: a rollback takes back states and files, never money.

``charge`` is called for every row of a replay, so it keeps sums only; who wants to know what the money went to folds a
``bill``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

ESTIMATED: Final = "estimated"  # The source of a charge that is tokens times the price table.
REPORTED: Final = "agent"


@dataclass(slots=True)
class Cost:
    """Micro-dollars and tokens. What nobody knows the price of is counted apart, and in no sum of money."""

    usd_micros: int = 0
    estimated_usd_micros: int = 0  # The part of it that we have reckoned from tokens.
    input_tokens: int = 0  # From and to no cache.
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    calls: int = 0
    partial: bool = False  # Some charge is of an attempt that was cut off.
    by_task: Counter[str] = field(default_factory=Counter)  # Micro-dollars.
    unknown: dict[str, str] = field(default_factory=dict)  # Attempts that cost nobody knows what, with their task.


def fold(state: Cost, record: Recorded) -> Cost:
    """The spending after one more event."""
    if isinstance(record.event, ev.CostCharged):
        charge(state, record.event.__dict__)
    return state


def charge(state: Cost, fields: Mapping[str, Any]) -> None:
    """Add one charge, given by the fields of its event; a body of an older release lacks some."""
    if len(fields) != _FIELDS:
        fields = {**ev.CostCharged.field_defaults, **fields}
    micros, task_id = fields["usd_micros"], fields["task_id"]
    input_tokens, output_tokens, calls = fields["input_tokens"], fields["output_tokens"], fields["calls"]
    read, written, source = fields["cache_read_tokens"], fields["cache_write_tokens"], fields["source"]
    state.partial = state.partial or fields["partial"]
    state.input_tokens += input_tokens
    state.output_tokens += output_tokens
    state.calls += calls
    if read or written:
        state.cache_read_tokens += read
        state.cache_write_tokens += written
    if micros is None:
        state.unknown[fields["attempt_id"]] = task_id
        return
    state.usd_micros += micros
    if source == ESTIMATED:
        state.estimated_usd_micros += micros
    by_task = state.by_task
    by_task[task_id] = by_task.get(task_id, 0) + micros


_FIELDS: Final = len(ev.CostCharged.model_fields)
