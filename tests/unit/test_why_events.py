"""Why something was blocked, skipped, tried again, run again, run on a model and put before something: each with its events."""

from __future__ import annotations

from typing import Any

import pytest
from dispatching import Scene
from paper import SECOND_US, task

from parallel_agents import steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, UnknownTask
from parallel_agents.eventstore.submission import Stage
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.decide_past import decide_rollback
from parallel_agents.scheduler.precedence import sooner
from parallel_agents.why import why


def events_of(scene: Scene, *seqs: int) -> list[str]:
    """Events by their type and task, to compare with."""
    rows = {record.seq: record for record in scene.log.read()}
    return [type(rows[seq].event).__name__ + f" {getattr(rows[seq].event, 'task_id', '')}".rstrip() for seq in seqs]


def named(scene: Scene, answer: dict[str, Any]) -> list[str]:
    """The events that an answer names. They are there, of that type."""
    found = events_of(scene, *(one["seq"] for one in answer["events"]))
    assert [one["type"] for one in answer["events"]] == [one.split()[0] for one in found]
    assert found, "an answer names its events"
    return found


def past(scene: Scene, run_id: str, task_id: str, what: str) -> list[tuple[str, list[str], bool]]:
    """What befell a task of one kind: why, by which events, and whether it is undone."""
    return [
        (one["why"], named(scene, one), one["undone"])
        for one in why(scene.log, run_id, task_id)["past"]
        if one["what"] == what
    ]


def tick(scene: Scene, seconds: float = 1.0) -> None:
    """Some time later."""
    scene.now_us += round(seconds * SECOND_US)
    scene.tick()


def roll_back(scene: Scene, run_id: str, seq: int) -> None:
    """What the verb appends."""
    projector = Projector(scene.log)
    events = decide_rollback(projector.state(run_id), projector.state(run_id, seq), seq, "wrong way")
    scene.log.append(run_id, scene.log.version(run_id), events, actor="cli")
    tick(scene)


def seq_of(scene: Scene, type_: str, task_id: str = "") -> int:
    """The last event of a type, of a task."""
    return [
        record.seq
        for record in scene.log.read()
        if type(record.event).__name__ == type_ and getattr(record.event, "task_id", "") == task_id
    ][-1]


def test_why_it_was_tried_again(scene: Scene) -> None:
    """After a failure, after a loss that counts for nothing; each start names what opened it."""
    run_id = scene.submit(task("a", max_retries=2))
    tick(scene)
    scene.runner.end("a", error="exit code 7")
    tick(scene)
    found = why(scene.log, run_id, "a", scene.log.last_seq())
    assert found["code"] == "not_before"
    assert named(scene, found) == ["TaskFailed a", "TaskRetryScheduled a"]
    tick(scene, 60)
    scene.runner.end("a", outcome="lost", error="gone")
    tick(scene)
    tick(scene, 60)
    retried = past(scene, run_id, "a", "retried")
    assert retried[0] == (
        "it failed: exit code 7, and has failed once", ["TaskFailed a", "TaskRetryScheduled a"], False,
    )  # fmt: skip
    assert retried[1][0].startswith("it vanished: gone, and has failed 2 times")
    again = past(scene, run_id, "a", "again")
    assert again[0][0].startswith("attempt 1 failed: exit code 7; it was to rest ")
    assert again[0][1] == ["TaskFailed a", "TaskRetryScheduled a", "TaskStarted a"]
    assert again[1][1] == ["AttemptLost a", "TaskRetryScheduled a", "TaskStarted a"]
    assert named(scene, why(scene.log, run_id, "a")) == ["TaskStarted a"]


def test_why_it_ran_again_after_a_rollback(scene: Scene) -> None:
    """The rollback is named, and what it undid; what was undone stays told, as undone."""
    run_id = scene.submit(task("a"), task("b", "a"))
    tick(scene)
    before = scene.log.last_seq()
    scene.runner.end("a")
    tick(scene)
    assert past(scene, run_id, "a", "again") == []
    roll_back(scene, run_id, before - 1)  # To before it started.
    assert (why(scene.log, run_id, "a")["code"], named(scene, why(scene.log, run_id, "a"))) == (
        "paused", ["TaskQueued a", "RunPaused"],
    )  # fmt: skip
    steer.resume(scene.log, run_id)
    tick(scene)
    ((said, events, undone),) = past(scene, run_id, "a", "again")
    assert said == f"cli took the run back to event {before - 1}, which undid that it was completed"
    assert events == ["TaskCompleted a", "RunRolledBack", "TaskStarted a"]
    assert not undone
    roll_back(scene, run_id, before - 1)
    assert past(scene, run_id, "a", "again")[0][2]


