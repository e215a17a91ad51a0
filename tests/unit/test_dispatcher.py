"""One dispatcher, tick by tick: order, steering, slots, callables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatching import START_US, Calls, Scene, ScriptedRunner
from paper import SECOND_US, plan_of, task

from parallel_agents import settling, steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Draft
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import RetryPolicy, Stage
from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.dispatcher import Progress
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.submit import submit


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    """An empty store and the dispatcher of a Python process."""
    made = Calls(tmp_path)
    yield made
    made.log.close()


def test_a_run_goes_from_submission_to_its_end(scene: Scene) -> None:
    """Each step is in the log, in the order in which it was decided; what is started was appended before."""
    run_id = scene.submit(task("a"), task("b", "a"))
    scene.tick()
    assert scene.runner.tasks() == ["a"]
    scene.runner.end("a")
    scene.tick()
    scene.runner.end("b")
    scene.tick()
    assert scene.types() == [
        "RunSubmitted", "RunClaimed", "RunStarted", "TaskQueued a", "TaskStarted a", "TaskCompleted a", "TaskQueued b",
        "TaskStarted b", "TaskCompleted b", "RunCompleted",
    ]  # fmt: skip
    assert scene.dispatcher.progress[run_id] == Progress("completed", 0, False)
    assert scene.dispatcher.held == {}


def test_a_tick_without_news_appends_nothing(scene: Scene) -> None:
    """And starts nothing twice."""
    scene.submit(task("a"))
    scene.tick()
    before = scene.log.last_seq()
    for _ in range(3):
        scene.tick()
    assert scene.log.last_seq() == before
    assert scene.runner.tasks() == ["a"]


def test_what_is_due_together_is_one_commit_and_ends_come_first(scene: Scene) -> None:
    """Of two runs, too; a slot that one end frees is taken in the same commit."""
    first = scene.submit(task("a"), task("b"), max_parallel_agents=1, store_limit=2)
    second = scene.submit(task("x"), task("y"), max_parallel_agents=1, store_limit=2)
    scene.tick()
    assert sorted(scene.runner.tasks()) == ["a", "x"]
    before = scene.log.last_seq()
    scene.runner.end("x", "a")
    commits: list[list[Recorded]] = []
    scene.dispatcher.listeners.append(commits.append)
    scene.tick()
    assert [one.seq for one in commits[0]] == list(range(before + 1, scene.log.last_seq() + 1))
    assert scene.types(before) == ["TaskCompleted x", "TaskCompleted a", "TaskStarted b", "TaskStarted y"]
    assert scene.statuses(first)["b"] == scene.statuses(second)["y"] == "running"


def test_a_launch_holds_all_that_a_runner_needs(scene: Scene) -> None:
    """Its folder is named by run, task and attempt; its environment is made of what was recorded and asked for."""
    scene.dispatcher = scene.another("run", environ={"HOME": "/home/ana", "TOKEN": "t", "SECRET": "s"})
    run_id = submit(
        scene.log, plan_of(task("a", timeout_s=7.0, env={"STAGE": "test"}, env_from=("TOKEN",))),
        workdir=scene.folder, environ={"PATH": "/bin", "SECRET": "no"},
    )  # fmt: skip
    scene.dispatcher.hold(run_id)
    scene.tick()
    launch = scene.runner.launched[0]
    assert (launch.run_id, launch.task_id, launch.command, launch.timeout_s) == (run_id, "a", ("true",), 7.0)
    assert Path(launch.folder) == scene.folder / "runs" / run_id / "a" / launch.attempt_id
    assert launch.workdir == scene.folder
    assert launch.env == {
        "HOME": "/home/ana", "PATH": "/bin", "TOKEN": "t", "STAGE": "test", "PARALLEL_AGENTS_RUN": run_id,
        "PARALLEL_AGENTS_TASK": "a",
    }  # fmt: skip


def test_a_variable_that_the_dispatcher_does_not_have_fails_the_attempt_at_once(scene: Scene) -> None:
    """By name, and for good; the next tick is due now."""
    run_id = scene.submit(task("a", env_from=("TOKEN", "OTHER")))
    assert scene.tick() == scene.now_us
    assert scene.runner.launched == []
    scene.tick()
    assert scene.last(ev.TaskFailed).error == "not set in the dispatcher's environment: TOKEN, OTHER"
    assert scene.statuses(run_id) == {"a": "failed"}


def test_a_runner_that_is_not_there_fails_the_attempt_and_nothing_else(scene: Scene) -> None:
    """Its run goes on, and so does every other."""
    run_id = scene.submit(task("a", runner="oracle"), task("b"))
    scene.tick()
    scene.tick()
    assert scene.statuses(run_id) == {"a": "failed", "b": "running"}
    assert "'oracle'" in scene.last(ev.TaskFailed).error


def test_a_runner_that_breaks_its_promise_never_to_raise_fails_the_attempt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to start after it starts all the same."""
    run_id = scene.submit(task("a", max_retries=0), task("b"))
    start = scene.runner.start

    def raises(launch: Launch) -> None:
        if launch.task_id == "a":
            raise RuntimeError("no thread left")
        start(launch)

    monkeypatch.setattr(scene.runner, "start", raises)
    scene.tick()
    scene.tick()
    assert scene.statuses(run_id) == {"a": "failed", "b": "running"}
    assert scene.last(ev.TaskFailed).error == "cannot be started: no thread left"


