"""The pages that the looking verbs draw, from the plain data of ``look``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text

from parallel_agents import look
from parallel_agents.cli import drawing


def status_page(found: dict[str, Any], now_us: int | None = None) -> None:
    """One run: a head line, its tasks, and what failed in words.

    Args:
        now_us: the moment of the past that is shown.
    """
    drawing.show(head_line(found, now_us))
    ways: list[str] = []

    def row(task: dict[str, Any]) -> tuple[Any, ...]:
        ways.extend(ways_on(task))
        took_s = task["duration_s"] if task["duration_s"] is not None else look.elapsed_s(task, now_us)
        return (
            drawing.state_text(task["status"]), task["task_id"], task["agent_type"], task["attempts"] or None,
            drawing.duration(took_s), remark(task, now_us),
        )  # fmt: skip

    headings = ("STATUS", "TASK", "AGENT", "TRIES", "TOOK", "WHAT…")
    for part in drawing.long_table(headings, map(row, found["tasks"]), right=(3, 4)):
        drawing.show(part)
    drawing.show(*ways)
    drawing.show(*machine_lines(found), *money_lines(found), *limit_lines(found["limits"]), *ways_lines(found))


def machine_lines(found: dict[str, Any]) -> list[Text]:
    """That starts wait for the machine, and why; and that the pool of workers is narrower than it may be."""
    lines = [_waits(f"starts wait for {_SHORT_OF[one['code']]}", one["reason"]) for one in found["throttled"]]
    workers = found["workers"]
    if workers["now"] < workers["most"] and found["status"] == "running":
        lines.append(_waits(f"{workers['now']} workers of {workers['most']}", "what the machine can bear as it is"))
    return lines


_SHORT_OF = {"disk": "the disk", "cpu": "the processors", "memory": "memory"}


def _waits(what: str, why: str) -> Text:
    return Text("‖ ", style="bold magenta").append(what, "bold").append(f": {drawing.one_line(why)}", "")


def money_lines(found: dict[str, Any]) -> list[Text]:
    """What a run has cost, and its budgets; nothing where it costs nothing."""
    lines = []
    if found["cost_usd"] or found["unknown_attempts"]:
        line = Text(f"cost {'at least ' if found['unknown_attempts'] else ''}{drawing.dollars(found['cost_usd'])}")
        if found["unknown_attempts"]:
            line.append(f", and {_attempts(found['unknown_attempts'])} of unknown cost", style="bold yellow")
            if found["budgets"]:
                line.append(f" (budgets count {drawing.dollars(found['assumed_usd'])} for that)", style="yellow")
        lines.append(line)
    return [*lines, *budget_lines(found)]


def budget_lines(found: dict[str, Any]) -> list[Text]:
    """Each budget with a bar, and what is left of it."""
    lines = []
    for one in found["budgets"]:
        share, left = one["share"], drawing.dollars(one["left_usd"])
        style = "red" if share >= 0.9 else "yellow" if share >= 0.75 else "green"
        full = min(_BUDGET_BAR, round(share * _BUDGET_BAR))
        line = (
            Text(f"budget {one['scope']:<12} ")
            .append("█" * full, style=style)
            .append("░" * (_BUDGET_BAR - full), "dim")
        )
        spent, limit = drawing.dollars(one["spent_usd"]), drawing.dollars(one["budget_usd"])
        line.append(f" {share:>4.0%}", style=style).append(f"  {spent} of {limit}, {left} left")
        if one["held_usd"]:
            line.append(f", {drawing.dollars(one['held_usd'])} held back by what runs", style="dim")
        lines.append(line)
    return lines


def limit_lines(limits: list[dict[str, Any]]) -> list[Text]:
    """Providers that let nobody work, and runners that are broken: until when here, why, and how to lift that."""
    lines = []
    for one in limits:
        until = f"until {drawing.local_time(one['until'])}{'' if one['stated'] else ' (our guess)'}"
        line = Text("‖ ", style="bold magenta").append(one["provider"] or f"runner {one['runner']}", "bold")
        if one["runner"] is None:
            line.append(f" lets no agent start {until}: ", "").append(drawing.one_line(_why_limited(one)), "")
        else:
            then = until if one["kind"] == "circuit_open" else "but one attempt that tries it"
            line.append(f" starts nothing {then}: it failed {one['failures']} times in a row: ", "")
            line.append(drawing.one_line(one["reason"]), "")
        lines.append(line.append(f"  (`{one['lift']}` lifts that)", "dim"))
    return lines


def _why_limited(one: dict[str, Any]) -> str:
    return str(one["reason"] or one["kind"].replace("_", " "))


def ways_lines(found: dict[str, Any]) -> list[Text]:
    """What a run that money or a key holds up needs to go on."""
    return [Text(f"→ {drawing.one_line(way)}", style="bold") for way in found["ways_on"]]


_BUDGET_BAR = 16  # Characters.


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def head_line(found: dict[str, Any], now_us: int | None = None) -> Text:
    """Such as ``✓ completed  checkout-feature  k3v7...  5/7 completed  10.3 s``."""
    parts = [drawing.state_text(found["status"]), Text(found["name"], style="bold"), Text(found["run_id"])]
    parts.append(drawing.counts_text(found["counts"], len(found["tasks"])))
    took = drawing.duration(look.elapsed_s(found, now_us))
    if took is not None:
        parts.append(Text(took))
    if found["reason"] and found["status"] != "completed":
        parts.append(Text(f"({drawing.one_line(found['reason'].replace('_', ' '))})", style="dim"))
    return Text("  ").join(parts)


def remark(task: dict[str, Any], now_us: int | None = None) -> Text | None:
    """What is worth saying of a task: its error, why it waits, or what it put out."""
    now = look.time_text(now_us)
    match task["status"]:
        case "failed":
            return Text(drawing.one_line(task["error"] or ""), style="red")
        case "running" if task["stuck"]:
            return Text(f"looks stuck: {drawing.one_line(stuck_words(task['stuck']))}", style="yellow")
        case "skipped":
            return Text(f"because of {task['because']}", style="dim")
        case "cancelled" | "blocked":
            return Text(drawing.one_line(task["reason"] or ""), style="dim")
        case "pending" if task["dependencies"]:
            return Text("after " + ", ".join(task["dependencies"]), style="dim")
        case "queued" if task["not_before"] and task["not_before"] > now:
            return Text(
                f"again at {drawing.local_time(task['not_before'])}: {drawing.one_line(task['error'] or '')}",
                style="dim",
            )
        case "queued" if task["error"]:
            return Text(f"again: {drawing.one_line(task['error'])}", style="dim")
        case "completed" if task["output"] is not None:
            return Text(drawing.one_line(str(task["output"])), style="dim")
        case _:
            return None


def stuck_words(stuck: dict[str, Any]) -> str:
    """Why an attempt looks stuck, and the last that it has printed."""
    return str(stuck["reason"]) + (f"; its last words: {stuck['last_output']}" if stuck["last_output"] else "")


def ways_on(task: dict[str, Any]) -> list[str]:
    """Of a task that waits for a person, the commands that show what for and settle it."""
    ways = [("look", task["look"]), ("settle", task["settle"])]
    return [f"  {task['task_id']} waits; {what}: {command}" for what, command in ways if command]


def why_page(found: dict[str, Any]) -> None:
    """The answer in a sentence, then the events it stands on."""
    drawing.show(*why_lines(found))


def why_lines(found: dict[str, Any]) -> list[Text]:
    """The same as lines."""
    answer = Text(drawing.one_line(found["why"]))
    parts = [Text("  ").join([drawing.state_text(found["status"]), Text(found["task_id"], style="bold"), answer])]
    if found["events"]:
        parts.append(Text(f"events: {_named(found['events'])}", style="dim"))
    for what in ("look", "settle"):
        if found.get(what):
            parts.append(Text(f"{what}: {found[what]}", style="bold"))
    if found.get("until"):
        parts.append(Text(f"until {drawing.local_time(found['until'])} on this machine's clock", style="dim"))
    parts += ways_lines({"ways_on": found.get("ways_on", [])})
    if found.get("note"):
        parts.append(Text(f"note: {found['note']}", style="yellow"))
    past = [one for one in found.get("past", ()) if one["events"] != found["events"]]  # Else it is said already.
    if past:
        parts.append(Text("before that:", style="bold"))
    return [*parts, *past_lines(past)]


def past_lines(past: Iterable[dict[str, Any]]) -> list[Text]:
    """What befell a task, a line each, with its events."""
    lines = []
    for one in past:
        line = Text(f"  {_PAST[one['what']]}: {drawing.one_line(one['why'])}" + (" (undone)" if one["undone"] else ""))
        line.append(f"  [{_named(one['events'])}]", "dim")
        if one["undone"]:
            line.stylize("dim")
        lines.append(line)
    return lines


_PAST = {
    "again": "ran again", "model": "ran by", "retried": "tried again", "reopened": "opened again", "blocked": "blocked",
    "unblocked": "went on", "skipped": "skipped", "cancelled": "cancelled",
}  # fmt: skip


def _named(events: list[dict[str, Any]]) -> str:
    return ", ".join(f"{event['seq']} {event['type']}" for event in events)
