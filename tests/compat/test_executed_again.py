"""The runs of frozen histories, executed again by this release's scheduler, come out as they were recorded.

Clocks were set back, dispatchers died and runs shared slots in them. What cannot come out the same is named, with the reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_decided_again import DECIDED, opened

from parallel_agents.otherwise.counterfactual import otherwise
from parallel_agents.otherwise.reenacting import execute
from parallel_agents.otherwise.surroundings import recording_of
from parallel_agents.projections.projector import Projector

OTHERWISE = {
    ("busy_machine_0_1_0", "id00000006"): (
        84, "the end of a rest was told by an older release, by a clock that had been set back before the next look"
    ),
    ("decisions_on_money_0_1_0", "id00000014"): (
        101, "what an agent of another run was seen to spend is told to the run that it kept from starting, and not to this one"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDED)
def test_the_runs_of_a_frozen_history_come_out_the_same(name: str, tmp_path: Path) -> None:
    """In order, times, states and cost; nothing is written to the store that they were recorded in."""
    with opened(DECIDED[name], tmp_path) as log:
        before = log.last_seq()
        for run_id in Projector(log).runs():
            found = execute(log, run_id)
            seq = None if found["divergence"] is None else found["divergence"]["seq"]
            expected, _ = OTHERWISE.get((name, run_id), (None, ""))
            assert seq == expected, f"run {run_id}: {found['divergence']}"
        assert log.last_seq() == before


@pytest.mark.parametrize("name", DECIDED)
def test_the_runs_of_a_frozen_history_can_be_played_otherwise(name: str, tmp_path: Path) -> None:
    """To an end, whatever happened in them: every task that was decided on is counted, and no attempt runs on."""
    with opened(DECIDED[name], tmp_path) as log:
        for run_id in Projector(log).runs():
            found = otherwise(log, run_id, {"max_parallel_agents": "8", "retry.delay_s": "0"})
            assert found["recorded"]["attempts"] == len(recording_of(log, run_id).attempts)
            assert "running" not in found["otherwise"]["tasks"], f"run {run_id}: {found['otherwise']}"
