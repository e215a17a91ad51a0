"""What would have happened otherwise, for a person: what was, beside what would have been, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.text import Text

from parallel_agents import InvalidUsage
from parallel_agents.cli import drawing
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import opened, print_json, project_of

_MOVED = 8  # Tasks whose place in the order is told.
_NAMED = 6  # Things that were assumed or dropped.
_NONE = Text(" ")
_ALL_COLUMNS = 90  # Characters of a terminal, below which names are left out.
_RUNS = 30  # Lines of runs, where they are many: those that change most.


def read_settings(settings: Sequence[str]) -> dict[str, str]:
    """Settings by name.

    Raises:
        InvalidUsage: one has no value, or is said twice.
    """
    given: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise InvalidUsage(f"--set {setting!r} is no NAME=VALUE", hint="such as --set max_parallel_agents=8")
        if name in given:
            raise InvalidUsage(f"--set {name} is said twice: {given[name]} and {text}", hint="leave one of them out")
        given[name] = text
    return given


def options_of(ctx: click.Context, settings: dict[str, str]) -> Any:
    """What the configuration says of strategies; None where nobody asks."""
    if "strategy" not in settings:
        return None
    from parallel_agents.submit import strategy_options

    return strategy_options(project_of(ctx).configuration())


def play_otherwise(
    ctx: click.Context, run: str | None, settings: Sequence[str], *, every: bool, as_json: bool
) -> int:  # fmt: skip
    """Play one run, or all of them, again under other settings."""
    from parallel_agents import look
    from parallel_agents.checkpoints import repository_of_run
    from parallel_agents.otherwise import counterfactual, counterfactuals

    if every and run is not None:
        raise InvalidUsage(f"--all means every run, and {run!r} means one", hint="leave one of them out")
    if not settings:
        raise InvalidUsage("--all asks what would have happened under other settings", hint="add --set NAME=VALUE")
    given = read_settings(settings)
    options = options_of(ctx, given)
    with opened(ctx) as log, told_of_progress() as told:
        store = log.path
        if not every:
            run_id, project = look.resolve_run(log, run), project_of(ctx)
            found = counterfactual.otherwise(
                log, run_id, given, options, repository=lambda: repository_of_run(log, project, run_id),
                told=lambda done, total: told("attempts", done, max(done, total)),
            )  # fmt: skip
    if every:
        with told_of_progress() as told:
            found = counterfactuals.all_otherwise(store, given, options, lambda done, total: told("runs", done, total))
    if as_json:
        print_json(found)
    else:
        drawing.show(*(page_of_all(found) if every else page(found)))
    return 0


def page(found: dict[str, Any]) -> list[Text]:
    """One run: what was, beside what would have been."""
    words = ", ".join(f"{name}={drawing.as_json(value)}" for name, value in found["settings"].items())
    lines = [Text.assemble(("run ", ""), (found["run_id"], "bold"), f" {found['name']}, with {words}"), Text()]
    before, after = found["recorded"], found["otherwise"]
    if found["differs_from"] is None:
        lines.append(Text("nothing would have been different: every decision is the one that was made", style="green"))
        lines.append(Text(f"  {_took(before['makespan_s'])}, {drawing.dollars(before['cost_usd'])}", style="dim"))
        return lines
    lines += _beside(before, after, found["range"], judged=found["files_judged"])
    lines += [Text(), *_reasons(found)]
    return lines


def _beside(before: dict[str, Any], after: dict[str, Any], span: dict[str, Any] | None, *, judged: bool) -> list[Text]:
    def row(name: str, key: str, told: Callable[[Any], str]) -> tuple[Any, ...]:
        one, other = before[key], after[key]
        reach: Any = _NONE if span is None or key not in span else f"{told(span[key][0])} – {told(span[key][1])}"
        return name, told(one), Text(told(other), style="" if one == other else "bold"), _change(one, other), reach

    rows = [
        row("makespan", "makespan_s", _took),
        row("cost", "cost_usd", drawing.dollars),
        ("status", before["status"], _state(before["status"], after["status"]), _NONE, _NONE),
        ("tasks", _tasks(before), _tasks(after), _NONE, _NONE),
        row("attempts", "attempts", str),
        row("retries", "retries", str),
        row("at work", "busy_s", _took),
    ]
    if judged and (before["conflicts"] or after["conflicts"]):
        rows.append(row("conflicts", "conflicts", str))
    if before["meetings"] or after["meetings"]:
        rows.append(row("meetings", "meetings", str))
    shown = [one for one in rows if one[0] not in ("retries",) or before["retries"] or after["retries"]]
    if not (before["cost_usd"] or after["cost_usd"]):
        shown = [one for one in shown if one[0] != "cost"]
    headings = [" ", "WAS", "WOULD BE", "CHANGE", *(["80 %"] if span is not None else [])]
    return drawing.table(headings, [one[: len(headings)] for one in shown])


def _state(one: str, other: str) -> Text:
    return drawing.state_text(other) if one != other else Text(other)


def _tasks(figures: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(figures["tasks"].items(), key=lambda of: -of[1]))


def _took(seconds: float) -> str:
    return drawing.duration(seconds) or ""


def _change(one: float, other: float) -> Text:
    if not one or one == other:
        return Text(" " if one == other else "new", style="dim")
    share = (other - one) / one
    return Text(f"{share:+.0%}" if abs(share) >= 0.01 else f"{share:+.1%}", style="green" if share < 0 else "yellow")


def _reasons(found: dict[str, Any]) -> Iterator[Text]:
    first = found["differs_from"]
    was, now = first["recorded"] or "nothing", first["now"] or "nothing"
    yield _fact(
        "differs", f"from event {first['seq']} on: {drawing.one_line(str(was))} then, {drawing.one_line(str(now))} now"
    )
    if moved := found["moved"]:
        named = ", ".join(f"{one['task_id']} {_place(one)}" for one in moved[:_MOVED])
        yield _fact("order", named + (f" and {len(moved) - _MOVED} more" if len(moved) > _MOVED else ""))
    for heading, lines in (
        ("assumed", [f"{one['task_id']}, attempt {one['attempt']}: {one['what']}" for one in found["assumed"]]),
        ("dropped", [f"{one['what']} at {drawing.local_time(one['at'])}: {one['why']}" for one in found["dropped"]]),
    ):
        for number, line in enumerate(lines[:_NAMED]):
            yield _fact("" if number else heading, drawing.one_line(line))
        if len(lines) > _NAMED:
            yield _fact("", f"and {len(lines) - _NAMED} more; --json has them all")
    if not found["files_judged"]:
        why = f"{found['files_left']}; " if found["files_left"] else ""
        yield _fact("files", drawing.one_line(f"{why}nothing is merged, so no conflict is found anew"))
    if found["held_by_machine"]:
        yield _fact("machine", "its load held back starts then; from there on it holds nothing back")


def _place(one: dict[str, Any]) -> str:
    if one["otherwise"] is None:
        return "never starts"
    return (
        f"starts too, as {one['otherwise']}."
        if one["recorded"] is None
        else f"{one['recorded']}. → {one['otherwise']}."
    )


def _fact(name: str, *parts: Any) -> Text:
    return Text.assemble((f"{name + ':' if name else '':<10}", "dim"), *parts)


def page_of_all(found: dict[str, Any]) -> list[Text]:
    """Many runs: those that change most, and all together."""
    words = ", ".join(f"{name}={text}" for name, text in found["settings"].items())
    runs, whole = found["runs"], found["summary"]
    changed = sorted((one for one in runs if one["differs"]), key=lambda one: -abs((one["ratio"] or 1.0) - 1.0))
    many = f"{whole['runs']} run{'s' * (whole['runs'] != 1)}"
    lines = [Text(f"{many}, with {words}"), Text()]
    if changed:
        paid = any(one["recorded"]["cost_usd"] or one["otherwise"]["cost_usd"] for one in changed)
        assumed = any(one["assumed"] for one in changed)
        columns: list[tuple[str, bool, Callable[[dict[str, Any]], Any]]] = [
            ("RUN", True, lambda one: one["run_id"]),
            ("NAME", True, lambda one: one["name"]),
            ("WAS", True, lambda one: _took(one["recorded"]["makespan_s"])),
            ("WOULD BE", True, lambda one: _took(one["otherwise"]["makespan_s"])),
            ("CHANGE", True, lambda one: _change(one["recorded"]["makespan_s"], one["otherwise"]["makespan_s"])),
            ("COST", paid, lambda one: drawing.dollars(one["recorded"]["cost_usd"])),
            ("WOULD BE", paid, lambda one: drawing.dollars(one["otherwise"]["cost_usd"])),
            ("STATUS", True, lambda one: _state(one["recorded"]["status"], one["otherwise"]["status"])),
            ("ASSUMED", assumed, lambda one: one["assumed"] or _NONE),
        ]
        shown = [column for column in columns if column[1]]
        if drawing.console().width < _ALL_COLUMNS:
            shown = [column for column in shown if column[0] not in ("NAME", "ASSUMED")]
        rows = [[cell(one) for _, _, cell in shown] for one in changed[:_RUNS]]
        numbers = [place for place, column in enumerate(shown) if column[0] not in ("RUN", "NAME", "STATUS")]
        lines += drawing.table([column[0] for column in shown], rows, right=numbers)
        if len(changed) > _RUNS:
            lines.append(Text(f"and {len(changed) - _RUNS} more that change less; --json has them all", style="dim"))
        lines.append(Text())
    lines += list(_together(whole, len(changed)))
    if found["skipped"]:
        first = found["skipped"][0]
        lines.append(_fact("left out", f"{len(found['skipped'])} runs, such as {first['run_id']}: {first['why']}"))
    return lines


def _together(whole: dict[str, Any], changed: int) -> Iterator[Text]:
    yield _fact(
        "changed", f"{changed} of {whole['runs']}; where nothing changes, every decision is the one that was made"
    )
    if whole["ratio"] is not None:
        ratio = whole["ratio"]
        yield _fact(
            "makespan", (f"{ratio['median']:.2f}", "bold"), f" of what it was in the middle run, {ratio['low']:.2f} to "
            f"{ratio['high']:.2f}; all together {_took(whole['makespan_s']['recorded'])} → "
            f"{_took(whole['makespan_s']['otherwise'])}",
        )  # fmt: skip
    cost = whole["cost_usd"]
    if cost["recorded"] or cost["otherwise"]:
        yield _fact("cost", f"{drawing.dollars(cost['recorded'])} → {drawing.dollars(cost['otherwise'])}")
