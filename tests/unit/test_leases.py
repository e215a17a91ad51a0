"""Who dispatches a run: claims, takeovers, fencing, letting go, rollbacks, and stores that refuse."""

from __future__ import annotations

import pytest
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, plan_of, task

from parallel_agents import steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import projector as projector_module
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.projections.store_wide import OCCUPANCY, RUNS, SPEND
from parallel_agents.scheduler import dispatcher as dispatcher_module
from parallel_agents.scheduler import upkeep
from parallel_agents.scheduler import upkeep as upkeep_module
from parallel_agents.scheduler.dispatcher import Progress
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.submit import submit


def test_a_dispatcher_that_takes_all_takes_what_nobody_holds(scene: Scene) -> None:
    """Oldest run first."""
    scene.dispatcher = scene.another("daemon", takes_all=True)
    runs = []
    for name in "ab":
        runs.append(submit(scene.log, plan_of(task(name)), workdir=scene.folder, environ={}))
        scene.now_us += 1
    scene.tick()
    assert list(scene.dispatcher.held) == runs
    assert scene.runner.tasks() == ["a", "b"]


def test_a_run_that_a_living_process_holds_is_left_to_it(scene: Scene) -> None:
    """However often others look."""
    scene.submit(task("a"))
    scene.tick()
    daemon = scene.another("daemon", ScriptedRunner(), takes_all=True)
    for _ in range(3):
        scene.now_us += 2 * SECOND_US
        daemon.tick()
    assert daemon.held == {}


def test_a_run_whose_holder_died_is_taken_over_within_a_second(scene: Scene) -> None:
    """With the attempts that run; a higher epoch fences the dead one off."""
    daemon = scene.another("daemon", takes_all=True)
    daemon.tick()
    dead = scene.another("run", ScriptedRunner(), dead=True)
    run_id = submit(scene.log, plan_of(task("a"), task("b", "a")), workdir=scene.folder, environ={})
    dead.hold(run_id)
    dead.tick()
    scene.now_us += dispatcher_module.CHECK_HOLDERS_US
    daemon.tick()
    assert scene.runner.adopted == ["a"]
    scene.runner.end("a")
    daemon.tick()
    assert scene.statuses(run_id) == {"a": "completed", "b": "running"}
    assert scene.last(ev.RunClaimed).epoch == 2


def test_a_dead_holder_is_seen_although_the_clock_was_set_back(scene: Scene) -> None:
    """By a day, between two looks."""
    dead = scene.another("run", ScriptedRunner(), dead=True)
    scene.dispatcher = scene.another("daemon", takes_all=True)
    run_id = submit(scene.log, plan_of(task("a")), workdir=scene.folder, environ={})
    dead.hold(run_id)
    dead.tick()
    scene.dispatcher._load()
    scene.dispatcher._holders_checked_us = scene.now_us
    scene.now_us -= 86_400 * SECOND_US
    scene.tick()
    assert list(scene.dispatcher.held) == [run_id]


def test_a_run_is_wanted_until_it_can_be_held(scene: Scene) -> None:
    """Its holder lives at first; when it has died, the run is ours."""
    other = scene.another("daemon", ScriptedRunner(), takes_all=True)
    run_id = submit(scene.log, plan_of(task("a")), workdir=scene.folder, environ={})
    other.tick()
    scene.dispatcher.hold(run_id)
    scene.tick()
    assert scene.dispatcher.held == {}
    assert scene.dispatcher.progress[run_id] == Progress("running", 0, False)
    scene.append(run_id, ev.RunClaimed(holder={**other._me, "start_time": 1}, epoch=2))
    scene.tick()
    assert list(scene.dispatcher.held) == [run_id]


def test_who_asks_to_hold_a_run_that_has_ended_learns_that_it_has(scene: Scene) -> None:
    """Nobody waits for ever."""
    run_id = scene.submit(task("a"))
    scene.tick()
    scene.runner.end("a")
    scene.tick()
    late = scene.another("late", ScriptedRunner())
    late.hold(run_id)
    late.tick()
    assert late.progress[run_id] == Progress("completed", 0, False)
    assert late.held == {}
    assert not late.busy


