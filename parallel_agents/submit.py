"""From a checked draft and the configuration to a run in the log. Nothing is appended unless all of it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_agents.agent_limits import agent_limits
from parallel_agents.agent_settings import budget_settings, run_budget, with_budgets
from parallel_agents.configuration import Configuration
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import InvalidConfiguration, InvalidPlan, InvalidUsage
from parallel_agents.eventstore.log import Log, digest_of, wall_clock_us
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import (
    AgentSettings,
    Plan,
    RetryPolicy,
    RunSettings,
    Task,
    Workspace,
    keep_at_hand,
)
from parallel_agents.file_settings import file_settings
from parallel_agents.planfile import PlanDraft
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.environment import recorded_environment
from parallel_agents.scheduler.graph import check_acyclic
from parallel_agents.scheduler.sandbox import NONE, problem
from parallel_agents.scheduler.strategies import HybridRule, PipelineStage, StrategyOptions, arrange
from parallel_agents.versioning import Start, begin


def make_plan(
    draft: PlanDraft,
    configuration: Configuration,
    workspace: Workspace | None = None,
    agents: AgentSettings | None = None,
) -> Plan:
    """The plan that will be stored: dependencies, stages and settings resolved.

    Args:
        workspace: what was found to fit the place (see ``versioning``); else what the plan says.
        agents: how its agents are driven (see ``agent_settings``).
    Raises:
        InvalidPlan: the graph has a cycle, or the configuration switches the strategy off.
        InvalidConfiguration: the configuration switches everything off.
    """
    if not configuration.get("enabled"):
        raise InvalidConfiguration("the configuration switches parallel agents off: enabled = false")
    _check_sandbox(configuration)
    tasks = with_budgets(_with_agent_dependencies(draft.tasks, configuration), configuration)
    check_acyclic({task.task_id: task.dependencies for task in tasks})
    strategy = draft.strategy
    stages, tasks = arrange(tasks, strategy, strategy_options(configuration))
    return Plan(
        name=draft.name,
        strategy=strategy,
        workspace=workspace or draft.workspace or "shared",
        sparse=draft.sparse,
        files=file_settings(configuration),
        agents=agents or AgentSettings(),
        budgets=budget_settings(configuration),
        budget_usd_micros=run_budget(draft, configuration),
        stages=stages,
        tasks=tuple(tasks),
        settings=run_settings(configuration, draft.max_parallel_agents),
    )


def warnings_of(plan: Plan) -> list[str]:
    """What is odd about a plan that may be run all the same."""
    if not any(map(is_agent, plan.tasks)):
        return []
    from parallel_agents.foreseen import unknown_costs

    return unknown_costs(plan)


def submit(
    log: Log,
    plan: Plan,
    *,
    workdir: Path,
    environ: Mapping[str, str] | None = None,
    callables: bool = False,
    claim: Mapping[str, Any] | None = None,
    start: Start | None = None,
) -> str:
    """Append a run.

    Args:
        workdir: where its commands run.
        callables: tasks hold Python callables, so no other process can run them.
        claim: the identity of this process, if it will dispatch the run itself: held from its first moment.
        start: where its files are; without it nothing is versioned.
    Returns:
        The run's id.
    Raises:
        InvalidUsage: the working directory's path is no UTF-8, so that no event could name it.
        GitFailed: the files that it would start from cannot be held; then nothing was appended.
    """
    made = submission(
        log, plan, workdir=workdir, environment=recorded_environment(os.environ if environ is None else environ),
        callables=callables, start=start,
    )  # fmt: skip
    events = list(made.events)
    if claim is not None:
        events.append(ev.RunClaimed(holder=dict(claim), epoch=1))
    reach("submit.before-append")
    log.append(made.run_id, 0, events, blobs=made.blobs)
    reach("submit.appended")
    if claim is not None:
        [digest] = made.blobs
        keep_at_hand(digest, made.plan)
    return made.run_id


@dataclass(frozen=True, slots=True)
class Submission:
    """A run that is not in the log yet. The files that it starts from are held already."""

    run_id: str
    plan: Plan
    events: list[ev.Event]
    blobs: dict[str, bytes]


def submission(
    log: Log,
    plan: Plan,
    *,
    workdir: Path,
    environment: Mapping[str, str],
    callables: bool = False,
    start: Start | None = None,
) -> Submission:
    """What ``submit`` appends.

    Args:
        environment: what is recorded of one (see ``recorded_environment``).
    Raises:
        InvalidUsage, GitFailed: as ``submit`` says.
    """
    try:
        str(workdir).encode()
    except UnicodeEncodeError:
        raise InvalidUsage(f"the path {str(workdir)!r} is no UTF-8", hint="rename the folder") from None
    if any(map(is_agent, plan.tasks)):
        from parallel_agents.foreseen import with_expectations  # Other runs have no use for what is expected.

        plan = with_expectations(plan, log)
    content = plan.to_bytes()
    digest = digest_of(content)
    run_id = new_id()
    base_commit, checkpoints = (None, ()) if start is None else begin(start, plan, run_id, wall_clock_us())
    submitted = ev.RunSubmitted(
        name=plan.name,
        plan_digest=digest,
        task_count=len(plan.tasks),
        strategy=plan.strategy,
        workspace=plan.workspace,
        workdir=os.path.abspath(workdir),
        environment=dict(environment),
        callables=callables,
        base_commit=base_commit,
        repository=None if start is None else start.named,
        budget_usd_micros=plan.budget_usd_micros,
    )
    return Submission(run_id, plan, [submitted, *checkpoints], {digest: content})


def run_settings(configuration: Configuration, wanted: int | None) -> RunSettings:
    """The limits of a run. Those that nobody set rise to what the plan asks for; explicit ones are ceilings."""
    ceilings = [
        int(configuration.get(key))
        for key in ("maxParallelAgents", "execution.workerPool.maxWorkers")
        if configuration.is_explicit(key)
    ]
    default = int(configuration.get("maxParallelAgents"))
    limit = min([wanted, *ceilings]) if wanted is not None else min(ceilings, default=default)
    store_limit = default if configuration.is_explicit("maxParallelAgents") else max(default, limit)
    retry = RetryPolicy(
        enabled=configuration.get("execution.retryPolicy.enabled"),
        delay_s=float(configuration.get("execution.retryPolicy.retryDelay")),
        exponential=configuration.get("execution.retryPolicy.exponentialBackoff"),
    )
    pool, cpu, memory = "execution.workerPool", "resourceManagement.cpu", "resourceManagement.memory"
    most = f"{pool}.maxWorkers"
    agent_cpu_percent, agent_memory_mb = agent_limits(configuration)
    return RunSettings(
        max_parallel_agents=limit,
        store_limit=store_limit,
        max_queue_size=int(configuration.get("execution.taskQueue.maxQueueSize")),
        max_execution_s=float(configuration.get("safetyFeatures.maxExecutionTime")),
        min_free_mb=int(configuration.get("resourceManagement.disk.minFreeMB")),
        max_cpu_percent=float(configuration.get(f"{cpu}.maxCpuPercent")),
        throttle_cpu_percent=float(configuration.get(f"{cpu}.throttleThreshold")),
        agent_cpu_percent=agent_cpu_percent,
        max_memory_mb=int(configuration.get(f"{memory}.maxMemoryMB")),
        agent_memory_mb=agent_memory_mb,
        memory_warning_percent=float(configuration.get(f"{memory}.warningThresholdPercent")),
        min_workers=int(configuration.get(f"{pool}.minWorkers")),
        max_workers=int(configuration.get(most)) if configuration.is_explicit(most) else None,
        auto_scale=configuration.get(f"{pool}.autoScale"),
        scaling_threshold=float(configuration.get(f"{pool}.scalingThreshold")),
        retry=retry,
        sandbox=sandbox_words(configuration),
        circuit_failures=int(configuration.get("safetyFeatures.circuitBreaker.failureThreshold"))
        if configuration.get("safetyFeatures.circuitBreaker.enabled")
        else None,
        health_check_s=float(configuration.get("safetyFeatures.healthCheckInterval"))
        if configuration.get("safetyFeatures.healthChecks")
        else None,
        stuck_after_s=float(configuration.get("safetyFeatures.stuckAfter")),
        max_output_mb=int(configuration.get("monitoring.maxOutputMB")) or None,
        circuit_reset_s=float(configuration.get("safetyFeatures.circuitBreaker.resetTimeout")),
    )


def _check_sandbox(configuration: Configuration) -> None:
    """A sandbox that is not to be had here must not be left out in silence."""
    words = sandbox_words(configuration)
    if not words:
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pa-") as scratch:
        why = problem(words, scratch)
    if why:
        origin = configuration.origin("safetyFeatures.sandbox")
        raise InvalidConfiguration(
            f"{origin}: safetyFeatures.sandbox cannot be had on this machine: {why}",
            hint="install it, or choose another; `parallel-agents doctor` tells which there are",
        )


def sandbox_words(configuration: Configuration) -> tuple[str, ...]:
    """What goes before the command of every attempt."""
    wanted = configuration.get("safetyFeatures.sandbox")
    return tuple(wanted) if not isinstance(wanted, str) else () if wanted == NONE else (wanted,)


def strategy_options(configuration: Configuration) -> StrategyOptions:
    """What the configuration says about the strategies."""
    key = "strategies.concurrent.maxConcurrency"
    return StrategyOptions(
        pipeline=tuple(
            PipelineStage(stage["stage"], tuple(stage["agents"]), stage.get("parallel", True))
            for stage in configuration.get("strategies.pipeline.defaultPipeline")
        ),
        fail_fast=configuration.get("strategies.pipeline.failFast"),
        rules=tuple(
            HybridRule(rule["condition"], rule["strategy"], tuple(rule["agents"]))
            for rule in configuration.get("strategies.hybrid.rules")
        ),
        concurrency=int(configuration.get(key)) if configuration.is_explicit(key) else None,
        enabled={
            name: configuration.get(f"strategies.{name}.enabled") for name in ("concurrent", "pipeline", "hybrid")
        },
    )


def _with_agent_dependencies(tasks: Sequence[Task], configuration: Configuration) -> tuple[Task, ...]:
    """Order by agent type (``dependencies.dependencyGraph``), where no task of the plan declares a dependency."""
    graph = configuration.get("dependencies.dependencyGraph")
    in_force = configuration.get("dependencies.enabled") and configuration.get("dependencies.automaticResolution")
    if not graph or not in_force or any(task.dependencies for task in tasks):
        return tuple(tasks)
    by_agent: dict[str, list[str]] = {}
    for task in tasks:
        by_agent.setdefault(task.agent_type, []).append(task.task_id)
    resolved = []
    for task in tasks:
        needs = graph.get(task.agent_type, {}).get("dependsOn", [])
        names = tuple(name for agent in needs for name in by_agent.get(agent, ()))
        if task.task_id in names:
            raise InvalidPlan(
                f"dependencies.dependencyGraph: {task.agent_type!r} depends on itself",
                hint="take it out of its own dependsOn",
            )
        resolved.append(task.model_copy(update={"dependencies": names}) if names else task)
    return tuple(resolved)
