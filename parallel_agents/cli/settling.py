"""Verbs that settle what waits for a person: approve, conflicts, resolve; and merge, which brings the result home."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage, NotAllowed
from parallel_agents.cli.scene import (
    json_option,
    opened,
    print_json,
    project_of,
    reading,
    run_and_task,
    run_argument,
    store_is_named,
    store_option,
    task_arguments,
)

_SIDES = ("ours", "theirs", "both")
_SHOWN = 12  # Paths of a list that a person reads.


@click.command()
@task_arguments
@click.option("--commit", metavar="COMMIT", help="The work that you have looked at; any other is refused.")
@json_option
@store_option
@click.pass_context
def approve(ctx: click.Context, words: tuple[str, ...], commit: str | None, as_json: bool) -> int:
    """Let a task start, or let its work be merged, whichever it waits for.

    It holds for this attempt, and for no later one.
    """
    from parallel_agents import look, settling

    run, task_id = run_and_task(words)
    with opened(ctx) as log:
        done = settling.approve(log, look.resolve_run(log, run), task_id, commit, say=_say)
    what = "its work is merged" if done["approved"] == "result" else "it may start"
    if done["status"] == "blocked":
        what = f"and now waits because of a {done['reason']}"
    elif done["approved"] == "result" and done["status"] != "completed":
        what = f"and is {done['status']} because of a conflict"
    _say_done(ctx, done, f"task {task_id} of run {done['run_id']} is approved: {what}", as_json=as_json)
    return 0


@click.command()
@run_argument
@click.option("--show", "show_hunks", is_flag=True, help="Show what the two sides made of each path.")
@reading
@click.pass_context
def conflicts(ctx: click.Context, run: str | None, show_hunks: bool, as_json: bool, at: str | None) -> None:
    """List work that did not merge, with the commands that show each side and settle it; without RUN, of all runs."""
    from parallel_agents import conflicts as known
    from parallel_agents import look

    found: list[dict[str, Any]] = []
    if run is not None or at is not None or project_of(ctx).store.exists() or store_is_named(ctx):
        with opened(ctx) as log:
            upto = look.moment(log, at) if run is None else look.moment_of_run(log, at, run)
            run_id = None if run is None else look.resolve_run(log, run, upto)
            found = known.conflicts(log, run_id, upto, hunks=show_hunks)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no conflicts", err=True)
    else:
        _conflicts_page(found, show_hunks=show_hunks)


def _conflicts_page(found: list[dict[str, Any]], *, show_hunks: bool) -> None:
    from rich.text import Text

    from parallel_agents.cli import drawing

    styles = {"waiting": "bold magenta", "early": "yellow", "resolved": "green", "dropped": "dim"}
    rows = [
        (
            one["run_id"],
            one["seq"],
            drawing.local_time(one["at"]),
            Text(one["status"] + (f": {one['how']}" if one["how"] else ""), style=styles[one["status"]]),
            one["task_id"],
            one["other_task_id"],
            ", ".join(f"{path['path']} ({path['kind']})" for path in one["paths"]),
        )
        for one in found
    ]
    drawing.show(drawing.table(("RUN", "SEQ", "TIME", "STATUS", "TASK", "WITH", "PATHS…"), rows, right=(1,)))
    for one in found:
        if show_hunks:
            _hunks_page(one)
        if one["status"] == "waiting":
            _ways_out(one)


def _hunks_page(one: dict[str, Any]) -> None:
    from rich.text import Text

    from parallel_agents.cli import drawing
    from parallel_agents.cli.side_by_side import clashes, side_by_side

    other = one["other_task_id"] or "what was merged before"
    for path in one["paths"]:
        heading = f"{path['path']}: {path['kind']}, {one['task_id']} with {other} (event {one['seq']})"
        drawing.show("", Text(drawing.one_line(heading), style="bold"))
        target = drawing.console()
        width = target.width if target.is_terminal else 0
        text = path.get("hunks") or ""
        if clashes(text) or "ours" not in path:
            drawing.show(*side_by_side(text, width, f"ours: {other}", f"theirs: {one['task_id']}"))
        else:  # Where it is no matter of lines, what there is on each side is.
            drawing.show(*(f"{side}: {_version(path[side])}" for side in ("base", "ours", "theirs")))


def _version(version: dict[str, str] | None) -> str:
    """What one side has at a path, and the command that prints it."""
    if version is None:
        return "not there"
    kind = {"100755": "executable file", "120000": "link", "160000": "submodule"}.get(version["mode"], "file")
    return f"{kind}, git cat-file -p {version['blob'][:12]}"


def _ways_out(one: dict[str, Any]) -> None:
    from parallel_agents.cli import drawing

    drawing.show("", f"{one['task_id']} of run {one['run_id']} waits. What each side has done:")
    other = one["other_task_id"] or "merged before"
    drawing.show(f"  ours ({other}): {one['show']['ours']}", f"  theirs ({one['task_id']}): {one['show']['theirs']}")
    drawing.show("To settle it:", *(f"  {command}" for command in one["settle"]))


@click.command()
@task_arguments
@click.option(
    "--take",
    metavar="ours|theirs|both|FILE",
    default="",
    help="ours: as it was merged before; theirs: as the task left it; both: the lines of both. FILE: where one path is in "
    "conflict, what it is to hold.",
)
@click.option("--file", "files", metavar="PATH=FILE", multiple=True, help="What one path is to hold; again for others.")
@click.option("--remove", "removed", metavar="PATH", multiple=True, help="A path that is not to be there.")
@click.option("--edit", is_flag=True, help="Open the paths in conflict in $VISUAL or $EDITOR.")
@click.option("--no-gates", is_flag=True, help="Merge it whether or not it passes the quality gates.")
@json_option
@store_option
@click.pass_context
def resolve(
    ctx: click.Context,
    words: tuple[str, ...],
    take: str,
    files: tuple[str, ...],
    removed: tuple[str, ...],
    edit: bool,
    no_gates: bool,
    as_json: bool,
) -> int:
    """Settle the conflict that a task's work waits for, and merge it."""
    from parallel_agents import look, settling

    run, task_id = run_and_task(words)
    named = _files(files, removed)
    if edit and (take or named):
        raise InvalidUsage("--edit goes with no other way to resolve it", hint="leave one of them out")
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        if edit:
            done = _edited(log, run_id, task_id, gates=not no_gates)
        else:
            if take not in ("", *_SIDES):
                named[_only_path(log, run_id, task_id)], take = _file(take), ""
            done = settling.resolve(log, run_id, task_id, take, named, gates=not no_gates, say=_say)
    what = f"by {done['how']}" if done["how"] in _SIDES else "by hand"
    _say_done(ctx, done, f"the conflict of task {task_id} of run {run_id} is resolved {what}", as_json=as_json)
    return 0


