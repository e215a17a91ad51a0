"""Verbs that steer: pause, resume, cancel, retry, budget, limits, stop.

Each is an event; who dispatches the run hears it at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from parallel_agents import InvalidUsage, NotAllowed
from parallel_agents.cli.scene import (
    complete_provider,
    complete_task,
    json_option,
    opened,
    print_json,
    project_of,
    reading,
    run_argument,
    store_option,
)

F = TypeVar("F", bound=Callable[..., Any])
_reason = click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")


def _budget_options(command: F) -> F:
    """Other budgets, for the verbs that let a run go on."""
    of_task = click.option(
        "--task-budget", "task_budgets", metavar="TASK=USD", multiple=True, help="One task's own; repeatable."
    )
    return click.option("--budget", metavar="USD", help="What the run may cost from now on, in all; or `none`.")(
        of_task(command)
    )


def _changes(budget: str | None, task_budgets: tuple[str, ...]) -> dict[str, int | None]:
    """Budgets as they were typed, in micro-dollars by scope."""
    from parallel_agents.steer import OF_RUN, of_task

    changes = {} if budget is None else {OF_RUN: _micros("--budget", budget)}
    for setting in task_budgets:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InvalidUsage(f"--task-budget {setting!r} has no '='", hint="write --task-budget TASK=USD")
        changes[of_task(name)] = _micros(f"--task-budget {name}", text)
    return changes


def _micros(option: str, text: str) -> int | None:
    from parallel_agents.plan_fields import budget_misfit, micros

    if text == "none":
        return None
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = math.nan
    if (misfit := budget_misfit(value)) is not None:
        why = "is no number" if math.isnan(value) else misfit.message
        raise InvalidUsage(f"{option} {text!r}: {why}", hint="such as 2.50, or `none` for no limit")
    return micros(value)


def _say(as_json: bool, value: dict[str, Any], text: str) -> None:
    print_json(value) if as_json else click.echo(text)


@click.command()
@run_argument
@_reason
@json_option
@store_option
@click.pass_context
def pause(ctx: click.Context, run: str | None, reason: str, as_json: bool) -> None:
    """Start no more tasks of a run; what runs finishes."""
    from parallel_agents import look, steer

    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        steer.pause(log, run_id, reason)
    _say(
        as_json,
        {"run_id": run_id, "status": "paused"},
        f"run {run_id} is paused; `parallel-agents resume {run_id}` goes on",
    )


@click.command()
@run_argument
@_budget_options
@_reason
@json_option
@store_option
@click.pass_context
def resume(
    ctx: click.Context, run: str | None, budget: str | None, task_budgets: tuple[str, ...], reason: str, as_json: bool
) -> int:
    """Go on with a run that was paused or left. Where no process dispatches it, this one does.

    What a budget has stopped goes on with a higher one: --budget 10.
    """
    from parallel_agents import daemons, look, steer, travel
    from parallel_agents.follow import is_dispatched

    project, changes = project_of(ctx), _changes(budget, task_budgets)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, run)
        held = is_dispatched(log, run_id)
        travel.finish_restoring(log, project, run_id)
        before = look.status(log, run_id)
        if changes and before["status"] in ("submitted", "running"):
            steer.change_budgets(log, run_id, changes)
        else:
            try:
                steer.resume(log, run_id, reason, changes)
            except NotAllowed:
                if changes or held or look.has_ended(log, run_id):
                    raise
        for way in () if changes else before["ways_on"]:
            if before["pause_code"] == "budget":
                click.echo(f"warning: {way}", err=True)
        if held and daemons.is_draining(log, project.store, run_id):
            hint = f"once it has ended, `parallel-agents resume {run_id}` does"
            click.echo(f"warning: the daemon that holds run {run_id} drains, and starts nothing more; {hint}", err=True)
        if held or daemons.is_there(project.store):
            _say(as_json, {"run_id": run_id, "status": "running"}, f"run {run_id} goes on")
            return 0
        from parallel_agents.cli.running import dispatch_here

        return dispatch_here(log, run_id, project.configuration(), as_json=as_json)


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] [TASK]", shell_complete=complete_task)
@_reason
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@store_option
@click.pass_context
def cancel(ctx: click.Context, words: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> int:
    """End a run, or one task of it: what has not started never will, what runs is stopped."""
    from parallel_agents import daemons, foreground, look, steer

    if len(words) > 2:
        raise click.UsageError(f"{len(words)} words where [RUN] [TASK] belongs")
    project = project_of(ctx)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, words[0] if words else None)
        task_id = words[1] if len(words) == 2 else None
        running = look.running_count(log, run_id)
        if task_id is None and running and not yes and sys.stdin.isatty():
            click.confirm(
                f"{running} running {'attempt' if running == 1 else 'attempts'} of run {run_id} will be stopped. Go on?",
                abort=True,
                err=True,
            )
        steer.cancel(log, run_id, task_id, reason)
        if task_id is None and not daemons.is_there(project.store):
            foreground.settle_cancelled(log, [run_id])
    what = f"task {task_id} of run {run_id}" if task_id else f"run {run_id}"
    _say(as_json, {"run_id": run_id, "task_id": task_id, "cancelled": True}, f"{what} is being cancelled")
    return 0


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] [TASK]...", shell_complete=complete_task)
@_budget_options
@json_option
@store_option
@click.pass_context
def retry(
    ctx: click.Context, words: tuple[str, ...], budget: str | None, task_budgets: tuple[str, ...], as_json: bool
) -> None:
    """Open failed or cancelled tasks again, and what was skipped because of them; without TASK, all of them."""
    from parallel_agents import daemons, look, steer
    from parallel_agents.follow import is_dispatched

    project, changes = project_of(ctx), _changes(budget, task_budgets)
    with opened(ctx) as log:
        run_id = look.resolve_run(log, words[0] if words else None)
        opened_tasks = steer.retry(log, run_id, words[1:], changes)
        held = is_dispatched(log, run_id) or daemons.is_there(project.store)
    _say(as_json, {"run_id": run_id, "tasks": opened_tasks}, f"run {run_id}: open again: {', '.join(opened_tasks)}")
    if not held:
        click.echo(f"no process dispatches it; `parallel-agents resume {run_id}` does", err=True)


@click.command()
@run_argument
@_budget_options
@reading
@click.pass_context
def budget(
    ctx: click.Context,
    run: str | None,
    budget: str | None,
    task_budgets: tuple[str, ...],
    as_json: bool,
    at: str | None,
) -> None:
    """Show the budgets of a run and what is left of them, or set other ones while it goes on."""
    from parallel_agents import look, steer

    changes = _changes(budget, task_budgets)
    if changes and at is not None:
        raise InvalidUsage("--budget and --task-budget exclude --at", hint="the past is as it was")
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        if changes:
            steer.change_budgets(log, run_id, changes)
        found = look.status(log, run_id, upto)
    if as_json:
        print_json(
            {name: found[name] for name in ("run_id", "status", "pause_code", "budgets", "assumed_usd", "ways_on")}
        )
        return
    from parallel_agents.cli import drawing
    from parallel_agents.cli.pages import budget_lines

    if not found["budgets"]:
        click.echo(f"run {run_id} has no budget; `parallel-agents budget {run_id} --budget USD` sets one", err=True)
        return
    drawing.show(budget_lines(found))
    for way in found["ways_on"]:
        click.echo(way, err=True)


@click.command()
@click.option(
    "--clear",
    "provider",
    metavar="PROVIDER|RUNNER",
    shell_complete=complete_provider,
    help="Let its agents, or its attempts, start again at once.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")
@reading
@click.pass_context
def limits(ctx: click.Context, provider: str | None, reason: str, as_json: bool, at: str | None) -> None:
    """Show the providers that let nobody work at the moment, and the runners that are broken, or lift one of these waits."""
    from parallel_agents import held_back, look

    if provider is not None and at is not None:
        raise InvalidUsage("--clear and --at exclude each other", hint="the past is as it was")
    with opened(ctx) as log:
        if provider is not None:
            held_back.lift(log, provider, reason)
            _say(as_json, {"provider": provider, "cleared": True}, f"what {provider} held back starts again")
            return
        found = held_back.limits(log, look.moment(log, at))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("every provider lets agents work, and every runner works, as far as is known", err=True)
        return
    from parallel_agents.cli import drawing
    from parallel_agents.cli.pages import limit_lines

    drawing.show(*limit_lines(found))


@click.command()
@click.option("--now", is_flag=True, help="Needed: kills every attempt of this store at once.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; --now does not ask either.")
@json_option
@store_option
@click.pass_context
def stop(ctx: click.Context, now: bool, yes: bool, as_json: bool) -> int:
    """Emergency stop: cancel every run of this store and kill what runs, without grace."""
    from parallel_agents import foreground, look, steer

    if not now:
        raise InvalidUsage(
            "`stop` ends everything of this store",
            hint="say `parallel-agents stop --now`, or cancel one run with `parallel-agents cancel RUN`",
        )
    with opened(ctx) as log:
        stopped = steer.stop_everything(log)
        foreground.settle_cancelled(log, stopped)
        left = look.wait_ended(log, stopped, timeout_s=10.0)
    _say(
        as_json,
        {"stopped": stopped, "left": left},
        f"stopped: {', '.join(stopped)}" if stopped else "nothing was running",
    )
    if left:
        click.echo(f"not ended yet: {', '.join(left)}", err=True)
        return 1
    return 0
