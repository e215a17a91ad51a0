"""The verbs checkpoints and checkpoint: which there are, what is in one, a new one, and files taken back to one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage, UnknownCheckpoint
from parallel_agents.cli.scene import (
    complete_run,
    json_option,
    opened,
    print_json,
    project_of,
    reading,
    run_argument,
    store_is_named,
    store_option,
)
from parallel_agents.project import Project

BY_HAND = "store"  # What stands for a run where there is none.

_run = click.option(
    "--run", metavar="RUN", shell_complete=complete_run, help="Only those of this run; an id, its beginning or latest."
)


@click.command()
@run_argument
@click.option("--all", "all_runs", is_flag=True, help="Those of every run.")
@reading
@click.pass_context
def checkpoints(ctx: click.Context, run: str | None, all_runs: bool, as_json: bool, at: str | None) -> None:
    """List the checkpoints of a run, oldest first; without RUN those of the latest run and those made by hand."""
    from parallel_agents import checkpoints as known
    from parallel_agents import look

    if run is not None and all_runs:
        raise InvalidUsage("RUN and --all exclude each other", hint="leave one of them out")
    if run is not None or at is not None or project_of(ctx).store.exists() or store_is_named(ctx):
        with opened(ctx) as log:
            upto = look.moment(log, at) if run in (None, BY_HAND) else look.moment_of_run(log, at, run)
            if run is not None:
                _list(known.passing(log, _run_id(log, run, upto), upto), as_json=as_json)
            else:
                latest = next(reversed(look.runs(log, upto)), {"run_id": BY_HAND})["run_id"]
                wanted = None if all_runs else {latest, BY_HAND}
                found = known.passing(log, None, upto)
                _list(
                    known.Passing(lambda: (one for one in found if wanted is None or one["run_id"] in wanted)),
                    as_json=as_json,
                )
            return
    _list((), as_json=as_json)


def _list(lines: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(lines)
    elif next(iter(lines), None) is None:
        click.echo("no checkpoints yet; `parallel-agents checkpoint create` makes one", err=True)
    else:
        _table(lines)


def _run_id(log: Any, named: str, upto: int | None = None) -> str:
    from parallel_agents import look

    return BY_HAND if named == BY_HAND else look.resolve_run(log, named, upto)


def _table(lines: Iterable[dict[str, Any]]) -> None:
    from rich.text import Text

    from parallel_agents.cli import drawing

    def row(one: dict[str, Any]) -> list[Any]:
        what = drawing.one_line(one["label"] or one["description"])
        cells = [
            one["checkpoint_id"], str(one["seq"]), drawing.local_time(one["at"]) or "", one["kind"].replace("_", " "),
            "by hand" if one["run_id"] == BY_HAND else one["run_id"], one["task_id"] or "",
            "" if one["changed"] is None else str(one["changed"]), what + (" (undone)" if one["undone"] else ""),
        ]  # fmt: skip
        return [Text(cell, style="dim strike") if one["undone"] and cell else cell for cell in cells]

    headings = ("CHECKPOINT", "SEQ", "TIME", "KIND", "RUN", "TASK", "CHANGED", "WHAT…")
    for part in drawing.long_table(headings, map(row, lines), right=(1, 6)):
        drawing.show(part)


@click.group()
def checkpoint() -> None:
    """Make a checkpoint, look into one, or take files back to one.

    A CHECKPOINT is named by its id, the beginning of it, its label or its event's number; or by words, such as
    "before bug fix", "3 steps back", "2 hours ago", "last qa-engineer checkpoint".
    """


@checkpoint.command()
@click.argument("label", required=False, default="")
@click.option("--description", default="", metavar="TEXT", help="More words, to find it by later.")
@click.option("--run", metavar="RUN", shell_complete=complete_run, help="Of this run's files instead of the project's.")
@json_option
@store_option
@click.pass_context
def create(ctx: click.Context, label: str, description: str, run: str | None, as_json: bool) -> None:
    """Keep the project's files as they are now, untracked ones included and ignored ones not."""
    from parallel_agents import checkpoints as known
    from parallel_agents import look

    project = project_of(ctx)
    with project.open(create=run is None, actor="cli") as log:
        run_id = None if run is None else look.resolve_run(log, run)
        made = known.create(log, project, run_id, label, description=description)
    print_json(made) if as_json else click.echo(made["checkpoint_id"])


@checkpoint.command()
@click.argument("name", metavar="CHECKPOINT")
@_run
@reading
@click.pass_context
def show(ctx: click.Context, name: str, run: str | None, as_json: bool, at: str | None) -> None:
    """Show what a checkpoint holds: its files, and what changed since the one before it."""
    from parallel_agents import checkpoints as known

    with opened(ctx) as log:
        found = known.show(log, project_of(ctx), _meant(log, name, run, at))
    if as_json:
        print_json(found)
        return
    _show_page(found)


