"""What reads what attempts wrote: logs."""

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
from parallel_agents.cli.harmless import Harmless
from parallel_agents.cli.scene import opened, print_json, reading, run_and_task, task_arguments

_POLL_S = 0.2  # Files say nothing when they grow.


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
