"""Commands become events, or an error that says what to do instead."""

from __future__ import annotations

from typing import Any

import pytest
from paper import SECOND_US, PaperRun, ended, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, UnknownTask
from parallel_agents.eventstore.record import encode
from parallel_agents.eventstore.submission import RetryPolicy, Stage
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.plan import Facts


def running(**fields: Any) -> PaperRun:
    """One task, running."""
    run = PaperRun(plan_of(task("a", **fields)))
    run.tick()
    return run


def end(run: PaperRun, error: str | None = None, *, draw: float = 0.0, **fields: Any) -> list[ev.Event]:
    """What the end of its attempt means."""
    return decide.decide_end(run.state, ended("a1", error, **fields), run.now_us, draw)


def test_a_start_records_the_facts_it_was_decided_on() -> None:
    """So that a replay can check it."""
    run = running()
    run.end("a", error="exit code 1")
    assert decide.decide_start(run.state, "a", "x", "shell", Facts(7, 2)) == ev.TaskStarted(
        task_id="a", attempt_id="x", attempt=2, runner="shell", facts={"store_slots": 7, "run_slots": 2}
    )


def test_an_attempt_that_exits_without_error_completes_its_task() -> None:
    """With all that was measured."""
    found = end(running(), output="done", cpu_s=0.5, peak_memory_bytes=4096)
    assert found == [
        ev.TaskCompleted(
            task_id="a", attempt_id="a1", duration_s=1.0, exit_code=0, output="done", cpu_s=0.5, peak_memory_bytes=4096
        )
    ]


def test_a_failed_attempt_is_followed_by_another_after_a_rest() -> None:
    """In the same decision. The jitter is the draw's share of a tenth of the wait, and it is recorded."""
    failed, retry = end(running(), "exit code 1: no", exit_code=1, draw=0.5)
    assert failed == ev.TaskFailed(
        task_id="a", attempt_id="a1", duration_s=1.0, error="exit code 1: no", exit_code=1, retryable=True
    )
    assert retry == ev.TaskRetryScheduled(
        task_id="a", attempt_id="a1", failures=1, not_before="1970-01-01T00:01:45.250000Z", wait_s=5.25, jitter_s=0.25
    )


def test_an_attempt_that_took_too_long_or_was_lost_is_tried_again_too() -> None:
    """Each by its own event."""
    timed_out, retry = end(running(timeout_s=1.5), "timed out", outcome="timed_out", exit_code=-15)
    assert timed_out == ev.TaskTimedOut(
        task_id="a", attempt_id="a1", duration_s=1.0, timeout_s=1.5, error="timed out after 1.5 s"
    )
    assert isinstance(retry, ev.TaskRetryScheduled)
    lost, retry = end(running(), outcome="lost", exit_code=None)
    assert lost == ev.AttemptLost(task_id="a", attempt_id="a1", error="its process vanished and left no result")
    assert isinstance(retry, ev.TaskRetryScheduled)


def test_an_attempt_that_never_began_is_no_failure_of_its_task() -> None:
    """Its dispatcher died before the start: the task is tried again at once, even one that must not be retried."""
    run = running(max_retries=0)
    lost, retry = end(run, "it never began", outcome="lost", exit_code=None, began=False)
    assert lost == ev.AttemptLost(task_id="a", attempt_id="a1", error="it never began", began=False)
    assert retry == ev.TaskRetryScheduled(
        task_id="a", attempt_id="a1", failures=0, not_before="1970-01-01T00:01:40.000000Z", wait_s=0.0, jitter_s=0.0
    )
    run.add(lost, retry)
    assert run.tick() == ["a"]
    assert (run.state.tasks["a"].attempts, run.state.tasks["a"].failures) == (2, 0)
    run.end("a", error="exit code 1")
    assert run.statuses() == {"a": "failed"}


@pytest.mark.parametrize(
    ("fields", "given"),
    [({"max_retries": 0}, {}), ({}, {"retryable": False}), ({}, {"outcome": "not_started", "retryable": False})],
)
def test_some_failures_are_for_good(fields: dict[str, Any], given: dict[str, Any]) -> None:
    """No retries left, or the next attempt would fail the same way."""
    found = end(running(**fields), "no such command", **given)
    assert [type(one) for one in found] == [ev.TaskFailed]


