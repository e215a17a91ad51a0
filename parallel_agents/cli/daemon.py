"""The verb daemon: start, stop, status, run."""

from __future__ import annotations

import sys

import click

from parallel_agents import daemons
from parallel_agents.cli.scene import json_option, print_json, project_of, store_option

_NAMES = 5  # Of running tasks, in one line.


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
@click.option("--detach", "how", flag_value="detach", default="detach", help="At once; what runs goes on. The default.")
@click.option(
    "--drain", "how", flag_value="drain", help="When what runs has ended; until then nothing more is started."
)
@json_option
@store_option
@click.pass_context
def stop(ctx: click.Context, how: str, as_json: bool) -> int:
    """End it. What it leaves running goes on, and whoever dispatches next adopts it.

    While it drains, Ctrl-C only stops the waiting, and another stop, without --drain, has it detach at once.
    """
    store = project_of(ctx).store
    try:
        found = daemons.stop(store) if how == "detach" else daemons.drain(store, _tell_what_runs)
    except KeyboardInterrupt:
        if how == "detach":
            raise
        click.echo("the daemon goes on draining; `parallel-agents daemon stop` has it detach at once", err=True)
        return 130
    if as_json:
        print_json(daemons.as_json(found))
    else:
        click.echo(f"daemon {found.identity.pid} has ended")
    return 0


def _tell_what_runs(names: list[str]) -> None:
    shown = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
    click.echo(f"waiting for {len(names)} running: {shown}" if names else "nothing runs any more", err=True)


@daemon.command()
@json_option
@store_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say whether it runs, or drains; exit code 7 where there is none."""
    project = project_of(ctx)
    found = daemons.status(project.store)
    if as_json:
        print_json(daemons.as_json(found))
    else:
        click.echo(
            f"daemon {found.identity.pid} dispatches {project.store} since {found.started_at}; its log: {found.log_file}"
        )
        if found.draining_since is not None:
            click.echo(f"it drains since {found.draining_since}: it starts nothing more, and ends with what runs")


@daemon.command()
@store_option
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run it in the foreground, until SIGTERM or Ctrl-C; SIGUSR1 has it drain."""
    from loguru import logger

    from parallel_agents.scheduler.daemon import run_daemon
    from parallel_agents.schedules import Clock

    project = project_of(ctx)
    project.check_not_shipped()
    logger.remove()
    logger.add(sys.stderr, level="INFO", format="{time:YYYY-MM-DD HH:mm:ss.SSS} {level.name} {message}", diagnose=False)
    run_daemon(project.store, started_at=daemons.now_text(), timed=Clock, now_text=daemons.now_text)
