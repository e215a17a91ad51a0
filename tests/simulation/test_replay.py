"""A state from rows is the state from events, wherever the replay begins and whatever it meets."""

from __future__ import annotations

from random import Random

import orjson
import pytest
from hypothesis import given
from test_histories import HISTORIES, SEED, SIZE, check_derived, generated, history_that_counts, plain

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError, UnknownEventType
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Brief, Recorded, decode_brief, encode
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.replay import HOT, replay
from parallel_agents.projections.status import RunState


def brief(record: Recorded) -> Brief:
    """The row of an event, as a replay reads it."""
    return record.seq, record.version, type(record.event).__name__, record.at_us, encode(record.event).decode()


def folded(log: Log, records: list[Recorded]) -> tuple[RunState, Cost]:
    """By the folds of events alone."""
    state, cost = status_fold.initial("alpha"), Cost()
    for record in records:
        state = status_fold.fold(state, record, log.blob)
        cost_fold.fold(cost, record)
    return state, cost


@HISTORIES
@given(SEED, SIZE)
def test_rows_and_events_give_the_same_state_and_cost(seed: int, events: int) -> None:
    """At every prefix, from nothing and from a state in the middle."""
    random = Random(seed)
    with generated(random, events, runs=1) as (_, log):
        counting = history_that_counts(list(log.read()))
        rows = [brief(record) for record in counting]
        for end in range(1, len(counting) + 1):
            expected_state, expected_cost = folded(log, counting[:end])
            cut = random.randint(0, end)
            for begin in {0, cut}:
                state, cost = folded(log, counting[:begin])
                state = replay(state, iter(rows[begin:end]), log.blob, cost)
                assert plain(state) == plain(expected_state)
                assert (cost, state.broken) == (expected_cost, expected_state.broken)
                assert state.touched >= expected_state.touched
                check_derived(state)


@HISTORIES
@given(SEED, SIZE)
def test_rows_and_events_go_on_in_the_same_way(seed: int, events: int) -> None:
    """Nothing that a replay leaves behind leads the folds of events astray."""
    random = Random(seed)
    with generated(random, events, runs=1) as (_, log):
        counting = history_that_counts(list(log.read()))
        cut = random.randint(0, len(counting))
        state = replay(status_fold.initial("alpha"), map(brief, counting[:cut]), log.blob)
        for record in counting[cut:]:
            state = status_fold.fold(state, record, log.blob)
        assert plain(state) == plain(folded(log, counting)[0])


@HISTORIES
@given(SEED, SIZE)
def test_a_body_that_an_older_release_wrote_is_replayed_with_its_defaults(seed: int, events: int) -> None:
    """Here without any field that stands at its own."""
    with generated(Random(seed), events, runs=1) as (_, log):
        rows = []
        for record in history_that_counts(list(log.read())):
            body = orjson.loads(encode(record.event))
            defaults = record.event.field_defaults
            shorter = {name: value for name, value in body.items() if (name, value) not in defaults.items()}
            rows.append((*brief(record)[:4], orjson.dumps(shorter).decode()))
        cost = Cost()
        state = replay(status_fold.initial("alpha"), rows, log.blob, cost)
        expected_state, expected_cost = folded(log, [decode_brief("alpha", row) for row in rows])
        assert (plain(state), cost) == (plain(expected_state), expected_cost)


@pytest.mark.parametrize("cls", HOT)
def test_what_is_read_from_bodies_has_one_schema(cls: type[ev.Event]) -> None:
    """Whoever gives one of these types a second schema version has to teach the replay the first."""
    assert cls.schema_version == 1


@pytest.mark.parametrize("cls", HOT)
def test_a_body_of_a_later_schema_is_refused(cls: type[ev.Event]) -> None:
    """By type and version, and not read as if it were of this one."""
    with generated(Random(5), 60, runs=1) as (_, log):
        first = next(log.read())
        body = '{"task_id": "t0", "schema_version": 2}'
        rows = [brief(first), (first.seq + 1, 2, cls.__name__, first.at_us, body)]
        with pytest.raises(UnknownEventType, match=f"{cls.__name__} version 2"):
            replay(status_fold.initial("alpha"), rows, log.blob, Cost())


def test_a_damaged_body_is_named_by_its_event() -> None:
    """As everywhere."""
    with generated(Random(5), 60, runs=1) as (_, log):
        first = next(log.read())
        rows = [brief(first), (77, 2, "TaskStarted", first.at_us, '{"task_id": "t0", "atte')]
        with pytest.raises(StoreError, match="event 77 of the log is damaged"):
            replay(status_fold.initial("alpha"), rows, log.blob)
