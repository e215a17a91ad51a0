"""Which tasks start now, in which order, and why the others do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from paper import SECOND_US, PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import FileSettings, RetryPolicy, Stage
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.plan import Agenda, Facts, Skip, plan

PIPELINE = (Stage(name="one", fail_fast=True), Stage(name="two", fail_fast=True), Stage(name="three", fail_fast=True))


def test_whatever_is_ready_starts_at_once() -> None:
    """Each is queued before it starts."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a")))
    assert run.plan().steps == [("queue", "a"), ("queue", "b"), ("start", "a"), ("start", "b")]


def test_a_task_starts_when_the_last_of_its_dependencies_is_done() -> None:
    """Not before."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a", "b"), task("d", "c")))
    assert run.tick() == ["a", "b"]
    run.end("a")
    assert run.tick() == []
    run.end("b")
    assert run.tick() == ["c"]
    run.end("c")
    assert run.tick() == ["d"]


def test_rank_is_priority_then_the_longest_way_to_the_end_then_the_order_of_the_plan() -> None:
    """One slot shows the whole order."""
    run = PaperRun(
        plan_of(
            task("low", priority="low"), task("first"), task("second"), task("long", expected_s=2.5),
            task("root"), task("middle", "root"), task("leaf", "middle"), task("urgent", priority="critical"),
            task("high", priority="high"), max_parallel_agents=1,
        )
    )  # fmt: skip
    order = [name for turn in run.run_to_its_end() for name in turn]
    assert order == ["urgent", "high", "root", "long", "middle", "first", "second", "leaf", "low"]


def test_a_task_that_becomes_ready_goes_ahead_of_lower_ranks_in_the_queue() -> None:
    """The queue is ordered by rank and not by arrival."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a", priority="critical"), max_parallel_agents=1))
    assert run.tick() == ["a"]
    assert run.statuses()["b"] == "queued"
    run.end("a")
    assert run.tick() == ["c"]


@pytest.mark.parametrize("limits", [{"max_parallel_agents": 2}, {"store_limit": 2}])
def test_no_more_start_than_there_are_slots(limits: dict[str, int]) -> None:
    """Of the run or of the store; one that ends makes room for one."""
    run = PaperRun(plan_of(*(task(name) for name in "abcde"), **limits))
    assert run.tick() == ["a", "b"]
    assert run.tick() == []
    run.end("b")
    assert run.tick() == ["c"]


def test_slots_that_other_runs_hold_count_for_the_store_only() -> None:
    """Not for the limit of the run."""
    run = PaperRun(plan_of(*(task(name) for name in "abcde"), max_parallel_agents=3, store_limit=4))
    run.elsewhere = 2
    assert run.tick() == ["a", "b"]
    run.elsewhere = 0
    assert run.tick() == ["c"]
    run.elsewhere = 9
    run.end("a")
    assert run.tick() == []


def test_the_facts_are_counted_up_with_every_start() -> None:
    """So that the next run sees what this one took."""
    run = PaperRun(plan_of(task("a"), task("b"), max_parallel_agents=5))
    facts = Facts(store_slots=7, run_slots=0)
    plan(run.state, run.agenda, facts, run.now_us)
    assert facts == Facts(store_slots=9, run_slots=2)


def test_runs_can_share_slots_by_priority() -> None:
    """What is less urgent than asked for is queued and does not start."""
    run = PaperRun(plan_of(task("a"), task("b", priority="critical"), task("c", priority="high")))
    assert run.tick(priority=0) == ["b"]
    assert run.tick(priority=1) == ["c"]
    assert run.statuses()["a"] == "queued"
    assert run.tick(priority=3) == ["a"]
    assert PaperRun(plan_of(task("b", priority="critical"))).tick(priority=-1) == []


