"""What a person's answer to blocked work means: approvals, conflicts settled, and the run that goes on because of it."""

from __future__ import annotations

from typing import Any

import pytest
from paper import PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, UnknownTask
from parallel_agents.eventstore.submission import FileSettings
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.decide_settling import (
    clashes_of,
    decide_approve_result,
    decide_approve_start,
    decide_settled,
    decide_widened,
    is_conflict,
    looking_command,
    settling_command,
    waiting,
)
from parallel_agents.scheduler.run_time import RunTime
from parallel_agents.scheduler.work import Clash, Work

WORK = "abcdef0123456789"
HELD = Work("after00001", commit=WORK, changed=1)
CLASHING = Work("", commit=WORK, onto="c1", clashes=(Clash("a.txt", "content"),), other_task_id="other")
MERGED = Work("", commit=WORK, onto="c0", merged="m1")


def kinds(events: list[ev.Event]) -> list[str]:
    """Events as types."""
    return [type(event).__name__ for event in events]


def before_start() -> PaperRun:
    """A task that waits to be let start."""
    run = PaperRun(plan_of(task("a", approval="required"), files=FileSettings()))
    run.tick()
    return run


def with_result(files: FileSettings | None = None) -> PaperRun:
    """A task whose work waits to be looked at."""
    run = PaperRun(plan_of(task("a", approval="result"), files=files or FileSettings()))
    run.tick()
    run.end_with("a", HELD, output="done")
    return run


def in_conflict(*names: str, files: FileSettings | None = None) -> PaperRun:
    """Tasks whose work does not merge."""
    run = PaperRun(plan_of(*map(task, names), task("heir", *names), files=files or FileSettings()))
    run.tick()
    for name in names:
        run.end_with(name, CLASHING)
    return run


def test_an_approved_start_is_that_of_the_next_attempt_alone() -> None:
    """It starts; a later attempt waits again."""
    run = before_start()
    assert run.statuses() == {"a": "blocked"}
    decided = decide_approve_start(run.state, "a")
    assert decided[0] == ev.TaskUnblocked(task_id="a", reason="approved", attempt=1)
    run.add(*decided)
    assert run.tick() == ["a"]
    run.fail("a")
    run.retry("a")
    assert run.tick() == []
    assert run.statuses() == {"a": "blocked"}
    assert decide_approve_start(run.state, "a")[0] == ev.TaskUnblocked(task_id="a", reason="approved", attempt=2)


def test_a_run_that_only_waited_is_not_charged_for_the_time_that_a_person_took() -> None:
    """Neither while it waits nor afterwards is it overdue."""
    run = PaperRun(plan_of(task("a", approval="required"), files=FileSettings(), max_execution_s=10))
    run.tick()
    time = RunTime.of(run.state, 0)
    assert time.look(run.state, 3_600_000_000, waits=False) == 0
    assert decide.decide_overdue(run.state, 3_600_000_000) is None
    run.now_us += 3_600_000_000
    run.add(*decide_approve_start(run.state, "a"))
    assert run.tick() == ["a"]
    assert time.look(run.state, 7_200_000_000, waits=False) == 0
    used_us = time.look(run.state, 7_209_000_000, waits=False)
    assert decide.decide_overdue(run.state, used_us) is None
    used_us = time.look(run.state, 7_210_000_000, waits=False)
    overdue = ev.RunCancelRequested(reason="max_execution_time", facts={"used_s": 10.0})
    assert decide.decide_overdue(run.state, used_us) == overdue


def test_while_something_else_runs_an_approval_changes_nothing_of_its_time() -> None:
    """The run has never stopped."""
    run = PaperRun(plan_of(task("a", approval="required"), task("b"), files=FileSettings()))
    assert run.tick() == ["b"]
    assert kinds(decide_approve_start(run.state, "a")) == ["TaskUnblocked"]


def test_approved_work_ends_its_attempt_as_it_ended() -> None:
    """With its output and its duration, and the merge as the integration line."""
    run = with_result()
    assert run.statuses() == {"a": "blocked"}
    decided = decide_approve_result(run.state, "a", MERGED, run.now_us)
    run.add(*decided)
    done = run.state.tasks["a"]
    assert (done.status, done.output, done.duration_s, done.exit_code) == ("completed", "done", 1.0, 0)
    assert (run.state.integration, run.state.status) == ("m1", "running")
    assert kinds(decided) == ["TaskCompleted", "RunResumed"]


def test_approved_work_that_does_not_merge_waits_as_a_conflict() -> None:
    """Like any other, and the run pauses where that is configured."""
    run = with_result()
    decided = decide_approve_result(run.state, "a", CLASHING, run.now_us)
    assert kinds(decided) == ["ConflictDetected", "TaskBlocked", "RunPaused"]
    run.add(*decided)
    assert is_conflict(run.state.tasks["a"])
    assert run.state.tasks["a"].work_commit == WORK
    with pytest.raises(NotAllowed, match="waits for its conflict") as error:
        decide_approve_result(run.state, "a", MERGED, run.now_us)
    assert "parallel-agents resolve paper a" in error.value.hint


