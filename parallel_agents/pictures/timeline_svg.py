"""A run over time as a picture: a row for each task, attempts by outcome, waits by reason, and the critical path. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from parallel_agents.eventstore.record import rfc3339
from parallel_agents.pictures import svg
from parallel_agents.pictures.course import CHECKPOINT, CONFLICT, PAUSE, ROLLBACK, Course, Mark
from parallel_agents.pictures.critical_hops import Hop, stood_still_us
from parallel_agents.pictures.stretches import ATTEMPT, OVER, WAIT, Stretch
from parallel_agents.pictures.wait_words import FAMILIES, FAMILY_WORDS, family, phrase

_WIDTH: Final = 1180.0
_LABEL: Final = 30  # Characters of a task's name.
_LEFT: Final = 238.0
_RIGHT: Final = 182.0
_TOP: Final = 74.0
_HIGH: Final = 880.0  # Pixels of 40 tasks: about what fits on a screen.
_SIGNS: Final = {
    "completed": "✓", "failed": "✗", "running": "▶", "blocked": "!", "skipped": "–", "cancelled": "–", "pending": "·",
    "queued": "·",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where what is: pixels and microseconds."""

    begin_us: int
    length_us: int
    row: float  # Height of a row.
    rows: dict[str, int]

    def x(self, at_us: int) -> float:
        inside = min(max(at_us - self.begin_us, 0), self.length_us)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * inside / self.length_us

    def y(self, task_id: str) -> float:
        return _TOP + self.rows[task_id] * self.row

    @property
    def bottom(self) -> float:
        return _TOP + len(self.rows) * self.row


def timeline_svg(course: Course) -> str:
    """The picture, as SVG. Tasks stand in the order in which they first ran; what never did comes last.

    Raises:
        NotAllowed: the run has more tasks than a picture shows.
    """
    waits, state = course.waits, course.state
    svg.check_size(len(state.tasks), "timeline")
    labelled = len(state.tasks) <= svg.MOST_LABELLED
    order = sorted(state.tasks, key=lambda name: (_first_us(waits.by_task[name]), state.tasks[name].index))
    length_us = max(1, waits.end_us - waits.begin_us)
    frame = _Frame(
        waits.begin_us, length_us, 22.0 if labelled else 3.0, {name: place for place, name in enumerate(order)}
    )
    legend, below = _legend(course, frame)
    body = [
        *_heading(course),
        *_axis(frame),
        *(_columns(course) if labelled else ()),
        *(part for name in order for part in _row(course, frame, name, labelled)),
        *_run_marks(course, frame),
        *_path(course.hops, frame),
        *(part for mark in course.marks for part in _mark(mark, frame)),
        *legend,
    ]
    name = svg.clean(state.name) or state.run_id
    counts = ", ".join(f"{count} {status}" for status, count in sorted(state.counts.items()) if count)
    description = (
        f"{len(state.tasks)} tasks ({counts}) over {svg.span_text(waits.end_us - waits.begin_us)}, as of event {waits.seq}."
        f" Critical path: {' → '.join(_on_path(course.hops))}."
    )
    return svg.document(_WIDTH, below + 16, f"Timeline of {name}, run {state.run_id}", description, body)


def _first_us(stretches: list[Stretch]) -> int:
    return next((one.start_us for one in stretches if one.kind == ATTEMPT), 1 << 62)


def _on_path(hops: list[Hop]) -> list[str]:
    """The tasks whose attempts are on the path, in that order, each once in a row."""
    names = [hop.task_id for hop in hops if hop.kind == ATTEMPT]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


def _heading(course: Course) -> Iterator[str]:
    waits, state = course.waits, course.state
    length_us = waits.end_us - waits.begin_us
    yield svg.words(f"{state.name or 'run'}  ·  {state.run_id}  ·  {state.status}", 16, 26, "h ink")
    parts = [f"submitted {rfc3339(waits.begin_us)[:19]}Z", f"took {svg.span_text(length_us)}"]
    if (still_us := stood_still_us(course.hops)) >= svg.TOLD_US:
        parts.append(f"{svg.span_text(still_us)} of that it stood still")
    if course.cost.usd_micros or course.cost.unknown:
        parts.append(f"cost {'at least ' if course.cost.unknown else ''}{svg.money_text(course.cost.usd_micros)}")
    if state.status not in ("completed", "failed", "cancelled"):
        parts.append(f"as of event {waits.seq}")
    yield svg.words("  ·  ".join(parts), 16, 46, "dim")