def test_a_stage_starts_when_every_task_of_the_stage_before_has_ended() -> None:
    """Ready or not."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(plan_of(task("late", stage=1), task("a"), task("b"), stages=stages))
    assert run.tick() == ["a", "b"]
    run.end("a")
    assert run.tick() == []
    run.fail("b")
    assert run.tick() == ["late"]


def test_a_stage_without_tasks_holds_nothing_up() -> None:
    """Moved tasks can leave one behind."""
    stages = tuple(Stage(name=str(number)) for number in range(5))
    run = PaperRun(plan_of(task("a", stage=1), task("b", stage=3), stages=stages))
    assert run.run_to_its_end() == [["a"], ["b"]]


def test_a_stage_that_is_not_parallel_runs_its_tasks_one_by_one() -> None:
    """By rank."""
    run = PaperRun(
        plan_of(task("a"), task("b", priority="high"), task("c"), stages=(Stage(name="qa", parallel=False),))
    )
    assert run.run_to_its_end() == [["b"], ["a"], ["c"]]


def test_a_stage_may_have_a_limit_of_its_own() -> None:
    """Below that of the run."""
    stages = (Stage(name="narrow", limit=2), Stage(name="wide"))
    run = PaperRun(plan_of(*(task(name) for name in "abc"), *(task(name, stage=1) for name in "xyz"), stages=stages))
    assert run.run_to_its_end() == [["a", "b"], ["c"], ["x", "y", "z"]]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_tasks_are_queued_than_the_queue_takes(limit: int) -> None:
    """At no moment; the rest stay pending, the best rank comes in first, and every slot is used all the same."""
    run = PaperRun(plan_of(*(task(f"t{n}") for n in range(12)), max_parallel_agents=4, max_queue_size=limit))
    assert run.tick() == ["t0", "t1", "t2", "t3"]
    assert list(run.statuses().values()).count("queued") == limit
    run.end("t0", "t1", "t2", "t3")
    run.run_to_its_end()
    assert set(run.statuses().values()) == {"completed"}
    steps = [isinstance(event, ev.TaskQueued) - isinstance(event, ev.TaskStarted) for event in run.events]
    assert max(itertools.accumulate(steps)) == limit


def test_a_queue_full_of_tasks_that_cannot_start_lets_in_what_they_wait_for() -> None:
    """One at a time: a stage that a retry has opened again, or a dependency; else nothing would ever move."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(
        plan_of(task("a"), task("b"), *(task(name, stage=1) for name in "xyz"), stages=stages, max_parallel_agents=1,
                max_queue_size=1)
    )  # fmt: skip
    run.tick()
    run.fail("a")
    run.tick()
    run.fail("b")
    assert run.tick() == ["x"]
    assert run.statuses()["y"] == "queued"
    run.retry()
    run.end("x")
    assert run.run_to_its_end() == [["a"], ["b"], ["y"], ["z"]]
    run = PaperRun(plan_of(task("a", allow_failure=True), task("b", "a"), task("c", "a"), max_parallel_agents=1,
                           max_queue_size=1))  # fmt: skip
    run.tick()
    run.fail("a")
    assert run.tick() == ["b"]
    run.retry("a")
    run.end("b")
    assert run.run_to_its_end() == [["a"], ["c"]]


def test_a_retry_that_rests_in_a_full_queue_keeps_no_slot_idle() -> None:
    """What is ready goes past it."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c"), max_parallel_agents=1, max_queue_size=1))
    run.tick()
    run.end("a", error="exit code 1")
    assert run.tick() == ["b"]
    run.end("b")
    assert run.tick() == ["c"]


def test_a_queue_whose_only_task_asks_a_person_takes_the_next_at_once() -> None:
    """Or nobody would look again before that person answers."""
    asked = task("a", approval="required")
    run = PaperRun(plan_of(asked, task("b"), max_queue_size=1, retry=RetryPolicy(delay_s=0.0)))
    run.add(ev.TaskQueued(task_id="a"))  # As a retry is, which has to be asked for anew.
    assert run.tick() == ["b"]
    assert run.statuses()["a"] == "blocked"


@pytest.mark.parametrize("event", [ev.RunPaused(), ev.RunCompleted(counts={}), ev.RunCancelRequested()])
def test_nothing_starts_in_a_run_that_does_not_run(event: ev.Event) -> None:
    """Paused, ended or being cancelled."""
    run = PaperRun(plan_of(task("a")), event)
    assert run.plan().steps == []


def test_nothing_starts_in_a_run_that_has_not_been_started() -> None:
    """Somebody has to take it first."""
    assert PaperRun(plan_of(task("a")), started=False).plan().steps == []


def test_a_paused_run_goes_on_where_it_stood() -> None:
    """What became ready meanwhile starts."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c"), max_parallel_agents=1))
    assert run.tick() == ["a"]
    run.add(ev.RunPaused())
    run.end("a")
    assert run.tick() == []
    run.add(ev.RunResumed())
    assert run.tick() == ["b"]


