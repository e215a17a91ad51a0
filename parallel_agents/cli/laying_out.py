"""The verb files: those of a moment of a run, as a list or in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from parallel_agents.cli.scene import opened, print_json, project_of, reading, run_argument


@click.command()
@run_argument
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Write them into this folder, which is new or empty."
)
@reading
@click.pass_context
def files(ctx: click.Context, run: str | None, out: Path | None, as_json: bool, at: str | None) -> None:
    """List the files of a run at a moment, and whose work changed each of them last; or lay them out in a new folder.

    They are those that a rollback to that moment would give. Nothing of yours is touched.
    """
    from parallel_agents import look, past_files
    from parallel_agents.cli.progress import told_of_progress

    project = project_of(ctx)
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        with told_of_progress() as told:
            if out is not None:
                done = past_files.lay_out(log, project, run_id, upto, out, told)
            else:
                done = past_files.files(log, project, run_id, upto, told)
    if as_json:
        print_json(done)
    elif out is None:
        _list(done)
    else:
        click.echo(done["folder"])
        click.echo(f"{_counted(done['files_count'])} of run {run_id} at event {done['seq']}", err=True)


def _list(done: dict[str, Any]) -> None:
    """A line for each: size, the task whose work changed it last, path. No table: there may be 100,000 of them."""
    from parallel_agents.cli import drawing

    width = max((len(one["task_id"] or "") for one in done["files"]), default=0)
    for one in done["files"]:
        size, mark = drawing.size(one["size"]), _MARKS.get(one["mode"], "")
        click.echo(f"{size:>9}  {one['task_id'] or '-':<{max(1, width)}}  {drawing.one_line(one['path'])}{mark}")
    total = drawing.size(done["total_size_bytes"])
    of = f"of run {done['run_id']} at event {done['seq']}, commit {done['commit'][:12]}"
    click.echo(f"{_counted(done['files_count'])}, {total}, {of}", err=True)


_MARKS = {"100755": "*", "120000": "@"}  # As `ls -F` marks what can be run, and links.


def _counted(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"
