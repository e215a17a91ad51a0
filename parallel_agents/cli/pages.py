"""The pages that the looking verbs draw, from the plain data of ``look``."""

from __future__ import annotations

import shlex
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
    rows = [
        (
            drawing.state_text(task["status"]),
            task["task_id"],
            task["agent_type"],
            task["attempts"] or None,
            drawing.duration(task["duration_s"] if task["duration_s"] is not None else look.elapsed_s(task, now_us)),
            remark(task),
        )
        for task in found["tasks"]
    ]
    drawing.show(drawing.table(("STATUS", "TASK", "AGENT", "TRIES", "TOOK", "WHAT…"), rows, right=(3, 4)))
    for task in found["tasks"]:
        drawing.show(*ways_on(task))
    if found["cost_usd"] or found["unknown_attempts"]:
        least = "at least " if found["unknown_attempts"] else ""
        budget = f" of {drawing.dollars(found['budget_usd'])}" if found["budget_usd"] is not None else ""
        drawing.show(f"cost {least}{drawing.dollars(found['cost_usd'])}{budget}")


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


def remark(task: dict[str, Any]) -> Text | None:
    """What is worth saying of a task: its error, why it waits, or what it put out."""
    match task["status"]:
        case "failed":
            return Text(drawing.one_line(task["error"] or ""), style="red")
        case "skipped":
            return Text(f"{task['because']} failed", style="dim")
        case "cancelled" | "blocked":
            return Text(drawing.one_line(task["reason"] or ""), style="dim")
        case "pending" if task["dependencies"]:
            return Text("after " + ", ".join(task["dependencies"]), style="dim")
        case "queued" if task["not_before"]:
            return Text(
                f"again at {drawing.local_time(task['not_before'])}: {drawing.one_line(task['error'] or '')}",
                style="dim",
            )
        case "completed" if task["output"] is not None:
            return Text(drawing.one_line(str(task["output"])), style="dim")
        case _:
            return None


def ways_on(task: dict[str, Any]) -> list[str]:
    """Of a task that waits for a person, the commands that show what for and settle it."""
    ways = [("look", task["look"]), ("settle", task["settle"])]
    return [f"  {task['task_id']} waits; {what}: {command}" for what, command in ways if command]


def show_page(found: dict[str, Any]) -> None:
    """One task: its fields, then its attempts."""
    drawing.show(Text("  ").join([drawing.state_text(found["status"]), Text(found["task_id"], style="bold"),
                                   Text(found["agent_type"]), Text(f"of run {found['run_id']}", style="dim")]))  # fmt: skip
    if found["description"]:
        drawing.show(Text(drawing.one_line(found["description"])))
    command = " ".join(quoted(word) for word in found["command"]) if found["command"] else None
    took = drawing.duration(found["duration_s"])
    fields = {
        "runner": found["runner"],
        "command": command,
        "in": found["workdir"],
        "priority": found["priority"],
        "stage": found["stage"],
        "after": ", ".join(found["dependencies"]),
        "before": ", ".join(found["dependents"]),
        "outputs": ", ".join(found["outputs"]),
        "tags": ", ".join(found["tags"]),
        "limits": f"{found['timeout_s']:g} s, {found['max_retries']} retries",
        "took": f"{took}, {found['cpu_s']:.2f} s of CPU, {drawing.size(found['peak_memory_bytes'])} at its peak"
        if took
        else None,
        "exit code": found["exit_code"],
        "output": found["output"],
        "error": found["error"],
        "skipped": f"{found['because']} failed" if found["because"] else None,
        "reason": found["reason"],
        "look": found["look"],
        "settle": found["settle"],
    }
    rows = [(Text(name, style="dim"), value) for name, value in fields.items() if value not in (None, "", [])]
    drawing.show(drawing.table(("", "…"), rows))
    if found["attempt_list"]:
        lines = [
            (
                span["attempt"],
                outcome_text(span["outcome"]),
                drawing.local_time(span["started_at"], precise=True),
                drawing.duration(span["duration_s"]),
                span["folder"],
            )
            for span in found["attempt_list"]
        ]
        # The last column is not cut: half a path helps nobody.
        drawing.show(drawing.table(("TRY", "OUTCOME", "STARTED", "TOOK", "FILES"), lines, right=(0, 3)))


def outcome_text(outcome: str) -> Text:
    """How an attempt ended, with the sign of the state that its task came to."""
    if outcome in drawing.SIGNS:
        return drawing.state_text(outcome)
    return Text(f"✗ {outcome.replace('_', ' ')}", style=drawing.SIGNS["failed"][1])


def quoted(word: str) -> str:
    """A word of a command as a shell would take it, on one line."""
    return drawing.one_line(shlex.quote(word))


def why_page(found: dict[str, Any]) -> None:
    """The answer in a sentence, then the events it stands on."""
    answer = Text(drawing.one_line(found["why"]))
    parts = [Text("  ").join([drawing.state_text(found["status"]), Text(found["task_id"], style="bold"), answer])]
    if found["events"]:
        named = ", ".join(f"{event['seq']} {event['type']}" for event in found["events"])
        parts.append(Text(f"events: {named}", style="dim"))
    for what in ("look", "settle"):
        if found.get(what):
            parts.append(Text(f"{what}: {found[what]}", style="bold"))
    if found.get("note"):
        parts.append(Text(f"note: {found['note']}", style="yellow"))
    drawing.show(*parts)