def _axis(frame: _Frame) -> Iterator[str]:
    length_s = frame.length_us / 1e6
    marks = svg.ticks(length_s, 10)
    step_s = marks[1] if len(marks) > 1 else length_s
    for seconds in marks:
        x, text = frame.x(frame.begin_us + round(seconds * 1e6)), svg.tick_text(seconds, step_s)
        yield svg.line("grid", [(x, _TOP - 6), (x, frame.bottom)])
        for y in _axis_heights(frame):
            yield svg.words(text, x, y, "dim", "middle")


def _axis_heights(frame: _Frame) -> Iterator[float]:
    """Where the axis has its numbers: above, and in a high picture below and between small rows, for who scrolls."""
    yield _TOP - 10
    if frame.bottom - _TOP < _HIGH:
        return
    if frame.row < 10:
        yield from range(round(_TOP - 10 + _HIGH), round(frame.bottom - _HIGH / 2), round(_HIGH))
    yield frame.bottom + 22


def _columns(course: Course) -> Iterator[str]:
    yield svg.words("took", _WIDTH - 76, _TOP - 10, "dim", "end")
    if course.cost.usd_micros:
        yield svg.words("cost", _WIDTH - 12, _TOP - 10, "dim", "end")


def _row(course: Course, frame: _Frame, name: str, labelled: bool) -> Iterator[str]:
    task, y = course.state.tasks[name], frame.y(name)
    stretches = course.waits.by_task[name]
    worked = course.worked(name)
    usd_micros = course.cost.by_task[name]
    waited: Counter[str] = Counter()
    for one in stretches:
        if one.kind == WAIT:
            waited[phrase(one.code)] += one.length_us
    about = svg.title(
        name, f"{task.status}, {task.task.agent_type}" + (f", {task.model}" if task.model else ""),
        f"attempts: {task.attempts}, which took {svg.span_text(worked.stands_us)}",
        f"undone by a rollback: attempts that took {svg.span_text(worked.undone_us)}" if worked.undone_us else "",
        f"cost: {svg.money_text(usd_micros)}" if usd_micros else "",
        *(f"waited {svg.span_text(length)}: {words}" for words, length in waited.most_common()),
    )  # fmt: skip
    if labelled:
        if frame.rows[name] % 2:
            yield svg.box("band", 8, y, _WIDTH - 16, frame.row)
        sign = _SIGNS.get(task.status, "?")
        yield svg.words(f"{sign} {svg.shortened(name, _LABEL)}", 16, y + 15, "ink", "start", about)
        if worked.stands_us:
            tries = f"×{task.attempts} " if task.attempts > 1 else ""
            yield svg.words(f"{tries}{svg.span_text(worked.stands_us)}", _WIDTH - 76, y + 15, "dim", "end")
        if usd_micros:
            yield svg.words(svg.money_text(usd_micros), _WIDTH - 12, y + 15, "dim", "end")
    for one in stretches:
        if one.kind != OVER:
            yield _bar(course, frame, one, "" if labelled else name)


def _bar(course: Course, frame: _Frame, one: Stretch, name: str) -> str:
    """One attempt, or one wait, which is thin."""
    x, y, full = frame.x(one.start_us), frame.y(one.task_id), frame.row
    width = max(frame.x(one.end_us) - x, 0.6)
    when = f"from {svg.span_text(one.start_us - frame.begin_us)} on, for {svg.span_text(one.length_us)}"
    if one.kind == WAIT:
        about = svg.title(name, f"waits: {phrase(one.code)}", one.why, when)
        return svg.box(f"w-{family(one.code)}", x, y + full * 0.4, width, full * 0.2, about)
    span = course.spans[one.attempt_id]
    outcome = one.code if span.outcome == "running" and one.code == "running" else span.outcome
    lines = [name, f"attempt {span.attempt}: {outcome.replace('_', ' ')}" + (" (undone)" if span.undone else ""), when]
    kind = f"{outcome}{' undone' if span.undone else ''}"
    return svg.box(
        kind, x, y + full * 0.16, max(width, 1.5), full * 0.68, svg.title(*lines), radius=min(2.0, width / 2)
    )


