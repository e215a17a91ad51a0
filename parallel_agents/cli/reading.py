"""Verbs that read what was written: history and logs."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from parallel_agents import InvalidUsage, look
from parallel_agents.archived import at_hand
from parallel_agents.attempt_files import check_printed_by_then, kept_pieces
from parallel_agents.cli.harmless import Harmless, json_text
from parallel_agents.cli.scene import opened, print_json, reading, run_and_task, run_argument, task_arguments

_POLL_S = 0.2  # Files say nothing when they grow.


@click.command()
@run_argument
@click.option(
    "--type", "types", metavar="T", multiple=True, help="Only events of this type, such as TaskFailed; repeatable."
)
@click.option("--task", "task_id", metavar="TASK", help="Only events that name this task.")
@click.option("--all", "all_runs", is_flag=True, help="Every run of the store.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens next, until the run has ended.")
@reading
@click.pass_context
def history(
    ctx: click.Context,
    run: str | None,
    types: tuple[str, ...],
    task_id: str | None,
    all_runs: bool,
    follow: bool,
    as_json: bool,
    at: str | None,
) -> None:
    """Show what happened, event by event, oldest first, undone events too.

    With --json an event a line, as it stands in the log.
    """
    if run is not None and all_runs:
        raise InvalidUsage("RUN and --all exclude each other", hint="leave one of them out")
    if follow and at is not None:
        raise InvalidUsage("--follow and --at exclude each other", hint="the past does not go on")
    for name in types:
        look.check_event_type(name)
    with opened(ctx) as log:
        upto = look.moment(log, at) if all_runs else look.moment_of_run(log, at, run)
        run_id = None if all_runs else look.resolve_run(log, run, upto)
        if task_id is not None and run_id is not None:
            look.check_task(log, run_id, task_id, upto)
        lines = look.history(log, run_id, upto=upto, types=types, task_id=task_id, follow=follow)
        if as_json:
            for row in lines:
                if row is None:
                    sys.stdout.flush()
                    continue
                sys.stdout.write(json_text(look.history_row(row)) + "\n")
            return
        from parallel_agents.cli.sentences import HistoryPage

        page = HistoryPage(undone=look.undone_seqs(log, run_id, upto) if run_id else frozenset(), with_run=all_runs)
        for row in lines:
            if row is not None:
                page.print(look.history_row(row))


@click.command()
@task_arguments
@click.option("--follow", "-f", is_flag=True, help="Go on with what it writes next, until the attempt has ended.")
@click.option("--attempt", "number", metavar="N", type=click.IntRange(min=1), help="Another attempt than the last.")
@click.option("--raw", is_flag=True, help="As it was printed, for programs; a terminal obeys whatever is in it.")
@reading
@click.pass_context
def logs(
    ctx: click.Context,
    words: tuple[str, ...],
    follow: bool,
    number: int | None,
    raw: bool,
    as_json: bool,
    at: str | None,
) -> None:
    """Print what the last attempt of a task wrote: its stdout, then its stderr. What an agent did is told in words."""
    run, task_id = run_and_task(words)
    if follow and (as_json or at is not None):
        raise InvalidUsage("--follow goes with neither --json nor --at", hint="leave one of them out")
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        run_id = look.resolve_run(log, run, upto)
        attempt = look.attempt(log, run_id, task_id, number, upto)
        if attempt is None and follow:
            click.echo(f"task {task_id} of run {run_id} has not been started yet; waiting for it", err=True)
            attempt = look.wait_for_attempt(log, run_id, task_id)
        if attempt is None:
            if as_json:
                print_json({"run_id": run_id, "task_id": task_id, "attempt_id": None, "stdout": "", "stderr": ""})
            else:
                click.echo(f"task {task_id} of run {run_id} has not been started yet", err=True)
            return
        with at_hand(log.path, Path(attempt["folder"])) as folder:
            if upto is not None:
                check_printed_by_then(folder, attempt, upto, look.time_of(log, upto) or 0)
            if as_json:
                texts = {name: _text(folder / f"{name}.log") for name in ("stdout", "stderr")}
                found = {"run_id": run_id, "task_id": task_id, "attempt_id": attempt["attempt_id"], **texts}
                print_json({**found, "cut_bytes": attempt["cut_bytes"]})
                return
            if not follow and not folder.exists():
                click.echo(f"nothing is left of what attempt {attempt['attempt_id']} of task {task_id} wrote", err=True)
            from parallel_agents.activity import printed_as

            output = None if raw else printed_as(log, run_id, attempt["attempt_id"])
            _print_files(log, run_id, folder, attempt["attempt_id"], output, follow=follow, raw=raw)


def _in_words(lines: list[bytes], output: str) -> bytes:
    from parallel_agents.activity import words_of

    return "".join(f"{words}\n" for line in lines for words in words_of(line, output)).encode("utf-8", "replace")


def _text(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        pieces = kept_pieces(str(path), 0)
        return b"".join(_cut_line(piece.cut) if piece.cut else piece.data for piece in pieces).decode(
            "utf-8", "replace"
        )
    return ""


def _cut_line(count: int) -> bytes:
    """What stands in the place of what was cut out of an output."""
    return f"\n[... {count:,} bytes are cut here: monitoring.maxOutputMB is what is kept of an output ...]\n".encode()


def _print_files(
    log: Any, run_id: str, folder: Path, attempt_id: str, output: str | None, *, follow: bool, raw: bool
) -> None:
    """Copy both files to stdout, to a terminal without what it would obey (see ``harmless``).

    With ``follow``, whatever comes to either until the attempt has ended.

    Args:
        output: what the stdout of an agent is read as, to be told in words; None: it is copied too.
        raw: nothing is taken out.
    """
    out = sys.stdout.buffer
    filters = {name: Harmless() for name in ("stdout.log", "stderr.log")} if sys.stdout.isatty() and not raw else {}
    read = {"stdout.log": 0, "stderr.log": 0}
    rest = b""  # Half a line of an agent's.
    while True:
        running = follow and look.is_running(log, run_id, attempt_id)  # Before the look: what came last is still read.
        for name in read:
            with contextlib.suppress(FileNotFoundError):
                for piece in kept_pieces(str(folder / name), read[name]):
                    chunk, read[name] = piece.data, piece.end
                    if piece.cut:
                        chunk = _cut_line(piece.cut)
                        rest = b"" if name == "stdout.log" else rest
                    elif output is not None and name == "stdout.log":
                        *lines, rest = (rest + chunk).split(b"\n")
                        chunk = _in_words(lines, output)
                    out.write(filters[name].feed(chunk) if filters else chunk)
        if not running and output is not None:
            chunk = _in_words([rest], output)
            out.write(filters["stdout.log"].feed(chunk) if filters else chunk)
        if not running:
            for one in filters.values():
                out.write(one.feed(b"", last=True))
        out.flush()
        if not running:
            return
        time.sleep(_POLL_S)
