"""What ``show`` tells of a task besides its attempts: checkpoints, conflicts, who waited for it, every event, and the past."""

from __future__ import annotations

from typing import Any

from dispatching import Scene
from paper import SECOND_US, task

from parallel_agents import look
from parallel_agents.eventstore import events as ev


def tick(scene: Scene, seconds: float) -> None:
    """Some time later."""
    scene.now_us += round(seconds * SECOND_US)
    scene.tick()


def waits(scene: Scene, run_id: str, task_id: str) -> dict[str, tuple[Any, Any, bool]]:
    """Who waited for a task, as of the last event: how long, how long for nothing else, and whether it still does."""
    found = look.show(scene.log, run_id, task_id, scene.log.last_seq())["waited_for"]
    return {one["task_id"]: (one["waited_s"], one["alone_s"], one["waits"]) for one in found}


def test_who_waited_for_it_and_how_long(scene: Scene) -> None:
    """From the start of the run until it was done; and how long of that for nothing else."""
    run_id = scene.submit(task("quick"), task("slow"), task("both", "quick", "slow"), task("one", "slow"))
    assert waits(scene, run_id, "slow") == {"both": (None, None, True), "one": (None, None, True)}
    tick(scene, 0)
    scene.runner.end("quick")
    tick(scene, 2)
    scene.append(run_id, ev.BudgetChanged(scope="run", budget_usd_micros=5))
    assert waits(scene, run_id, "slow") == {"both": (2.0, 0.0, True), "one": (2.0, 2.0, True)}
    assert waits(scene, run_id, "quick") == {"both": (2.0, 0.0, False)}
    scene.runner.end("slow")
    tick(scene, 5)
    tick(scene, 9)
    assert waits(scene, run_id, "slow") == {"both": (7.0, 5.0, False), "one": (7.0, 7.0, False)}
    assert waits(scene, run_id, "quick") == {"both": (2.0, 0.0, False)}


def test_who_was_skipped_waited_until_then(scene: Scene) -> None:
    """For what failed it waits no longer."""
    run_id = scene.submit(task("a", max_retries=0), task("b", "a"))
    tick(scene, 0)
    scene.runner.end("a", error="exit code 1")
    tick(scene, 4)
    tick(scene, 4)
    assert waits(scene, run_id, "a") == {"b": (4.0, 4.0, False)}


def test_checkpoints_conflicts_and_every_event_are_told(scene: Scene) -> None:
    """Its own, and the conflicts of others with its work; what a rollback has undone is said to be."""
    run_id = scene.submit(task("a"), task("b"))
    tick(scene, 1)
    attempt = scene.runner.launched[0].attempt_id
    scene.append(
        run_id,
        ev.CheckpointCreated(checkpoint_id="mine", kind="after_attempt", task_id="a", attempt_id=attempt, commit="c1",
                             changed=1, paths=["f"], label="after a"),
        ev.CheckpointCreated(checkpoint_id="other", kind="after_attempt", task_id="b", commit="c2"),
        ev.ConflictDetected(task_id="b", other_task_id="a", paths=["f"]),
    )  # fmt: skip
    found = look.show(scene.log, run_id, "a")
    (checkpoint,) = found["checkpoints"]
    assert (checkpoint["checkpoint_id"], checkpoint["attempt_id"], checkpoint["undone"]) == ("mine", attempt, False)
    assert (checkpoint["kind"], checkpoint["commit"], checkpoint["changed"]) == ("after_attempt", "c1", 1)
    (conflict,) = found["conflicts"]
    assert (conflict["task_id"], conflict["other_task_id"], conflict["status"]) == ("b", "a", "waiting")
    assert [one["type"] for one in found["events"]] == ["TaskQueued", "TaskStarted", "CheckpointCreated"]
    assert not any(one["undone"] for one in found["events"])
    queued = found["events"][0]["seq"]
    scene.append(run_id, ev.RunRolledBack(to_seq=queued))
    found = look.show(scene.log, run_id, "a")
    assert [(one["seq"] > queued) for one in found["events"]] == [one["undone"] for one in found["events"]]
    assert [one["undone"] for one in found["checkpoints"]] == [True]
    assert found["conflicts"] == []


def test_the_past_is_what_why_tells(scene: Scene) -> None:
    """Why it was tried again, and ran again, with the events."""
    run_id = scene.submit(task("a", max_retries=1))
    tick(scene, 0)
    scene.runner.end("a", error="exit code 1")
    tick(scene, 1)
    tick(scene, 60)
    found = look.show(scene.log, run_id, "a")
    assert [one["what"] for one in found["past"]] == ["retried", "again"]
    assert [one["type"] for one in found["past"][1]["events"]] == ["TaskFailed", "TaskRetryScheduled", "TaskStarted"]
