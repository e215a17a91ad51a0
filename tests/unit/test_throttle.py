"""A disk that is nearly full holds back what has not started, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dispatching import ScriptedRunner
from gitrepos import make_project
from paper import PaperRun, plan_of, task
from waiting import wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import FileSettings
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import resources
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.plan import why_not
from parallel_agents.scheduler.resources import FreeSpace, free_bytes
from parallel_agents.scheduler.throttle import decide_throttle
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

MB = 1_000_000


def throttled(run: PaperRun, free: int | None) -> str:
    """What is decided, and done."""
    event = decide_throttle(run.state, free)
    if event is None:
        return ""
    run.add(event)
    return type(event).__name__


def test_below_the_limit_nothing_starts_and_it_is_said_once() -> None:
    """What runs goes on and may end; with a tenth more than the limit starts go on."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c"), max_parallel_agents=1, min_free_mb=100))
    assert throttled(run, 100 * MB) == ""
    assert run.tick() == ["a"]
    assert throttled(run, 100 * MB - 1) == "DispatchThrottled"
    assert throttled(run, 0) == ""
    run.end("a")
    assert run.tick() == []
    assert run.why("c") == run.why("b") == "disk"
    reason = why_not(run.state, "c", run.facts(), run.now_us)
    assert "99 MB are free" in reason.text
    assert "below 100 MB" in reason.text
    assert throttled(run, 110 * MB - 1) == ""
    assert throttled(run, 110 * MB) == "DispatchUnthrottled"
    assert throttled(run, 110 * MB) == ""
    assert run.tick() == ["b"]


@pytest.mark.parametrize("free", [None, 10**12])
def test_what_cannot_be_measured_any_more_holds_nothing_back(free: int | None) -> None:
    """Or a run that was held back would wait for ever."""
    run = PaperRun(plan_of(task("a"), min_free_mb=100), ev.DispatchThrottled(reason="full"))
    assert run.why("a") == "disk"
    assert throttled(run, free) == "DispatchUnthrottled"
    assert run.tick() == ["a"]


def test_without_a_limit_or_without_anything_to_start_nobody_is_throttled() -> None:
    """Nor while the run is paused or being cancelled."""
    assert throttled(PaperRun(plan_of(task("a"), min_free_mb=0)), 0) == ""
    assert throttled(PaperRun(plan_of(task("a"))), None) == ""
    run = PaperRun(plan_of(task("a")))
    run.tick()
    assert throttled(run, 0) == ""
    assert throttled(PaperRun(plan_of(task("a")), ev.RunPaused()), 0) == ""
    assert throttled(PaperRun(plan_of(task("a")), ev.RunCancelRequested()), 0) == ""
    assert throttled(PaperRun(plan_of(task("a"))), 0) == "DispatchThrottled"


def test_a_snapshot_knows_that_starts_are_held_back() -> None:
    """And one of a version that did not know is read as without."""
    run = PaperRun(plan_of(task("a")), ev.DispatchThrottled(reason="full"))
    content = plan_of(task("a")).to_bytes()
    dumped = st.dump(run.state)
    assert st.load("paper", dumped, lambda digest: content).throttled == {"disk": "full"}
    version_4 = dumped.replace(b'"throttled":{"disk":"full"}', b'"throttled":"full"')
    assert st.load("paper", version_4, lambda digest: content).throttled == {"disk": "full"}
    older = dumped.replace(b',"throttled":{"disk":"full"}', b"")
    assert older != dumped
    assert st.load("paper", older, lambda digest: content).throttled == {}


def test_free_space_is_measured_where_a_folder_will_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second at most; where it cannot be measured it is unknown."""
    there = os.statvfs(tmp_path)
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(there.f_bavail * there.f_frsize, rel=0.5)
    answers = iter([5, 7])
    monkeypatch.setattr(resources, "free_bytes", lambda folder: next(answers))
    now = [0]
    space = FreeSpace(tmp_path, lambda: now[0])
    found = []
    for now[0] in (0, 999_999, 1_000_000, 1_999_999):
        found.append(space.bytes())
    assert found == [5, 5, 7, 7]


def test_free_space_that_the_system_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not zero."""

    def refuse(path: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "statvfs", refuse)
    assert free_bytes(Path("/")) is None


def test_a_dispatcher_measures_for_runs_with_files_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their starts wait for the disk; a run without files starts all the same."""
    repository = make_project(tmp_path, monkeypatch)
    free, now = [50 * MB], [0]
    monkeypatch.setattr(resources, "free_bytes", lambda folder: free[0])
    with Log(tmp_path / "project" / ".parallel-agents-events.db", environ={}) as log:
        runner = ScriptedRunner()
        dispatcher = Dispatcher(log, {"shell": runner}, kind="run", environ={}, steady=lambda: now[0])
        start = Start("worktree", repository)
        plan = plan_of(task("kept"), files=FileSettings(), min_free_mb=100)
        versioned = submit(log, plan, workdir=repository.top, environ={}, start=start)
        plain = submit(log, plan_of(task("plain"), min_free_mb=100), workdir=tmp_path, environ={})
        for run_id in (versioned, plain):
            dispatcher.hold(run_id)
        for _ in range(3):
            now[0] += 2_000_000
            dispatcher.tick()
        assert runner.tasks() == ["plain"]

        def told() -> list[str]:
            return [
                type(one.event).__name__ for one in log.read_run(versioned) if "hrottled" in type(one.event).__name__
            ]

        assert told() == ["DispatchThrottled"]
        assert Projector(log).state(versioned).tasks["kept"].status == "queued"
        free[0], now[0] = 200 * MB, now[0] + 2_000_000
        wait_until(lambda: dispatcher.tick() and "kept" in runner.tasks(), "the start")
        assert told() == ["DispatchThrottled", "DispatchUnthrottled"]
        dispatcher.close()
