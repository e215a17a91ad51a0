"""Verbs that run plans and follow them: run, submit, wait, attach."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from parallel_agents import InvalidPlan, InvalidUsage, LeaseHeld, StoreError
from parallel_agents.cli.scene import json_option, opened, print_json, project_of, run_argument, store_option
from parallel_agents.configuration import Configuration
from parallel_agents.project import Project

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130
_PATIENCE_S = 2.0  # Without a slot, before it is said who has them.
_LOOK_S = 1.0  # Between two looks at who lets nobody work.


def _plan_options(command: F) -> F:
    """A plan and what may be said about it at the command line."""
    for decorate in (
        click.argument("plan", type=click.Path(path_type=Path)),
        click.option("--strategy", metavar="NAME", help="concurrent, pipeline or hybrid, in place of the plan's own."),
        click.option("--max-parallel-agents", metavar="N", type=int, help="Attempts at once, in place of the plan's own."),
        click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path),
                     help="A configuration file in place of the project's own."),
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True,
                     help="One key of the configuration, such as execution.retryPolicy.maxRetries=0."),
    )[::-1]:  # fmt: skip
        command = decorate(command)
    return store_option(json_option(command))


def _configured(project: Project, config_path: Path | None, settings: tuple[str, ...]) -> Configuration:
    from parallel_agents.configuration import value_of_text

    flags = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InvalidUsage(f"--set {setting!r} has no '='", hint="write --set KEY=VALUE")
        flags[key] = value_of_text(key, text)
    return project.configuration(config_path=config_path, flags=flags)


def prepared(
    project: Project,
    plan: Path,
    strategy: str | None,
    max_parallel_agents: int | None,
    config_path: Path | None,
    settings: tuple[str, ...],
) -> tuple[Any, Configuration, Any]:
    """The plan as it will be stored, the configuration that it was made with, and its files. Warnings are said here."""
    from parallel_agents.agent_settings import agent_settings
    from parallel_agents.planfile import load_plan_file
    from parallel_agents.submit import make_plan, warnings_of
    from parallel_agents.versioning import look_at_files

    configuration = _configured(project, config_path, settings)
    draft = load_plan_file(plan, configuration, strategy=strategy, max_parallel_agents=max_parallel_agents)
    try:
        start = look_at_files(draft, project)
        agents, said = agent_settings(draft, configuration, project)
        made = make_plan(draft, configuration, start.workspace, agents)
        for warning in (*draft.warnings, *start.warnings, *said, *warnings_of(made)):
            click.echo(f"warning: {warning}", err=True)
        return made, configuration, start
    except InvalidPlan as error:
        raise InvalidPlan(f"{plan}: {error.message}", hint=error.hint) from None


@click.command()
@_plan_options
@click.option(
    "--detach", is_flag=True, help="Leave it to the daemon, which is started if there is none; print the run's id."
)
@click.option("--dry-run", is_flag=True, help="Say what would run in which order, and run nothing.")
@click.pass_context
def run(
    ctx: click.Context,
    plan: Path,
    strategy: str | None,
    max_parallel_agents: int | None,
    config_path: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    detach: bool,
    dry_run: bool,
) -> int:
    """Run a plan here and follow it to its end.

    On a terminal the tasks are shown as they go, elsewhere a line is printed for each. Ctrl-C once lets what runs finish and
    starts nothing more; twice stops it.
    """
    project = project_of(ctx)
    asked = (plan, strategy, max_parallel_agents, config_path, settings)
    if dry_run:
        from parallel_agents.cli.dry_run import show_dry_run

        show_dry_run(prepared(project, *asked)[0], project, as_json=as_json)
        return 0
    made, configuration, start = prepared(project, *asked)
    maker = ctx.find_root().obj["maker"]
    if maker is not None:
        maker.begin(project.store)
    from parallel_agents import foreground
    from parallel_agents import submit as submission

    if maker is not None:
        maker.finish()

    if detach:
        with project.open(create=True, actor="cli") as log:
            run_id = submission.submit(log, made, workdir=project.workdir, start=start)
        _start_daemon_if_none(project)
        print_json({"run_id": run_id}) if as_json else click.echo(run_id)
        return 0
    with project.open(create=True, actor="cli") as log:
        claim = foreground.identity("run")
        run_id = submission.submit(log, made, workdir=project.workdir, claim=claim, start=start)
        return dispatch_here(log, run_id, configuration, as_json=as_json)


def _start_daemon_if_none(project: Project) -> None:
    from parallel_agents import daemons

    if not daemons.is_there(project.store):
        try:
            started = daemons.start(project.store, daemons.command(project.store))
        except LeaseHeld as error:
            if not daemons.is_there(project.store):
                click.echo(f"warning: {error.message}, and takes up nothing; {error.hint}", err=True)
            return  # Else somebody started one at the same moment.
        click.echo(f"daemon {started.identity.pid} started", err=True)


def dispatch_here(log: Any, run_id: str, configuration: Configuration, *, as_json: bool) -> int:
    """Hold a run in this process until it has settled, and show it.

    Returns:
        The exit code.
    """
    from parallel_agents import foreground
    from parallel_agents.follow import Follower, exit_code

    follower = Follower(log, run_id)
    interrupts = foreground.Interrupts()
    with _signals(interrupts), _view(log, follower, configuration, as_json=as_json, interrupts=interrupts) as told:
        told = _also_say_what_holds_it_back(log, follower, told, limits=not _is_live(configuration, as_json=as_json))
        try:
            foreground.dispatch(log, follower, kind="run", told=told, interrupts=interrupts, say=_say)
        except StoreError:
            if log.path.exists():
                click.echo(f"run {run_id} stays as it is; `parallel-agents resume {run_id}` goes on with it", err=True)
            raise
    if not (interrupts.count or interrupts.leaves):
        _summarise(log, follower, as_json=as_json)
        return exit_code(follower.state)
    with contextlib.suppress(OSError):  # The terminal may be what went away.
        _summarise(log, follower, as_json=as_json)
        if interrupts.leaves and not follower.state.ended:
            hint = f"`parallel-agents resume {run_id}`, or `parallel-agents daemon start`"
            click.echo(
                f"left: {len(follower.state.running)} of its attempts go on; {hint} goes on with the run", err=True
            )
        elif not follower.state.ended:
            click.echo(f"paused; `parallel-agents resume {run_id}` goes on", err=True)
        elif follower.state.status == "cancelled":
            click.echo(f"cancelled; `parallel-agents retry {run_id}` opens what did not run", err=True)
    return INTERRUPTED


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # Nobody reads it any more.
        click.echo(line, err=True)


def _also_say_what_holds_it_back(
    log: Any, follower: Any, told: Callable[[list[Any]], None], *, limits: bool
) -> Callable[[list[Any]], None]:
    """Say once on stderr why a run that has ready tasks, and none running, does not go on.

    Args:
        limits: of providers too, where no live view shows them.
    """
    since: list[float] = []
    looked = [0.0]
    said: set[tuple[str, str]] = set()

    def also(records: list[Any]) -> None:
        told(records)
        state, now = follower.state, time.monotonic()
        if state.running or not state.counts["queued"] or state.status != "running":
            since.clear()
            return
        since.append(now) if not since else None
        if limits and now - looked[0] >= _LOOK_S:
            looked[0] = now
            _say_limits(log, state, said)
        if now - since[0] >= _PATIENCE_S:
            since[0] = float("inf")
            _say_who_holds_the_slots(log, state)

    return also


def _say_limits(log: Any, state: Any, said: set[tuple[str, str]]) -> None:
    from parallel_agents import held_back
    from parallel_agents.notices import waiting

    for limit in held_back.limits_of(log, state):
        if (key := (limit["provider"] or limit["runner"], limit["until"])) not in said:
            said.add(key)
            click.echo(waiting(limit), err=True)


def _say_who_holds_the_slots(log: Any, state: Any) -> None:
    from parallel_agents import look

    held = look.slots(log)
    limit = state.plan.settings.store_limit
    if sum(line["slots"] for line in held) < limit:
        return
    click.echo(f"waiting: all {limit} slots of this store are taken", err=True)
    for line in held:
        if not line["dispatched"]:
            run_id = line["run_id"]
            hint = f"`parallel-agents resume {run_id}` does, `parallel-agents cancel {run_id}` ends it"
            click.echo(f"  {line['slots']} of them by run {run_id}, which no process dispatches: {hint}", err=True)


@contextmanager
def _signals(interrupts: Any) -> Iterator[None]:
    """Ctrl-C asks once, being told to end asks twice at once. Who hangs up, or quits, leaves the run alone."""
    handlers: dict[int, Callable[..., None]] = {
        signal.SIGINT: lambda *_: interrupts.add(),
        signal.SIGTERM: lambda *_: interrupts.add(2),
        signal.SIGHUP: lambda *_: interrupts.leave(),
        signal.SIGQUIT: lambda *_: interrupts.leave(),
        signal.SIGTSTP: lambda *_: interrupts.sleep(),
    }
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN or number == signal.SIGINT:  # nohup has a say in this.
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _is_live(configuration: Configuration, *, as_json: bool) -> bool:
    """Whether a run is drawn anew as it goes on: on a terminal that can take back what it was shown."""
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return on_terminal and not as_json and bool(configuration.get("monitoring.realTimeProgress"))


@contextmanager
def _view(
    log: Any, follower: Any, configuration: Configuration, *, as_json: bool, interrupts: Any = None
) -> Iterator[Callable[[list[Any]], None]]:
    """What new events are told to: a live view on a terminal, plain lines elsewhere, nothing but stderr for scripts."""
    if _is_live(configuration, as_json=as_json):
        from parallel_agents.cli.live import LiveView

        interval_s = configuration.get("monitoring.progressUpdateInterval")
        with LiveView(log, follower, interval_s=interval_s, interrupts=interrupts) as view:
            yield view.told
        return
    from parallel_agents.notices import Notices

    notices = Notices(configuration)

    def told(records: list[Any]) -> None:
        for line in notices.of(records, follower.state):
            with contextlib.suppress(OSError):  # Nobody reads it any more, and that is no reason to leave the run.
                click.echo(line, err=True)

    yield told


def _summarise(log: Any, follower: Any, *, as_json: bool) -> None:
    from parallel_agents import look

    found = look.status(log, follower.run_id)
    if as_json:
        print_json(found)
        return
    counts = found["counts"]
    took = look.elapsed_s(found)
    parts = [f"{number} {status}" for status, number in counts.items() if status != "completed"]
    said = f"run {found['run_id']} {found['status']}: {counts.get('completed', 0)}/{len(found['tasks'])} completed"
    said += "".join(f", {part}" for part in parts) + (f" in {took:.1f} s" if took is not None else "")
    click.echo(said + (f": {found['reason']}" if found["pause_code"] else ""))
    for task in found["tasks"]:
        if task["status"] == "failed":
            click.echo(
                f"  {task['task_id']}: {task['error']}  (parallel-agents logs {found['run_id']} {task['task_id']})"
            )
        elif task["status"] == "blocked":
            click.echo(f"  {task['task_id']} waits for a person: {task['reason']}")
            for what, command in (("look", task["look"]), ("settle", task["settle"])):
                if command:
                    click.echo(f"    {what}: {command}")
    if found["cost_usd"] or found["unknown_attempts"] or found["budgets"]:
        from parallel_agents.cli import drawing
        from parallel_agents.cli.pages import money_lines, ways_lines

        drawing.show(*money_lines(found), *ways_lines(found))
    elif found["ways_on"]:
        click.echo("\n".join(found["ways_on"]))


@click.command()
@_plan_options
@click.option(
    "--cron", metavar="FIELDS", help='Not now but whenever this is due, such as "0 9 * * 1-5"; needs a daemon.'
)
@click.option(
    "--zone", metavar="NAME", help="Whose clocks count for --cron, such as Europe/Paris; else this machine's."
)
@click.option(
    "--misfire",
    type=click.Choice(["run", "skip"]),
    help="Where no daemon was there at a time of --cron: run once when one is (the default), or leave it out.",
)
@click.pass_context
def submit(
    ctx: click.Context,
    plan: Path,
    strategy: str | None,
    max_parallel_agents: int | None,
    config_path: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    cron: str | None,
    zone: str | None,
    misfire: str | None,
) -> None:
    """Queue a plan for whoever dispatches, and print the run's id. No daemon needs to run yet.

    With --cron it becomes a run each time that is due, and a schedule's id is printed: `parallel-agents schedules`.
    """
    project = project_of(ctx)
    if cron is None and (zone or misfire):
        raise InvalidUsage(f"{'--zone' if zone else '--misfire'} is about --cron, which is not given")
    made, _, start = prepared(project, plan, strategy, max_parallel_agents, config_path, settings)
    if cron is not None:
        _schedule(project, made, start, as_json, cron=cron, zone=zone, misfire=misfire or "run")
        return
    from parallel_agents.submit import submit as append_run

    with project.open(create=True, actor="cli") as log:
        run_id = append_run(log, made, workdir=project.workdir, start=start)
    print_json({"run_id": run_id}) if as_json else click.echo(run_id)


def _schedule(project: Project, plan: Any, start: Any, as_json: bool, **when: Any) -> None:
    from parallel_agents import daemons, schedules
    from parallel_agents.cli.drawing import local_time

    schedules.check(**when)
    with project.open(create=True, actor="cli") as log:
        made = schedules.add(log, plan, project, include_uncommitted=start.include_uncommitted, **when)
    print_json(made) if as_json else click.echo(made["schedule_id"])
    click.echo(f"due next {local_time(made['next_at'])} ({made['cron']}, {made['zone']})", err=True)
    if not daemons.is_there(project.store):
        click.echo("no daemon is there to run it; `parallel-agents daemon start` starts one", err=True)


@click.command()
@run_argument
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Give up after that long, with exit code 6.",
)
@json_option
@store_option
@click.pass_context
def wait(ctx: click.Context, run: str | None, timeout_s: float | None, as_json: bool) -> int:
    """Wait for a run's end, also while nobody dispatches it, and exit with its code."""
    from parallel_agents import look
    from parallel_agents.follow import LIMIT_REACHED, Follower, exit_code

    if timeout_s is not None and math.isnan(timeout_s):
        raise InvalidUsage("--timeout is no number", hint="give seconds, such as 30 or 0.5")
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with opened(ctx) as log:
        follower = Follower(log, look.resolve_run(log, run))
        told = _also_say_what_holds_it_back(log, follower, lambda records: None, limits=True)
        if not _follow(log, follower, told, deadline):
            click.echo(
                f"run {follower.run_id} has not ended after {timeout_s:g} s: it is {follower.state.status}", err=True
            )
            return LIMIT_REACHED
        _summarise(log, follower, as_json=as_json)
        return exit_code(follower.state)


