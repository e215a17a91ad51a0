"""When the machine lets no further attempt start, and when it does again. Pure."""

from __future__ import annotations

from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.governing import (
    EASE_PERCENT,
    LEFT_BYTES,
    Machine,
    Pressure,
    eased_cpu_percent,
    figures_of,
)
from parallel_agents.scheduler.governing import MEGABYTE as MEGABYTE

ROOM_PERCENT = 110
"""Starts go on at this much of the limit, or every file of a running attempt would stop or release them."""
FREE: Final = "free_bytes"
"""Among the facts of a decision: how much room the disk had; None where that was not known."""
HELD: Final = "held_s"
"""For how long the machine had let a run start nothing, in seconds."""


def decide_throttle(state: RunState, free_bytes: int | None) -> Event | None:
    """Hold the starts of a run back while the disk is nearly full, or let them go on. What runs goes on.

    The measure is told in the event, so what was started when can be understood from the log alone.

    Args:
        free_bytes: where checkouts lie; None where it is unknown, or the run keeps no files.
    """
    if state.status != st.RUNNING or state.cancel_requested:
        return None
    limit = state.plan.settings.min_free_mb * MEGABYTE
    facts = {FREE: free_bytes}
    if st.DISK in state.throttled:
        room = free_bytes is None or free_bytes * 100 >= limit * ROOM_PERCENT
        return ev.DispatchUnthrottled(code=st.DISK, facts=facts) if room else None
    if free_bytes is None or free_bytes >= limit or not (state.counts[st.PENDING] or state.counts[st.QUEUED]):
        return None
    return ev.DispatchThrottled(
        reason=f"the disk is nearly full: {free_bytes // MEGABYTE:,} MB are free where checkouts lie, and nothing starts "
        f"below {state.plan.settings.min_free_mb:,} MB",
        code=st.DISK, facts=facts,
    )  # fmt: skip


TOLD_AFTER_S = 10.0
"""A start that has been held back for so long is told of, however little the machine is short of something."""


def decide_pressed(state: RunState, pressed: Pressure | None, held_s: float) -> Event | None:
    """Throttle a run that the machine lets start nothing: at once where that is hard, else when it has lasted.

    Args:
        pressed: why its next task did not start in this tick, if the machine is why.
        held_s: for how long that has been so.
    """
    if pressed is None or pressed.code not in (st.CPU, st.MEMORY) or pressed.code in state.throttled:
        return None
    if state.status != st.RUNNING or not (pressed.hard or held_s >= TOLD_AFTER_S):
        return None
    return ev.DispatchThrottled(reason=pressed.text, code=pressed.code, facts={**pressed.figures, HELD: held_s})


def decide_eased(state: RunState, machine: Machine, expected: int) -> list[ev.DispatchUnthrottled]:
    """Let a throttled run go on once there is more room than it was throttled at, or nothing waits any more.

    What cannot be measured holds nothing back; ``governing`` will say so again where it must.

    Args:
        expected: bytes of memory that its next task is expected to need; 0 where nobody knows.
    """
    if not (state.throttled and state.status == st.RUNNING):
        return []
    waits = state.counts[st.PENDING] or state.counts[st.QUEUED]
    events: list[ev.DispatchUnthrottled] = []
    facts = figures_of(machine, expected)
    if st.CPU in state.throttled:
        cpu = machine.cpu_percent
        if not waits or cpu is None or cpu <= eased_cpu_percent(state.plan.settings):
            events.append(ev.DispatchUnthrottled(code=st.CPU, facts=facts))
    if st.MEMORY in state.throttled and (not waits or _fits_again(state, machine, expected)):
        events.append(ev.DispatchUnthrottled(code=st.MEMORY, facts=facts))
    return events


def _fits_again(state: RunState, machine: Machine, expected: int) -> bool:
    limit = (state.plan.settings.max_memory_mb or 0) * MEGABYTE
    if not limit or not machine.running:
        return True
    if machine.used_bytes * 100 > limit * EASE_PERCENT or machine.taken_bytes + expected > limit:
        return False
    free = None if machine.available_bytes is None else machine.available_bytes - machine.coming_bytes
    return free is None or (expected + LEFT_BYTES) * 100 <= free * EASE_PERCENT
