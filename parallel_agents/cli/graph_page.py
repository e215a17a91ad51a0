"""A run as a graph on a terminal: its tasks layer by layer, and its critical path hop by hop."""

from __future__ import annotations

from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.pictures.course import Course
from parallel_agents.pictures.graph_data import graph_of, hop_words, link_words
from parallel_agents.pictures.stretches import ATTEMPT
from parallel_agents.pictures.svg import shortened

_NAME = 40  # Characters of a task's name on the path; the table above has all of it.


def graph_page(course: Course) -> None:
    """Print the graph and the path."""
    found, state = graph_of(course), course.state
    head = [drawing.state_text(state.status), Text(state.name, style="bold"), Text(state.run_id)]
    head += [drawing.counts_text(state.counts, len(state.tasks)), Text(drawing.duration(found["makespan_s"]) or "")]
    undone = any(node["undone_s"] for node in found["nodes"])
    rows = [
        (
            node["layer"] + 1,
            drawing.state_text(node["status"]),
            Text(node["task_id"], style="bold" if node["critical"] else ""),
            node["attempts"] or None,
            drawing.duration(node["worked_s"] or None),
            *([drawing.duration(node["undone_s"] or None)] if undone else []),
            drawing.dollars(node["cost_usd"]) if node["cost_usd"] else None,
            ", ".join(state.tasks[node["task_id"]].task.dependencies),
        )
        for node in sorted(found["nodes"], key=lambda node: node["layer"])
    ]
    headings = ("LAYER", "STATUS", "TASK", "TRIES", "TOOK", *(["UNDONE"] if undone else []), "COST", "NEEDS…")
    lines: list[Text] = [
        Text("  ").join(head),
        Text(""),
        *drawing.table(headings, rows, right=(0, 3, 4, 5, 6) if undone else (0, 3, 4, 5)),
    ]
    drawing.show(lines)
    if not course.hops:
        return
    still = found["stood_still_s"]
    until = "the last end" if state.ended else f"event {found['seq']}"
    says = f"critical path: {drawing.duration(found['makespan_s'])} from the submission to {until}"
    says += f", of which {drawing.duration(still)} stood still" if still >= 0.1 else ""
    begin_us = course.waits.begin_us
    hops = [
        (
            drawing.duration((hop.start_us - begin_us) / 1e6),
            drawing.duration(hop.length_us / 1e6),
            Text(shortened(hop.task_id, _NAME), style="bold" if hop.kind == ATTEMPT else "dim"),
            hop_words(hop),
            shortened(link_words(hop, before), _NAME + 20),
        )
        for before, hop in zip([None, *course.hops], course.hops, strict=False)
    ]
    table = drawing.table(("AT", "FOR", "TASK", "WHAT", "BECAUSE…"), hops, right=(0, 1))
    drawing.show([Text(""), Text(says, style="bold"), *table])
