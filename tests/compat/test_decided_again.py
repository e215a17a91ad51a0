"""What dispatchers of a release have decided is decided the same by this one.

A scheduler that would decide otherwise fails here, and is told which event of which run it is. Where that is meant, the
history is one of the past from then on: it goes to ``OTHERWISE``, with the reason, and a new one is frozen beside it.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import redecide

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.sql.gz"))
OTHERWISE = {"made_up_0_1_0": "no scheduler has decided it: it was made up event by event"}
DECIDED = {name: file for file in HISTORIES if (name := file.name.removesuffix(".sql.gz")) not in OTHERWISE}


def opened(file: Path, folder: Path) -> Log:
    """A frozen history, as a store."""
    store = folder / f"{file.name}.db"
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(gzip.decompress(file.read_bytes()).decode())
    store.chmod(0o600)
    return Log(store, create=False, environ={})


def decided(file: Path, folder: Path) -> Counter[str]:
    """How many decisions of each kind are made again, and come out the same."""
    counts: Counter[str] = Counter()
    with opened(file, folder) as log:
        for run_id in Projector(log).runs():
            verdict = redecide(log, run_id)
            assert verdict.divergence is None, f"{file.name}, run {run_id}: {verdict.divergence}"
            counts += verdict.decisions
    return counts


@pytest.mark.parametrize("name", DECIDED)
def test_every_decision_of_a_frozen_history_is_made_again_and_is_the_same(name: str, tmp_path: Path) -> None:
    """With the facts that the release recorded, and with no others."""
    counts = decided(DECIDED[name], tmp_path)
    assert counts["TaskStarted"] > 5
    assert counts["TaskQueued"] > 5


def test_all_that_a_scheduler_decides_is_among_them(tmp_path: Path) -> None:
    """All planted bugs of the scheduler that ``mutations`` has for these histories are found by this test."""
    counts: Counter[str] = Counter()
    for file in DECIDED.values():
        counts += decided(file, tmp_path)
    assert counts.keys() >= {
        "RunStarted", "TaskQueued", "TaskStarted", "TaskBlocked", "TaskSkipped", "TaskCancelled", "TaskFailed", "TaskTimedOut",
        "AttemptLost", "TaskRetryScheduled", "RunCompleted", "RunFailed", "RunCancelled", "RunPaused", "RunResumed",
        "BudgetThresholdReached", "BudgetExceeded", "ProviderLimited", "ProviderFreed", "DispatchThrottled",
        "DispatchUnthrottled",
    }  # fmt: skip


ALTERED = {
    "a rest is longer": ("TaskRetryScheduled", {"jitter_s": 0.0, "wait_s": 77.0}, "not_before"),
    "a failure more is counted": ("TaskRetryScheduled", {"failures": 9}, "failures"),
    "another task is blamed": ("TaskSkipped", {"because": "t0 or so"}, "because"),
    "a start is counted twice": ("TaskStarted", {"attempt": 9}, "attempt"),
    "an agent is given another model": ("TaskStarted", {"model": "gpt"}, "model"),
    "more is held back": ("TaskStarted", {"reserved_usd_micros": 1}, "reserved_usd_micros"),
    "slots are told that nobody held": (
        "TaskStarted",
        {"facts": {"store_slots": 3, "run_slots": 77}},
        "facts.run_slots",
    ),
    "one that was stopped was never asked to": ("TaskCancelled", {"reason": "nobody said that"}, "reason"),
    "the tasks of a run are counted wrong": ("RunCompleted", {"counts": {"completed": 99}}, "counts"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_decision_that_is_recorded_otherwise_is_named(name: str, tmp_path: Path) -> None:
    """With its event, the field, what is recorded and what is decided now; each altered event of the kind by itself."""
    type_, changed, field = ALTERED[name]
    histories = {
        "model": "decisions_on_money",
        "reserved_usd_micros": "decisions_on_money",
        "reason": "conflicts_and_forks",
    }
    file = DECIDED[f"{histories.get(field, 'decisions')}_0_1_0"]
    found = 0
    with opened(file, tmp_path) as log:
        runs = list(Projector(log).runs())
        for row in list(log.rows(where=f"type = '{type_}'")):
            body = {**json.loads(row.body), **changed}
            with closing(sqlite3.connect(log.path)) as connection, connection:
                connection.execute("UPDATE events SET body = ? WHERE seq = ?", (json.dumps(body), row.seq))
            said = [one for one in (redecide(log, run_id).divergence for run_id in runs) if one is not None]
            with closing(sqlite3.connect(log.path)) as connection, connection:
                connection.execute("UPDATE events SET body = ? WHERE seq = ?", (row.body, row.seq))
            if [(one.seq, one.type, one.field) for one in said[:1]] == [(row.seq, type_, field)]:
                assert said[0].recorded != said[0].now
                found += 1
    assert found, "no event of the kind was a decision"
