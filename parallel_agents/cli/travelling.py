"""Verbs that go back and branch off: rollback, fork, diff."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.scene import (
    json_option,
    opened,
    opened_with_imported,
    print_json,
    project_of,
    run_argument,
    store_option,
)

_SHOWN = 12  # Paths of a list that a person reads.


@click.command()
@run_argument
@click.option("--to", "to", metavar="SEQ|CHECKPOINT|WORDS", required=True, help="Such as 412, or 'before bug fix'.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def rollback(ctx: click.Context, run: str | None, to: str, dry_run: bool, reason: str, yes: bool, as_json: bool) -> int:
    """Take a run back to an event or a checkpoint: queue, files and spend of one moment, together.

    Nothing is deleted, so going back to an undone event is a redo. Nothing is dispatched before `parallel-agents resume`.
    """
    from parallel_agents import look, travel

    project = project_of(ctx)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        target = travel.target_of(log, run_id, to)
        seen = travel.preview(log, run_id, target)
        if dry_run:
            print_json(seen) if as_json else _say_preview(seen)
            return 0
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidUsage(
                    "a rollback changes queue and files, and nobody is here to be asked",
                    hint="look with --dry-run, then say it with --yes",
                )
            _say_preview(seen)
            click.confirm("Go back?", abort=True, err=True)
        done = travel.rollback(log, project, run_id, target, reason)
    if as_json:
        print_json({**seen, **done})
    else:
        click.echo(f"run {run_id} stands where it stood at event {done['to_seq']} ({seen['understood']})")
        click.echo(f"`parallel-agents rollback {run_id} --to {done['seq'] - 1}` takes that back", err=True)
        if seen["status"]["then"] == "paused":
            click.echo(f"`parallel-agents resume {run_id}` goes on from there", err=True)
    for warning in done["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if done["left"]:
        click.echo(f"still being stopped: {', '.join(done['left'])}", err=True)
        return 1
    return 0


def _say_preview(seen: dict[str, Any]) -> None:
    for line in preview_lines(seen):
        click.echo(line, err=True)


def preview_lines(seen: dict[str, Any]) -> list[str]:
    """What a person has to know before they agree to a rollback.

    Args:
        seen: as ``travel.preview`` gives it.
    """
    lines = [f"run {seen['run_id']}, back to event {seen['to_seq']}: {seen['understood']}"]
    lines.append(f"  it is {seen['status']['now']}, and will be {seen['status']['then']}")
    lines += [f"  task {one['task_id']}: {one['now']} -> {one['then']}" for one in seen["tasks"]]
    lines += [f"  {one['change']} {one['path']}" for one in seen["files"][:_SHOWN]]
    if seen["files_changed"] > _SHOWN:
        lines.append(f"  and {seen['files_changed'] - _SHOWN} more files")
    if seen["stops"]:
        lines.append(f"  stopped, what they have done kept: {', '.join(seen['stops'])}")
    if seen["cannot_undo"]["cost_usd"]:
        lines.append(f"  spent since and not to be had back: ${seen['cannot_undo']['cost_usd']:.2f}")
    if seen["cannot_undo"]["merged_into"]:
        lines.append(f"  stays merged into {seen['cannot_undo']['merged_into']}")
    return lines


@click.command()
@run_argument
@click.option("--at", "at", metavar="SEQ|TIME|CHECKPOINT", help="Where the new run begins; left out: where it stands.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Such as max_parallel_agents=8, TASK.timeout_s=60, or task.max_retries=0 for all that is not completed.",
)
@json_option
@store_option
@click.pass_context
def fork(ctx: click.Context, run: str | None, at: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Start a new run from the state and the files of another one, and leave that as it is."""
    from parallel_agents import look, travel

    given = settings_of(settings)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        seq = look.status(log, run_id)["seq"] if at is None else travel.target_of(log, run_id, at).seq
        if log.carried is None:
            made = travel.fork(log, run_id, seq, given)
        else:
            with project_of(ctx).open(create=True, actor="cli") as own:
                made = travel.fork(log, run_id, seq, given, into=own)
    if as_json:
        print_json(made)
        return
    click.echo(made["run_id"])
    click.echo(f"forked from {run_id} at event {made['seq']}, it is {made['status']}", err=True)
    if made["status"] == "paused":
        click.echo(f"`parallel-agents resume {made['run_id']}` goes on from there", err=True)


def settings_of(said: Sequence[str]) -> dict[str, str]:
    """What a fork is to say differently: values by name.

    Raises:
        InvalidUsage: one has no value.
    """
    given: dict[str, str] = {}
    for setting in said:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InvalidUsage(f"--set {setting!r} has no '='", hint="write --set NAME=VALUE")
        given[name] = text
    return given


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[RUN] A B | RUN[@A] RUN[@B]")
@click.option("--patch", is_flag=True, help="Print the difference of the files as a patch.")
@json_option
@store_option
@click.pass_context
def diff(ctx: click.Context, words: tuple[str, ...], patch: bool, as_json: bool) -> None:
    """Say what lies between two moments of a run, or between two runs: tasks, cost, configuration, files.

    A and B are events, times, `now`, checkpoints, or words that describe one. Two runs, such as a fork and its parent, are
    compared as they stand now, or each at a moment of its own: RUN@A RUN@B. Imported runs are compared as any others.
    """
    from parallel_agents import differences

    if patch and as_json:
        raise InvalidUsage("--patch and --json are two forms of one answer", hint="leave one of them out")
    with opened_with_imported(ctx) as (log, elsewhere):
        a, b = differences.sides(log, words, elsewhere)
        if patch:
            sys.stdout.flush()
            sys.stdout.buffer.write(differences.patch(a, b))
            return
        found = differences.differences(a, b)
        if as_json:
            print_json(found)
        else:
            _diff_page(found)


def _diff_page(found: dict[str, Any]) -> None:
    for line in diff_lines(found):
        click.echo(line)
    if found["files_unknown"]:
        click.echo(f"files: {found['files_unknown']}", err=True)


def diff_lines(found: dict[str, Any]) -> Iterator[str]:
    """What lies between two moments, a line each.

    Args:
        found: as ``differences.differences`` gives it.
    """
    a, b = found["a"], found["b"]
    of_b = f"run {b['run_id']}: " if a["run_id"] != b["run_id"] else ""
    yield f"run {a['run_id']}: {a['understood']} -> {of_b}{b['understood']}"
    if found["status"][0] != found["status"][1]:
        yield f"status: {found['status'][0]} -> {found['status'][1]}"
    for one in found["tasks"]:
        shown = [f"{name} {_short(one[name]['a'])} -> {_short(one[name]['b'])}" for name in one if name != "task_id"]
        yield f"task {one['task_id']}: {', '.join(shown)}"
    if found["cost_usd"]["difference"]:
        yield f"cost: ${found['cost_usd']['a']:.4f} -> ${found['cost_usd']['b']:.4f}"
    for name, sides in found["configuration"].items():
        yield f"{name}: {_short(sides['a'])} -> {_short(sides['b'])}"
    for one in found["files"]:
        yield f"{one['change']} {one['path']}"


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
