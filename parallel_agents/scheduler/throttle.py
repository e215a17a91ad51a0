"""When the machine lets no further attempt start, and when it does again. Pure."""

from __future__ import annotations

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState

MEGABYTE = 1_000_000
ROOM_PERCENT = 110
"""Starts go on at this much of the limit, or every file of a running attempt would stop or release them."""


def decide_throttle(state: RunState, free_bytes: int | None) -> Event | None:
    """Hold the starts of a run back while the disk is nearly full, or let them go on. What runs goes on.

    The measure is told in the event, so what was started when can be understood from the log alone.

    Args:
        free_bytes: where checkouts lie; None where it is unknown, or the run keeps no files.
    """
    if state.status != st.RUNNING or state.cancel_requested:
        return None
    limit = state.plan.settings.min_free_mb * MEGABYTE
    if state.throttled is not None:
        return ev.DispatchUnthrottled() if free_bytes is None or free_bytes * 100 >= limit * ROOM_PERCENT else None
    if free_bytes is None or free_bytes >= limit or not (state.counts[st.PENDING] or state.counts[st.QUEUED]):
        return None
    return ev.DispatchThrottled(
        reason=f"the disk is nearly full: {free_bytes // MEGABYTE:,} MB are free where checkouts lie, and nothing starts "
        f"below {state.plan.settings.min_free_mb:,} MB"
    )
