"""A decision that is recorded otherwise than it was made is named: its event, the field, what is recorded and what is due.

Stories of the simulated worlds are told, each event of a kind is altered by itself, and the scheduler decides them again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Final, NamedTuple

import pytest
from planting import Body, Change, altered, gone, has_facts, with_facts, without_facts
from stories import Told, story, tell

from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.verdicts import Divergence

STORIES: Final = 12
ENOUGH: Final = 3  # Found so often, a kind is known to be found.


class Planted(NamedTuple):
    """One way in which events of a type are recorded otherwise."""

    world: str
    type: str
    change: Change
    fields: tuple[str, ...]  # Of which one is named.
    where: Callable[[Body], bool] = lambda body: True  # Of which events.
    elsewhere: bool = False  # What is named is an event near it, since it is gone.


OF_MONEY: Final = {
    "another share of a budget is told": Planted(
        "agents", "BudgetThresholdReached", lambda body: {**body, "share": 0.123}, ("share",)
    ),
    "another share of a budget was told by an older release": Planted(
        "agents", "BudgetThresholdReached", lambda body: {**without_facts(body), "share": 0.123}, ("share", "scope"),
    ),
    "the budget of another scope is told": Planted(
        "agents", "BudgetThresholdReached", lambda body: {**body, "scope": "task:t99"}, ("scope",)
    ),
    "more is told to be spent than was seen": Planted(
        "agents", "BudgetThresholdReached", lambda body: {**body, "spent_usd_micros": 10**12}, ("spent_usd_micros",)
    ),
    "less is told to be spent than was charged": Planted(
        "agents", "BudgetExceeded", lambda body: {**without_facts(body), "spent_usd_micros": 0}, ("spent_usd_micros",)
    ),
    "another budget is told to be spent": Planted(
        "agents", "BudgetExceeded", lambda body: {**body, "budget_usd_micros": 1}, ("budget_usd_micros",)
    ),
    "a share is not told": Planted(
        "agents", "BudgetThresholdReached", gone, ("then", "before", "share", "type"), elsewhere=True
    ),
    "that a budget is spent is not told": Planted(
        "agents", "BudgetExceeded", gone, ("then", "before", "type"), elsewhere=True
    ),
    "a run goes on although its budget is spent": Planted(
        "agents", "RunPaused", gone, ("then",), lambda body: body["code"] == "budget" and not has_facts(body),
        elsewhere=True,
    ),
    "a run is paused for money that there is": Planted(
        "agents", "RunPaused", lambda body: {**body, "code": "budget", "facts": {"live_usd_micros": {}}}, ("then",),
        lambda body: body["code"] in ("authentication", "spend_cap"), elsewhere=True,
    ),
    "a run did not wait for its provider": Planted(
        "agents", "RunResumed", gone, ("before",), lambda body: body["reason"].endswith("its time is over"),
        elsewhere=True,
    ),
}  # fmt: skip


OF_TIME: Final = {
    "the time of a run was not up": Planted(
        "scheduler", "RunCancelRequested", with_facts(used_s=0.5), ("type",), has_facts
    ),
}


def found_in(log: Log, planted: Planted) -> list[Divergence]:
    """What is said of those events that are seen to be recorded otherwise."""
    found: list[Divergence] = []
    for row in list(log.rows(where=f"type = '{planted.type}'")):
        if not planted.where(json.loads(row.body)):
            continue
        for one in altered(log, row, planted.change):
            here = one.seq == row.seq and one.type == planted.type
            if (here or planted.elsewhere) and one.field in planted.fields and one.recorded != one.now:
                found.append(one)
    return found


PLANTED: Final = {**OF_MONEY, **OF_TIME}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_recorded_otherwise_is_named(name: str) -> None:
    """Each altered event by itself."""
    check(PLANTED[name])


def check(planted: Planted) -> None:
    """Until it was found often enough, in as many stories as that takes."""
    found: list[Divergence] = []

    def look(world: Told) -> None:
        found.extend(found_in(world.log, planted))

    for seed in range(STORIES):
        tell(story(planted.world, seed), look)
        if len(found) >= ENOUGH:
            return
    assert found, "no event of the kind was a decision"


def test_what_an_older_release_has_told_of_money_is_judged_without_its_facts() -> None:
    """By what was spent in all."""
    judged: Counter[str] = Counter()

    def look(world: Told) -> None:
        told = list(world.log.rows(where="type IN ('BudgetThresholdReached', 'BudgetExceeded', 'RunPaused')"))
        runs = list(Projector(world.log).runs())
        before = sum((redecide(world.log, run_id).decisions for run_id in runs), start=Counter[str]())
        with closing(sqlite3.connect(world.log.path)) as connection, connection:
            for row in told:
                body = json.dumps(without_facts(json.loads(row.body)))
                connection.execute("UPDATE events SET body = ? WHERE seq = ?", (body, row.seq))
        verdicts = [redecide(world.log, run_id) for run_id in runs]
        assert [one.divergence for one in verdicts if one.divergence is not None] == []
        again = sum((one.decisions for one in verdicts), start=Counter[str]())
        for name in ("BudgetThresholdReached", "BudgetExceeded"):
            assert again[name] == before[name]
        judged.update(again)

    for seed in range(6):
        tell(story("agents", seed), look)
    assert min(judged["BudgetThresholdReached"], judged["BudgetExceeded"], judged["RunPaused"]) > 0
