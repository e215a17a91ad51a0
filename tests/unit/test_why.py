"""Why a task does not start now: the reasons agree with what the next tick does."""

from __future__ import annotations

from paper import PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import RetryPolicy, Stage
from parallel_agents.scheduler.plan import Skip, why_not

PIPELINE = (Stage(name="one", fail_fast=True), Stage(name="two", fail_fast=True), Stage(name="three", fail_fast=True))


def reason(run: PaperRun, name: str) -> tuple[str, str, tuple[str, ...]]:
    """All of it."""
    found = why_not(run.state, name, run.facts(), run.now_us)
    return found.code, found.text, found.tasks


def test_why_a_task_waits_for_others() -> None:
    """Only those that are still open."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a", "b")))
    run.tick()
    run.end("a")
    assert reason(run, "c") == ("dependencies", "waiting for b", ("b",))
    assert reason(run, "a") == ("completed", "completed in attempt 1", ())
    assert reason(run, "b") == ("running", "it runs: attempt 1", ())


def test_why_a_task_waits_for_a_slot() -> None:
    """Whose slots are taken, and who is ahead."""
    run = PaperRun(plan_of(*(task(name) for name in "abcd"), max_parallel_agents=2))
    run.tick()
    assert reason(run, "c") == ("no_slot", "no slot: 2 of 2 of this run are taken", ("a", "b"))
    code, text, _ = reason(run, "d")
    assert code == "lower_rank"
    assert text.endswith("1 of better rank are ahead: c")
    run = PaperRun(plan_of(task("a"), store_limit=3))
    run.elsewhere = 3
    run.tick()
    assert reason(run, "a") == ("no_slot", "no slot: 3 of 3 of the store are taken", ())
    run = PaperRun(plan_of(task("a"), task("b"), stages=(Stage(name="narrow", limit=1),)))
    run.tick()
    assert reason(run, "b")[:2] == ("no_slot", "no slot: 1 of 1 of stage 'narrow' are taken")
    run = PaperRun(plan_of(task("a"), task("b"), stages=(Stage(name="qa", parallel=False),)))
    run.tick()
    assert reason(run, "b")[:2] == ("one_by_one", "stage 'qa' runs its tasks one by one")


def test_why_a_task_starts_at_the_next_tick_and_the_one_behind_it_does_not() -> None:
    """Asked before the tick that a free slot is waiting for."""
    run = PaperRun(plan_of(*(task(name) for name in "abc"), max_parallel_agents=1))
    assert [run.why(name) for name in "abc"] == ["due", "lower_rank", "lower_rank"]
    run.tick()
    run.end("a")
    assert [run.why(name) for name in "bc"] == ["due", "lower_rank"]
    assert run.tick() == ["b"]


def test_why_a_task_is_not_even_queued() -> None:
    """The queue is full, and no slot will make room in it."""
    run = PaperRun(plan_of(*(task(name) for name in "abcd"), max_parallel_agents=1, max_queue_size=1))
    run.tick()
    assert [run.why(name) for name in "bcd"] == ["no_slot", "queue_full", "queue_full"]
    assert reason(run, "c")[1] == "queue full: 1 of 1 are queued"
    run.end("a")
    assert run.why("b") == "due"
    assert run.why("c") in ("lower_rank", "queue_full")


def test_a_full_queue_is_no_reason_where_slots_are_free() -> None:
    """It empties in the same tick."""
    run = PaperRun(plan_of(*(task(name) for name in "abc"), max_queue_size=1))
    assert [run.why(name) for name in "abc"] == ["due", "due", "due"]
    assert run.tick() == ["a", "b", "c"]


def test_why_a_task_waits_for_a_stage() -> None:
    """With the tasks that hold it up."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(plan_of(*(task(f"t{n}") for n in range(7)), task("x", stage=1), stages=stages))
    run.tick()
    run.end("t0")
    code, text, names = reason(run, "x")
    assert (code, len(names)) == ("stage", 6)
    assert text == "stage 'two' starts when the stages before it have ended: t1, t2, t3, t4, t5, ..."


def test_why_in_a_run_that_does_not_run() -> None:
    """Paused, being cancelled, not yet taken, ended; or the task waits for a person, or rests."""
    run = PaperRun(plan_of(task("a")), ev.RunPaused(reason="lunch"))
    assert reason(run, "a")[:2] == ("paused", "its run is paused: lunch")
    assert PaperRun(plan_of(task("a")), ev.RunCancelRequested()).why("a") == "cancelling"
    assert PaperRun(plan_of(task("a")), started=False).why("a") == "no_dispatcher"
    assert PaperRun(plan_of(task("a")), ev.RunCompleted(counts={})).why("a") == "run_ended"
    run = PaperRun(plan_of(task("a")), ev.TaskBlocked(task_id="a", reason="approval required"))
    assert reason(run, "a")[:2] == ("blocked", "it waits for a person: approval required")
    run = PaperRun(plan_of(task("a"), retry=RetryPolicy(delay_s=8)))
    run.tick()
    run.end("a", error="exit code 1")
    assert reason(run, "a")[:2] == ("not_before", "retry not before 8.0 s from then (failed 1 times)")


def test_why_a_task_will_never_run() -> None:
    """Skipped, failed or cancelled, or about to be skipped."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c"), task("x", stage=1), stages=PIPELINE))
    run.tick()
    run.fail("a")
    assert reason(run, "b") == ("skipping", "it will be skipped: a failed", ("a",))
    run.end("c")
    run.add(ev.TaskCancelled(task_id="b", reason="not needed"))
    assert reason(run, "x")[0] == "skipping"
    run.tick()
    assert reason(run, "x") == ("skipped", "skipped: a failed, and its pipeline fails fast", ("a",))
    assert reason(run, "a")[:2] == ("failed", "failed after 1 attempt: exit code 1")
    assert reason(run, "b")[:2] == ("cancelled", "cancelled: not needed")


def test_a_skipped_task_whose_own_cause_was_opened_again_is_the_cause_of_what_needs_it() -> None:
    """As in a fork from the middle of the commit of a retry: its first events opened one task, the rest is missing."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c", "b"), task("d", "c")))
    run.tick()
    run.fail("a")
    run.tick()
    assert [run.state.tasks[name].because for name in "bcd"] == ["a", "a", "a"]
    run.add(ev.TaskReopened(task_id="a", reason="retry"), ev.TaskReopened(task_id="c", reason="retry"))
    assert reason(run, "c") == ("skipping", "it will be skipped: b was skipped", ("b",))
    assert run.tick() == ["a"]
    assert [run.state.tasks[name].because for name in "bc"] == ["a", "b"]
    assert reason(run, "c") == ("skipped", "skipped: b was skipped", ("b",))
    assert reason(run, "b") == ("skipped", "skipped: a had failed", ("a",))


def test_asking_why_changes_nothing() -> None:
    """The next tick sees all that it would have seen."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c"), max_parallel_agents=1))
    run.tick()
    run.fail("a")
    touched, broken = set(run.state.touched), set(run.state.broken)
    run.why("b")
    run.why("c")
    assert (run.state.touched, run.state.broken) == (touched, broken)
    assert run.plan().skips == [Skip("b", "a", "dependency")]
