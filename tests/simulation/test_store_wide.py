"""Folds of the whole store are the same from snapshots and from nothing, whoever wrote them and whenever they went."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import temporary
from test_histories import HISTORIES, SEED, generated

from examples import stories
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import BudgetSettings
from parallel_agents.projections import projector as projector_module
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.store_wide import OCCUPANCY, RUNS, SPEND
from parallel_agents.scheduler.budget import Books, Budgets

LONG = st.sampled_from([60, 200])  # Sessions that are gone on with, and slots of a run that has ended, are rare.


@settings(HISTORIES, max_examples=stories(5, 120))
@given(SEED, LONG)
def test_what_a_reader_is_told_is_the_same_with_and_without_snapshots(seed: int, events: int) -> None:
    """After every event, at the end and at a moment before, with snapshots at any distance, some taken away again."""
    random = Random(seed)
    with (
        generated(random, events) as (made, _),
        temporary() as folder,
        pytest.MonkeyPatch.context() as patch,
        Log(Path(folder, "growing.db"), environ={}) as log,
    ):
        log._writer.execute("PRAGMA synchronous = OFF")  # Thousands of commits, and no power is cut.
        with_snapshots, without = Projector(log), Projector(log, use_snapshots=False)
        for run_id, event in made.events:
            log.transact(lambda draft, run_id=run_id, event=event: draft.add(run_id, event) and None)
            patch.setattr(projector_module, "KEEP_EVERY", random.choice([1, 5, 20]))
            for upto in (None, random.randint(1, log.last_seq())):
                assert with_snapshots.runs(upto) == without.runs(upto)
                assert with_snapshots.occupancy(upto) == without.occupancy(upto)
                assert with_snapshots.spend(upto) == without.spend(upto)
            if random.random() < 0.1:
                log._writer.execute("DELETE FROM snapshots WHERE projection = ?", [random.choice(["runs", "spend"])])
        assert RUNS.newest_seq(log) or SPEND.newest_seq(log)


@HISTORIES
@given(SEED, LONG)
def test_a_snapshot_of_the_store_holds_the_whole_fold(seed: int, events: int) -> None:
    """Also of runs that have ended, and it goes on in the same way."""
    with generated(Random(seed), events) as (_, log):
        end = log.last_seq()
        for fold in (RUNS, OCCUPANCY, SPEND):
            for seq in range(0, end + 1, 7):
                state = fold.state(log, seq)
                assert fold.load(fold.dump(state)) == state
                assert fold.state(log, end, (seq, fold.load(fold.dump(state)))) == fold.state(log, end)


@HISTORIES
@given(SEED, LONG)
def test_what_a_run_has_spent_is_its_part_of_the_whole(seed: int, events: int) -> None:
    """All that budgets of its own, and of its tasks, are about: at every moment, whatever other runs spend."""
    random = Random(seed)
    with generated(random, events) as (made, log):
        projector = Projector(log)
        for seq in random.sample(range(1, log.last_seq() + 1), 8):
            everything = projector.spend(seq)
            for run_id in made.runs:
                mine = projector.spend_of(run_id, seq)
                tasks = {name for of, name in everything.by_task if of == run_id}
                budgets = Budgets(run_id, BudgetSettings(), 1_000, dict.fromkeys(tasks, 500))
                now_us = random.randrange(10**15)
                assert list(Books(mine, now_us).use(budgets)) == list(Books(everything, now_us).use(budgets))
                assert mine.assumed_by_run[run_id] == everything.assumed_by_run[run_id]
                assert set(mine.by_run) <= {run_id}
