"""Questions to the history of a store: how their words are read, and which events fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from parallel_agents import history as history_module
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore import selecting
from parallel_agents.eventstore.errors import InvalidUsage, ParallelAgentsError, UnknownEvent, UnknownTask
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import from_rfc3339
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.history import Question, history
from parallel_agents.projections.projector import Projector

PLAN = Plan(name="house", workspace="none", tasks=(Task(task_id="dig"), Task(task_id="build")))
NOON_US = from_rfc3339("2026-03-01T12:00:00Z")
MINUTE_US = 60_000_000


def attempt(task_id: str, attempt_id: str, number: int, *usd_micros: int | None) -> list[ev.Event]:
    """One that is charged so much, event by event."""
    start = ev.TaskStarted(task_id=task_id, attempt_id=attempt_id, attempt=number, runner="claude")
    charges = [ev.CostCharged(task_id=task_id, attempt_id=attempt_id, usd_micros=micros) for micros in usd_micros]
    end = ev.TaskCompleted(task_id=task_id, attempt_id=attempt_id, duration_s=1.0, output=f'"{task_id}" IST ÜBEL')
    return [start, *charges, end]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Two runs; a minute lies between two events."""
    clock = iter(range(NOON_US, NOON_US + 100 * MINUTE_US, MINUTE_US))
    with Log(tmp_path / "events.db", environ={}, clock=lambda: next(clock)) as made:
        for run_id in ("alpha", "beta"):
            submitted = ev.RunSubmitted(
                name="house", plan_digest=digest_of(PLAN.to_bytes()), task_count=2, strategy="concurrent",
                workspace="none", workdir="/project",
            )  # fmt: skip
            made.append(run_id, 0, [submitted], blobs={submitted.plan_digest: PLAN.to_bytes()}, actor="cli")
            for event in attempt("dig", f"{run_id}1", 1, 600_000, 500_000) + attempt("dig", f"{run_id}2", 2, None):
                made.append(run_id, made.version(run_id), [event], actor="daemon")
            for event in attempt("build", f"{run_id}3", 1, 1_000_000):
                made.append(run_id, made.version(run_id), [event], actor="daemon")
        yield made


def seqs(log: Log, run_id: str | None = "alpha", **asked: Any) -> list[int]:
    """The events that fit."""
    more = {name: asked.pop(name) for name in ("upto", "newest") if name in asked}
    return [row.seq for row in history(log, Question(run_id, **asked), **more) if row is not None]


def refusal(log: Log, run_id: str | None = "alpha", **asked: Any) -> tuple[type, str]:
    """How a question is refused: by which error, with which hint."""
    with pytest.raises(ParallelAgentsError) as refused:
        seqs(log, run_id, **asked)
    return type(refused.value), refused.value.hint


def test_the_log_is_as_the_tests_below_take_it(log: Log) -> None:
    """Eleven events of each run."""
    types = [row.type for row in history(log, Question("alpha")) if row is not None]
    assert types == [
        "RunSubmitted", "TaskStarted", "CostCharged", "CostCharged", "TaskCompleted", "TaskStarted", "CostCharged",
        "TaskCompleted", "TaskStarted", "CostCharged", "TaskCompleted",
    ]  # fmt: skip
    assert seqs(log) == list(range(1, 12))
    assert seqs(log, None) == list(range(1, 23))


def test_what_is_asked_for_has_to_fit_all_at_once(log: Log) -> None:
    """By type, task, attempt, actor and text; of a run or of all."""
    assert seqs(log, types=("RunSubmitted", "TaskStarted")) == [1, 2, 6, 9]
    assert seqs(log, types=("TaskStarted",), task_id="dig") == [2, 6]
    assert seqs(log, None, types=("TaskStarted",), task_id="build") == [9, 20]
    assert seqs(log, attempt="alpha2") == [6, 7, 8]
    assert seqs(log, task_id="dig", attempt="2") == [6, 7, 8]
    assert seqs(log, actor="cli") == [1]
    assert seqs(log, newest=2, types=("TaskStarted",)) == [6, 9]
    assert seqs(log, upto=6, types=("TaskStarted",)) == [2, 6]


