"""The conflicts of a run: whose work, with whose, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.conflicts import Conflict, conflicts


def found(*events: ev.Event) -> Sequence[Conflict]:
    """The conflicts of a history."""
    return conflicts(Recorded(number, "r", number, number, "test", one) for number, one in enumerate(events, 1))


def started(task_id: str, attempt_id: str, base: str = "c0") -> ev.Event:
    """An attempt begins."""
    return ev.TaskStarted(task_id=task_id, attempt_id=attempt_id, attempt=1, runner="shell", base_commit=base)


def merged(task_id: str, attempt_id: str, work: str) -> tuple[ev.Event, ev.Event]:
    """An attempt ends well, with work that is kept."""
    return (
        ev.TaskCompleted(task_id=task_id, attempt_id=attempt_id, duration_s=1.0, commit="m1"),
        ev.CheckpointCreated(checkpoint_id="x", kind="after_attempt", commit=work, attempt_id=attempt_id),
    )


def clash(attempt_id: str = "b1", *paths: str, early: bool = False, kind: str = "content") -> ev.ConflictDetected:
    """The work of b does not merge with that of a."""
    named = list(paths or ("f",))
    return ev.ConflictDetected(
        task_id="b", other_task_id="a", paths=named, kinds=[kind] * len(named), attempt_id=attempt_id, early=early,
        onto="m1", commit="wb",
    )  # fmt: skip


BEGUN = (started("a", "a1"), started("b", "b1"))


def test_a_conflict_names_the_work_of_both_sides() -> None:
    """The other's is its own work, not all that was merged with it."""
    one = found(*BEGUN, *merged("a", "a1", "wa"), clash())[0]
    assert one.attempt is not None
    assert one.other is not None
    assert (one.status, one.attempt.base, one.other.task_id, one.other.work) == ("waiting", "c0", "a", "wa")


def test_a_warning_is_about_what_runs() -> None:
    """It stays a warning, also where the work of both was merged in the end."""
    one, late = found(*BEGUN, clash(early=True), *merged("a", "a1", "wa"), clash())
    assert one.other is not None
    assert (one.status, one.other.task_id, late.status) == ("early", "a", "waiting")
    assert [kept.status for kept in found(*BEGUN, clash(early=True), *merged("b", "b1", "wb"))] == ["early"]


def test_the_other_work_is_what_was_merged_and_not_what_runs_since() -> None:
    """A warning is about what runs."""
    again = (*BEGUN, *merged("a", "a1", "wa"), started("a", "a2", "m1"))
    late, early = found(*again, clash())[0], found(*again, clash(early=True))[0]
    assert late.other is not None
    assert early.other is not None
    assert (late.other.work, early.other.base) == ("wa", "m1")


def test_a_conflict_that_an_agent_resolves_waits_no_more() -> None:
    """The agent works in an attempt of its own, not in the one whose work did not merge."""
    failed = ev.TaskFailed(task_id="b", attempt_id="b1", duration_s=1.0, error="conflict")
    resolved = ev.ConflictResolved(task_id="b", how="agent", attempt_id="b2", paths=["f"])
    one = found(*BEGUN, clash(), failed, started("b", "b2", "m1"), resolved, *merged("b", "b2", "wb2"))[0]
    assert (one.status, one.how) == ("resolved", "agent")


def test_a_conflict_is_resolved_once_with_how() -> None:
    """The end of its attempt adds nothing to that."""
    resolved = ev.ConflictResolved(task_id="b", how="both", attempt_id="b1")
    one = found(*BEGUN, clash(), resolved, *merged("b", "b1", "wb"))[0]
    assert (one.status, one.how) == ("resolved", "both")


def test_a_later_attempt_has_a_conflict_of_its_own() -> None:
    """The one before it was resolved by running it again."""
    rebased = ev.ConflictResolved(task_id="b", how="rebase", attempt_id="b1")
    first, second = found(*BEGUN, clash(), rebased, started("b", "b2", "m1"), clash("b2"))
    assert (first.status, first.how, second.status) == ("resolved", "rebase", "waiting")


def test_a_conflict_that_became_more_is_listed_once() -> None:
    """As it was told last."""
    one = found(*BEGUN, clash(), clash("b1", "f", "g"))
    assert [(two.status, two.event.paths) for two in one] == [("waiting", ["f", "g"])]


def test_a_task_that_is_cancelled_takes_its_conflict_along() -> None:
    """Nobody has to settle it any more."""
    assert found(*BEGUN, clash(), ev.TaskCancelled(task_id="b", attempt_id="b1"))[0].status == "dropped"
    assert found(*BEGUN, clash(), ev.TaskCancelled(task_id="a"))[0].status == "waiting"


def test_a_gate_that_the_merge_does_not_pass_is_a_conflict_with_its_output() -> None:
    """That of this attempt, the one that failed."""
    gates = [
        ev.GateChecked(scope="merge", command="make test", passed=passed, output=output, attempt_id=attempt_id)
        for passed, output, attempt_id in ((True, "fine", "b1"), (False, "2 failed", "b1"), (False, "other", "a1"))
    ]
    one = found(*BEGUN, *gates, clash("b1", "make test", kind="gate exit 1"))[0]
    assert one.gate is not None
    assert one.gate.output == "2 failed"
