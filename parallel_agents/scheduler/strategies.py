"""The three strategies, each turned into stages at submission; from then on there are only stages and dependencies.

A stage starts when every task of the stages before it has ended. Concurrent is one stage; a pipeline is a stage for each
level of the graph, or for each stage of ``defaultPipeline`` where no task declares a dependency; hybrid is one phase for
each rule, run by its own strategy, and one concurrent phase at the end for what no rule names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.eventstore.submission import Stage, Task
from parallel_agents.scheduler.graph import levels, topological_order


@dataclass(frozen=True, slots=True)
class PipelineStage:
    """One stage of ``defaultPipeline``: the agent types that it holds, and whether they run at once."""

    name: str
    agents: tuple[str, ...]
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class HybridRule:
    """One rule of the hybrid strategy. The condition is a label."""

    condition: str
    strategy: str
    agents: tuple[str, ...]


DEFAULT_PIPELINE = (
    PipelineStage("design", ("software-architect", "ux-designer")),
    PipelineStage("implement", ("backend-engineer", "frontend-engineer")),
    PipelineStage("test", ("qa-engineer",), parallel=False),
    PipelineStage("review", ("reviewer",), parallel=False),
    PipelineStage("deploy", ("deployment-engineer",), parallel=False),
)


@dataclass(frozen=True, slots=True)
class StrategyOptions:
    """What the configuration says about the strategies."""

    pipeline: tuple[PipelineStage, ...] = DEFAULT_PIPELINE
    fail_fast: bool = True
    rules: tuple[HybridRule, ...] = ()
    concurrency: int | None = None  # A ceiling for concurrent phases.
    enabled: Mapping[str, bool] | None = None


def arrange(
    tasks: Sequence[Task], strategy: str, options: StrategyOptions
) -> tuple[tuple[Stage, ...], tuple[Task, ...]]:
    """The stages of a plan, and its tasks with their stage filled in. The graph must be acyclic.

    Raises:
        InvalidPlan: the configuration has switched the strategy off.
    """
    if options.enabled is not None and not options.enabled.get(strategy, True):
        raise InvalidPlan(
            f"the configuration switches the strategy {strategy!r} off",
            hint=f"set strategies.{strategy}.enabled to true",
        )
    phases = _hybrid_phases(tasks, options) if strategy == "hybrid" else [(strategy, strategy, list(tasks))]
    stages: list[Stage] = []
    stage_of: dict[str, int] = {}
    for phase, (name, kind, members) in enumerate(phases):
        groups = [(PipelineStage("all", ()), members)]
        if kind == "pipeline":
            groups = _pipeline_stages(members, options)
        for group, group_tasks in groups:
            label = group.name if strategy != "hybrid" else f"{name}/{group.name}" if kind == "pipeline" else name
            limit = options.concurrency if kind == "concurrent" else None
            fail_fast = options.fail_fast and kind == "pipeline"
            for task in group_tasks:
                stage_of[task.task_id] = len(stages)
            stages.append(Stage(name=label, parallel=group.parallel, fail_fast=fail_fast, limit=limit, phase=phase))
    if len(stages) == 1:
        return tuple(stages), tuple(tasks)
    _hold_dependencies(tasks, stage_of)
    placed = (task.model_copy(update={"stage": stage_of[task.task_id]}) for task in tasks)
    return tuple(stages), tuple(placed)


def _hold_dependencies(tasks: Sequence[Task], stage_of: dict[str, int]) -> None:
    """Dependencies hold in every strategy: a task moves to the latest stage of what it needs, never the other way."""
    dependencies = {task.task_id: task.dependencies for task in tasks}
    for name in topological_order(dependencies):
        stage_of[name] = max([stage_of[name], *(stage_of[needed] for needed in dependencies[name])])


def _pipeline_stages(tasks: Sequence[Task], options: StrategyOptions) -> list[tuple[PipelineStage, list[Task]]]:
    by_id = {task.task_id: task for task in tasks}
    inner = {task.task_id: [name for name in task.dependencies if name in by_id] for task in tasks}
    if any(inner.values()):
        return [
            (PipelineStage(f"level {number}", ()), [by_id[name] for name in names])
            for number, names in enumerate(levels(inner), start=1)
        ]
    groups: list[tuple[PipelineStage, list[Task]]] = []
    named: set[str] = set()
    for stage in options.pipeline:
        members = [task for task in tasks if task.agent_type in stage.agents and task.task_id not in named]
        named.update(task.task_id for task in members)
        if members:
            groups.append((stage, members))
    rest = [task for task in tasks if task.task_id not in named]
    if rest:
        groups.append((PipelineStage("rest", ()), rest))
    return groups


def _hybrid_phases(tasks: Sequence[Task], options: StrategyOptions) -> list[tuple[str, str, list[Task]]]:
    phases: list[tuple[str, str, list[Task]]] = []
    named: set[str] = set()
    for rule in options.rules:
        members = [task for task in tasks if task.agent_type in rule.agents and task.task_id not in named]
        named.update(task.task_id for task in members)
        if members:
            phases.append((rule.condition, rule.strategy, members))
    rest = [task for task in tasks if task.task_id not in named]
    if rest or not phases:
        phases.append(("rest", "concurrent", rest))
    return phases
