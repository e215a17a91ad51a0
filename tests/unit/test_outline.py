"""A plan before it runs: the waves in which it could, and its longest path."""

from __future__ import annotations

from typing import Any

from parallel_agents.configuration import DEFAULTS
from parallel_agents.outline import outline
from parallel_agents.planfile import parse_plan
from parallel_agents.submit import make_plan


def outlined(**plan: Any) -> dict[str, Any]:
    """The outline of a plan of `true`s."""
    for task in plan["tasks"]:
        task.setdefault("command", ["true"])
    return outline(make_plan(parse_plan(plan, "plan.yaml", DEFAULTS), DEFAULTS))


def waves(found: dict[str, Any]) -> dict[str, int]:
    return {task["task_id"]: task["wave"] for task in found["tasks"]}


DIAMOND = [
    {"task_id": "top"},
    {"task_id": "left", "dependencies": ["top"], "expected_s": 5.0},
    {"task_id": "right", "dependencies": ["top"]},
    {"task_id": "end", "dependencies": ["left", "right"]},
]


def test_what_depends_on_nothing_open_could_run_together() -> None:
    """A wave is a level of the graph."""
    found = outlined(tasks=[dict(task) for task in DIAMOND])
    assert waves(found) == {"top": 1, "left": 2, "right": 2, "end": 3}


def test_the_longest_path_weighs_what_tasks_are_expected_to_take() -> None:
    """A task that does not say counts as a second."""
    found = outlined(tasks=[dict(task) for task in DIAMOND])
    assert (found["critical_path"], found["expected_s"]) == (["top", "left", "end"], 7.0)


def test_a_barrier_starts_a_new_wave() -> None:
    """A pipeline without dependencies is staged by agent type; no two stages share a wave."""
    found = outlined(
        strategy="pipeline",
        tasks=[
            {"task_id": "ship", "agent_type": "deployment-engineer"},
            {"task_id": "draw", "agent_type": "ux-designer"},
            {"task_id": "code", "agent_type": "backend-engineer"},
        ],
    )
    assert waves(found) == {"draw": 1, "code": 2, "ship": 3}
    assert [task["stage"] for task in found["tasks"]] == ["design", "implement", "deploy"]
