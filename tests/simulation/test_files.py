"""Random edits by several agents with rollbacks, forks, conflicts, deaths and full disks: files are what the model says."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from files_world import simulated
from stories import check, parts, story, tell

from examples import first_seed, stories
from parallel_agents import steer
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.projections.projector import Projector

PARTS = 6
SEEDS = parts(first_seed(), stories(6, 200), PARTS)
IN_MEMORY = parts(first_seed(), stories(30, 2000), PARTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SEEDS, ids=range(PARTS))
def test_whatever_happens_every_tree_is_what_was_recorded_and_none_is_lost(seeds: range) -> None:
    """The rules are those of the world's ``look``, after every step."""
    for seed in seeds:
        check(story("git", seed))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", IN_MEMORY, ids=range(PARTS))
def test_no_work_is_lost_or_merged_twice_whatever_happens_to_whom(seeds: range) -> None:
    """Without git, but with several dispatchers that die anywhere: the rules of the scheduler, and a model of the files."""
    for seed in seeds:
        check(story("memory", seed))


@pytest.mark.slow
def test_much_happens_to_files_in_the_stories() -> None:
    """All that a run with files can go through, or the rules would hold of nothing."""
    told = sum((tell(story("memory", seed)) for seed in range(30)), start=tell(story("memory", 30)))
    assert told.keys() >= {
        "AttemptLost", "CheckpointCreated", "CheckpointRestored", "ConflictDetected", "ConflictResolved", "ResultDiscarded",
        "RunForked", "RunRolledBack", "TaskBlocked", "TaskCompleted",
    }  # fmt: skip


def test_a_seed_tells_one_story_in_which_work_is_merged_and_meets() -> None:
    """What is foretold is mostly certain, so that the property above says something."""
    told = tell(story("git", 4711))
    assert told == tell(story("git", 4711))
    assert told["completed"] > 0


def test_a_run_ends_when_its_branch_follows_or_cannot(tmp_path: Path) -> None:
    """A disk that is full for a moment at the very end, and a death after it, leave no branch behind."""
    with simulated(Random("a branch"), tmp_path) as world:
        world.begin()
        (run_id,) = world.lines
        steer.cancel(world.log, run_id)
        world.tick()
        (lane,) = world.lanes
        world.trouble.after(0, GitFailed)
        lane.step()
        world.tick()
        assert world.trouble.fired
        assert not Projector(world.log).state(run_id).ended, "it is tried again first"
        world._dies()
        world.finish()
        assert Projector(world.log).state(run_id).ended


def test_a_branch_that_never_follows_keeps_no_run_from_its_end(tmp_path: Path) -> None:
    """It is tried a few times, a second apart, and then told."""
    with simulated(Random("a branch"), tmp_path) as world:
        world.begin()
        (run_id,) = world.lines
        steer.cancel(world.log, run_id)
        tries = 0
        for _ in range(20):
            world.tick()
            for lane in world.lanes:
                world.trouble.after(0, GitFailed)
                lane.step()
                tries += 1
            world.time_passes(500_000)
        assert Projector(world.log).state(run_id).ended
        assert 3 <= tries <= 5