def test_a_task_is_tried_once_and_as_often_again_as_it_may() -> None:
    """Then it has failed."""
    run = PaperRun(plan_of(task("a", max_retries=2), retry=RetryPolicy(delay_s=0)))
    for _ in range(3):
        assert run.tick() == ["a"]
        run.end("a", error="exit code 1")
    assert run.tick() == []
    assert run.statuses() == {"a": "failed"}


def test_a_clock_that_went_back_during_an_attempt_makes_no_negative_duration() -> None:
    """It took no time then."""
    early = ended("a1")
    run = running()
    found = decide.decide_end(
        run.state, type(early)("a1", "exited", 0, started_at_us=9, ended_at_us=3), run.now_us, 0.0
    )
    assert [one.duration_s for one in found if isinstance(one, ev.TaskCompleted)] == [0.0]


@pytest.mark.parametrize("outcome", ["stopped", "timed_out", "lost", "not_started"])
@pytest.mark.parametrize("whole_run", [False, True])
def test_an_attempt_that_was_to_be_cancelled_is_cancelled_however_it_ended(outcome: str, whole_run: bool) -> None:
    """No retry follows, and the reason is the one that was given."""
    run = running()
    run.add(
        ev.RunCancelRequested(reason="enough") if whole_run else ev.TaskCancelRequested(task_id="a", reason="enough")
    )
    assert end(run, "stopped", outcome=outcome, cpu_s=0.5) == [
        ev.TaskCancelled(task_id="a", attempt_id="a1", reason="enough", duration_s=1.0, cpu_s=0.5)
    ]


def test_an_attempt_that_failed_by_itself_while_it_was_being_cancelled_is_cancelled() -> None:
    """Nobody can tell its exit code from the stop's; one that succeeded all the same has succeeded."""
    run = running()
    run.add(ev.TaskCancelRequested(task_id="a"))
    assert [type(one) for one in end(run, "exit code 1")] == [ev.TaskCancelled]
    assert [type(one) for one in end(run)] == [ev.TaskCompleted]


def test_the_reason_of_a_pause_is_not_the_reason_of_a_cancelled_task() -> None:
    """It was cancelled without one."""
    run = running()
    run.add(ev.RunPaused(reason="lunch"), ev.TaskCancelRequested(task_id="a"))
    assert end(run, "stopped", outcome="stopped") == [
        ev.TaskCancelled(task_id="a", attempt_id="a1", reason="", duration_s=1.0)
    ]


def test_the_wish_to_cancel_a_task_that_succeeded_leaves_no_trace_on_it() -> None:
    """It shows no reason why it was cancelled: it was not."""
    run = running()
    run.add(ev.TaskCancelRequested(task_id="a", reason="enough"))
    run.end("a")
    assert (run.state.tasks["a"].status, run.state.tasks["a"].reason) == ("completed", "")


def test_a_stop_that_nobody_asked_for_in_the_log_is_a_failure() -> None:
    """It is tried again like any other."""
    failed, retry = end(running(), None, outcome="stopped", exit_code=None)
    assert (type(failed), type(retry)) == (ev.TaskFailed, ev.TaskRetryScheduled)
    assert failed == ev.TaskFailed(task_id="a", attempt_id="a1", duration_s=1.0, error="stopped")


def test_a_text_that_is_no_unicode_can_be_stored() -> None:
    """Names of files may be any bytes, and errors quote them."""
    for found in (*end(running(), "no such file: \udcff.txt"), *end(running(), output="\udcff")):
        assert encode(found)
    assert end(running(), "no such file: \udcff.txt")[0] == ev.TaskFailed(
        task_id="a", attempt_id="a1", duration_s=1.0, error="no such file: \\udcff.txt", exit_code=1
    )
    run = PaperRun(plan_of(task("a")))
    for events in (
        decide.decide_pause(run.state, "\udcff"),
        decide.decide_cancel(run.state, "\udcff"),
        decide.decide_cancel_task(run.state, "a", "\udcff"),
    ):
        assert all(encode(event) for event in events)


def finish(run: PaperRun) -> ev.Event | None:
    """Its end, if it has come."""
    return decide.decide_finish(run.state)


