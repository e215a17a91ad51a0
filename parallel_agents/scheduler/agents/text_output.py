"""Output that tells little: plain text, whose end is what the agent said, and JSON of clients known by their papers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallel_agents.scheduler.agents.claude_stream import ClaudeStream
from parallel_agents.scheduler.agents.codex_stream import CodexStream
from parallel_agents.scheduler.agents.reading import (
    LONGEST_TEXT,
    ApiFailure,
    Parser,
    Reading,
    Reported,
    Result,
    Spent,
    Tokens,
    as_amount,
    as_count,
    as_name,
    as_object,
    as_text,
    decoded,
)

_LONGEST_END = 4_000  # Characters at the end of plain text that are kept as what the agent said.


class PlainText:
    """Tells nothing but itself: no cost, no tokens, no session. Its last lines are the output."""

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line."""
        reading.lines += 1
        reading.asked = True  # Or so it has to be taken: what it asked, nobody is told.
        text = line[-LONGEST_TEXT:].decode("utf-8", "replace").rstrip()
        reading.last_text = f"{reading.last_text}\n{text}".lstrip()[-_LONGEST_END:]


class JsonLines:
    """Lines as the papers of opencode (``--format json``) and gemini (``--output-format stream-json``) show them.

    Neither was run against this. What a line does not hold stays unknown, and lines that are no JSON are text.
    """

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line."""
        fields = decoded(line)
        if fields is None:
            if line.strip():
                reading.bad_lines += 1
                PlainText().feed(reading, line)
            return
        reading.lines += 1
        reading.asked = True
        reading.session_id = as_name(fields.get("session_id") or fields.get("sessionID")) or reading.session_id
        reading.model = as_name(fields.get("model")) or reading.model
        part = as_object(fields.get("part"))
        match fields.get("type"):
            case "text":
                reading.last_text = as_text(part.get("text")) or reading.last_text
            case "message" if fields.get("role") == "assistant":
                said = as_text(fields.get("content"))
                reading.last_text = as_text(reading.last_text + said) if fields.get("delta") is True else said
            case "message":
                reading.last_text = ""  # The next one's pieces begin anew.
            case "step_finish":
                spent = Spent(_tokens_of_step(as_object(part.get("tokens"))), as_amount(part.get("cost")))
                step = Reported({reading.model or "": spent})
                reading.own = step if reading.own is None else reading.own.plus(step)
                reading.answered = True
            case "error":
                error = fields.get("error") or fields.get("message")
                about = as_object(error)
                text = as_text(error) or as_text(as_object(about.get("data")).get("message") or about.get("message"))
                reading.fail(ApiFailure(text, code=as_name(about.get("name"))))
            case "result":
                stats = as_object(fields.get("stats"))
                reading.result = Result("result", is_error=fields.get("status") != "success", text=reading.last_text)
                reading.results += 1
                if as_count(stats.get("input_tokens")) is not None:
                    reading.own = Reported({reading.model or "": Spent(_tokens_of_stats(stats))})
                    reading.answered = True
            case _:
                pass


def _tokens_of_step(told: Mapping[str, Any]) -> Tokens:
    cache = as_object(told.get("cache"))
    return Tokens(
        as_count(told.get("input")) or 0,
        (as_count(told.get("output")) or 0) + (as_count(told.get("reasoning")) or 0),
        as_count(cache.get("read")) or 0,
        as_count(cache.get("write")) or 0,
    )


def _tokens_of_stats(told: Mapping[str, Any]) -> Tokens:
    cached = as_count(told.get("cached")) or 0
    return Tokens(
        max(0, (as_count(told.get("input_tokens")) or 0) - cached), as_count(told.get("output_tokens")) or 0, cached
    )


PARSERS: dict[str, Parser] = {
    "claude": ClaudeStream(),
    "codex": CodexStream(),
    "json": JsonLines(),
    "text": PlainText(),
}
"""Output formats by the name that a client's row gives."""
