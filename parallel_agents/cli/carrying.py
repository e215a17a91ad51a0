"""The verbs export and import: one run as one file, from one machine to another."""

from __future__ import annotations

from pathlib import Path

import click

from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, run_argument, store_option


@click.command()
@run_argument
@click.option("--output", "-o", "file", type=click.Path(path_type=Path), help="The file; else RUN.export.tar.gz here.")
@click.option("--redact", is_flag=True, help="Without what people described and agents wrote, and without files.")
@click.option("--yes", "-y", is_flag=True, help="Replace a file that is there.")
@json_option
@store_option
@click.pass_context
def export(ctx: click.Context, run: str | None, file: Path | None, redact: bool, yes: bool, as_json: bool) -> None:
    """Write one run to a file: its events and what proves them, the commits of its checkpoints, what its attempts wrote.

    Another machine imports, verifies, replays and forks it. Of other runs only what held slots or money meanwhile is in it.
    """
    from parallel_agents import look
    from parallel_agents.exporting import export as write

    with opened(ctx) as log, told_of_progress() as told:
        run_id = look.resolve_run(log, run)
        target = file or Path(f"{run_id}.export.tar.gz")
        done = write(log, project_of(ctx), run_id, target, redact=redact, overwrite=yes, progress=told)
    if as_json:
        print_json(done)
        return
    from parallel_agents.cli import drawing

    for what in done["left_out"]:
        click.echo(f"not in the export: {what}", err=True)
    click.echo(
        f"{done['file']}: {drawing.size(done['bytes'])}, run {run_id} with {done['events']:,} events, refs: {done['refs']:,}"
    )
    click.echo(f"events {done['first']:,} to {done['head_seq']:,} of the store, whose head is {done['head']}")
    click.echo(f"sha256 {done['sha256']}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@store_option
@click.pass_context
def import_(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Bring a run in that was exported elsewhere. It is looked at, verified, replayed and forked, and never dispatched.

    All of FILE is checked first. Nothing of your own changes but refs below refs/parallel-agents/RUN/.
    """
    from parallel_agents.importing import bring_in

    with told_of_progress() as told:
        done = bring_in(file, project_of(ctx), progress=told)
    if as_json:
        print_json(done)
        return
    run_id = done["run_id"]
    for what in done["left_out"]:
        click.echo(f"not in the export: {what}", err=True)
    click.echo(run_id)
    click.echo(f"{done['status']}, {done['events']:,} events; {done['links']:,} links of the chain hold", err=True)
    what = "history, replay --verify" if done["redacted"] else "history, replay --verify, fork"
    click.echo(f"`parallel-agents status {run_id}` shows it; so do {what}", err=True)
