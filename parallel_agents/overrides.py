"""What a fork may say differently from its parent: limits, retries, and fields of tasks that have not been completed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from parallel_agents.eventstore.errors import InvalidUsage, nearest
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Task
from parallel_agents.plan_fields import SEQUENCES, TASK_FIELDS, budget_misfit, explain, micros, special_misfit
from parallel_agents.projections.status import COMPLETED, RunState
from parallel_agents.wording import shown

EVERY_TASK = "task"
_RUN = set(RunSettings.model_fields) - {"retry"}
_RETRY = {f"retry.{name}" for name in RetryPolicy.model_fields}
_TASK = TASK_FIELDS - {"task_id", "dependencies"}


def overridden(state: RunState, settings: Mapping[str, str], who: str = "a fork") -> tuple[Plan, dict[str, Any]]:
    """The plan of a run with some of it said differently.

    Args:
        who: is to have it, in words for errors.
        settings: values as texts by ``NAME`` of a limit, ``retry.NAME``, ``TASK.FIELD``, or ``task.FIELD`` for every task
            that has not been completed. A text that is JSON counts as that, any other as itself.
    Returns:
        The plan, and the values as they were understood.
    Raises:
        InvalidUsage: a name is none of these, or its value cannot be.
    """
    plan, understood = state.plan, dict[str, Any]()
    for name, text in settings.items():
        value = understood[name] = value_of(text)
        if name in _RUN or name in _RETRY:
            plan = plan.model_copy(update={"settings": _settings(plan.settings, name, value)})
            continue
        task_id, dot, field = name.rpartition(".")
        if not dot or (task_id != EVERY_TASK and task_id not in state.tasks):
            known = [*sorted(_RUN | _RETRY), *(f"{one}.timeout_s" for one in list(state.tasks)[:5])]
            raise InvalidUsage(f"--set {name}: {who} has nothing of that name", hint=nearest(name, known))
        plan = plan.model_copy(update={"tasks": _tasks(state, plan, task_id, field, value)})
    return plan, understood


def value_of(text: str) -> Any:
    """A value as its text means it: JSON where it is that, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _settings(settings: RunSettings, name: str, value: Any) -> RunSettings:
    fields = settings.model_dump()
    group, _, last = name.rpartition(".")
    (fields[group] if group else fields)[last] = value
    try:
        return RunSettings.model_validate({**fields, "retry": RetryPolicy.model_validate(fields["retry"])})
    except ValidationError as error:
        raise _refused(name, error) from None


def _tasks(state: RunState, plan: Plan, task_id: str, field: str, value: Any) -> tuple[Task, ...]:
    if field not in _TASK:
        raise InvalidUsage(f"--set {task_id}.{field}: a fork cannot change that", hint=nearest(field, _TASK))
    if field == "budget_usd":
        if value is not None and (misfit := budget_misfit(value)):
            raise InvalidUsage(f"--set {task_id}.{field} {misfit.message}", hint=misfit.hint)
        field, value = "budget_usd_micros", None if value is None else micros(value)
    value = tuple(value) if field in SEQUENCES and isinstance(value, list) else value
    tasks = []
    for task in plan.tasks:
        wanted = task.task_id == task_id or (
            task_id == EVERY_TASK and state.tasks[task.task_id].status != COMPLETED and EVERY_TASK not in state.tasks
        )
        tasks.append(_changed(task, field, value) if wanted else task)
    return tuple(tasks)


def _changed(task: Task, field: str, value: Any) -> Task:
    try:
        changed = Task.model_validate({**dict(task), field: value})
    except ValidationError as error:
        raise _refused(f"{task.task_id}.{field}", error) from None
    misfit = special_misfit(changed, {field: value})
    if misfit is not None:
        raise InvalidUsage(f"--set {task.task_id}.{field} {misfit.message}", hint=misfit.hint)
    return changed


def _refused(name: str, error: ValidationError) -> InvalidUsage:
    detail = error.errors(include_url=False)[0]
    if name.partition(".")[2] in Task.model_fields:
        misfit = explain(detail)
        return InvalidUsage(f"--set {name} {misfit.message}", hint=misfit.hint)
    return InvalidUsage(f"--set {name} is {shown(detail['input'])}: {detail['msg']}")
