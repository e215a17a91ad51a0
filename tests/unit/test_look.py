"""What can be seen of a store: the plain data that scripts read and the command line draws."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dispatching import START_US, Scene, ScriptedRunner
from paper import SECOND_US, plan_of, task

from parallel_agents import look, steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, UnknownRun, UnknownTask
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import Stage
from parallel_agents.submit import submit
from parallel_agents.why import why

TASK_FIELDS = {
    "task_id", "agent_type", "status", "priority", "dependencies", "attempts", "started_at", "ended_at", "duration_s",
    "cost_usd", "model", "checkpoint_id", "error",
}  # fmt: skip
RUN_FIELDS = {"run_id", "name", "status", "seq", "strategy", "tasks", "cost_usd", "budget_usd"}


def append_named(scene: Scene, run_id: str) -> None:
    """A run of a given id."""
    plan = plan_of(task("a"))
    digest = "d" * 64
    submitted = ev.RunSubmitted(
        name="n", plan_digest=digest, task_count=1, strategy="concurrent", workspace="shared", workdir="/"
    )
    scene.log.append(run_id, 0, [submitted], blobs={digest: plan.to_bytes()})


def test_a_run_is_found_by_its_id_a_prefix_or_as_the_latest(scene: Scene) -> None:
    """Anything else is refused with what to type instead."""
    with pytest.raises(UnknownRun, match="holds no run yet"):
        look.resolve_run(scene.log, None)
    for run_id in ("abcdefghij", "abxdefghij", "ab"):
        append_named(scene, run_id)
    assert look.resolve_run(scene.log, "abc") == "abcdefghij"
    assert look.resolve_run(scene.log, "ab") == "ab"  # All of an id is no prefix of others.
    assert look.resolve_run(scene.log, None) == look.resolve_run(scene.log, "latest") == "ab"
    assert look.resolve_run(scene.log, None, upto=2) == "abxdefghij"
    with pytest.raises(InvalidUsage, match="'a' fits 3 runs") as several:
        look.resolve_run(scene.log, "a")
    assert several.value.hint == "type more of it: abcdefghij, abxdefghij, ab"
    with pytest.raises(UnknownRun, match="there is no run 'abcdefghik'") as unknown:
        look.resolve_run(scene.log, "abcdefghik")
    assert unknown.value.hint == "did you mean 'abcdefghij'?"
    with pytest.raises(UnknownRun):
        look.resolve_run(scene.log, "")


def story(scene: Scene) -> tuple[str, dict[int, dict[str, Any]]]:
    """A run with a retry, a failure, a skip and a cancellation; and its status at every tick, by the log's end then."""
    seen: dict[int, dict[str, Any]] = {}
    run_id = scene.submit(
        task("a", max_retries=1), task("b", "a"), task("c"), task("d", "c"), task("e"), max_parallel_agents=2
    )  # fmt: skip

    def tick(seconds: float = 1.0) -> None:
        scene.now_us += round(seconds * SECOND_US)
        scene.tick()
        seen[scene.log.last_seq()] = look.status(scene.log, run_id, scene.log.last_seq())

    tick()
    scene.runner.end("a", error="exit code 1")
    tick()
    scene.runner.end("c", error="exit code 2", retryable=False)
    tick()
    steer.cancel(scene.log, run_id, "e", "not needed")
    scene.runner.end("e", outcome="stopped", error="stopped")
    tick(5.0)
    scene.append(run_id, ev.CostCharged(task_id="a", attempt_id="x", usd_micros=1_500_000, model="haiku", agent_type="w",
                                        input_tokens=10, output_tokens=5, calls=1))  # fmt: skip
    scene.runner.end("a", cpu_s=0.25, peak_memory_bytes=4096, peak_open_files=7, output="done")
    tick()
    scene.runner.end("b")
    tick()
    return run_id, seen


