"""The list of runs, and how a moment of the past is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import UnknownEvent, UnknownRun
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.moments import in_store
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary, fold_all

NOON_US = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z
PLAN = Plan(name="house", tasks=(Task(task_id="dig"),))
SUBMITTED = ev.RunSubmitted(
    name="house", plan_digest=digest_of(PLAN.to_bytes()), task_count=1, strategy="concurrent", workspace="shared",
    workdir="/project",
)  # fmt: skip
HOLDER = {"pid": 7, "kind": "daemon"}
STARTED = ev.TaskStarted(task_id="dig", attempt_id="one", attempt=1, runner="shell")
DONE = ev.TaskCompleted(task_id="dig", attempt_id="one", duration_s=1.0)


def summary(*events: ev.Event) -> RunSummary:
    """One run after its submission and some events, one a microsecond."""
    records = [Recorded(n, "alpha", n, n, "ana", event) for n, event in enumerate([SUBMITTED, *events], 1)]
    return fold_all(records)["alpha"]


@pytest.mark.parametrize(
    ("events", "status", "started_at_us", "ended_at_us"),
    [
        ([], "submitted", None, None),
        ([ev.RunStarted()], "running", 2, None),
        ([ev.RunStarted(), ev.RunPaused()], "paused", 2, None),
        ([ev.RunPaused(), ev.RunResumed()], "submitted", None, None),
        ([ev.RunStarted(), ev.RunCompleted(counts={"completed": 1})], "completed", 2, 3),
        ([ev.RunStarted(), ev.RunFailed(counts={"failed": 1})], "failed", 2, 3),
        ([ev.RunStarted(), ev.RunCancelled(counts={"cancelled": 1}), ev.RunResumed()], "running", 2, None),
        ([ev.RunStarted(), ev.RunRolledBack(to_seq=1), ev.RunPaused()], "paused", None, None),
        ([ev.RunStarted(), ev.RunRolledBack(to_seq=1), ev.RunPaused(), ev.RunResumed()], "submitted", None, None),
        ([ev.RunStarted(), ev.RunCompleted(counts={}), ev.RunRolledBack(to_seq=2)], "running", 2, None),
        ([ev.RunStarted(), ev.RunRolledBack(to_seq=1), ev.RunRolledBack(to_seq=2)], "running", 2, None),
    ],
)
def test_a_run_is_listed_as_it_stands(
    events: list[ev.Event], status: str, started_at_us: int | None, ended_at_us: int | None
) -> None:
    """After rollbacks too, and after a rollback of a rollback."""
    run = summary(*events)
    assert (run.status, run.started_at_us, run.ended_at_us) == (status, started_at_us, ended_at_us)
    assert (run.seq, run.submitted_at_us, run.name, run.task_count) == (len(events) + 1, 1, "house", 1)


def test_a_wish_to_cancel_is_taken_back_with_what_followed_it() -> None:
    """The run goes on from where nobody had asked."""
    asked = [ev.RunStarted(), ev.RunCancelRequested()]
    assert summary(*asked).cancel_requested
    assert not summary(*asked, ev.RunRolledBack(to_seq=2)).cancel_requested
    assert summary(*asked, ev.RunRolledBack(to_seq=2), ev.RunRolledBack(to_seq=3)).cancel_requested


def test_a_holder_is_not_taken_back_by_a_rollback() -> None:
    """It is a process, not a state; it is released by its own epoch only."""
    claimed = ev.RunClaimed(holder=HOLDER, epoch=3)
    assert summary(claimed, ev.RunStarted(), ev.RunRolledBack(to_seq=1)).holder == HOLDER
    assert summary(claimed, ev.RunReleased(epoch=2)).holder == HOLDER
    assert summary(claimed, ev.RunReleased(epoch=3)).holder is None


def test_a_run_is_left_until_somebody_takes_it() -> None:
    """What becomes of it then has nothing to do with who left it, also where it is opened again after its end."""
    claimed = ev.RunClaimed(holder=HOLDER, epoch=1)
    assert summary(claimed, ev.RunReleased(epoch=1, left=True)).left
    assert not summary(claimed, ev.RunReleased(epoch=2, left=True)).left
    assert not summary(claimed, ev.RunReleased(epoch=1)).left
    taken = [claimed, ev.RunReleased(epoch=1, left=True), ev.RunClaimed(holder=HOLDER, epoch=2)]
    assert not summary(*taken, ev.RunFailed(counts={}), ev.RunResumed()).left


def test_events_of_a_run_that_was_never_submitted_list_nothing() -> None:
    """Such as those of the store itself."""
    assert fold_all([Recorded(1, "store", 1, 1, "ana", ev.RunPaused())]) == {}


def test_slots_are_held_from_start_to_end(tmp_path: Path) -> None:
    """As of now and as of any seq, over all runs that have not ended."""
    with Log(tmp_path / "events.db") as log:
        projector = Projector(log)
        for run_id in ("alpha", "beta"):
            log.append(run_id, 0, [SUBMITTED, ev.RunClaimed(holder=HOLDER, epoch=1), ev.RunStarted()])
        log.append("alpha", 3, [STARTED])
        log.append("alpha", 4, [ev.RunRolledBack(to_seq=7), ev.TaskQueued(task_id="dig", reason="rolled_back")])
        held = projector.occupancy()
        assert (held.slots, held.of_run("alpha"), held.of_run("beta")) == ({"one": "alpha"}, 1, 0)
        log.append("alpha", 6, [ev.ResultDiscarded(task_id="dig", attempt_id="one", reason="undone")])
        assert projector.occupancy().of_run("alpha") == 0
        assert projector.occupancy(upto=8).of_run("alpha") == 1
        assert Occupancy().of_run("gamma") == 0


@pytest.fixture
def projector(tmp_path: Path) -> Iterator[Projector]:
    """A log of five events in two runs, one commit a second from noon on."""
    clock = iter(range(NOON_US, NOON_US + 10**9, 10**6))
    with Log(tmp_path / "events.db", clock=lambda: next(clock)) as log:
        blobs = {SUBMITTED.plan_digest: PLAN.to_bytes()}
        log.append("alpha", 0, [SUBMITTED, ev.RunStarted()], blobs=blobs)
        log.append("beta", 0, [SUBMITTED], blobs=blobs)
        log.append("alpha", 2, [ev.RunPaused(), ev.RunResumed()])
        yield Projector(log)


@pytest.mark.parametrize(
    ("text", "seq"),
    [
        ("1", 1), ("5", 5), ("2026-03-01T12:00:00Z", 2), ("2026-03-01T12:00:00.999999Z", 2), ("2026-03-01T13:00:01+01:00", 3),
        ("2026-03-01 12:00:02Z", 5),
    ],
)  # fmt: skip
def test_a_moment_is_a_seq_or_a_time(projector: Projector, text: str, seq: int) -> None:
    """The last event at or before the time."""
    assert in_store(projector.log, text).seq == seq


def test_a_moment_without_a_zone_is_local(projector: Projector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reader is."""
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    try:
        assert in_store(projector.log, "2026-03-01T14:00:01").seq == 3
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "no event 0"), ("6", "no event 6"), ("99999999999999999999", "no event 99999999999999999999"),
        ("9" * 5000, "no event 9{40}$"), ("-1", "no event -1"), ("2026-03-01T11:59:59Z", "at or before"),
    ],
)  # fmt: skip
def test_a_moment_that_is_not_in_the_log_is_refused(projector: Projector, text: str, message: str) -> None:
    """With exit code 3, and what there is."""
    with pytest.raises(UnknownEvent, match=message) as caught:
        in_store(projector.log, text)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_an_empty_log_has_no_moment(tmp_path: Path) -> None:
    """Neither by number nor by time."""
    with Log(tmp_path / "events.db") as log:
        for text in ("1", "2026-03-01T12:00:00Z"):
            with pytest.raises(UnknownEvent):
                in_store(log, text)


def test_a_run_that_is_not_there_is_named_with_the_nearest_that_is(projector: Projector) -> None:
    """Also one that was not there yet at that event."""
    with pytest.raises(UnknownRun, match="no run 'alhpa'") as caught:
        projector.state("alhpa")
    assert "'alpha'" in caught.value.hint
    with pytest.raises(UnknownRun, match="run beta had not begun at event 2"):
        projector.view("beta", 2)
    with pytest.raises(UnknownRun):
        projector.records("gamma")
    assert projector.view("beta", 3).state.status == "submitted"
    assert len(projector.records("alpha")) == 4


def test_a_snapshot_of_another_version_of_the_fold_is_not_read(projector: Projector) -> None:
    """Nor one of another projection; a snapshot is only a cache."""
    before = projector.state("alpha")
    projector.log.save_snapshot("alpha", "status", 0, 5, b"not even JSON")
    projector.log.save_snapshot("alpha", "cost", 1, 5, b"not even JSON")
    assert projector.state("alpha") == before