def test_why_it_ran_again_after_somebody_opened_it(scene: Scene) -> None:
    """A retry of what had failed for good, and of what was skipped because of it."""
    run_id = scene.submit(task("a", max_retries=0), task("b", "a"))
    tick(scene)
    scene.runner.end("a", error="exit code 1")
    tick(scene)
    found = why(scene.log, run_id, "b")
    assert (found["code"], named(scene, found)) == ("skipped", ["TaskFailed a", "TaskSkipped b"])
    assert past(scene, run_id, "b", "skipped") == [
        ("a did not complete (failed: exit code 1)", ["TaskFailed a", "TaskSkipped b"], False)
    ]
    steer.retry(scene.log, run_id)
    scene.dispatcher.hold(run_id)
    tick(scene)
    assert past(scene, run_id, "a", "reopened")[0][1] == ["TaskFailed a", "TaskReopened a"]
    ((said, events, _),) = past(scene, run_id, "a", "again")
    assert said == "local opened it again after it failed: exit code 1: retry"
    assert events == ["TaskFailed a", "TaskReopened a", "TaskStarted a"]


def test_why_it_ran_on_this_model_and_was_blocked(scene: Scene) -> None:
    """By the reason that was written down with the choice; and by what a person was asked for."""
    run_id = scene.submit(task("a", max_retries=0))
    tick(scene)
    scene.runner.end("a", error="exit code 1")
    tick(scene)
    steer.retry(scene.log, run_id, ["a"])
    scene.append(
        run_id,
        ev.TaskQueued(task_id="a"),
        ev.TaskStarted(task_id="a", attempt_id="x", attempt=2, runner="claude", model="opus", model_reason="it is hard"),
        ev.ConflictDetected(task_id="a", other_task_id="b", paths=["f"], attempt_id="x"),
        ev.TaskBlocked(task_id="a", attempt_id="x", reason="conflict: f with b"),
    )  # fmt: skip
    assert past(scene, run_id, "a", "model") == [("claude on opus: it is hard", ["TaskStarted a"], False)]
    assert past(scene, run_id, "a", "blocked") == [
        ("it waits for a person: conflict: f with b", ["ConflictDetected a", "TaskBlocked a"], False)
    ]
    found = why(scene.log, run_id, "a")
    assert (found["code"], named(scene, found)) == ("blocked", ["ConflictDetected a", "TaskBlocked a"])
    scene.append(run_id, ev.TaskUnblocked(task_id="a", reason="approved"))
    assert past(scene, run_id, "a", "unblocked")[0][1] == ["TaskBlocked a", "TaskUnblocked a"]


def test_why_it_does_not_run_names_the_events_of_what_it_waits_for(scene: Scene) -> None:
    """Of tasks, of slots, of a stage, of the run; each reason is the scheduler's own."""
    run_id = scene.submit(task("a"), task("b"), task("c", "a"), task("d"), max_parallel_agents=2)
    found = why(scene.log, run_id, "c")
    assert (found["code"], named(scene, found)) == ("dependencies", ["RunSubmitted"])
    tick(scene)
    assert named(scene, why(scene.log, run_id, "a")) == ["TaskStarted a"]
    found = why(scene.log, run_id, "c")
    assert (found["why"], named(scene, found)) == ("waiting for a", ["TaskStarted a"])
    found = why(scene.log, run_id, "d")
    assert (found["code"], found["tasks"]) == ("no_slot", ["a", "b"])
    assert named(scene, found) == ["TaskQueued d", "TaskStarted a", "TaskStarted b"]
    steer.pause(scene.log, run_id, "lunch")
    assert named(scene, why(scene.log, run_id, "d")) == ["TaskQueued d", "RunPaused"]
    steer.cancel(scene.log, run_id, None, "enough")
    found = why(scene.log, run_id, "d")
    assert (found["code"], named(scene, found)[-1]) == ("cancelling", "RunCancelRequested")
    tick(scene)
    found = why(scene.log, run_id, "d")
    assert (found["code"], named(scene, found)) == ("cancelled", ["RunCancelRequested", "TaskCancelled d"])
    stages = (Stage(name="one"), Stage(name="two"))
    other = scene.submit(task("x"), task("y", stage=1), stages=stages)
    tick(scene)
    found = why(scene.log, other, "y")
    assert (found["code"], named(scene, found)) == ("stage", ["TaskStarted x"])


