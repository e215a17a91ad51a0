"""Random edits by several agents with rollbacks, forks, conflicts, deaths and full disks: files are what the model says.

A failure prints its seed; `python tests/simulation/test_files.py SEED` tells that story again.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from files_world import simulated
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

# Nothing is shrunk: another seed is another story, a smaller one no simpler.
QUICK = settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
MANY = settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
SEED = st.integers(0, 2**32)
STEPS = 45


def tell(seed: int, steps: int = STEPS) -> Counter[str]:
    """One story from its beginning to its end; gives how much of it was foretold."""
    with tempfile.TemporaryDirectory() as folder, simulated(seed, Path(folder)) as world:
        world.begin()
        for _ in range(steps):
            world.step()
        world.settle()
        world.check_at_rest()
        return world.foretold


@pytest.mark.timeout(900)
@QUICK
@given(SEED)
def test_whatever_happens_every_tree_is_what_was_recorded_and_none_is_lost(seed: int) -> None:
    """The rules are those of the world's ``look``, after every step."""
    tell(seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@MANY
@given(SEED)
def test_many_long_stories_end_as_well(seed: int) -> None:
    """The same, further."""
    tell(seed, 2 * STEPS)


def test_a_seed_tells_one_story_in_which_work_is_merged_and_meets() -> None:
    """What is foretold is mostly certain, so that the property above says something."""
    told = tell(4711)
    assert told == tell(4711)
    assert told["completed"] > 0


if __name__ == "__main__":
    print(tell(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS))
