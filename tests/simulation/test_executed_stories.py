"""Runs of stories, in which clocks jump and dispatchers die, are executed again: the same comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from stories import story, tell

from parallel_agents.otherwise.reenacting import execute
from parallel_agents.projections.projector import Projector


@pytest.mark.parametrize(
    ("world", "seeds"),
    [("scheduler", range(6)), ("governed", range(3, 6)), ("agents", (0, 1, 3)), ("git", range(4))],
)
def test_the_runs_of_a_story_come_out_the_same(world: str, seeds: Iterable[int]) -> None:
    """In order, times, states and cost, and where the files are, to the same commits or others that hold the same."""
    compared, commits = Counter[str](), Counter[str]()

    def look(told: Any) -> None:
        for run_id in Projector(told.log).runs():
            found = execute(told.log, run_id, repository=(lambda: told.repository) if world == "git" else None)
            assert found["divergence"] is None, f"run {run_id}: {found['divergence']}"
            compared.update(found["same"])
            assert found["files_judged"], found["files_left"]
            commits.update(found["commits"] or {})

    for seed in seeds:
        tell(story(world, seed), look)
    assert compared["TaskStarted"] > 5
    assert world != "git" or commits["same"] > 20 * commits["alike"] > -1
