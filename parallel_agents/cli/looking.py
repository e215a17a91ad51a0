"""Verbs that look at states: runs, status, queue, show, timeline, cost, why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage, costs, look
from parallel_agents.cli.scene import (
    opened,
    print_json,
    project_of,
    reading,
    run_and_task,
    run_argument,
    store_is_named,
    task_arguments,
)


@click.command()
@click.option("--imported", "of_others", is_flag=True, help="Those that were exported elsewhere and imported here.")
@reading
@click.pass_context
def runs(ctx: click.Context, of_others: bool, as_json: bool, at: str | None) -> None:
    """List the runs, oldest first."""
    project = project_of(ctx)
    if of_others:
        _imported_runs(project.store, as_json=as_json)
        return
    lines: list[dict[str, Any]] = []
    now_us = None
    if project.store.exists() or store_is_named(ctx) or at is not None:
        with project.open() as log:
            upto = look.moment(log, at)
            lines, now_us = look.runs(log, upto), look.time_of(log, upto)
    if as_json:
        print_json(lines)
        return
    if not lines:
        click.echo("no runs yet; `parallel-agents run PLAN` makes one", err=True)
        return
    from parallel_agents.cli import drawing

    rows = [
        (
            line["run_id"],
            drawing.state_text(line["status"]),
            line["name"],
            line["strategy"],
            line["tasks"],
            drawing.local_time(line["submitted_at"]),
            drawing.duration(look.elapsed_s(line, now_us)),
        )
        for line in lines
    ]
    headings = ("RUN", "STATUS", "NAME…", "STRATEGY", "TASKS", "SUBMITTED", "TOOK")
    drawing.show(drawing.table(headings, rows, right=(4, 6)))


def _imported_runs(store: Path, *, as_json: bool) -> None:
    from parallel_agents import imported
    from parallel_agents.cli import drawing

    lines = imported.lines(store)
    if as_json:
        print_json(lines)
        return
    if not lines:
        click.echo("no run was imported; `parallel-agents import FILE` does that", err=True)
        return
    rows = [
        (
            line["run_id"],
            drawing.state_text(line["status"]),
            line["name"],
            drawing.local_time(line["imported"]["imported_at"]),
            line["imported"]["from"] or "redacted",
        )
        for line in lines
    ]
    drawing.show(drawing.table(("RUN", "STATUS", "NAME…", "IMPORTED", "FROM"), rows))


@click.command()
@run_argument
@reading
@click.pass_context
def status(ctx: click.Context, run: str | None, as_json: bool, at: str | None) -> None:
    """Show a run and its tasks.

    RUN is an id, the beginning of one, or "latest", which it also is when left out.
    """
    from parallel_agents import imported

    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        found = look.status_passing(log, run_id, upto)
        if log.carried is not None:
            found["imported"] = imported.as_json(log.carried)
        if as_json:
            print_json(found)
            return
        from parallel_agents.cli.pages import status_page

        status_page(found, look.time_of(log, upto))


@click.command()
@run_argument
@reading
@click.pass_context
def queue(ctx: click.Context, run: str | None, as_json: bool, at: str | None) -> None:
    """Show what waits for a slot, in the order in which it will start; without RUN, of all open runs."""
    project = project_of(ctx)
    lines: list[dict[str, Any]] = []
    if run is not None or project.store.exists() or store_is_named(ctx) or at is not None:
        with opened(ctx) as log:
            upto = look.moment(log, at) if run is None else look.moment_of_run(log, at, run)
            lines = look.queue(log, look.resolve_run(log, run, upto) if run is not None else None, upto)
    if as_json:
        print_json(lines)
        return
    if not lines:
        click.echo("nothing waits for a slot", err=True)
        return
    from parallel_agents.cli import drawing

    rows = [
        (line["run_id"], line["position"], line["task_id"], line["agent_type"], line["priority"],
         drawing.local_time(line["queued_at"]), line["why"])
        for line in lines
    ]  # fmt: skip
    headings = ("RUN", "#", "TASK", "AGENT", "PRIORITY", "QUEUED", "WHY…")
    drawing.show(drawing.table(headings, rows, right=(1,)))


@click.command()
@task_arguments
@click.option("--prompt", is_flag=True, help="Print what its agent was told, and nothing else.")
@click.option("--usage", "usage", is_flag=True, help="Draw what an attempt has used of the machine over time.")
@click.option(
    "--attempt",
    "number",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --prompt or --usage: another one than the last.",
)
@reading
@click.pass_context
def show(
    ctx: click.Context,
    words: tuple[str, ...],
    prompt: bool,
    usage: bool,
    number: int | None,
    as_json: bool,
    at: str | None,
) -> None:
    """Show one task's whole life: what it was asked, every attempt, what became of it."""
    run, task_id = run_and_task(words)
    if number is not None and not prompt and not usage:
        raise InvalidUsage("--attempt goes with --prompt or --usage", hint="without them all attempts are shown")
    if prompt and usage:
        raise InvalidUsage("--prompt and --usage exclude each other", hint="leave one of them out")
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        if prompt:
            text = look.prompt_of(log, run_id, task_id, number, upto)
            print_json({"run_id": run_id, "task_id": task_id, "prompt": text}) if as_json else click.echo(
                text, nl=False
            )
            return
        if usage:
            _show_usage(log, run_id, task_id, number, upto, as_json)
            return
        found = look.show(log, run_id, task_id, upto)
    if as_json:
        print_json(found)
        return
    from parallel_agents.cli.show_page import show_page

    show_page(found)


