"""What the debugger draws at once, from the state at the cursor alone: events, head, graph, one event, what is set beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from rich.text import Text

from parallel_agents import look
from parallel_agents.cli import drawing
from parallel_agents.cli.harmless import json_text
from parallel_agents.cli.history_page import style_of
from parallel_agents.cli.sentences import sentence

_DEEPEST: Final = 8  # Levels of the graph that are told by how far a task is indented.
_BAR: Final = 12  # Characters.


def event_line(session: Any, number: int, width: int) -> Text:
    """One event: what is set there, its number, its time, its type, its task, and what it says."""
    row = session.tape.row(number)
    event = look.history_row(row)
    task = str(event["data"].get("task_id") or "")
    letter = next((letter for letter, position in session.marks.items() if position == number), "")
    stops = any(row.type in one.types or (one.task_id and one.task_id == task) for one in session.breakpoints)
    line = Text("▶" if number == session.position else " ")
    line.append(letter or ("●" if stops else " "), style="bold cyan" if letter else "bold red")
    line.append(f" {row.seq:>{len(str(session.tape.seqs[-1]))}} ", style="dim")
    if width > 50:
        line.append(f"{_clock(event['at'])} ", style="dim")
    wide = 21 if width > 50 else 18
    line.append(f"{row.type if len(row.type) < wide else row.type[: wide - 2] + '…':<{wide}}", style=style_of(row.type))
    line.append(f"{task} " if task else "", style="bold")
    known = session.is_known(number)  # Else no state can be made of it, which ends the session in a moment.
    line.append(drawing.one_line(sentence(event)) if known else "an event that this release does not know")
    if session.is_undone(number):
        line.stylize("dim strike")
    line.truncate(width, overflow="ellipsis")
    return line


def head_lines(session: Any, width: int, remark: str) -> Text:
    """Where the run stands, where the cursor is, and what was spent."""
    frame = session.frame
    state, cost = frame.state, frame.cost
    tape, position = session.tape, session.position
    counts = {name: state.counts[name] for name in _COUNTED if state.counts[name]}
    first = Text().append_text(drawing.state_text(state.status or "nothing"))
    first.append("  ").append_text(drawing.counts_text(counts, len(state.tasks)))
    first.append(f"  {drawing.one_line(state.name)}", style="bold")
    passed = drawing.duration((tape.at_us[position] - tape.at_us[0]) / 1e6)
    second = Text().append(f"event {tape.seqs[position]} ", style="bold")
    second.append(f"({position + 1:,} of {len(tape):,})  {_clock(look.time_text(tape.at_us[position]))}  +{passed}")
    second.append(f"  {remark}" if remark else "", style="bold cyan")
    third = Text().append("cost ", style="dim").append_text(_money(state, cost))
    short = ", ".join(state.throttled)
    third.append(f"  short of {short}" if short else "", style="bold magenta")
    reason = state.reason.replace("_", " ") if state.status in ("paused", "failed", "cancelled") else ""
    third.append(f"  {drawing.one_line(reason)}" if reason else "", style="dim")
    fourth = Text(drawing.one_line(sentence(look.history_row(session.row))), style="italic")
    lines = [first, second, third, fourth]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


_COUNTED: Final = ("completed", "running", "queued", "pending", "blocked", "failed", "cancelled", "skipped")


def _money(state: Any, cost: Any) -> Text:
    spent = cost.usd_micros / 1e6
    text = Text(f"{'at least ' if cost.unknown else ''}{drawing.dollars(spent)}")
    if state.budget_usd_micros is None:
        return text.append(", no budget", style="dim")
    share = cost.usd_micros / state.budget_usd_micros if state.budget_usd_micros else 1.0
    style = "red" if share >= 0.9 else "yellow" if share >= 0.75 else "green"
    full = min(_BAR, round(share * _BAR))
    text.append(f" of {drawing.dollars(state.budget_usd_micros / 1e6)} ")
    return (
        text.append("█" * full, style=style)
        .append("░" * (_BAR - full), style="dim")
        .append(f" {share:.0%}", style=style)
    )


def watch_lines(watched: Sequence[Any], width: int) -> Text:
    """The watch expressions; a value that the event has changed stands out, with what it was."""
    lines = []
    for one in watched:
        line = Text().append(f"{one.text} = ", style="dim").append(shown(one.value), style="bold")
        if one.value != one.before:
            line.append(f"  (was {shown(one.before)})", style="yellow")
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return Text("\n").join(lines)


def shown(value: Any) -> str:
    """A value of an expression."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case str():
            return repr(drawing.one_line(value))
        case _:
            return str(value)