def test_a_cancelled_run_cancels_all_that_has_not_started() -> None:
    """What waits for a person too; what runs is left to whoever stops it, and nothing starts."""
    run = PaperRun(plan_of(task("a"), task("b"), task("c", "a"), task("d"), max_parallel_agents=1))
    run.tick()
    run.add(ev.TaskBlocked(task_id="d", reason="approval"), ev.RunCancelRequested(reason="enough"))
    assert run.plan().cancels == ["b", "c", "d"]
    assert run.tick() == []
    assert run.statuses() == {"a": "running", "b": "cancelled", "c": "cancelled", "d": "cancelled"}
    assert run.plan().cancels == []


def test_what_needs_a_failed_task_is_skipped_and_names_the_one_that_failed_first() -> None:
    """Not the nearest one, however long the chain, and whatever the others wait for."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c", "b"), task("d", "c", "other"), task("other")))
    run.tick()
    run.add(ev.TaskBlocked(task_id="b", reason="approval"))
    run.fail("a")
    assert run.plan().skips == [
        Skip("b", "a", "dependency"),
        Skip("c", "a", "dependency"),
        Skip("d", "a", "dependency"),
    ]


def test_what_is_skipped_later_still_names_the_one_that_failed_first() -> None:
    """A skipped task stands for the failure behind it."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c", "b")), started=False)
    run.add(ev.RunStarted(), ev.TaskQueued(task_id="a"))
    run.add(ev.TaskStarted(task_id="a", attempt_id="a1", attempt=1, runner="shell"))
    run.fail("a")
    run.add(ev.TaskSkipped(task_id="b", because="a"))
    assert PaperRun.plan(run).skips == [Skip("c", "a", "dependency")]
    run.agenda = Agenda(run.state)
    assert run.plan().skips == [Skip("c", "a", "dependency")]


def test_a_task_that_will_be_tried_again_skips_nothing() -> None:
    """Only its last failure does."""
    run = PaperRun(plan_of(task("a", max_retries=1), task("b", "a"), retry=RetryPolicy(delay_s=0)))
    run.tick()
    run.end("a", error="exit code 1")
    assert run.tick() == ["a"]
    run.end("a", error="exit code 1")
    assert run.plan().skips == [Skip("b", "a", "dependency")]


def test_what_needs_a_cancelled_task_is_skipped() -> None:
    """Cancelled before it started, or while it ran."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("x"), task("y", "x")))
    run.add(ev.TaskCancelled(task_id="a"))
    run.tick()
    assert run.statuses() == {"a": "cancelled", "b": "skipped", "x": "running", "y": "pending"}
    run.add(ev.TaskCancelRequested(task_id="x"))
    run.end("x", outcome="stopped", error="stopped", exit_code=-15)
    run.tick()
    assert run.statuses()["y"] == "skipped"


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_needs_a_task_that_may_fail_runs_all_the_same(cancelled: bool) -> None:
    """Failed or cancelled."""
    run = PaperRun(plan_of(task("a", allow_failure=True), task("b", "a")))
    run.tick()
    if cancelled:
        run.add(ev.TaskCancelRequested(task_id="a"))
        run.end("a", outcome="stopped", error="stopped")
    else:
        run.fail("a")
    assert run.tick() == ["b"]


def test_what_needs_a_skipped_task_is_skipped_even_if_that_one_may_fail() -> None:
    """It did not fail: it never ran."""
    run = PaperRun(plan_of(task("a"), task("b", "a", allow_failure=True), task("c", "b")))
    run.tick()
    run.fail("a")
    assert run.plan().skips == [Skip("b", "a", "dependency"), Skip("c", "a", "dependency")]


def test_tasks_are_skipped_while_their_run_is_paused() -> None:
    """They would not run anyway; whoever looks sees it at once."""
    run = PaperRun(plan_of(task("a"), task("b", "a")))
    run.tick()
    run.add(ev.RunPaused())
    run.fail("a")
    assert run.plan().skips == [Skip("b", "a", "dependency")]


def test_a_pipeline_that_fails_fast_stops_after_the_failed_stage() -> None:
    """That stage itself runs to its end; all that stands behind it is skipped because of the first failure."""
    run = PaperRun(
        plan_of(task("a"), task("b"), task("c"), task("x", stage=1), task("y", stage=2), stages=PIPELINE,
                max_parallel_agents=2)
    )  # fmt: skip
    assert run.tick() == ["a", "b"]
    run.fail("b")
    assert run.plan().skips == []
    assert run.tick() == ["c"]
    run.end("a")
    run.fail("c")
    assert run.plan().skips == [Skip("x", "b", "fail_fast"), Skip("y", "b", "fail_fast")]
    assert run.tick() == []
    assert decide.decide_finish(run.state) == ev.RunFailed(
        counts={"completed": 1, "failed": 2, "skipped": 2}, failed=["b", "c"]
    )


def test_a_pipeline_that_does_not_fail_fast_goes_on_with_what_needs_nothing_of_it() -> None:
    """The run has failed all the same."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(plan_of(task("a"), task("b"), task("x", "a", stage=1), task("y", "b", stage=1), stages=stages))
    run.tick()
    run.fail("a")
    run.end("b")
    assert run.tick() == ["y"]
    run.end("y")
    assert isinstance(decide.decide_finish(run.state), ev.RunFailed)


