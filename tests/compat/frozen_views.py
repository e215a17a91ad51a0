"""What every projection says of a history at an event, in fields that were there when the first histories were frozen.

Never adapted to the code: where a projection gets more fields, they are no part of this; where one is renamed, it is read
under its new name and stands here under its old one.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from parallel_agents.conflicts import conflicts
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.projections import checkpoints as checkpoints_fold
from parallel_agents.projections.effective import effective
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.timeline import timeline

RUN = (
    "name", "status", "version", "workdir", "base_commit", "integration", "stages_passed", "last_stage", "merged_into",
    "throttled", "workers", "budget_usd_micros", "task_budgets", "submitted_at_us", "started_at_us", "active_since_us",
    "ended_at_us", "reason", "pause_code", "cancel_requested", "stage_open", "running",
)  # fmt: skip
TASK = (
    "status", "attempts", "failures", "attempt_id", "runner", "model", "queued_at_us", "not_before_us", "started_at_us",
    "ended_at_us", "duration_s", "exit_code", "error", "output", "because", "reason", "checkpoint_id", "cancel_requested",
    "cpu_s", "peak_memory_bytes", "base_commit", "work_commit", "approved_attempt", "conflicts", "failure_kind", "role",
    "resumes", "resumed", "before", "limit_usd_micros", "begin_commit", "kept_commit",
)  # fmt: skip
SPAN = ("task_id", "attempt_id", "attempt", "queued_at_us", "started_at_us", "started_seq", "ended_at_us", "ended_seq",
        "outcome", "undone")  # fmt: skip
COST = ("usd_micros", "estimated_usd_micros", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
        "calls", "partial", "by_task", "unknown")  # fmt: skip
SUMMARY = ("name", "status", "strategy", "task_count", "submitted_at_us", "started_at_us", "ended_at_us", "holder", "epoch",
           "callables", "cancel_requested", "parent")  # fmt: skip
CONFLICT = ("seq", "task_id", "other_task_id", "status", "how", "paths", "commit", "other_commit")


def _of(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def run_view(log: Log, run_id: str, seq: int) -> dict[str, Any]:
    """Of one run, as a reader saw it at a seq: each projection by its name."""
    projector = Projector(log, use_snapshots=False)
    state, records = projector.state(run_id, seq), projector.records(run_id, seq)
    line = checkpoints_fold.Line()
    for record in records:
        checkpoints_fold.fold(line, record)
    events = [record.event for record in records]
    made = {event.checkpoint_id: event for event in events if isinstance(event, ev.CheckpointCreated)}
    return {
        "status": {**_of(state, RUN), "tasks": {name: _of(task, TASK) for name, task in state.tasks.items()}},
        "counts": +state.counts,
        "plan": json.loads(state.plan.to_bytes()),
        "effective": [record.seq for record in effective(records)[0]],
        "timeline": [_of(span, SPAN) for span in timeline(records)],
        "cost": _of(projector.cost(run_id, seq), COST),
        "bill": [[one.charge.attempt_id, one.charge.usd_micros, one.fate] for one in projector.bill(run_id, seq)],
        "conflicts": [{name: one[name] for name in CONFLICT} for one in conflicts(log, run_id, seq)],
        "checkpoints": [
            [name, made[name].kind, made[name].commit, one.depth, one.undone_at_us]
            for name, one in line.checkpoints.items()
        ],
    }


def store_view(log: Log, seq: int) -> dict[str, Any]:
    """Of the whole store."""
    projector = Projector(log, use_snapshots=False)
    occupancy, spend = projector.occupancy(seq), projector.spend(seq)
    return {
        "runs": {name: _of(run, SUMMARY) for name, run in projector.runs(seq).items()},
        "slots": dict(sorted(occupancy.slots.items())),
        "spend": {
            "by_task": sorted([*key, value] for key, value in spend.by_task.items()),
            "by_run": spend.by_run, "by_day": spend.by_day, "unknown_by_run": spend.unknown_by_run,
            "held": {name: [one.run_id, one.task_id, one.reserved_usd_micros] for name, one in sorted(spend.running.items())},
            "waits": {name: [one.until_us, one.kind, one.count, one.stated] for name, one in spend.waits.items()},
        },
    }  # fmt: skip


def plain(view: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    made: dict[str, Any] = json.loads(json.dumps(view, default=sorted, sort_keys=True))
    return made


def short(value: Any) -> str:
    """Twelve hex digits that stand for a projection."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def digests(log: Log) -> list[str]:
    """For every event of the store, its projections at that event: of the run that it is of, and of the store."""
    found = []
    for row in log.rows():
        views = store_view(log, row.seq)
        if row.run_id in views["runs"]:
            views |= run_view(log, row.run_id, row.seq)
        found.append(" ".join(f"{name}:{short(value)}" for name, value in plain(views).items()))
    return found
