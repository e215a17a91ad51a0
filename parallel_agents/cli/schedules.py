"""The verb schedules: plans that run by a timetable."""

from __future__ import annotations

from typing import Any

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.scene import opened, print_json, project_of, reading


@click.command()
@click.option("--remove", "schedule_id", metavar="ID", help="Let this plan not run by itself any more.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")
@reading
@click.pass_context
def schedules(ctx: click.Context, schedule_id: str | None, reason: str, as_json: bool, at: str | None) -> None:
    """List the plans that run by a timetable (`submit --cron`), or take one out."""
    from parallel_agents import daemons, look
    from parallel_agents import schedules as made

    if schedule_id is not None and at is not None:
        raise InvalidUsage("--remove and --at exclude each other", hint="the past is as it was")
    if schedule_id is None and reason:
        raise InvalidUsage("--reason is about --remove, which is not given")
    with opened(ctx) as log:
        if schedule_id is not None:
            made.remove(log, schedule_id, reason)
            done = {"schedule_id": schedule_id, "removed": True}
            print_json(done) if as_json else click.echo(f"{schedule_id} runs no more by itself")
            return
        lines = made.lines(log, look.moment(log, at))
    if as_json:
        print_json(lines)
        return
    if not lines:
        click.echo('nothing is scheduled; `parallel-agents submit PLAN --cron "0 9 * * 1-5"` does that', err=True)
        return
    from parallel_agents.cli import drawing

    headings = ("SCHEDULE", "NAME…", "WHEN", "ZONE", "NEXT", "LAST", "RUN")
    drawing.show(drawing.table(headings, map(_row, lines)))
    for line in lines:
        if line["skipped"]:
            drawing.show(drawing.one_line(f"{line['schedule_id']}: the last time led to no run: {line['skipped']}"))
    if not daemons.is_there(project_of(ctx).store):
        click.echo("no daemon is there to run them; `parallel-agents daemon start` starts one", err=True)


def _row(line: dict[str, Any]) -> tuple[Any, ...]:
    from parallel_agents.cli import drawing

    return (
        line["schedule_id"], line["name"], line["cron"], line["zone"], drawing.local_time(line["next_at"]) or "never",
        drawing.local_time(line["last_due_at"]) or "", line["last_run_id"] or "",
    )  # fmt: skip
