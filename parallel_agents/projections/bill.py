"""What the money of a run went to: every charge with what became of the work that it paid for. Scope ALL.

An attempt is paid for whether its work counts or not, so the two are told side by side: what stands in the run today, what
a rollback has taken back, what came too late to be taken, and what failed or was done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.projections.cost import ESTIMATED
from parallel_agents.projections.undone import Undone, undone_among

GROUPINGS: Final = ("agent", "model", "task", "day", "run")

FATES: Final = {
    "useful": "its attempt ended as the completed one of its task",
    "failed": "its attempt did not, or its task was done once more",
    "undone": "it was done, and a rollback took it back",
    "discarded": "a rollback took it back while it was being done",
    "unsettled": "it runs, or waits for a person",
}
"""What can have become of the work of an attempt."""

WASTED: Final = ("failed", "undone", "discarded")

FOLDED: Final = (
    "CostCharged", "TaskStarted", "TaskQueued", "TaskCompleted", "TaskFailed", "TaskTimedOut", "TaskCancelled",
    "AttemptLost", "TaskBlocked", "TaskUnblocked", "TaskSkipped", "TaskReopened", "ResultDiscarded", "RunRolledBack",
)  # fmt: skip
"""The types that a bill needs of a run's history; the others change nothing about it."""

_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Amount:
    """A sum of charges: micro-dollars and tokens."""

    usd_micros: int = 0
    estimated_usd_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    calls: int = 0
    fates: dict[str, int] = field(default_factory=dict)  # Micro-dollars by what became of the work.
    attempts: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)  # Those that cost, in whole or in part, nobody knows what.
    cut_off: set[str] = field(default_factory=set)  # Those that may have cost one call more than was counted.
    uncounted: set[str] = field(default_factory=set)  # Those whose calls nobody has counted, though they took tokens.

    def add(self, charge: ev.CostCharged, fate: str) -> None:
        """Count one charge in."""
        self.attempts.add(charge.attempt_id)
        self.input_tokens += charge.input_tokens
        self.output_tokens += charge.output_tokens
        self.cache_read_tokens += charge.cache_read_tokens
        self.cache_write_tokens += charge.cache_write_tokens
        self.calls += charge.calls
        if not charge.calls and (charge.input_tokens or charge.output_tokens):
            self.uncounted.add(charge.attempt_id)
        if charge.partial:
            self.cut_off.add(charge.attempt_id)
        if charge.usd_micros is None:
            self.unknown.add(charge.attempt_id)
            return
        self.usd_micros += charge.usd_micros
        self.estimated_usd_micros += charge.usd_micros if charge.source == ESTIMATED else 0
        self.fates[fate] = self.fates.get(fate, 0) + charge.usd_micros

    @property
    def wasted_usd_micros(self) -> int:
        """What was paid for work that does not count."""
        return sum(self.fates.get(fate, 0) for fate in WASTED)


@dataclass(frozen=True, slots=True)
class Line:
    """One charge of a bill."""

    run_id: str
    at_us: int
    charge: ev.CostCharged
    fate: str

    def name(self, by: str) -> str:
        """What it is counted under in one of ``GROUPINGS``. Days are UTC."""
        match by:
            case "agent":
                return self.charge.agent_type or "unknown"
            case "model":
                return self.charge.model or "unknown"
            case "task":
                return self.charge.task_id
            case "day":
                return rfc3339(self.at_us // _DAY_US * _DAY_US)[:10]
            case "run":
                return self.run_id
            case _:
                raise AssertionError(f"bills are not grouped by {by}")


def bill(records: Sequence[Recorded]) -> list[Line]:
    """The charges of one run, in their order.

    Args:
        records: its whole history, undone events too; what is of none of the types ``FOLDED`` may be left out.
    """
    return list(lines(records, fates_of(records)))


def lines(records: Iterable[Recorded], fates: Mapping[str, str]) -> Iterator[Line]:
    """The charges among some events of one run, in their order.

    Args:
        fates: as ``fates_of`` gives them.
    """
    for record in records:
        if isinstance(record.event, ev.CostCharged):
            yield Line(record.run_id, record.at_us, record.event, fates.get(record.event.attempt_id, "unsettled"))


def total(lines: Iterable[Line]) -> Amount:
    """The sum of a bill."""
    amount = Amount()
    for line in lines:
        amount.add(line.charge, line.fate)
    return amount


def grouped(lines: Iterable[Line], by: str) -> dict[str, Amount]:
    """The sums by one of ``GROUPINGS``: days in their order, runs as they come, all else the dearest first."""
    groups: dict[str, Amount] = {}
    for line in lines:
        groups.setdefault(line.name(by), Amount()).add(line.charge, line.fate)
    if by == "day":
        return dict(sorted(groups.items()))
    if by == "run":
        return groups
    return dict(sorted(groups.items(), key=lambda group: (-group[1].usd_micros, group[0])))


def fates_of(records: Iterable[Recorded], undone: Undone | None = None) -> dict[str, str]:
    """What became of the work of every attempt that was started: one of ``FATES`` by attempt id.

    Args:
        undone: by the rollbacks of the run; None: by those among the records, which are a sequence then.
    """
    undone = undone_among(records) if undone is None else undone
    fates: dict[str, str] = {}
    last: dict[str, str] = {}  # The last attempt of each task.
    over: list[tuple[str, str]] = []  # Attempts whose work is of no use, whatever became of it, and why.
    for record in records:
        event = record.event
        match event:
            case ev.ResultDiscarded(attempt_id=attempt_id):
                over.append((attempt_id, "discarded"))
            case ev.TaskStarted(attempt_id=attempt_id) if undone(record.seq):
                over.append((attempt_id, "undone"))
            case _ if undone(record.seq):
                if type(event) in _ENDS and (ended := getattr(event, "attempt_id", None)):
                    over.append((ended, "ended"))
            case _:
                _fold_fate(fates, last, event)
    for attempt_id, how in over:
        if how != "ended":
            fates[attempt_id] = how
        elif attempt_id in fates and fates[attempt_id] != "discarded":
            fates[attempt_id] = "undone"
    return fates


_ENDS = frozenset(
    {ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.AttemptLost, ev.TaskBlocked}
)  # fmt: skip


def _fold_fate(fates: dict[str, str], last: dict[str, str], event: ev.Event) -> None:
    """The same over the history that counts, of the attempts that were started in it."""

    def leave(task_id: str, fate: str) -> None:
        """The last attempt of a task will not become its completed one any more."""
        if fates.get(last.get(task_id, "")) in ("unsettled", "useful"):
            fates[last[task_id]] = fate

    match event:
        case ev.TaskStarted(task_id=task_id, attempt_id=attempt_id):
            leave(task_id, "failed")
            last[task_id], fates[attempt_id] = attempt_id, "unsettled"
        case ev.TaskCompleted(attempt_id=attempt_id):
            fates[attempt_id] = "useful"
        case ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost():
            fates[event.attempt_id] = "failed"
        case ev.TaskCancelled() | ev.TaskSkipped() | ev.TaskReopened() | ev.TaskUnblocked():
            leave(event.task_id, "failed")
        case ev.TaskQueued(task_id=task_id, reason=reason) if reason:  # A rollback has let go of what ran.
            leave(task_id, "undone")
        case _:
            pass