def _files(files: tuple[str, ...], removed: tuple[str, ...]) -> dict[str, Path | bytes | None]:
    named: dict[str, Path | bytes | None] = dict.fromkeys(removed)
    for one in files:
        path, equals, file = one.partition("=")
        if not equals or not path or not file:
            raise InvalidUsage(f"--file {one!r} is not PATH=FILE", hint="to take a path away, write --remove PATH")
        named[path] = _file(file)
    return named


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InvalidUsage(f"there is no file {name!r}", hint=f"--take knows {', '.join(_SIDES)}, or a file")
    return path


def _only_path(log: Any, run_id: str, task_id: str) -> str:
    from parallel_agents import conflicts as known

    waiting = [one for one in known.conflicts(log, run_id) if one["task_id"] == task_id and one["status"] == "waiting"]
    paths = [path["path"] for one in waiting for path in one["paths"]]
    if len(paths) != 1:
        raise InvalidUsage(
            f"{len(paths)} paths of task {task_id} are in conflict, so one file does not settle it",
            hint="write --file PATH=FILE for each",
        )
    return str(paths[0])


def _edited(log: Any, run_id: str, task_id: str, *, gates: bool) -> dict[str, Any]:
    from parallel_agents import resolving_by_hand as by_hand

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not editor.strip():
        raise InvalidUsage("neither VISUAL nor EDITOR is set", hint="set one, or resolve with --take or --file")
    if not sys.stdin.isatty():
        raise InvalidUsage("an editor needs a terminal", hint="resolve with --take or --file")
    editing = by_hand.begin(log, run_id, task_id)
    click.echo(f"the merge lies in {editing.folder}", err=True)
    words = [*shlex.split(editor), *map(str, editing.files)]
    try:
        code = subprocess.call(words, cwd=editing.folder)
    except OSError as error:
        raise InvalidUsage(f"the editor {words[0]!r} cannot be started: {error.strerror}") from None
    if code:
        raise NotAllowed(
            f"the editor ended with {code}, so nothing was resolved", hint=f"the files are in {editing.folder}"
        )
    return by_hand.finish(log, editing, gates=gates, say=_say)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _say_done(ctx: click.Context, done: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Say what was done, and what goes on next."""
    if as_json:
        print_json(done)
    else:
        click.echo(text)
    if done["warning"]:
        click.echo(f"warning: {done['warning']}", err=True)
    if as_json:
        return
    for line in after_words(done, daemon=_daemon_is_there(ctx)):
        click.echo(line, err=True)


def after_words(done: dict[str, Any], *, daemon: bool) -> list[str]:
    """What still waits for a person, and whether the run goes on.

    Args:
        done: as ``settling.resolve`` gives it.
        daemon: whether one dispatches what is in the store.
    """
    run_id, lines = done["run_id"], []
    if done["waiting"]:
        names = ", ".join(done["waiting"])
        lines.append(f"still waiting for a person: {names} (`parallel-agents status {run_id}`)")
    if done["run_status"] == "paused":
        return [*lines, f"run {run_id} is paused; `parallel-agents resume {run_id}` goes on"]
    if done["dispatched"] or daemon:
        return [*lines, f"run {run_id} goes on"]
    return [*lines, f"no process dispatches run {run_id}; `parallel-agents resume {run_id}` does"]


def _daemon_is_there(ctx: click.Context) -> bool:
    from parallel_agents import daemons

    return daemons.is_there(project_of(ctx).store)


@click.command()
@run_argument
@click.option("--into", metavar="BRANCH", help="Another branch than the one that you stand on.")
@click.option("--squash", is_flag=True, help="Make one commit of all that was done.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def merge(ctx: click.Context, run: str | None, into: str | None, squash: bool, yes: bool, as_json: bool) -> int:
    """Bring the result of a completed run to your branch, and to your files where they stand on it.

    Nothing is ever written over: uncommitted changes, files that git does not know, and a branch that has moved in a way that
    does not merge are refused, with the way out. On a terminal it asks first.
    """
    from parallel_agents import bringing_home, look

    project = project_of(ctx)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        planned = bringing_home.look_ahead(log, project, run_id, into, squash=squash)
        if planned is not None and planned.how != "already" and not yes and sys.stdin.isatty():
            click.echo(f"{planned.branch} gets {_counted(planned.commits, 'commit')} of run {run_id}:", err=True)
            for path in planned.paths[:_SHOWN]:
                click.echo(f"  {path}", err=True)
            if len(planned.paths) > _SHOWN:
                click.echo(f"  and {len(planned.paths) - _SHOWN} more files", err=True)
            click.confirm("Merge?", abort=True, err=True)
        done = bringing_home.carry_out(log, run_id, planned)
    if as_json:
        print_json(done)
    elif planned is None:
        click.echo(f"the files of run {run_id} are in its directory as it left them; there is nothing to merge")
    elif not done["merged"]:
        click.echo(f"the result of run {run_id} is in {done['into']} already")
    else:
        files = _counted(len(done["paths"]), "file")
        click.echo(f"run {run_id} is merged into {done['into']}: {files}, commit {done['commit'][:12]}")
        click.echo(f"`git reset --keep {done['before'][:12]}` on {done['into']} takes that back", err=True)
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
