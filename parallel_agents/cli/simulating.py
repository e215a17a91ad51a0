"""The verb simulate: a plan played many times before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from parallel_agents.cli import drawing
from parallel_agents.cli.dry_run import dollars, duration
from parallel_agents.cli.otherwise import options_of, read_settings
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.running import prepared
from parallel_agents.cli.scene import json_option, print_json, project_of, store_option

_CRITICAL = 8  # Tasks that are named.
_BASES = {
    "task": "their own history", "type": "the history of their type", "plan": "what the plan says", "prior": "a prior",
    "unknown": "nothing: counted as 1 s",
}  # fmt: skip


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True,
    help="What if: such as max_parallel_agents=8, strategy=pipeline or TASK.expected_s=60; shown beside the plan as it is.",
)  # fmt: skip
@click.option(
    "--config", "config_path", metavar="FILE", type=click.Path(path_type=Path),
    help="A configuration file in place of the project's own.",
)  # fmt: skip
@json_option
@store_option
@click.pass_context
def simulate(
    ctx: click.Context, plan: Path, settings: tuple[str, ...], config_path: Path | None, as_json: bool
) -> None:
    """Play a plan many times without running it: how long it takes, what it costs, what its end waits for.

    The scheduler that runs plans plays it, on a clock of its own, with times, costs and failures drawn from what attempts took
    before, from what the plan says (expected_s), or from a prior.
    """
    from parallel_agents.otherwise import simulating
    from parallel_agents.past_attempts import NOTHING, read_past

    project, given = project_of(ctx), read_settings(settings)
    made = prepared(project, plan, None, None, config_path, ())[0]
    past = NOTHING
    if project.store.exists():  # Where there is no store, none is made.
        with project.open() as log:
            past = read_past(log, made.name)
    with told_of_progress() as told:

        def played(count: int, total: int) -> None:
            told("plays", count, total)

        if given:
            changed, understood = simulating.simulate_differently(made, given, options_of(ctx, given))
            found = {**simulating.simulate(changed, past, played), "settings": understood}
            found["as_planned"] = simulating.simulate(made, past, played)
        else:
            found = {**simulating.simulate(made, past, played), "settings": {}, "as_planned": None}
    if as_json:
        print_json(found)
    else:
        drawing.show(*page(found))


def page(found: dict[str, Any]) -> list[Text]:
    """The lines for a person."""
    words = ", ".join(f"{name}={drawing.as_json(value)}" for name, value in found["settings"].items())
    slots = f"{found['slots']} slot{'s' * (found['slots'] != 1)}"
    head = Text.assemble(
        (found["name"], "bold"), f"  {found['tasks']} tasks on {slots}, played {found['draws']} times"
        f"{', with ' + words if words else ''}; nothing was run",
    )  # fmt: skip
    other = found["as_planned"]
    rows: list[list[Any]] = []
    for name, key, told in (
        ("makespan", "makespan_s", duration),
        ("cost", "cost_usd", dollars),
        ("slots busy", "utilisation", _share),
    ):
        if found[key] is not None:
            rows.append(_row(name, found[key], None if other is None else other[key], told))
    rows.append(_plain("completes", "completes", found, other, _share))
    if found["retries"] or (other is not None and other["retries"]):
        rows.append(_plain("retries", "retries", found, other, lambda value: f"{value:.1f}"))
    share = f"{found['share']:.0%}"
    headings = [
        " ",
        *([] if other is None else ["AS PLANNED", share]),
        "WITH THAT" if other is not None else "MIDDLE",
        f"{share} ",
    ]
    lines = [head, Text(), *drawing.table(headings, rows), Text()]
    named = ", ".join(f"{one['task_id']} {one['share']:.0%}" for one in found["critical"][:_CRITICAL])
    lines.append(_fact("waits for", f"{named}: in so many of the plays the end waited for it"))
    rests = ", ".join(f"{count} on {_BASES[basis]}" for basis, count in found["basis"].items())
    lines.append(_fact("rests", f"times of {rests}"))
    if found["around_s"]:
        lines.append(_fact("around", f"{found['around_s']:.2f} s for each attempt's files and start, as seen before"))
    if found["failing"]:
        failing = ", ".join(f"{name} {chance:.0%}" for name, chance in list(found["failing"].items())[:_CRITICAL])
        lines.append(_fact("failures", f"{failing} of its attempts, as seen before"))
    lines.append(_fact("left out", "waits for people and for providers, other runs, the load of the machine"))
    return lines


def _row(name: str, figure: dict[str, float], other: dict[str, float] | None, told: Any) -> list[Any]:
    def span(of: dict[str, float]) -> Text:
        return Text(f"{told(of['low'])}–{told(of['high'])}", style="dim")

    before = [] if other is None else [told(other["value"]), span(other)]
    return [name, *before, Text(told(figure["value"]), style="bold"), span(figure)]


def _plain(name: str, key: str, found: dict[str, Any], other: dict[str, Any] | None, told: Any) -> list[Any]:
    before = [] if other is None else [told(other[key]), Text(" ")]
    return [name, *before, told(found[key]), Text(" ")]


def _share(value: float) -> str:
    return f"{value:.0%}"


def _fact(name: str, text: str) -> Text:
    return Text.assemble((f"{name + ':':<11}", "dim"), text)
