"""What comes of making past decisions again, and what the rest of a log says of the moment of one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.circuits import Circuits
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.spend import Spend
from parallel_agents.scheduler.budget import BudgetsAtHand


class Divergence(NamedTuple):
    """Where the scheduler decides otherwise than it did."""

    seq: int
    type: str
    field: str
    recorded: Any
    now: Any


@dataclass(slots=True)
class Around:
    """What the rest of the log says of a moment, all runs together."""

    occupancy: Occupancy = field(default_factory=Occupancy)
    circuits: Circuits = field(default_factory=dict)
    spend: Spend | None = None  # Where the run has agents.
    actor: str = ""  # Of whoever dispatches the run: nobody else's events are decisions of the scheduler.
    agent_type: Callable[[str, str], str] = lambda run_id, task_id: ""  # By run and task.
    budgets: BudgetsAtHand = field(default_factory=BudgetsAtHand)


@dataclass(slots=True)
class Judged:
    """How many decisions of each type were made again, and how many rest on what no event holds."""

    decisions: Counter[str] = field(default_factory=Counter)
    sampled: Counter[str] = field(default_factory=Counter)

    def same(self, record: Recorded, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Divergence | None:
        """Count a decision, and name the first field in which it is made otherwise now."""
        name = type(record.event).__name__
        self.decisions[name] += 1
        for key in recorded:
            if recorded[key] != now.get(key):
                return Divergence(record.seq, name, key, recorded[key], now.get(key))
        return None

    def as_made(self, record: Recorded, now: Event | None, fields: tuple[str, ...]) -> Divergence | None:
        """The same of an event that is made again, or not made.

        Args:
            fields: that are compared, once its type is the same.
        """
        name = type(record.event).__name__
        if now is None or type(now) is not type(record.event):
            return self.same(record, {"type": name}, {"type": now and type(now).__name__})
        told = record.event
        return self.same(
            record, {one: getattr(told, one) for one in fields}, {one: getattr(now, one) for one in fields}
        )

    def unjudged(self, record: Recorded) -> None:
        """Count one that rests on what no event holds."""
        self.sampled[type(record.event).__name__] += 1


def missing(record: Recorded, after: Event | None, due: Event, field: str = "then") -> Divergence:
    """That something was due and was not told.

    Args:
        record: the event before it, or the one before which it was to be told (``field``: before).
        after: what follows instead.
    """
    found = None if after is None else type(after).__name__
    return Divergence(record.seq, type(record.event).__name__, field, found, words_of(due))


def words_of(event: Event) -> str:
    """What would be appended, in a word or two."""
    values = (getattr(event, name, "") for name in ("scope", "share", "runner", "provider", "code"))
    return " ".join([type(event).__name__, *(str(value) for value in values if value != "")])
