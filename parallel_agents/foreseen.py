"""What a plan's agents are expected to cost, written into the plan when it is submitted, and what nobody will know of it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import AgentSettings, Plan, Task
from parallel_agents.expectations import expect_task, usd_micros
from parallel_agents.past_attempts import NOTHING, Past, read_past
from parallel_agents.scheduler.agents.clients import Client, clients
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.agents.models import choose_model
from parallel_agents.scheduler.agents.prices import price_of
from parallel_agents.scheduler.agents.reading import Tokens

_NAMED = 5  # Tasks that a warning names.


def with_expectations(plan: Plan, log: Log) -> Plan:
    """The plan with what an attempt of each agent's task is expected to cost, by what the store knows now."""
    return plan.model_copy(update={"tasks": expecting(plan, read_past(log, plan.name))})


def expecting(plan: Plan, past: Past = NOTHING) -> tuple[Task, ...]:
    """The tasks of a plan; those of agents with what an attempt is expected to cost, and on which model."""
    return tuple(_expecting(task, plan.agents, past) if is_agent(task) else task for task in plan.tasks)


def _expecting(task: Task, settings: AgentSettings, past: Past) -> Task:
    found = expect_task(task, settings, past)
    model = None if found.choice is None else found.choice.model
    return task.model_copy(update={"expected_usd_micros": usd_micros(found.usd), "expected_model": model})


class Blind(NamedTuple):
    """Tasks whose cost nobody will know, since neither their client nor the price table tells it."""

    runner: str
    model: str | None  # As the client is told; None: its own choice.
    tasks: tuple[str, ...]


def blind_spots(plan: Plan) -> list[Blind]:
    """The agents of a plan whose cost nobody will know, by runner and model."""
    table, settings = clients(plan.agents.clients), plan.agents
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for task in plan.tasks:
        if is_agent(task) and task.runner is not None:
            client = table.get(task.runner)
            if client is not None and "cost" in client.tells:
                continue
            takes_model = client is None or client.takes_model
            model = choose_model(task, settings, takes_model=takes_model).name
            if not _priced(client, model):
                found[task.runner, model].append(task.task_id)
    return [Blind(runner, model, tuple(names)) for (runner, model), names in found.items()]


def _priced(client: Client | None, model: str | None) -> bool:
    """Whether its tokens can be told in money. What a runner of another package tells, nobody knows before."""
    return (
        client is not None
        and "tokens" in client.tells
        and model is not None
        and price_of(model, Tokens(1, 1)) is not None
    )


def unknown_costs(plan: Plan) -> list[str]:
    """Warnings: a budget that the configuration switches off, or that holds by estimates only, as nobody will know the cost."""
    budgets = plan.budgets
    whole = (plan.budget_usd_micros, budgets.day_usd_micros, budgets.week_usd_micros, budgets.month_usd_micros)
    limited = {task.task_id for task in plan.tasks if task.budget_usd_micros is not None or any(whole)}
    if not budgets.enabled:
        off = "NO BUDGET HOLDS: costOptimization.enabled or costOptimization.budgetAware is false, so nothing stops at any"
        return [off] if limited else []
    tasks = {task.task_id: task for task in plan.tasks}
    warnings = []
    for blind in blind_spots(plan):
        names = [name for name in blind.tasks if name in limited]
        if not names:
            continue
        expected = [expect_task(tasks[name], plan.agents).usd for name in names]
        most = max((one.value for one in expected if one is not None and one.value is not None), default=None)
        counted = "nothing" if most is None else f"what was expected of it, up to ${most:.2f}"
        shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        on = f" on {blind.model}" if blind.model is not None else ""
        warnings.append(
            f"THE BUDGET CANNOT BE MEASURED for {shown}: the agent {blind.runner}{on} reports no cost that could be counted; "
            f"each attempt counts as {counted}, whatever it really costs"
        )
    return warnings
