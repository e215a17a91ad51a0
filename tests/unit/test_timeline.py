"""The timeline: one span an attempt, undone work shown as undone."""

from __future__ import annotations

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.timeline import Span, timeline


def spans(*events: ev.Event) -> list[Span]:
    """The timeline of events that come ten seqs and one second apart."""
    return timeline([Recorded(10 * n, "alpha", n, n * 1_000_000, "ana", event) for n, event in enumerate(events, 1)])


QUEUED = ev.TaskQueued(task_id="dig")
STARTED = ev.TaskStarted(task_id="dig", attempt_id="one", attempt=1, runner="shell")
COMPLETED = ev.TaskCompleted(task_id="dig", attempt_id="one", duration_s=1.0)
REQUEUED = ev.TaskQueued(task_id="dig", reason="rolled_back")


def test_a_span_runs_from_its_queueing_over_its_start_to_its_end() -> None:
    """In microseconds since the epoch."""
    assert spans(QUEUED, STARTED, COMPLETED) == [
        Span("dig", "one", 1, 1_000_000, 2_000_000, 20, 3_000_000, 30, "completed", undone=False)
    ]


def test_what_still_runs_has_no_end() -> None:
    """And what only waits has no span."""
    (span,) = spans(QUEUED, STARTED, ev.TaskQueued(task_id="paint"))
    assert (span.outcome, span.ended_at_us) == ("running", None)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ev.TaskFailed(task_id="dig", attempt_id="one", duration_s=1.0, error="x"), "failed"),
        (ev.TaskTimedOut(task_id="dig", attempt_id="one", duration_s=1.0, timeout_s=1.0, error="x"), "timed_out"),
        (ev.TaskCancelled(task_id="dig", attempt_id="one"), "cancelled"),
        (ev.AttemptLost(task_id="dig", attempt_id="one", error="x"), "lost"),
        (ev.ResultDiscarded(task_id="dig", attempt_id="one", reason="x"), "discarded"),
    ],
)
def test_every_end_has_its_name(end: ev.Event, outcome: str) -> None:
    """As the command line prints it."""
    (span,) = spans(QUEUED, STARTED, end)
    assert (span.outcome, span.ended_at_us) == (outcome, 3_000_000)


def test_how_long_a_person_took_is_no_part_of_an_attempt() -> None:
    """Work that waited for an approval, or to be merged, was done before."""
    blocked = ev.TaskBlocked(task_id="dig", reason="conflict: f", attempt_id="one", commit="w")
    (span,) = spans(QUEUED, STARTED, blocked)
    assert (span.outcome, span.ended_at_us) == ("blocked", 3_000_000)
    (span,) = spans(QUEUED, STARTED, blocked, COMPLETED)
    assert (span.outcome, span.ended_at_us, span.ended_seq) == ("completed", 3_000_000, 40)


def test_each_attempt_has_a_span_that_begins_where_it_was_queued_again() -> None:
    """A retry is queued by its schedule."""
    failed = ev.TaskFailed(task_id="dig", attempt_id="one", duration_s=1.0, error="x")
    retry = ev.TaskRetryScheduled(
        task_id="dig", attempt_id="one", failures=1, not_before="1970-01-01T00:00:09Z", wait_s=5.0, jitter_s=0.0
    )
    again = ev.TaskStarted(task_id="dig", attempt_id="two", attempt=2, runner="shell")
    found = spans(QUEUED, STARTED, failed, retry, again)
    assert [(span.attempt_id, span.attempt, span.queued_at_us) for span in found] == [
        ("one", 1, 1_000_000), ("two", 2, 4_000_000),
    ]  # fmt: skip


def test_a_cancelled_task_that_never_ran_has_no_span() -> None:
    """There is no attempt."""
    assert spans(QUEUED, ev.TaskCancelled(task_id="dig")) == []


@pytest.mark.parametrize(
    ("target", "requeued", "undone"),
    [(15, [], True), (20, [REQUEUED], True), (25, [REQUEUED], True), (30, [], False), (39, [], False)],
)
def test_an_attempt_whose_start_or_end_was_taken_back_is_undone(
    target: int, requeued: list[ev.Event], undone: bool
) -> None:
    """Its end is shown all the same; an attempt that had ended by then stays."""
    (span,) = spans(QUEUED, STARTED, COMPLETED, ev.RunRolledBack(to_seq=target), *requeued, ev.RunPaused())
    assert (span.undone, span.outcome) == (undone, "completed")


def test_going_back_to_what_was_undone_brings_it_back() -> None:
    """A redo."""
    undo, redo = ev.RunRolledBack(to_seq=10), ev.RunRolledBack(to_seq=30)
    assert [span.undone for span in spans(QUEUED, STARTED, COMPLETED, undo)] == [True]
    assert [span.undone for span in spans(QUEUED, STARTED, COMPLETED, undo, redo)] == [False]


def test_a_discarded_result_is_discarded_and_not_undone() -> None:
    """Its start still counts; only nobody waits for it."""
    late = ev.ResultDiscarded(task_id="dig", attempt_id="one", reason="x")
    for more in ([], [ev.RunRolledBack(to_seq=50)]):
        (span,) = spans(QUEUED, STARTED, ev.RunRolledBack(to_seq=20), REQUEUED, ev.RunPaused(), late, *more)
        assert (span.undone, span.outcome) == (False, "discarded")
