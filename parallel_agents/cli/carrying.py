"""The verbs export and import: one run as one file, from one machine to another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage
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
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--remove", "removed", metavar="RUN", help="Instead: take an imported run away. It is shown and asked first."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def import_(ctx: click.Context, file: Path | None, removed: str | None, yes: bool, as_json: bool) -> None:
    """Bring a run in that was exported elsewhere. It is looked at, verified, replayed and forked, and never dispatched.

    All of FILE is checked first. Nothing of your own changes but refs below refs/parallel-agents/RUN/.
    """
    if (file is None) == (removed is None):
        raise InvalidUsage(
            "say which file" if file is None else "a file and --remove exclude each other",
            hint="`parallel-agents import FILE` brings a run in, `import --remove RUN` takes one away",
        )
    if removed is not None:
        _take_away(ctx, removed, yes=yes, as_json=as_json)
    else:
        assert file is not None
        _bring_in(ctx, file, as_json=as_json)


def _bring_in(ctx: click.Context, file: Path, *, as_json: bool) -> None:
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


def _take_away(ctx: click.Context, named: str, *, yes: bool, as_json: bool) -> None:
    from parallel_agents import removing_imported

    project = project_of(ctx)
    if not yes:
        seen = removing_imported.look_ahead(project, named)
        if not sys.stdin.isatty():
            raise InvalidUsage(
                f"run {seen['run_id']} would be gone, and nobody is here to be asked", hint="say it with --yes"
            )
        for line in _what_goes(seen):
            click.echo(line, err=True)
        click.confirm("Take it away?", abort=True, err=True)
        named = seen["run_id"]
    done = removing_imported.remove(project, named)
    if as_json:
        print_json(done)
        return
    click.echo(f"run {done['run_id']} is not here any more")
    if done["kept"]:
        click.echo(f"its refs stay: {done['kept']}", err=True)


def _what_goes(seen: dict[str, Any]) -> list[str]:
    """What a person has to know before they agree.

    Args:
        seen: as ``removing_imported.look_ahead`` gives it.
    """
    from parallel_agents.cli import drawing

    where = f" from {seen['from']}" if seen.get("from") else ""
    when = f" at {seen['imported_at'][:19]}Z" if "imported_at" in seen else ""
    lines = [f"run {seen['run_id']}, imported{where}{when}:"]
    lines.append(
        f"  its events and what its attempts wrote go, {drawing.size(seen['bytes'])}: keep the file of the export"
    )
    if seen["refs"]:
        alone = f", and {seen['alone']} of their commits, which nothing else reaches" if seen["alone"] else ""
        lines.append(f"  its refs go: {len(seen['refs'])}{alone}")
    if seen["kept"]:
        lines.append(f"  its refs stay: {seen['kept']}")
    if seen["forks"]:
        lines.append(f"  its forks stay, with their files: {', '.join(seen['forks'])}")
    return lines
