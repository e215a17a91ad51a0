"""The verb scrub: a secret that was found later is shown where it stands, and removed once somebody agrees."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, store_option

_SHOWN = 10
_REFS_SHOWN = 2
_STAYS_SHOWN = 20


@click.command()
@click.option(
    "--text-from", metavar="FILE|-", help="The file that holds the secret and nothing else; - is stdin, or a prompt."
)
@click.option("--env", "variable", metavar="NAME", help="The environment variable that holds it.")
@click.option("--dry-run", is_flag=True, help="Say where it stands, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def scrub(
    ctx: click.Context, text_from: str | None, variable: str | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Remove a secret from the log, its documents and archives, and from what attempts have written.

    The chain still holds: each event that is changed is named by a `SecretScrubbed`, and seals made before stay valid. Commits
    and backups are not changed. Nobody may dispatch meanwhile. It is never given on the command line, where others see it.
    """
    from parallel_agents import scrubbing

    secret = scrubbing.secret_of(_text(text_from, variable))
    project = project_of(ctx)
    in_pages = project.store.exists() and scrubbing.in_pages(project.store, secret)
    with opened(ctx, actor="scrub") as log, told_of_progress() as told:
        found = None if yes and not dry_run else scrubbing.survey(log, secret, told)
        nothing = found is not None and not found.found and not in_pages
        if found is not None and not dry_run and not nothing:
            _ask({**found.as_data(), "database": in_pages})
        if found is None or not (dry_run or nothing):
            found = scrubbing.scrub(log, secret, told)
        commits, unread = scrubbing.commits_with(log, project, secret, told)
    done = found.as_data()
    done["left"] += unread
    if not dry_run and scrubbing.in_pages(project.store, secret):
        done["left"].append({"where": str(project.store), "why": "pages of the database's file; say it again"})
    done |= {"dry_run": dry_run, "found": found.found or in_pages, "database": in_pages, "commits": commits}
    print_json(done) if as_json else _page(done)
    return 1 if done["left"] else 0


def _text(text_from: str | None, variable: str | None) -> str:
    """The secret itself.

    Raises:
        InvalidUsage: there is none, or two.
    """
    if (text_from is None) == (variable is None):
        raise InvalidUsage(
            "say where the secret is to be read from", hint="one of --text-from FILE, --text-from -, --env NAME"
        )
    if variable is not None:
        if not os.environ.get(variable):
            raise InvalidUsage(f"the variable {variable[:100]} is not set", hint="export it, or use --text-from")
        return os.environ[variable]
    if text_from == "-" and sys.stdin.isatty():
        answer: str = click.prompt("Secret", hide_input=True, err=True)
        return answer
    try:
        content = sys.stdin.buffer.read() if text_from == "-" else Path(text_from or "").read_bytes()
        return content.decode().rstrip("\r\n")
    except OSError as error:
        raise InvalidUsage(f"{text_from} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidUsage(f"{text_from} is no text", hint="write the secret alone into a file, in UTF-8") from None


def _ask(found: dict[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise InvalidUsage(
            "what was found would be removed, and nobody is here to be asked",
            hint="look with --dry-run, then say it with --yes",
        )
    for line in _lines(found):
        click.echo(line, err=True)
    click.confirm("Remove it there? There is no way back.", abort=True, err=True)


def _page(done: dict[str, Any]) -> None:
    for line in _lines(done):
        click.echo(line)
    if not done["found"]:
        click.echo("it stands nowhere in this store")
    elif not done["dry_run"]:
        click.echo("removed there" if not done["left"] else "removed, but for what stays")
    stays = [f"{one['where']}: {one['why']}" for one in done["left"]]
    for line in (*stays[:_STAYS_SHOWN], *(f"{path}: not ours to change" for path in done["elsewhere"][:_STAYS_SHOWN])):
        click.echo(f"stays: {line}", err=True)
    hidden = max(0, len(stays) - _STAYS_SHOWN) + max(0, len(done["elsewhere"]) - _STAYS_SHOWN)
    if hidden:
        click.echo(f"stays: in {hidden:,} more places, which --json names", err=True)
    for one in done["commits"]:
        where = f"commit {one['commit']}" if one["commit"] else f"object {one['object']}, which no ref reaches,"
        named = f": {', '.join(one['paths'][:_SHOWN])}" if one["paths"] else ""
        reached = f", reached by {', '.join(one['refs'][:_REFS_SHOWN])}" if one["refs"] else ""
        more = " and others" if len(one["refs"]) > _REFS_SHOWN else ""
        click.echo(f"stays: {where} of {one['repository']}{named}{reached}{more}", err=True)
    if done["commits"]:
        click.echo(
            "`git filter-repo --replace-text` takes it out of commits; docs/audit.md says what follows", err=True
        )
    click.echo(
        "not looked at: backups, clones, what clients of agents keep in your home. Make the secret void.", err=True
    )


def _lines(found: dict[str, Any]) -> list[str]:
    """What was found, a line for each kind."""

    def shown(names: list[Any]) -> str:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(map(str, names[:_SHOWN])) + more

    lines = []
    if found["events"]:
        lines.append(f"events     {shown(found['events'])}")
    if found["documents"]:
        lines.append(f"documents  {shown([one['old'][:12] for one in found['documents']])}")
    if found["changed_plans"]:
        lines.append(f"plans      of {shown(found['changed_plans'])}: what starts there from now on is told [redacted]")
    if found["snapshots"]:
        lines.append(f"snapshots  {found['snapshots']}")
    if found["archives"]:
        lines.append(f"archives   {shown(found['archives'])}")
    if found["database"]:
        lines.append("database   pages of its file, those too that no table uses any more")
    lines += [f"file       {one['path']} ({one['found']})" for one in found["files"]]
    return lines
