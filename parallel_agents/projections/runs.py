"""The list of runs, folded from run-level events only, so that it stays quick however long the runs were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded


@dataclass(slots=True)
class RunSummary:
    """One line of the list. Times are microseconds since the epoch; ``counts`` is filled when the run has ended."""

    run_id: str
    name: str
    status: str
    strategy: str
    task_count: int
    submitted_at_us: int
    seq: int
    started_at_us: int | None = None
    ended_at_us: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    holder: dict[str, Any] | None = None
    epoch: int = 0
    callables: bool = False
    cancel_requested: bool = False
    history: list[tuple[int, str, int | None]] = field(
        default_factory=list
    )  # (seq, status, ended_at_us), for rollbacks.


def fold(runs: dict[str, RunSummary], record: Recorded) -> dict[str, RunSummary]:
    """The list after one more run-level event."""
    event, run_id = record.event, record.run_id
    if isinstance(event, ev.RunSubmitted):
        runs[run_id] = RunSummary(
            run_id, event.name, "submitted", event.strategy, event.task_count, record.at_us, record.seq,
            callables=event.callables,
        )  # fmt: skip
        return runs
    run = runs.get(run_id)
    if run is None:
        return runs
    match event:
        case ev.RunStarted():
            run.status, run.started_at_us = "running", run.started_at_us or record.at_us
        case ev.RunResumed():
            run.status = "running" if run.started_at_us is not None else "submitted"
            run.ended_at_us, run.cancel_requested = None, False
        case ev.RunPaused():
            run.status = "paused"
        case ev.RunCancelRequested():
            run.cancel_requested = True
        case ev.RunCompleted():
            run.status, run.ended_at_us, run.counts = "completed", record.at_us, event.counts
        case ev.RunFailed():
            run.status, run.ended_at_us, run.counts = "failed", record.at_us, event.counts
        case ev.RunCancelled():
            run.status, run.ended_at_us, run.counts = "cancelled", record.at_us, event.counts
        case ev.RunClaimed():
            run.holder, run.epoch = event.holder, event.epoch
        case ev.RunReleased():
            run.holder = None if event.epoch == run.epoch else run.holder
        case ev.RunRolledBack(to_seq=to_seq):
            before = [entry for entry in run.history if entry[0] <= to_seq]
            _seq, run.status, run.ended_at_us = before[-1] if before else (0, "submitted", None)
        case _:
            pass
    run.seq = record.seq
    run.history.append((record.seq, run.status, run.ended_at_us))
    return runs


def fold_all(records: Iterable[Recorded]) -> dict[str, RunSummary]:
    """The runs of a store, oldest first."""
    runs: dict[str, RunSummary] = {}
    for record in records:
        fold(runs, record)
    return runs
