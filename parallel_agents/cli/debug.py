"""The verb debug: a run under the magnifying glass."""

from __future__ import annotations

import gc
import os
import sys

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.scene import opened, project_of, run_argument, store_option


@click.command()
@run_argument
@click.option(
    "--at",
    metavar="MOMENT",
    help="Begin there: at an event (412), a time (local without zone, or as '2 hours ago'), or a checkpoint.",
)
@click.option("--follow", "-f", is_flag=True, help="Begin at the end, and go on with what happens next.")
@store_option
@click.pass_context
def debug(ctx: click.Context, run: str | None, at: str | None, follow: bool) -> None:
    """Go to and fro in a run, event by event, and see all of it at each: tasks, queue, cost, files, output.

    Runs that go on are followed; from any event the run can be rolled back or forked. Press ? for the keys.
    """
    from parallel_agents import look

    if follow and at is not None:
        raise InvalidUsage("--follow and --at exclude each other", hint="f follows from inside, wherever it began")
    _check_terminal()
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        from parallel_agents.cli.debug_app import Debugger
        from parallel_agents.debugger.debugging import Debugging

        session = Debugging(log, run_id)
        if at is not None:
            session.go_to(at)
        project = project_of(ctx)
        own_log = None if log.carried is None else lambda: project.open(create=True, actor="cli")
        ended = look.has_ended(log, run_id)
        app = Debugger(session, project=project, own_log=own_log, follows=follow or (at is None and not ended))
        gc.collect()
        gc.freeze()  # Else a look through all tasks of the run comes between two keys now and then.
        app.run()
        if app.failure is not None:
            raise app.failure
        if app.return_code:
            ctx.exit(app.return_code)


def _check_terminal() -> None:
    """Refuse where nobody could press a key.

    Raises:
        InvalidUsage: there is no terminal, or one on which nothing can be drawn.
    """
    term, seen = os.environ.get("TERM", ""), sys.stdin.isatty() and sys.stdout.isatty()
    if seen and term not in ("", "dumb"):
        return
    lack = f"TERM is {term or 'not set'}" if seen else "there is none"
    raise InvalidUsage(
        f"debug draws on a terminal, and {lack}",
        hint="`replay` tells the same line by line, `history` lists it, and `status --at SEQ` shows one moment",
    )
