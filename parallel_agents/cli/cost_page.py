"""What was spent, drawn: the sum and its budget, what became of the work, and the parts of it. Or as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.text import Text

from parallel_agents import costs
from parallel_agents.cli import drawing

BAR_WIDTH: Final = 24  # Characters; only where somebody looks.
_STYLES: Final = {
    "useful": "green",
    "unsettled": "yellow",
    "failed": "red",
    "undone": "magenta",
    "discarded": "magenta",
}


def cost_page(found: dict[str, Any], named: str = "") -> None:
    """The sum, then its parts.

    Args:
        found: as ``costs.cost`` gives it.
        named: what it is the cost of.
    """
    on_terminal = drawing.console().is_terminal
    drawing.show(_head(found, named))
    if on_terminal and found["cost_usd"]:
        drawing.show(Text("  ").append_text(fates_bar(found, found["budget_usd"] or found["cost_usd"], BAR_WIDTH * 2)))
    drawing.show(*_remarks(found))
    if found["cost_usd"]:
        drawing.show(_fates(found))
    if found["attempts"]:
        drawing.show(Text(f"  {_tokens(found)}", style="dim"))
    if found["budgets"] and [one["scope"] for one in found["budgets"]] != ["run"]:
        drawing.show("", *_budgets(found["budgets"]))
    if found.get("groups"):
        drawing.show("", *_groups(found, on_terminal))


def _head(found: dict[str, Any], named: str) -> Text:
    amount = f"{'at least ' if found['unknown_attempts'] else ''}{drawing.dollars(found['cost_usd'])}"
    head = Text(amount, style="bold yellow" if found["unknown_attempts"] else "bold")
    if found["budget_usd"] is not None:
        over = found["cost_usd"] - found["budget_usd"]
        left = f"{drawing.dollars(found['left_usd'])} left" if over <= 0 else f"{drawing.dollars(over)} over it"
        head.append(f" of {drawing.dollars(found['budget_usd'])}, {left}", style="red" if over >= 0 else "")
    return head.append(f"  {named}" if named else "", style="dim")


def _remarks(found: dict[str, Any]) -> list[Text]:
    """What the sum leaves out, or is not sure of."""
    remarks = []
    if found["unknown_attempts"]:
        bounded = "; budgets count it as what was reserved" if found["budgets"] else ""
        count = _counted(found["unknown_attempts"], "attempt")
        remarks.append(Text(f"  {count} of unknown cost: in no sum of money here{bounded}", style="bold yellow"))
    if found["estimated_usd"]:
        estimated = drawing.dollars(found["estimated_usd"])
        remarks.append(Text(f"  {estimated} of it estimated from tokens and a price table", style="dim"))
    if found["partial_attempts"]:
        cut_off = _counted(found["partial_attempts"], "attempt")
        remarks.append(Text(f"  {cut_off} cut off: it may be a call more for each of them", style="dim"))
    return remarks


def _fates(found: dict[str, Any]) -> Text:
    parts = []
    for fate in costs.FATES:
        if found[f"{fate}_usd"]:
            parts.append(Text(f"{fate} {drawing.dollars(found[f'{fate}_usd'])}", style=_STYLES[fate]))
    return Text("  ") + Text("  ").join(parts)


def fates_bar(found: dict[str, Any], full_usd: float, width: int) -> Text:
    """What the money went to, as a bar; ``full_usd`` is what all of its width stands for."""
    bar = Text()
    scale, reached, drawn = width / max(full_usd, found["cost_usd"], 1e-9), 0.0, 0
    for fate in costs.FATES:
        reached += found[f"{fate}_usd"] * scale
        bar.append("█" * (round(reached) - drawn), style=_STYLES[fate])
        drawn = max(drawn, round(reached))
    return bar.append("░" * (width - drawn), style="dim")


def _tokens(found: dict[str, Any]) -> str:
    cached = found["cache_read_tokens"] or found["cache_write_tokens"]
    parts = [f"{count(found['input_tokens'])} tokens in", f"{count(found['output_tokens'])} out"]
    parts += [
        f"{count(found['cache_read_tokens'])} from cache",
        f"{count(found['cache_write_tokens'])} to cache",
    ] * bool(cached)
    calls = _counted(found["calls"], "call")
    if found["uncounted_attempts"]:
        calls = f"at least {calls}" if found["calls"] else "calls that nobody counts"
    return f"{', '.join(parts)}; {calls}, {_counted(found['attempts'], 'attempt')}"


def _calls(group: dict[str, Any]) -> str | int | None:
    """How many requests were made, as far as clients tell."""
    if not group["uncounted_attempts"]:
        return int(group["calls"])
    return f"≥ {group['calls']}" if group["calls"] else None


def _budgets(budgets: Sequence[dict[str, Any]]) -> list[Text]:
    rows = [
        (one["scope"], *(drawing.dollars(one[name]) for name in ("budget_usd", "spent_usd", "held_usd", "left_usd")))
        for one in budgets
    ]
    return drawing.table(("BUDGET", "LIMIT", "SPENT", "HELD", "LEFT"), rows, right=(1, 2, 3, 4))


def _groups(found: dict[str, Any], on_terminal: bool) -> list[Text]:
    by, groups = found["by"], found["groups"]
    most = max(group["cost_usd"] for group in groups)
    rows = []
    for group in groups:
        cost = drawing.dollars(group["cost_usd"])
        if group["unknown_attempts"]:
            cost = "unknown" if not group["cost_usd"] else f"≥ {cost}"
        cached = group["cache_read_tokens"] + group["cache_write_tokens"]
        rows.append(
            [
                group[by],
                *([group["name"]] if by == "run" else []),
                Text(cost, style="yellow" if group["unknown_attempts"] else ""),
                *([fates_bar(group, most, BAR_WIDTH) if most else None] if on_terminal else []),
                drawing.dollars(group["wasted_usd"]) if group["wasted_usd"] else None,
                group["attempts"],
                _calls(group),
                *(count(number) for number in (group["input_tokens"], group["output_tokens"], cached)),
            ]
        )
    first = [f"{by.upper()}…", *(["NAME"] if by == "run" else []), "COST"]
    headings = [*first, *([""] if on_terminal else []), "WASTED", "TRIES", "CALLS", "IN", "OUT", "CACHED"]
    right = [index for index, heading in enumerate(headings) if index >= len(first) - 1 and heading]
    return drawing.table(headings, rows, right=right)


def count(number: int) -> str:
    """A number of tokens as people say it: 980, 12.3k, 4.50M."""
    if number < 1000:
        return str(number)
    if number < 999_950:
        return f"{number / 1000:.1f}k"
    return f"{number / 1e6:.2f}M"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def write_csv(headings: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Rows as CSV on stdout, with a line of headings; what nobody knows is left empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_plain(row[name]) for name in headings] for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else value
