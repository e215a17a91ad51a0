"""What the files of an ended attempt mean: merged, in conflict, waiting for a person, or failed."""

from __future__ import annotations

from typing import Any

import pytest
from paper import PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import FileSettings, Gate
from parallel_agents.scheduler.decide import decide_finish, is_stuck
from parallel_agents.scheduler.plan import stage_over
from parallel_agents.scheduler.work import Clash, Gated, Work, facts_of_conflict

CLEAN = Work("after00001", commit="w1", changed=2, onto="c0", merged="m1")
CLASHING = Work(
    "after00001", commit="w1", changed=2, onto="c1", clashes=(Clash("a.txt", "contents"),), other_task_id="b"
)


def running(files: FileSettings | None = None, **fields: Any) -> PaperRun:
    """One task with versioned files, running."""
    run = PaperRun(plan_of(task("a", **fields), files=files or FileSettings()))
    run.add(ev.TaskUnblocked(task_id="a", attempt=1)) if fields.get("approval") == "required" else None
    run.tick()
    return run


def last(run: PaperRun, event_type: type[ev.Event]) -> Any:
    """The last event of a type."""
    return [event for event in run.events if isinstance(event, event_type)][-1]


def test_merged_work_moves_the_integration_line_and_then_comes_its_checkpoint() -> None:
    """So that going back to the checkpoint goes back to after the end."""
    run = running()
    assert run.end_with("a", CLEAN) == ["TaskCompleted", "CheckpointCreated"]
    assert (run.state.integration, run.state.tasks["a"].checkpoint_id) == ("m1", "after00001")
    assert last(run, ev.CheckpointCreated).commit == "w1"


def test_the_next_attempt_starts_from_the_integration_line() -> None:
    """Whose commit its start records."""
    run = PaperRun(plan_of(task("a"), task("b", "a"), files=FileSettings()))
    run.tick()
    assert last(run, ev.TaskStarted).base_commit == "c0"
    run.end_with("a", CLEAN)
    run.tick()
    assert (last(run, ev.TaskStarted).task_id, last(run, ev.TaskStarted).base_commit) == ("b", "m1")


def test_failed_work_is_kept_and_never_merged() -> None:
    """The line stands where it stood."""
    run = running(max_retries=0)
    failed = Work("after00001", commit="w1", changed=2)
    assert run.end_with("a", failed, error="exit code 1") == ["TaskFailed", "CheckpointCreated"]
    assert run.state.integration == "c0"


def test_without_checkpoints_only_changed_work_has_one() -> None:
    """Or it could not be found again."""
    run = running(FileSettings(per_agent=False))
    assert run.end_with("a", Work("after00001", commit="c0", onto="c0", merged="c0")) == ["TaskCompleted"]
    run = running(FileSettings(per_agent=False))
    assert run.end_with("a", CLEAN) == ["TaskCompleted", "CheckpointCreated"]


def test_work_that_could_not_be_kept_fails_its_attempt() -> None:
    """Whatever the command said of itself."""
    run = running(max_retries=0)
    assert run.end_with("a", Work("after00001"), error="its work could not be kept: disk full") == ["TaskFailed"]


def test_a_conflict_blocks_the_later_task_keeps_its_work_and_pauses_the_run() -> None:
    """It holds no slot, and is named with both tasks and the path."""
    run = running()
    assert run.end_with("a", CLASHING) == ["ConflictDetected", "TaskBlocked", "RunPaused", "CheckpointCreated"]
    blocked = run.state.tasks["a"]
    assert (blocked.status, blocked.work_commit, blocked.reason) == ("blocked", "w1", "conflict: a.txt with b")
    assert (run.state.running, run.state.status, run.state.integration) == ({}, "paused", "c0")
    assert is_stuck(run.state)


@pytest.mark.parametrize(("pause", "status"), [(True, "paused"), (False, "running")])
def test_whether_a_conflict_pauses_is_configured(pause: bool, status: str) -> None:
    """What else runs finishes in any case."""
    run = running(FileSettings(pause_on_conflict=pause))
    run.end_with("a", CLASHING)
    assert run.state.status == status


@pytest.mark.parametrize("how", ["ours", "theirs"])
def test_a_conflict_may_be_settled_by_configuration(how: Any) -> None:
    """It is told all the same."""
    run = running(FileSettings(conflicts=how))
    settled = Work("after00001", "w1", 2, "c1", "m1", CLASHING.clashes, "b")
    assert run.end_with("a", settled) == [
        "ConflictDetected", "ConflictResolved", "TaskCompleted", "CheckpointCreated",
    ]  # fmt: skip
    assert run.state.integration == "m1"


def test_what_configuration_cannot_settle_waits_for_a_person() -> None:
    """Such as both sides of a binary file."""
    run = running(FileSettings(conflicts="theirs"))
    assert "TaskBlocked" in run.end_with("a", CLASHING)