def test_a_run_ends_when_all_of_its_tasks_have_ended_and_not_before() -> None:
    """Whatever still waits, runs or is blocked keeps it open."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a"), task("d"), max_parallel_agents=2))
    for _ in range(2):
        assert finish(run) is None
        run.tick()
        assert finish(run) is None
        run.end(*run.state.running.values())
    assert run.statuses() == dict.fromkeys("abcd", "completed")
    assert finish(run) == ev.RunCompleted(counts={"completed": 4})
    run = PaperRun(plan_of(task("a")), ev.TaskBlocked(task_id="a", reason="approval"))
    assert finish(run) is None


def test_a_run_that_has_ended_does_not_end_again() -> None:
    """Its end is in the log already."""
    run = running()
    run.end("a")
    run.add(ev.RunCompleted(counts={"completed": 1}))
    assert finish(run) is None


def test_a_run_whose_only_failures_were_allowed_has_completed() -> None:
    """Cancelled tasks that nothing needed do not fail it either."""
    run = PaperRun(plan_of(task("a", allow_failure=True), task("b", "a"), task("c")), ev.TaskCancelled(task_id="c"))
    run.tick()
    run.fail("a")
    run.run_to_its_end()
    assert finish(run) == ev.RunCompleted(counts={"completed": 1, "failed": 1, "cancelled": 1})


def test_a_run_with_a_failed_or_skipped_task_has_failed() -> None:
    """It names those that failed."""
    run = PaperRun(plan_of(task("a"), task("b", "a")))
    run.tick()
    run.fail("a")
    run.tick()
    assert finish(run) == ev.RunFailed(counts={"failed": 1, "skipped": 1}, failed=["a"])
    run = PaperRun(plan_of(task("a"), task("b", "a")), ev.TaskCancelled(task_id="a"))
    run.tick()
    assert finish(run) == ev.RunFailed(counts={"cancelled": 1, "skipped": 1})


def test_a_cancelled_run_ends_as_cancelled_and_one_out_of_time_as_failed() -> None:
    """Once what ran has been stopped."""
    for reason, expected in (
        ("enough", ev.RunCancelled(counts={"cancelled": 2}, reason="enough")),
        (decide.MAX_EXECUTION, ev.RunFailed(counts={"cancelled": 2}, reason=decide.MAX_EXECUTION)),
    ):
        run = PaperRun(plan_of(task("a"), task("b", "a")))
        run.tick()
        run.add(ev.RunCancelRequested(reason=reason))
        run.tick()
        assert finish(run) is None
        run.end("a", outcome="stopped", error="stopped")
        assert finish(run) == expected


def test_a_paused_run_ends_if_there_is_nothing_left_to_start() -> None:
    """Nobody has to resume it for that."""
    run = running()
    run.add(ev.RunPaused())
    run.end("a")
    assert finish(run) == ev.RunCompleted(counts={"completed": 1})


def test_a_run_is_stopped_when_it_has_run_as_long_as_it_may() -> None:
    """Never while it is paused, and only once."""
    run = PaperRun(plan_of(task("a"), max_execution_s=10.0))
    assert decide.time_left_us(run.state, 4 * SECOND_US) == 6 * SECOND_US
    assert decide.decide_overdue(run.state, 10 * SECOND_US - 1) is None
    stop = ev.RunCancelRequested(reason=decide.MAX_EXECUTION, facts={"used_s": 10.0})
    assert decide.decide_overdue(run.state, 10 * SECOND_US) == stop
    run.add(ev.RunPaused())
    assert decide.decide_overdue(run.state, 999 * SECOND_US) is None
    run.now_us = 200 * SECOND_US
    run.add(ev.RunResumed())
    assert decide.time_left_us(run.state, 0) == 10 * SECOND_US
    run.add(ev.RunCancelRequested())
    assert decide.decide_overdue(run.state, 999 * SECOND_US) is None
    assert decide.time_left_us(PaperRun(plan_of(task("a")), started=False).state, 0) is None


def stuck(run: PaperRun) -> bool:
    """Whether only a person can go on."""
    return decide.is_stuck(run.state)


def test_a_paused_run_is_stuck_once_nothing_runs() -> None:
    """Not while something runs, not while it is being cancelled, not once it has ended."""
    run = running()
    run.add(ev.RunPaused())
    assert not stuck(run)
    run.end("a", error="exit code 1")
    assert stuck(run)
    run.add(ev.RunCancelRequested())
    assert not stuck(run)
    run = PaperRun(plan_of(task("a")), ev.RunPaused(), ev.RunCompleted(counts={}))
    assert not stuck(run)


def test_a_run_is_stuck_when_all_that_is_left_waits_for_a_person() -> None:
    """Or for such a task, by dependency or by stage."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c"), task("d", stage=1), stages=stages))
    run.add(ev.TaskBlocked(task_id="a", reason="approval"))
    assert not stuck(run)
    run.tick()
    assert not stuck(run)
    run.end("c", error="exit code 1")
    assert not stuck(run)
    run.now_us += 10 * SECOND_US
    run.tick()
    run.end("c")
    run.tick()
    assert run.statuses() == {"a": "blocked", "b": "pending", "c": "completed", "d": "pending"}
    assert stuck(run)
    run.add(ev.TaskUnblocked(task_id="a"))
    assert not stuck(run)


