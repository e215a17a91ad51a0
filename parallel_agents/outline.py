"""A plan before it runs: what could start together, who does it on which model, what it will take and cost, how sure that is."""

from __future__ import annotations

from typing import Any

from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.expectations import SHARE, Expected, TaskExpectation, expect_plan
from parallel_agents.forecast import Range, forecast
from parallel_agents.past_attempts import NOTHING, Past, read_past
from parallel_agents.project import Project
from parallel_agents.scheduler.agents.models import PRICES
from parallel_agents.scheduler.graph import critical_path, levels
from parallel_agents.scheduler.plan import EXPECTED_S


def outline_in(project: Project, plan: Plan) -> dict[str, Any]:
    """The same as ``outline``, with what the project's store knows. Where there is no store, none is made."""
    if not project.store.exists():
        return outline(plan)
    with project.open() as log:
        return outline(plan, read_past(log, plan.name))


def outline(plan: Plan, past: Past = NOTHING) -> dict[str, Any]:
    """What ``run --dry-run`` shows.

    Args:
        past: attempts that expectations are taken from, where the plan's own tasks or agent types have any.
    Returns:
        Name, strategy, limits, the longest path (``expected_s`` seconds), what the whole plan takes and costs
        (``makespan_s``, ``cost_usd``: null where nothing costs anything), and the tasks with their ``wave``: those of one
        wave could run together, once the waves before it are through. A figure has value, low, high and where it comes from.
    """
    expectations = expect_plan(plan, past)
    dependencies = {task.task_id: task.dependencies for task in plan.tasks}
    length_s, path = critical_path(
        dependencies, {name: one.seconds.value or EXPECTED_S for name, one in expectations.items()}
    )
    whole = forecast(plan, expectations)
    waves = _waves(plan)
    tasks = [_task(task, plan, waves[task.task_id], expectations[task.task_id]) for task in plan.tasks]
    return {
        "name": plan.name,
        "strategy": plan.strategy,
        "workspace": plan.workspace,
        "limits": plan.settings.model_dump(mode="json"),
        "expected_s": length_s,
        "critical_path": path,
        "makespan_s": _range(whole.makespan_s),
        "cost_usd": None if whole.usd is None else _range(whole.usd),
        "budget_usd": None if plan.budget_usd_micros is None else plan.budget_usd_micros / 1e6,
        "budget_pauses": plan.budgets.enabled and plan.budgets.pause,
        "share": SHARE,
        "prices": None if whole.usd is None else PRICES,
        "profile": None if whole.usd is None else plan.agents.profile,
        "tasks": sorted(tasks, key=lambda task: task["wave"]),
    }


def _waves(plan: Plan) -> dict[str, int]:
    by_stage: list[list[Task]] = [[] for _ in plan.stages]
    for task in plan.tasks:
        by_stage[task.stage].append(task)
    waves: dict[str, int] = {}
    number = 0
    for members in by_stage:
        inside = {task.task_id for task in members}
        for level in levels({task.task_id: [one for one in task.dependencies if one in inside] for task in members}):
            number += 1
            waves.update(dict.fromkeys(level, number))
    return waves


def _task(task: Task, plan: Plan, wave: int, expected: TaskExpectation) -> dict[str, Any]:
    choice = expected.choice
    return {
        "task_id": task.task_id,
        "wave": wave,
        "agent_type": task.agent_type,
        "priority": task.priority,
        "stage": plan.stages[task.stage].name,
        "dependencies": list(task.dependencies),
        "command": None if task.command is None else list(task.command),
        "runner": expected.runner,
        "model": None if choice is None else choice.model,
        "model_name": None if choice is None else choice.name,
        "model_reason": None if choice is None else choice.reason,
        "duration_s": _figure(expected.seconds),
        "cost_usd": None if expected.usd is None else _figure(expected.usd),
    }


def _figure(expected: Expected) -> dict[str, Any]:
    return {
        "value": expected.value,
        "low": expected.low,
        "high": expected.high,
        "basis": expected.basis,
        "samples": expected.samples,
        "source": expected.source,
    }


def _range(whole: Range) -> dict[str, Any]:
    return {"value": whole.value, "low": whole.low, "high": whole.high, "unknown_tasks": whole.unknown}
