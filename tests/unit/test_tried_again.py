"""How an agent is asked again: what was its own fault is in its prompt, what was not changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, plan_of

from parallel_agents import look, steer
from parallel_agents.eventstore.submission import RetryPolicy, Task


def prompts_after(scene: Scene, **ends: Any) -> list[str]:
    """What the first two attempts of a task were told, where the first one ended like this."""
    scene.runner = ScriptedRunner("claude")
    scene.dispatcher = scene.another("run")
    task = Task(task_id="a", runner="claude", agent_type="qa-engineer", description="Do it.")
    run_id = scene.submit(plan=plan_of(task, retry=RetryPolicy(delay_s=1.0)))
    scene.tick()
    scene.runner.end("a", **{"error": "the reason why", "output": "my last words", **ends})
    scene.tick()
    if look.status(scene.log, run_id)["status"] == "paused":
        steer.resume(scene.log, run_id)
    scene.now_us += 60 * SECOND_US
    scene.tick()
    errands = [launch.errand for launch in scene.runner.launched]
    return [errand.prompt for errand in errands if errand is not None]


@pytest.mark.parametrize("kind", ["infrastructure", "overload", "rate_limit", "spend_cap"])
def test_what_was_no_fault_of_the_agent_is_tried_again_unchanged(scene: Scene, kind: str) -> None:
    """The network, the provider."""
    first, second = prompts_after(scene, kind=kind, provider="" if kind == "infrastructure" else "anthropic")
    assert first == second


def test_an_agent_that_vanished_is_tried_again_unchanged(scene: Scene) -> None:
    """A killed process is nobody's fault either."""
    first, second = prompts_after(scene, outcome="lost")
    assert first == second


@pytest.mark.parametrize("kind", ["agent", "no_change"])
def test_what_was_the_agents_own_fault_is_told_to_the_next_attempt(scene: Scene, kind: str) -> None:
    """The error, and the last that was said."""
    first, second = prompts_after(scene, kind=kind)
    assert "the reason why" not in first
    assert "the reason why" in second
    assert "my last words" in second
