"""A dispatcher that is told a load: what starts, what is said of it in the log, and who takes over goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dispatching import Scene, ScriptedRunner
from paper import task

from parallel_agents import look
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.needs import KEPT, KINDS, Needs, fold
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.machine_load import MachineLoad, Usage
from parallel_agents.why import why

MB = 1_000_000
GOVERNED: dict[str, Any] = {
    "max_cpu_percent": 80.0, "throttle_cpu_percent": 90.0, "max_memory_mb": 4000, "min_workers": 2, "auto_scale": True,
}  # fmt: skip


class Loaded(Scene):
    """A scene whose machine the test loads, second by second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.load = MachineLoad()
        self.steady_us = 0
        self.dispatcher = self.another("run", load=lambda: self.load, steady=lambda: self.steady_us)

    def second(self, cpu: float | None = None, free_mb: int | None = None, **used_mb: int) -> list[str]:
        """One second later: a sample, and a tick. Gives the events that it appended."""
        before = self.log.last_seq()
        self.steady_us += 1_000_000
        self.now_us += 1_000_000
        attempts = {
            launch.attempt_id: Usage(memory_bytes=used_mb[launch.task_id] * MB, cpu_percent=(cpu or 0.0) / 5)
            for launch in self.runner.launched
            if launch.task_id in used_mb
        }
        self.load = MachineLoad(self.steady_us, cpu, None if free_mb is None else free_mb * MB, attempts)
        self.tick()
        return self.types(before)

    def seconds(self, count: int, cpu: float) -> list[str]:
        """So many of them."""
        return [type_ for _ in range(count) for type_ in self.second(cpu)]

    def end(self, *names: str, **fields: Any) -> None:
        """Their attempts end well, at the next tick."""
        self.runner.end(*names, **fields)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Loaded]:
    """A store and a machine."""
    made = Loaded(tmp_path)
    yield made
    made.end_of_story()


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of."""
    said: list[str] = []
    monkeypatch.setattr(trouble, "warn", lambda text, *values: said.append(text.format(*values)))
    return said


def test_a_busy_machine_throttles_a_run_once_and_releases_it_once(scene: Loaded, warned: list[str]) -> None:
    """At 90 % it is told at once; between 80 and 90 % nothing changes; at 80 % the waiting task starts in the same commit."""
    run_id = scene.submit(*(task(name) for name in "abc"), **GOVERNED)
    assert scene.second(95.0)[-3:] == ["TaskStarted a", "TaskStarted b", "DispatchThrottled"]
    event = scene.last(ev.DispatchThrottled)
    assert event.code == "cpu"
    assert event.reason.startswith("the processors are at 95 %, and starts are throttled above 90 %; 2 of ours run")
    assert warned == [f"run {run_id} waits: {event.reason}"]
    assert scene.seconds(30, 81.0) == []
    found = look.status(scene.log, run_id)
    assert found["throttled"] == [{"code": "cpu", "reason": event.reason}]
    answer = why(scene.log, run_id, "c")
    assert (answer["code"], answer["why"]) == ("cpu", event.reason)
    assert look.queue(scene.log, run_id)[0]["why"] == event.reason
    before = scene.log.last_seq()
    assert scene.second(80.0) == ["DispatchUnthrottled", "TaskStarted c"]
    assert look.status(scene.log, run_id)["throttled"] == []
    assert why(scene.log, run_id, "c", before)["code"] == "cpu"
    assert look.status(scene.log, run_id, before)["throttled"]
    figures = {"workers": 100, "processes": 2, "cpu_percent": 80.0}
    assert scene.last(ev.TaskStarted).facts == {"run_slots": 2, "store_slots": 2, **figures, "then": ""}


def test_starts_that_wait_for_long_are_told_of_below_the_threshold_too(scene: Loaded) -> None:
    """After ten seconds; a shorter wait is nothing to write down."""
    scene.submit(*(task(name) for name in "abc"), **GOVERNED)
    scene.second(85.0)
    assert scene.seconds(9, 85.0) == []
    assert scene.second(70.0) == ["TaskStarted c"]
    run_id = scene.submit(*(task(name) for name in "xyz"), **GOVERNED)
    scene.second(85.0)
    assert "DispatchThrottled" in scene.seconds(11, 85.0)
    assert why(scene.log, run_id, "x")["code"] == "cpu"


def test_an_unknown_load_releases_a_throttled_run(scene: Loaded) -> None:
    """As after its dispatcher was followed by one that has not sampled for five seconds; that finds out for itself."""
    scene.submit(*(task(name) for name in "abc"), **GOVERNED)
    scene.second(95.0)
    assert scene.second(None) == ["DispatchUnthrottled", "TaskStarted c"]


def test_a_run_that_has_nothing_to_start_is_not_throttled(scene: Loaded) -> None:
    """Nor one whose tasks wait for each other."""
    scene.submit(task("a"), task("b", "a"), **GOVERNED)
    assert "DispatchThrottled" not in scene.second(99.0)
    scene.end("a")
    assert scene.second(99.0)[-1] == "TaskStarted b"


def test_at_least_two_processes_go_on_at_any_load_until_the_run_has_ended(scene: Loaded) -> None:
    """A foreign program that never stops delays a run, and no more."""
    run_id = scene.submit(*(task(name) for name in "abcdef"), **GOVERNED)
    scene.second(100.0)
    for ends, starts in (("a", "c"), ("b", "d"), ("c", "e"), ("d", "f")):
        scene.end(ends)
        assert f"TaskStarted {starts}" in scene.second(100.0)
        assert len(scene.state(run_id).running) == 2
    scene.end("e", "f")
    scene.second(100.0)
    assert scene.state(run_id).status == "completed"
    assert look.status(scene.log, run_id)["throttled"] == []


def test_what_attempts_have_needed_before_decides_how_many_run_at_once(scene: Loaded) -> None:
    """Attempts of 1,500 MB: two at once in 4,000 MB, and another process knows it from the log alone."""
    scene.submit(task("first", agent_type="writer"), **GOVERNED)
    scene.second()
    scene.end("first", peak_memory_bytes=1500 * MB)
    run_id = scene.submit(*(task(name, agent_type="writer") for name in "abc"), **GOVERNED)
    scene.second()
    assert scene.runner.tasks() == ["first", "a", "b"]
    assert scene.last(ev.TaskStarted).facts["memory_bytes"] == 1500 * MB
    answer = why(scene.log, run_id, "c")
    assert answer["code"] == "memory"
    assert "by one attempt of 'writer' before" in answer["why"]
    scene.end("a", peak_memory_bytes=1500 * MB)
    assert scene.second()[-1] == "TaskStarted c"
    occupancy = Projector(scene.log).occupancy()
    assert occupancy.memory == dict.fromkeys(occupancy.slots, 1500 * MB)


def test_a_wait_for_memory_is_told_when_it_lasts_and_until_it_is_over(scene: Loaded) -> None:
    """Once; while nothing has ended nothing has changed."""
    scene.submit(task("first", agent_type="writer"), **GOVERNED)
    scene.second()
    scene.end("first", peak_memory_bytes=1500 * MB)
    scene.submit(*(task(name, agent_type="writer") for name in "abc"), **GOVERNED)
    scene.second()
    assert scene.seconds(30, 5.0) == ["DispatchThrottled"]
    scene.end("b", peak_memory_bytes=1500 * MB)
    assert scene.second()[-2:] == ["DispatchUnthrottled", "TaskStarted c"]


def test_attempts_that_use_more_memory_than_all_may_throttle_the_run(scene: Loaded, warned: list[str]) -> None:
    """It goes on once they are a tenth below the limit. A warning comes first, once."""
    scene.submit(*(task(name) for name in "abc"), **{**GOVERNED, "max_parallel_agents": 2})
    scene.second()
    scene.second(a=3300, b=90)
    assert warned == []
    scene.second(a=3320, b=90)
    scene.second(a=3500, b=90)
    assert len(warned) == 1
    assert warned[0].startswith("attempts use 3,410 MB of memory, more than 85 % of the 4,000 MB that run")
    scene.end("b")
    assert scene.second(a=4100)[-1] == "DispatchThrottled"
    assert scene.last(ev.DispatchThrottled).reason == "attempts use 4,100 MB of memory, and starts wait above 4,000 MB"
    assert scene.second(a=3700) == []
    assert scene.second(a=3600) == ["DispatchUnthrottled", "TaskStarted c"]


def test_a_machine_without_free_memory_starts_one_at_a_time(scene: Loaded, warned: list[str]) -> None:
    """With a word on it."""
    scene.submit(*(task(name) for name in "ab"), **GOVERNED)
    assert scene.second(free_mb=50)[-2:] == ["TaskStarted a", "DispatchThrottled"]
    assert any(
        "starts all the same, with nothing beside it: 50 MB of the machine's memory are free" in one for one in warned
    )
    assert scene.second(free_mb=105, a=10) == []
    assert scene.second(free_mb=112, a=10) == ["DispatchUnthrottled", "TaskStarted b"]


def test_the_pool_narrows_under_pressure_and_widens_again(scene: Loaded) -> None:
    """By one at a time, each step an event; what runs is left alone."""
    limits = {**GOVERNED, "max_parallel_agents": 3, "max_cpu_percent": 100.0, "throttle_cpu_percent": 100.0}
    run_id = scene.submit(*(task(f"t{number}") for number in range(9)), **limits)
    scene.second(90.0)
    assert scene.seconds(10, 90.0) == []
    assert scene.second(90.0) == ["WorkersScaled"]
    event = scene.last(ev.WorkersScaled)
    assert (event.workers, event.wait_s) == (2, 20.0)
    assert event.reason == "the processors were above 80% for 10 s (90 % in the end) with all 3 workers at work"
    assert scene.seconds(30, 90.0) == []
    scene.end("t0")
    assert [type_ for type_ in scene.second(40.0) if type_.startswith("TaskStarted")] == []
    assert why(scene.log, run_id, "t3")["code"] == "workers"
    assert look.status(scene.log, run_id)["workers"] == {"now": 2, "least": 2, "most": 3}
    grown = scene.seconds(25, 40.0)
    assert grown == ["WorkersScaled", "TaskStarted t3"]
    assert scene.last(ev.WorkersScaled).workers == 3


def test_another_process_goes_on_with_the_width_that_the_log_has(scene: Loaded) -> None:
    """And with the needs."""
    limits = {**GOVERNED, "max_parallel_agents": 3}
    run_id = scene.submit(*(task(f"t{number}") for number in range(5)), **limits)
    scene.second(10.0)
    scene.append(run_id, ev.WorkersScaled(workers=2, reason="busy", wait_s=20.0))
    scene.end("t0", "t1", peak_memory_bytes=MB)
    scene.dispatcher.leave()
    runner = ScriptedRunner()
    other = scene.another("daemon", runner, takes_all=True, load=lambda: replace(scene.load))
    other.tick()
    assert scene.state(run_id).workers == 2
    assert runner.tasks() == ["t3"]


def test_a_commit_that_is_refused_leaves_nothing_behind(scene: Loaded) -> None:
    """What was folded ahead of the log is read anew, needs included."""
    run_id = scene.submit(*(task(name) for name in "abc"), **GOVERNED)
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.second(95.0)
    scene.second(95.0)
    assert scene.types(of="TaskStarted") == ["TaskStarted a", "TaskStarted b"]
    assert scene.types(of="Dispatch") == ["DispatchThrottled"]
    assert scene.state(run_id).throttled.keys() == {"cpu"}
    scene.end("a", peak_memory_bytes=MB)
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.second(95.0)
    scene.second(95.0)
    assert scene.dispatcher.governor._needs == Projector(scene.log).needs()


def test_a_plan_without_limits_is_dispatched_at_any_load(scene: Loaded) -> None:
    """One that an older release has submitted; its starts tell of slots alone, and that nothing kept more from starting."""
    scene.submit(*(task(name) for name in "abc"))
    scene.second(100.0, free_mb=0)
    assert scene.runner.tasks() == ["a", "b", "c"]
    assert scene.last(ev.TaskStarted).facts == {"run_slots": 2, "store_slots": 2, "then": ""}


def test_needs_are_those_of_the_newest_attempts(scene: Loaded) -> None:
    """Nine in ten of the last fifty of a kind; kinds that nobody asks for any more make room."""
    made = Needs()
    numbers = iter(range(10**6))

    def attempt(agent_type: str, peak: int, end: type[ev.Event] = ev.TaskCompleted) -> None:
        name = f"n{next(numbers)}"
        facts = {"agent_type": agent_type}
        start = ev.TaskStarted(task_id="x", attempt_id=name, attempt=1, runner="claude", facts=facts)
        fields = {"task_id": "x", "attempt_id": name, "duration_s": 1.0, "peak_memory_bytes": peak}
        fold(made, record_of(start))
        fold(made, record_of(end.model_validate(fields)))

    for peak in range(1, 101):
        attempt("writer", peak)
    assert made.of("writer", "claude") == (95, KEPT, "writer")
    attempt("cut off", 10**9, ev.TaskCancelled)
    assert made.of("cut off", "none") is None
    assert made.running == {}
    for number in range(KINDS):
        attempt(f"kind {number}", 7)
    assert made.of("writer", "none") is None
    assert len(made.by_type) == KINDS
    assert Projector(scene.log).needs() == Needs()


def record_of(event: ev.Event) -> Any:
    """A record of which only the event is looked at."""
    return Recorded(1, "before", 1, 0, "test", event)
