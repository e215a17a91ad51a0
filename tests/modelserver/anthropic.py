"""The Messages API: what a request asks, and the events of an answer."""

from __future__ import annotations

import json
from typing import Any

from modelserver.script import REFUSALS, Reply, Usage

Event = tuple[str, dict[str, Any]]


def words_of(request: dict[str, Any]) -> str:
    """All that was asked in a request: its system prompt and the messages of the user."""
    parts = [_text(request.get("system"))]
    parts += [_text(m.get("content")) for m in request.get("messages", ()) if m.get("role") == "user"]
    return "\n".join(parts)


def turns_of(request: dict[str, Any]) -> int:
    """How often the model has spoken since a person last did."""
    turns = 0
    for message in request.get("messages", ()):
        if message.get("role") == "assistant":
            turns += 1
        elif not _answers_tools(message):
            turns = 0
    return turns


def answer(reply: Reply, message_id: str, model: str) -> list[Event]:
    """The events of a streamed answer."""
    usage = reply.usage
    start: dict[str, Any] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of(usage) | {"output_tokens": 1},
    }
    events: list[Event] = [("message_start", {"message": start})]
    blocks = content_of(reply, message_id)
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = (
                block | {"input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        events.append(("content_block_start", {"index": index, "content_block": empty}))
        events.append(("content_block_delta", {"index": index, "delta": delta}))
        events.append(("content_block_stop", {"index": index}))
    delta = {"stop_reason": "tool_use" if reply.tools else "end_turn", "stop_sequence": None}
    events.append(("message_delta", {"delta": delta, "usage": {"output_tokens": usage.output}}))
    events.append(("message_stop", {}))
    return events


def content_of(reply: Reply, message_id: str) -> list[dict[str, Any]]:
    """The blocks of an answer: its text, then its tools."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for number, tool in enumerate(reply.tools):
        tool_id = f"toolu_{message_id.removeprefix('msg_')}{number}"
        blocks.append({"type": "tool_use", "id": tool_id, "name": tool.name, "input": tool.input})
    return blocks


def whole(reply: Reply, message_id: str, model: str) -> dict[str, Any]:
    """An answer that is not streamed: the client asks for one after a stream that broke."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content_of(reply, message_id),
        "stop_reason": "tool_use" if reply.tools else "end_turn",
        "stop_sequence": None,
        "usage": usage_of(reply.usage),
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens as the API names them."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }


def refusal_of(reply: Reply, model: str, request_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a refusal."""
    status, kind, message = REFUSALS[reply.refusal]
    error = {"type": kind, "message": message.format(model=model)}
    return status, {"type": "error", "error": error, "request_id": request_id}


def error_event() -> Event:
    """An error in mid-stream."""
    return "error", {"error": {"type": "overloaded_error", "message": "Overloaded"}}


def _answers_tools(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        block.get("text", "") for block in content if isinstance(block, dict) and block.get("type") == "text"
    )
