"""The verb seal: a signed statement of what the log is, to be kept where nobody who can change the log can change it too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from parallel_agents import InvalidUsage
from parallel_agents.cli.harmless import json_text
from parallel_agents.cli.progress import told_of_progress
from parallel_agents.cli.scene import json_option, opened, print_json, store_option


@click.command()
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it there, in place of stdout.")
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An ed25519 key, in place of your own (made on first use).",
)
@click.option("--yes", "-y", is_flag=True, help="Replace a file that is there.")
@json_option
@store_option
@click.pass_context
def seal(ctx: click.Context, out: Path | None, key: Path | None, yes: bool, as_json: bool) -> int:
    """Sign what the log is now, for `verify --against`.

    Keep the seal, and the fingerprint that is printed with it, where agents cannot reach them: whoever can change the log can
    make it fit together again, but not with a seal from before.
    """
    from parallel_agents import seal_keys, sealing

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InvalidUsage(
            f"{out} cannot be written", hint="name a file in a folder that is there, such as ../seal.json"
        )
    if out is not None and out.exists() and not yes:
        raise InvalidUsage(f"{out} exists already", hint="name another file, or say --yes to replace it")
    with opened(ctx) as log, told_of_progress() as told:
        ask = _passphrase if sys.stdin.isatty() else None
        if key is not None:
            seal_keys.refuse_within(log.path, key)
            signing, path, made = seal_keys.load(key, ask), key, False
        else:
            signing, path, made = seal_keys.load_or_make(os.environ, ask)
        done = sealing.seal(log, signing, lambda number, total: told("events", number, total))
        near = out is not None and out.resolve().is_relative_to(log.path.parent.resolve())
    mark = seal_keys.fingerprint(signing.public_key().public_bytes_raw())
    text = json_text(done, indent=2) + "\n"
    if made:
        click.echo(f"made a key: {path} (keep a copy; whoever has it can sign as you)", err=True)
    click.echo(f"sealed {done['events']:,} events with the key {mark}", err=True)
    if near:
        click.echo(f"{out} lies beside the log: move it where who can change the one cannot change the other", err=True)
    if out is None:
        click.echo(text, nl=False)
        return 0
    write_whole(out, text)
    if as_json:
        print_json({**done, "file": out, "fingerprint": mark, "key": path})
    else:
        click.echo(str(out))
    return 0


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: under its name there is never half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _passphrase(path: Path) -> str:
    answer: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return answer