def test_a_failure_fast_reaches_the_later_stages_of_its_own_phase_only() -> None:
    """The next phase of a hybrid plan runs."""
    stages = (
        Stage(name="p/1", fail_fast=True, phase=0),
        Stage(name="p/2", fail_fast=True, phase=0),
        Stage(name="q", phase=1),
        Stage(name="r/1", fail_fast=True, phase=2),
        Stage(name="r/2", fail_fast=True, phase=2),
    )
    tasks = [task(name, stage=number) for number, name in enumerate(("a", "b", "c", "d", "e"))]
    run = PaperRun(plan_of(*tasks, task("f", "b", stage=2), stages=stages))
    run.tick()
    run.fail("a")
    assert run.tick() == ["c"]
    assert run.statuses() == {
        "a": "failed", "b": "skipped", "c": "running", "d": "pending", "e": "pending", "f": "skipped",
    }  # fmt: skip
    run.end("c")
    assert run.tick() == ["d"]
    run.end("d")
    assert run.tick() == ["e"]


def test_a_failure_that_is_allowed_does_not_fail_fast() -> None:
    """Nor does a cancelled task: nobody failed."""
    run = PaperRun(plan_of(task("a", allow_failure=True), task("b"), task("x", stage=1), stages=PIPELINE))
    run.tick()
    run.fail("a")
    run.add(ev.TaskCancelRequested(task_id="b"))
    run.end("b", outcome="stopped", error="stopped")
    assert run.tick() == ["x"]


def test_a_stage_of_which_all_was_skipped_opens_the_next() -> None:
    """Skipped is ended."""
    stages = (Stage(name="one"), Stage(name="two"), Stage(name="three"))
    run = PaperRun(plan_of(task("a"), task("b", "a", stage=1), task("c", stage=2), stages=stages))
    run.tick()
    run.fail("a")
    assert run.tick() == ["c"]


def failing(**fields: Any) -> PaperRun:
    """A task that has failed once and rests for eight seconds, beside one that waits for a slot."""
    run = PaperRun(
        plan_of(task("a", **fields), task("b"), retry=RetryPolicy(delay_s=8, exponential=False), max_parallel_agents=1)
    )
    assert run.tick() == ["a"]
    run.end("a", error="exit code 1")
    return run


def test_a_retry_starts_when_its_rest_is_over_and_others_use_the_slot_meanwhile() -> None:
    """To the microsecond."""
    run = failing()
    assert run.tick() == ["b"]
    run.end("b")
    assert run.agenda.next_rest_us(run.state) == 8 * SECOND_US
    run.now_us = 108 * SECOND_US - 1
    assert run.tick() == []
    run.now_us += 1
    assert run.tick() == ["a"]
    assert run.agenda.next_rest_us(run.state) is None


