"""What a plan would do, without doing it: its graph, who does what on which model, what that takes and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.scene import print_json
from parallel_agents.outline import outline_in
from parallel_agents.project import Project

_MODEL_STYLES = {"opus": "magenta", "sonnet": "cyan", "haiku": "green"}
_PRIORITY_STYLES = {"critical": "bold red", "high": "yellow", "low": "dim"}
_DISPENSABLE = ("RUNNER", "PRIORITY", "FROM", "AFTER", "STAGE")  # On a narrow terminal, in this order.
_Column = tuple[str, bool, list[Any]]
_REASONS_SHOWN = 12
_NAMES_SHOWN = 6
_BASES = {
    "task": "own history", "type": "history of their type", "plan": "what the plan says", "prior": "a prior",
    "unknown": "nothing",
}  # fmt: skip


def show_dry_run(plan: Any, project: Project, *, as_json: bool) -> None:
    """Print the waves in which a plan's tasks could start, with models, expected cost and time, and what they rest on."""
    found = outline_in(project, plan)
    if as_json:
        print_json(found)
        return
    drawing.show(*page(found))


def page(found: dict[str, Any]) -> list[Text]:
    """The lines for a person, of what ``outline`` gives."""
    tasks, limits = found["tasks"], found["limits"]
    lines = [
        Text.assemble((found["name"], "bold"), f"  {found['strategy']}, {len(tasks)} tasks, ",
                      f"at most {limits['max_parallel_agents']} at once; nothing was run"),
        Text(),
        *_table(found),
        Text(),
        _fact("longest path", " → ".join(_cut_middle(found["critical_path"], 12))),
    ]  # fmt: skip
    if not any(task["duration_s"]["value"] is not None for task in tasks):
        return lines
    return lines + _totals(found) + _reasons(tasks)


def _table(found: dict[str, Any]) -> list[Text]:
    tasks = found["tasks"]
    money = found["cost_usd"] is not None
    timed = any(task["duration_s"]["value"] is not None for task in tasks)
    commands = any(task["command"] for task in tasks)
    share = f"{found['share']:.0%}"  # Headings are told apart by a space where two say the same.

    def differ(name: str) -> bool:
        return not money or len({task[name] for task in tasks}) > 1

    columns: list[_Column] = [
        ("WAVE", True, _branches([task["wave"] for task in tasks])),
        ("TASK", True, [task["task_id"] for task in tasks]),
        ("AGENT", True, [task["agent_type"] for task in tasks]),
        ("PRIORITY", differ("priority"), [_priority(task["priority"]) for task in tasks]),
        ("STAGE", differ("stage"), [task["stage"] for task in tasks]),
        ("RUNNER", money and differ("runner"), [task["runner"] for task in tasks]),
        ("MODEL", money, [_model(task) for task in tasks]),
        ("COST", money, [_value(task["cost_usd"], dollars) for task in tasks]),
        (share, money, [_reach(task["cost_usd"], dollars) for task in tasks]),
        ("TIME", timed, [_value(task["duration_s"], duration) for task in tasks]),
        (f" {share}", timed, [_reach(task["duration_s"], duration) for task in tasks]),
        ("FROM", timed, [_basis(task) for task in tasks]),
        ("AFTER" if commands else "AFTER…", True, [", ".join(task["dependencies"]) for task in tasks]),
        ("COMMAND…", commands, [" ".join(task["command"] or ()) for task in tasks]),
    ]
    shown = _fitting([(heading, cells) for heading, wanted, cells in columns if wanted], (f" {share}", *_DISPENSABLE))
    numbers = [index for index, (heading, _) in enumerate(shown) if heading in ("COST", "TIME")]
    rows = zip(*(cells for _, cells in shown), strict=True)
    return drawing.table([heading for heading, _ in shown], rows, right=numbers)


