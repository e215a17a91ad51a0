"""Other budgets for a run or its tasks, or an error for the caller. Pure.

A budget that is spent already would stop at once what it is meant to let go on, so it is refused; nothing is half set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import Event
from parallel_agents.projections import status as st
from parallel_agents.projections.spend import Spend
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.budget import budgets_of, usd, words_of
from parallel_agents.scheduler.decide import decide_resume, decide_retry, task_of

OF_RUN = "run"
Changes = Mapping[str, int | None]
"""Scope (``run``, ``task:ID``) to micro-dollars; None: no limit any more."""


def of_task(task_id: str) -> str:
    """The scope of a task's own budget."""
    return f"task:{task_id}"


def decide_budgets(state: RunState, spend: Spend, changes: Changes) -> list[Event]:
    """Set other budgets.

    Raises:
        UnknownTask, NotAllowed: there is no such task, or it costs nothing; as much is spent already; the run has ended, or
            keeps to no budgets.
    """
    if state.ended:
        again = f"`parallel-agents retry {state.run_id}` opens what failed, and takes the same options"
        hint = again if state.status != st.COMPLETED else ""
        raise NotAllowed(f"run {state.run_id} has ended, and spends nothing any more: it is {state.status}", hint=hint)
    return _changed(state, spend, changes)


def decide_resume_with(state: RunState, spend: Spend | None, changes: Changes, reason: str = "") -> list[Event]:
    """Go on after a pause, with other budgets where any are given.

    Args:
        spend: None where no budget is changed.
    Raises:
        UnknownTask, NotAllowed: see ``decide_budgets`` and ``decide_resume``.
    """
    resumed = decide_resume(state, reason)
    return resumed if spend is None else [*_changed(state, spend, changes), *resumed]


def decide_retry_with(state: RunState, spend: Spend | None, task_ids: Sequence[str], changes: Changes) -> list[Event]:
    """Open tasks again, with other budgets where any are given.

    Args:
        spend: None where no budget is changed and no task has one of its own.
    Raises:
        UnknownTask, NotAllowed: see ``decide_budgets`` and ``decide_retry``; or the own budget of such a task is spent, so
            that it could not start.
    """
    opened = decide_retry(state, task_ids)
    if spend is None:
        return opened
    limits = {of_task(name): micros for name, micros in budgets_of(state).tasks.items()}
    limits = {scope: micros for scope, micros in {**limits, **changes}.items() if micros is not None}
    names = [event.task_id for event in opened if isinstance(event, ev.TaskReopened)]
    for name in names if state.plan.budgets.enabled and state.plan.budgets.pause else ():
        limit, spent = limits.get(of_task(name)), spend.by_task[state.run_id, name]
        if limit is not None and spent >= limit and of_task(name) not in changes:
            raise NotAllowed(
                f"task {name!r} cannot start again: its own budget is spent, {usd(spent)} of {usd(limit)}",
                hint=f"`parallel-agents retry {state.run_id} {name} --task-budget {name}={more_than(spent, limit)}`",
            )
    return [*_changed(state, spend, changes), *opened]


def more_than(spent_usd_micros: int, budget_usd_micros: int) -> str:
    """A budget to suggest: as much again as there was, in dollars."""
    cents = -(-(spent_usd_micros + max(budget_usd_micros, 10_000)) // 10_000)
    return f"{cents / 100:.2f}"


def _changed(state: RunState, spend: Spend, changes: Changes) -> list[Event]:
    if changes and not state.plan.budgets.enabled:
        raise NotAllowed(
            f"run {state.run_id} keeps to no budgets: its configuration switched them off",
            hint="costOptimization.enabled and costOptimization.budgetAware do, when a run is submitted",
        )
    events: list[Event] = []
    for scope, micros in changes.items():
        spent = spend.by_run[state.run_id]
        if scope != OF_RUN:
            task = task_of(state, scope.removeprefix("task:"))
            if not is_agent(task.task):
                raise NotAllowed(f"task {task.task.task_id!r} is no agent's: it costs nothing, and needs no budget")
            spent = spend.by_task[state.run_id, task.task.task_id]
        if micros is not None and micros <= spent:
            raise NotAllowed(
                f"{words_of(scope)} cannot be {usd(micros)}: {usd(spent)} of it would be spent already",
                hint="give more than that, or `none` for no limit",
            )
        events.append(ev.BudgetChanged(scope=scope, budget_usd_micros=micros))
    return events