def test_a_run_that_merely_waits_is_not_stuck() -> None:
    """For a slot, a retry or a dispatcher."""
    assert not stuck(PaperRun(plan_of(task("a")), started=False))
    run = PaperRun(plan_of(task("a"), task("b"), max_parallel_agents=1))
    run.tick()
    run.end("a", error="exit code 1")
    run.tick()
    run.end("b")
    assert run.tick() == []
    assert not stuck(run)


def refused(call: Any, *given: Any, **named: Any) -> str:
    """The message of a refusal, and its hint."""
    with pytest.raises(NotAllowed) as caught:
        call(*given, **named)
    return f"{caught.value.message} ({caught.value.hint})"


ENDED_RUN = PaperRun(plan_of(task("a")), ev.TaskCancelled(task_id="a"), ev.RunCancelled(counts={}))


def test_a_run_is_paused_and_resumed_once() -> None:
    """A second time says how things stand."""
    run = PaperRun(plan_of(task("a")))
    assert "is not paused: it is running" in refused(decide.decide_resume, run.state)
    assert decide.decide_pause(run.state, "lunch") == [ev.RunPaused(reason="lunch")]
    run.add(ev.RunPaused())
    assert "is paused already (`parallel-agents resume paper` goes on)" in refused(decide.decide_pause, run.state)
    assert decide.decide_resume(run.state, "back") == [ev.RunResumed(reason="back")]
    for command, word in ((decide.decide_pause, "paused"), (decide.decide_resume, "resumed")):
        assert f"has ended and cannot be {word}: it is cancelled" in refused(command, ENDED_RUN.state)


def test_a_run_that_is_being_cancelled_is_neither_paused_nor_resumed_nor_retried() -> None:
    """Or the cancellation, which somebody has been told of, would be lost."""
    run = running()
    run.add(ev.RunPaused(), ev.RunCancelRequested())
    for command in (decide.decide_pause, decide.decide_resume, decide.decide_retry):
        assert "is being cancelled" in refused(command, run.state)


def test_a_run_is_cancelled_once_unless_it_shall_go_faster() -> None:
    """The emergency stop is always heard."""
    run = running()
    assert decide.decide_cancel(run.state, "enough") == [ev.RunCancelRequested(reason="enough", grace_s=3.0)]
    run.add(ev.RunCancelRequested())
    assert "is being cancelled already" in refused(decide.decide_cancel, run.state)
    assert decide.decide_cancel(run.state, "now", grace_s=0.0) == [ev.RunCancelRequested(reason="now", grace_s=0.0)]
    assert "has ended" in refused(decide.decide_cancel, ENDED_RUN.state)


