"""The verb archive: the bulk of old runs moves into one compressed file a run, and is read from there."""

from __future__ import annotations

import click

from parallel_agents import InvalidUsage, look
from parallel_agents.cli.scene import complete_run, json_option, opened, print_json, store_option


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_run)
@click.option("--older-than", metavar="AGE", help="All runs that have ended so long ago: 30d, 12h, 0.")
@click.option("--compact", is_flag=True, help="Rewrite the store without its gaps; nobody can append meanwhile.")
@json_option
@store_option
@click.pass_context
def archive(ctx: click.Context, runs: tuple[str, ...], older_than: str | None, compact: bool, as_json: bool) -> None:
    """Move outputs and logs of runs that are over into compressed files under .parallel-agents/archive.

    Every verb reads them from there. Checkpoints, costs and the chain of the log stay where they are.
    """
    if bool(runs) == (older_than is not None) and not (compact and not runs):
        raise InvalidUsage(
            "say which runs: by their ids, or by their age", hint="such as `parallel-agents archive --older-than 30d`"
        )
    from parallel_agents import archiving
    from parallel_agents.leftovers import parse_age

    with opened(ctx) as log:
        chosen = list(dict.fromkeys(look.resolve_run(log, run) for run in runs))
        if older_than is not None:
            chosen = archiving.ended_before(log, parse_age(older_than))
        done = archiving.archive(log, chosen, named=bool(runs))
        done["given_back_bytes"] = log.give_back(compact=compact)
        done["free_bytes"] = log.free_bytes()
    if as_json:
        print_json(done)
        return
    from parallel_agents.cli.drawing import size

    for one in done["left"]:
        click.echo(f"stays: run {one['run_id']}: {one['why']}", err=True)
    for one in done["archived"]:
        click.echo(f"{one['run_id']}  {one['events']} bodies and {one['files']} files in {size(one['bytes'])}")
    if not done["archived"]:
        click.echo("there is nothing to archive", err=True)
    if done["free_bytes"] > 10**6 and not compact:
        click.echo(
            f"{size(done['free_bytes'])} of the store are free for what comes; --compact gives them to the disk",
            err=True,
        )
