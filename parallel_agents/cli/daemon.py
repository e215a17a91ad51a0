"""The verb daemon: start, stop, status, run."""

from __future__ import annotations

import sys

import click

from parallel_agents import daemons
from parallel_agents.cli.scene import json_option, print_json, project_of, store_option


@click.group()
def daemon() -> None:
    """The process that dispatches in the background: one a store, for every run that nobody else holds."""


@daemon.command()
@json_option
@store_option
@click.pass_context
def start(ctx: click.Context, as_json: bool) -> None:
    """Start it in the background."""
    project = project_of(ctx)
    found = daemons.start(project.store, daemons.command(project.store))
    if as_json:
        print_json(daemons.as_json(found))
    else:
        click.echo(f"daemon {found.identity.pid} dispatches {project.store}")


@daemon.command()
@json_option
@store_option
@click.pass_context
def stop(ctx: click.Context, as_json: bool) -> None:
    """End it. Attempts go on, and whoever dispatches next adopts them."""
    found = daemons.stop(project_of(ctx).store)
    if as_json:
        print_json(daemons.as_json(found))
    else:
        click.echo(f"daemon {found.identity.pid} has ended")


@daemon.command()
@json_option
@store_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say whether it runs; exit code 7 where it does not."""
    project = project_of(ctx)
    found = daemons.status(project.store)
    if as_json:
        print_json(daemons.as_json(found))
    else:
        click.echo(
            f"daemon {found.identity.pid} dispatches {project.store} since {found.started_at}; its log: {found.log_file}"
        )


@daemon.command()
@store_option
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run it in the foreground, until SIGTERM or Ctrl-C."""
    from loguru import logger

    from parallel_agents.scheduler.daemon import run_daemon
    from parallel_agents.schedules import Clock

    project = project_of(ctx)
    logger.remove()
    logger.add(sys.stderr, level="INFO", format="{time:YYYY-MM-DD HH:mm:ss.SSS} {level.name} {message}", diagnose=False)
    run_daemon(project.store, started_at=daemons.now_text(), timed=Clock)