@pytest.mark.parametrize("name", ["out/report.md", "x" * 300, "file/below"])
def test_a_declared_output_that_is_not_there_fails_the_attempt(scene: Scene, name: str) -> None:
    """Whatever keeps it from being there. It is looked for below the working directory of the run."""
    (scene.folder / "file").touch()
    run_id = scene.submit(task("a", outputs=(name,), max_retries=0))
    scene.tick()
    scene.runner.end("a")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "failed"}
    assert scene.last(ev.TaskFailed).error == f"declared output is missing: {name}"


def test_a_run_submitted_from_a_relative_folder_finds_its_outputs_anywhere(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher's own working directory plays no part."""
    monkeypatch.chdir(scene.folder)
    (scene.folder / "made").touch()
    run_id = submit(scene.log, plan_of(task("a", outputs=("made",))), workdir=Path("."), environ={})
    monkeypatch.chdir("/")
    scene.dispatcher.hold(run_id)
    scene.tick()
    assert scene.runner.launched[0].workdir == scene.folder
    scene.runner.end("a")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "completed"}


def test_a_cancelled_run_stops_what_runs_and_ends_when_that_has_ended(scene: Scene) -> None:
    """With the grace that was given; an emergency takes it away from one that is being cancelled already."""
    run_id = scene.submit(task("a"), task("b"), task("c", "a"), max_parallel_agents=1)
    scene.tick()
    steer.cancel(scene.log, run_id, reason="enough")
    scene.tick()
    assert scene.runner.stops == [("a", False, 3.0)]
    assert scene.statuses(run_id) == {"a": "running", "b": "cancelled", "c": "cancelled"}
    assert steer.stop_everything(scene.log) == [run_id]
    scene.tick()
    assert scene.runner.stops[-1] == ("a", False, 0.0)
    scene.runner.end("a", error="stopped", outcome="stopped")
    scene.tick()
    state = scene.state(run_id)
    assert (state.status, state.reason, state.tasks["a"].status) == ("cancelled", steer.EMERGENCY, "cancelled")


def test_a_run_is_cancelled_while_it_is_paused_or_has_not_started(scene: Scene) -> None:
    """It needs no resume for that."""
    for pause in (True, False):
        run_id = scene.submit(task("a"), task("b", "a"))
        if pause:
            scene.tick()
            scene.runner.end("a")
            steer.pause(scene.log, run_id)
            scene.tick()
        steer.cancel(scene.log, run_id)
        scene.tick()
        assert scene.state(run_id).status == "cancelled"


def test_a_cancelled_task_is_stopped_and_its_run_goes_on(scene: Scene) -> None:
    """What needs it is skipped, the rest is not touched."""
    run_id = scene.submit(task("a"), task("b", "a"), task("c"))
    scene.tick()
    steer.cancel(scene.log, run_id, "a", "not needed")
    scene.tick()
    assert scene.runner.stops == [("a", False, 3.0)]
    scene.runner.end("a", error="stopped", outcome="stopped")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "cancelled", "b": "skipped", "c": "running"}
    assert scene.last(ev.TaskCancelled).reason == "not needed"


def test_a_run_out_of_time_is_stopped_and_has_failed(scene: Scene) -> None:
    """It is due at that moment; what does not listen to the stop keeps the run open until it is gone."""
    run_id = scene.submit(task("a"), task("b", "a"), max_execution_s=60.0)
    assert scene.tick() == START_US + 60 * SECOND_US
    scene.now_us += 60 * SECOND_US - 1
    scene.tick()
    assert scene.runner.stops == []
    scene.now_us += 1
    scene.tick()
    assert scene.runner.stops == [("a", False, 3.0)]
    assert not scene.state(run_id).ended
    scene.runner.end("a", error="stopped", outcome="stopped")
    scene.tick()
    state = scene.state(run_id)
    assert (state.status, state.reason) == ("failed", "max_execution_time")


