"""The parts of claude's lines that say little, and what calls cost."""

from __future__ import annotations

import os
import time
from typing import Any

from fakeagent.steps import uuid

PRICES = {  # Dollars for a million tokens: input, output. From a cache a tenth of input, into one a quarter more.
    "claude-opus-5-5": (4.0, 20.0),
    "claude-sonnet-5-5": (2.0, 10.0),
    "claude-haiku-5-5": (0.1, 0.5),
    "claude-sonnet-4-5": (3.0, 15.0),
    "claude-haiku-4-5": (1.0, 5.0),
}
GUESSED_PRICE = (4.0, 20.0)  # Of a model that nobody knows.
KINDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
NO_AGENTS = {
    "spawned": 0,
    "requested": {"background": 0, "foreground": 0, "unset": 0},
    "started_in_background": 0,
    "max_depth": 0,
    "spawned_by_subagents": 0,
    "completed": 0,
    "failed": 0,
    "killed": {"parent": 0, "user": 0, "system": 0},
    "refused": {"depth_limit": 0, "concurrency_limit": 0, "budget": 0},
    "by_type": {},
}


def cost_of(model: str, tokens: list[int]) -> float:
    """Dollars."""
    fresh, written = PRICES.get(model, GUESSED_PRICE)
    return (tokens[0] * fresh + tokens[1] * written + tokens[2] * fresh * 0.1 + tokens[3] * fresh * 1.25) / 1e6


def usage_of(tokens: list[int]) -> dict[str, Any]:
    """Tokens as the API names them, with what the client adds."""
    return {
        **dict(zip(KINDS, tokens, strict=True)),
        "output_tokens_details": {"thinking_tokens": 0},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "service_tier": "standard",
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
        "inference_geo": "",
        "iterations": [],
        "speed": "standard",
        "fallback_credit": None,
    }


def synthetic_usage() -> dict[str, Any]:
    """Of a message that no model has written."""
    nulls = ("output_tokens_details", "service_tier", "inference_geo", "iterations", "speed", "fallback_credit")
    return usage_of([0, 0, 0, 0]) | dict.fromkeys(nulls)


def model_usage(model: str, tokens: list[int]) -> dict[str, Any]:
    """Tokens and cost of one model."""
    return {
        "inputTokens": tokens[0],
        "outputTokens": tokens[1],
        "cacheReadInputTokens": tokens[2],
        "cacheCreationInputTokens": tokens[3],
        "webSearchRequests": 0,
        "costUSD": cost_of(model, tokens),
        "contextWindow": 200000,
        "maxOutputTokens": 32000,
        "thinkingTokens": 0,
        "cacheCreationEphemeral5mInputTokens": 0,
        "cacheCreationEphemeral1hInputTokens": 0,
        "canonicalModel": model,
        "provider": "firstParty",
        "costBasis": "list" if model in PRICES else "unknown",
    }


def init_line(session_id: str, model: str, mode: str) -> dict[str, Any]:
    """The first line for every prompt."""
    no_lists = ("mcp_servers", "slash_commands", "terminal_slash_commands", "skills", "plugins", "capabilities")
    no_truths = ("served_by_anthropic", "sandbox_enabled", "per_turn_effort_active", "ultrathink_available")
    return {
        "type": "system",
        "subtype": "init",
        "cwd": os.getcwd(),
        "session_id": session_id,
        "tools": ["Task", "Bash", "Edit", "Read", "Write"],
        "model": model,
        "permissionMode": mode,
        "apiKeySource": "ANTHROPIC_API_KEY" if os.environ.get("ANTHROPIC_API_KEY") else "none",
        "claude_code_version": "2.1.332",
        "output_style": "default",
        "agents": ["claude", "general-purpose"],
        "analytics_disabled": True,
        "product_feedback_disabled": True,
        "uuid": uuid(),
        "memory_paths": {"auto": ""},
        "original_cwd": os.getcwd(),
        "additional_directories": [],
        "fast_mode_state": "off",
        "fast_mode_disabled_reason": "sdk_opt_in_required",
        "ultrathink_typed_raises": False,
        "view_mode": "default",
        **{name: [] for name in no_lists},
        **dict.fromkeys(no_truths, False),
    }


def no_session_line(session_id: str, sentence: str) -> dict[str, Any]:
    """The result where there is no such session to go on with."""
    return {
        "type": "result",
        "subtype": "error_during_execution",
        "duration_ms": 0,
        "duration_api_ms": 0,
        "is_error": True,
        "num_turns": 0,
        "stop_reason": None,
        "session_id": session_id,
        "total_cost_usd": 0,
        "usage": usage_of([0, 0, 0, 0]),
        "modelUsage": {},
        "permission_denials": [],
        "uuid": uuid(),
        "errors": [sentence],
        "result_index": 0,
    }


def now() -> str:
    """The time, as lines tell it."""
    at_s = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s * 1000) % 1000:03d}Z"


def clock(at_s: float) -> str:
    """A time of day as a usage limit tells it: ``12:38pm (UTC)``."""
    at = time.gmtime(at_s)
    return f"{at.tm_hour % 12 or 12}:{at.tm_min:02d}{'pm' if at.tm_hour >= 12 else 'am'} (UTC)"
