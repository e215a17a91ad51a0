"""Why one task of a run is put before another one: by the rank that ``plan`` starts tasks by."""

from __future__ import annotations

from parallel_agents.eventstore.submission import PRIORITIES
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.plan import Agenda, Reason

PRIORITY, CRITICAL_PATH, PLAN_ORDER = "priority", "critical_path", "plan_order"


def sooner(state: RunState, one: str, other: str) -> tuple[str, Reason]:
    """Which of two tasks starts first where both could, and why.

    The state is good for nothing else afterwards: it counts as looked at.
    """
    agenda = Agenda(state)
    ranks = {name: agenda.rank(state.tasks[name]) for name in (one, other)}
    first, second = sorted((one, other), key=ranks.__getitem__)
    (priority, path_s, _), (other_priority, other_path_s, _) = ranks[first], ranks[second]
    if priority != other_priority:
        text = f"{first} has priority {PRIORITIES[priority]}, {second} {PRIORITIES[other_priority]}"
        return first, Reason(PRIORITY, text, (second,))
    same = f"both have priority {PRIORITIES[priority]}"
    if path_s != other_path_s:
        path = f"the longest way to the end of the graph is {-path_s:g} s from {first} and {-other_path_s:g} s from {second}"
        return first, Reason(CRITICAL_PATH, f"{same}, and {path}, as expected", (second,))
    way = f"the longest way to the end of the graph is {-path_s:g} s from both, as expected"
    return first, Reason(PLAN_ORDER, f"{same}, {way}, and {first} stands earlier in the plan", (second,))
