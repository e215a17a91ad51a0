"""What the machine lets the starts of a run wait for, as far as the log tells. As plain data.

Who looks has no sampler. The log tells when starts were throttled and why, how wide the pool is, and how much memory the
attempts that run were expected to need.
"""

from __future__ import annotations

from typing import Any

from parallel_agents.projections import status as st
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.governing import (
    Machine,
    least_workers,
    limited,
    machine_of,
    most_workers,
    width,
)
from parallel_agents.scheduler.machine_load import UNKNOWN


def machine_in_log(projector: Projector, state: RunState, occupancy: Occupancy, end: int) -> Machine | None:
    """What the starts of a run depend on, without the load; None where the run asks for none of it.

    Args:
        occupancy: of the store at ``end``, the last event that is looked at.
    """
    settings = state.plan.settings
    if not limited(settings):
        return None
    return machine_of(UNKNOWN, occupancy, Needs() if settings.max_memory_mb is None else projector.needs(end))


def machine_waits(state: RunState) -> dict[str, Any]:
    """The part of ``status`` that tells of the machine: why starts wait, and how wide the pool of workers is."""
    settings = state.plan.settings
    going = state.status == st.RUNNING and bool(state.counts[st.PENDING] or state.counts[st.QUEUED])
    return {
        "throttled": [{"code": code, "reason": reason} for code, reason in state.throttled.items()] if going else [],
        "workers": {"now": width(state), "least": least_workers(settings), "most": most_workers(settings)},
    }