def in_order(session: Any) -> list[str]:
    """The tasks as the graph shows them: a task behind all that it needs, and beside those that wait for as many."""
    levels = session.levels()
    tasks = session.frame.state.tasks
    return sorted(tasks, key=lambda name: (tasks[name].task.stage, levels[name], tasks[name].index))


def task_line(session: Any, name: str, width: int) -> Text:
    """One task of the graph: as far to the right as it is deep, with its state, its attempts and what it waits for."""
    state = session.frame.state
    task = state.tasks[name]
    depth = min(session.levels()[name], _DEEPEST)
    sign, style = drawing.SIGNS[task.status]
    line = (
        Text("  " * depth)
        .append(f"{sign} ", style=style)
        .append(name, style="bold" if task.status == "running" else "")
    )
    line.append(f" {task.status}", style=style)
    if task.attempts > 1:
        line.append(f" ×{task.attempts}", style="yellow")
    took = task.duration_s
    if task.status == "running" and task.started_at_us is not None:
        took = max(0, session.tape.at_us[session.position] - task.started_at_us) / 1e6
    if took is not None:
        line.append(f" {drawing.duration(took)}", style="dim")
    if task.task.dependencies:
        line.append(f" ← {', '.join(task.task.dependencies)}", style="dim")
    if task.status in ("failed", "blocked", "skipped", "cancelled"):
        said = task.error if task.status == "failed" else f"because of {task.because}" if task.because else task.reason
        line.append(f"  {drawing.one_line(said or '')}", style="red" if task.status == "failed" else "dim")
    line.truncate(width, overflow="ellipsis")
    return line


def event_texts(session: Any) -> list[Text]:
    """The event at the cursor: what it says, and as it stands in the log."""
    row = session.row
    lines = [Text(f"{row.seq} {row.type}", style="bold"), Text(drawing.one_line(sentence(look.history_row(row))))]
    lines.append(Text(f"at {look.time_text(row.at_us)}, by {row.actor}, version {row.version}", style="dim"))
    if session.is_undone(session.position):
        lines.append(Text("a later rollback has undone it", style="yellow"))
    lines.append(Text())
    body = json_text(orjson.loads(row.body), indent=2)
    lines += [Text(line) for line in body.split("\n")]
    return [*lines, Text(), Text(f"hash {row.hash.hex()}", style="dim")]


def set_texts(session: Any) -> list[Text]:
    """What somebody has set: breakpoints, watch expressions, marks; with how it is taken away."""
    lines = [_heading("breakpoints", "b adds, x takes away")]
    lines += [
        Text().append(f"  {number} ", style="bold red").append(one.text)
        for number, one in enumerate(session.breakpoints, 1)
    ]
    lines += [Text(), _heading("watch expressions", "w adds")]
    first = len(session.breakpoints) + 1
    lines += [
        Text().append(f"  {number} ", style="bold").append(f"{one.text} = {shown(one.value)}")
        for number, one in enumerate(session.watched(), first)
    ]
    lines += [
        Text(),
        _heading("marks", "m sets, ' goes there, D compares two"),
    ]
    for letter, position in session.marks.items():
        line = Text().append(f"  {letter} ", style="bold cyan").append(f"event {session.tape.seqs[position]}  ")
        lines.append(line.append(session.tape.type_of(position), style="dim"))
    return lines


def _heading(what: str, keys: str) -> Text:
    return Text().append(what, style="bold").append(f"  {keys}", style="dim")


def _clock(at: str) -> str:
    said = drawing.local_time(at, precise=True) or ""
    return said.split(" ")[-1]
