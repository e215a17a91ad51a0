"""Histories that dispatchers of a release have made, with failures, deaths, conflicts, rollbacks, forks and costs.

Every projection says of them for ever what it said on the day they were frozen, at every event. A test here is never adapted
to the code, and no file in ``histories`` is ever made again; new ones are added beside them (``freeze_histories.py``).
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from frozen_views import digests, plain, run_view, store_view

from parallel_agents.eventstore.chain import missing_blobs, verify_rows
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.sql.gz"))


class Frozen(NamedTuple):
    """One history, opened by this release, and what was known of it."""

    log: Log
    expected: dict[str, Any]


@pytest.fixture(params=HISTORIES, ids=lambda file: file.name.removesuffix(".sql.gz"))
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Frozen]:
    """Each of them."""
    store, file = tmp_path / "events.db", request.param
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(gzip.decompress(file.read_bytes()).decode())
    store.chmod(0o600)
    expected = json.loads(file.with_name(file.name.replace(".sql.gz", ".json")).read_text())
    with Log(store, create=False, environ={}) as log:
        yield Frozen(log, expected)


def test_there_are_histories_and_what_they_hold_is_enough() -> None:
    """What must replay for ever is among it: failures, conflicts, rollbacks, forks, costs, leases that changed hands."""
    assert len(HISTORIES) >= 5
    types: set[str] = set()
    for file in HISTORIES:
        types |= set(json.loads(file.with_name(file.name.replace(".sql.gz", ".json")).read_text())["types"])
    assert types >= {
        "TaskFailed", "TaskTimedOut", "AttemptLost", "TaskRetryScheduled", "ResultDiscarded", "TaskSkipped", "TaskBlocked",
        "ConflictDetected", "ConflictResolved", "RunRolledBack", "RunForked", "CostCharged", "BudgetExceeded",
        "ProviderLimited", "CheckpointCreated", "RunClaimed", "RunReleased", "DispatchThrottled", "WorkersScaled",
    }  # fmt: skip


def test_the_chain_is_what_it_was(frozen: Frozen) -> None:
    """To its head; the plans are there."""
    verdict = verify_rows(frozen.log.rows())
    assert verdict == (frozen.expected["events"], frozen.expected["head"], None)
    plans = {record.event.plan_digest for record in frozen.log.read() if hasattr(record.event, "plan_digest")}
    assert missing_blobs(plans, frozen.log.blob) == []


def test_every_projection_is_what_it_was(frozen: Frozen) -> None:
    """In full at the end, where a difference can be read."""
    end = frozen.expected["events"]
    assert plain(store_view(frozen.log, end)) == frozen.expected["store"]
    for run_id, expected in frozen.expected["runs"].items():
        found = plain(run_view(frozen.log, run_id, end))
        assert {name: found[name] for name in expected} == expected, run_id


def test_every_projection_is_what_it_was_at_every_event(frozen: Frozen) -> None:
    """By digest; the first event that differs is named, and which projection of it."""
    for seq, (found, expected) in enumerate(zip(digests(frozen.log), frozen.expected["digests"], strict=True), 1):
        assert found == expected, f"event {seq}: {sorted({*found.split()} - {*expected.split()})}"


def test_snapshots_change_nothing_about_it(frozen: Frozen) -> None:
    """Made at every tenth event by this release, which knows more fields than the one that wrote the history."""
    projector = Projector(frozen.log)
    for seq in range(10, frozen.expected["events"], 10):
        for run_id in projector.runs(seq):
            projector.save_snapshot(projector.state(run_id, seq))
    for run_id in frozen.expected["runs"]:
        with_snapshots = projector.state(run_id)
        from_nothing = Projector(frozen.log, use_snapshots=False).state(run_id)
        assert (with_snapshots.status, with_snapshots.counts, with_snapshots.tasks) == (
            from_nothing.status, from_nothing.counts, from_nothing.tasks,
        )  # fmt: skip
