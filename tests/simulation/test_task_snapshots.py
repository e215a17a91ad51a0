"""Snapshots of single tasks: a task that goes on from one is the task of the whole fold, at every prefix and after rollbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import given
from test_histories import HISTORIES, SEED, SIZE, generated, naive_state

from parallel_agents.deep_verification import check_folds
from parallel_agents.eventstore.events import STORE_RUN, RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.of_task import TASK_INDEX
from parallel_agents.eventstore.record import decode_brief
from parallel_agents.projections import status as status_fold
from parallel_agents.projections import task_snapshots
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.replay import replay

OF_TASKS = f"FROM snapshots WHERE run_id != '{STORE_RUN}' AND projection LIKE 'task:%'"


@contextmanager
def often(every: int, worth_keeping: int = 10**6, at_once: int = 1) -> Iterator[None]:
    """Rows of tasks that have a handful of events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_snapshots, "EVERY", every)
        patch.setattr(task_snapshots, "WORTH_KEEPING", worth_keeping)
        patch.setattr(task_snapshots, "_AT_ONCE", at_once)
        yield


def count(log: Log) -> int:
    """How many rows of tasks there are."""
    return int(log._writer.execute(f"SELECT count(*) {OF_TASKS}").fetchone()[0])


@HISTORIES
@given(SEED, SIZE)
def test_a_task_from_a_snapshot_of_it_is_the_task_of_the_whole_fold(seed: int, events: int) -> None:
    """At every seq, whichever moments have rows, also those that were undone since; with and without the index of tasks."""
    random = Random(seed)
    with generated(random, events) as (made, log), often(random.randint(1, 3), random.choice((1, 4, 10**6))):
        if random.random() < 0.2:
            log._writer.execute(f"DROP INDEX {TASK_INDEX}")
        projector = Projector(log)
        for seq in range(1, len(made.events) + 1):
            for run_id, run in made.runs.items():
                if not any(own <= seq for own in run.after):
                    continue
                expected = naive_state(log, run_id, seq)
                for name, task in expected.tasks.items():
                    assert projector.task(run_id, name, seq) == task
                    if random.random() < 0.3:
                        log.save_snapshots(run_id, [task_snapshots.dump(task, expected.seq, expected.version)])
            if random.random() < 0.1:
                log._writer.execute("DELETE FROM snapshots WHERE random() % 2 = 0")
        for run_id in Projector(log).runs():
            assert check_folds(log, run_id, log.last_seq())[0] == []


@HISTORIES
@given(SEED, SIZE)
def test_rows_that_were_dropped_are_made_again_by_who_needs_them(seed: int, events: int) -> None:
    """They say what they said, and so does the task."""
    random = Random(seed)
    with generated(random, events) as (_, log), often(2, worth_keeping=2):
        last = log.last_seq()
        states = {run_id: naive_state(log, run_id, last) for run_id in Projector(log).runs()}

        def ask() -> list[tuple[object, ...]]:
            for run_id, state in states.items():
                for name, task in state.tasks.items():
                    assert Projector(log).task(run_id, name, last) == task
            return log._writer.execute(f"SELECT * {OF_TASKS} ORDER BY run_id, projection, seq").fetchall()

        first = ask()
        assert ask() == first
        log._writer.execute("DELETE FROM snapshots")
        assert ask() == first
        for run_id in states:
            assert check_folds(log, run_id, last)[0] == []


@HISTORIES
@given(SEED, SIZE)
def test_a_run_that_goes_on_leaves_rows_of_its_tasks(seed: int, events: int) -> None:
    """Of each, one for so many events of its own; they are right by a fold of all events."""
    random = Random(seed)
    with generated(random, events, runs=1) as (_, log), often(2):
        writer, state = task_snapshots.Writer(), status_fold.initial("alpha")
        seen: dict[str, int] = {}
        for brief in log.briefs("alpha"):
            event = decode_brief("alpha", brief).event
            if isinstance(event, RunRolledBack):
                break  # A dispatcher begins anew there.
            state = replay(state, [brief], log.blob)
            writer.learn(event)
            name = getattr(event, "task_id", None)
            if name is not None:
                seen[name] = seen.get(name, 0) + 1
            log.save_snapshots("alpha", writer.take(state))
        assert count(log) == sum(one // 2 for one in seen.values())
        assert check_folds(log, "alpha", log.last_seq())[0] == []


def test_a_row_that_is_none_is_passed_over_and_found() -> None:
    """It is a cache, and what it would have said is folded; a look at everything names it."""
    with generated(Random(7), 60, runs=1) as (_, log):
        state = Projector(log).state("alpha")
        task = state.tasks["t0"]
        right = task_snapshots.dump(task, state.seq, state.version)
        for nonsense in (b"", b"{}", b"[]", b"[1,2]", b'["a"]', b"7"):
            log.save_snapshots("alpha", [right._replace(state=nonsense)])
            assert Projector(log).task("alpha", "t0") == task
            assert [one.check for one in check_folds(log, "alpha", state.seq)[0]] == ["snapshots"]
        log.save_snapshots("alpha", [right._replace(state=right.state.replace(b'"', b'"x', 1))])
        assert [one.check for one in check_folds(log, "alpha", state.seq)[0]] == ["snapshots"]
        log.transact(lambda draft: draft.drop_caches())
        assert (count(log), check_folds(log, "alpha", state.seq)) == (0, ([], 0))
        assert Projector(log).task("alpha", "t0") == task


def test_a_reader_without_snapshots_leaves_none() -> None:
    """Nor looks at any."""
    with generated(Random(7), 60, runs=1) as (_, log), often(1, worth_keeping=1):
        assert Projector(log, use_snapshots=False).task("alpha", "t0") == Projector(log).state("alpha").tasks["t0"]
        assert count(log) == 0
        Projector(log).task("alpha", "t0")
        assert count(log) > 0