def test_a_rest_that_belongs_to_an_earlier_life_of_a_task_cuts_no_later_rest_short() -> None:
    """Cancelled while it rested, opened again, failed again: only its new rest counts."""
    run = failing()
    run.end(*run.tick())
    run.add(ev.TaskCancelled(task_id="a"))
    run.now_us += SECOND_US
    run.retry("a")
    assert run.tick() == ["a"]
    run.now_us += 2 * SECOND_US
    run.end("a", error="exit code 1")
    assert run.resting_until("a") == "1970-01-01T00:01:51.000000Z"
    assert run.tick() == []
    assert run.agenda.next_rest_us(run.state) == 8 * SECOND_US
    run.now_us = 109 * SECOND_US
    assert run.tick() == []
    assert run.agenda.next_rest_us(run.state) == 2 * SECOND_US
    run.now_us = 111 * SECOND_US
    assert run.tick() == ["a"]


def test_a_task_that_waited_for_a_person_while_it_rested_still_rests() -> None:
    """The answer does not cut its rest short."""
    run = failing()
    run.end(*run.tick())
    run.add(ev.TaskBlocked(task_id="a", reason="approval"), ev.TaskUnblocked(task_id="a"))
    assert run.tick() == []
    assert run.why("a") == "not_before"
    run.now_us = 108 * SECOND_US
    assert run.tick() == ["a"]


def test_a_clock_that_was_set_back_starts_no_retry_early() -> None:
    """And none twice."""
    run = failing()
    run.end(*run.tick())
    run.now_us = 50 * SECOND_US
    assert run.tick() == []
    run.now_us = 200 * SECOND_US
    assert run.tick() == ["a"]
    assert run.tick() == []


def test_a_paused_run_keeps_its_rests() -> None:
    """Over when it goes on, or still to come."""
    run = failing()
    run.end(*run.tick())
    run.add(ev.RunPaused())
    run.now_us = 104 * SECOND_US
    assert run.tick() == []
    run.add(ev.RunResumed())
    assert run.tick() == []
    run.now_us = 108 * SECOND_US
    assert run.tick() == ["a"]


def test_a_retried_task_and_what_was_skipped_because_of_it_run_again() -> None:
    """In order."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), task("c", "b")))
    run.tick()
    run.fail("a")
    run.tick()
    run.add(ev.RunFailed(counts={}))
    run.retry("a")
    assert run.run_to_its_end() == [["a"], ["b"], ["c"]]


def test_a_task_that_was_opened_again_is_skipped_again_if_what_it_needs_stays_failed() -> None:
    """It does not wait for ever."""
    run = PaperRun(plan_of(task("a"), task("b", "a")))
    run.tick()
    run.fail("a")
    run.tick()
    run.add(ev.TaskReopened(task_id="b"))
    assert run.plan().skips == [Skip("b", "a", "dependency")]


def test_a_dependency_that_is_tried_again_holds_back_what_waited_for_a_slot() -> None:
    """A task that may fail was opened again while its dependent stood in the queue."""
    run = PaperRun(plan_of(task("a", allow_failure=True), task("b", "a"), task("other"), max_parallel_agents=1))
    assert run.tick() == ["a"]
    run.fail("a")
    assert run.tick() == ["b"] or run.statuses()["b"] == "queued"
    run = PaperRun(plan_of(task("a", allow_failure=True), task("other", "a", priority="high"), task("b", "a"),
                           max_parallel_agents=1))  # fmt: skip
    run.tick()
    run.fail("a")
    assert run.tick() == ["other"]
    assert run.statuses()["b"] == "queued"
    run.retry("a")
    run.end("other")
    assert run.tick() == ["a"]
    assert run.tick() == []
    run.end("a")
    assert run.tick() == ["b"]


@pytest.mark.parametrize("blocked", [False, True])
def test_a_stage_that_a_retry_has_opened_again_goes_first(blocked: bool) -> None:
    """What runs of the later stage goes on, nothing else of it starts; also if the task waits for a person first."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = PaperRun(
        plan_of(task("a"), task("x", stage=1), task("y", stage=1), stages=stages, max_parallel_agents=1)
    )  # fmt: skip
    run.tick()
    run.fail("a")
    assert run.tick() == ["x"]
    run.retry("a")
    if blocked:
        run.add(ev.TaskBlocked(task_id="a", reason="approval"))
    run.end("x")
    if blocked:
        assert run.tick() == []
        assert run.why("y") == "stage"
        run.add(ev.TaskUnblocked(task_id="a"))
    assert run.tick() == ["a"]
    run.end("a")
    assert run.tick() == ["y"]