def _show_usage(log: Any, run_id: str, task_id: str, number: int | None, upto: int | None, as_json: bool) -> None:
    from parallel_agents import usage_over_time

    found = usage_over_time.usage_over_time(log, run_id, task_id, number, upto)
    if as_json:
        print_json(usage_over_time.as_json(found))
        return
    from parallel_agents.cli.usage_page import usage_page

    usage_page(found)


@click.command()
@run_argument
@click.option("--svg", metavar="FILE", help='Write a picture, with the reasons of waits; "-" is standard output.')
@reading
@click.pass_context
def timeline(ctx: click.Context, run: str | None, svg: str | None, as_json: bool, at: str | None) -> None:
    """Draw a run as bars over time: waits light, attempts dark, undone work crossed."""
    if svg is not None and as_json:
        raise InvalidUsage("--svg and --json exclude each other", hint="leave one of them out")
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        if svg is not None:
            _write_timeline(log, run_id, upto, svg)
            return
        if as_json:
            print_json(look.timeline_passing(log, run_id, upto))
            return
        from parallel_agents.cli.bars import timeline_page

        found, states = look.standing(log, run_id, upto)
        timeline_page(found, states, look.spans_of(log, run_id, upto), look.time_of(log, upto))


def _write_timeline(log: Any, run_id: str, upto: int | None, file: str) -> None:
    from parallel_agents.cli.graphing import write_picture
    from parallel_agents.pictures.course import course
    from parallel_agents.pictures.timeline_svg import timeline_svg

    write_picture(file, timeline_svg(course(log, run_id, upto)))


@click.command()
@run_argument
@click.option("--by", type=click.Choice(costs.GROUPINGS), help="Split it up; by run: over the whole store.")
@click.option("--all", "whole", is_flag=True, help="Of all runs of the store.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each charge, or for each part with --by.")
@reading
@click.pass_context
def cost(
    ctx: click.Context, run: str | None, by: str | None, whole: bool, as_csv: bool, as_json: bool, at: str | None
) -> None:
    """Show what a run has cost, undone work included, and what became of that work. Days are UTC.

    RUN is an id, the beginning of one, or "latest", which it also is when left out; but with --all or --by run it is all.
    """
    if as_csv and as_json:
        raise InvalidUsage("--csv and --json exclude each other", hint="leave one of them out")
    if whole and run is not None:
        raise InvalidUsage("RUN and --all exclude each other", hint="leave one of them out")
    with opened(ctx) as log:
        everything = whole or (run is None and by == "run")
        upto = look.moment(log, at) if everything else look.moment_of_run(log, at, run)
        run_id = None if everything else look.resolve_run(log, run, upto)
        if as_csv and by is None:
            from parallel_agents.cli.cost_page import write_csv

            write_csv(costs.LINE_FIELDS, costs.lines_passing(log, run_id, upto))
            return
        found = costs.cost(log, run_id, by, upto)
    if as_json:
        print_json(found)
        return
    from parallel_agents.cli.cost_page import cost_page, write_csv

    if as_csv:
        write_csv((by or "", *costs.AMOUNT_FIELDS), found["groups"])
    else:
        cost_page(found, "of all runs" if run_id is None else f"run {run_id}")


@click.command()
@task_arguments
@click.option("--before", metavar="OTHER", help="Say why it was put before this task of the run, or that it was not.")
@reading
@click.pass_context
def why(ctx: click.Context, words: tuple[str, ...], before: str | None, as_json: bool, at: str | None) -> None:
    """Say why a task does not run, or what became of it and why, by the scheduler's own reasons.

    Each answer names the events that it stands on.
    """
    from parallel_agents.why import why as reasons_of

    run, task_id = run_and_task(words)
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        found = reasons_of(log, look.resolve_run(log, run, upto), task_id, upto, before=before)
    if as_json:
        print_json(found)
        return
    from parallel_agents.cli.pages import why_page

    why_page(found)
