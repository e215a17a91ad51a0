"""A plan before it runs: which tasks could start together, and what takes longest."""

from __future__ import annotations

from typing import Any

from parallel_agents.eventstore.submission import Plan
from parallel_agents.scheduler.graph import critical_path, levels
from parallel_agents.scheduler.plan import EXPECTED_S


def outline(plan: Plan) -> dict[str, Any]:
    """What ``run --dry-run`` shows.

    Returns:
        Name, strategy, limits, the longest path (``expected_s`` seconds, where tasks say how long they take), and the tasks
        with their ``wave``: those of one wave could run together, once the waves before it are through.
    """
    dependencies = {task.task_id: task.dependencies for task in plan.tasks}
    expected = {task.task_id: task.expected_s or EXPECTED_S for task in plan.tasks}
    length_s, path = critical_path(dependencies, expected)
    waves: dict[str, int] = {}
    number = 0
    for stage in range(len(plan.stages)):
        members = {task.task_id for task in plan.tasks if task.stage == stage}
        inner = {
            name: [one for one in dependencies[name] if one in members] for name in dependencies if name in members
        }
        for level in levels(inner):
            number += 1
            waves.update(dict.fromkeys(level, number))
    tasks = [
        {
            "task_id": task.task_id,
            "wave": waves[task.task_id],
            "agent_type": task.agent_type,
            "priority": task.priority,
            "stage": plan.stages[task.stage].name,
            "dependencies": list(task.dependencies),
            "command": None if task.command is None else list(task.command),
            "runner": task.runner or ("shell" if task.command else "python"),
        }
        for task in plan.tasks
    ]
    return {
        "name": plan.name,
        "strategy": plan.strategy,
        "workspace": plan.workspace,
        "limits": plan.settings.model_dump(mode="json"),
        "expected_s": length_s,
        "critical_path": path,
        "tasks": sorted(tasks, key=lambda task: task["wave"]),
    }
