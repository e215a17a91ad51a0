"""The verbs backup and restore: a store with the commits of its runs, as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, store_option
from parallel_agents.project import Project


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-outputs", is_flag=True, help="Without what attempts wrote and were told.")
@click.option("--yes", "-y", is_flag=True, help="Replace a file that is there.")
@json_option
@store_option
@click.pass_context
def backup(ctx: click.Context, file: Path, no_outputs: bool, yes: bool, as_json: bool) -> int:
    """Write a backup to FILE: the log, the commits of all runs, and what their attempts wrote.

    Runs go on meanwhile. Not in it: your own branches, what attempts that run have not yet finished, and sessions of agents.
    """
    from parallel_agents.backup import back_up

    with opened(ctx, actor="backup") as log, told_of_progress() as told:
        done = back_up(log, project_of(ctx), file, outputs=not no_outputs, overwrite=yes, progress=told)
    if as_json:
        print_json(done)
        return 0
    from parallel_agents.cli import drawing

    _say_left_out(done)
    click.echo(
        f"{done['file']}: {drawing.size(done['bytes'])}, {done['events']:,} events, runs: {done['runs']:,}, "
        f"refs: {done['refs']:,}"
    )
    click.echo(f"sha256 {done['sha256']}")
    return 0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--into", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="The project, if not this one."
)
@click.option("--yes", "-y", is_flag=True, help="Put a store that is there aside, and do not ask.")
@json_option
@store_option
@click.pass_context
def restore(ctx: click.Context, file: Path, into: Path | None, yes: bool, as_json: bool) -> int:
    """Bring the store of a backup back, with the commits of its runs.

    All of FILE is checked first. Your branches, index and files are not touched. Runs that were not over are paused.
    """
    from parallel_agents.restoring import restore as bring_back

    project = project_of(ctx)
    if into is not None:
        if not into.is_dir():
            raise InvalidUsage(f"there is no folder {into}", hint="make it, or clone the project there")
        project = Project.find(start=into, root=into, store=ctx.find_root().obj["store"])
    if project.store.exists() and not yes and sys.stdin.isatty():
        click.confirm(f"Put the store at {project.store} aside, and this one in its place?", abort=True, err=True)
        yes = True
    with told_of_progress() as told:
        done = bring_back(file, project, overwrite=yes, progress=told)
    if as_json:
        print_json(done)
        return 0
    _say_left_out(done)
    click.echo(f"{done['store']}: {done['events']:,} events, runs: {done['runs']:,}, as of {done['made_at']}")
    if done["aside"] is not None:
        click.echo(f"the store that was there is {done['aside']}", err=True)
    for run_id in done["paused"]:
        click.echo(f"run {run_id} is paused: `parallel-agents resume {run_id}` goes on with it", err=True)
    for one in done["schedules"]:
        said = f"{one['name']} does not run at {one['cron']!r} any more: `parallel-agents submit --cron` lets it again"
        click.echo(said, err=True)
    if done["lost"]:
        click.echo(f"attempts that did not run here count as lost: {', '.join(done['lost'])}", err=True)
    return 0


def _say_left_out(done: dict[str, Any]) -> None:
    for what in done["left_out"]:
        click.echo(f"not in the backup: {what}", err=True)