def _run_marks(course: Course, frame: _Frame) -> Iterator[str]:
    for mark in course.marks:
        if mark.kind == ROLLBACK:
            x = frame.x(mark.at_us)
            yield svg.line("undo", [(x, _TOP - 4), (x, frame.bottom + 4)], svg.title(mark.text, rfc3339(mark.at_us)))


def _mark(mark: Mark, frame: _Frame) -> Iterator[str]:
    """A cross where work met other work, a diamond where files were kept, two bars where the run was paused."""
    x = frame.x(mark.at_us)
    y = frame.bottom + 8 if mark.task_id is None or mark.task_id not in frame.rows else frame.y(mark.task_id)
    if frame.row < 10 and mark.kind == CHECKPOINT:
        return
    about = svg.title(f"{mark.text}{' (undone)' if mark.undone else ''}", rfc3339(mark.at_us))
    undone = " undone" if mark.undone else ""
    match mark.kind:
        case "conflict":
            strokes = "l4 4l4 -4l1.5 1.5l-4 4l4 4l-1.5 1.5l-4 -4l-4 4l-1.5 -1.5l4 -4l-4 -4z"
            shape = f"M{svg.number(x - 4)} {svg.number(y + 1)}{strokes}"
            yield svg.element("path", {"class": f"mark{undone}", "d": shape}, about)
        case "checkpoint":
            shape = f"M{svg.number(x)} {svg.number(y)}l3 3l-3 3l-3 -3z"
            yield svg.element("path", {"class": f"dim{undone}", "d": shape}, about)
        case "pause":
            shape = f"M{svg.number(x - 3)} {svg.number(y - 3)}h2v7h-2zM{svg.number(x + 1)} {svg.number(y - 3)}h2v7h-2z"
            yield svg.element("path", {"class": f"dim{undone}", "d": shape}, about)
        case _:
            pass


def _path(hops: list[Hop], frame: _Frame) -> Iterator[str]:
    """The critical path: along the foot of each row that it is in, and up or down to the next."""
    if not hops:
        return
    points: list[tuple[float, float]] = []
    for hop in hops:
        y = frame.y(hop.task_id) + frame.row * 0.91
        for at_us in (hop.start_us, hop.end_us):
            point = (frame.x(at_us), y)
            if not points or points[-1] != point:
                points.append(point)
    told = " → ".join(_on_path(hops)[:40])
    yield svg.line("path" if frame.row > 10 else "path thin", points, svg.title("critical path", told))


def _legend(course: Course, frame: _Frame) -> tuple[list[str], float]:
    """What the colours and signs mean, as far as they are there; and where that ends."""
    outcomes = {span.outcome for span in course.spans.values()}
    seen = {family(one.code) for of in course.waits.by_task.values() for one in of if one.kind == WAIT}
    entries = [(name, name.replace("_", " "), 0.0) for name in svg.COLOURS if name in outcomes]
    entries += [(f"w-{name}", f"waits: {FAMILY_WORDS[name]}", 3.0) for name in FAMILIES if name in seen]
    kinds = {mark.kind for mark in course.marks}
    signs = [(CONFLICT, "✖ conflict"), (CHECKPOINT, "◆ checkpoint"), (PAUSE, "❙❙ paused"), (ROLLBACK, "┆ rolled back")]
    entries += [("", text, 0.0) for kind, text in signs if kind in kinds]
    entries += [("", "━ critical path", 0.0)] if course.hops else []
    parts: list[str] = []
    x, y = 16.0, frame.bottom + 44
    for kind, text, inset in entries:
        width = (31 if kind else 12) + len(text) * svg.CHAR_PX * 0.92
        if x + width > _WIDTH - 16:
            x, y = 16.0, y + 20
        if kind:
            parts.append(svg.box(kind, x, y - 9 + inset, 14, 10 - 2 * inset))
        parts.append(svg.words(text, x + (19 if kind else 0), y, "dim"))
        x += width
    return parts, y
