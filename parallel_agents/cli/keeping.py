"""Verbs that keep house: verify, doctor, config, completion."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_agents import ChainBroken, InvalidUsage
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, run_argument, store_option

if TYPE_CHECKING:
    from parallel_agents.sealing import Seal

_SHOWN = 20  # Events of one kind.


@click.command()
@run_argument
@click.option("--deep", is_flag=True, help="Also every fold against a rebuild, refs and commits against events.")
@click.option(
    "--against",
    metavar="SEAL",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also against a seal; may be repeated.",
)
@click.option(
    "--trust-key", metavar="FINGERPRINT|FILE", multiple=True, help="Whose seals count, in place of your own key's."
)
@json_option
@store_option
@click.pass_context
def verify(
    ctx: click.Context,
    run: str | None,
    deep: bool,
    against: tuple[Path, ...],
    trust_key: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check that the log is what was written: its chain, and the plans that it names. Exit code 8 where it is not.

    The chain shows what was changed by somebody who left the rest as it was. That all of it was written anew, or that its end
    is gone, only a seal shows that was made before (`parallel-agents seal`). RUN says which store: an imported run has its own.
    """
    from parallel_agents import look
    from parallel_agents.verification import verify as check

    if trust_key and not against:
        raise InvalidUsage("--trust-key says whose seals count, and there is no seal", hint="add --against SEAL")
    seals, trusted = _seals(against, trust_key)
    with opened(ctx) as log, told_of_progress() as told:
        if run is not None:
            look.resolve_run(log, run)
        if deep:
            from parallel_agents.deep_verification import verify_deeply

            found = verify_deeply(log, project_of(ctx), told)
        else:
            found = check(log, lambda done, total: told("events", done, total))
        if seals:
            from parallel_agents import sealing

            checked = sealing.check(log, found, seals, trusted)
            found |= {"ok": found["ok"] and all(one.ok for one in checked), "seals": [one.as_data() for one in checked]}
        path = log.path
    if as_json:
        print_json({"store": path, **found})
    return _say_deep(found, as_json=as_json) if deep else _say(found, as_json=as_json)


def _seals(against: Sequence[Path], trust_key: Sequence[str]) -> tuple[list[Seal], dict[str, str]]:
    """The seals that were named, and whose count; read before anything else, because they may be none."""
    if not against:
        return [], {}
    from parallel_agents import seal_keys, sealing

    return [sealing.read_file(path) for path in against], seal_keys.trusted(trust_key, os.environ)


def _say(found: dict[str, Any], *, as_json: bool) -> int:
    """Print the verdict; the first thing that is wrong is the error."""
    for one in () if as_json else found.get("seals", ()):
        click.echo(_of_seal(one, found))
    if found["broken"] is not None:
        seq, what = found["broken"]["seq"], found["broken"]["what"]
        raise ChainBroken(
            f"event {seq} was changed: {what}", hint=f"the {found['events']} events before it are as they were written"
        )
    if found["changed_archives"]:
        named = ", ".join(found["changed_archives"])
        raise ChainBroken(f"archives are not what was written: {named}", hint="restore them from a backup")
    if found["missing_plans"]:
        digests = ", ".join(digest[:12] for digest in found["missing_plans"])
        raise ChainBroken(f"plans are gone or changed: {digests}", hint="restore the store from a backup")
    _refuse_seals(found)
    if not as_json:
        click.echo(f"ok: {found['events']} events, the chain holds; its head is {found['head']}")
        if found.get("carried"):
            click.echo(_part(found["carried"]))
    _say_aside(found)
    return 0


def _of_seal(one: dict[str, Any], found: dict[str, Any]) -> str:
    """What a seal proves, or that it does not fit, in a line."""
    if not one["ok"]:
        return f"{click.style('✗', fg='red')} {'seal':<10} {one['what']}"
    part = found.get("carried") or {"first": 1, "head_seq": found["events"]}  # Of another store's log, or all of ours.
    since = part["head_seq"] - one["seq"]
    rest = f"; the {since:,} since are proved by the chain alone" if since > 0 else ""
    if one["scrubbed_since"]:
        rest += (
            f"; the bodies of {_listed(one['scrubbed_since'])} were changed since to remove a secret, as the log says"
        )
    which = f"events {part['first']:,} to {one['seq']:,}"
    sealed = f"{which} are those of {one['at']}, by {one['file']} and the key {one['fingerprint']}"
    return f"{click.style('✓', fg='green')} {'seal':<10} {sealed}{rest}"


def _refuse_seals(found: dict[str, Any]) -> None:
    for one in found.get("seals", ()):
        if not one["ok"]:
            raise ChainBroken(one["what"], hint=one["hint"])


def _say_aside(found: dict[str, Any]) -> None:
    """What is no mismatch, but narrows what is proved."""
    for name in found["missing_archives"]:
        click.echo(f"archive {name} is not there: only the digests of its events are proved", err=True)
    if found["scrubbed"]:
        click.echo(f"changed to remove a secret, as the log says: events {_listed(found['scrubbed'])}", err=True)


def _listed(events: Sequence[int]) -> str:
    return ", ".join(map(str, events[:_SHOWN])) + (", ..." if len(events) > _SHOWN else "")


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
    seals = found.get("seals", [])
    for one in () if as_json else seals:
        click.echo(_of_seal(one, found))
        if not one["ok"]:
            click.echo(f"{'':<13}{click.style(one['hint'], dim=True)}")
    wrong = sum(one["level"] == "error" for one in findings) + sum(not one["ok"] for one in seals)
    if wrong:
        what = "1 thing does" if wrong == 1 else f"{wrong} things do"
        raise ChainBroken(f"{what} not match what was written", hint="what is below each says what to do next")
    if not as_json:
        counts = ", ".join(f"{what} {number:,}" for what, number in found["looked_at"].items())
        click.echo(f"ok: the chain holds, and all is as the log says: {counts}; its head is {found['head']}")
    _say_aside({**found, "missing_archives": []})  # It is among the findings.
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
