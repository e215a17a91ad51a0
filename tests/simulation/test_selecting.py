"""Questions to generated histories: by a run's index, by the blocks and past both, the answer is what reading all of it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_histories import HISTORIES, SEED, generated, history_that_counts

from parallel_agents.eventstore import blocks, selecting
from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.of_task import TASK_INDEX
from parallel_agents.eventstore.record import Row
from parallel_agents.eventstore.selecting import Wanted, select
from parallel_agents.eventstore.task_seqs import run_ids
from parallel_agents.projections.undone import undone_spans


def texts_in(value: Any) -> Iterator[str]:
    """All that a value says."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def is_wanted(row: Row, wanted: Wanted) -> bool:
    """Word by word."""
    data = orjson.loads(row.body)
    return (
        wanted.run_id in (None, row.run_id)
        and (not wanted.types or row.type in wanted.types)
        and wanted.task_id in (None, data.get("task_id"))
        and (wanted.attempts is None or data.get("attempt_id") in wanted.attempts)
        and wanted.actor in (None, row.actor)
        and (
            wanted.text is None
            or any(wanted.text.lower() in said.lower() for value in data.values() for said in texts_in(value))
        )
        and wanted.first <= row.seq <= (wanted.last or row.seq)
        and (wanted.until_us is None or row.at_us <= wanted.until_us)
    )


def random_question(random: Random, rows: list[Row]) -> Wanted:
    """Of what is there, mostly."""
    row, other = random.choice(rows), random.choice(rows)
    data, said = orjson.loads(row.body), orjson.loads(other.body)
    often = lambda value, share=0.4: value if random.random() < share else None  # noqa: E731
    text = random.choice([*texts_in(said)] or ["nothing"])
    middle = random.randrange(len(text)) if text else 0
    first, last = sorted(random.choices([row.seq for row in rows], k=2))
    return Wanted(
        run_id=often(row.run_id),
        types=tuple({row.type, other.type}) if random.random() < 0.4 else (),
        task_id=often(data.get("task_id", "t0")),
        attempts=often(frozenset(filter(None, [data.get("attempt_id"), said.get("attempt_id")])), 0.2),
        actor=often(row.actor, 0.2) or often("nobody", 0.05),
        text=often(random.choice([text, text.upper(), text[middle:]]), 0.3),
        first=first if random.random() < 0.5 else 1,
        last=often(last, 0.5),
        until_us=often(other.at_us, 0.1),
    )


