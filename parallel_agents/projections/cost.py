"""What was spent. Scope ALL: a rollback takes back states and files, never money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, rfc3339

GROUPINGS = ("agent", "model", "task", "day")

_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Cost:
    """Micro-dollars, in all and by what they were spent on. Days are UTC."""

    usd_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    partial: bool = False  # Some charge is an estimate of an attempt that was cut off.
    by_task: Counter[str] = field(default_factory=Counter)
    shares: dict[tuple[str, str | None, int], int] = field(
        default_factory=dict
    )  # By agent, model, days since the epoch.

    def grouped(self, by: str) -> Counter[str]:
        """Micro-dollars by one of ``GROUPINGS``."""
        if by == "task":
            return self.by_task
        groups: Counter[str] = Counter()
        for (agent_type, model, day), micros in self.shares.items():
            names = {"agent": agent_type or "unknown", "model": model or "unknown", "day": rfc3339(day * _DAY_US)[:10]}
            groups[names[by]] += micros
        return groups


def fold(state: Cost, record: Recorded) -> Cost:
    """The spending after one more event."""
    if isinstance(record.event, ev.CostCharged):
        charge(state, record.at_us, record.event.__dict__)
    return state


def charge(state: Cost, at_us: int, fields: Mapping[str, Any]) -> None:
    """Add one charge, given by the fields of its event."""
    micros, task_id, share = (
        fields["usd_micros"],
        fields["task_id"],
        (fields["agent_type"], fields["model"], at_us // _DAY_US),
    )
    input_tokens, output_tokens, calls = fields["input_tokens"], fields["output_tokens"], fields["calls"]
    state.partial = state.partial or fields["partial"]
    state.usd_micros += micros
    state.input_tokens += input_tokens
    state.output_tokens += output_tokens
    state.calls += calls
    by_task, shares = state.by_task, state.shares
    by_task[task_id] = by_task.get(task_id, 0) + micros
    shares[share] = shares.get(share, 0) + micros
