"""What may be said differently about a run that is played again: what the scheduler decides by, and nothing that is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from parallel_agents.eventstore.errors import InvalidPlan, InvalidUsage, nearest
from parallel_agents.eventstore.submission import Plan, RetryPolicy, Strategy
from parallel_agents.overrides import EVERY_TASK, overridden, value_of
from parallel_agents.plan_fields import budget_misfit, micros
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.strategies import StrategyOptions, arrange

LIMITS: Final = frozenset(
    {"max_parallel_agents", "store_limit", "max_queue_size", "max_execution_s", "circuit_failures", "circuit_reset_s"}
)
RETRY: Final = frozenset(f"retry.{name}" for name in RetryPolicy.model_fields)
OF_PLAN: Final = frozenset({"strategy", "budget_usd", "model"})
OF_TASK: Final = frozenset(
    {"priority", "max_retries", "timeout_s", "allow_failure", "files", "budget_usd", "model", "expected_s"}
)
STRATEGIES: Final = get_args(Strategy)
WHO: Final = "a run that is played again"


def differently(
    state: RunState, settings: Mapping[str, str], options: StrategyOptions, *, fork: bool = False
) -> tuple[Plan, dict[str, Any]]:
    """The plan of a run with some of it said differently.

    A limit of the run that is raised above that of the store raises it too, unless that is said as well.

    Args:
        state: of the run as it began.
        settings: values as texts by name: a limit, ``retry.NAME``, ``strategy``, ``budget_usd``, ``model`` of every agent,
            ``TASK.FIELD``, or ``task.FIELD`` of every task.
        options: what the configuration says of strategies.
        fork: whether the run began in the middle of another one.
    Returns:
        The plan, and the values as they were understood.
    Raises:
        InvalidUsage: a name is none of these, or its value cannot be.
    """
    for name in settings:
        _check_name(name, state)
    plan, understood = overridden(
        state, {name: text for name, text in settings.items() if name not in OF_PLAN}, WHO
    )  # fmt: skip
    for name in OF_PLAN & settings.keys():
        value = understood[name] = value_of(settings[name])
        plan = _of_plan(plan, name, value, options, fork=fork)
    limits = plan.settings
    if "store_limit" not in settings and limits.max_parallel_agents > limits.store_limit:
        limits = limits.model_copy(update={"store_limit": limits.max_parallel_agents})
    return plan.model_copy(update={"settings": limits}), understood


def _check_name(name: str, state: RunState) -> None:
    if name in LIMITS | RETRY | OF_PLAN:
        return
    task_id, dot, field = name.rpartition(".")
    if dot and (task_id == EVERY_TASK or task_id in state.tasks):
        if field in OF_TASK:
            return
        raise InvalidUsage(
            f"--set {name}: {WHO} has its attempts as they were recorded, so {field!r} cannot be another one",
            hint=nearest(field, OF_TASK),
        )
    known = [*sorted(LIMITS | RETRY | OF_PLAN), *(f"{EVERY_TASK}.{one}" for one in sorted(OF_TASK))]
    known += [f"{task_id}.priority" for task_id in list(state.tasks)[:5]]
    raise InvalidUsage(f"--set {name}: {WHO} has nothing of that name", hint=nearest(name, known))


def _of_plan(plan: Plan, name: str, value: Any, options: StrategyOptions, *, fork: bool) -> Plan:
    match name:
        case "strategy":
            return _with_strategy(plan, value, options, fork=fork)
        case "budget_usd":
            if value is not None and (misfit := budget_misfit(value)):
                raise InvalidUsage(f"--set {name} {misfit.message}", hint=misfit.hint)
            return plan.model_copy(update={"budget_usd_micros": None if value is None else micros(value)})
        case _:
            if not isinstance(value, str) or not value:
                raise InvalidUsage(f"--set model is {value!r}, and no name of a model", hint="such as sonnet")
            if not any(map(is_agent, plan.tasks)):
                raise InvalidUsage("--set model: no task of the run is an agent's")
            tasks = (task.model_copy(update={"model": value}) if is_agent(task) else task for task in plan.tasks)
            return plan.model_copy(update={"tasks": tuple(tasks)})


def _with_strategy(plan: Plan, value: Any, options: StrategyOptions, *, fork: bool) -> Plan:
    if value not in STRATEGIES:
        raise InvalidUsage(f"--set strategy is {value!r}", hint=f"one of {', '.join(STRATEGIES)}")
    if fork:
        raise InvalidUsage("--set strategy: a fork goes on within the stages of its parent")
    if value == plan.strategy:
        return plan
    try:
        unarranged = tuple(task.model_copy(update={"stage": 0}) for task in plan.tasks)
        stages, tasks = arrange(unarranged, value, options)
    except InvalidPlan as error:
        raise InvalidUsage(f"--set strategy: {error.message}", hint=error.hint) from None
    return plan.model_copy(update={"strategy": value, "stages": stages, "tasks": tuple(tasks)})
