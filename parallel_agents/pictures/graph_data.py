"""The graph of a run and its critical path, as plain data: what ``graph --json`` prints and the terminal shows."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from parallel_agents.costs import usd
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.pictures.course import Course
from parallel_agents.pictures.critical_hops import Hop, shares, stood_still_us
from parallel_agents.pictures.layered import layered
from parallel_agents.pictures.stretches import ATTEMPT, WAIT
from parallel_agents.pictures.wait_words import phrase


def graph_of(course: Course) -> dict[str, Any]:
    """A run as a graph.

    Returns:
        ``nodes``: each task with its layer, its status, its attempts, how long those ran that stand (``worked_s``) and those
        that a rollback has undone (``undone_s``), what all of them cost, how long it waited for what (``waited_s``, by the
        codes of ``why``), and whether it is on the critical path. ``edges``: pairs of the task that is needed and the one that
        needs it. ``critical_path``: hops, oldest first, without a gap; ``link`` says what led to each. ``makespan_s`` is their
        sum, of which ``stood_still_s`` was paused or waited for somebody.
    """
    state, waits = course.state, course.waits
    drawing = layered({name: task.task.dependencies for name, task in state.tasks.items()})
    on_path = {hop.task_id for hop in course.hops if hop.kind == ATTEMPT or hop.length_us}
    nodes = []
    for name, task in state.tasks.items():
        stretches, worked = waits.by_task[name], course.worked(name)
        waited: Counter[str] = Counter()
        for one in stretches:
            if one.kind == WAIT:
                waited[one.code] += one.length_us
        nodes.append(
            {
                "task_id": name, "layer": drawing.at[name][0], "status": task.status, "attempts": task.attempts,
                "worked_s": worked.stands_us / 1e6, "undone_s": worked.undone_us / 1e6,
                "cost_usd": usd(course.cost.by_task[name]),
                "waited_s": {code: length / 1e6 for code, length in waited.items()}, "critical": name in on_path,
            }
        )  # fmt: skip
    return {
        "run_id": state.run_id, "name": state.name, "status": state.status, "seq": waits.seq,
        "submitted_at": rfc3339(waits.begin_us), "makespan_s": (waits.end_us - waits.begin_us) / 1e6,
        "stood_still_s": stood_still_us(course.hops) / 1e6,
        "nodes": nodes,
        "edges": [[other, name] for name, task in state.tasks.items() for other in task.task.dependencies],
        "critical_path": [_hop(hop) for hop in course.hops],
        "critical_s": {code: length / 1e6 for code, length in shares(course.hops).items() if length},
    }  # fmt: skip


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "task_id": hop.task_id, "kind": hop.kind, "code": hop.code, "link": hop.link, "start": rfc3339(hop.start_us),
        "end": rfc3339(hop.end_us), "length_s": hop.length_us / 1e6, "attempt_id": hop.attempt_id or None,
        "why": hop.why or None,
    }  # fmt: skip


_LINKS: Final = {
    "submitted": "submitted", "dependency": "{} was done", "slot": "{} freed a slot", "stage": "{} ended its stage",
    "files": "{} let its files go", "retry": "tried again", "itself": "",
}  # fmt: skip


def link_words(hop: Hop, before: Hop | None) -> str:
    """What led to a hop from the one before it, in few words."""
    return _LINKS[hop.link].format(before.task_id if before is not None else "")


def hop_words(hop: Hop) -> str:
    """What a hop was, in few words."""
    if hop.kind == ATTEMPT:
        return f"attempt ({hop.code})" if hop.code != "completed" else "attempt"
    return f"waits: {phrase(hop.code)}" if hop.kind == WAIT else "had ended, and was opened again"
