"""What the log says of each attempt of one task besides its times: who made it, on which model, what it cost, why it failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parallel_agents.costs import usd
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded

PATHS_SHOWN = 40  # Of changed files; the event keeps no more either.
_MEASURED = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.TaskBlocked)
_USED = ("cpu_s", "peak_memory_bytes", "peak_cpu_percent", "peak_open_files", "disk_written_bytes")


def details(records: Iterable[Recorded]) -> dict[str, dict[str, Any]]:
    """By attempt id.

    Args:
        records: of one run, oldest first; those of other tasks do no harm.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        event = record.event
        if isinstance(event, ev.TaskStarted):
            found[event.attempt_id] = _begun(event)
            continue
        one = found.get(getattr(event, "attempt_id", None) or "")
        if one is None:
            continue
        if isinstance(event, _MEASURED):
            one |= {name: getattr(event, name) for name in _USED}
        match event:
            case ev.CostCharged():
                one["costs"].append(_charge(event))
                one["unknown"] = one["unknown"] or event.usd_micros is None
                one["cost_usd"] += usd(event.usd_micros or 0)
            case ev.TaskCompleted(output=output, outcome=outcome):
                one["output"], one["ended_how"] = output, outcome or None
            case ev.TaskFailed(output=output, error=error, kind=kind):
                one["output"], one["error"], one["kind"] = output, error, kind or None
            case ev.TaskTimedOut(error=error) | ev.AttemptLost(error=error):
                one["error"] = error
            case ev.TaskCancelled(reason=reason) | ev.ResultDiscarded(reason=reason):
                one["error"] = reason or None
            case ev.TaskBlocked(output=output, reason=reason):
                one["output"], one["error"] = output, reason
            case ev.ToolsDenied(tools=tools):
                one["denied"] = list(tools)
            case ev.CheckpointCreated(kind="after_attempt"):
                one["changed"], one["changed_paths"] = event.changed, list(event.paths)
            case _:
                pass
    return found


def _begun(event: ev.TaskStarted) -> dict[str, Any]:
    return {
        "runner": event.runner,
        "model": event.model,
        "model_reason": event.model_reason or None,
        "role": event.role or None,
        "resumes": event.resumes,  # The attempt whose session it goes on with; null: a new session.
        "reserved_usd": None if event.reserved_usd_micros is None else usd(event.reserved_usd_micros),
        "kind": None,
        "error": None,
        "ended_how": None,
        "output": None,
        "costs": [],
        "cost_usd": 0.0,
        "unknown": False,  # Whether part of its cost is known to nobody.
        "denied": [],  # Tools that it was not allowed to use.
        "changed": None,
        "changed_paths": [],
        **dict.fromkeys(_USED),  # Null while it runs.
    }


def _charge(event: ev.CostCharged) -> dict[str, Any]:
    return {
        "model": event.model,
        "usd": None if event.usd_micros is None else usd(event.usd_micros),
        "source": event.source,
        "partial": event.partial,
        "prices": event.prices or None,
        "calls": event.calls,
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cache_read_tokens": event.cache_read_tokens,
        "cache_write_tokens": event.cache_write_tokens,
    }
