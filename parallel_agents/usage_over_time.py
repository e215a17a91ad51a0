"""What an attempt has used over time, as it was sampled: read from the side table beside the log."""

from __future__ import annotations

from typing import Any

from parallel_agents import look
from parallel_agents.eventstore import usage_samples
from parallel_agents.eventstore.log import Log


def usage_over_time(
    log: Log, run_id: str, task_id: str, number: int | None = None, upto: int | None = None
) -> dict[str, Any]:
    """The points of an attempt of a task, oldest first: the last attempt's where no number is given.

    Args:
        upto: points that came after this event are left out.
    Raises:
        UnknownTask, UnknownEvent: see ``look.attempt``.
        StoreError: the store cannot be read.
    """
    attempt = look.attempt(log, run_id, task_id, number, upto)
    until_us = look.time_of(log, upto)
    attempt_id = None if attempt is None else attempt["attempt_id"]
    points = [] if attempt_id is None else usage_samples.read(log.path, run_id, attempt_id)
    return {
        "run_id": run_id,
        "task_id": task_id,
        "attempt_id": attempt_id,
        "attempt": None if attempt is None else attempt["attempt"],
        "points": [
            {**point._asdict(), "at": look.time_text(point.at_us)}
            for point in points
            if until_us is None or point.at_us <= until_us
        ],
    }


def as_json(found: dict[str, Any]) -> dict[str, Any]:
    """As scripts read it: times are texts."""
    names = ("at", "span_s", "cpu_percent", "memory_bytes", "open_files", "disk_written_bytes")
    return {**found, "points": [{name: point[name] for name in names} for point in found["points"]]}
