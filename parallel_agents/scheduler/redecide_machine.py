"""What was said of the machine, of the pool of workers and of attempts that look stuck, decided again. Pure.

What was measured then stands in the facts of each event. An older release has recorded none, so what it said is not judged,
but for attempts: what was seen of those stands in the event itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.occupancy import EXPECTED_MEMORY
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.governing import TASK, Pressure, ask_machine, machine_from
from parallel_agents.scheduler.health import SILENT, Pulse, Vitals, decide_health, pulse_from
from parallel_agents.scheduler.scaling import decide_width, gauge_from
from parallel_agents.scheduler.throttle import FREE, HELD, decide_eased, decide_pressed, decide_throttle
from parallel_agents.scheduler.verdicts import Divergence, Judged, missing

_ROUNDED_S: Final = 0.05
"""How far silence is off at most that is told in tenths of a second."""


def judge_machine(state: RunState, commit: Sequence[Recorded], at: int, judged: Judged) -> Divergence | None:
    """Whether starts are to wait for the machine, or go on; and how wide the pool of workers is to be.

    Args:
        at: the place of what was said.
    """
    record = commit[at]
    match record.event:
        case ev.DispatchThrottled(facts=facts) | ev.DispatchUnthrottled(facts=facts) if FREE in facts:
            return judged.as_made(record, decide_throttle(state, facts[FREE]), ("code",))
        case ev.DispatchThrottled(facts=facts) if HELD in facts:
            return judged.as_made(record, _pressed(state, record.event), ("code",))
        case ev.DispatchUnthrottled(code=code, facts=facts) if facts:
            eased = decide_eased(state, machine_from(facts), facts.get(EXPECTED_MEMORY, 0))
            said = judged.as_made(record, next((one for one in eased if one.code == code), None), ())
            return said or _eased_too(commit, at, eased)
        case ev.WorkersScaled(facts=facts) if facts:
            made = decide_width(state, gauge_from(facts), record.at_us)
            return judged.as_made(record, made, ("workers", "wait_s"))
        case _:
            judged.unjudged(record)
            return None


def _pressed(state: RunState, told: ev.DispatchThrottled) -> Event | None:
    facts = told.facts
    task = state.tasks.get(facts[TASK])
    found = None if task is None else ask_machine(state, task, machine_from(facts), facts.get(EXPECTED_MEMORY, 0))
    return decide_pressed(state, found, facts[HELD]) if isinstance(found, Pressure) else None


def _eased_too(commit: Sequence[Recorded], at: int, eased: Sequence[ev.DispatchUnthrottled]) -> Divergence | None:
    """What has become free by the same look, and is told after it."""
    told, after = commit[at].event, commit[at + 1].event if at + 1 < len(commit) else None
    assert isinstance(told, ev.DispatchUnthrottled)
    codes = [one.code for one in eased]
    later = eased[codes.index(told.code) + 1 :]
    follows = isinstance(after, ev.DispatchUnthrottled) and bool(later) and after.code == later[0].code
    return None if not later or follows else missing(commit[at], after, later[0])


def judge_health(state: RunState, record: Recorded, judged: Judged) -> Divergence | None:
    """Whether an attempt looks stuck by what was seen of it, or goes on; each is said once."""
    told = record.event
    assert isinstance(told, ev.AttemptStuck | ev.AttemptRevived)
    settings = state.plan.settings
    task_id = state.running.get(told.attempt_id)
    if task_id is None or settings.health_check_s is None:
        return judged.as_made(record, None, ())
    pulse = _pulse_of(told)
    if pulse is None:
        judged.unjudged(record)
        return None
    made = decide_health(state.tasks[task_id], pulse, round(settings.stuck_after_s * 1e6), "")
    return judged.as_made(record, made, ("task_id", "kind") if isinstance(told, ev.AttemptStuck) else ("task_id",))


def _pulse_of(told: ev.AttemptStuck | ev.AttemptRevived) -> Pulse | None:
    """What was seen; None where it is not recorded."""
    if isinstance(told, ev.AttemptRevived):
        return Pulse(Vitals(0, 0.0), looked_us=0, sign_us=0, moved=True)
    checkout = told.kind != "checkout"
    if told.facts:
        return pulse_from(told.facts, checkout=checkout)
    return None if told.kind == "process" else pulse_from({SILENT: told.silent_s + _ROUNDED_S}, checkout=checkout)