def test_a_text_is_looked_for_in_what_an_event_says_and_not_in_the_names_of_its_fields(log: Log) -> None:
    """Whatever the case, and whatever JSON makes of it."""
    assert seqs(log, text="house") == [1]
    assert seqs(log, text='"DIG" ist übel') == [5, 8]
    assert seqs(log, text="ÜBEL") == [5, 8, 11]
    assert seqs(log, text="task_id") == []
    assert seqs(log, text="600000") == [3]
    assert seqs(log, text="100%") == []
    assert seqs(log, text="a" * 60_000) == []


def test_costs_over_an_amount_are_the_charges_of_attempts_that_came_to_more_in_all(log: Log) -> None:
    """Two charges of one attempt count together; with a type, other events of such attempts."""
    assert seqs(log, cost_over_usd_micros=1_000_000) == [3, 4]
    assert seqs(log, None, cost_over_usd_micros=999_999) == [3, 4, 10, 14, 15, 21]
    assert seqs(log, cost_over_usd_micros=0) == [3, 4, 10]
    assert seqs(log, cost_over_usd_micros=1_000_000, types=("TaskCompleted",)) == [5]
    assert seqs(log, cost_over_usd_micros=1_000_000, attempt="alpha3") == []
    assert seqs(log, cost_over_usd_micros=600_000, upto=3) == []


