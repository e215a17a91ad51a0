"""What ``claude -p`` prints as ``stream-json``, or as the one object of ``json``.

What each line says was measured (Claude Code 2.1.197 to 2.1.332):

- ``assistant`` lines carry the usage that a message began with, and come once for each block of it; the final figure is in
  the ``message_delta`` of the stream. A message that was not streamed has its final usage in the assistant line.
- Subagents have assistant lines only. Their true usage is in ``modelUsage`` of the result, by model.
- ``modelUsage`` counts the session from its first process on (of which the ones that were killed are missing);
  ``model_usage_since_last_result`` is the difference, so that their sum is what this process has spent.
- Two and more result lines can come; the last one counts. 429 and its like are ``subtype: success`` with ``is_error``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallel_agents.scheduler.agents.reading import (
    ApiFailure,
    RateLimit,
    Reading,
    Reported,
    Result,
    Spent,
    Tokens,
    as_amount,
    as_count,
    as_list,
    as_name,
    as_object,
    as_text,
    decoded,
)

# Most of a transcript: pieces of texts that the assistant lines repeat, and what tools gave. Never looked into. The client
# writes these keys in this order; where another version does not, the lines are parsed and then found to say nothing.
_SKIPPED = (
    b'{"type":"stream_event","event":{"type":"content_block_',
    b'{"type":"user"',
    b'{"type":"stream_event","event":{"type":"message_stop"',
    b'{"type":"stream_event","event":{"type":"ping"',
)
_MOST_ERRORS = 20  # Of a result line, that are kept.
_MOST_DENIALS = 100
_MOST_AGENTS = 1000
_LIMIT_LINE = b'{"type":"rate_limit_event"'
_OF_NO_INTEREST = frozenset(
    (
        "user",
        "control_response",
        "control_request",
        "control_cancel_request",
        "tool_progress",
        "tool_use_summary",
        "auth_status",
        "keep_alive",
        "prompt_suggestion",
        "active_goal",
        "command_lifecycle",
    )
)


class ClaudeStream:
    """The parser of ``claude``."""

    def feed(self, reading: Reading, line: bytes) -> None:
        """Take in one line."""
        reading.lines += 1
        if line.startswith(_SKIPPED):
            return
        fields = decoded(line)
        if fields is None:
            # Seen in the wild (2.1.74): a line about the allowance, written into the middle of another one.
            inside = line.rfind(_LIMIT_LINE)
            if inside > 0 and (found := decoded(line[inside:])) is not None:
                _limit(reading, found)
            reading.bad_lines += bool(line.strip())
            return
        match fields.get("type"):
            case "stream_event":
                _streamed(reading, fields)
            case "assistant":
                _assistant(reading, fields)
            case "result":
                _result(reading, fields)
            case "system":
                _system(reading, fields)
            case "rate_limit_event":
                _limit(reading, fields)
            case str() as name if name in _OF_NO_INTEREST:
                pass
            case other:
                reading.unknown_type(other)


def _streamed(reading: Reading, fields: Mapping[str, Any]) -> None:
    event = as_object(fields.get("event"))
    speaker = as_name(fields.get("parent_tool_use_id"))
    match event.get("type"):
        case "message_start":
            message = as_object(event.get("message"))
            message_id = as_name(message.get("id"))
            if message_id:
                reading.open_messages[speaker] = message_id
                reading.count(message_id, as_name(message.get("model")) or None, _tokens(message.get("usage")))
        case "message_delta":
            message_id = as_name(fields.get("api_message_id")) or reading.open_messages.get(speaker, "")
            if message_id:
                reading.count(message_id, None, _tokens(event.get("usage")))
        case _:
            pass


def _assistant(reading: Reading, fields: Mapping[str, Any]) -> None:
    message = as_object(fields.get("message"))
    model = as_name(message.get("model"))
    text = _text_of(message.get("content"))
    if model == "<synthetic>" or fields.get("is_api_error_message") is True:
        if fields.get("is_api_error_message") is True or fields.get("error") is not None:
            code = as_name(fields.get("error"))
            reading.fail(ApiFailure(text, as_count(fields.get("api_error_status")), code))
        return
    message_id = as_name(message.get("id"))
    if message_id and isinstance(message.get("usage"), dict):
        reading.count(message_id, model or None, _tokens(message["usage"]))
    if text and not fields.get("parent_tool_use_id"):
        reading.last_text = text


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return as_text(content)
    blocks = [as_object(block) for block in as_list(content)]
    return as_text("\n".join(block["text"] for block in blocks if isinstance(block.get("text"), str)))


def _system(reading: Reading, fields: Mapping[str, Any]) -> None:
    match fields.get("subtype"):
        case "init":
            reading.session_id = as_name(fields.get("session_id")) or reading.session_id
            reading.model = as_name(fields.get("model")) or reading.model
        case "api_retry":
            status, code = as_count(fields.get("error_status")), as_name(fields.get("error"))
            reading.fail(ApiFailure("", status, code, retried=True))
        case "model_fallback":
            reading.model = as_name(fields.get("fallback_model")) or reading.model
        case "permission_denied" if len(reading.denials) < _MOST_DENIALS:
            reading.denials = (*reading.denials, as_name(fields.get("tool_name")) or "?")
        case "task_started" if fields.get("task_type") == "local_agent" and len(reading.background) < _MOST_AGENTS:
            reading.background.add(as_name(fields.get("task_id")))
            reading.at_once = max(reading.at_once, 1 + len(reading.background))
        case "task_notification":
            reading.background.discard(as_name(fields.get("task_id")))
        case "status":
            reading.asked = reading.asked or fields.get("status") == "requesting"
        case _:
            pass  # There are dozens, of tasks, hooks and compaction; none bears on the bill or the verdict.


def _limit(reading: Reading, fields: Mapping[str, Any]) -> None:
    info = as_object(fields.get("rate_limit_info"))
    reading.limit = RateLimit(
        as_name(info.get("status")), as_count(info.get("resetsAt")), as_name(info.get("rateLimitType"))
    )


def _result(reading: Reading, fields: Mapping[str, Any]) -> None:
    reading.session_id = as_name(fields.get("session_id")) or reading.session_id
    reading.result = Result(
        subtype=as_name(fields.get("subtype")),
        is_error=fields.get("is_error") is not False,  # Whoever leaves it out does not say that all is well.
        terminal_reason=as_name(fields.get("terminal_reason")),
        text=as_text(fields.get("result")),
        num_turns=as_count(fields.get("num_turns")),
        api_error_status=as_count(fields.get("api_error_status")),
        errors=tuple(as_text(error) for error in as_list(fields.get("errors"))[:_MOST_ERRORS]),
    )
    names = [as_name(as_object(denial).get("tool_name")) for denial in as_list(fields.get("permission_denials"))]
    reading.denials = tuple(name or "?" for name in names[:_MOST_DENIALS])
    totals = _by_model(fields.get("modelUsage"))
    if totals is not None:
        reading.reported = totals
    since = _by_model(fields.get("model_usage_since_last_result"))
    if since is None:
        reading.own = None
    elif reading.own is not None or not reading.results:
        reading.own = since if reading.own is None else reading.own.plus(since)
    reading.results += 1
    reading.settled = len(reading.messages)


def _by_model(usage: object) -> Reported | None:
    if not isinstance(usage, dict):
        return None
    models: dict[str, Spent] = {}
    for model, told in usage.items():
        row = as_object(told)
        tokens = Tokens(
            as_count(row.get("inputTokens")) or 0,
            as_count(row.get("outputTokens")) or 0,
            as_count(row.get("cacheReadInputTokens")) or 0,
            as_count(row.get("cacheCreationInputTokens")) or 0,
        )
        models[as_name(model)] = Spent(tokens, as_amount(row.get("costUSD")), row.get("costBasis") == "unknown")
    return Reported(models)


def _tokens(usage: object) -> Tokens:
    row = as_object(usage)
    return Tokens(
        as_count(row.get("input_tokens")) or 0,
        as_count(row.get("output_tokens")) or 0,
        as_count(row.get("cache_read_input_tokens")) or 0,
        as_count(row.get("cache_creation_input_tokens")) or 0,
    )