@pytest.mark.parametrize("days", [-30, 30])
def test_a_clock_that_is_set_neither_ends_a_run_nor_gives_it_time(scene: Scene, days: int) -> None:
    """It has an hour, by a clock that nobody sets."""
    run_id = scene.submit(task("a"), task("b", "a"), max_execution_s=3600.0)
    scene.tick()
    scene.now_us += 1800 * SECOND_US
    scene.tick()
    scene.set_clock(days * 86_400 * SECOND_US)
    scene.tick()
    scene.now_us += 1799 * SECOND_US
    assert scene.tick() == scene.now_us + SECOND_US
    assert scene.types(of="RunCancelRequested") == []
    scene.now_us += SECOND_US
    scene.tick()
    assert scene.last(ev.RunCancelRequested).reason == "max_execution_time"
    assert not scene.state(run_id).ended


def test_the_time_in_which_nobody_dispatches_a_run_is_not_the_runs(scene: Scene) -> None:
    """What it had used before is known from its last start, or from who let go of it; a failed commit forgets nothing."""
    run_id = scene.submit(task("a"), task("b", "a"), max_execution_s=3600.0)
    scene.tick()
    scene.now_us += 1000 * SECOND_US
    scene.runner.end("a")
    scene.tick()
    assert scene.last(ev.TaskStarted).used_s == 1000.0
    scene.now_us += 500 * SECOND_US
    scene.tick()
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.tick()
    scene.tick()
    scene.dispatcher.leave()
    assert scene.last(ev.RunReleased).used_s == 1500.0
    scene.now_us += 86_400 * SECOND_US
    scene.dispatcher = scene.another("daemon", takes_all=True)
    scene.tick()
    scene.now_us += 2099 * SECOND_US
    scene.tick()
    assert scene.types(of="RunCancelRequested") == []
    scene.now_us += SECOND_US
    scene.tick()
    assert scene.state(run_id).cancel_requested


def test_what_a_killed_dispatcher_had_not_written_down_is_forgotten_in_favour_of_the_run(scene: Scene) -> None:
    """And a resume gives it all of its time anew."""
    scene.dispatcher = scene.another("daemon", takes_all=True, dead=True)
    run_id = submit(
        scene.log, plan_of(task("a"), task("b", "a"), max_execution_s=3600.0), workdir=scene.folder, environ={}
    )
    scene.tick()
    scene.now_us += 3000 * SECOND_US
    scene.tick()
    scene.dispatcher = scene.another("daemon", takes_all=True)
    scene.tick()
    scene.now_us += 3000 * SECOND_US
    scene.tick()
    assert not scene.state(run_id).cancel_requested
    steer.pause(scene.log, run_id)
    scene.tick()
    scene.now_us += 3000 * SECOND_US
    scene.tick()
    steer.resume(scene.log, run_id)
    scene.tick()
    scene.now_us += 3599 * SECOND_US
    scene.tick()
    assert not scene.state(run_id).cancel_requested
    scene.now_us += SECOND_US
    scene.tick()
    assert scene.state(run_id).cancel_requested


def test_a_retried_run_that_had_ended_is_claimed_and_goes_on(scene: Scene) -> None:
    """By whoever takes all, at the next tick; by whoever is asked to hold it."""
    scene.dispatcher = scene.another("daemon", takes_all=True)
    run_id = submit(scene.log, plan_of(task("a", max_retries=0), task("b", "a")), workdir=scene.folder, environ={})
    scene.tick()
    for _ in range(2):
        scene.runner.end("a", error="exit code 1")
        scene.tick()
        assert scene.state(run_id).status == "failed"
        assert steer.retry(scene.log, run_id) == ["a", "b"]
        scene.tick()
    assert scene.runner.tasks() == ["a", "a", "a"]
    scene.runner.end("a")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "completed", "b": "running"}
    assert scene.last(ev.RunClaimed).epoch == 3