class _TimeIsUp(Exception):
    pass


def _follow(log: Any, follower: Any, told: Callable[[list[Any]], None], deadline: float | None = None) -> bool:
    """Follow until the run has settled, saying so once where nobody dispatches it. False where the time was up first."""
    from parallel_agents.follow import POLL_S, follow, is_dispatched

    looked = [0.0, 0.0]  # When last, and whether it was said.

    def also(records: list[Any]) -> None:
        told(records)
        now = time.monotonic()
        if deadline is not None and now >= deadline and not follower.settled:
            raise _TimeIsUp
        if now - looked[0] < 1.0 or follower.settled:
            return
        looked[0] = now
        if not looked[1] and not is_dispatched(log, follower.run_id):
            looked[1] = 1.0
            hint = f"`parallel-agents daemon start` or `parallel-agents resume {follower.run_id}` does"
            click.echo(f"waiting, though no process dispatches run {follower.run_id} yet; {hint}", err=True)

    try:
        follow(
            follower, also, every_s=POLL_S if deadline is None else min(POLL_S, max(0.01, deadline - time.monotonic()))
        )
    except _TimeIsUp:
        return False
    return True


@click.command()
@run_argument
@json_option
@store_option
@click.pass_context
def attach(ctx: click.Context, run: str | None, as_json: bool) -> int:
    """Follow a run that another process dispatches. Ctrl-C leaves it alone."""
    from parallel_agents import look
    from parallel_agents.follow import Follower, exit_code

    project = project_of(ctx)
    with opened(ctx) as log:
        follower = Follower(log, look.resolve_run(log, run))
        try:
            configuration = project.configuration()
            with _view(log, follower, configuration, as_json=as_json) as told:
                live = _is_live(configuration, as_json=as_json)
                _follow(log, follower, _also_say_what_holds_it_back(log, follower, told, limits=not live))
        except KeyboardInterrupt:
            click.echo(f"left run {follower.run_id}, which goes on", err=True)
            return INTERRUPTED
        _summarise(log, follower, as_json=as_json)
        return exit_code(follower.state)
