"""What takes long is told of on a terminal, in one line that goes away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import click

EVERY_S = 0.3  # Nobody reads faster, and what is over sooner says nothing.
_BEGIN_OF_LINE = "\r\x1b[K"


@contextmanager
def told_of_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Gives what is to be called with what is looked at, how much of it is done, and how much there is."""
    on_terminal, begun = sys.stderr.isatty(), monotonic()
    told_at = begun

    def told(what: str, done: int, total: int) -> None:
        nonlocal told_at
        if on_terminal and monotonic() - told_at > EVERY_S:
            told_at = monotonic()
            click.echo(f"{_BEGIN_OF_LINE}{done:,} of {total:,} {what}", err=True, nl=False)

    try:
        yield told
    finally:
        if told_at != begun:
            click.echo(_BEGIN_OF_LINE, err=True, nl=False)