def test_a_rebase_runs_the_task_again_twice_and_then_asks() -> None:
    """Each time at once, with the conflict at hand, and without using up a retry."""
    run = running(FileSettings(conflicts="rebase", pause_on_conflict=False), max_retries=0)
    for number in (1, 2):
        assert run.end_with("a", CLASHING) == [
            "ConflictDetected", "ConflictResolved", "TaskFailed", "TaskRetryScheduled", "CheckpointCreated",
        ]  # fmt: skip
        again = run.state.tasks["a"]
        assert (again.status, again.failures, again.conflicts) == ("queued", 0, number)
        assert again.conflict is not None
        assert "a.txt (contents)" in facts_of_conflict(again.conflict)
        assert run.tick() == ["a"]
    assert run.end_with("a", CLASHING) == ["ConflictDetected", "TaskBlocked", "CheckpointCreated"]


def test_a_conflict_that_is_over_is_forgotten() -> None:
    """The attempt after the next has no use for it."""
    run = running(FileSettings(conflicts="rebase"))
    run.end_with("a", CLASHING)
    run.tick()
    run.end_with("a", CLEAN)
    assert run.state.tasks["a"].conflict is None


def test_an_abort_fails_the_task_for_good() -> None:
    """And the loser is never completed."""
    run = running(FileSettings(conflicts="abort", pause_on_conflict=False))
    assert run.end_with("a", CLASHING) == [
        "ConflictDetected", "ConflictResolved", "TaskFailed", "CheckpointCreated",
    ]  # fmt: skip
    assert (run.state.tasks["a"].status, run.state.integration) == ("failed", "c0")


def gated(scope: str, code: int | None) -> Work:
    """Work whose only gate ended like that."""
    return Work("after00001", "w1", 2, "c1", "m1", gates=(Gated(scope, "make test", code, 1.0, "said"),))


@pytest.mark.parametrize(("code", "words"), [(2, "exit 2"), (None, "ran too long")])
def test_a_failed_gate_fails_its_attempt(code: int | None, words: str) -> None:
    """Its output is an event of its own."""
    run = running(max_retries=0)
    assert run.end_with("a", gated("task", code)) == ["GateChecked", "TaskFailed", "CheckpointCreated"]
    assert run.state.tasks["a"].error == f"quality gate failed: make test {words}"


def test_a_failed_gate_may_be_a_remark() -> None:
    """Where failOnQualityIssues is off."""
    run = running(FileSettings(fail_on_gates=False))
    assert run.end_with("a", gated("task", 2)) == ["GateChecked", "TaskCompleted", "CheckpointCreated"]


def test_a_merge_that_is_clean_but_fails_a_gate_is_a_conflict() -> None:
    """Two changes may fit line by line and not in sense."""
    run = running()
    assert run.end_with("a", gated("merge", 2))[:3] == ["GateChecked", "ConflictDetected", "TaskBlocked"]
    assert last(run, ev.ConflictDetected).kinds == ["gate exit 2"]


def test_no_side_of_a_conflict_makes_up_for_a_failed_gate() -> None:
    """Also where the configuration takes a side of every conflict."""
    run = running(FileSettings(conflicts="theirs"))
    assert "TaskBlocked" in run.end_with("a", gated("merge", 2))


def test_a_result_that_needs_approval_waits_before_it_is_merged() -> None:
    """Although its attempt went well."""
    run = running(approval="result")
    assert run.end_with("a", Work("after00001", "w1", 2)) == ["TaskBlocked", "CheckpointCreated"]
    waiting = run.state.tasks["a"]
    assert (waiting.reason, waiting.work_commit, run.state.integration) == ("approval of its result", "w1", "c0")


def test_what_an_attempt_did_to_the_repository_is_told() -> None:
    """Before its end, whatever that is."""
    run = running()
    work = Work("after00001", "w1", 2, "c0", "m1", shared=("branch main", "config"))
    assert run.end_with("a", work)[0] == "SharedStateChanged"
    assert last(run, ev.SharedStateChanged).what == ["branch main", "config"]


def test_a_run_with_gates_after_its_stages_ends_only_when_they_have_passed() -> None:
    """The last stage has a barrier only then."""
    files = FileSettings(gates=(Gate(command=("make", "test")),))
    run = PaperRun(plan_of(task("a"), files=files))
    run.tick()
    run.end_with("a", CLEAN)
    assert (decide_finish(run.state), stage_over(run.state)) == (None, 0)
    run.add(ev.CheckpointCreated(checkpoint_id="stage00001", kind="stage", commit="m1", stage=0))
    assert isinstance(decide_finish(run.state), ev.RunCompleted)
