"""Folds over generated histories: at every prefix, with and without snapshots, they are what the design's words say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from histories import ENDED, RUN_ENDED, Generator, Model, store
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from in_memory import temporary

from examples import examples
from parallel_agents import moments
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import UnknownEvent, UnknownRun
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.bill import FOLDED, GROUPINGS, fates_of, grouped
from parallel_agents.projections.effective import effective
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import Spend
from parallel_agents.projections.status import RunState
from parallel_agents.projections.timeline import timeline

# A failure prints its seed and size. Nothing is shrunk: another seed is another history, a smaller one no simpler.
HISTORIES = settings(max_examples=examples(15), deadline=None, phases=[Phase.explicit, Phase.generate])
SEED = st.integers(0, 2**32)
SIZE = st.sampled_from([6, 12, 25, 60])
NOT_OF_A_SNAPSHOT = ("touched", "broken")  # What the scheduler has still to look at.


@contextmanager
def generated(random: Random, events: int, runs: int = 2) -> Iterator[tuple[Generator, Log]]:
    """A history in a log, with a clock that moves on by a second with each commit."""
    clock = iter(range(10**15, 2 * 10**15, 10**6))
    made = Generator(random, runs)
    made.grow(events)
    with (
        temporary() as folder,
        Log(Path(folder) / "events.db", clock=lambda: next(clock), environ={}) as log,
    ):
        log._writer.execute("PRAGMA synchronous = OFF")
        store(log, made)
        yield made, log


def plain(state: RunState) -> dict[str, Any]:
    """Every field of a state but what is no part of it."""
    return {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name not in NOT_OF_A_SNAPSHOT
    }


def history_that_counts(records: list[Recorded]) -> list[Recorded]:
    """Forwards: after a rollback the history is that of the last event at or before its target."""
    after: dict[int, list[Recorded]] = {}
    counting: list[Recorded] = []
    for record in records:
        if isinstance(record.event, ev.RunRolledBack):
            earlier = [seq for seq in after if seq <= record.event.to_seq]
            counting = after[max(earlier)] if earlier else []
        else:
            counting = [*counting, record]
        after[record.seq] = counting
    return counting


def naive_state(log: Log, run_id: str, upto: int) -> RunState:
    """The state as of a seq, folded from nothing over what counts."""
    records = [record for record in log.read(0, upto) if record.run_id == run_id]
    state = status_fold.initial(run_id)
    for record in history_that_counts(records):
        state = status_fold.fold(state, record, log.blob)
    state.seq, state.version = records[-1].seq, records[-1].version
    return state


def check_against_model(state: RunState, model: Model) -> None:
    """What the generator knows without any fold."""
    assert (state.status, state.cancel_requested) == (model.status, model.cancel_requested)
    assert (state.throttled, state.workers) == (model.throttled, model.workers)
    for name, task in model.tasks.items():
        found = state.tasks[name]
        assert (found.status, found.attempts, found.failures, found.attempt_id or "") == (
            task.status, task.attempts, task.failures, task.attempt_id,
        )  # fmt: skip


def check_derived(state: RunState) -> None:
    """What hangs on the statuses, counted afresh."""
    tasks = state.tasks
    assert +state.counts == Counter(task.status for task in tasks.values())
    assert not -state.counts
    for task in tasks.values():
        needed = [tasks[name] for name in task.task.dependencies]
        assert task.open_dependencies == sum(
            not (
                needed_task.status == "completed"
                or (needed_task.task.allow_failure and needed_task.status in ("failed", "cancelled"))
            )
            for needed_task in needed
        )
    for stage in range(len(state.plan.stages)):
        inside = [task for task in tasks.values() if task.task.stage == stage]
        assert state.stage_open[stage] == sum(task.status not in ENDED for task in inside)
        assert sorted(state.stage_failed.get(stage, [])) == sorted(
            task.task.task_id for task in inside if task.status == "failed" and not task.task.allow_failure
        )
    assert state.running == {task.attempt_id: name for name, task in tasks.items() if task.status == "running"}
    assert state.ended == (state.status in RUN_ENDED)


@HISTORIES
@given(SEED, SIZE)
def test_a_state_is_the_same_from_snapshots_from_nothing_and_by_the_words_of_the_design(seed: int, events: int) -> None:
    """At every seq, for every run, with snapshots at random places and some of them taken away again."""
    with generated(Random(seed), events) as (made, log):
        with_snapshots, without = Projector(log), Projector(log, use_snapshots=False)
        for seq in range(1, len(made.events) + 1):
            for run_id, run in made.runs.items():
                own = [own_seq for own_seq in run.after if own_seq <= seq]
                if not own:
                    with pytest.raises(UnknownRun, match=f"{run_id}'? (had not begun )?at event {seq}"):
                        with_snapshots.state(run_id, seq)
                    continue
                expected = naive_state(log, run_id, seq)
                rebuilt = without.state(run_id, seq)
                assert plain(rebuilt) == plain(expected)
                assert plain(with_snapshots.state(run_id, seq)) == plain(expected)
                check_against_model(rebuilt, run.after[max(own)])
                check_derived(rebuilt)
                if made.random.random() < 0.15:
                    with_snapshots.save_snapshot(rebuilt)
        # A past moment is what a reader saw then, whatever was saved since.
        for seq in made.random.sample(range(1, len(made.events) + 1), 6):
            for run_id, run in made.runs.items():
                if any(own_seq <= seq for own_seq in run.after):
                    assert plain(with_snapshots.state(run_id, seq)) == plain(naive_state(log, run_id, seq))
        assert verify_rows(log.rows()).broken is None


def with_other_fields(snapshot: bytes) -> bytes:
    """The same snapshot as a release would have made it that had its fields in another order."""
    raw = orjson.loads(snapshot)
    raw["fields"].reverse()
    for values in raw["tasks"].values():
        values.reverse()
    return orjson.dumps(raw)


@HISTORIES
@given(SEED, SIZE)
def test_a_snapshot_holds_the_whole_state(seed: int, events: int) -> None:
    """Saved and loaded at every event of a run, it is the same, and goes on in the same way."""
    with generated(Random(seed), events, runs=1) as (_, log):
        state = status_fold.initial("alpha")
        for record in history_that_counts(list(log.read())):
            loaded = status_fold.load("alpha", status_fold.dump(state), log.blob) if state.version else state
            assert plain(loaded) == plain(state)
            if state.version:
                older = status_fold.load("alpha", with_other_fields(status_fold.dump(state)), log.blob)
                assert (plain(older), older.broken) == (plain(loaded), loaded.broken)
            onwards = status_fold.fold(loaded, record, log.blob)
            if loaded is not state:
                state = status_fold.fold(state, record, log.blob)
            assert plain(onwards) == plain(state)
            check_derived(state)


@HISTORIES
@given(SEED, SIZE)
def test_walking_back_gives_the_history_that_counts(seed: int, events: int) -> None:
    """The walk from the end and the words read forwards agree at every prefix, also on a part of the history."""
    with generated(Random(seed), events, runs=1) as (made, log):
        records = list(log.read())
        for end in range(len(records) + 1):
            assert effective(records[:end]) == (history_that_counts(records[:end]), None)
        cut = made.random.randint(1, len(records) - 1)
        kept, jumped_to = effective(records[cut:])
        before = records[:cut] if jumped_to is None else [record for record in records if record.seq <= jumped_to]
        assert history_that_counts(before) + kept == history_that_counts(records)


@HISTORIES
@given(SEED, SIZE)
def test_the_list_of_runs_agrees_with_the_state_of_each(seed: int, events: int) -> None:
    """Folded from a handful of events only, after rollbacks too."""
    with generated(Random(seed), events) as (made, log):
        projector = Projector(log)
        for seq in range(1, len(made.events) + 1):
            summaries = projector.runs(seq)
            assert set(summaries) == {name for name, run in made.runs.items() if min(run.after, default=seq + 1) <= seq}
            for run_id, run in summaries.items():
                state = projector.state(run_id, seq)
                assert (run.name, run.status, run.submitted_at_us, run.started_at_us, run.ended_at_us) == (
                    state.name, state.status, state.submitted_at_us, state.started_at_us, state.ended_at_us,
                )  # fmt: skip
                assert run.cancel_requested == state.cancel_requested
                assert run.task_count == len(state.tasks)
                if state.ended and all(task.status in ENDED for task in state.tasks.values()):
                    assert run.counts == +state.counts


@HISTORIES
@given(SEED, SIZE)
def test_what_was_spent_is_never_taken_back(seed: int, events: int) -> None:
    """At every seq the cost is the sum of all charges up to there, however it is split; the unknown ones are in no sum."""
    with generated(Random(seed), events) as (made, log):
        projector = Projector(log)
        for run_id in made.runs:
            charges: list[ev.CostCharged] = []
            for seq, (charged_run, event) in enumerate(made.events, 1):
                if charged_run == run_id and isinstance(event, ev.CostCharged):
                    charges.append(event)
                if seq % 7 == 0 or seq == len(made.events):
                    spent = sum(charge.usd_micros or 0 for charge in charges)
                    unknown = {charge.attempt_id for charge in charges if charge.usd_micros is None}
                    cost, lines = projector.cost(run_id, seq), projector.bill(run_id, seq)
                    assert (cost.usd_micros, cost.by_task.total(), set(cost.unknown)) == (spent, spent, unknown)
                    assert [line.charge for line in lines] == charges
                    for by in GROUPINGS:
                        groups = grouped(lines, by).values()
                        assert sum(amount.usd_micros for amount in groups) == spent
                        assert sum(sum(amount.fates.values()) for amount in groups) == spent
                        assert sum(amount.input_tokens for amount in groups) == cost.input_tokens
                        assert set().union(*(amount.unknown for amount in groups)) == unknown


@HISTORIES
@given(SEED, SIZE)
def test_what_became_of_paid_work_agrees_with_the_timeline_and_the_states(seed: int, events: int) -> None:
    """What is useful is the last attempt of a completed task; what was undone has an undone span."""
    with generated(Random(seed), events, runs=1) as (_, log):
        records = list(log.read())
        for end in range(1, len(records) + 1):
            part = records[:end]
            fates = fates_of(part)
            spans = {span.attempt_id: span for span in timeline(part)}
            assert fates.keys() == spans.keys()
            assert fates == fates_of([record for record in part if type(record.event).__name__ in FOLDED])
            state = naive_state(log, "alpha", part[-1].seq)
            completed = {task.attempt_id for task in state.tasks.values() if task.status == "completed"}
            assert {attempt for attempt, fate in fates.items() if fate == "useful"} == completed
            for attempt_id, fate in fates.items():
                span = spans[attempt_id]
                assert (fate == "discarded") == (span.outcome == "discarded")
                if span.undone and fate != "discarded":
                    assert fate == "undone"
                if fate == "unsettled":
                    assert attempt_id in state.running


@HISTORIES
@given(SEED, SIZE)
def test_what_the_store_has_spent_is_the_same_from_rows_and_from_events(seed: int, events: int) -> None:
    """At every prefix; every attempt that holds a slot holds its reservation."""
    with generated(Random(seed), events) as (made, log):
        projector, state, occupancy = Projector(log), Spend(), Occupancy()
        for record in log.read():
            spend_fold.fold(state, record)
            occupancy_fold.fold(occupancy, record)
            assert {attempt: held.run_id for attempt, held in state.running.items()} == occupancy.slots
            assert occupancy.memory.keys() | occupancy.calls <= occupancy.slots.keys()
            if record.seq % 5 == 0 or record.seq == len(made.events):
                found, runs = projector.spend(record.seq), projector.runs(record.seq)
                # What a rollback has undone in a run that ended since is held by nobody any more.
                held = {
                    attempt: held
                    for attempt, held in state.running.items()
                    if (run := runs[held.run_id]).status not in RUN_ENDED or run.holder is not None
                }
                assert found == replace(state, running=held)
        for run_id in made.runs:
            known = projector.cost(run_id).usd_micros
            assert state.by_run[run_id] == known + state.assumed_by_run[run_id]
        assert state.by_day.total() == state.by_run.total() == state.by_task.total()


@HISTORIES
@given(SEED, SIZE)
def test_the_timeline_shows_every_attempt_once_and_marks_what_was_undone(seed: int, events: int) -> None:
    """Undone is what does not count any more: a start that was taken back, or an end that was."""
    with generated(Random(seed), events, runs=1) as (_, log):
        records = list(log.read())
        for end in range(1, len(records) + 1):
            part = records[:end]
            counting = {record.seq for record in history_that_counts(part)}
            spans = timeline(part)
            starts = [record for record in part if isinstance(record.event, ev.TaskStarted)]
            assert [(span.started_seq, span.started_at_us) for span in spans] == [(r.seq, r.at_us) for r in starts]
            for span in spans:
                ends = [
                    record
                    for record in part
                    if isinstance(
                        record.event,
                        ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.TaskCancelled | ev.AttemptLost,
                    )
                    and record.event.attempt_id == span.attempt_id
                ]
                assert len(ends) <= 1
                undone = span.started_seq not in counting or any(record.seq not in counting for record in ends)
                assert span.undone == undone
                if ends:
                    assert span.ended_at_us == ends[0].at_us


@HISTORIES
@given(SEED, SIZE)
def test_a_time_means_the_last_event_at_or_before_it(seed: int, events: int) -> None:
    """Whatever the commits were."""
    with generated(Random(seed), events) as (_, log):
        times = {row.seq: row.at_us for row in log.rows()}
        for at_us in {*times.values(), *(at + 1 for at in times.values()), *(at - 1 for at in times.values())}:
            earlier = [seq for seq, at in times.items() if at <= at_us]
            if earlier:
                assert log.seq_at(at_us) == max(earlier)
            else:
                with pytest.raises(UnknownEvent):
                    log.seq_at(at_us)
        assert moments.in_store(log, str(len(times))).seq == len(times)
