"""The verb replay: a past run once more, and the proof of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from parallel_agents import ReplayDiffers
from parallel_agents.cli.drawing import one_line
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, run_argument, store_option


@click.command()
@run_argument
@click.option("--verify", "verifying", is_flag=True, help="Prove it: chain, folds, and every decision made again.")
@json_option
@store_option
@click.pass_context
def replay(ctx: click.Context, run: str | None, verifying: bool, as_json: bool) -> int:
    """Look at a past run as it went; or prove that its record is whole and would be decided the same again.

    With --verify the first thing that differs is named, and the exit code is 8.
    """
    from parallel_agents import look, replaying

    if not verifying:
        raise click.UsageError("say --verify")
    with opened(ctx) as log, told_of_progress() as told:
        found = replaying.prove(log, look.resolve_run(log, run), told)
    if as_json:
        print_json(found)
    else:
        _say(found)
    return _judge(found)


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
            f"  not judged {_counts(decisions['sampled'])}: made on what no event holds, such as the load of the machine"
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
