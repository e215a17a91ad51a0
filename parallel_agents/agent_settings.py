"""What a plan's agents need, looked at before it is submitted: their types, their clients, their models, their budgets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from parallel_agents.agent_types import find_roles
from parallel_agents.configuration import Configuration
from parallel_agents.configuration_keys import snake_case
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.eventstore.submission import AgentSettings, BudgetSettings, Task
from parallel_agents.plan_fields import micros
from parallel_agents.planfile import PlanDraft
from parallel_agents.project import Project
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.finding import find_client, missing_hint
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.agents.models import MODEL_OF, MODELS, is_alias, unnamed
from parallel_agents.scheduler.agents.prompt import (
    ARGUMENT_DESCRIPTION_BYTES,
    CONTEXT_BYTES,
    DESCRIPTION_BYTES,
    context_text,
)
from parallel_agents.wording import escaped, nearest_name


def agent_settings(
    draft: PlanDraft,
    configuration: Configuration,
    project: Project,
    environ: Mapping[str, str] | None = None,
) -> tuple[AgentSettings, tuple[str, ...]]:
    """How the run is to drive its agents, and warnings. A plan without agents gets the defaults.

    Args:
        environ: where PATH and HOME are looked up; None is this process's own.
    Raises:
        InvalidPlan: the client of a task is not on this machine, has no name for the model that the task names, or cannot be
            told so long a description.
        InvalidConfiguration: the file of an agent type is broken.
    """
    environ = os.environ if environ is None else environ
    tasks = [task for task in draft.tasks if is_agent(task)]
    resolves = configuration.get("conflictResolution.strategy") == "agent"
    if not tasks and not resolves:
        return AgentSettings(), ()
    warnings: list[str] = []
    resolver = configuration.get("conflictResolution.agent")
    named = dict.fromkeys(task.agent_type for task in tasks if task.agent_type != "general")
    if resolves:
        named[resolver] = None
    settings = AgentSettings(
        runner=configuration.get("agents.defaultRunner"),
        roles=find_roles(named, project.root, environ, warnings.append),
        choose_models=configuration.get("costOptimization.enabled")
        and configuration.get("costOptimization.modelSelectionPerAgent"),
        profile=configuration.get("agents.profile"),
        model_of=configuration.get("agents.modelOf"),
        models=configuration.get("agents.models"),
        retry_stronger=configuration.get("agents.retryStronger"),
        clients=client_rows(configuration),
        failover=tuple(configuration.get("agents.failover"))
        if configuration.get("safetyFeatures.automaticFailover")
        else (),
        resolver=resolver,
        permission_mode=configuration.get("agents.permissionMode"),
        allowed_tools=tuple(configuration.get("agents.allowedTools")),
        silence_s=float(configuration.get("agents.silenceTimeout")),
        grace_s=float(configuration.get("agents.resultGrace")),
        max_requests=configuration.get("resourceManagement.api.maxConcurrentRequests"),
        requests_per_agent=configuration.get("resourceManagement.api.perAgentLimit"),
        requests_per_minute=configuration.get("resourceManagement.api.rateLimitPerMinute"),
    )
    warnings += [*_misspelt(tasks, settings), *_long_contexts(tasks)]
    _check_clients(tasks, settings, environ)
    client = clients(settings.clients).get(settings.runner)
    if resolves and client is not None and find_client(client, environ.get("PATH")) is None:
        message = f"conflictResolution.strategy is agent, and there is no {client.command[0]!r} on PATH"
        raise InvalidPlan(message, hint=missing_hint(client))
    return settings, tuple(warnings)


def client_rows(configuration: Configuration) -> dict[str, dict[str, Any]]:
    """The rows of ``agents.runners`` as the table of clients spells them."""
    rows: dict[str, dict[str, Any]] = configuration.get("agents.runners")
    return {name: {snake_case(field): value for field, value in row.items()} for name, row in rows.items()}


def budget_settings(configuration: Configuration) -> BudgetSettings:
    """The limits of spending that the configuration sets. Zero dollars are no limit."""

    def limit(name: str) -> int | None:
        return micros(configuration.get(f"costOptimization.budgets.{name}")) or None

    on = configuration.get("costOptimization.enabled")
    return BudgetSettings(
        enabled=on and configuration.get("costOptimization.budgetAware"),
        day_usd_micros=limit("day"),
        week_usd_micros=limit("week"),
        month_usd_micros=limit("month"),
        warning=configuration.get("costOptimization.costThresholds.warning"),
        critical=configuration.get("costOptimization.costThresholds.critical"),
        emergency=configuration.get("costOptimization.costThresholds.emergency"),
        by_priority=configuration.get("costOptimization.priorityBasedExecution"),
        cheaper_first=configuration.get("costOptimization.modelSelectionPerAgent"),
        pause=configuration.get("costOptimization.pauseOnBudgetExceeded"),
    )


def run_budget(draft: PlanDraft, configuration: Configuration) -> int | None:
    """What a run may cost, in micro-dollars: what its plan says, else the configuration."""
    if draft.budget_usd_micros is not None:
        return draft.budget_usd_micros
    return micros(configuration.get("costOptimization.budgets.run")) or None


def with_budgets(tasks: tuple[Task, ...], configuration: Configuration) -> tuple[Task, ...]:
    """The tasks, those of agents with the configured budget of a task where they have none of their own."""
    budget = micros(configuration.get("costOptimization.budgets.task"))
    if not budget:
        return tasks
    return tuple(
        task.model_copy(update={"budget_usd_micros": budget})
        if is_agent(task) and task.budget_usd_micros is None
        else task
        for task in tasks
    )


def _misspelt(tasks: list[Task], settings: AgentSettings) -> Iterator[str]:
    """Warnings: names that are taken as they are, and were probably meant to be others that we know."""
    aliases = [*MODELS, *settings.models]
    types = dict.fromkeys((*MODEL_OF, *settings.roles))
    models = {task.model: f"task {task.task_id!r}" for task in reversed(tasks) if task.model is not None}
    models |= {model: f"agents.modelOf.{name}" for name, model in settings.model_of.items()}
    named = [(model, where, aliases) for model, where in models.items()]
    named += [(name, "agents.failover", [*aliases, *clients(settings.clients)]) for name in settings.failover]
    named += [(name, "agents.modelOf", list(types)) for name in settings.model_of]
    for name, where, known in named:
        if name in known or is_alias(name, settings):
            continue
        if (meant := nearest_name(name, known)).startswith("did you mean"):
            yield f"{where} names {escaped(name)!r}, which is taken as it is. {meant}"


def _long_contexts(tasks: list[Task]) -> Iterator[str]:
    for task in tasks:
        if (size := len(context_text(task.context).encode())) > CONTEXT_BYTES:
            yield f"the context of task {task.task_id!r} has {size:,} bytes; its agent is told {CONTEXT_BYTES:,} of them"


def _check_clients(tasks: list[Task], settings: AgentSettings, environ: Mapping[str, str]) -> None:
    """Refuse what could not run at all, before anything of it is recorded."""
    table, missing = clients(settings.clients), dict[str, str]()
    for task in tasks:
        assert task.runner is not None
        client = table.get(task.runner)
        if client is not None and task.runner not in missing and find_client(client, environ.get("PATH")) is None:
            missing[task.runner] = task.task_id
        longest = ARGUMENT_DESCRIPTION_BYTES if client and client.prompt == "argument" else DESCRIPTION_BYTES
        if (size := len(task.description.strip().encode())) > longest:
            raise InvalidPlan(
                f"task {task.task_id!r}: its description has {size:,} bytes, and its agent is told {longest:,} at most",
                hint="put the rest into a file of the project, and name that file in the description",
            )
        if (wrong := unnamed(task, settings)) is not None:
            hint = f"name it in agents.models.{task.model}.{task.runner}, or name a model that the client knows"
            raise InvalidPlan(f"task {task.task_id!r}: {wrong}", hint=hint)
    for name, task_id in missing.items():
        client = table[name]
        raise InvalidPlan(
            f"task {task_id!r} is for the agent {name}, and there is no {client.command[0]!r} on PATH",
            hint=missing_hint(client),
        )


def found_clients(configuration: Configuration, environ: Mapping[str, str]) -> dict[str, tuple[Any, str | None]]:
    """Every row of the table of clients, and where its program lies."""
    path = environ.get("PATH")
    return {name: (client, find_client(client, path)) for name, client in clients(client_rows(configuration)).items()}