def test_who_has_lost_a_run_notices_before_it_appends(scene: Scene) -> None:
    """It slept while another took over: it starts nothing, ends nothing and kills nothing of that run any more."""
    run_id = scene.submit(task("a"), task("b", "a"), task("c"))
    scene.tick()
    other = scene.another("daemon", ScriptedRunner())
    scene.append(run_id, ev.RunClaimed(holder=other._me, epoch=2))
    other.hold(run_id)
    other.tick()
    adopter = other.runners["shell"]
    assert isinstance(adopter, ScriptedRunner)
    assert sorted(adopter.adopted) == ["a", "c"]
    steer.cancel(scene.log, run_id, "c")
    before = scene.log.last_seq()
    scene.runner.end("a")
    scene.tick()
    assert scene.log.last_seq() == before
    assert scene.runner.stops == []
    assert scene.dispatcher.held == {}
    adopter.end("a")
    other.tick()
    assert scene.types(before) == ["TaskCompleted a", "TaskQueued b", "TaskStarted b"]
    assert adopter.stops == [("c", False, 3.0)]


def test_attempts_of_a_run_that_was_lost_and_regained_are_adopted_again(scene: Scene) -> None:
    """Even if their ends came while the run was somebody else's: the files still tell."""
    run_id = scene.submit(task("a"))
    scene.tick()
    dead = scene.another("daemon", ScriptedRunner(), dead=True)
    scene.append(run_id, ev.RunClaimed(holder=dead._me, epoch=2))
    scene.runner.end("a")
    scene.tick()
    scene.dispatcher.hold(run_id)
    scene.tick()
    assert scene.runner.adopted == ["a"]


def test_a_rollback_in_the_same_breath_as_a_takeover_does_not_bring_the_run_back(scene: Scene) -> None:
    """The lease counts, whatever was rolled back."""
    run_id = scene.submit(task("a"))
    scene.tick()
    other = scene.another("daemon", ScriptedRunner())
    scene.append(run_id, ev.RunRolledBack(to_seq=1), ev.RunPaused(), ev.RunClaimed(holder=other._me, epoch=2))
    scene.tick()
    assert scene.dispatcher.held == {}


def test_a_stuck_run_is_let_go_of_and_can_be_claimed_by_others(scene: Scene) -> None:
    """Paused, or with nothing left but what waits for a person."""
    for event in (ev.RunPaused(), ev.TaskBlocked(task_id="a", reason="approval")):
        run_id = scene.submit(task("a"))
        scene.append(run_id, event)
        scene.tick()
        assert scene.dispatcher.progress[run_id].stuck
        scene.dispatcher.let_go(run_id)
        scene.tick()
        assert scene.dispatcher.held == {}
        assert isinstance(scene.last(ev.RunReleased), ev.RunReleased)
        other = scene.another("daemon", ScriptedRunner(), takes_all=True)
        other.tick()
        assert run_id in other.held


def test_a_run_that_can_go_on_is_not_let_go_of(scene: Scene) -> None:
    """The request is forgotten: it was asked of that moment."""
    run_id = scene.submit(task("a"), task("b"), max_parallel_agents=1)
    scene.tick()
    scene.dispatcher.let_go(run_id)
    scene.tick()
    scene.append(run_id, ev.RunPaused())
    scene.dispatcher.let_go(run_id)
    scene.tick()
    assert list(scene.dispatcher.held) == [run_id]
    scene.runner.end("a")
    scene.tick()
    assert list(scene.dispatcher.held) == [run_id]