@checkpoint.command()
@click.argument("name", metavar="CHECKPOINT")
@click.argument("other", metavar="[OTHER]", required=False)
@_run
@reading
@click.pass_context
def diff(ctx: click.Context, name: str, other: str | None, run: str | None, as_json: bool, at: str | None) -> None:
    """Show how the files differ from a checkpoint to another one, or to how they lie there now."""
    from parallel_agents import checkpoints as known

    with opened(ctx) as log:
        first = _meant(log, name, run, at)
        second = None if other is None else _meant(log, other, run, at)
        patch = known.diff(log, project_of(ctx), first, second)
    if as_json:
        to = None if second is None else second["checkpoint_id"]
        text = patch.decode("utf-8", "replace")
        print_json({"from": first["checkpoint_id"], "to": to, "same": not patch, "patch": text})
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(patch)
    sys.stdout.buffer.flush()


@checkpoint.command()
@click.argument("name", metavar="CHECKPOINT")
@click.option(
    "--into", metavar="DIR", type=click.Path(path_type=Path), help="A new folder; default: one beside the store."
)
@click.option("--in-place", is_flag=True, help="Make the project's own files equal to the checkpoint.")
@_run
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def restore(
    ctx: click.Context, name: str, into: Path | None, in_place: bool, run: str | None, yes: bool, as_json: bool
) -> None:
    """Write the files of a checkpoint into a new folder, and print its path.

    With --in-place the project's files become equal to it, ignored ones are left alone, and what was there is kept as a
    checkpoint first. No run is taken back by it: see rollback.
    """
    from parallel_agents import checkpoint_restoring

    if in_place and into is not None:
        raise InvalidUsage("--into and --in-place exclude each other", hint="leave one of them out")
    project = project_of(ctx)
    with opened(ctx) as log:
        wanted = _meant(log, name, run)
        if in_place and not yes:
            _ask(log, project, wanted)
        done = checkpoint_restoring.restore(log, project, wanted, into, in_place=in_place)
    if as_json:
        print_json(
            {
                "checkpoint_id": done.checkpoint_id,
                "folder": str(done.folder),
                "in_place": in_place,
                "files": done.files,
                "before": done.before_id,
            }
        )
        return
    click.echo(str(done.folder))
    files = "1 file" if done.files == 1 else f"{done.files} files"
    kept = f"; what was there is checkpoint {done.before_id}" if done.before_id else ""
    click.echo(f"{files} restored from checkpoint {done.checkpoint_id}{kept}", err=True)


def _ask(log: Any, project: Project, wanted: dict[str, Any]) -> None:
    """Say what would be replaced, and go on only if somebody agrees."""
    from parallel_agents import checkpoint_restoring

    if not sys.stdin.isatty():
        raise InvalidUsage(
            "--in-place replaces files, and nobody can be asked here",
            hint="add --yes, or restore into a new folder with --into DIR",
        )
    changes = checkpoint_restoring.outlook(log, project, wanted).changes
    signs = {"A": "written", "M": "changed", "T": "changed", "D": "removed"}
    for change in changes[:10]:
        click.echo(f"  {signs[change.status]}  {change.path}", err=True)
    if len(changes) > 10:
        click.echo(f"  and {len(changes) - 10} more", err=True)
    click.confirm(
        f"{len(changes)} files of {project.root} become those of that checkpoint. Go on?", abort=True, err=True
    )


def _meant(log: Any, name: str, run: str | None, at: str | None = None) -> dict[str, Any]:
    """The checkpoint that a name or words mean. What words were understood as is said on stderr."""
    from parallel_agents import checkpoints as known
    from parallel_agents import look

    upto = look.moment(log, at) if run in (None, BY_HAND) else look.moment_of_run(log, at, run)
    run_id = None if run is None else _run_id(log, run, upto)
    try:
        return known.find(log, run_id, name, upto)
    except UnknownCheckpoint:
        understood = known.meant(log, run_id, name, upto)
    click.echo(f"understood as {understood.reading}", err=True)
    return dict(understood.checkpoint)


def _show_page(found: dict[str, Any]) -> None:
    from rich.text import Text

    from parallel_agents.cli import drawing

    head = [Text(found["checkpoint_id"], style="bold"), Text(found["kind"].replace("_", " ")),
            Text(drawing.one_line(found["label"]))]  # fmt: skip
    drawing.show(Text("  ").join(part for part in head if part))
    fields = {
        "made": drawing.local_time(found["at"]),
        "event": found["seq"],
        "run": None if found["run_id"] == BY_HAND else found["run_id"],
        "task": found["task_id"],
        "agent": found["agent_type"],
        "about": found["description"],
        "tags": ", ".join(found["tags"]),
        "branch": found["branch"],
        "commit": found["commit"],
        "after": found["parent"],
        "undone": "yes" if found["undone"] else None,
        "files": f"{found['files_count']}, {drawing.size(found['total_size_bytes'])}",
    }
    rows = [(Text(name, style="dim"), value) for name, value in fields.items() if value not in (None, "")]
    drawing.show(drawing.table(("", "…"), rows))
    changed = {change["path"]: change["status"] for change in found["changed_files"]}
    lines = [(changed.get(file["path"], ""), drawing.size(file["size"]), file["path"]) for file in found["files"]]
    gone = [("D", "", path) for path, status in changed.items() if status == "D"]
    drawing.show(drawing.table(("CHANGED", "SIZE", "FILE"), [*lines, *gone], right=(1,)))