class Unscannable(dict[str, Any]):
    """A mapping that answers by key and refuses to be gone through."""

    def _refuse(self) -> NoReturn:
        raise AssertionError("a tick goes through all tasks")

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    items = keys = values = _refuse


def test_a_tick_never_goes_through_all_tasks() -> None:
    """Ends, failures, skips, retries, stages, planning, finishing: all by what changed."""
    stages = (Stage(name="one", fail_fast=True), Stage(name="two"))
    run = PaperRun(
        plan_of(task("a"), task("b"), task("c", "a"), task("d", "b"), task("e", stage=1), task("f", "e", stage=1),
                stages=stages, retry=RetryPolicy(delay_s=0), max_parallel_agents=2)
    )  # fmt: skip

    def tick() -> list[str]:
        return run.carry_out(plan(run.state, run.agenda, run.facts(), run.now_us))

    assert tick() == ["a", "b"]
    run.state.tasks = Unscannable(run.state.tasks)
    run.end("a")
    run.end("b", error="exit code 1")
    assert tick() == ["b", "c"]
    run.end("c")
    run.fail("b")
    with pytest.raises(AssertionError, match="goes through"):  # Once, when the stages behind a failed one are skipped.
        tick()
    assert decide.decide_finish(run.state) is None
    assert decide.time_left_us(run.state, 0) is not None
    assert not decide.is_stuck(run.state)


def test_tasks_whose_declared_files_meet_never_run_at_once() -> None:
    """The one of better rank goes first; what declares nothing, or something else, is not held up."""
    run = PaperRun(
        plan_of(
            task("docs", files=("docs/**",)), task("api", files=("docs/api.yaml",)), task("code", files=("src/",)),
            task("free"),
        )
    )  # fmt: skip
    assert run.tick() == ["docs", "code", "free"]
    assert (run.why("api"), run.statuses()["api"]) == ("scope", "queued")
    run.end("code")
    assert run.tick() == []
    run.end("docs")
    assert run.tick() == ["api"]


def test_a_task_that_is_held_up_by_files_takes_no_slot_from_others() -> None:
    """Although it is ahead of them."""
    run = PaperRun(
        plan_of(
            task("a", files=("x",)), task("b", files=("x",), priority="high"), task("c"), task("d"),
            max_parallel_agents=2,
        )
    )  # fmt: skip
    assert run.tick() == ["b", "c"]
    run.end("c")
    assert run.tick() == ["d"]
    run.end("b")
    assert run.tick() == ["a"]


def test_a_task_that_needs_approval_is_blocked_before_it_is_queued() -> None:
    """As soon as its dependencies are done, not before."""
    run = PaperRun(plan_of(task("a"), task("b", "a", approval="required")))
    assert run.tick() == ["a"]
    assert (run.statuses()["b"], run.why("b")) == ("pending", "dependencies")
    run.end("a")
    assert run.why("b") == "approval"
    assert run.tick() == []
    assert (run.statuses()["b"], run.why("b")) == ("blocked", "blocked")
    run.add(ev.TaskUnblocked(task_id="b", attempt=1))
    assert run.tick() == ["b"]


def test_an_approval_holds_for_one_attempt() -> None:
    """The next one asks again."""
    run = PaperRun(plan_of(task("a", approval="required"), retry=RetryPolicy(delay_s=0.0)))
    run.tick()
    run.add(ev.TaskUnblocked(task_id="a", attempt=1))
    run.tick()
    run.end("a", error="exit code 1")
    assert run.tick() == []
    assert run.statuses() == {"a": "blocked"}
    run.add(ev.TaskUnblocked(task_id="a", attempt=1))  # Of the attempt that is over.
    assert run.tick() == []
    run.add(ev.TaskUnblocked(task_id="a", attempt=2))
    assert run.tick() == ["a"]


def test_a_stage_opens_only_after_the_checkpoint_of_the_one_before_it() -> None:
    """Where files are versioned; the reason says so."""
    files = FileSettings()
    run = PaperRun(plan_of(task("a"), task("b", stage=1), stages=PIPELINE[:2], files=files))
    assert run.tick() == ["a"]
    run.end("a")
    assert (run.tick(), run.why("b")) == ([], "barrier")
    run.add(ev.CheckpointCreated(checkpoint_id="s1", kind="stage", stage=0))
    assert run.tick() == ["b"]
