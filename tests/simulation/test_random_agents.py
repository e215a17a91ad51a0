"""Random plans of agents, refusals, budgets and crashes: nothing is overspent, nobody is stormed, nobody waits for ever."""

from __future__ import annotations

import pytest
from stories import check, parts, story

from examples import first_seed, stories

PARTS = 6
SEEDS = parts(first_seed(), stories(40, 2000), PARTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SEEDS, ids=range(PARTS))
def test_whatever_agents_do_their_bill_is_bounded_and_every_run_comes_to_its_end(seeds: range) -> None:
    """The rules are those of the world, looked at after every event and every tick."""
    for seed in seeds:
        check(story("agents", seed))
