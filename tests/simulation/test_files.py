"""Random edits by several agents with rollbacks, forks, conflicts, deaths and full disks: files are what the model says."""

from __future__ import annotations

import pytest
from stories import check, parts, story, tell

from examples import first_seed, stories

PARTS = 6
SEEDS = parts(first_seed(), stories(6, 200), PARTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SEEDS, ids=range(PARTS))
def test_whatever_happens_every_tree_is_what_was_recorded_and_none_is_lost(seeds: range) -> None:
    """The rules are those of the world's ``look``, after every step."""
    for seed in seeds:
        check(story("git", seed))


def test_a_seed_tells_one_story_in_which_work_is_merged_and_meets() -> None:
    """What is foretold is mostly certain, so that the property above says something."""
    told = tell(story("git", 4711))
    assert told == tell(story("git", 4711))
    assert told["completed"] > 0
