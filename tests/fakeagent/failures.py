"""How calls fail, in the words of each client."""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """What a client prints after a call that failed."""

    status: int | None
    error: str
    kind: str  # The type of the error in the API's answer; empty without an answer.
    claude: str
    codex: str


SERVER_SIDE = "This is a server-side issue, usually temporary — try again in a moment."
WRONG_MODEL = (
    "There's an issue with the selected model ({model}). It may not exist or you may not have access to it. "
    "Run --model to pick a different model."
)
FAILURES = {
    "unauthorized": Failure(
        401,
        "authentication_failed",
        "authentication_error",
        "Invalid API key · Fix external API key",
        "unexpected status 401 Unauthorized: Incorrect API key provided., url: http://127.0.0.1:8000/v1/responses",
    ),
    "forbidden": Failure(
        403,
        "authentication_failed",
        "permission_error",
        "Failed to authenticate. API Error: 403 Your API key does not have permission to use the specified resource.",
        "unexpected status 403 Forbidden: Forbidden., url: http://127.0.0.1:8000/v1/responses",
    ),
    "not-logged-in": Failure(
        None, "authentication_failed", "", "Not logged in · Please run /login", "unexpected status 401 Unauthorized"
    ),
    "unknown-model": Failure(
        404, "model_not_found", "not_found_error", WRONG_MODEL, "The model `{model}` does not exist."
    ),
    "rate-limit": Failure(
        429,
        "rate_limit",
        "rate_limit_error",
        "API Error: Request rejected (429) · This request would exceed your organization's rate limit.",
        "exceeded retry limit, last status: 429 Too Many Requests",
    ),
    "server-error": Failure(
        500,
        "server_error",
        "api_error",
        f"API Error: 500 Internal server error. {SERVER_SIDE}",
        "We’re currently experiencing high demand, which may cause temporary errors.",
    ),
    "overloaded": Failure(
        529,
        "server_error",
        "overloaded_error",
        f"API Error: 529 Overloaded. {SERVER_SIDE}",
        "Selected model is at capacity. Please try a different model.",
    ),
    "no-credit": Failure(
        400,
        "billing_error",
        "invalid_request_error",
        "Credit balance is too low",
        "Quota exceeded. Check your plan and billing details.",
    ),
    "connection": Failure(
        None,
        "server_error",
        "",
        "API Error: Connection refused — a firewall or proxy may be blocking it (ECONNREFUSED)",
        "stream disconnected before completion: error sending request for url (http://127.0.0.1:8000/v1/responses)",
    ),
    "limit": Failure(
        429,
        "rate_limit",
        "rate_limit_error",
        "You've hit your 5-hour limit · resets {claude_time}",
        "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit "
        "https://chatgpt.com/settings/usage to purchase more credits or try again at {codex_time}.",
    ),
}