def _fitting(columns: list[tuple[str, list[Any]]], dispensable: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """The columns that a terminal has room for: the first dispensable ones go first."""
    room = drawing.console().width

    def width(heading: str, cells: list[Any]) -> int:
        if heading.endswith("…"):
            return 10
        return 2 + max(
            len(heading), *(cell.cell_len if isinstance(cell, Text) else cell_len(cell or "") for cell in cells)
        )

    widths = {heading: width(heading, cells) for heading, cells in columns}
    for heading in dispensable:
        if sum(widths.values()) - 2 <= room:
            break
        widths.pop(heading, None)
    return [(heading, cells) for heading, cells in columns if heading in widths]


def _priority(name: str) -> Text:
    return Text(name, style=_PRIORITY_STYLES.get(name, ""))


def _branches(waves: Sequence[int]) -> list[Text]:
    """The number of a wave at its first task, and what holds its tasks together."""
    sizes = Counter(waves)
    width = len(str(max(waves, default=0)))
    seen: Counter[int] = Counter()
    cells = []
    for wave in waves:
        seen[wave] += 1
        first, last = seen[wave] == 1, seen[wave] == sizes[wave]
        sign = ("─" if last else "┬") if first else ("└" if last else "├")
        cells.append(Text.assemble((f"{wave if first else '':>{width}} ", "bold"), (sign, "dim")))
    return cells


def _model(task: dict[str, Any]) -> Text | None:
    if task["model_reason"] is None:
        return None
    model = task["model"]
    return Text("client's own", style="dim") if model is None else Text(model, style=_MODEL_STYLES.get(model, ""))


def _value(figure: dict[str, Any] | None, told: Callable[[float], str]) -> Text | None:
    if figure is None:
        return None
    return Text("?", style="dim") if figure["value"] is None else Text(told(figure["value"]), style="bold")


def _reach(figure: dict[str, Any] | None, told: Callable[[float], str]) -> Text | None:
    if figure is None or figure["value"] is None:
        return None
    return Text(f"{told(figure['low'])}–{told(figure['high'])}", style="dim")


def _basis(task: dict[str, Any]) -> Text | None:
    figure = task["cost_usd"] or task["duration_s"]
    match figure["basis"]:
        case "task":
            return Text(f"{figure['samples']}× itself", style="green")
        case "type":
            return Text(f"{figure['samples']}× its type", style="yellow")
        case "unknown":
            return None
        case basis:
            return Text(basis, style="dim")


def _totals(found: dict[str, Any]) -> list[Text]:
    lines = [
        _fact("time", *_total(found["makespan_s"], duration, f"on {found['limits']['max_parallel_agents']} slots"))
    ]
    if found["cost_usd"] is not None:
        guessed = any(task["cost_usd"] and task["cost_usd"]["basis"] == "prior" for task in found["tasks"])
        how = f"priors at prices of {found['prices']}" if guessed else "all by what was paid before"
        lines.append(_fact("cost", *_total(found["cost_usd"], dollars, how)))
        if found["budget_usd"] is not None:
            lines.append(_fact("budget", *_budget(found["budget_usd"], found["cost_usd"], found["budget_pauses"])))
    figures = [task["cost_usd"] or task["duration_s"] for task in found["tasks"]]
    bases = Counter(figure["basis"] for figure in figures)
    rests = ", ".join(f"{count} on {_BASES[basis]}" for basis, count in bases.most_common())
    lines.append(_fact("rests", f"{rests}; the ranges hold {found['share']:.0%} of what is to be expected"))
    if found["cost_usd"] is not None:
        lines.append(_fact("", "one attempt of each task; retries, and waits for people or providers, come on top"))
    return lines


def _budget(budget_usd: float, cost: dict[str, Any], pauses: bool) -> list[Any]:
    """What the run may cost, beside what it is expected to."""
    amount = (drawing.dollars(budget_usd), "bold")
    then = "the run pauses when it is spent" if pauses else "nothing stops when it is spent, as the configuration says"
    if cost["value"] > budget_usd:
        return [amount, (f"; more is expected to be needed: {then}", "red")]
    if cost["high"] > budget_usd:
        return [amount, (f"; it may take more: {'then ' if pauses else ''}{then}", "yellow")]
    return [amount, ("; enough for what is expected", "dim")]


def _total(whole: dict[str, Any], told: Callable[[float], str], how: str) -> list[Any]:
    parts: list[Any] = [(told(whole["value"]), "bold"), f" ({told(whole['low'])}–{told(whole['high'])}), {how}"]
    if count := whole["unknown_tasks"]:
        named = "1 task, which is" if count == 1 else f"{count} tasks, which are"
        parts.append((f"; nobody knows of {named} as good as left out", "yellow"))
    return parts


def _reasons(tasks: Sequence[dict[str, Any]]) -> list[Text]:
    """Why these models: tasks of one reason together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        if task["model_reason"] is not None:
            groups.setdefault((task["model"] or "–", task["model_reason"]), []).append(task["task_id"])
    lines: list[Text] = []
    for (model, reason), names in list(groups.items())[:_REASONS_SHOWN]:
        who = ", ".join(names[:_NAMES_SHOWN]) + (
            f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        )
        lines.append(
            _fact(
                "" if lines else "models", (model, _MODEL_STYLES.get(model, "")), f"  {who}: {drawing.one_line(reason)}"
            )
        )
    if len(groups) > _REASONS_SHOWN:
        lines.append(_fact("", f"and {len(groups) - _REASONS_SHOWN} more reasons; --json has them all"))
    return lines


def _fact(name: str, *parts: Any) -> Text:
    label = f"{name}: " if name else ""
    return Text.assemble((f"{label:<14}", "dim"), *parts)


def _cut_middle(names: Sequence[str], limit: int) -> list[str]:
    if len(names) <= limit:
        return list(names)
    half = limit // 2
    return [*names[:half], f"({len(names) - 2 * half} more)", *names[-half:]]


def dollars(value: float) -> str:
    """Money that is guessed: two digits that count."""
    if value == 0:
        return "$0"
    if value >= 10:
        return f"${float(f'{value:.2g}'):,.0f}"
    return f"${float(f'{value:.2g}'):.2f}" if value >= 0.1 else f"${float(f'{value:.2g}'):.6f}".rstrip("0")


def duration(seconds: float) -> str:
    """A time that is guessed: seconds, minutes or hours, and no more exact than that."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
