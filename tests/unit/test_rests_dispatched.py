"""Rests before retries: as long as they are meant to be, whatever is done to the clock and whoever dispatches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dispatching import START_US, Scene
from paper import SECOND_US, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import rfc3339

DAY_US = 86_400 * SECOND_US


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A dispatcher named run, and a runner that it shares with whoever else a test makes."""
    return Scene(tmp_path)


def refused(scene: Scene) -> None:
    """A tick whose commit fails."""
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.tick()


@pytest.mark.parametrize("commit", [refused, Scene.tick])
def test_a_clock_that_no_event_tells_of_puts_off_no_retry(scene: Scene, commit: Callable[[Scene], object]) -> None:
    """A day ahead at a tick that appended nothing, and then set back: the retry is due when its rest is over."""
    scene.submit(task("a"), task("b"))
    scene.tick()
    scene.set_clock(DAY_US)
    commit(scene)
    scene.set_clock(-DAY_US)
    scene.now_us += 60 * SECOND_US
    scene.runner.end("a", error="exit code 1")
    assert scene.tick() == START_US + 65 * SECOND_US
    assert scene.last(ev.TaskRetryScheduled).not_before == rfc3339(START_US + 65 * SECOND_US)


def test_a_clock_that_no_event_tells_of_ends_no_rest(scene: Scene) -> None:
    """It saw that the rest was over, could not append the start, and the clock was set back."""
    scene.submit(task("a"), task("b"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    scene.set_clock(DAY_US)
    scene.now_us += 2 * SECOND_US
    refused(scene)
    scene.set_clock(-DAY_US)
    assert scene.tick() == START_US + 5 * SECOND_US
    scene.now_us += 3 * SECOND_US - 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b"]
    scene.now_us += 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a"]
