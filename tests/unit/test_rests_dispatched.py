"""Rests before retries: as long as they are meant to be, whatever is done to the clock and whoever dispatches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dispatching import START_US, Scene
from paper import SECOND_US, task

from parallel_agents import steer, travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import rfc3339

HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


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


def test_a_rest_that_began_long_after_the_clock_was_set_back_is_over_in_time_for_whoever_takes_over(
    scene: Scene,
) -> None:
    """The time of events has stood still for an hour; the event of the rest says no more than how long it is."""
    scene.submit(task("a"), max_execution_s=86_400.0)
    scene.tick()
    scene.set_clock(-2 * HOUR_US)
    scene.tick()
    scene.now_us += HOUR_US
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    assert scene.last(ev.TaskRetryScheduled).not_before == rfc3339(START_US + 5 * SECOND_US)
    scene.dispatcher.leave()
    scene.dispatcher = scene.another("daemon", takes_all=True)
    assert scene.tick() == scene.now_us + 5 * SECOND_US
    scene.now_us += 5 * SECOND_US - 1
    scene.tick()
    assert scene.runner.tasks() == ["a"]
    scene.now_us += 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "a"]


def test_a_rest_begins_with_the_commit_that_tells_of_it(scene: Scene) -> None:
    """Not with one before that was refused, while the time of events stood still."""
    scene.submit(task("a"))
    scene.tick()
    scene.set_clock(-HOUR_US)
    scene.runner.end("a", error="exit code 1")
    refused(scene)
    scene.now_us += 3 * SECOND_US
    assert scene.tick() == scene.now_us + 5 * SECOND_US


def test_a_rest_goes_on_while_commits_fail(scene: Scene) -> None:
    """Also while the time of events stands still: what is held anew is measured from when it was first seen."""
    scene.submit(task("a"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    scene.set_clock(-HOUR_US)
    scene.now_us += 3 * SECOND_US
    scene.runner.end("a")  # What no event needs to be told of is refused, too.
    scene.log.at_once = True
    refused(scene)
    assert scene.tick() == scene.now_us + 2 * SECOND_US


def test_who_takes_a_run_over_measures_its_rests_from_the_claim_that_was_committed(scene: Scene) -> None:
    """Not from one that was refused, by a clock that was ahead then."""
    scene.submit(task("a"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    scene.dispatcher.leave()
    scene.dispatcher = scene.another("daemon", takes_all=True)
    scene.set_clock(3 * SECOND_US)
    refused(scene)
    scene.set_clock(-3 * SECOND_US)
    assert scene.tick() == scene.now_us + 5 * SECOND_US


def test_a_rest_is_no_shorter_by_what_its_commit_has_waited_for_the_store(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steady clock is read after the time that its event has."""
    scene.submit(task("a"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")

    def after_a_wait() -> int:
        scene.now_us += 10 * SECOND_US
        return scene.now_us

    with monkeypatch.context() as patch:
        patch.setattr(scene.log, "_clock", after_a_wait)
        assert scene.tick() == START_US + 15 * SECOND_US
    scene.now_us = START_US + 15 * SECOND_US - 1
    assert scene.tick() == START_US + 15 * SECOND_US
    scene.now_us += 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "a"]


def test_a_retry_that_was_granted_is_made_in_a_fork_too_that_grants_fewer(scene: Scene) -> None:
    """Its own limit counts from the next failure on."""
    run_id = scene.submit(task("a", max_retries=3))
    for _ in range(2):
        scene.tick()
        scene.runner.end("a", error="exit code 1")
        scene.tick()
        scene.now_us += 60 * SECOND_US
    child = travel.fork(scene.log, run_id, scene.log.last_seq(), {"task.max_retries": "1"})["run_id"]
    steer.cancel(scene.log, run_id)
    steer.resume(scene.log, child)
    scene.dispatcher.hold(child)
    scene.tick()
    assert scene.statuses(child) == {"a": "running"}
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    assert scene.statuses(child) == {"a": "failed"}
