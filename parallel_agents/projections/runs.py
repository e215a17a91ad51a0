"""The list of runs, folded from run-level events only, so that it stays quick however long the runs were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded


class Standing(NamedTuple):
    """What a rollback takes back of a run, as of one event. Leases are not among it."""

    seq: int
    status: str
    started_at_us: int | None
    ended_at_us: int | None
    counts: dict[str, int]
    cancel_requested: bool


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
    left: bool = False  # Its last holder let go of it in the middle.
    cancel_requested: bool = False
    parent: str | None = None  # The run that it was forked from.
    history: list[Standing] = field(default_factory=list)  # For rollbacks, oldest first.


def fold(runs: dict[str, RunSummary], record: Recorded) -> dict[str, RunSummary]:
    """The list after one more run-level event."""
    event, run_id = record.event, record.run_id
    if isinstance(event, ev.RunSubmitted):
        runs[run_id] = RunSummary(
            run_id, event.name, "submitted", event.strategy, event.task_count, record.at_us, record.seq,
            callables=event.callables,
        )  # fmt: skip
        _remember(runs[run_id], record.seq)
        return runs
    if isinstance(event, ev.RunForked) and event.state_digest:
        runs[run_id] = forked(run_id, event, record)
        _remember(runs[run_id], record.seq)
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
            _end(run, "completed", record.at_us, event.counts)
        case ev.RunFailed():
            _end(run, "failed", record.at_us, event.counts)
        case ev.RunCancelled():
            _end(run, "cancelled", record.at_us, event.counts)
        case ev.RunClaimed():
            run.holder, run.epoch, run.left = event.holder, event.epoch, False
        case ev.RunReleased():
            if event.epoch == run.epoch:
                run.holder, run.left = None, event.left
        case ev.RunRolledBack(to_seq=to_seq):
            before = next(standing for standing in reversed(run.history) if standing.seq <= to_seq)
            _, run.status, run.started_at_us, run.ended_at_us, run.counts, run.cancel_requested = before
        case _:
            pass
    run.seq = record.seq
    _remember(run, record.seq)
    return runs


def forked(run_id: str, event: ev.RunForked, record: Recorded) -> RunSummary:
    """A fork as the list shows it: it stands where its parent stood."""
    return RunSummary(
        run_id, event.name, event.status, event.strategy, event.task_count, record.at_us, record.seq,
        started_at_us=event.started_at_us, ended_at_us=event.ended_at_us, counts=event.counts, parent=event.parent,
    )  # fmt: skip


def _remember(run: RunSummary, seq: int) -> None:
    run.history.append(Standing(seq, run.status, run.started_at_us, run.ended_at_us, run.counts, run.cancel_requested))


def _end(run: RunSummary, status: str, at_us: int, counts: dict[str, int]) -> None:
    run.status, run.ended_at_us, run.counts = status, at_us, counts
    run.holder = None  # A run that has ended is held by nobody.


def fold_all(records: Iterable[Recorded]) -> dict[str, RunSummary]:
    """The runs of a store, oldest first."""
    runs: dict[str, RunSummary] = {}
    for record in records:
        fold(runs, record)
    return runs
