"""What happened, event by event, in words or as it stands in the log."""

from __future__ import annotations

import sys
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from parallel_agents import InvalidUsage, look
from parallel_agents.cli.harmless import json_text
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import opened, reading, run_argument

_WHEN = "SEQ|TIME"


@click.command()
@run_argument
@click.option(
    "--type", "types", metavar="T", multiple=True, help="Only events of this type, such as TaskFailed; repeatable."
)
@click.option("--task", "task_id", metavar="TASK", help="Only events that name this task.")
@click.option("--attempt", metavar="ID|N", help="Only events of this attempt: its id, or with --task its number.")
@click.option("--actor", metavar="WHO", help="Only what was done by this one, such as cli or daemon.")
@click.option("--text", metavar="TEXT", help="Only events one of whose values holds this, whatever the case.")
@click.option(
    "--cost-over",
    "cost_over",
    metavar="USD",
    help="Only what attempts were charged that cost more than this in all; with --type those events of such attempts.",
)
@click.option("--since", metavar=_WHEN, help="From this event or moment on: 412, 14:30, yesterday, '2 hours ago', ...")
@click.option("--until", metavar=_WHEN, help="Up to this event or moment.")
@click.option("--after", metavar=_WHEN, help="As --since, without the event or moment itself.")
@click.option("--before", metavar=_WHEN, help="As --until, without the event or moment itself.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the newest N of what fits.")
@click.option("--all", "all_runs", is_flag=True, help="Every run of the store.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens next, until the run has ended.")
@reading
@click.pass_context
def history(
    ctx: click.Context,
    /,
    run: str | None,
    all_runs: bool,
    follow: bool,
    limit: int | None,
    cost_over: str | None,
    as_json: bool,
    at: str | None,
    **words: Any,
) -> None:
    """Show what happened, event by event, oldest first, undone events too.

    With --json an event a line, as it stands in the log. What is asked for by several options has to fit all of them.
    """
    from parallel_agents.history import Question
    from parallel_agents.history import history as events

    if run is not None and all_runs:
        raise InvalidUsage("RUN and --all exclude each other", hint="leave one of them out")
    if follow and at is not None:
        raise InvalidUsage("--follow and --at exclude each other", hint="the past does not go on")
    over = None if cost_over is None else micros(cost_over)
    with opened(ctx) as log, told_of_progress() as told:
        upto = look.moment(log, at) if all_runs else look.moment_of_run(log, at, run)
        run_id = None if all_runs else look.resolve_run(log, run, upto)
        question = Question(run_id, cost_over_usd_micros=over, **words)
        rows = events(log, question, upto=upto, newest=limit, follow=follow, told=told)
        if as_json:
            for row in rows:
                if row is None:
                    sys.stdout.flush()
                    continue
                sys.stdout.write(json_text(look.history_row(row)) + "\n")
            return
        from parallel_agents.cli.history_page import HistoryPage

        page = HistoryPage(undone=look.undone(log, upto, run_id), with_run=all_runs)
        for row in rows:
            if row is not None:
                page.print(look.history_row(row))
        if not page.lines:
            click.echo("no event fits", err=True)


def micros(said: str) -> int:
    """Dollars as micro-dollars.

    Raises:
        InvalidUsage: it is no amount.
    """
    try:
        amount = Decimal(said.strip().removeprefix("$"))
        if amount.is_finite() and 0 <= amount < 10**9:
            return int(amount * 1_000_000)
    except InvalidOperation:
        pass
    raise InvalidUsage(f"--cost-over {said[:40]!r} is no amount", hint="dollars, such as 0.50")
