"""What ``codex exec --json`` prints (measured with 0.169 to 0.171).

It tells tokens once, in ``turn.completed``, and no dollars, no model and no message ids. Its ``input_tokens`` include those from
the cache. The usage of a resumed thread counts the whole thread, with the calls that a killed process had completed in it.
Lines and items of type ``error`` can be mere warnings and retries: only ``turn.failed`` is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallel_agents.scheduler.agents.reading import (
    ApiFailure,
    Reading,
    Reported,
    Result,
    Spent,
    Tokens,
    as_count,
    as_name,
    as_object,
    as_text,
    decoded,
)

# Output of commands is most of what there is, and never looked into; the kind of an item stands where the client writes it.
_COMMAND = b',"type":"command_execution"'
_LONG_BYTES, _HEAD_BYTES = 2_000, 80
_SKIPPED = (b'{"type":"turn.started"', b'{"type":"item.started"', b'{"type":"item.updated"')
_OF_NO_INTEREST = frozenset(("item.started", "item.updated"))


class CodexStream:
    """The parser of ``codex``."""

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line."""
        reading.lines += 1
        if line.startswith(_SKIPPED):
            reading.asked = True
            return
        if len(line) > _LONG_BYTES and _COMMAND in line[:_HEAD_BYTES]:
            reading.asked = reading.answered = True
            return
        fields = decoded(line)
        if fields is None:
            reading.bad_lines += bool(line.strip())
            return
        kind = fields.get("type")
        if kind == "item.completed":
            item = as_object(fields.get("item"))
            said = item.get("type")
            if said == "agent_message":
                reading.last_text = as_text(item.get("text")) or reading.last_text
            if said != "error":
                reading.asked = reading.answered = True
        elif kind == "error":
            text = as_text(fields.get("message"))
            reading.fail(ApiFailure(text, retried=text.startswith("Reconnecting")))
        else:
            _of_turns(reading, fields, kind)


def _of_turns(reading: Reading, fields: Mapping[str, Any], kind: object) -> None:
    match kind:
        case "turn.started":
            reading.asked = True
        case "thread.started":
            reading.session_id = as_name(fields.get("thread_id")) or reading.session_id
        case "turn.completed":
            reading.asked = reading.answered = True
            reading.reported = Reported({"": Spent(_tokens(fields.get("usage")))})
            _ended(reading, Result("turn.completed", text=reading.last_text))
        case "turn.failed":
            text = as_text(as_object(fields.get("error")).get("message"))
            reading.fail(ApiFailure(text))
            _ended(reading, Result("turn.failed", is_error=True, errors=(text,) if text else ()))
        case str() as name if name in _OF_NO_INTEREST:
            pass
        case other:
            reading.unknown_type(other)


def _ended(reading: Reading, result: Result) -> None:
    reading.result = result
    reading.results += 1


def _tokens(usage: object) -> Tokens:
    row = as_object(usage)
    everything = as_count(row.get("input_tokens")) or 0
    cached = as_count(row.get("cached_input_tokens")) or 0
    written = as_count(row.get("cache_write_input_tokens")) or 0
    return Tokens(max(0, everything - cached - written), as_count(row.get("output_tokens")) or 0, cached, written)
