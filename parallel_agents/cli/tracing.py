"""The parts of export that write a run for tools which show traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from parallel_agents import InvalidUsage


class Wanted(NamedTuple):
    """What the command line asks for."""

    chrome: str | None
    otlp: str | None
    sends: bool
    endpoint: str | None
    with_content: bool
    redact: bool


def check(wanted: Wanted, ways: Sequence[str], *, file: Path | None, yes: bool, as_json: bool) -> None:
    """Refuse what does not go together.

    Raises:
        InvalidUsage: two of the options exclude each other, or one needs another one.
    """
    if len(ways) > 1:
        raise InvalidUsage(f"{ways[0]} and {ways[1]} exclude each other", hint="leave one of them out")
    if not ways:
        name = "--with-content" if wanted.with_content else "--at"
        raise InvalidUsage(
            f"{name} goes with --chrome, --otlp or --otlp-send", hint="an export holds all of a run as it is"
        )
    for name, given in (("--output", file is not None), ("--yes", yes), ("--json", as_json)):
        if given:
            raise InvalidUsage(f"{ways[0]} and {name} exclude each other", hint="leave one of them out")
    if wanted.with_content and wanted.chrome is not None:
        raise InvalidUsage("--with-content goes with spans, not with --chrome", hint="leave one of them out")
    if wanted.with_content and wanted.redact:
        raise InvalidUsage("--with-content and --redact exclude each other", hint="leave one of them out")
    if wanted.sends:
        from parallel_agents.pictures.otlp_sending import check_sending

        check_sending(wanted.endpoint)


def write_trace(log: Any, run_id: str, upto: int | None, wanted: Wanted) -> None:
    """Write, or send, one run."""
    from parallel_agents.pictures.course import course

    found = course(log, run_id, upto)
    if wanted.chrome is not None:
        from parallel_agents.pictures.chrome_trace import BEGINS, chrome_trace

        _write(wanted.chrome, chrome_trace(found, redact=wanted.redact), "trace of Chrome's", BEGINS)
        return
    from parallel_agents.pictures.run_spans import run_spans

    content = None
    if wanted.with_content:
        from parallel_agents.pictures.span_content import content_of

        content = content_of(log, found)
    spans = run_spans(found, content, redact=wanted.redact)
    if wanted.sends:
        from parallel_agents.pictures.otlp_sending import send

        where = send(spans, wanted.endpoint)
        click.echo(f"{where}: {len(spans):,} spans of run {run_id}, trace {spans[0].trace_id}", err=True)
        return
    from parallel_agents.pictures.otlp_json import BEGINS as BEGINS_OTLP
    from parallel_agents.pictures.otlp_json import otlp_json

    assert wanted.otlp is not None
    _write(wanted.otlp, otlp_json(spans), "file of OTLP/JSON", BEGINS_OTLP, private=wanted.with_content)


def _write(file: str, text: str, kind: str, begins: str, *, private: bool = False) -> None:
    from parallel_agents.cli import drawing
    from parallel_agents.pictures.made_files import STDOUT, make_file

    size = make_file(file, text, kind, (begins,), private=private)
    if file != STDOUT:
        click.echo(f"{file}: {drawing.size(size)}", err=True)