def test_a_retry_in_a_run_that_somebody_holds_starts_at_its_next_tick(scene: Scene) -> None:
    """While the rest of it goes on."""
    run_id = scene.submit(task("a", max_retries=0), task("b"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    steer.retry(scene.log, run_id, ["a"])
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a"]


def test_a_retry_waits_for_its_time_and_not_longer(scene: Scene) -> None:
    """That moment is what the tick says is due next."""
    scene.submit(task("a"), task("b"))
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    assert scene.tick() == START_US + 5 * SECOND_US
    scene.now_us += 5 * SECOND_US - 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b"]
    scene.now_us += 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a"]


def test_a_clock_that_jumps_moves_no_event_back_and_loses_no_retry(scene: Scene) -> None:
    """Set back, a retry rests as long as it would have, and so does the next one; set forward, it starts."""
    scene.submit(task("a"), task("b"), max_execution_s=3600.0)
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    scene.set_clock(-86_400 * SECOND_US)
    scene.runner.end("b")
    assert scene.tick() == scene.now_us + 5 * SECOND_US
    scene.now_us += 5 * SECOND_US - 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b"]
    scene.now_us += 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a"]
    scene.now_us += 60 * SECOND_US
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    assert scene.tick() == scene.now_us + 10 * SECOND_US
    scene.now_us += 10 * SECOND_US - 1
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a"]
    scene.set_clock(2 * 86_400 * SECOND_US)
    scene.tick()
    assert scene.runner.tasks() == ["a", "b", "a", "a"]
    times = [one.at_us for one in scene.log.read()]
    assert times == sorted(times)


def test_a_call_is_launched_with_its_callable_and_no_environment(calls: Calls) -> None:
    """It has that of its process."""
    calls.submit_calls("a")
    calls.tick()
    launch = calls.runner.launched[0]
    assert (launch.call, launch.task, launch.env) == (print, "a", {})


def test_a_call_that_takes_too_long_is_told_so(calls: Calls) -> None:
    """Its time is measured by a clock that nobody sets; the slot stays taken until it returns."""
    run_id = calls.submit_calls("a", timeout_s=30.0, max_retries=0)
    assert calls.tick() == START_US + 30 * SECOND_US
    calls.now_us += 3000 * SECOND_US
    calls.tick()
    assert calls.runner.stops == []
    calls.steady_us += 30 * SECOND_US
    calls.tick()
    assert calls.runner.stops == [("a", True, 3.0)]
    assert calls.statuses(run_id) == {"a": "running"}
    calls.runner.end("a", outcome="timed_out", error="timed out")
    calls.tick()
    assert calls.statuses(run_id) == {"a": "failed"}


def test_a_call_that_a_rollback_undid_is_told_to_return(calls: Calls) -> None:
    """By the runner that runs it."""
    run_id = calls.submit_calls("a")
    calls.tick()
    calls.append(run_id, ev.RunRolledBack(to_seq=1), ev.RunPaused())
    calls.tick()
    assert calls.runner.stops == [("a", False, 3.0)]


def test_a_run_that_was_rolled_back_is_let_go_of_once_what_was_undone_has_ended(scene: Scene) -> None:
    """Whoever waits for that is told then: a request to let go that came before it is not kept."""
    run_id = scene.submit(task("a"))
    scene.tick()
    scene.append(run_id, ev.RunRolledBack(to_seq=1), ev.RunPaused())
    scene.dispatcher.let_go(run_id)
    scene.tick()
    assert (scene.statuses(run_id), scene.dispatcher.progress[run_id].stuck) == ({"a": "pending"}, False)
    scene.runner.end("a")
    scene.tick()
    assert scene.dispatcher.progress[run_id].stuck
    scene.dispatcher.let_go(run_id)
    scene.tick()
    assert run_id not in scene.dispatcher.held


def test_who_runs_in_a_run_that_was_rolled_back_to_its_end_is_stopped_by_whoever_comes_next(scene: Scene) -> None:
    """Also where its dispatcher leaves meanwhile: it holds a slot until then, and no run is left with a process of its own."""
    scene.dispatcher = scene.another("daemon", takes_all=True)
    run_id = submit(scene.log, plan_of(task("a", max_retries=0)), workdir=scene.folder, environ={})
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    ended = scene.log.last_seq()
    steer.retry(scene.log, run_id)
    scene.tick()
    scene.append(run_id, ev.RunRolledBack(to_seq=ended))
    scene.dispatcher.leave()
    assert scene.last(ev.RunReleased).left
    assert Projector(scene.log).occupancy().of_run(run_id) == 1
    next_runner = ScriptedRunner()
    scene.dispatcher = scene.another("daemon", next_runner, takes_all=True)
    scene.tick()
    assert (next_runner.adopted, next_runner.stops) == (["a"], [("a", False, 3.0)])
    next_runner.end("a", error="stopped", outcome="stopped")
    scene.tick()
    assert scene.types()[-2:] == ["ResultDiscarded a", "RunReleased"]
    assert not scene.last(ev.RunReleased).left
    assert (scene.state(run_id).status, Projector(scene.log).occupancy().slots) == ("failed", {})


def test_decisions_of_two_looks_at_one_time_of_events_are_made_again(scene: Scene) -> None:
    """A clock that was set back: a rest was over between them, by the clock that nobody sets."""
    tasks = task("first"), task("asked", approval="required")
    run_id = scene.submit(plan=plan_of(*tasks, max_parallel_agents=1, retry=RetryPolicy(delay_s=2.0)))
    scene.tick()
    settling.approve(scene.log, run_id, "asked")
    scene.runner.end("first", error="exit code 1")
    scene.tick()
    assert scene.runner.tasks() == ["first", "asked"]
    scene.set_clock(-3600 * SECOND_US)
    scene.runner.end("asked", error="never began", outcome="lost", began=False)
    scene.tick()
    assert scene.statuses(run_id) == {"first": "queued", "asked": "blocked"}
    scene.now_us += 3 * SECOND_US
    scene.tick()
    assert scene.last(ev.TaskStarted).facts["rested"]
    assert scene.runner.tasks() == ["first", "asked", "first"]
    assert redecide(scene.log, run_id).divergence is None


def test_a_call_whose_start_was_committed_but_not_carried_out_is_started(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store failed just then: nothing ran, so nothing is lost."""
    calls.submit_calls("a")
    transact = calls.log.transact

    def committed_but_refused(decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        transact(decide, actor=actor)
        raise StoreError("the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr(calls.log, "transact", committed_but_refused)
        with pytest.raises(StoreError):
            calls.tick()
    calls.tick()
    assert (calls.runner.tasks(), calls.runner.adopted) == (["a"], [])


def test_a_run_of_callables_with_a_call_under_way_is_not_released(calls: Calls) -> None:
    """Nobody could take it over as long as this process lives."""
    run_id = calls.submit_calls("a")
    calls.tick()
    calls.dispatcher.leave()
    assert Projector(calls.log).runs()[run_id].holder == calls.dispatcher._me


def test_the_limit_of_the_store_holds_over_dispatchers(scene: Scene) -> None:
    """Each sees the slots of the other, and a freed one goes to whoever looks first."""
    scene.submit(task("a"), task("b"), task("c"), store_limit=3)
    other_runner = ScriptedRunner()
    other = scene.another("python", other_runner)
    other.hold(submit(scene.log, plan_of(task("x"), task("y"), store_limit=3), workdir=scene.folder, environ={}))
    other.tick()
    scene.tick()
    assert (other_runner.tasks(), scene.runner.tasks()) == (["x", "y"], ["a"])
    other_runner.end("x")
    other.tick()
    scene.tick()
    assert scene.runner.tasks() == ["a", "b"]


def test_runs_of_one_dispatcher_share_slots_by_priority(scene: Scene) -> None:
    """What is more urgent goes first, whichever run it is of; the older run among equals."""
    scene.submit(task("a"), task("low", priority="low"), store_limit=3)
    scene.now_us += 1
    scene.submit(task("x"), task("urgent", priority="critical"), store_limit=3)
    scene.tick()
    assert scene.runner.tasks() == ["urgent", "a", "x"]


def test_a_tick_of_a_large_plan_never_goes_through_all_of_it(scene: Scene) -> None:
    """Once the run is held."""
    run_id = scene.submit(task("a"), task("b"), task("c", "a"), task("d", "c"), retry=RetryPolicy(delay_s=0),
                          max_parallel_agents=1)  # fmt: skip
    scene.dispatcher.tick()
    held = scene.dispatcher.held[run_id]

    class Unscannable(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("goes through all tasks")

        items = keys = values = __iter__

    held.state.tasks = Unscannable(held.state.tasks)
    scene.runner.end("a", error="exit code 1")
    scene.dispatcher.tick()
    for name in ("a", "c", "b", "d"):
        scene.runner.end(name)
        scene.dispatcher.tick()
    assert scene.state(run_id).status == "completed"


def test_stages_follow_each_other_without_delay(scene: Scene) -> None:
    """Also where the last of a stage was skipped and not run."""
    stages = (Stage(name="one"), Stage(name="two"), Stage(name="three"))
    run_id = scene.submit(
        plan=plan_of(task("a", max_retries=0), task("b", "a", stage=1), task("c", stage=2), stages=stages)
    )
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "failed", "b": "skipped", "c": "running"}
