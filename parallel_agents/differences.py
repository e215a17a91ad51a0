"""What lies between two moments of a run: tasks, cost, configuration and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.travel import Target, changed_files

_TASK = ("status", "attempts", "attempt_id", "output", "error", "model", "checkpoint_id")


def differences(log: Log, run_id: str, a: Target, b: Target) -> dict[str, Any]:
    """The difference between two moments, as data.

    Returns:
        ``{"run_id", "a", "b", "status", "tasks", "cost_usd", "configuration", "files"}``: of whatever differs the value
        at each side. Money is that of all history up to there, undone work included.
    """
    projector = Projector(log)
    left, right = a.state, b.state
    spent = [projector.cost(run_id, moment.seq).usd_micros / 1e6 for moment in (a, b)]
    return {
        "run_id": run_id,
        "a": {"seq": a.seq, "understood": a.reading, "commit": left.integration},
        "b": {"seq": b.seq, "understood": b.reading, "commit": right.integration},
        "status": [left.status, right.status],
        "tasks": _tasks(left, right),
        "cost_usd": {"a": spent[0], "b": spent[1], "difference": spent[1] - spent[0]},
        "configuration": _configuration(left, right),
        "files": changed_files(right, left.integration, right.integration),
    }


def patch(a: Target, b: Target) -> bytes:
    """The same of the files, as git shows it; empty where nothing is versioned or nothing differs."""
    left, right = a.state, b.state
    if left.integration is None or right.integration is None or right.repository is None:
        return b""
    from parallel_agents.checkpoint import contents

    repository = open_repository(right.repository, Path(right.workdir))
    return contents.patch(repository, left.integration, right.integration)


def _tasks(left: RunState, right: RunState) -> list[dict[str, Any]]:
    found = []
    for name, now in right.tasks.items():
        before = left.tasks.get(name)
        changed = {
            field: {"a": None if before is None else getattr(before, field), "b": getattr(now, field)}
            for field in _TASK
            if before is None or getattr(before, field) != getattr(now, field)
        }
        if changed:
            found.append({"task_id": name, **changed})
    return found


def _configuration(left: RunState, right: RunState) -> dict[str, Any]:
    before, after = (_flat(state.plan.settings.model_dump(mode="json")) for state in (left, right))
    found = {name: {"a": before.get(name), "b": after[name]} for name in after if before.get(name) != after[name]}
    for task in right.plan.tasks:
        old = left.tasks[task.task_id].task if task.task_id in left.tasks else None
        if old is None or old == task:
            continue
        for field in type(task).model_fields:
            if getattr(old, field) != getattr(task, field):
                found[f"{task.task_id}.{field}"] = {"a": getattr(old, field), "b": getattr(task, field)}
    return found


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": one for inner, one in value.items()})
        else:
            flat[name] = value
    return flat
