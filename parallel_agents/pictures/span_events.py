"""Events of the log as events of spans: what befell a run, a task or an attempt, and is told by no span itself. Pure."""

from __future__ import annotations

from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.pictures.span_model import Attributes, SpanEvent

_NAMES: Final = {
    ev.RunPaused: "paused", ev.RunResumed: "resumed", ev.RunRolledBack: "rollback", ev.RunCancelRequested: "cancel requested",
    ev.BudgetThresholdReached: "budget threshold", ev.BudgetExceeded: "budget exceeded", ev.DispatchThrottled: "throttled",
    ev.DispatchUnthrottled: "unthrottled", ev.TaskRetryScheduled: "retry scheduled", ev.ToolsDenied: "tools denied",
    ev.AttemptStuck: "stuck", ev.TaskBlocked: "blocked", ev.TaskUnblocked: "unblocked", ev.ConflictResolved: "conflict resolved",
    ev.GateChecked: "gate", ev.ConflictDetected: "conflict", ev.CheckpointCreated: "checkpoint",
}  # fmt: skip
_FIGURES: Final = (
    "kind", "code", "scope", "share", "failures", "wait_s", "early", "round", "checkpoint_id", "passed", "to_seq", "how",
    "other_task_id", "spent_usd_micros",
)  # fmt: skip
_WORDS: Final = ("reason", "paths", "label", "tools", "command")  # Written by people, agents or commands.


def span_event(record: Recorded, *, words: bool) -> SpanEvent | None:
    """An event of the log as an event of a span; None of those that the spans themselves tell.

    Args:
        words: with what people, agents and commands wrote.
    """
    event = record.event
    name = _NAMES.get(type(event))
    if name is None:
        return None
    told: Attributes = {"parallel_agents.seq": record.seq}
    for key in (*_FIGURES, *(_WORDS if words else ())):
        value = getattr(event, key, None)
        if isinstance(value, list):
            value = tuple(map(str, value))
        if value not in (None, "", ()) and isinstance(value, str | bool | int | float | tuple):
            told[f"parallel_agents.{key}"] = value
    return SpanEvent(name, record.at_us * 1000, told)
