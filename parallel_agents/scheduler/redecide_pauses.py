"""Pauses and ends of a run that followed from what befell its attempts, its stages and its time, decided again. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide import MAX_EXECUTION, PAUSES, USED, decide_end_pause, decide_overdue
from parallel_agents.scheduler.decide_money import waited_for
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged, missing
from parallel_agents.scheduler.work import CONFLICT, decide_conflict_pause, decide_stage


def judge_pause(state: RunState, commit: Sequence[Recorded], at: int, judged: Judged) -> Divergence | None:
    """Whether a run is to be paused because of what has just befallen an attempt of it.

    A commit of somebody else's on the branch of the run is what only git knows.

    Args:
        at: the place of a pause that is none for want of money.
    """
    record = commit[at]
    assert isinstance(record.event, ev.RunPaused)
    if record.event.code in PAUSES:
        return judged.as_made(record, _after_failure(state, commit, at), ("code",))
    if at and _is_conflict(state, commit, at - 1):
        return judged.as_made(record, decide_conflict_pause(state, "", ""), ("code",))
    judged.unjudged(record)
    return None


def unpaused(state: RunState, commit: Sequence[Recorded], at: int) -> Divergence | None:
    """A pause that was to follow from an end, and did not.

    Args:
        state: before that end.
        at: the place of the last event that tells of it, but for a pause.
    """
    after = commit[at + 1].event if at + 1 < len(commit) else None
    due = _after_failure(state, commit, at + 1)
    if due is None and _is_conflict(state, commit, at):
        due = decide_conflict_pause(state, "", "")
    paused = isinstance(after, ev.RunPaused) and due is not None and after.code == due.code
    return None if due is None or paused else missing(commit[at], after, due)


def judge_cancel(
    state: RunState, commit: Sequence[Recorded], at: int, around: Around, judged: Judged
) -> Divergence | None:
    """Whether a run is to be ended by itself: its time is up, or a gate at the end of a stage has failed.

    Args:
        at: the place of what asks for its end.
    """
    record = commit[at]
    asked = record.event
    assert isinstance(asked, ev.RunCancelRequested)
    if asked.reason == MAX_EXECUTION and USED in asked.facts:
        spend = around.spend
        waits = spend is not None and any(one.until_us > record.at_us for one in waited_for(spend, state))
        return judged.as_made(
            record, None if waits else decide_overdue(state, round(asked.facts[USED] * 1e6)), ("reason",)
        )
    gates = _gates_before(commit, at)
    if asked.reason == MAX_EXECUTION or not gates or all(gate.passed for gate in gates):
        judged.unjudged(record)
        return None
    return judged.as_made(record, next(iter(decide_stage(state, gates[0].stage or 0, gates)[-1:]), None), ())


def ungated(state: RunState, commit: Sequence[Recorded], at: int) -> Divergence | None:
    """The end of a run that was to follow from the gates of a stage, and did not.

    Args:
        at: the place of a gate.
    """
    gate = commit[at].event
    assert isinstance(gate, ev.GateChecked)
    after = [one.event for one in commit[at + 1 :]]
    if gate.scope != "stage" or (after and isinstance(after[0], ev.GateChecked)):
        return None
    for due in decide_stage(state, gate.stage or 0, _gates_before(commit, at + 1)):
        found = after.pop(0) if after else None
        if type(found) is not type(due):
            return missing(commit[at], found, due)
    return None


def _after_failure(state: RunState, commit: Sequence[Recorded], at: int) -> ev.RunPaused | None:
    """The pause that is due at a place because of the failure right before it, which is followed by another attempt."""
    if at < 2 or not isinstance(commit[at - 1].event, ev.TaskRetryScheduled):
        return None
    failed = commit[at - 2].event
    return decide_end_pause(state, "", failed.kind, "") if isinstance(failed, ev.TaskFailed) else None


def _is_conflict(state: RunState, commit: Sequence[Recorded], at: int) -> bool:
    """Whether an event leaves work as it is that did not merge: with a person, or given up."""
    end = commit[at].event
    match end:
        case ev.TaskBlocked(reason=reason) if reason.startswith(CONFLICT):
            pass
        case ev.TaskFailed() if state.plan.files.conflicts == "abort":
            pass
        case _:
            return False
    found = (one.event for one in commit[:at])
    return any(
        isinstance(one, ev.ConflictDetected) and not one.early and one.attempt_id == end.attempt_id for one in found
    )


def _gates_before(commit: Sequence[Recorded], at: int) -> list[ev.GateChecked]:
    """The gates of a stage that were run before a place."""
    found: list[ev.GateChecked] = []
    for one in reversed(commit[:at]):
        event: Event = one.event
        if isinstance(event, ev.GateChecked) and event.scope == "stage":
            found.insert(0, event)
        elif not isinstance(event, ev.CheckpointRestored) or found:
            break
    return found
