"""What the panes of the debugger say of one event: the same answers that other verbs give with ``--at``, as lines.

What stands here may read the log and ask git, so it is called by a thread beside the screen. Nothing in it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rich.text import Text

from parallel_agents import ParallelAgentsError, look
from parallel_agents.cli import drawing, pages
from parallel_agents.cli.debug_dialogs import one_line_kept
from parallel_agents.cli.harmless import harmless

_TOP: Final = 40  # Lines of a list that nobody reads to its end.
_PATCH_LINES: Final = 3000


class Asked(NamedTuple):
    """What a pane is asked about: an event of a run, the states after it and before it, and a task."""

    log: Any
    run_id: str
    seq: int
    at_us: int
    state: Any
    before: Any
    cost: Any
    task_id: str | None
    is_now: bool


def answer(pane: str, asked: Asked) -> list[Text]:
    """The lines of a pane; an error of ours is one of them."""
    try:
        return PANES[pane](asked)
    except ParallelAgentsError as error:
        lines = [Text(drawing.one_line(error.message), style="red")]
        return [*lines, Text(drawing.one_line(error.hint), style="dim")] if error.hint else lines


def _queue(asked: Asked) -> list[Text]:
    state, tasks = asked.state, asked.state.tasks
    lines = [_head(f"{state.counts['queued']} queued, {state.counts['pending']} pending, {len(state.running)} running")]
    for line in look.queue(asked.log, asked.run_id, asked.seq):
        text = Text(f"{line['position']:>3} ").append(line["task_id"], style="bold blue")
        lines.append(text.append(f"  {line['priority']}  ", style="dim").append(drawing.one_line(line["why"])))
    for task in tasks.values():
        if task.status == "blocked":
            blocked = Text().append("  ◆ ", style="bold magenta").append(task.task.task_id)
            lines.append(blocked.append(f"  waits for a person: {drawing.one_line(task.reason)}", style="dim"))
    waiting = [task for task in tasks.values() if task.status == "pending"]
    for task in waiting[:_TOP]:
        open_ = [name for name in task.task.dependencies if tasks[name].status != "completed"]
        why = f"waits for {', '.join(open_)}" if open_ else "ready, not queued yet"
        lines.append(Text().append("  · ", style="dim").append(task.task.task_id).append(f"  {why}", style="dim"))
    return [*lines, *_more(len(waiting))]


def _cost(asked: Asked) -> list[Text]:
    found = look.status(asked.log, asked.run_id, asked.seq)
    cost = asked.cost
    lines = pages.money_lines(found) or [Text("nothing was spent by then", style="dim")]
    if found["budget_usd"] is None:
        lines.append(Text("the run has no budget", style="dim"))
    lines += pages.limit_lines(found["limits"])
    if cost.calls or cost.input_tokens or cost.output_tokens:
        cached = cost.cache_read_tokens + cost.cache_write_tokens
        said = (
            f"{cost.calls:,} calls, {cost.input_tokens:,} tokens in and {cost.output_tokens:,} out, {cached:,} by cache"
        )
        lines.append(Text(said, style="dim"))
    spent = [(name, micros) for name, micros in cost.by_task.most_common(_TOP) if micros]
    if spent:
        lines += [Text(), _head("by task")]
        full, wide = spent[0][1], max(len(name) for name, _ in spent)
        for name, micros in spent:
            bar = "█" * max(1, round(micros / full * 12))
            lines.append(Text(f"{name:<{wide}} {drawing.dollars(micros / 1e6):>9} ").append(bar, style="green"))
        lines += _more(sum(1 for micros in cost.by_task.values() if micros))
    return lines


def _machine(asked: Asked) -> list[Text]:
    found, state = look.status(asked.log, asked.run_id, asked.seq), asked.state
    workers = found["workers"]
    lines = [_head(f"{len(state.running)} running, at most {found['max_parallel_agents']} of this run at once")]
    lines.append(
        Text(f"workers now {workers['now']}, at least {workers['least']}, at most {workers['most']}", style="dim")
    )
    lines += pages.machine_lines(found) or [Text("the machine lets tasks start", style="dim")]
    if state.running:
        lines.append(Text())
    for task_id in sorted(state.running.values()):
        task = state.tasks[task_id]
        passed = drawing.duration(max(0, asked.at_us - (task.started_at_us or asked.at_us)) / 1e6)
        line = Text().append("● ", style="bold yellow").append(task_id, style="bold").append(f"  {task.runner or ''}")
        lines.append(line.append(f" {task.model or ''}  for {passed}", style="dim"))
        if task.stuck is not None:
            lines.append(Text(f"  looks stuck: {drawing.one_line(pages.stuck_words(task.stuck))}", style="yellow"))
    used = [task for task in state.tasks.values() if task.peak_memory_bytes or task.cpu_s]
    if used:
        most = max(used, key=lambda task: task.peak_memory_bytes)
        lines += [Text(), _head("what the last attempts have used")]
        lines.append(Text(f"processors {drawing.duration(sum(task.cpu_s for task in used))}"))
        lines.append(Text(f"most memory {drawing.size(most.peak_memory_bytes)}, by {most.task.task_id}"))
        lines.append(Text(f"written {drawing.size(sum(task.disk_written_bytes for task in used))}"))
    return lines


def _conflicts(asked: Asked) -> list[Text]:
    from parallel_agents import conflicts

    lines = []
    for one in conflicts.conflicts(asked.log, asked.run_id, asked.seq):
        style = {"waiting": "bold magenta", "early": "yellow"}.get(one["status"], "green")
        head = (
            Text()
            .append(f"{one['seq']} ", style="dim")
            .append(f"{one['status']} ", style=style)
            .append(one["task_id"], style="bold")
        )
        lines.append(head.append(f" with {one['other_task_id'] or 'what was merged before'}"))
        lines += [Text(f"    {drawing.one_line(path['path'])}  {path['kind']}") for path in one["paths"]]
        lines += [Text(f"    settled by {one['how']}", style="dim")] if one["how"] else []
        lines += [Text(f"    {drawing.one_line(command)}", style="dim") for command in one["settle"]]
        lines += [Text("    S settles it from here")] if one["settle"] and asked.is_now else []
    return lines or [Text("no conflict by then", style="dim")]


def _files(asked: Asked) -> list[Text]:
    from parallel_agents import past_files, travel

    state = asked.state
    if state.integration is None:
        return [Text(f"the files of run {asked.run_id} are not versioned", style="dim")]
    changed = travel.changed_files(state, state.base_commit, state.integration)
    lines = []
    if asked.before is not None and asked.before.integration not in (None, state.integration):
        by_it = travel.changed_files(state, asked.before.integration, state.integration)
        lines += [_head(f"this event changed {_counted(len(by_it), 'file')}"), *map(_changed, by_it[:_TOP]), Text()]
    lines.append(_head(f"the run has changed {_counted(len(changed), 'file')} by then"))
    lines += [*map(_changed, changed[:_TOP]), *_more(len(changed))]
    if changed:
        lines += [Text(), *_patch(past_files.patch_between(state, state.base_commit, state.integration))]
    return lines


def _changed(one: dict[str, str]) -> Text:
    style = {"A": "green", "D": "red"}.get(one["change"], "yellow")
    return Text().append(f" {one['change']} ", style=style).append(drawing.one_line(one["path"]))


def _patch(patch: bytes) -> list[Text]:
    raw = patch.decode("utf-8", "replace").split("\n")
    lines = []
    for line in raw[:_PATCH_LINES]:
        style = (
            "green"
            if line.startswith("+")
            else "red"
            if line.startswith("-")
            else "cyan"
            if line.startswith("@")
            else ""
        )
        if line.startswith(("diff ", "index ", "--- ", "+++ ")):
            style = "bold" if line.startswith("diff ") else "dim"
        lines.append(Text(one_line_kept(line), style=style))
    if len(raw) > _PATCH_LINES:
        lines.append(
            Text(f"… {len(raw) - _PATCH_LINES:,} more lines: `parallel-agents diff --patch` prints all", style="dim")
        )
    return lines


def _output(asked: Asked) -> list[Text]:
    from parallel_agents.debugger.printed import printed_by

    if asked.task_id is None:
        return [Text("no task is chosen: click one, or press s", style="dim")]
    found = printed_by(asked.log, asked.state, asked.task_id, asked.at_us, now=asked.is_now)
    if found.attempt_id is None:
        return [Text(f"task {asked.task_id} had not been started", style="dim")]
    lines = [_head(f"{asked.task_id}, attempt {asked.state.tasks[asked.task_id].attempts}, {found.attempt_id}")]
    if found.unsure:
        lines += [Text(f"{found.unsure}. This is all that it ever printed:", style="yellow")]
    if found.left_out:
        lines.append(Text(f"… {found.left_out:,} lines before: `parallel-agents logs` prints all", style="dim"))
    lines += [Text.from_ansi(harmless(line)) for line in found.lines]
    return lines if found.lines else [*lines, Text("it had printed nothing", style="dim")]


def _task(asked: Asked) -> list[Text]:
    from parallel_agents.why import why

    if asked.task_id is None:
        return [Text("no task is chosen: click one, or press s", style="dim")]
    task = asked.state.tasks[asked.task_id]
    spec = task.task
    fields = {
        "agent": spec.agent_type, "runner": task.runner, "model": task.model, "priority": spec.priority,
        "after": ", ".join(spec.dependencies), "before": ", ".join(asked.state.dependents.get(asked.task_id, ())),
        "attempts": f"{task.attempts}, failed {task.failures}", "took": drawing.duration(task.duration_s),
        "exit code": task.exit_code, "cost": drawing.dollars(asked.cost.by_task.get(asked.task_id, 0) / 1e6),
        "commit": task.kept_commit or task.work_commit, "error": task.error, "output": task.output,
        "command": " ".join(spec.command) if spec.command else None, "asked": spec.description,
    }  # fmt: skip
    lines = pages.why_lines(why(asked.log, asked.run_id, asked.task_id, asked.seq))
    lines.append(Text())
    for name, value in fields.items():
        if value not in (None, ""):
            shown = [Text(one_line_kept(line)) for line in str(value).splitlines()]
            lines.append(Text().append(f"{name:<10}", style="dim").append_text(shown[0] if shown else Text()))
            lines += [Text(" " * 10).append_text(line) for line in shown[1:_TOP]]
    return lines


def _head(text: str) -> Text:
    return Text(text, style="bold")


def _more(count: int) -> list[Text]:
    return [Text(f"  … and {count - _TOP:,} more", style="dim")] if count > _TOP else []


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


PANES: Final[dict[str, Callable[[Asked], list[Text]]]] = {
    "queue": _queue, "cost": _cost, "machine": _machine, "conflicts": _conflicts, "files": _files, "output": _output,
    "task": _task,
}  # fmt: skip
