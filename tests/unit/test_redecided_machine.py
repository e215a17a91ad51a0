"""What was said of the machine, of workers and of attempts that look stuck is decided again, and named where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from dispatching import Scene
from hypothesis import given
from hypothesis import strategies as some
from paper import SECOND_US, PaperRun, plan_of, task
from planting import Change, altered, gone, with_facts, without_facts
from redeciding import Again

from parallel_agents.eventstore import events as ev
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.governing import Machine, figures_of, machine_from
from parallel_agents.scheduler.health import Pulse, Vitals, decide_health, problem_of, pulse_from
from parallel_agents.scheduler.machine_load import MachineLoad
from parallel_agents.scheduler.scaling import Gauge, decide_width, gauge_from
from parallel_agents.scheduler.throttle import decide_throttle

MB: Final = 1_000_000
GOVERNED: Final[dict[str, Any]] = {
    "max_cpu_percent": 80.0, "throttle_cpu_percent": 90.0, "max_memory_mb": 4000, "min_workers": 2, "auto_scale": True,
    "max_parallel_agents": 3, "scaling_threshold": 0.5,
}  # fmt: skip


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Scene]:
    """A run on a machine that has too much to do, has room, loses a worker and gets it back, and has no memory."""
    made = Scene(tmp_path)
    load = [MachineLoad()]
    made.dispatcher = made.another("run", load=lambda: load[0], steady=lambda: made.now_us)
    made.submit(*(task(f"t{number}") for number in range(9)), **GOVERNED)

    def seconds(count: int, cpu: float, free_mb: int = 9000) -> None:
        for _ in range(count):
            made.now_us += SECOND_US
            load[0] = MachineLoad(made.now_us, cpu, free_mb * MB, {})
            made.tick()

    seconds(1, 95.0)
    seconds(1, 60.0)
    seconds(12, 60.0)
    made.runner.end("t0")
    seconds(30, 20.0)
    made.runner.end("t1")
    seconds(1, 20.0, free_mb=1)
    seconds(1, 20.0)
    yield made
    made.end_of_story()


TYPES: Final = ("DispatchThrottled", "DispatchUnthrottled", "WorkersScaled")


def test_all_that_is_said_of_the_machine_is_decided_again(busy: Scene) -> None:
    """From what was measured then, which each event has recorded."""
    said = [type_ for type_ in busy.types() if type_ in TYPES]
    assert said == [
        "DispatchThrottled", "DispatchUnthrottled", "WorkersScaled", "WorkersScaled", "DispatchThrottled",
        "DispatchUnthrottled",
    ]  # fmt: skip
    (run_id,) = {row.run_id for row in busy.log.rows(where="type = 'WorkersScaled'")}
    found = redecide(busy.log, run_id)
    assert {name: found.decisions[name] for name in TYPES} == dict.fromkeys(TYPES, 2)
    assert found.sampled == {}


def test_what_an_older_release_has_said_of_the_machine_is_not_judged(busy: Scene) -> None:
    """What it had measured is nowhere."""
    for type_ in TYPES:
        for row in busy.log.rows(where=f"type = '{type_}'"):
            assert altered(busy.log, row, without_facts) == []


PLANTED: Final[dict[str, tuple[str, Change, tuple[str, str]]]] = {
    "starts wait for processors that are free": (
        "DispatchThrottled", with_facts(cpu_percent=20.0, available_bytes=9000 * MB), ("DispatchThrottled", "type"),
    ),
    "starts wait for something else": (
        "DispatchThrottled", lambda body: {**body, "code": "memory" if body["code"] == "cpu" else "cpu"},
        ("DispatchThrottled", "code"),
    ),
    "starts go on although the machine is as busy": (
        "DispatchUnthrottled", with_facts(cpu_percent=100.0, available_bytes=0), ("DispatchUnthrottled", "type"),
    ),
    "a worker more is taken away, or added": (
        "WorkersScaled", lambda body: {**body, "workers": 1}, ("WorkersScaled", "workers"),
    ),
    "the next worker is added sooner": (
        "WorkersScaled", lambda body: {**body, "wait_s": 1.0}, ("WorkersScaled", "wait_s"),
    ),
    "the pool changes after too short a time": (
        "WorkersScaled", lambda body: {**body, "facts": dict.fromkeys(body["facts"], 1.0)}, ("WorkersScaled", "type"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_recorded_otherwise_of_the_machine_is_named(name: str, busy: Scene) -> None:
    """Each by itself."""
    type_, change, named = PLANTED[name]
    rows = list(busy.log.rows(where=f"type = '{type_}'"))
    assert len(rows) == 2
    for row in rows:
        (found,) = altered(busy.log, row, change)
        assert (found.seq, found.type, found.field) == (row.seq, *named)
        assert found.recorded != found.now


def test_that_the_pool_was_narrowed_is_missed_where_it_was_widened_again(busy: Scene) -> None:
    """By the start that was wider than the pool can have been then."""
    first, second = busy.log.rows(where="type = 'WorkersScaled'")
    assert {(one.type, one.field) for one in altered(busy.log, first, gone)} == {("WorkersScaled", "type")}
    assert altered(busy.log, second, gone) != []


def test_a_full_disk_is_decided_again() -> None:
    """From how much room it had."""
    run = PaperRun(plan_of(task("a"), min_free_mb=100))
    full = decide_throttle(run.state, 99 * MB)
    assert full is not None
    assert Again(run, [full]).judged.decisions == {"DispatchThrottled": 1}
    free = full.model_copy(update={"facts": {"free_bytes": 100 * MB}})
    assert Again(run, [free]).named == ("DispatchThrottled", "type", "DispatchThrottled", None)
    run.add(full)
    room = decide_throttle(run.state, None)
    assert room is not None
    assert Again(run, [room]).judged.decisions == {"DispatchUnthrottled": 1}
    tight = room.model_copy(update={"facts": {"free_bytes": 109 * MB}})
    assert Again(run, [tight]).named == ("DispatchUnthrottled", "type", "DispatchUnthrottled", None)


def test_two_things_that_are_there_again_are_both_told() -> None:
    """By one look."""
    run = PaperRun(plan_of(task("a"), max_memory_mb=100, max_cpu_percent=50.0))
    for code in ("cpu", "memory"):
        run.add(ev.DispatchThrottled(reason=code, code=code))
    facts = figures_of(Machine(cpu_percent=10.0))
    both = [ev.DispatchUnthrottled(code=code, facts=facts) for code in ("cpu", "memory")]
    assert Again(run, both).named is None
    assert Again(run, both[:1]).named == ("DispatchUnthrottled", "then", None, "DispatchUnthrottled memory")


def watched() -> PaperRun:
    """A run with an attempt that is looked at."""
    run = PaperRun(plan_of(task("a"), health_check_s=30.0, stuck_after_s=100.0))
    run.tick()
    return run


def stuck(run: PaperRun, **pulse: int | None) -> ev.AttemptStuck:
    """What is said of it."""
    told: dict[str, Any] = {"sign_us": 0, **pulse}
    seen = Pulse(Vitals(0, 0.0), looked_us=200 * SECOND_US, **told)
    made = decide_health(run.state.tasks["a"], seen, 100 * SECOND_US, "")
    assert isinstance(made, ev.AttemptStuck)
    return made


def test_that_an_attempt_looks_stuck_is_decided_again() -> None:
    """From what was seen of it; once, and for the reason that comes first."""
    run = watched()
    silent, without_process = stuck(run), stuck(run, gone_us=0)
    assert (silent.kind, without_process.kind) == ("silent", "process")
    for said in (silent, without_process):
        assert Again(run, [said]).judged.decisions == {"AttemptStuck": 1}
    twice = Again(run, [silent, silent])
    assert twice.named == ("AttemptStuck", "type", "AttemptStuck", None)
    well = silent.model_copy(update={"facts": {"silent_s": 99.0}})
    assert Again(run, [well]).named == ("AttemptStuck", "type", "AttemptStuck", None)
    other = without_process.model_copy(update={"kind": "silent"})
    assert Again(run, [other]).named == ("AttemptStuck", "kind", "silent", "process")


def test_an_older_release_has_told_for_how_long_an_attempt_was_silent() -> None:
    """To a tenth of a second; not since when its process was gone."""
    run = watched()
    silent = stuck(run).model_copy(update={"facts": {}})
    assert Again(run, [silent]).judged.decisions == {"AttemptStuck": 1}
    short = silent.model_copy(update={"silent_s": 99.9})
    assert Again(run, [short]).named == ("AttemptStuck", "type", "AttemptStuck", None)
    without_process = stuck(run, gone_us=0).model_copy(update={"facts": {}})
    assert Again(run, [without_process]).judged.sampled == {"AttemptStuck": 1}


def test_that_an_attempt_goes_on_is_said_of_one_that_looked_stuck() -> None:
    """Of no other."""
    run = watched()
    goes_on = ev.AttemptRevived(task_id="a", attempt_id="a1")
    assert Again(run, [stuck(run), goes_on]).named is None
    assert Again(run, [goes_on]).named == ("AttemptRevived", "type", "AttemptRevived", None)


US = some.integers(0, 10**12)


@given(
    some.none() | some.floats(0, 100),
    *[some.none() | some.integers(0, 10**12)] * 4,
    some.integers(0, 99),
    some.booleans(),
)
def test_a_machine_is_read_from_facts_as_it_was(
    cpu: float | None,
    free: int | None,
    taken: int | None,
    used: int | None,
    coming: int | None,
    running: int,
    first: bool,
) -> None:
    """What is left out is nothing, or was not known."""
    machine = Machine(cpu, free, running, taken or 0, used or 0, coming or 0, first=("run", "task") if first else None)
    assert machine_from(figures_of(machine)) == machine


@given(US, some.none() | US, some.none() | US, some.none() | US, some.integers(1, 3), some.integers(0, 640))
def test_a_step_of_the_pool_is_decided_the_same_from_its_facts(
    seen: int, pressed: int | None, calm: int | None, easy: int | None, workers: int, wait_s: int
) -> None:
    """Whatever clock it was measured by."""
    run = PaperRun(plan_of(task("a"), auto_scale=True, max_parallel_agents=3, min_workers=1))
    run.add(ev.WorkersScaled(workers=workers, wait_s=float(wait_s)))
    since = [None if at is None else min(at, seen) for at in (pressed, calm, easy)]
    made = decide_width(run.state, Gauge(seen, *since), run.now_us)
    if made is not None:
        again = decide_width(run.state, gauge_from(made.facts), run.now_us)
        assert again is not None
        assert (again.workers, again.wait_s, again.facts) == (made.workers, made.wait_s, made.facts)


@given(US, US, some.none() | US, some.booleans())
def test_an_attempt_looks_stuck_for_the_same_reason_by_its_facts(
    silent: int, after: int, gone_for: int | None, checkout: bool
) -> None:
    """And for as long."""
    run = watched()
    looked = max(silent, gone_for or 0)
    pulse = Pulse(Vitals(0, 0.0, alive=gone_for is None, checkout=checkout), looked, looked - silent)
    pulse.gone_us = None if gone_for is None else looked - gone_for
    said = decide_health(run.state.tasks["a"], pulse, after, "")
    if isinstance(said, ev.AttemptStuck):
        assert problem_of(pulse_from(said.facts, checkout=said.kind != "checkout"), after) == said.kind
