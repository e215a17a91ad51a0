"""Verbs that keep house: verify, doctor, config, completion."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from parallel_agents import ChainBroken
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, run_argument, store_option


@click.command()
@run_argument
@click.option("--deep", is_flag=True, help="Also every fold against a rebuild, refs and commits against events.")
@json_option
@store_option
@click.pass_context
def verify(ctx: click.Context, run: str | None, deep: bool, as_json: bool) -> int:
    """Check that the log is what was written: its chain, and the plans that it names. Exit code 8 where it is not.

    RUN says which store: an imported run has one of its own.
    """
    from parallel_agents import look
    from parallel_agents.verification import verify as check

    with opened(ctx) as log, told_of_progress() as told:
        if run is not None:
            look.resolve_run(log, run)
        if deep:
            from parallel_agents.deep_verification import verify_deeply

            found = verify_deeply(log, project_of(ctx), told)
        else:
            found = check(log, lambda done, total: told("events", done, total))
        path = log.path
    if as_json:
        print_json({"store": path, **found})
    if deep:
        return _say_deep(found, as_json=as_json)
    if found["ok"]:
        if not as_json:
            click.echo(f"ok: {found['events']} events, the chain holds; its head is {found['head']}")
            if found.get("carried"):
                click.echo(_part(found["carried"]))
        for name in found["missing_archives"]:
            click.echo(f"archive {name} is not there: only the digests of its events are proved", err=True)
        return 0
    if found["broken"] is not None:
        seq, what = found["broken"]["seq"], found["broken"]["what"]
        raise ChainBroken(
            f"event {seq} was changed: {what}", hint=f"the {found['events']} events before it are as they were written"
        )
    if found["changed_archives"]:
        named = ", ".join(found["changed_archives"])
        raise ChainBroken(f"archives are not what was written: {named}", hint="restore them from a backup")
    digests = ", ".join(digest[:12] for digest in found["missing_plans"])
    raise ChainBroken(f"plans are gone or changed: {digests}", hint="restore the store from a backup")


def _part(of: dict[str, Any]) -> str:
    """Which part of another store's chain an imported run is proved by."""
    less = (
        f"; of {of['reduced']:,} only the envelope is proved, not what came along of their content"
        if of["reduced"]
        else ""
    )
    return f"they are events {of['first']:,} to {of['head_seq']:,} of the store that run {of['run_id']} came from{less}"


def _say_deep(found: dict[str, Any], *, as_json: bool) -> int:
    """Print what was found, one thing below the other."""
    findings = found["findings"]
    for one in () if as_json else findings:
        sign = click.style("✗", fg="red") if one["level"] == "error" else click.style("!", fg="yellow")
        click.echo(f"{sign} {one['check']:<10} {one['detail']}")
        click.echo(f"{'':<13}{click.style(one['hint'], dim=True)}")
    wrong = sum(one["level"] == "error" for one in findings)
    if wrong:
        what = "1 thing does" if wrong == 1 else f"{wrong} things do"
        raise ChainBroken(f"{what} not match what was written", hint="what is below each says what to do next")
    if not as_json:
        counts = ", ".join(f"{what} {number:,}" for what, number in found["looked_at"].items())
        click.echo(f"ok: the chain holds, and all is as the log says: {counts}; its head is {found['head']}")
    return 0


@click.command()
@click.option("--fsck", "thorough", is_flag=True, help="Read every object of checkpoints too; may take minutes.")
@json_option
@store_option
@click.pass_context
def doctor(ctx: click.Context, thorough: bool, as_json: bool) -> int:
    """Look at this machine and this project, and say what is wrong. Exit code 1 where something is."""
    from parallel_agents import doctor as examination

    project = project_of(ctx)
    with tempfile.TemporaryDirectory(prefix="parallel-agents-doctor-") as scratch:
        findings = []
        for finding in examination.examine(project, scratch=Path(scratch), thorough=thorough):
            findings.append(finding)
            if not as_json:
                sign, colour = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}[finding.level]
                click.echo(f"{click.style(sign, fg=colour)} {finding.check:<20} {finding.detail}")
                if finding.hint:
                    click.echo(f"{'':<22} {click.style(finding.hint, dim=True)}")
    if as_json:
        print_json(examination.as_json(iter(findings)))
    return 1 if any(finding.level == "error" for finding in findings) else 0


@click.group()
def config() -> None:
    """The configuration: what holds, and the schemas that editors complete from."""


@config.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="In place of the project's own file.",
)
@json_option
@store_option
@click.pass_context
def config_show(ctx: click.Context, origin: bool, config_path: Path | None, as_json: bool) -> None:
    """Show every key with its value."""
    rows = list(project_of(ctx).configuration(config_path=config_path).rows())
    if as_json:
        value: dict[str, Any] = {
            key: {"value": value, "origin": where, "in_force": force} if origin else value
            for key, value, where, force in rows
        }
        print_json(value)
        return
    from rich.text import Text

    from parallel_agents.cli import drawing
    from parallel_agents.configuration_keys import BY_PATH

    lines = []
    for key, value, where, force in rows:
        shown = Text(drawing.one_line(drawing.as_json(value)), style="" if where == "default" else "bold")
        said = BY_PATH[key].why if BY_PATH[key].force == "in force" else ""
        note = Text(said if force else "not yet in force", style="dim")
        lines.append((key, shown, where, note) if origin else (key, shown, note))
    headings = ("KEY", "VALUE…", "FROM", "") if origin else ("KEY", "VALUE…", "")
    drawing.show(drawing.table(headings, lines))


@config.command("schema")
@click.argument("what", type=click.Choice(["plan", "configuration"]), default="plan")
@store_option
def config_schema(what: str) -> None:
    """Print the JSON Schema of a plan, or of the configuration file."""
    from parallel_agents.schemas import configuration_schema, plan_schema

    print_json(plan_schema() if what == "plan" else configuration_schema())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(parallel-agents completion bash)"
    """
    from click.shell_completion import get_completion_class

    cls = get_completion_class(shell)
    assert cls is not None
    root = ctx.find_root()
    click.echo(cls(root.command, {}, "parallel-agents", "_PARALLEL_AGENTS_COMPLETE").source())