@contextmanager
def small_blocks(**more: int) -> Iterator[None]:
    """As if a few events were very many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BITS", 2)
        patch.setattr(blocks, "_BLOCKS_AT_ONCE", 3)
        for name, value in more.items():
            patch.setattr(selecting, name, value)
        yield


@HISTORIES
@given(seed=SEED, size=st.sampled_from([12, 60, 150]))
def test_every_way_to_the_events_gives_what_reading_all_of_them_gives(seed: int, size: int) -> None:
    """Oldest first, also of the newest few alone, and whatever part of the log the blocks tell of."""
    random = Random(seed)
    more = {"_ROWS_A_RUN": random.choice((1, 10**6))}  # Runs are never too many to be asked for a task, or always.
    with generated(random, size, runs=3) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0, _CHUNK=5, **more):
        if random.random() < 0.3:
            log._writer.execute(f"DROP INDEX {TASK_INDEX}")
        rows, upto = list(log.rows()), log.last_seq()
        for number in range(30):
            if number == 10:
                blocks.catch_up(log, at_most=random.randint(1, 8))
                some = iter([True] * random.randint(0, 2))
                blocks.catch_up_texts(log, goes_on=lambda _done, _end, some=some: next(some, False))
            if number == 20:
                assert blocks.catch_up(log) == upto // 4 * 4 == blocks.covered(log)
            if number == 25:
                assert blocks.catch_up_texts(log) == upto // 4 * 4 == blocks.texts_covered(log)
            wanted, end = random_question(random, rows), random.choice([upto, random.randint(1, upto)])
            expected = [row for row in rows if row.seq <= end and is_wanted(row, wanted)]
            assert list(select(log, wanted, end)) == expected, wanted
            few = random.randint(1, 6)
            assert list(select(log, wanted, end, newest=few)) == expected[-few:], wanted
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(selecting, "LONG_RUN", 10**6)
                assert list(select(log, wanted, end)) == expected, wanted
                assert list(select(log, wanted, end, newest=few)) == expected[-few:], wanted


def test_the_blocks_leave_most_of_the_log_unread() -> None:
    """Or they would be of no use."""
    with generated(Random(7), 400) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0):
        blocks.catch_up(log)
        seq = next(row.seq for row in log.rows() if row.type == "CostCharged")
        attempt = orjson.loads(log.rows_where("seq = ?", (seq,))[0].body)["attempt_id"]
        read = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Log, "rows_where", lambda *given, **_: read.append(given[2][:2]) or [])
            assert list(select(log, Wanted(attempts=frozenset({attempt})), log.last_seq())) == []
        assert 0 < sum(last - first + 1 for first, last in read) < 100


def test_of_a_task_its_events_alone_are_read() -> None:
    """Of one run and of all, found by the index of tasks; without that what the blocks do not leave out."""
    with generated(Random(7), 400) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0, _ROWS_A_RUN=1):
        own = [row for row in log.rows() if orjson.loads(row.body).get("task_id") == "t0"]
        read: list[Row] = []
        rows_where = Log.rows_where

        def noted(*given: Any, **named: Any) -> list[Row]:
            found = rows_where(*given, **named)
            read.extend(found)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Log, "rows_where", noted)
            assert list(select(log, Wanted(task_id="t0"), log.last_seq())) == own == read
            read.clear()
            assert list(select(log, Wanted(task_id="nobody"), log.last_seq())) == read == []
            few = [row for row in own if row.run_id == "alpha"][-2:]
            assert list(select(log, Wanted("alpha", task_id="t0"), log.last_seq(), newest=2)) == few == read[::-1]
        assert not selecting.worth_blocks(log, Wanted(task_id="t0"), log.last_seq())


def test_runs_that_are_too_many_are_not_asked_one_by_one() -> None:
    """Each has a price, and in a store of very many the blocks are read in its place."""
    with generated(Random(7), 200, runs=3) as (_, log):
        there = [run_id for (run_id,) in log.ask("SELECT DISTINCT run_id FROM events ORDER BY run_id")]
        assert len(there) > 2
        assert run_ids(log, len(there)) == there
        assert (run_ids(log, len(there) - 1), run_ids(log, 0)) == (None, None)


def test_no_event_is_read_for_a_text_that_none_of_them_holds() -> None:
    """But for what the blocks do not tell of; and for a part of a digest all of them are."""
    with generated(Random(7), 400) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0):
        blocks.catch_up(log)
        done = blocks.catch_up_texts(log)
        read: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Log, "rows_where", lambda *given, **_: read.extend(range(given[2][0], given[2][1] + 1)) or [])
            assert list(select(log, Wanted(text="Nothing of the kind"), log.last_seq())) == []
            assert read == list(range(done + 1, log.last_seq() + 1))
            read.clear()
            assert list(select(log, Wanted(text="c0ffee"), log.last_seq(), newest=3)) == []
            assert read == list(range(1, log.last_seq() + 1))


def test_texts_of_bodies_that_are_in_an_archive_may_be_any() -> None:
    """Whoever looks for one reads such a block, whichever of names and texts was known before the bodies went."""
    with generated(Random(7), 200) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0):
        blocks.catch_up(log)
        (seq,) = next(iter(log.ask("SELECT seq FROM events WHERE type = 'TaskCompleted' AND seq < 150")))
        log._writer.execute("UPDATE events SET body = '' WHERE seq = ?", (seq,))
        done = blocks.catch_up_texts(log)
        assert seq <= done
        read: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Log, "rows_where", lambda *given, **_: read.extend(range(given[2][0], given[2][1] + 1)) or [])
            assert list(select(log, Wanted(text="Nothing of the kind"), done)) == []
        first = (seq - 1) // 4 * 4 + 1
        assert read == list(range(first, first + 4))


def test_blocks_that_were_made_of_another_log_are_not_believed() -> None:
    """Nor added to: who finds them makes them anew."""
    with generated(Random(3), 100) as (_, log), small_blocks(LONG_RUN=0, KEEP_EVERY=0):
        done = blocks.catch_up(log)
        assert done == blocks.covered(log) > 50
        assert blocks.catch_up_texts(log) == blocks.texts_covered(log) == done
        log._writer.execute("UPDATE event_blocks SET name = 'ab' WHERE kind LIKE 'covered%'")
        log._writer.execute("DELETE FROM event_blocks WHERE kind = 'type'")
        assert (blocks.covered(log), blocks.texts_covered(log)) == (0, 0)
        wanted = Wanted(types=("TaskStarted",))
        expected = [row for row in log.rows() if row.type == "TaskStarted"]
        assert list(select(log, wanted, log.last_seq())) == expected
        assert blocks.catch_up(log) == done == blocks.covered(log)
        assert (log.ask("SELECT count(*) FROM event_block_texts"), blocks.texts_covered(log)) == ([(0,)], 0)
        assert list(select(log, wanted, log.last_seq())) == expected


def test_blocks_that_leave_something_out_are_found_and_those_that_tell_more_are_not() -> None:
    """What is known of a body stays known when it is moved to an archive."""
    with generated(Random(3), 100) as (_, log), small_blocks():
        assert blocks.left_out(log) is None
        blocks.catch_up(log)
        assert blocks.left_out(log) is None
        blocks.catch_up_texts(log)
        assert blocks.left_out(log) is None
        log._writer.execute("UPDATE events SET body = '' WHERE type = 'TaskCompleted'")
        assert blocks.left_out(log) is None
        log._writer.execute("DELETE FROM event_blocks WHERE kind = 'task' AND block = 14")
        assert blocks.left_out(log) == (49, 60)
        log._writer.execute("DROP TABLE event_blocks")
        blocks.catch_up(log)
        blocks.catch_up_texts(log)
        assert blocks.left_out(log) is None
        log._writer.execute("UPDATE event_block_texts SET marks = zeroblob(length(marks)) WHERE block = 9")
        assert blocks.left_out(log) == (37, 48)


def test_two_that_go_on_with_the_blocks_at_once_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second finds that the first was there, and writes nothing over it."""
    with generated(Random(5), 120) as (_, log), small_blocks(), Log(log.path, environ={}) as other:
        names = blocks._names

        def overtaken(one: Log, after: int, upto: int) -> Any:
            found = names(one, after, upto)
            if one is log:
                assert blocks.catch_up(other) == log.last_seq() // 4 * 4
            return found

        monkeypatch.setattr(blocks, "_names", overtaken)
        assert blocks.catch_up(log) == 0
        there = set(log.ask("SELECT kind, name, block FROM event_blocks"))
        log._writer.execute("DROP TABLE event_blocks")
        monkeypatch.setattr(blocks, "_names", names)
        blocks.catch_up(log)
        assert set(log.ask("SELECT kind, name, block FROM event_blocks")) == there


@HISTORIES
@given(seed=SEED, size=st.sampled_from([12, 60, 150]))
def test_what_rollbacks_have_undone_is_told_by_the_rollbacks_alone(seed: int, size: int) -> None:
    """The same as by walking through all events, at every moment."""
    with generated(Random(seed), size, runs=2) as (made, log):
        for run_id in made.runs:
            records = log.read_run(run_id)
            for length in range(1, len(records) + 1):
                seen = records[:length]
                counting = {record.seq for record in history_that_counts(seen)}
                spans = undone_spans(log, seen[-1].seq, run_id).get(run_id)
                undone = {record.seq for record in seen if spans is not None and spans.holds(record.seq)}
                rollbacks = {record.seq for record in seen if isinstance(record.event, RunRolledBack)}
                assert undone == {record.seq for record in seen} - counting - rollbacks
