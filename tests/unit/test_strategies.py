"""The three strategies as stages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.eventstore.submission import STRATEGIES, Stage, Task
from parallel_agents.scheduler.strategies import HybridRule, PipelineStage, StrategyOptions, arrange


def task(task_id: str, *dependencies: str, agent: str = "worker") -> Task:
    """A task of an agent type."""
    return Task(task_id=task_id, dependencies=dependencies, agent_type=agent)


def arranged(
    strategy: str, tasks: Sequence[Task], options: StrategyOptions | None = None
) -> list[tuple[str, list[str]]]:
    """Stages by name, with the ids of their tasks."""
    stages, placed = arrange(tasks, strategy, options or StrategyOptions())
    return [(stage.name, [one.task_id for one in placed if one.stage == number]) for number, stage in enumerate(stages)]


def stages_of(strategy: str, tasks: Sequence[Task], options: StrategyOptions) -> list[Stage]:
    """The stages alone."""
    return list(arrange(tasks, strategy, options)[0])


DIAMOND = [task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")]


def test_concurrent_is_one_stage() -> None:
    """Only dependencies order it."""
    assert arranged("concurrent", DIAMOND) == [("all", ["a", "b", "c", "d"])]


def test_concurrency_is_a_ceiling_of_concurrent_stages_only() -> None:
    """Where somebody set it."""
    options = StrategyOptions(concurrency=2)
    assert [stage.limit for stage in stages_of("concurrent", DIAMOND, options)] == [2]
    assert [stage.limit for stage in stages_of("pipeline", DIAMOND, options)] == [None, None, None]
    assert [stage.limit for stage in stages_of("concurrent", DIAMOND, StrategyOptions())] == [None]


def test_a_pipeline_with_dependencies_is_staged_by_the_levels_of_its_graph() -> None:
    """The agent types play no part then, and every level runs at once."""
    tasks = [task("a", agent="qa-engineer"), task("b", "a"), task("c"), task("d", "b", "c")]
    assert arranged("pipeline", tasks) == [("level 1", ["a", "c"]), ("level 2", ["b"]), ("level 3", ["d"])]
    assert all(stage.parallel and stage.fail_fast for stage in stages_of("pipeline", tasks, StrategyOptions()))


def test_a_pipeline_without_dependencies_is_staged_by_agent_type() -> None:
    """In the order of the pipeline; types that no stage names come last; a stage that nobody is of is left out."""
    tasks = [
        task("ship", agent="deployment-engineer"), task("other", agent="poet"), task("api", agent="backend-engineer"),
        task("page", agent="frontend-engineer"), task("check", agent="qa-engineer"),
    ]  # fmt: skip
    assert arranged("pipeline", tasks) == [
        ("implement", ["api", "page"]), ("test", ["check"]), ("deploy", ["ship"]), ("rest", ["other"]),
    ]  # fmt: skip
    found = stages_of("pipeline", tasks, StrategyOptions(fail_fast=False))
    assert [(stage.parallel, stage.fail_fast) for stage in found] == [
        (True, False), (False, False), (False, False), (True, False),
    ]  # fmt: skip


def test_an_agent_type_that_two_stages_name_belongs_to_the_first() -> None:
    """No task is placed twice."""
    options = StrategyOptions(pipeline=(PipelineStage("one", ("x",)), PipelineStage("two", ("x", "y"))))
    assert arranged("pipeline", [task("a", agent="x"), task("b", agent="y")], options) == [
        ("one", ["a"]),
        ("two", ["b"]),
    ]


RULES = StrategyOptions(
    rules=(
        HybridRule("design", "pipeline", ("architect", "designer")),
        HybridRule("build", "concurrent", ("builder",)),
        HybridRule("nobody", "concurrent", ("ghost",)),
    ),
    pipeline=(PipelineStage("first", ("architect",)), PipelineStage("second", ("designer",), parallel=False)),
    concurrency=3,
)


def test_hybrid_rules_are_phases_each_by_its_own_strategy() -> None:
    """In the order of the rules; what no rule names runs concurrently at the end; a rule for nobody is left out."""
    tasks = [
        task("poem", agent="poet"), task("wall", agent="builder"), task("sketch", agent="designer"),
        task("plan", agent="architect"),
    ]  # fmt: skip
    assert arranged("hybrid", tasks, RULES) == [
        ("design/first", ["plan"]), ("design/second", ["sketch"]), ("build", ["wall"]), ("rest", ["poem"]),
    ]  # fmt: skip
    found = stages_of("hybrid", tasks, RULES)
    assert [stage.phase for stage in found] == [0, 0, 1, 2]
    assert [stage.fail_fast for stage in found] == [True, True, False, False]
    assert [stage.limit for stage in found] == [None, None, 3, 3]
    assert [stage.parallel for stage in found] == [True, False, True, True]


def test_hybrid_without_rules_is_concurrent() -> None:
    """One phase."""
    assert arranged("hybrid", DIAMOND) == [("rest", ["a", "b", "c", "d"])]


def test_a_dependency_on_a_later_phase_moves_the_task_there() -> None:
    """Dependencies hold in every strategy; what needs the moved task moves along, and its old stage stays empty."""
    tasks = [
        task("plan", "wall", agent="architect"), task("sketch", "plan", agent="designer"), task("wall", agent="builder"),
    ]  # fmt: skip
    stages, placed = arrange(tasks, "hybrid", RULES)
    by_id = {one.task_id: stages[one.stage].name for one in placed}
    assert by_id == {"wall": "build", "plan": "build", "sketch": "build"}


def test_a_pipeline_inside_of_a_phase_looks_at_its_own_dependencies_only() -> None:
    """A dependency on another phase does not make levels of it."""
    tasks = [task("wall", agent="builder"), task("sketch", agent="designer"), task("plan", agent="architect")]
    tasks[0] = task("wall", "plan", agent="builder")
    assert arranged("hybrid", tasks, RULES)[:2] == [("design/first", ["plan"]), ("design/second", ["sketch"])]
    inner = [task("plan", "sketch", agent="architect"), task("sketch", agent="designer")]
    assert arranged("hybrid", inner, RULES) == [("design/level 1", ["sketch"]), ("design/level 2", ["plan"])]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_that_is_switched_off_is_refused_by_name(strategy: str) -> None:
    """With the key that switches it on."""
    with pytest.raises(InvalidPlan, match=f"switches the strategy '{strategy}' off") as caught:
        arrange(DIAMOND, strategy, StrategyOptions(enabled={strategy: False}))
    assert caught.value.hint == f"set strategies.{strategy}.enabled to true"
    assert arrange(DIAMOND, strategy, StrategyOptions(enabled={strategy: True}))


@given(st.data(), st.sampled_from(STRATEGIES))
def test_no_task_ever_stands_before_what_it_needs(data: st.DataObject, strategy: str) -> None:
    """Every task has exactly one stage, no earlier than that of any dependency; phases follow each other."""
    agents = st.sampled_from(["architect", "designer", "builder", "poet"])
    tasks: list[Task] = []
    for index in range(data.draw(st.integers(1, 12))):
        needed = (
            data.draw(st.lists(st.sampled_from([one.task_id for one in tasks]), unique=True, max_size=3))
            if tasks
            else []
        )
        tasks.append(task(f"t{index}", *needed, agent=data.draw(agents)))
    shuffled = data.draw(st.permutations(tasks))
    stages, placed = arrange(shuffled, strategy, RULES)
    assert [one.task_id for one in placed] == [one.task_id for one in shuffled]
    stage_of = {one.task_id: one.stage for one in placed}
    assert all(0 <= stage < len(stages) for stage in stage_of.values())
    assert all(stage_of[needed] <= stage_of[one.task_id] for one in placed for needed in one.dependencies)
    assert [stage.phase for stage in stages] == sorted(stage.phase for stage in stages)