def test_a_draining_dispatcher_starts_nothing_more_and_records_what_ends(scene: Scene) -> None:
    """Retries and skips too; it claims nothing, and its own run can go on elsewhere."""
    run_id = scene.submit(task("a"), task("b", "a"), task("c"), task("d"), max_parallel_agents=2)
    scene.tick()
    scene.dispatcher.drain()
    scene.runner.end("a")
    scene.runner.end("c", error="exit code 1")
    scene.tick()
    assert scene.runner.tasks() == ["a", "c"]
    assert scene.statuses(run_id) == {"a": "completed", "b": "queued", "c": "queued", "d": "queued"}
    assert scene.dispatcher.progress[run_id].running == 0
    other = scene.submit(task("x"))
    scene.tick()
    assert scene.dispatcher.held.keys() == {run_id}
    scene.dispatcher.leave()
    successor = scene.another("daemon", takes_all=True)
    successor.tick()
    assert successor.held.keys() == {run_id, other}
    assert scene.runner.tasks() == ["a", "c", "b", "d", "x"]


def test_a_dispatcher_that_leaves_records_the_last_ends_and_releases_its_runs(scene: Scene) -> None:
    """What still runs is the next one's to adopt. A run that has ended needs no release."""
    run_id = scene.submit(task("a"), task("b"), task("c", "a"))
    done = scene.submit(task("x"))
    scene.tick()
    scene.runner.end("a", "x")
    before = scene.log.last_seq()
    scene.dispatcher.leave()
    assert sorted(scene.types(before)) == [
        "RunCompleted", "RunReleased", "TaskCompleted a", "TaskCompleted x", "TaskQueued c",
    ]  # fmt: skip
    assert scene.dispatcher.held == {}
    assert Projector(scene.log).runs()[run_id].holder is None
    assert scene.state(done).ended
    adopter = ScriptedRunner()
    successor = scene.another("daemon", adopter, takes_all=True)
    successor.tick()
    assert adopter.adopted == ["b"]


def test_leaving_a_store_that_refuses_is_not_an_error(scene: Scene) -> None:
    """Whoever comes next sees that we are gone."""
    scene.submit(task("a"))
    scene.tick()
    scene.log.refusals = 9
    scene.dispatcher.leave()


def test_an_attempt_that_a_rollback_undid_is_stopped_and_its_result_discarded(scene: Scene) -> None:
    """It holds its slot until then, and its run is not let go of."""
    run_id = scene.submit(task("a"), store_limit=1)
    scene.tick()
    other = scene.submit(task("x"), store_limit=1)
    scene.append(run_id, ev.RunRolledBack(to_seq=1), ev.RunPaused(reason="rolled back"))
    scene.tick()
    assert scene.statuses(run_id) == {"a": "pending"}
    assert scene.runner.stops == [("a", False, 3.0)]
    assert scene.statuses(other) == {"x": "queued"}
    scene.dispatcher.let_go(run_id)
    scene.tick()
    assert run_id in scene.dispatcher.held
    before = scene.log.last_seq()
    scene.runner.end("a")
    scene.tick()
    assert scene.types(before) == ["ResultDiscarded a", "TaskStarted x"]
    steer.resume(scene.log, run_id)
    scene.runner.end("x")
    scene.tick()
    assert scene.statuses(run_id) == {"a": "running"}


@pytest.mark.parametrize("crash", [False, True])
def test_a_rollback_to_a_run_that_had_ended_frees_the_slots_of_what_ran_since(scene: Scene, crash: bool) -> None:
    """Also if the one that dispatched it dies before: nothing leaks for ever."""
    scene.dispatcher = scene.another("daemon", takes_all=True, dead=crash)
    run_id = submit(scene.log, plan_of(task("a", max_retries=0)), workdir=scene.folder, environ={})
    scene.tick()
    scene.runner.end("a", error="exit code 1")
    scene.tick()
    end = scene.log.last_seq()
    steer.retry(scene.log, run_id)
    scene.tick()
    scene.append(run_id, ev.RunRolledBack(to_seq=end))
    if crash:
        scene.dispatcher = scene.another("next", takes_all=True)
    scene.tick()
    assert scene.state(run_id).status == "failed"
    assert scene.runner.stops == [("a", False, 3.0)]
    scene.runner.end("a")
    scene.tick()
    assert scene.types()[-2:] == ["ResultDiscarded a", "RunReleased"]
    assert scene.dispatcher.held == {}
    assert Projector(scene.log).occupancy().slots == {}
    before = scene.log.last_seq()
    scene.now_us += 2 * SECOND_US
    scene.tick()
    assert scene.log.last_seq() == before


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_commit_that_fails_loses_no_end_and_starts_nothing(scene: Scene, times: int, at_once: bool) -> None:
    """When the store takes events again, all of it happens, once."""
    peaks = {"a": Usage(samples=1, peak_memory_bytes=4096)}
    scene.dispatcher = scene.another("run", used=lambda attempt_id: peaks.pop("a", None))
    first = scene.submit(task("a"), task("b", "a"))
    second = scene.submit(task("x"))
    scene.tick()
    before = scene.log.last_seq()
    scene.runner.end("a")
    scene.log.refusals, scene.log.at_once = times, at_once
    for _ in range(times):
        with pytest.raises(StoreError):
            scene.tick()
    scene.runner.end("x")
    assert scene.runner.tasks() == ["a", "x"]
    assert scene.log.last_seq() == before
    scene.tick()
    assert scene.runner.tasks() == ["a", "x", "b"]
    assert scene.statuses(first) == {"a": "completed", "b": "running"}
    assert scene.state(first).tasks["a"].peak_memory_bytes == 4096
    assert scene.state(second).ended
    assert scene.runner.adopted == []


