"""One task's whole life, drawn from what ``look.show`` gives: what it was asked, and each of its attempts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.pages import past_lines

_DESCRIPTION_LINES = 12
_SUMMARY_LINES = 20
_PATHS = 12


def show_page(found: dict[str, Any]) -> None:
    """One task: its fields, then its attempts."""
    drawing.show(Text("  ").join([drawing.state_text(found["status"]), Text(found["task_id"], style="bold"),
                                   Text(found["agent_type"]), Text(f"of run {found['run_id']}", style="dim")]))  # fmt: skip
    if found["description"]:
        drawing.show(*_paragraph(found["description"], _DESCRIPTION_LINES))
    command = " ".join(quoted(word) for word in found["command"]) if found["command"] else None
    took = drawing.duration(found["duration_s"])
    agents = any(span["model_reason"] for span in found["attempt_list"])  # Theirs says more than one line.
    fields = {
        "runner": None if agents else found["runner"],
        "command": command,
        "in": found["workdir"],
        "priority": found["priority"],
        "stage": found["stage"],
        "after": ", ".join(found["dependencies"]),
        "before": ", ".join(found["dependents"]),
        "outputs": ", ".join(found["outputs"]),
        "tags": ", ".join(found["tags"]),
        "limits": f"{found['timeout_s']:g} s, {found['max_retries']} retries",
        "took": took,
        "used": used(found) if took else None,
        "exit code": found["exit_code"],
        "output": None if agents else found["output"],
        "error": None if agents else found["error"],
        "skipped": f"because of {found['because']}" if found["because"] else None,
        "reason": found["reason"],
        "look": found["look"],
        "settle": found["settle"],
    }
    rows = [(Text(name, style="dim"), value) for name, value in fields.items() if value not in (None, "", [])]
    drawing.show(drawing.table(("", "…"), rows))
    if agents:
        for span in found["attempt_list"]:
            drawing.show(*agent_attempt(span, found["attempt_list"]), *_checkpoints(found, span["attempt_id"]))
    elif found["attempt_list"]:
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
        drawing.show(
            *(f"attempt {span['attempt']}: {_cut(span)}" for span in found["attempt_list"] if span["cut_bytes"]),
            *(
                f"attempt {span['attempt']} changed {_changed(span)}"
                for span in found["attempt_list"]
                if span["changed"]
            ),
        )
        drawing.show(*_checkpoints(found))
    drawing.show(*_conflicts(found), *_waited(found))
    if found["past"]:
        drawing.show(Text("what befell it", style="dim"), *past_lines(found["past"]))


def _checkpoints(found: dict[str, Any], attempt_id: str | None = None) -> list[Text]:
    """The checkpoints of an attempt, or of all of them, in a line."""
    parts = [
        f"{one['checkpoint_id']} {one['kind'].replace('_', ' ')} (event {one['seq']})"
        + (" undone" if one["undone"] else "")
        for one in found["checkpoints"]
        if attempt_id in (None, one["attempt_id"])
    ]
    return [Text.assemble(("  checkpoints  ", "dim"), drawing.one_line(", ".join(parts)))] if parts else []


def _conflicts(found: dict[str, Any]) -> list[Text]:
    lines = []
    for one in found["conflicts"]:
        mine = one["task_id"] == found["task_id"]
        other = one["other_task_id"] if mine else one["task_id"]
        paths = ", ".join(path["path"] for path in one["paths"])
        how = one["status"] + (f" by {one['how']}" if one["how"] else "")
        whose = f"with {other or 'what was merged before'}" if mine else f"of {other} with its work"
        said = f"{whose} over {paths}: {how} (event {one['seq']})"
        lines.append(Text.assemble(("  conflict  ", "dim"), drawing.one_line(said)))
    return lines


def _waited(found: dict[str, Any]) -> list[Text]:
    """Who needed it, and for how long they had to wait for it."""
    lines = []
    for one in found["waited_for"]:
        if one["waited_s"] is None:
            continue
        alone = f", {drawing.duration(one['alone_s'])} of it for nothing else" if one["alone_s"] else ""
        verb = "has waited for it for" if one["waits"] else "waited for it"
        said = f"{one['task_id']} ({one['status']}) {verb} {drawing.duration(one['waited_s'])}{alone}"
        lines.append(Text.assemble(("  waiting  ", "dim"), drawing.one_line(said)))
    return lines


def agent_attempt(span: dict[str, Any], others: Sequence[dict[str, Any]]) -> list[Text]:
    """An attempt of an agent: who, on which model and why, what it cost, changed and said."""
    head = Text.assemble(
        "\n", (f"attempt {span['attempt']}", "bold"), "  ", outcome_text(span["outcome"]),
        f"  {drawing.local_time(span['started_at'], precise=True)}  {drawing.duration(span['duration_s']) or ''}",
        ("  undone" if span["undone"] else "", "dim"),
    )  # fmt: skip
    model = span["model"] or "client's own model"
    fields = {
        "agent": f"{span['runner']}, {model}: {span['model_reason']}"
        + (f"; as {span['role']}" if span["role"] else ""),
        "session": _session(span, others),
        "failure": f"{span['kind'].replace('_', ' ')}: {span['error']}" if span["kind"] else span["error"],
        "used": used(span) if span["cpu_s"] is not None else None,
        "cost": _costs(span),
        "changed": _changed(span),
        "not allowed": _denied(span),
        "prompt": span["prompt"],
        "files": span["folder"],
        "cut": _cut(span),
    }
    width = max(len(name) for name, value in fields.items() if value)
    lines = [head] if span["attempt_id"] else []
    for name, value in fields.items():
        if value:
            lines.append(Text.assemble((f"  {name:<{width}}  ", "dim"), drawing.one_line(str(value))))
    if span["output"] is not None:
        lines.append(Text("  said", style="dim"))
        lines += _paragraph(str(span["output"]), _SUMMARY_LINES, "    ")
    return lines


def _session(span: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    if span["resumes"] is None:
        return "new"
    before = next((one["attempt"] for one in others if one["attempt_id"] == span["resumes"]), None)
    return f"goes on with that of attempt {before}" if before else f"goes on with that of {span['resumes']}"


def _costs(span: dict[str, Any]) -> str:
    parts = []
    for one in span["costs"]:
        amount = "unknown" if one["usd"] is None else drawing.dollars(one["usd"])
        how = {"agent": "reported", "estimated": f"estimated with {one['prices']}"}.get(one["source"], "")
        notes = [note for note in (how, "cut off: it may be one call more" if one["partial"] else "") if note]
        said = f" ({', '.join(notes)})" if notes else ""
        parts.append(f"{amount} for {one['model'] or 'an unknown model'}{said}")
    if not parts and span["ended_at"] is None and span["reserved_usd"] is not None:
        return f"{drawing.dollars(span['reserved_usd'])} held back for it"
    return "; ".join(parts)


def used(found: dict[str, Any]) -> str:
    """What an attempt has used of the machine; what could not be seen of a short one is left out."""
    parts = [f"{found['cpu_s']:.2f} s of CPU"]
    if found["peak_cpu_percent"]:
        parts[0] += f" ({found['peak_cpu_percent']:.0f} % of the machine at its peak)"
    parts.append(f"{drawing.size(found['peak_memory_bytes'])} of memory at its peak")
    if found["peak_open_files"]:
        parts.append(f"{found['peak_open_files']:,} open files")
    if found["disk_written_bytes"]:
        parts.append(f"{drawing.size(found['disk_written_bytes'])} written")
    return ", ".join(parts)


def _cut(span: dict[str, Any]) -> str:
    """What is gone of what an attempt has printed."""
    parts = [f"{drawing.size(count)} of its {name}" for name, count in span["cut_bytes"].items()]
    return f"{' and '.join(parts)} are cut out (monitoring.maxOutputMB)" if parts else ""


def _denied(span: dict[str, Any]) -> str | None:
    tools = list(dict.fromkeys(span["denied"]))
    return f"{', '.join(tools)} (agents.allowedTools says what is)" if tools else None


def _changed(span: dict[str, Any]) -> str | None:
    if span["changed"] is None:
        return None
    if not span["changed"]:
        return "nothing"
    shown = span["changed_paths"][:_PATHS]
    more = span["changed"] - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _paragraph(text: str, limit: int, indent: str = "") -> list[Text]:
    """The lines of a text, cut after so many."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    shown = [Text(indent + drawing.one_line(line)) for line in lines[:limit]]
    return shown + ([Text(f"{indent}… {len(lines) - limit} more lines", style="dim")] if len(lines) > limit else [])


def outcome_text(outcome: str) -> Text:
    """How an attempt ended, with the sign of the state that its task came to."""
    if outcome in drawing.SIGNS:
        return drawing.state_text(outcome)
    return Text(f"✗ {outcome.replace('_', ' ')}", style=drawing.SIGNS["failed"][1])


def quoted(word: str) -> str:
    """A word of a command as a shell would take it, on one line."""
    return drawing.one_line(shlex.quote(word))
