"""What ``codex exec --json`` prints (measured with 0.169 to 0.171).

It tells tokens once, in ``turn.completed``, and no dollars, no model and no message ids. Its ``input_tokens`` include those from
the cache. The usage of a resumed thread counts the whole thread, with the calls that a killed process had completed in it.
Lines and items of type ``error`` can be mere warnings and retries: only ``turn.failed`` is a failure.
"""

from __future__ import annotations

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

# Output of commands, which is most of what there is; the kind of an item stands where the client writes it.
_SKIPPED = (b'{"type":"item.started"', b'{"type":"item.updated"')
_OF_NO_INTEREST = frozenset(("item.started", "item.updated"))


class CodexStream:
    """The parser of ``codex``."""

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line."""
        reading.lines += 1
        if line.startswith(_SKIPPED) or not line.strip():
            return
        fields = decoded(line)
        if fields is None:
            reading.bad_lines += 1
            return
        match fields.get("type"):
            case "thread.started":
                reading.session_id = as_name(fields.get("thread_id")) or reading.session_id
            case "turn.started":
                reading.asked = True
            case "item.completed":
                item = as_object(fields.get("item"))
                if item.get("type") == "agent_message":
                    reading.last_text = as_text(item.get("text")) or reading.last_text
                if item.get("type") != "error":
                    reading.asked = reading.answered = True
            case "turn.completed":
                reading.asked = reading.answered = True
                reading.reported = Reported({"": Spent(_tokens(fields.get("usage")))})
                _ended(reading, Result("turn.completed", text=reading.last_text))
            case "turn.failed":
                text = as_text(as_object(fields.get("error")).get("message"))
                reading.fail(ApiFailure(text))
                _ended(reading, Result("turn.failed", is_error=True, errors=(text,) if text else ()))
            case "error":
                text = as_text(fields.get("message"))
                reading.fail(ApiFailure(text, retried=text.startswith("Reconnecting")))
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
