"""Random plans, limits, ends, failures, pauses, cancellations, rollbacks, forks, crashes and full disks: the rules always hold.

A story that fails is cut down to the few steps that matter and says how it is told again (see ``stories``).
"""

from __future__ import annotations

from collections import Counter

import pytest
from stories import check, parts, story

from examples import first_seed, stories

PARTS = 5
SEEDS = parts(first_seed(), stories(300, 10_000), PARTS)
TORN = parts(first_seed(), stories(30, 2000), PARTS)
MUCH = {
    "AttemptLost", "ResultDiscarded", "RunCancelled", "RunClaimed", "RunCompleted", "RunFailed", "RunForked", "RunPaused",
    "RunReleased", "RunResumed", "RunRolledBack", "TaskBlocked", "TaskCancelRequested", "TaskCancelled", "TaskCompleted",
    "TaskFailed", "TaskReopened", "TaskRetryScheduled", "TaskSkipped", "TaskTimedOut", "TaskUnblocked",
}  # fmt: skip
"""All that a run without agents and files can go through: of stories in which it does not happen the rules say nothing."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SEEDS, ids=range(PARTS))
def test_whatever_happens_the_rules_hold_and_every_run_comes_to_its_end(seeds: range) -> None:
    """The rules are the referee's, and what is checked after every tick. Much happens, in every part of the stories."""
    told = sum((check(story("scheduler", seed)) for seed in seeds), start=Counter())
    assert told.keys() >= MUCH


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", TORN, ids=range(PARTS))
def test_any_prefix_of_a_log_is_a_state_to_go_on_from(seeds: range) -> None:
    """Cut anywhere, also in the middle of a commit; whatever ran is lost, and everything comes to its end."""
    for seed in seeds:
        check(story("torn", seed))
