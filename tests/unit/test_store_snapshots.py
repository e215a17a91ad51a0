"""Snapshots of folds over the whole store: who leaves them, who waits for nobody, and what they do not forget."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.projections import projector as projector_module
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.store_wide import OCCUPANCY, RUNS, SPEND

SUBMITTED = ev.RunSubmitted(
    name="dig", plan_digest="0" * 64, task_count=1, strategy="concurrent", workspace="none", workdir="/"
)
STARTED = ev.TaskStarted(task_id="dig", attempt_id="one", attempt=1, runner="shell", reserved_usd_micros=7)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """One whose every event is worth a snapshot, with a run that has ended while an attempt of it was undone."""
    monkeypatch.setattr(projector_module, "KEEP_EVERY", 1)
    with Log(tmp_path / "events.db", environ={}) as made:
        made.append("alpha", 0, [SUBMITTED, ev.RunStarted(), STARTED, ev.RunCompleted(counts={})])
        yield made


def test_an_undone_attempt_of_a_run_that_has_ended_holds_nothing_until_the_run_goes_on(log: Log) -> None:
    """Whether the run is open is asked of now, not of when the snapshot was made."""
    projector = Projector(log)
    for _ in range(2):  # From nothing, then from the snapshot.
        assert (projector.occupancy().slots, projector.spend().running) == ({}, {})
    assert OCCUPANCY.newest_seq(log) == SPEND.newest_seq(log) == 4
    log.append("alpha", 4, [ev.RunResumed()])
    assert projector.occupancy().slots == {"one": "alpha"}
    assert list(projector.spend().running) == ["one"]


def test_a_fold_has_one_snapshot_and_a_look_at_the_past_leaves_none(log: Log) -> None:
    """Nor does it take away the one of the present."""
    projector = Projector(log)
    assert list(projector.runs(2)) == ["alpha"]
    assert RUNS.newest_seq(log) == 0
    projector.keep_up()
    log.append("alpha", 4, [ev.RunResumed()])
    projector.keep_up()
    projector.runs(4)
    rows = log._writer.execute("SELECT projection, seq FROM snapshots ORDER BY 1").fetchall()
    assert rows == [("occupancy", 5), ("runs", 5), ("spend", 5)]


def test_a_snapshot_waits_for_no_other_writer(log: Log) -> None:
    """A reader is not held up by a cache; it answers all the same."""
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    said: list[str] = []
    log._writer.set_trace_callback(said.append)
    assert Projector(log).runs()["alpha"].status == "completed"
    assert not log.keep_snapshot("runs", 1, 4, b"[]")
    assert said[:2] == ["PRAGMA busy_timeout = 0", "BEGIN IMMEDIATE"]
    other.execute("ROLLBACK")
    other.close()
    assert log._writer.execute("PRAGMA busy_timeout").fetchone() == (30_000,)
    assert Projector(log).runs()["alpha"].status == "completed"
    assert RUNS.newest_seq(log) == 4


def test_nothing_is_kept_in_the_middle_of_a_transaction(log: Log) -> None:
    """It would be committed or lost with what is decided there."""

    def decide(draft: object) -> None:
        assert Projector(log).runs().keys() == {"alpha"}

    log.transact(decide)
    assert RUNS.newest_seq(log) == 0


def test_what_a_snapshot_holds_has_a_version() -> None:
    """Whoever gives one of these another field has to give its snapshots another version, and then to change this."""
    held = {fold.name: (fold.version, tuple(type(fold.initial()).__dataclass_fields__)) for fold in (OCCUPANCY, SPEND)}
    assert held == {
        "occupancy": (1, ("slots", "by_run", "calls", "memory")),
        "spend": (
            1,
            (
                "by_task", "by_run", "by_day", "assumed_by_run", "unknown_by_run", "running", "rest", "told", "waits",
                "resumed", "calls", "working_s", "attempts", "at_once", "recent",
            ),
        ),
    }  # fmt: skip
    assert (RUNS.version, tuple(RunSummary.__dataclass_fields__)) == (
        1,
        (
            "run_id", "name", "status", "strategy", "task_count", "submitted_at_us", "seq", "started_at_us", "ended_at_us",
            "counts", "holder", "epoch", "callables", "left", "cancel_requested", "parent", "history",
        ),
    )  # fmt: skip
