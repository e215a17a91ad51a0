"""The verb replay: a past run once more, and the proof of it."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import click

from parallel_agents import InvalidUsage, ReplayDiffers
from parallel_agents.cli.drawing import one_line
from parallel_agents.cli.harmless import json_text
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import opened, print_json, project_of, reading, run_argument

LONGEST_S: Final = 20.0
"""How long a run is told in the live view, where nobody says how fast."""


class Speed(click.ParamType[float]):
    """A number of times, above 0, or ``max``."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; infinity for ``max``."""
        if value == "max":
            return math.inf
        try:
            number = float(str(value).removesuffix("x"))
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is neither a number above 0 nor 'max'", param, ctx)
        return number


@click.command()
@run_argument
@click.option("--verify", "verifying", is_flag=True, help="Prove it: chain, folds, and every decision made again.")
@click.option(
    "--execute",
    "executing",
    is_flag=True,
    help="Execute it again with what its attempts did, and compare: no model is called.",
)
@click.option(
    "--speed",
    metavar="N|max",
    type=Speed(),
    help="Times as fast as it went; left out: all of it in 20 seconds at most.",
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="What if: play it again under other settings, such as max_parallel_agents=8, retry.delay_s=1 or TASK.model=haiku.",
)
@click.option("--all", "every", is_flag=True, help="With --set: all runs that are over.")
@reading
@click.pass_context
def replay(
    ctx: click.Context,
    run: str | None,
    verifying: bool,
    executing: bool,
    speed: float | None,
    settings: tuple[str, ...],
    every: bool,
    at: str | None,
    as_json: bool,
) -> int:
    """Look at a past run as it went: the live view of it on a terminal, a line for each event elsewhere.

    With --verify it is proved instead: that its record is whole, and that the scheduler would decide the same again. The
    first thing that differs is named, and the exit code is 8. With --execute the whole run is executed again on a clock of
    its own, by the same scheduler, with attempts that do what they did. With --set it is what would have happened otherwise.
    """
    from parallel_agents import look, replaying

    given = {"--verify": verifying, "--execute": executing, "--set": bool(settings) or every}
    if sum(given.values()) > 1:
        one, other = [name for name, there in given.items() if there][:2]
        raise InvalidUsage(f"{one} and {other} are two questions", hint="ask one, then the other")
    if not any(given.values()):
        with opened(ctx) as log:
            upto = look.moment_of_run(log, at, run)
            return _retell(log, look.resolve_run(log, run, upto), upto, speed, as_json=as_json)
    asked = next(name for name, there in given.items() if there)
    for option, value in (("--speed", speed), ("--at", at)):
        if value is not None:
            raise InvalidUsage(
                f"{option} is of no use with {asked}, which looks at all of a run", hint="leave one of them out"
            )
    if asked == "--set":
        from parallel_agents.cli.otherwise import play_otherwise

        return play_otherwise(ctx, run, settings, every=every, as_json=as_json)
    if executing:
        return _execute(ctx, run, as_json=as_json)
    with opened(ctx) as log, told_of_progress() as told:
        found = replaying.prove(log, look.resolve_run(log, run), told)
    if as_json:
        print_json(found)
    else:
        _say(found)
    return _judge(found)


