"""Runs of stories, in which clocks jump and dispatchers die, are executed again: the same comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from stories import story, tell

from parallel_agents.projections.projector import Projector
from parallel_agents.reenacting import execute


@pytest.mark.parametrize(
    ("world", "seeds"), [("scheduler", range(6)), ("governed", range(3, 6)), ("agents", (0, 1, 3))]
)
def test_the_runs_of_a_story_come_out_the_same(world: str, seeds: Iterable[int]) -> None:
    """In order, times, states and cost."""
    compared: Counter[str] = Counter()

    def look(told: Any) -> None:
        for run_id in Projector(told.log).runs():
            found = execute(told.log, run_id)
            assert found["divergence"] is None, f"run {run_id}: {found['divergence']}"
            compared.update(found["same"])

    for seed in seeds:
        tell(story(world, seed), look)
    assert compared["TaskStarted"] > 5
