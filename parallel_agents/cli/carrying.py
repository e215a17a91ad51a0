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
@click.option(
    "--chrome", metavar="FILE", help='Instead: a trace for Perfetto and chrome://tracing; "-" is standard output.'
)
@click.option("--otlp", metavar="FILE", help='Instead: spans of OpenTelemetry, as OTLP/JSON; "-" is standard output.')
@click.option("--otlp-send", "sends", is_flag=True, help="Instead: send the spans, to OTEL_EXPORTER_OTLP_ENDPOINT.")
@click.option("--otlp-endpoint", "endpoint", metavar="URL", help="Send them there.")
@click.option("--with-content", is_flag=True, help="With the prompts and outputs of agents, in spans.")
@click.option("--at", metavar="MOMENT", help="A trace or spans as of then: an event (412), a time, or a checkpoint.")
@json_option
@store_option
@click.pass_context
def export(
    ctx: click.Context, run: str | None, file: Path | None, redact: bool, yes: bool, chrome: str | None, otlp: str | None,
    sends: bool, endpoint: str | None, with_content: bool, at: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write one run to a file: its events and what proves them, the commits of its checkpoints, what its attempts wrote.

    Another machine imports, verifies, replays and forks it. Of other runs only what held slots or money meanwhile is in it.

    With --chrome or --otlp it is written for other tools instead, which show what ran and waited when; nothing is proved.
    """
    from parallel_agents import look

    ways = [
        name
        for name, given in (("--chrome", chrome is not None), ("--otlp", otlp is not None),
                            ("--otlp-send", sends or endpoint is not None))
        if given
    ]  # fmt: skip
    if ways or with_content or at is not None:
        from parallel_agents.cli.tracing import Wanted, check, write_trace

        wanted = Wanted(chrome, otlp, sends or endpoint is not None, endpoint, with_content, redact)
        check(wanted, ways, file=file, yes=yes, as_json=as_json)
        with opened(ctx) as log:
            upto = look.moment_of_run(log, at, run)
            write_trace(log, look.resolve_run(log, run, upto), upto, wanted)
        return
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
