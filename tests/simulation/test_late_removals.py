"""A dispatcher that is slow to take the checkouts of an ended run away meets those who have taken the run up again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from lanes import SteppedLane
from memory_world import MemoryWorld, simulated
from processes import SECOND_US

from parallel_agents import steer, travel
from parallel_agents.eventstore.submission import Plan, RunSettings, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

BEFORE_IT_STARTED = "3"


def go_on(world: MemoryWorld, dispatcher: Dispatcher) -> None:
    """A tick, and all that it wants done about files."""
    world.tick(dispatcher)
    for lane in lanes_of(world, dispatcher):
        while lane.queue:
            lane.step()


def lanes_of(world: MemoryWorld, dispatcher: Dispatcher) -> list[SteppedLane]:
    """Those in which something waits."""
    return [lane for one, lane in world._lanes() if one is dispatcher]


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[tuple[MemoryWorld, str, SteppedLane]]:
    """A run that has ended, and the lane in which its dispatcher has yet to take its checkout away."""
    with simulated(Random("late"), tmp_path) as world:
        plan = Plan(
            name="late", workspace="worktree", tasks=(Task(task_id="a", command=("true",)),),
            settings=RunSettings(min_free_mb=0),
        )  # fmt: skip
        run_id = submit(world.log, plan, workdir=tmp_path, environ={}, start=Start("worktree", world.repository))
        [first] = world.dispatchers
        for _ in range(20):
            for attempt_id in list(world.machine.running):
                world.machine.end(attempt_id, "exited", None)
            world.time_passes(SECOND_US)
            world.tick(first)
            if Projector(world.log).state(run_id).ended:
                break
            for lane in lanes_of(world, first):
                while lane.queue:
                    lane.step()
        [late] = lanes_of(world, first)
        yield world, run_id, late


def test_what_ends_late_takes_no_checkout_from_those_who_work_there(
    ended: tuple[MemoryWorld, str, SteppedLane],
) -> None:
    """The run was rolled back, and another process has started its task anew in the same folder."""
    world, run_id, late = ended
    travel.rollback(world.log, world.project, run_id, travel.target_of(world.log, run_id, BEFORE_IT_STARTED))
    steer.resume(world.log, run_id)
    world.new_dispatcher()
    go_on(world, world.dispatchers[-1])
    go_on(world, world.dispatchers[-1])
    [running] = world.machine.running.values()
    late.step()
    assert Path(running.workdir).is_dir()
    assert Path(running.workdir) in world.git.checkouts


def test_what_ends_late_takes_the_checkout_away_all_the_same(ended: tuple[MemoryWorld, str, SteppedLane]) -> None:
    """Where nothing has happened to the run since."""
    world, _, late = ended
    [folder] = world.git.checkouts
    late.step()
    assert world.git.checkouts == {}
    assert not folder.exists()
