"""Attempts in the world: an end outlives a tick that fails, and what is over leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from dispatching import Calls, Scene, ScriptedRunner
from paper import task

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.scheduler import attempts
from parallel_agents.scheduler.runners import plugged_in


def test_an_end_is_taken_up_again_where_looking_at_it_failed(scene: Scene) -> None:
    """And the ends after it with it: a runner tells each of them only once."""
    failing = ["now"]

    def used(attempt_id: str) -> None:
        if failing:
            failing.pop()
            raise StoreError("the store cannot be read")

    scene.dispatcher = scene.another("run", used=used)
    run_id = scene.submit(task("a"), task("b"))
    scene.tick()
    scene.runner.end("a", "b")
    with pytest.raises(StoreError):
        scene.tick()
    scene.tick()
    assert scene.statuses(run_id) == {"a": "completed", "b": "completed"}


def test_calls_that_have_returned_leave_no_deadlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that makes a thousand calls a second with an hour for each would keep millions of them."""
    monkeypatch.setattr(attempts, "_DEADLINES_KEPT", 3)
    calls = Calls(tmp_path)
    for _ in range(30):
        calls.submit_calls("a", timeout_s=3600.0)
        calls.tick()
        calls.runner.end("a")
        calls.tick()
    assert len(calls.dispatcher.attempts._deadlines) <= 6
    run_id = calls.submit_calls("late", timeout_s=30.0, max_retries=0)
    calls.tick()
    calls.steady_us += 30 * 1_000_000
    calls.tick()
    assert calls.runner.stops == [("late", True, 3.0)]
    assert calls.statuses(run_id) == {"late": "running"}
    calls.log.close()


def test_the_time_of_a_runner_that_a_package_brings_along_is_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No supervisor of ours does that; and who takes it over gives it what is left of its time."""
    monkeypatch.setattr(plugged_in, "names", lambda: ("oracle",))
    scene, steady = Scene(tmp_path), [0]
    runner = scene.runner = ScriptedRunner("oracle")
    scene.dispatcher = scene.another("run", dead=True, steady=lambda: steady[0])
    run_id = scene.submit(task("a", runner="oracle", timeout_s=30.0))
    scene.tick()
    steady[0], scene.now_us = 29_000_000, scene.now_us + 29_000_000
    scene.tick()
    assert runner.stops == []
    heir = ScriptedRunner("oracle")
    later = scene.another("daemon", heir, steady=lambda: steady[0])
    later.hold(run_id)
    later.tick()
    assert (heir.adopted, heir.stops) == (["a"], [])
    steady[0] += 1_000_000
    later.tick()
    assert heir.stops == [("a", True, 3.0)]
    scene.log.close()
