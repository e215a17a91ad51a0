"""What a scripted model says: replies, refusals, and the rules that say which request gets which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

Refusal = str  # A key of REFUSALS.

REFUSALS: dict[str, tuple[int, str, str]] = {
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "forbidden": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
    "unknown_model": (404, "not_found_error", "model: {model}"),
    "rate_limit": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "usage_limit": (
        429,
        "rate_limit_error",
        "This request would exceed your account's rate limit. Please try again later.",
    ),
    "server_error": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "no_credit": (
        400,
        "invalid_request_error",
        (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits."
        ),
    ),
}
"""What a server can refuse with: status, kind of error and message, in the words of the Messages API."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. ``input`` are those from no cache, as the Messages API counts them."""

    input: int = 1000
    output: int = 100
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model asks its client to use. A string as input is a free-form tool of the Responses API."""

    name: str
    input: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model, and what goes wrong with it."""

    text: str = ""
    tools: tuple[Tool, ...] = ()
    usage: Usage = field(default_factory=Usage)
    wait_s: float = 0.0  # Before its first byte.
    refusal: Refusal = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # More of them, with a refusal.
    reset_at_s: int = 0  # Of a usage limit, seconds since the epoch ...
    reset_in_s: int | None = None  # ... or so many after it refuses.
    cut_after: int | None = None  # The connection ends after so many events ...
    hang_after: int | None = None  # ... or nothing more comes, for as long as the client stays.
    garbage: bytes = b""  # Instead of events.
    error_after: int | None = None  # After so many events comes one that says "overloaded".


def write(path: str, content: str) -> Tool:
    """Claude's tool that makes a file."""
    return Tool("Write", {"file_path": path, "content": content})


def bash(command: str) -> Tool:
    """Claude's tool that runs a command."""
    return Tool("Bash", {"command": command, "description": "a step of the script"})


def refuse(
    refusal: Refusal, *, retry_after_s: int | None = None, reset_at_s: int = 0, reset_in_s: int | None = None
) -> Reply:
    """An answer that is none, with the headers that its kind has.

    Args:
        reset_at_s: when a usage limit ends, in seconds since the epoch.
        reset_in_s: or how long after the refusal, however late somebody comes to be refused.
    """
    assert refusal in REFUSALS, refusal
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    if refusal == "usage_limit":
        headers |= _limit_headers(reset_at_s)
    return Reply(refusal=refusal, headers=headers, reset_at_s=reset_at_s, reset_in_s=reset_in_s)


def stated(reply: Reply, now_s: float) -> Reply:
    """What it says at a moment, in seconds since the epoch: then it is known when its limit ends."""
    if reply.reset_in_s is None:
        return reply
    reset_at_s = ceil(now_s) + reply.reset_in_s
    headers = {**reply.headers, **_limit_headers(reset_at_s)}
    return replace(reply, headers=headers, reset_at_s=reset_at_s, reset_in_s=None)


def _limit_headers(reset_at_s: int) -> dict[str, str]:
    prefix = "anthropic-ratelimit-unified-"
    return {
        f"{prefix}status": "rejected",
        f"{prefix}reset": str(reset_at_s),
        f"{prefix}representative-claim": "five_hour",
        f"{prefix}5h-status": "rejected",
        f"{prefix}5h-reset": str(reset_at_s),
        f"{prefix}5h-utilization": "1.0",
        f"{prefix}overage-status": "rejected",
        f"{prefix}overage-disabled-reason": "org_level_disabled",
    }


@dataclass(slots=True)
class Rule:
    """Which requests get which replies.

    A request belongs to the first rule whose word stands in what a person (or the main agent) asked in it, or in its
    system prompt. By order: the n-th request of the rule gets the n-th reply. By turn: the reply is chosen by how often
    the model has spoken in the conversation that the request carries, so that it does not matter how many clients share
    the rule, or how often one is killed and resumed.
    """

    word: str
    replies: tuple[Reply, ...]
    by_turn: bool = False
    taken: int = 0