def test_the_status_of_a_run_says_all_of_it(scene: Scene) -> None:
    """One object, with a line for each task, in the order of the plan."""
    run_id, _ = story(scene)
    found = look.status(scene.log, run_id)
    assert found.keys() >= RUN_FIELDS
    assert (found["run_id"], found["name"], found["status"], found["strategy"]) == (
        run_id, "paper", "failed", "concurrent",
    )  # fmt: skip
    assert (found["seq"], found["cost_usd"], found["budget_usd"]) == (scene.log.last_seq(), 1.5, None)
    assert found["counts"] == {"completed": 2, "failed": 1, "cancelled": 1, "skipped": 1}
    assert found["duration_s"] == 9.0
    assert [line["task_id"] for line in found["tasks"]] == ["a", "b", "c", "d", "e"]
    a, b, c, d, e = found["tasks"]
    assert all(line.keys() >= TASK_FIELDS for line in found["tasks"])
    assert (a["status"], a["attempts"], a["output"], a["cost_usd"], a["cpu_s"]) == ("completed", 2, "done", 1.5, 0.25)
    assert (a["started_at"], a["ended_at"]) == (rfc3339(START_US + 8 * SECOND_US), rfc3339(START_US + 9 * SECOND_US))
    assert (b["dependencies"], b["error"], b["because"]) == (["a"], None, None)
    assert (c["status"], c["error"], c["exit_code"]) == ("failed", "exit code 2", 1)
    assert (d["status"], d["attempts"], d["because"], d["started_at"]) == ("skipped", 0, "c", None)
    assert (e["status"], e["reason"]) == ("cancelled", "not needed")
    assert json.loads(json.dumps(found)) == found


def test_the_status_at_an_event_is_what_a_reader_saw_then(scene: Scene) -> None:
    """Whatever has happened since."""
    run_id, seen = story(scene)
    assert len(seen) == 6
    for seq, found in seen.items():
        assert look.status(scene.log, run_id, seq) == found


def test_the_list_of_runs_has_a_line_for_each(scene: Scene) -> None:
    """Oldest first, with its holder while it has one."""
    run_id, _ = story(scene)
    other = submit(scene.log, plan_of(task("x")), workdir=scene.folder, environ={})
    first, second = look.runs(scene.log)
    assert (first["run_id"], first["status"], first["tasks"], first["holder"]) == (run_id, "failed", 5, None)
    assert first["counts"] == {"completed": 2, "failed": 1, "cancelled": 1, "skipped": 1}
    assert (second["run_id"], second["status"], second["started_at"]) == (other, "submitted", None)
    assert len(look.runs(scene.log, upto=1)) == 1
    scene.dispatcher.hold(other)
    scene.tick()
    assert look.runs(scene.log)[1]["holder"]["kind"] == "run"


def test_the_queue_lists_what_waits_in_the_order_in_which_it_starts(scene: Scene) -> None:
    """Each with its reason, run by run; what is merely pending is not in it."""
    run_id = scene.submit(
        task("a"), task("low", priority="low"), task("high", priority="high"), task("b"), task("c", "b"),
        max_parallel_agents=1,
    )  # fmt: skip
    scene.tick()
    assert scene.runner.tasks() == ["high"]
    other = scene.submit(task("x"), store_limit=1)
    scene.tick()
    lines = look.queue(scene.log)
    assert [(line["run_id"], line["position"], line["task_id"]) for line in lines] == [
        (run_id, 1, "b"), (run_id, 2, "a"), (run_id, 3, "low"), (other, 1, "x"),
    ]  # fmt: skip
    assert [line["why"] for line in lines] == [
        "no slot: 1 of 1 of this run are taken",
        "no slot: 1 of 1 of this run are taken; 1 of better rank are ahead: b",
        "no slot: 1 of 1 of this run are taken; 2 of better rank are ahead: b, a",
        "no slot: 1 of 1 of the store are taken",
    ]
    assert [line["task_id"] for line in look.queue(scene.log, other)] == ["x"]
    assert look.queue(scene.log, run_id, upto=scene.log.last_seq()) == lines[:3]
    assert look.queue(scene.log, run_id, upto=1) == []