def test_costs_are_the_same_by_the_blocks_of_a_long_log(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one attempt was charged in two blocks, and once behind the last."""
    monkeypatch.setattr(selecting.blocks, "BITS", 2)
    monkeypatch.setattr(selecting, "KEEP_EVERY", 0)
    selecting.blocks.catch_up(log)
    assert selecting.blocks.covered(log) == 20
    assert selecting.blocks.spent_by_attempt(log, 999_999) == {
        "alpha1": 1_100_000,
        "beta1": 1_100_000,
        "alpha3": 1_000_000,
    }
    assert seqs(log, None, cost_over_usd_micros=999_999) == [3, 4, 10, 14, 15, 21]
    assert seqs(log, None, cost_over_usd_micros=999_999, upto=14) == [3, 4, 10]


def test_who_asks_for_a_text_has_the_next_one_wait_for_less(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the answer, for so long as somebody waits, which is told; nobody else makes what only a text needs."""
    monkeypatch.setattr(selecting.blocks, "BITS", 2)
    monkeypatch.setattr(selecting.blocks, "_BLOCKS_AT_ONCE", 2)
    monkeypatch.setattr(selecting.blocks, "KEEP_EVERY", 0)
    monkeypatch.setattr(selecting, "KEEP_EVERY", 0)
    Projector(log).keep_up()
    assert (
        seqs(log, None, types=("RunCompleted",))
        == seqs(log, None, text="no such text")
        == seqs(log, None, text="09:15")
    )
    assert (selecting.blocks.covered(log), selecting.blocks.texts_covered(log)) == (20, 20)
    for name in ("event_blocks", "event_block_texts"):
        log._writer.execute(f"DELETE FROM {name}")
    Projector(log).keep_up()
    assert seqs(log, None, types=("RunCompleted",)) == seqs(log, None, text="09:15") == []
    assert (selecting.blocks.covered(log), selecting.blocks.texts_covered(log)) == (20, 0)
    monkeypatch.setattr(history_module, "TEXTS_S", 0.0)
    assert seqs(log, None, text="no such text") == []
    assert selecting.blocks.texts_covered(log) == 0
    monkeypatch.setattr(history_module, "TEXTS_S", 1e9)
    told: list[tuple[int, int]] = []
    question = Question(None, text="no such text")
    assert list(history(log, question, told=lambda _what, done, total: told.append((done, total)))) == []
    assert told == [(0, 20), (8, 20), (16, 20)]
    assert selecting.blocks.texts_covered(log) == 20
    told.clear()
    assert list(history(log, question, told=lambda _what, done, total: told.append((done, total)))) == []
    assert told == []


def test_a_range_is_told_by_seqs(log: Log) -> None:
    """Since and until with the event itself, after and before without it."""
    assert seqs(log, since="9") == [9, 10, 11]
    assert seqs(log, after="9") == [10, 11]
    assert seqs(log, until="2") == [1, 2]
    assert seqs(log, before="2") == [1]
    assert seqs(log, since="2", until="2") == [2]
    assert seqs(log, None, after="10", before="13") == [11, 12]
    assert seqs(log, after="22") == []
    assert refusal(log, since="5", until="3") == (InvalidUsage, "the two ends are the wrong way round")
    assert refusal(log, since="23") == (UnknownEvent, "the log holds events 1 to 22")
    assert refusal(log, until="0") == (UnknownEvent, "the log holds events 1 to 22")
    assert refusal(log, until="-1")[0] == refusal(log, since="9" * 5000)[0] == UnknownEvent


@freeze_time("2026-03-01 12:21:30", tz_offset=0)
def test_a_range_is_told_by_times_and_words(log: Log) -> None:
    """The event of 12:03 is number 4. A minute that is named is all of it."""
    assert seqs(log, since="2026-03-01T12:03:00Z", until="2026-03-01T12:04:00Z") == [4, 5]
    assert seqs(log, after="2026-03-01T12:03:00Z", before="2026-03-01T12:04:00Z") == []
    assert seqs(log, None, since="10 minutes ago") == list(range(13, 23))
    assert seqs(log, None, since="now") == []
    assert seqs(log, since="2099-01-01T00:00:00Z") == []
    assert seqs(log, None, until="2099-01-01T00:00:00Z", since="21") == [21, 22]
    assert seqs(log, until="2001-01-01T00:00:00Z") == []
    assert seqs(log, since="2001-01-01T00:00:00Z", until="1") == [1]
    assert refusal(log, since="yesteday") == (InvalidUsage, "did you mean 'yesterday'?")
    assert refusal(log, since="whenever")[1].startswith("such as 412, 14:30")
    assert refusal(log, since="999999999 weeks ago")[0] is InvalidUsage


def test_a_range_is_told_by_checkpoints(log: Log) -> None:
    """By id or label; what fits none is told as what it is not."""
    made = ev.CheckpointCreated(checkpoint_id="abcdefghij", kind="manual", label="before the flood", commit="c1")
    log.append("alpha", 11, [made, ev.RunPaused()])
    assert seqs(log, since="abcdefghij") == [23, 24]
    assert seqs(log, after="before the flood") == [24]
    assert seqs(log, None, after="before the flood") == [24]
    assert refusal(log, after="the fire")[0] is InvalidUsage


def test_wrong_names_are_refused_with_the_nearest_right_one(log: Log) -> None:
    """Types before anything is read; the others where nothing fits."""
    assert refusal(log, types=("TaskFaild",)) == (InvalidUsage, "did you mean 'TaskFailed'?")
    assert refusal(log, types=("task_failed",)) == (InvalidUsage, "did you mean 'TaskFailed'?")
    assert refusal(log, task_id="digg") == (UnknownTask, "did you mean 'dig'?")
    assert refusal(log, None, task_id="digg") == (UnknownTask, "did you mean 'dig'?")
    assert refusal(log, actor="deamon") == (InvalidUsage, "did you mean 'daemon'?")
    assert refusal(log, None, actor="deamon") == (InvalidUsage, "did you mean 'daemon'?")
    assert refusal(log, attempt="alpha9") == (UnknownEvent, "did you mean 'alpha3'?")
    assert refusal(log, None, attempt="alpha9")[0] is UnknownEvent
    assert refusal(log, attempt="2") == (InvalidUsage, "a number goes with --task and one run; an id does not")
    assert refusal(log, task_id="dig", attempt="3") == (UnknownEvent, "it has 2")
    assert seqs(log, task_id="dig", types=("TaskFailed",)) == []


def test_who_follows_gets_what_fits_until_nothing_more_can(log: Log) -> None:
    """With every filter; None says that it waits."""
    rows = history(log, Question("alpha", task_id="build", types=("TaskStarted", "TaskQueued")), newest=1, follow=True)
    first = next(rows)
    assert first is not None
    assert (first.seq, next(rows)) == (9, None)
    log.append("alpha", 11, [ev.TaskQueued(task_id="dig"), ev.TaskQueued(task_id="build")])
    log.append("beta", 11, [ev.TaskQueued(task_id="build")])
    second = next(rows)
    assert second is not None
    assert (second.seq, next(rows)) == (24, None)
    log.append("alpha", 13, [ev.RunCompleted(counts={})])
    assert [row for row in rows if row is not None] == []
    until = history(log, Question("alpha", since="24", until="28"), follow=True)
    assert [row.seq for row in until if row is not None] == [24, 26]  # That run has ended.
    past = history(log, Question(None, since="25", until="2 minutes ago"), follow=True)
    assert [row.seq for row in past if row is not None] == [25, 26]
    with pytest.raises(UnknownTask):
        next(history(log, Question("beta", task_id="none"), follow=True))
