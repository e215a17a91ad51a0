"""Random stories on a machine whose load comes and goes: limits of processors, memory and workers hold, and nobody starves."""

from __future__ import annotations

from collections import Counter

import pytest
from stories import check, parts, story

from examples import first_seed, stories

PARTS = 2
SEEDS = parts(first_seed(), stories(12, 1000), PARTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SEEDS, ids=range(PARTS))
def test_on_a_machine_whose_load_comes_and_goes_the_rules_hold_and_every_run_comes_to_its_end(seeds: range) -> None:
    """Whoever dies in between. They meet every reason to wait, or that would say little."""
    told = sum((check(story("governed", seed)) for seed in seeds), start=Counter())
    assert all(told[code] for code in ("cpu", "memory", "workers"))
    assert told["starts"] > 30