def _execute(ctx: click.Context, run: str | None, *, as_json: bool) -> int:
    from parallel_agents import look
    from parallel_agents.checkpoints import repository_of_run
    from parallel_agents.otherwise import reenacting

    with opened(ctx) as log, told_of_progress() as told:
        run_id, project = look.resolve_run(log, run), project_of(ctx)
        found = reenacting.execute(
            log, run_id, lambda done, total: told("looks", done, total), lambda: repository_of_run(log, project, run_id)
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        say_execution(found)
    first = found["divergence"]
    if first is not None:
        raise ReplayDiffers(
            f"event {first['seq']} {first['type']}: {first['field']} was {_shown(first['recorded'])}, and executed again it is "
            f"{_shown(first['now'])}",
            hint=f"`parallel-agents history {found['run_id']}` shows what came before it",
        )
    return 0


def say_execution(found: dict[str, Any]) -> None:
    """What came of executing a run again, in lines."""
    total = sum(found["same"].values())
    sign = "✓" if found["ok"] else "·"
    click.echo(f"run {found['run_id']}")
    click.echo(
        f"{sign} executed   {found['attempts']:,} attempts in {found['looks']:,} looks of the scheduler, on a clock of its own"
    )
    click.echo(f"{sign} the same   {total:,} events: {_counts(found['same'])}")
    if found["given"]:
        click.echo(f"  given      {_counts(found['given'])}: from outside, as recorded")
    if commits := found["commits"]:
        alike = f", {commits['alike']:,} others that hold the same files" if commits["alike"] else ""
        click.echo(f"{sign} its files  {commits['same']:,} times the same commit{alike}, in a repository of its own")
    if not found["files_judged"]:
        why = f": {found['files_left']}" if found["files_left"] else ""
        click.echo(
            f"  not judged its files{why}; what was merged, what clashed and what gates said is taken as recorded"
        )


class Pace:
    """A clock that goes as fast as a past run is told.

    Attributes:
        now_s: the time in the run, in seconds since the epoch; never beyond the next moment.
    """

    def __init__(self, began_us: int, speed: float) -> None:
        self._began_s, self._speed, self._until_s = began_us / 1e6, speed, began_us / 1e6
        self._since_s = time.monotonic()

    def now_s(self) -> float:
        """The time in the run."""
        return min(self._until_s, self._began_s + (time.monotonic() - self._since_s) * self._speed)

    def wait_until(self, at_us: int) -> None:
        """Let the time pass that lies before a moment."""
        self._until_s = at_us / 1e6
        if self._speed != math.inf:
            time.sleep(max(0.0, (self._until_s - self._began_s) / self._speed - (time.monotonic() - self._since_s)))


class _Past:
    """What the live view follows: the run as of the moment that is told."""

    def __init__(self, run_id: str) -> None:
        self.state: Any = None
        self.run_id = run_id


def _retell(log: Any, run_id: str, upto: int | None, speed: float | None, *, as_json: bool) -> int:
    from parallel_agents import retelling
    from parallel_agents.cli.history_page import HistoryPage
    from parallel_agents.cli.live import LiveView
    from parallel_agents.look import history_row

    began_us, ended_us = retelling.span_us(log, run_id, upto)
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not as_json
    if speed is None:
        speed = max(1.0, (ended_us - began_us) / 1e6 / LONGEST_S) if live else math.inf
    pace, past = Pace(began_us, speed), _Past(run_id)
    told = retelling.moments(log, run_id, upto, pace.wait_until, whole=live)
    if live:
        past.state = (first := next(told)).state
        with LiveView(log, past, interval_s=1.0, clock=pace.now_s, past=True) as view:
            for moment in chain((first,), told):
                past.state = moment.state
                view.told(moment.records)
        return 0
    page = HistoryPage(undone=lambda run, seq: False, with_run=False)
    for moment in told:
        if as_json:
            click.echo(json_text(retelling.as_json(moment, began_us)))
            continue
        for record in moment.records:
            page.print(history_row(log.row(record.seq)))
    return 0


def _say(found: dict[str, Any]) -> None:
    chain, folds, decisions = found["chain"], found["folds"], found["decisions"]
    click.echo(f"run {found['run_id']}")
    if not chain["ok"]:
        return
    click.echo(
        f"✓ chain      {chain['events']:,} events of the store, as they were written; its head is {chain['head']}"
    )
    if folds["ok"]:
        count = folds["snapshots"]
        click.echo(
            "✓ folds      built again from nothing, they are what is read"
            + (f", and {count} snapshot{'s' * (count != 1)} hold what the events say" if count else "")
        )
    for one in folds["findings"]:
        click.echo(f"✗ {one['check']:<10} {one['detail']}")
    if decisions["ok"]:
        total = sum(decisions["same"].values())
        click.echo(f"✓ decisions  {total:,} made again, and the same: {_counts(decisions['same'])}")
    if decisions["sampled"]:
        click.echo(
            f"  not judged {_counts(decisions['sampled'])}: made on what no event holds (docs/audit.md names it)"
        )


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in of.items())


def _judge(found: dict[str, Any]) -> int:
    """The exit code: 8, with what differs, where anything does."""
    chain, folds, decisions = found["chain"], found["folds"], found["decisions"]
    if not chain["ok"]:
        broken = chain["broken"]
        what = (
            f"event {broken['seq']} was changed: {broken['what']}" if broken else "documents that events name are gone"
        )
        raise ReplayDiffers(what, hint="`parallel-agents verify` says more; nothing that stands on it was judged")
    if not folds["ok"]:
        raise ReplayDiffers(folds["findings"][0]["detail"], hint=folds["findings"][0]["hint"])
    if not decisions["ok"]:
        first = decisions["divergence"]
        raise ReplayDiffers(
            f"event {first['seq']} {first['type']}: {first['field']} was {_shown(first['recorded'])}, and the scheduler "
            f"now decides {_shown(first['now'])}",
            hint=f"`parallel-agents history {found['run_id']}` shows what came before it",
        )
    return 0


def _shown(value: Any) -> str:
    return "nothing" if value is None else one_line(repr(value))