@pytest.mark.parametrize(
    ("how", "merged", "expected", "status"),
    [
        ("theirs", "m1", ["ConflictDetected", "ConflictResolved", "TaskCompleted", "RunResumed"], "completed"),
        ("abort", None, ["ConflictDetected", "ConflictResolved", "TaskFailed", "RunPaused"], "failed"),
        (
            "rebase",
            None,
            ["ConflictDetected", "ConflictResolved", "TaskFailed", "TaskRetryScheduled", "RunResumed"],
            "queued",
        ),
    ],
)
def test_approved_work_is_merged_by_the_way_that_is_configured(
    how: Any, merged: str | None, expected: list[str], status: str
) -> None:
    """The same as where nobody had to approve it."""
    run = with_result(FileSettings(conflicts=how))
    work = Work("", commit=WORK, onto="c1", merged=merged, clashes=CLASHING.clashes)
    decided = decide_approve_result(run.state, "a", work, run.now_us)
    assert kinds(decided) == expected
    run.add(*decided)
    assert run.statuses() == {"a": status}


def test_the_run_goes_on_when_its_last_conflict_is_settled() -> None:
    """Not before: the pause was for all of them."""
    run = in_conflict("a", "b")
    assert run.state.status == "paused"
    first = decide_settled(run.state, "b", "m1", "ours", ["a.txt"])
    assert kinds(first) == ["ConflictResolved", "TaskCompleted"]
    run.add(*first)
    second = decide_settled(run.state, "a", "m2", "files", ["a.txt"])
    assert kinds(second) == ["ConflictResolved", "TaskCompleted", "RunResumed"]
    run.add(*second)
    assert (run.state.status, run.state.integration) == ("running", "m2")
    assert run.tick() == ["heir"]


def test_a_pause_of_a_person_is_not_lifted_by_settling_a_conflict() -> None:
    """They said when it goes on."""
    run = PaperRun(plan_of(task("a"), files=FileSettings(pause_on_conflict=False)))
    run.tick()
    run.end_with("a", CLASHING)
    run.add(*decide.decide_pause(run.state, "lunch: a break"))
    run.add(*decide_settled(run.state, "a", "m1", "ours", ["a.txt"]))
    assert (run.state.status, run.state.reason) == ("paused", "lunch: a break")


def test_a_settled_conflict_is_recorded_with_how_and_what() -> None:
    """And its attempt ends once, as completed."""
    run = in_conflict("a")
    resolved, completed, _ = decide_settled(run.state, "a", "m1", "both", ["a.txt"])
    assert resolved == ev.ConflictResolved(task_id="a", how="both", attempt_id="a1", commit="m1", paths=["a.txt"])
    assert isinstance(completed, ev.TaskCompleted)
    assert (completed.attempt_id, completed.commit, completed.duration_s) == ("a1", "m1", 1.0)


def test_a_conflict_that_has_become_more_is_told_again_and_still_waits() -> None:
    """In the same round, with the work unchanged."""
    run = in_conflict("a")
    more = Work(
        "", commit=WORK, onto="c2", clashes=(*CLASHING.clashes, Clash("b.txt", "add/add")), other_task_id="late"
    )
    run.add(*decide_widened(run.state, "a", more))
    now = run.state.tasks["a"]
    assert (now.status, now.work_commit, now.conflicts, now.duration_s) == ("blocked", WORK, 1, 1.0)
    assert now.reason == "conflict: a.txt, b.txt with late"
    assert clashes_of(now) == more.clashes
    assert kinds(decide_settled(run.state, "a", "m1", "ours", [])) == [
        "ConflictResolved",
        "TaskCompleted",
        "RunResumed",
    ]


def test_an_approval_binds_to_the_work_that_was_seen() -> None:
    """Named whole or by its first digits; another one is refused, with what to look at."""
    run = with_result()
    for seen in (None, WORK, WORK[:7], WORK[:7].upper()):
        assert waiting(run.state, "a", seen).work_commit == WORK
    for other in ("fedcba9", WORK[:3], WORK + "0"):
        with pytest.raises(NotAllowed, match="the work of task 'a' is abcdef012345") as error:
            waiting(run.state, "a", other)
        assert error.value.hint == "look at it: git diff c0 abcdef012345"


def test_a_start_has_no_commit_to_be_approved() -> None:
    """Nothing has been done yet."""
    with pytest.raises(NotAllowed, match="has done nothing yet"):
        waiting(before_start().state, "a", WORK)


def test_what_does_not_wait_is_refused() -> None:
    """A task that runs, one that is not there, one of a run that is being cancelled, and the wrong question."""
    run = PaperRun(plan_of(task("a"), files=FileSettings()))
    run.tick()
    with pytest.raises(NotAllowed, match="does not wait for a person: it is running"):
        decide_approve_start(run.state, "a")
    with pytest.raises(UnknownTask):
        decide_approve_start(run.state, "z")
    with pytest.raises(NotAllowed, match="has been started already"):
        decide_approve_start(with_result().state, "a")
    with pytest.raises(NotAllowed, match="waits for approval of its result, not for a conflict"):
        decide_settled(with_result().state, "a", "m1", "ours", [])
    cancelling = in_conflict("a")
    cancelling.add(ev.RunCancelRequested())
    with pytest.raises(NotAllowed, match="being cancelled"):
        decide_settled(cancelling.state, "a", "m1", "ours", [])


def test_every_wait_names_the_commands_that_show_and_settle_it() -> None:
    """And what does not wait names none."""
    start, result, conflict = (run.state.tasks["a"] for run in (before_start(), with_result(), in_conflict("a")))
    assert settling_command("r", start) == settling_command("r", result) == "parallel-agents approve r a"
    assert settling_command("r", conflict) == "parallel-agents resolve r a --take SIDE"
    assert [looking_command("r", one) for one in (start, result, conflict)] == [
        None, "git diff c0 abcdef012345", "parallel-agents conflicts r --show",
    ]  # fmt: skip
    free = PaperRun(plan_of(task("a"))).state.tasks["a"]
    assert (settling_command("r", free), looking_command("r", free)) == (None, None)
