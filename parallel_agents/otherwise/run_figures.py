"""What a run has come to, in figures: how long it took, what it cost, in which order, what was tried again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

PAIRS_AMONG = 400  # Attempts with files of which pairs are looked for.


@dataclass(slots=True)
class Figures:
    """One run. Times are microseconds since the epoch, money micro-dollars."""

    began_us: int | None = None  # When it was started first.
    ended_us: int = 0  # Its last end, or the last of its events that say that it went on.
    status: str = "submitted"
    usd_micros: int = 0
    unknown_charges: int = 0
    attempts: int = 0
    retries: int = 0
    busy_us: int = 0  # What all attempts have taken together.
    order: list[str] = field(default_factory=list)  # Tasks in the order of their first starts.
    tasks: Counter[str] = field(default_factory=Counter)  # By the status that they ended in.
    conflicts: int = 0  # Merges that met a conflict.
    meetings: int = 0  # Pairs of attempts that ran at the same time and changed a file in common.

    @property
    def makespan_s(self) -> float:
        """From its first start to its last end, waits for people included."""
        return 0.0 if self.began_us is None else max(0, self.ended_us - self.began_us) / 1e6

    def as_json(self) -> dict[str, Any]:
        """As scripts read it."""
        return {
            "status": self.status, "makespan_s": self.makespan_s, "cost_usd": self.usd_micros / 1e6,
            "unknown_charges": self.unknown_charges, "attempts": self.attempts, "retries": self.retries,
            "busy_s": self.busy_us / 1e6, "tasks": dict(self.tasks), "conflicts": self.conflicts,
            "meetings": self.meetings, "order": self.order,
        }  # fmt: skip


_ENDS = ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost | ev.ResultDiscarded
_STATUS = {"TaskCompleted": "completed", "TaskFailed": "failed", "TaskTimedOut": "failed", "AttemptLost": "failed"}


def figures_of(
    records: Iterable[Recorded], run_id: str, paths_of: Callable[[str], tuple[str, ...]] = lambda attempt_id: ()
) -> Figures:
    """Count a run.

    Args:
        records: events, of which those of the run count.
        paths_of: the files that an attempt has changed, as far as that is known.
    """
    found, status = Figures(), dict[str, str]()
    running: dict[str, tuple[int, str]] = {}
    order: dict[str, None] = {}
    spans: list[tuple[int, int, str, frozenset[str]]] = []

    def ended(attempt_id: str | None, at_us: int) -> None:
        if attempt_id in running:
            began_us, task_id = running.pop(attempt_id)
            found.busy_us += at_us - began_us
            if paths := frozenset(paths_of(attempt_id)):
                spans.append((began_us, at_us, task_id, paths))

    for record in records:
        if record.run_id != run_id:
            continue
        event, name = record.event, type(record.event).__name__
        match event:
            case ev.RunStarted():
                found.began_us = found.began_us if found.began_us is not None else record.at_us
                found.status = "running"
            case ev.RunPaused():
                found.status = "paused"
            case ev.RunResumed():
                found.status = "running"
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                found.status, found.ended_us = name.removeprefix("Run").lower(), record.at_us
            case ev.TaskStarted(task_id=task_id):
                running[event.attempt_id] = record.at_us, task_id
                found.attempts += 1
                status[task_id] = "running"
                order.setdefault(task_id)
            case ev.TaskRetryScheduled(task_id=task_id):
                found.retries += 1
                status[task_id] = "queued"
            case ev.ConflictDetected(early=False):
                found.conflicts += 1
            case ev.CostCharged(usd_micros=micros):
                found.usd_micros += micros or 0
                found.unknown_charges += micros is None
            case ev.TaskCancelled(task_id=task_id, attempt_id=attempt_id):
                ended(attempt_id, record.at_us)
                status[task_id] = "cancelled"
            case ev.TaskSkipped(task_id=task_id):
                status[task_id] = "skipped"
            case ev.TaskBlocked(task_id=task_id, attempt_id=attempt_id):
                ended(attempt_id, record.at_us)
                status[task_id] = "blocked"
            case ev.TaskReopened(task_id=task_id):
                status[task_id] = "pending"
            case _ if isinstance(event, _ENDS):
                ended(event.attempt_id, record.at_us)
                if name in _STATUS:
                    status[event.task_id] = _STATUS[name]
            case _:
                continue
        if found.status in ("running", "paused"):
            found.ended_us = max(found.ended_us, record.at_us)
    found.order = list(order)
    found.tasks = Counter(status.values())
    found.meetings = _meetings(spans)
    return found


def _meetings(spans: list[tuple[int, int, str, frozenset[str]]]) -> int:
    among = spans[:PAIRS_AMONG]
    return sum(
        one[2] != other[2] and one[0] < other[1] and other[0] < one[1] and bool(one[3] & other[3])
        for one, other in combinations(among, 2)
    )