def test_every_answer_at_every_event_names_events_that_were_there(scene: Scene) -> None:
    """Of every task, with all that befell it; none is later than the moment that is asked for."""
    run_id = scene.submit(task("a", max_retries=1), task("b", "a"), task("c"), max_parallel_agents=1)
    for step in range(8):
        tick(scene, 20)
        for name in "abc":
            if Projector(scene.log).state(run_id).tasks[name].status == "running":
                scene.runner.end(name, error="exit code 1" if step < 2 else None)
    roll_back(scene, run_id, scene.log.last_seq() // 2)
    for seq in range(1, scene.log.last_seq() + 1):
        for name in "abc":
            found = why(scene.log, run_id, name, seq)
            for answer in (
                found,
                *found["past"],
                why(scene.log, run_id, name, seq, before="b" if name != "b" else "a"),
            ):
                named(scene, answer)
                assert all(one["seq"] <= seq for one in answer["events"]), (seq, answer)


def before(scene: Scene, run_id: str, one: str, other: str, upto: int | None = None) -> tuple[str, str, list[str]]:
    """Why one task was put before another one."""
    found = why(scene.log, run_id, one, upto, before=other)
    return found["code"], found["why"], named(scene, found)


def test_why_one_task_was_put_before_another_one(scene: Scene) -> None:
    """By the rank that starts tasks: priority, then the longest way to the end, then the order of the plan."""
    run_id = scene.submit(
        task("plain"), task("other"), task("long"), task("after", "long", expected_s=30), task("urgent", priority="high"),
        max_parallel_agents=1,
    )  # fmt: skip
    start = scene.log.last_seq()
    for name in ("urgent", "long", "after", "plain", "other"):
        tick(scene)
        assert Projector(scene.log).state(run_id).running
        scene.runner.end(name)
    tick(scene)
    both = ["TaskQueued urgent", "TaskStarted urgent"]
    code, said, events = before(scene, run_id, "urgent", "plain")
    assert (code, said) == ("priority", "urgent was started before plain: urgent has priority high, plain medium")
    assert [one for one in events if "urgent" in one] == both
    code, said, _ = before(scene, run_id, "long", "plain")
    assert code == "critical_path"
    assert said == (
        "long was started before plain: both have priority medium, and the longest way to the end of the graph is 31 s from"
        " long and 1 s from plain, as expected"
    )
    code, said, _ = before(scene, run_id, "plain", "other")
    assert code == "plan_order"
    assert said.endswith("and plain stands earlier in the plan")
    assert before(scene, run_id, "other", "plain")[1].startswith(
        "other was not started before plain: both have priority"
    )
    code, said, events = before(scene, run_id, "urgent", "after")
    assert (code, said) == (
        "dependencies", "urgent was started before after: after could not start then: waiting for long",
    )  # fmt: skip
    assert before(scene, run_id, "plain", "other", start)[1].startswith("plain goes before other: ")
    assert before(scene, run_id, "plain", "after", start)[1] == (
        "plain goes before after: after cannot start then: waiting for long"
    )
    with pytest.raises(InvalidUsage):
        why(scene.log, run_id, "plain", before="plain")
    with pytest.raises(UnknownTask):
        why(scene.log, run_id, "plain", before="nobody")


def test_what_starts_first_is_what_the_rank_says(scene: Scene) -> None:
    """In one tick, of whichever two tasks that could start."""
    tasks = [task(f"t{n}", priority=("low", "high", "medium")[n % 3], expected_s=float(n % 4 + 1)) for n in range(9)]
    run_id = scene.submit(*tasks, max_parallel_agents=9)
    tick(scene)
    started = scene.runner.tasks()
    assert len(started) == 9
    for place, one in enumerate(started):
        for other in started[place + 1 :]:
            state = Projector(scene.log).state(run_id)
            assert sooner(state, one, other)[0] == sooner(state, other, one)[0] == one
            assert before(scene, run_id, one, other)[1].startswith(f"{one} was started before {other}: ")
            assert before(scene, run_id, other, one)[1].startswith(f"{other} was not started before {one}: ")
