"""The graph of a run as a picture: tasks in layers, what became of each, and the critical path of what happened. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from parallel_agents.pictures import svg
from parallel_agents.pictures.course import Course
from parallel_agents.pictures.critical_hops import DEPENDENCY, stood_still_us
from parallel_agents.pictures.layered import Drawing, arranged
from parallel_agents.pictures.stretches import ATTEMPT, WAIT
from parallel_agents.pictures.wait_words import phrase

_TOP: Final = 64.0
_LEGEND: Final = 44.0
_FACTS: Final = 30  # Characters that a box has room for; its tooltip has the rest.
_SIGNS: Final = {"completed": "✓", "failed": "✗", "running": "▶", "blocked": "!"}
_LEAST_WIDTH: Final = 640.0


class _Sizes:
    """Pixels of a node and of what is between nodes."""

    def __init__(self, labelled: bool) -> None:
        self.width, self.height = (182.0, 42.0) if labelled else (10.0, 6.0)
        self.across, self.down = (56.0, 14.0) if labelled else (14.0, 4.0)

    def x(self, column: int) -> float:
        return 16 + column * (self.width + self.across)

    def y(self, row: float) -> float:
        return _TOP + row * (self.height + self.down)


def graph_svg(course: Course) -> str:
    """The picture, as SVG: what is needed stands to the left of what needs it.

    Raises:
        NotAllowed: the run has more tasks than a picture shows.
    """
    waits, state = course.waits, course.state
    svg.check_size(len(state.tasks), "graph")
    labelled = len(state.tasks) <= svg.MOST_LABELLED
    drawing = arranged({name: task.task.dependencies for name, task in state.tasks.items()})
    sizes = _Sizes(labelled)
    leads = [(a.task_id, b.task_id, b.link) for a, b in pairwise(course.hops) if a.task_id != b.task_id]
    on_path = {hop.task_id for hop in course.hops if hop.kind == ATTEMPT or hop.length_us}
    body = [*_heading(course), *_edges(course, drawing, sizes, leads)]
    for name in state.tasks:
        body += _node(course, drawing, sizes, name, labelled, name in on_path)
    width = max(_LEAST_WIDTH, sizes.x(drawing.columns) - sizes.across + 16)
    bottom = sizes.y(drawing.rows) + 12
    body += _legend(course, leads, bottom)
    edges = sum(len(task.task.dependencies) for task in state.tasks.values())
    description = (
        f"{len(state.tasks)} tasks, {edges} dependencies, as of event {waits.seq}. On the "
        f"critical path: {', '.join(name for name in state.tasks if name in on_path)}."
    )
    name = svg.clean(state.name) or state.run_id
    return svg.document(width, bottom + _LEGEND, f"Graph of {name}, run {state.run_id}", description, body)


def _heading(course: Course) -> Iterator[str]:
    state, waits = course.state, course.waits
    yield svg.words(f"{state.name or 'run'}  ·  {state.run_id}  ·  {state.status}", 16, 26, "h ink")
    still_us = stood_still_us(course.hops)
    length_us = waits.end_us - waits.begin_us
    parts = [f"{len(state.tasks)} tasks", svg.span_text(length_us)]
    parts += [f"{svg.span_text(still_us)} of that it stood still"] if still_us >= svg.TOLD_US else []
    if course.cost.usd_micros:
        parts.append(svg.money_text(course.cost.usd_micros))
    yield svg.words("  ·  ".join(parts), 16, 46, "dim")


def _edges(course: Course, drawing: Drawing, sizes: _Sizes, leads: list[tuple[str, str, str]]) -> Iterator[str]:
    """Dependencies, those of the critical path last; then what else led from one task to another on it."""
    by_dependency = {(a, b) for a, b, link in leads if link == DEPENDENCY}
    edges = [
        (other, name)
        for name, task in course.state.tasks.items()
        for other in dict.fromkeys(task.task.dependencies)
        if other in course.state.tasks
    ]
    for other, name in sorted(edges, key=lambda edge: edge in by_dependency):
        kind = "path" if (other, name) in by_dependency else "edge"
        yield _edge(drawing, sizes, other, name, kind)
    for a, b, link in dict.fromkeys(leads):
        if link != DEPENDENCY:
            yield _released(drawing, sizes, a, b, link)


def _edge(drawing: Drawing, sizes: _Sizes, a: str, b: str, kind: str) -> str:
    """A smooth line through the bends of an edge, with a tip at its end."""
    column, row = drawing.at[a]
    x, y = sizes.x(column) + sizes.width, sizes.y(row) + sizes.height / 2
    drawn = [f"M{svg.number(x)} {svg.number(y)}"]
    places = [*drawing.bends.get((a, b), ()), drawing.at[b]]
    for index, (layer, height) in enumerate(places):
        left, middle = sizes.x(layer), sizes.y(height) + sizes.height / 2
        end = left - (5 if index == len(places) - 1 else 0)
        half = (x + end) / 2
        curve = (half, y, half, middle, end, middle)
        drawn.append("C" + " ".join(map(svg.number, curve)))
        x, y = end, middle
        if index < len(places) - 1:
            x = left + sizes.width
            drawn.append(f"H{svg.number(x)}")
    tip = f"M{svg.number(x)} {svg.number(y - 3.5)}l6 3.5l-6 3.5z"
    tip_kind = "path-tip" if kind == "path" else "tip"
    about = svg.title(f"{b} depends on {a}")
    line = svg.element("path", {"class": kind, "d": "".join(drawn)}, about)
    return line + svg.element("path", {"class": tip_kind, "d": tip})


def _released(drawing: Drawing, sizes: _Sizes, a: str, b: str, link: str) -> str:
    """That the end of one task let another one start that does not depend on it."""
    (column_a, row_a), (column_b, row_b) = drawing.at[a], drawing.at[b]
    x, y = sizes.x(column_a) + sizes.width / 2, sizes.y(row_a) + sizes.height / 2
    to_x, to_y = sizes.x(column_b) + sizes.width / 2, sizes.y(row_b) + sizes.height / 2
    about = svg.title(f"{b} started when {a} ended: {link}")
    return svg.line("path slot", [(x, y), (to_x, to_y)], about)


def _node(course: Course, drawing: Drawing, sizes: _Sizes, name: str, labelled: bool, bold: bool) -> Iterator[str]:
    task = course.state.tasks[name]
    column, row = drawing.at[name]
    x, y = sizes.x(column), sizes.y(row)
    stretches = course.waits.by_task[name]
    worked = course.worked(name)
    waited: Counter[str] = Counter()
    for one in stretches:
        if one.kind == WAIT:
            waited[phrase(one.code)] += one.length_us
    usd_micros = course.cost.by_task[name]
    about = svg.title(
        name, f"{task.status}, {task.task.agent_type}" + (f", {task.model}" if task.model else ""),
        f"attempts: {task.attempts}, which took {svg.span_text(worked.stands_us)}",
        f"undone by a rollback: attempts that took {svg.span_text(worked.undone_us)}" if worked.undone_us else "",
        f"cost: {svg.money_text(usd_micros)}" if usd_micros else "", "on the critical path" if bold else "",
        *(f"waited {svg.span_text(length)}: {words}" for words, length in waited.most_common()),
    )  # fmt: skip
    if not labelled:
        yield svg.box(task.status, x, y, sizes.width, sizes.height, about)
        if bold:
            yield svg.box("path thin", x - 1.5, y - 1.5, sizes.width + 3, sizes.height + 3)
        return
    parts = [_SIGNS.get(task.status, "") or task.status]
    parts += [svg.span_text(worked.stands_us)] if task.attempts or worked.stands_us else []
    parts += [f"×{task.attempts}"] if task.attempts > 1 else []
    parts += [svg.money_text(usd_micros)] if usd_micros else []
    undone = f"{svg.span_text(worked.undone_us)} undone"
    parts += [undone] if worked.undone_us and len(" · ".join([*parts, undone])) <= _FACTS else []
    yield svg.box("band", x, y, sizes.width, sizes.height, about, radius=4)
    yield svg.box(task.status, x, y, 6, sizes.height, radius=2)
    yield _frame(x, y, sizes, "path" if bold else "grid")
    yield svg.words(svg.shortened(name, 24), x + 14, y + 17, "b ink" if bold else "ink", "start", about)
    yield svg.words(" · ".join(parts), x + 14, y + 33, "dim", "start", about)


def _frame(x: float, y: float, sizes: _Sizes, kind: str) -> str:
    return svg.box(kind, x, y, sizes.width, sizes.height, radius=4)


def _legend(course: Course, leads: list[tuple[str, str, str]], y: float) -> Iterator[str]:
    """The statuses that are there, and the two kinds of line of the critical path."""
    x = 16.0
    for status in (name for name in svg.COLOURS if course.state.counts.get(name)):
        yield svg.box(status, x, y + 11, 12, 10)
        text = f"{course.state.counts[status]} {status}"
        yield svg.words(text, x + 17, y + 20, "dim")
        x += 32 + len(text) * svg.CHAR_PX
    if course.hops:
        yield svg.line("path", [(x, y + 16), (x + 22, y + 16)])
        yield svg.words("critical path", x + 28, y + 20, "dim")
        x += 40 + 13 * svg.CHAR_PX
    if any(link != DEPENDENCY for _, _, link in leads):
        yield svg.line("path slot", [(x, y + 16), (x + 22, y + 16)])
        yield svg.words("let start otherwise than by a dependency", x + 28, y + 20, "dim")