def test_a_read_that_fails_on_the_way_back_loses_no_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run was taken again, the second could not be read: both are held in the end."""
    first, second = scene.submit(task("a")), scene.submit(task("x"))
    scene.tick()
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.tick()
    read, left = scene.dispatcher.projector.state, [1]

    def reading(run_id: str, upto: int | None = None) -> RunState:
        if run_id == second and left[0]:
            left[0] -= 1
            raise StoreError("the disk failed")
        return read(run_id, upto)

    monkeypatch.setattr(scene.dispatcher.projector, "state", reading)
    with pytest.raises(StoreError):
        scene.tick()
    scene.tick()
    assert scene.dispatcher.held.keys() == {first, second}


def test_a_snapshot_that_cannot_be_kept_holds_nothing_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a cache; what was appended is started."""
    monkeypatch.setattr(upkeep, "SNAPSHOT_EVERY", 1)

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(scene.log, "save_snapshot", full)
    run_id = scene.submit(task("a"), task("b", "a"))
    scene.tick()
    assert scene.runner.tasks() == ["a"]
    scene.runner.end("a")
    scene.tick()
    scene.runner.end("b")
    scene.tick()
    assert scene.state(run_id).status == "completed"


def test_a_dispatcher_leaves_snapshots_of_the_store_while_it_lives(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes after it was killed finds them; that they cannot be kept holds nothing up."""
    for module in (upkeep_module, projector_module):
        monkeypatch.setattr(module, "KEEP_EVERY", 2)
    scene.submit(task("a"))
    scene.tick()
    kept = [fold.newest_seq(scene.log) for fold in (RUNS, OCCUPANCY, SPEND)]
    assert kept == [scene.log.last_seq()] * 3

    def full(*_: object) -> None:
        raise StoreError("the disk failed")

    monkeypatch.setattr(scene.dispatcher.projector, "keep_up", full)
    scene.runner.end("a")
    scene.tick()
    assert scene.runner.tasks() == ["a"]


def test_a_long_log_is_folded_before_the_store_is_locked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would have to wait for it to commit."""
    monkeypatch.setattr(projector_module, "KEEP_EVERY", 1)
    monkeypatch.setattr(scene.dispatcher._upkeep, "after_tick", lambda *_, **__: None)
    scene.submit(task("a"))
    before = scene.log.last_seq()
    scene.tick()
    assert [fold.newest_seq(scene.log) for fold in (RUNS, OCCUPANCY, SPEND)] == [before] * 3


def test_a_listener_that_fails_holds_nothing_up(scene: Scene) -> None:
    """Nor the other listeners."""
    heard: list[list[Recorded]] = []

    def fails(records: list[Recorded]) -> None:
        raise ValueError("no")

    scene.dispatcher.listeners += [fails, heard.append]
    scene.submit(task("a"))
    scene.tick()
    assert scene.runner.tasks() == ["a"]
    assert heard


def left_run(scene: Scene, name: str, *, callables: bool = False, paused: bool = False) -> str:
    """A run of one task whose dispatcher died while that ran."""
    runner = ScriptedRunner()
    dead = scene.another("run", runner, dead=True)
    run_id = submit(scene.log, plan_of(task(name)), workdir=scene.folder, environ={}, callables=callables)
    dead.hold(run_id)
    dead.tick()
    if paused:
        steer.pause(scene.log, run_id)
    scene.now_us += SECOND_US
    return run_id


def test_what_others_have_left_in_the_middle_is_taken_by_who_wants_it(scene: Scene) -> None:
    """Not what was merely submitted, what only its program can call, or what a person has paused and nothing of runs."""
    left, paused = left_run(scene, "left"), left_run(scene, "paused", paused=True)
    left_run(scene, "calls", callables=True)
    submit(scene.log, plan_of(task("submitted")), workdir=scene.folder, environ={})
    scene.dispatcher = scene.another("run", takes_left=lambda: True)
    own = scene.submit(task("own"))
    scene.tick()
    assert list(scene.dispatcher.held) == [own, left, paused]  # Its own first: that is what it is there for.
    scene.runner.end("paused", error="exit code 1")
    scene.dispatcher.leave()
    assert {name for name, run in Projector(scene.log).runs().items() if run.left} == {own, left, paused}
    third = scene.another("run", ScriptedRunner(), takes_left=lambda: True)
    third.tick()
    assert third.held.keys() == {own, left}


def test_what_others_have_left_is_looked_for_once_a_second_and_left_to_a_daemon(scene: Scene) -> None:
    """Who asks is told each time whether it is wanted."""
    asked: list[int] = []
    wanted: list[bool] = [False]

    def takes_left() -> bool:
        asked.append(scene.now_us)
        return wanted[0]

    scene.dispatcher = scene.another("run", takes_left=takes_left)
    scene.tick()
    assert asked == []  # Nothing is left: nobody has to be asked.
    left = left_run(scene, "left")
    for _ in range(3):
        scene.tick()
    assert len(asked) == 1
    wanted[0] = True
    scene.now_us += dispatcher_module.CHECK_HOLDERS_US
    scene.tick()
    assert list(scene.dispatcher.held) == [left]


def test_what_was_taken_unasked_is_handed_back_and_not_taken_again(scene: Scene) -> None:
    """With what runs of it; what was asked for stays, and so it does after a commit that has failed."""
    left = left_run(scene, "left")
    scene.dispatcher = scene.another("run", takes_left=lambda: True)
    own = scene.submit(task("own"))
    scene.tick()
    scene.dispatcher.hand_back()
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.tick()
    for _ in range(2):
        scene.now_us += 2 * SECOND_US
        scene.tick()
        assert list(scene.dispatcher.held) == [own]
    assert len(scene.types(of="RunClaimed")) == 3  # By who died, and ours of both: not one more.
    assert scene.runner.stops == []
    released = scene.last(ev.RunReleased)
    assert released.left
    assert Projector(scene.log).runs()[left].holder is None


def test_a_run_that_a_daemon_lets_go_of_is_nobodys(scene: Scene) -> None:
    """Somebody has ended the daemon; that was not to have the run go on elsewhere."""
    daemon = scene.another("daemon", ScriptedRunner(), takes_all=True)
    submit(scene.log, plan_of(task("a")), workdir=scene.folder, environ={})
    daemon.tick()
    daemon.leave()
    scene.dispatcher = scene.another("run", takes_left=lambda: True)
    scene.tick()
    assert scene.dispatcher.held == {}


def test_a_dispatcher_has_drained_when_the_last_end_is_recorded(scene: Scene) -> None:
    """Not while the commit of it fails."""
    scene.submit(task("a"), task("b", "a"))
    scene.tick()
    assert not scene.dispatcher.drained
    scene.dispatcher.drain()
    scene.tick()
    assert not scene.dispatcher.drained
    scene.runner.end("a")
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.tick()
    assert not scene.dispatcher.drained
    scene.tick()
    assert scene.dispatcher.drained
