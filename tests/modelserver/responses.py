"""The Responses API: what a request asks, and the events of an answer."""

from __future__ import annotations

import json
import time
from typing import Any

from modelserver.script import REFUSALS, Reply

Event = tuple[str, dict[str, Any]]

KINDS = {
    "unauthorized": ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "unknown_model": ("invalid_request_error", "model_not_found", "The model `{model}` does not exist."),
    "rate_limit": ("requests", "rate_limit_exceeded", "Rate limit reached for {model}. Please try again in 1.5s."),
    "usage_limit": ("usage_limit_reached", None, "The usage limit has been reached"),
    "server_error": ("server_error", "server_error", "The server had an error while processing your request."),
    "overloaded": ("server_error", "server_is_overloaded", "Our servers are currently overloaded."),
    "no_credit": (
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan.",
    ),
    "forbidden": ("invalid_request_error", "unsupported_country_region_territory", "Forbidden."),
}
STATUS = {"overloaded": 503, "no_credit": 429}  # Others as in the Messages API.


def words_of(request: dict[str, Any]) -> str:
    """All that was asked in a request: its instructions and the messages of the user."""
    parts = [str(request.get("instructions", ""))]
    for item in request.get("input", ()):
        if item.get("type", "message") == "message" and item.get("role") == "user":
            parts += [block.get("text", "") for block in item.get("content", ()) if isinstance(block, dict)]
    return "\n".join(parts)


def turns_of(request: dict[str, Any]) -> int:
    """How many tools the model has asked for since a person last spoke."""
    turns = 0
    for item in request.get("input", ()):
        if item.get("type") in ("function_call", "custom_tool_call", "local_shell_call"):
            turns += 1
        elif item.get("type", "message") == "message" and item.get("role") == "user":
            turns = 0
    return turns


def answer(reply: Reply, response_id: str, model: str) -> list[Event]:
    """The events of a streamed answer."""
    response = {"id": response_id, "object": "response", "model": model, "status": "in_progress", "output": []}
    events: list[Event] = [("response.created", {"response": response})]
    items = items_of(reply, response_id)
    for index, item in enumerate(items):
        events.append(("response.output_item.added", {"output_index": index, "item": item | {"status": "in_progress"}}))
        if item["type"] == "message":
            at = {"item_id": item["id"], "output_index": index, "content_index": 0}
            events.append(("response.output_text.delta", at | {"delta": reply.text}))
        events.append(("response.output_item.done", {"output_index": index, "item": item}))
    done = response | {"status": "completed", "output": items, "usage": usage_of(reply)}
    events.append(("response.completed", {"response": done}))
    return events


def items_of(reply: Reply, response_id: str) -> list[dict[str, Any]]:
    """The items of an answer: its text, then its tools."""
    items: list[dict[str, Any]] = []
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        items.append({"type": "message", "id": f"{response_id}m", "role": "assistant", "content": content})
    for number, tool in enumerate(reply.tools):
        ids = {"id": f"{response_id}f{number}", "call_id": f"call_{response_id}{number}", "name": tool.name}
        if isinstance(tool.input, str):
            items.append({"type": "custom_tool_call", **ids, "input": tool.input})
        else:
            items.append({"type": "function_call", **ids, "arguments": json.dumps(tool.input)})
    return [item | {"status": "completed"} for item in items]


def usage_of(reply: Reply) -> dict[str, Any]:
    """Tokens as the API names them. Its input includes what came from the cache."""
    usage = reply.usage
    whole = usage.input + usage.cache_read
    return {
        "input_tokens": whole,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": whole + usage.output,
    }


def refusal_of(reply: Reply, model: str, request_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a refusal."""
    kind, code, message = KINDS[reply.refusal]
    error: dict[str, Any] = {"type": kind, "code": code, "message": message.format(model=model), "param": None}
    if reply.refusal == "usage_limit":
        in_s = max(0, reply.reset_at_s - int(time.time()))
        error |= {"plan_type": "plus", "resets_at": reply.reset_at_s, "resets_in_seconds": in_s}
    return STATUS.get(reply.refusal, REFUSALS[reply.refusal][0]), {"error": error}


def error_event() -> Event:
    """An error in mid-stream."""
    error = {"code": "server_is_overloaded", "message": "Our servers are currently overloaded."}
    return "response.failed", {"response": {"id": "resp_failed", "status": "failed", "error": error}}
