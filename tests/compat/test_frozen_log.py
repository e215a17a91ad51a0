"""The log of every release that is out replays for ever. A test here is never adapted to the code, only added to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import missing_blobs, verify_rows
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode, decode_validated
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.timeline import timeline

FROZEN = sorted(Path(__file__).parent.glob("frozen_*.sql"))


def thawed(file: Path, folder: Path) -> Path:
    """The store as it was on the day of its release."""
    store = folder / "events.db"
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(file.read_text(encoding="utf-8"))
    return store


@pytest.fixture(params=FROZEN, ids=lambda file: file.stem)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """The store of each release, opened by this one."""
    with Log(thawed(request.param, tmp_path), create=False, environ={}) as log:
        yield log


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Log]:
    """The store of release 0.1.0."""
    with Log(thawed(Path(__file__).with_name("frozen_0_1_0.sql"), tmp_path), create=False, environ={}) as log:
        yield log


def test_every_event_of_every_release_can_be_read(frozen: Log) -> None:
    """By the hot way and by the strict one, to the same event."""
    rows = list(frozen.rows())
    assert len(rows) > 20
    for row in rows:
        assert decode(row).event.model_dump() == decode_validated(row).event.model_dump(), row.seq


def test_every_state_of_every_release_can_be_folded(frozen: Log) -> None:
    """At every seq of every run."""
    projector = Projector(frozen)
    for row in frozen.rows():
        for run_id in projector.runs(row.seq):
            assert projector.view(run_id, row.seq).state.tasks


def test_the_chain_of_every_release_holds_and_goes_on(frozen: Log) -> None:
    """Old events are verified as stored, and new ones follow them."""
    before = verify_rows(frozen.rows())
    assert before.broken is None
    frozen.append("store", len(frozen.run_rows("store")), [ev.DispatchUnthrottled()])
    after = verify_rows(frozen.rows())
    assert (after.broken, after.events) == (None, before.events + 1)


def test_release_0_1_0_reads_as_it_was_written(first: Log) -> None:
    """Its chain's head, its plan and the number of its types."""
    verdict = verify_rows(first.rows())
    assert verdict == (51, "618b394989fc263235c9822fc557ba78eaf7757f4464e02b9898bb0dfc1ad6e9", None)
    digests = {record.event.plan_digest for record in first.read() if isinstance(record.event, ev.RunSubmitted)}
    assert len(digests) == 1
    assert missing_blobs(digests, first.blob) == []
    assert len({row.type for row in first.rows()}) == 36


def test_the_runs_of_release_0_1_0_stand_as_they_stood(first: Log) -> None:
    """Statuses, attempts, failures and money after a rollback, and before it."""
    projector = Projector(first)

    def shown(upto: int | None) -> dict[str, tuple[str, int, int]]:
        state = projector.state("alphaalpha", upto)
        return {name: (task.status, task.attempts, task.failures) for name, task in state.tasks.items()}

    assert shown(None) == {
        "dig": ("completed", 1, 0), "lint": ("failed", 2, 2), "build": ("pending", 2, 0), "paint": ("pending", 0, 0),
    }  # fmt: skip
    assert shown(22) == {
        "dig": ("completed", 1, 0), "lint": ("failed", 2, 2), "build": ("running", 1, 0), "paint": ("pending", 0, 0),
    }  # fmt: skip
    state = projector.state("alphaalpha")
    assert (state.status, state.stage_failed, state.stage_open) == ("running", {}, [0, 2])
    assert state.tasks["dig"].output == {"made": ["Grube", None, 2.5]}
    assert state.tasks["dig"].task.description == "Grab — tief"
    assert projector.cost("alphaalpha").usd_micros == 1_500_000
    assert [(span.attempt_id, span.outcome) for span in timeline(projector.records("alphaalpha"))] == [
        ("adig000001", "completed"), ("alint00001", "failed"), ("alint00002", "timed_out"), ("abuild0001", "discarded"),
        ("abuild0002", "lost"),
    ]  # fmt: skip
    assert {name: run.status for name, run in projector.runs().items()} == {
        "alphaalpha": "running", "betabetabe": "cancelled",
    }  # fmt: skip