def test_why_a_task_stands_where_it_stands(scene: Scene) -> None:
    """By the scheduler's own reason, with the events that made it so; also as of then."""
    run_id, _ = story(scene)
    found = why(scene.log, run_id, "d")
    assert (found["status"], found["code"], found["tasks"]) == ("skipped", "skipped", ["c"])
    assert found["why"] == "skipped: c failed"
    skipped = next(record for record in scene.log.read() if isinstance(record.event, ev.TaskSkipped))
    failed = next(
        one.seq for one in scene.log.read() if isinstance(one.event, ev.TaskFailed) and one.event.task_id == "c"
    )
    assert found["events"] == [{"seq": failed, "type": "TaskFailed"}, {"seq": skipped.seq, "type": "TaskSkipped"}]
    assert "note" not in found
    before = why(scene.log, run_id, "d", skipped.seq - 2)
    assert (before["status"], before["code"], before["why"]) == ("pending", "dependencies", "waiting for c")
    between = why(scene.log, run_id, "d", skipped.seq - 1)
    assert (between["status"], between["code"]) == ("pending", "skipping")
    with pytest.raises(UnknownTask):
        why(scene.log, run_id, "z")
    with pytest.raises(UnknownRun):
        why(scene.log, "nobody", "d")


def test_why_says_when_nobody_dispatches_the_run(scene: Scene) -> None:
    """Nobody yet, or somebody who has died."""
    run_id = submit(scene.log, plan_of(task("a"), task("b", "a")), workdir=scene.folder, environ={})
    found = why(scene.log, run_id, "a")
    assert (found["code"], found["note"].split(";")[0]) == ("no_dispatcher", "no process dispatches this run")
    dead = scene.another("run", ScriptedRunner(), dead=True)
    dead.hold(run_id)
    dead.tick()
    assert "note" in why(scene.log, run_id, "b")
    scene.dispatcher.hold(run_id)
    scene.tick()
    assert "note" not in why(scene.log, run_id, "b")


def test_every_prefix_has_an_answer_for_every_task(scene: Scene) -> None:
    """Status, queue and why at each event of a run."""
    run_id, _ = story(scene)
    for seq in range(1, scene.log.last_seq() + 1):
        lines = look.status(scene.log, run_id, seq)["tasks"]
        queued = {line["task_id"] for line in look.queue(scene.log, run_id, seq)}
        assert queued == {line["task_id"] for line in lines if line["status"] == "queued"}
        for line in lines:
            found = why(scene.log, run_id, line["task_id"], seq)
            assert (found["status"], bool(found["code"]), bool(found["why"])) == (line["status"], True, True)


def test_the_timeline_has_a_span_for_every_attempt(scene: Scene) -> None:
    """In the order of their starts."""
    run_id, _ = story(scene)
    spans = look.timeline_of(scene.log, run_id)
    assert [(span["task_id"], span["attempt"], span["outcome"]) for span in spans] == [
        ("a", 1, "failed"), ("c", 1, "failed"), ("e", 1, "cancelled"), ("a", 2, "completed"), ("b", 1, "completed"),
    ]  # fmt: skip
    assert not any(span["undone"] for span in spans)
    assert [span["duration_s"] for span in spans] == [1.0, 2.0, 6.0, 1.0, 1.0]


def test_one_task_is_shown_with_all_of_its_attempts_and_their_files(scene: Scene) -> None:
    """And with what it was asked to do."""
    stages = (Stage(name="design"),)
    run_id = scene.submit(
        plan=plan_of(task("a", description="Draw.", tags=("t",), outputs=("o",)), task("b", "a"), stages=stages)
    )
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    scene.now_us += 6 * SECOND_US
    scene.tick()
    found = look.show(scene.log, run_id, "a")
    assert (found["description"], found["command"], found["runner"]) == ("Draw.", ["true"], "shell")
    assert (found["tags"], found["outputs"], found["stage"], found["dependents"]) == (["t"], ["o"], "design", ["b"])
    assert [(one["attempt"], one["outcome"]) for one in found["attempt_list"]] == [(1, "failed"), (2, "running")]
    assert [one["folder"] for one in found["attempt_list"]] == [str(one.folder) for one in scene.runner.launched]
    assert look.show(scene.log, run_id, "b")["attempt_list"] == []


def test_the_slots_of_the_store_are_told_by_run(scene: Scene) -> None:
    """With whether somebody who lives dispatches it."""
    run_id = scene.submit(task("a"), task("b"))
    scene.tick()
    dead = scene.another("run", ScriptedRunner(), dead=True)
    other = submit(scene.log, plan_of(task("x")), workdir=scene.folder, environ={})
    dead.hold(other)
    dead.tick()
    assert look.slots(scene.log) == [
        {"run_id": run_id, "slots": 2, "dispatched": True}, {"run_id": other, "slots": 1, "dispatched": False},
    ]  # fmt: skip