def test_a_task_is_cancelled_at_once_unless_it_runs() -> None:
    """Then its attempt has to be stopped first. One wish is enough."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a"), max_parallel_agents=1))
    run.tick()
    for name in "bc":
        assert decide.decide_cancel_task(run.state, name, "no") == [ev.TaskCancelled(task_id=name, reason="no")]
    assert decide.decide_cancel_task(run.state, "a", "no") == [ev.TaskCancelRequested(task_id="a", reason="no")]
    run.add(ev.TaskCancelRequested(task_id="a"))
    assert "is being cancelled already" in refused(decide.decide_cancel_task, run.state, "a")
    run.end("a")
    assert "has ended already: it is completed" in refused(decide.decide_cancel_task, run.state, "a")
    assert "has ended" in refused(decide.decide_cancel_task, ENDED_RUN.state, "a")
    with pytest.raises(UnknownTask, match="has no task 'd'"):
        decide.decide_cancel_task(run.state, "d")


def test_a_task_that_rests_before_its_retry_can_be_cancelled() -> None:
    """It does not come back."""
    run = running()
    run.end("a", error="exit code 1")
    run.add(*decide.decide_cancel_task(run.state, "a"))
    run.now_us += 60 * SECOND_US
    assert run.tick() == []
    assert run.statuses() == {"a": "cancelled"}


def reopened(run: PaperRun, *names: str) -> list[str]:
    """The tasks that a retry opens."""
    return [one.task_id for one in decide.decide_retry(run.state, names) if isinstance(one, ev.TaskReopened)]


def broken_run(**fields: Any) -> PaperRun:
    """Two failures, and what hangs on one of them, on the other, or on both."""
    run = PaperRun(plan_of(task("a"), task("x"), task("b", "a"), task("c", "b"), task("y", "x"), task("both", "c", "y"),
                           task("fine"), **fields))  # fmt: skip
    run.tick()
    run.fail("a", "x")
    run.end("fine")
    run.tick()
    return run


def test_a_retry_opens_failed_tasks_and_what_was_skipped_because_of_them() -> None:
    """In the order of the plan; a run that has ended is open again."""
    run = broken_run()
    run.add(ev.RunFailed(counts={}))
    assert reopened(run) == ["a", "x", "b", "c", "y", "both"]
    assert decide.decide_retry(run.state)[-1] == ev.RunResumed(reason="retry")
    run.retry()
    assert run.run_to_its_end() == [["a", "x"], ["b", "y"], ["c"], ["both"]]


def test_a_retry_of_one_task_opens_the_others_that_must_run_for_its_dependents() -> None:
    """And none that must not."""
    run = broken_run()
    assert reopened(run, "a") == ["a", "x", "b", "c", "y", "both"]
    run = PaperRun(plan_of(task("a"), task("x"), task("b", "a"), task("y", "x")))
    run.tick()
    run.fail("a", "x")
    run.tick()
    assert reopened(run, "a") == ["a", "b"]
    assert reopened(run, "y") == ["x", "y"]
    assert not any(isinstance(event, ev.RunResumed) for event in decide.decide_retry(run.state, ["a"]))


def test_a_retry_in_a_pipeline_that_failed_fast_opens_what_stood_behind() -> None:
    """Asked of the failed task, or of one that was skipped: then everything that stopped it must run first."""
    stages = (Stage(name="one", fail_fast=True), Stage(name="two", fail_fast=True))
    run = PaperRun(plan_of(task("a"), task("b"), task("x", stage=1), stages=stages))
    run.tick()
    run.fail("a", "b")
    run.tick()
    assert reopened(run) == ["a", "b", "x"]
    assert reopened(run, "x") == ["a", "b", "x"]
    run.retry("x")
    assert run.run_to_its_end() == [["a", "b"], ["x"]]


def test_a_retried_task_has_all_of_its_retries_again() -> None:
    """Its attempts are counted on."""
    run = PaperRun(plan_of(task("a", max_retries=1), retry=RetryPolicy(delay_s=0)))
    for _ in range(2):
        for _ in range(2):
            assert run.tick() == ["a"]
            run.end("a", error="exit code 1")
        assert run.tick() == []
        run.retry()
    assert run.state.tasks["a"].attempts == 4


def test_only_what_has_not_succeeded_can_be_retried() -> None:
    """Each refusal says why."""
    run = PaperRun(plan_of(task("a"), task("b"), max_parallel_agents=1))
    run.tick()
    assert "'a' cannot be retried: it is running" in refused(decide.decide_retry, run.state, ["a"])
    assert "'b' cannot be retried: it is queued" in refused(decide.decide_retry, run.state, ["b"])
    assert "has no failed task to retry" in refused(decide.decide_retry, run.state)
    with pytest.raises(UnknownTask):
        decide.decide_retry(run.state, ["c"])
    run.end("a")
    assert "'a' cannot be retried: it is completed" in refused(decide.decide_retry, run.state, ["a"])
    run.add(ev.TaskCancelled(task_id="b"))
    assert reopened(run) == ["b"]


def test_nothing_is_retried_while_files_are_taken_back_that_it_would_work_on() -> None:
    """Once that is done it can be."""
    run = PaperRun(plan_of(task("a", max_retries=0)))
    run.tick()
    run.end("a", error="no")
    run.add(ev.FilesRestoring(commit="c0"))
    assert "still being taken back" in refused(decide.decide_retry, run.state)
    run.add(ev.CheckpointRestored(checkpoint_id="x"))
    assert decide.decide_retry(run.state)


def test_a_retry_in_a_paused_run_leaves_it_paused() -> None:
    """It goes on when somebody resumes it."""
    run = PaperRun(plan_of(task("a")))
    run.tick()
    run.add(ev.RunPaused())
    run.fail("a")
    run.retry()
    assert run.state.status == "paused"
    assert run.tick() == []
