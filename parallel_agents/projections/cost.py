"""What was spent. Scope ALL: a rollback takes back states and files, never money."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, rfc3339

GROUPINGS = ("agent", "model", "task", "day")


@dataclass(slots=True)
class Cost:
    """Micro-dollars, in all and by what they were spent on. Days are UTC."""

    usd_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    partial: bool = False  # Some charge is an estimate of an attempt that was cut off.
    by_agent: Counter[str] = field(default_factory=Counter)
    by_model: Counter[str] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    by_day: Counter[str] = field(default_factory=Counter)

    def grouped(self, by: str) -> Counter[str]:
        """The counter of one of ``GROUPINGS``."""
        groups = {"agent": self.by_agent, "model": self.by_model, "task": self.by_task, "day": self.by_day}
        return groups[by]


def fold(state: Cost, record: Recorded) -> Cost:
    """The spending after one more event."""
    event = record.event
    if isinstance(event, ev.CostCharged):
        state.usd_micros += event.usd_micros
        state.input_tokens += event.input_tokens
        state.output_tokens += event.output_tokens
        state.calls += event.calls
        state.partial = state.partial or event.partial
        state.by_agent[event.agent_type or "unknown"] += event.usd_micros
        state.by_model[event.model or "unknown"] += event.usd_micros
        state.by_task[event.task_id] += event.usd_micros
        state.by_day[rfc3339(record.at_us)[:10]] += event.usd_micros
    return state
