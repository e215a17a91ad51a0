"""The verb gc: what runs have left and nobody needs any more is shown, and removed once somebody agrees."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.scene import json_option, print_json, project_of, store_option

if TYPE_CHECKING:
    from parallel_agents.housekeeping import Survey

_KINDS = {
    "checkout": "checkout", "attempts": "attempts", "leftover": "leftover", "group": "group", "ref": "refs",
    "checkpoints": "checkpoints",
}  # fmt: skip


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option(
    "--older-than", default="7d", metavar="AGE", show_default=True, help="How long logs and refs are kept: 7d, 12h, 0."
)
@click.option("--checkpoints", is_flag=True, help="Give up checkpoints of old runs that are merged and have no fork.")
@click.option(
    "--lost-refs",
    is_flag=True,
    help="Also refs that no log here knows or no event names, and that alone hold their commits.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def gc(
    ctx: click.Context, dry_run: bool, older_than: str, checkpoints: bool, lost_refs: bool, yes: bool, as_json: bool
) -> int:
    """Remove checkouts of runs that have ended, old logs of attempts, and what crashes have left.

    Nothing goes whose content no checkpoint holds; ignored files in a checkout are in none. Nothing of a run goes that
    goes on, and nothing that somebody has locked.
    """
    from parallel_agents import housekeeping
    from parallel_agents.leftovers import parse_age

    age_s = parse_age(older_than)
    project = project_of(ctx)
    with project.open(actor="gc") if project.store.exists() else nullcontext() as log:
        found = housekeeping.survey(log, project, older_than_s=age_s, checkpoints=checkpoints, lost_refs=lost_refs)
        seen = {"dry_run": dry_run, **housekeeping.as_json(found)}
        if dry_run or not found.items:
            print_json({**seen, "removed": [], "left": [], "freed_bytes": 0}) if as_json else _page(found)
            return 0
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidUsage(
                    f"{_count(len(found.items))} would be removed, and nobody is here to be asked",
                    hint="look with --dry-run, then say it with --yes",
                )
            _page(found, err=True)
            click.confirm("Remove these?", abort=True, err=True)
        done = housekeeping.clean(log, project, found)
    if as_json:
        print_json({**seen, **done})
    else:
        _say_done(done)
    return 1 if any(one["failed"] for one in done["left"]) else 0


def _count(number: int) -> str:
    return "1 thing" if number == 1 else f"{number} things"


def _page(found: Survey, *, err: bool = False) -> None:
    """What may go and what stays, for a person."""
    from parallel_agents.cli import drawing

    rows = [
        (
            _KINDS[item.kind],
            drawing.size(item.bytes),
            item.path,
            item.why + (", and what it holds becomes a checkpoint first" if item.kept_first else ""),
        )
        for item in found.items
    ]
    lines: list[Any] = drawing.table(("WHAT", "SIZE", "WHERE", "WHY…"), rows, right=(1,)) if rows else []
    lines += [f"stays: {one.path}: {one.why}" + (f" ({one.hint})" if one.hint else "") for one in found.stays]
    lines.append(
        f"{_count(len(rows))} to remove, {drawing.size(found.bytes)}" if rows else "there is nothing to remove"
    )
    if any(item.kind == "attempts" for item in found.items):
        lines.append("logs of attempts go for good; `parallel-agents archive --older-than 7d` keeps them, compressed")
    kept = found.checkpoints
    if kept.get("refs"):
        lines.append(
            f"checkpoints are kept: {kept['refs']} refs, {drawing.size(kept['bytes'])} that nothing else reaches"
            " (--checkpoints gives up old ones)"
        )
    if err:
        for line in lines:
            click.echo(line if isinstance(line, str) else line.plain.rstrip(), err=True)
    else:
        drawing.show(lines)


def _say_done(done: dict[str, Any]) -> None:
    from parallel_agents.cli import drawing

    for one in done["left"]:
        click.echo(f"stays: {one['path']}: {one['why']}", err=True)
    click.echo(f"removed {_count(len(done['removed']))}, {drawing.size(done['freed_bytes'])}")
