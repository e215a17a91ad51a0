"""Pauses and ends of a run that are recorded otherwise than they were decided are named."""

from __future__ import annotations

from typing import Any

from paper import PaperRun, ended, plan_of, task
from redeciding import Again

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.submission import ConflictStrategy, FileSettings, Stage
from parallel_agents.scheduler.decide import decide_end
from parallel_agents.scheduler.work import Clash, Work, decide_stage, decide_work

CLASHING = Work("after00001", commit="w1", changed=2, onto="c1", clashes=(Clash("a", "contents"),), other_task_id="b")
GATES = [
    ev.GateChecked(scope="stage", command="make", passed=True, stage=0),
    ev.GateChecked(scope="stage", command="make lint", passed=False, stage=0),
]


def running(**files: Any) -> PaperRun:
    """One task that runs."""
    run = PaperRun(plan_of(task("a"), files=FileSettings(**files)))
    run.tick()
    return run


def in_conflict(run: PaperRun) -> list[Event]:
    """What is told of work of it that does not merge."""
    return decide_work(run.state, ended("a1"), CLASHING, run.now_us, 0.0)


def broken(run: PaperRun, kind: str = "authentication") -> list[Event]:
    """What is told of an attempt that cannot authenticate."""
    return decide_end(run.state, ended("a1", "no key", kind=kind), run.now_us, 0.0)


def without(events: list[Event], kind: type[Event]) -> list[Event]:
    """All but those of a type."""
    return [event for event in events if not isinstance(event, kind)]


def test_a_pause_because_no_agent_can_authenticate_is_decided_again() -> None:
    """From the failure before it."""
    run = running()
    again = Again(run, broken(run))
    assert again.named is None
    assert again.judged.decisions["RunPaused"] == 1


def test_a_pause_that_a_failure_had_to_lead_to_is_missed() -> None:
    """Whatever has followed instead."""
    run = running()
    assert Again(run, without(broken(run), ev.RunPaused)).named == (
        "TaskRetryScheduled", "then", None, "RunPaused authentication",
    )  # fmt: skip


def test_a_pause_for_another_reason_than_the_failure_is_named() -> None:
    """By its code, and by what would be decided."""
    run = running()
    told = [*without(broken(run), ev.RunPaused), ev.RunPaused(code="spend_cap")]
    assert Again(run, told).named == ("TaskRetryScheduled", "then", "RunPaused", "RunPaused authentication")
    told = [*broken(run, "spend_cap"), ev.RunPaused(code="spend_cap")]
    assert Again(run, told).named == ("RunPaused", "type", "RunPaused", None)


def test_a_second_failure_of_the_kind_pauses_no_paused_run() -> None:
    """One pause is told of all that ended together."""
    run = PaperRun(plan_of(task("a"), task("b"), files=FileSettings()))
    run.tick()
    told = [event for name in ("a1", "b1") for event in decide_end(
        run.state, ended(name, "no key", kind="authentication"), run.now_us, 0.0
    )]  # fmt: skip
    assert Again(run, told[:-1]).named is None
    assert Again(run, told).named == ("RunPaused", "type", "RunPaused", None)


def test_a_pause_because_of_a_conflict_is_decided_again() -> None:
    """Of work that a person is to settle, and of work that is given up."""
    conflicts: list[ConflictStrategy] = ["interactive", "abort"]
    for strategy in conflicts:
        run = running(conflicts=strategy)
        again = Again(run, in_conflict(run))
        assert (again.named, again.judged.decisions["RunPaused"]) == (None, 1)
        end = "TaskBlocked" if strategy == "interactive" else "TaskFailed"
        assert Again(run, without(in_conflict(run), ev.RunPaused)).named == (
            end, "then", "CheckpointCreated", "RunPaused",
        )  # fmt: skip


def test_a_pause_because_of_a_conflict_that_is_not_configured_is_named() -> None:
    """Such a run goes on with what else there is."""
    run = running(pause_on_conflict=False)
    told = in_conflict(run)
    assert Again(run, told).named is None
    paused = [*told[:-1], ev.RunPaused(reason="a: conflict"), told[-1]]
    assert Again(run, paused).named == ("RunPaused", "type", "RunPaused", None)


def test_a_pause_that_only_git_knows_the_reason_of_is_not_judged() -> None:
    """It is counted."""
    run = running()
    again = Again(run, [ev.RunPaused(reason="somebody put c0ffee on the branch")])
    assert (again.named, again.judged.sampled) == (None, {"RunPaused": 1})


def staged(**files: Any) -> PaperRun:
    """A run of two stages, the first of which has ended."""
    stages = Stage(name="first"), Stage(name="second")
    run = PaperRun(plan_of(task("a"), task("b", stage=1), stages=stages, files=FileSettings(**files)))
    run.tick()
    run.end("a")
    return run


def test_the_end_of_a_run_by_the_gates_of_a_stage_is_decided_again() -> None:
    """From the gates before it."""
    run = staged()
    told = [*GATES, *decide_stage(run.state, 0, GATES)]
    again = Again(run, told)
    assert (again.named, again.judged.decisions["RunCancelRequested"]) == (None, 1)
    assert Again(run, told[:-1]).named == ("GateChecked", "then", None, "RunCancelRequested")
    assert Again(staged(fail_on_gates=False), told).named == ("RunCancelRequested", "type", "RunCancelRequested", None)
    with_files = PaperRun(run.state.plan.model_copy(update={"files": FileSettings(rollback_on_gates=True)}))
    with_files.add(ev.CheckpointCreated(checkpoint_id="c1", kind="stage", commit="m1", stage=0))
    told = [*GATES, *decide_stage(with_files.state, 0, GATES)]
    assert [type(event).__name__ for event in told[2:]] == ["CheckpointRestored", "RunCancelRequested"]
    assert Again(with_files, told).named is None
    assert Again(with_files, without(told, ev.CheckpointRestored)).named == (
        "GateChecked", "then", "RunCancelRequested", "CheckpointRestored",
    )  # fmt: skip


def test_gates_that_could_not_be_run_end_a_run_that_nobody_judges() -> None:
    """Their error is in no event of its own."""
    again = Again(staged(), [ev.RunCancelRequested(reason="quality gate failed: no such file")])
    assert (again.named, again.judged.sampled) == (None, {"RunCancelRequested": 1})


def overdue(**facts: Any) -> ev.RunCancelRequested:
    """That the time of a run is up."""
    return ev.RunCancelRequested(reason="max_execution_time", facts=facts)


def test_that_the_time_of_a_run_is_up_is_decided_again() -> None:
    """By how long it was dispatched; an older release did not record that."""
    run = PaperRun(plan_of(task("a"), max_execution_s=60.0))
    again = Again(run, [overdue(used_s=60.0)])
    assert (again.named, again.judged.decisions) == (None, {"RunCancelRequested": 1})
    assert Again(run, [overdue(used_s=59.9)]).named == ("RunCancelRequested", "type", "RunCancelRequested", None)
    assert Again(run, [overdue()]).judged.sampled == {"RunCancelRequested": 1}


def test_a_run_that_goes_on_without_having_waited_is_named() -> None:
    """A person's word would not be the dispatcher's."""
    run = running()
    run.add(ev.RunPaused())
    assert Again(run, [ev.RunResumed()]).named == ("RunResumed", "type", "RunResumed", None)
