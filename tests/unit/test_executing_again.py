"""A recorded run is executed again: the same comes out, or the first difference is named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.scratch import scratch_log
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.otherwise.reenacting import execute
from parallel_agents.otherwise.virtual_run import VirtualRun, runners_of
from parallel_agents.scheduler.decide import decide_cancel_task, decide_pause, decide_resume
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch
from parallel_agents.scheduler.runners.recorded import Part

BEGIN_US = 1_700_000_000_000_000


def random_plan(random: Random) -> Plan:
    """Up to eight tasks in up to two stages."""
    stages = tuple(Stage(name=f"s{number}", fail_fast=random.random() < 0.5) for number in range(random.randint(1, 2)))
    tasks: list[Task] = []
    for index in range(random.randint(1, 8)):
        needed = random.sample(tasks, random.randint(0, min(2, len(tasks))))
        stage = max([random.randrange(len(stages)), *(one.stage for one in needed)])
        tasks.append(
            Task(
                task_id=f"t{index}", dependencies=tuple(one.task_id for one in needed), command=("true",), stage=stage,
                priority=random.choice(["critical", "high", "medium", "low"]), max_retries=random.randint(0, 2),
                allow_failure=random.random() < 0.2, files=random.choice([(), (), ("a",), ("a", "b")]),
            )
        )  # fmt: skip
    settings = RunSettings(
        max_parallel_agents=random.randint(1, 4), max_queue_size=random.choice([1, 100]),
        retry=RetryPolicy(delay_s=random.choice([0.0, 2.0])),
    )  # fmt: skip
    return Plan(name="made up", stages=stages, tasks=tuple(tasks), settings=settings)


def played(plan: Plan, random: Random, *, steered: bool = False) -> VirtualRun:
    """A run of a plan, with attempts that take and do whatever."""

    def part_of(launch: Launch) -> Part:
        well = random.random() < 0.7
        charges = (Charge("m", random.randrange(10**6), "agent"),) if random.random() < 0.5 else ()
        ended = Ended(
            launch.attempt_id, "exited", exit_code=int(not well), error=None if well else "it failed", charges=charges,
            output=random.choice([None, "done"]), retryable=random.random() < 0.8,
        )  # fmt: skip
        return Part(random.randrange(1, 30) * 100_000, ended)

    world = VirtualRun("made-up", part_of, BEGIN_US, runners_of(plan))
    world.draw_of = lambda attempt_id: random.random()
    submitted = ev.RunSubmitted(
        name="made up", plan_digest="", task_count=0, strategy="concurrent", workspace="none", workdir="/nowhere"
    )
    world.submit(plan, submitted)
    world.look()
    if steered:
        steer(world, random)
    world.go_on()
    return world


def steer(world: VirtualRun, random: Random) -> None:
    """Somebody pauses the run, ends a task of it, and lets it go on."""
    for command in (decide_pause, _cancel_one, decide_resume):
        world.go_on(world.now_us + random.randrange(1, 40) * 100_000)
        assert world.state is not None
        if world.state.ended:
            return
        if events := command(world.state):
            world.append([("made-up", event) for event in events])
            world.look()


def _cancel_one(state: Any) -> list[ev.Event]:
    name = next(
        (name for name, task in state.tasks.items() if task.status not in ("completed", "failed", "skipped")), None
    )
    return [] if name is None else decide_cancel_task(state, name)


def rewritten(log: Log, change: Callable[[Recorded], ev.Event]) -> Log:
    """The same history with other events in it, each at its time and by its actor."""
    clock = [0]
    made = scratch_log(Path("/nonexistent/events.db"), lambda: clock[0])
    plan = next(log.read(run_id="made-up")).event
    assert isinstance(plan, ev.RunSubmitted)
    grouped: dict[tuple[int, str], list[Recorded]] = defaultdict(list)
    for record in log.read():
        grouped[record.at_us, record.actor].append(record)
    for (clock[0], actor), records in grouped.items():

        def add(draft: Any, records: list[Recorded] = records) -> None:
            draft.add_blob(plan.plan_digest, log.blob(plan.plan_digest))
            for record in records:
                draft.add(record.run_id, change(record))

        made.transact(add, actor=actor)
    return made


@given(st.integers(0, 10**6), st.booleans())
def test_a_run_that_is_executed_again_comes_out_the_same(seed: int, steered: bool) -> None:
    """In order, times, states and cost, whatever its attempts did and whoever steered it."""
    random = Random(seed)
    with_all_that = played(random_plan(random), random, steered=steered)
    found = execute(with_all_that.log, "made-up")
    assert found["divergence"] is None
    compared = sum(found["same"].values()) + sum(found["given"].values())
    leases = sum(isinstance(one.event, ev.RunClaimed | ev.RunSubmitted) for one in with_all_that.records)
    assert compared == len(with_all_that.records) - leases, "every event is compared or given"


SEED = 8
ALTERED: dict[str, Callable[[ev.Event], ev.Event]] = {
    "TaskStarted.attempt": lambda event: event.model_copy(update={"attempt": 7}),
    "TaskQueued.event": lambda event: ev.TaskQueued(task_id="t0"),
    "TaskRetryScheduled.failures": lambda event: event.model_copy(update={"failures": 9}),
    "RunFailed.counts": lambda event: event.model_copy(update={"counts": {"completed": 99}}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_no_scheduler_would_have_done_is_named(what: str) -> None:
    """With the event, the field, what is recorded and what comes out now; every event before it is the same."""
    type_, field = what.split(".")
    random = Random(SEED)
    log = played(random_plan(random), random).log
    wrong = [record.seq for record in log.read() if type(record.event).__name__ == type_][-1]
    altered = rewritten(log, lambda one: ALTERED[what](one.event) if one.seq == wrong else one.event)
    found = execute(altered, "made-up")
    assert not found["ok"]
    assert (found["divergence"]["seq"], found["divergence"]["type"]) == (wrong, type_)
    if field != "event":
        assert found["divergence"]["field"] == field


def test_a_start_that_was_left_out_is_named() -> None:
    """As the event that comes now, behind those that are recorded."""
    plan = Plan(name="two", tasks=(Task(task_id="a", command=("true",)), Task(task_id="b", command=("true",))))
    log = played(plan, Random(1)).log
    second = [record.seq for record in log.read() if isinstance(record.event, ev.TaskStarted)][1]
    without = rewritten(
        log, lambda one: ev.AttemptRevived(task_id="b", attempt_id="x") if one.seq == second else one.event
    )
    divergence = execute(without, "made-up")["divergence"]
    assert (divergence["field"], divergence["recorded"], divergence["now"]) == ("event after it", None, "TaskStarted b")
