"""How an attempt of an agent ended, told from its output, its exit code and what it wrote to stderr.

Success is an exit code of 0 (or a signal after the last word), and a result, and no error in it. What the failures are is
measured with Claude Code 2.1.332 and Codex 0.171 where golden transcripts show it; other texts are quoted in the public issues
of their repositories.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.agents.reading import ApiFailure, Reading
from parallel_agents.scheduler.agents.reset_times import believable, reset_us
from parallel_agents.scheduler.runners.protocol import Outcome

PROVIDERS = {client.output: client.provider for client in BUILT_IN.values() if client.streams}
"""Who answers a client that prints all that it does. One that is not here is its own provider, and tells little."""

_FINAL = frozenset(("authentication", "spend_cap", "configuration", "budget"))  # The same again would end the same way.
_OF_PROVIDERS = frozenset(("rate_limit", "usage_limit", "authentication", "spend_cap", "overload"))
_LONGEST_ERROR = 500  # Characters.
_LONGEST_TEXT = 50_000  # That words are looked for in.


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ended. ``error`` is None for a success; ``kind`` is one of ``FAILURES``, or empty for a success or a stop."""

    error: str | None
    kind: str = ""
    retryable: bool = True
    output: str | None = None
    provider: str = ""
    until_us: int | None = None  # The provider lets nobody work until then.
    got_through: bool = False
    resume_lost: bool = False  # The session that was to go on is not there: begin anew.


# In this order: the first that is found decides. Apostrophes are written ' and ’ by these clients.
_WORDS: Sequence[tuple[str, re.Pattern[str]]] = [
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        (
            "spend_cap",
            (
                r"credit balance is too low|billing_error|insufficient[_ ]quota|spend(?:ing)? limit|payment required"
                r"|out of credits|add funds|insufficient (?:funds|balance)|exceeded your current quota"
                r"|quota exceeded\. check your plan|billing hard limit"
            ),
        ),
        (
            "usage_limit",
            (
                r"usage limit (?:reached|has been reached)|usage_limit_reached|hit your (?:[\w-]+ ){0,3}limit"
                r"|reached your (?:[\w-]+ ){0,3}limit|out of (?:extra )?usage|weekly limit|5-hour limit"
            ),
        ),
        (
            "authentication",
            (
                r"invalid (?:x-)?api[ -]key|incorrect api key|please run /login|not logged in|failed to authenticate"
                r"|authentication[_ ](?:failed|error)|oauth token (?:has )?(?:expired|revoked)|oauth_org_not_allowed"
                r"|login expired|\b401\b|unauthorized|missing api key|no api key"
            ),
        ),
        ("overload", r"overloaded|\b529\b|at capacity|high demand|capacity is unavailable|no capacity"),
        ("rate_limit", r"rate[ _-]?limit|too many requests|\b429\b|tokens per min|quota exceeded"),
        (
            "configuration",
            (
                r"selected model .{0,200}may not exist|model .{0,120}(?:does not exist|not found)|model_not_found|\b404\b"
                r"|unknown option|unknown model|--agent '.{0,120}' not found|session id .{0,60} is already in use"
                r"|unexpected argument|invalid value|must be a valid uuid|command not found"
            ),
        ),
        ("authentication", r"\b403\b|forbidden|permission_error"),
        (
            "infrastructure",
            (
                r"\b5\d\d\b|connection (?:refused|reset|error|closed|failed)|econn\w+|etimedout|enotfound|eai_again|timed? ?out"
                r"|network|stream disconnected|socket hang up|fetch failed|server[ _]error|dns|error sending request"
            ),
        ),
    )
]
_CODES = {  # The clients' own words.
    "authentication_failed": "authentication",
    "oauth_org_not_allowed": "authentication",
    "account_on_hold": "authentication",
    "verification_required": "authentication",
    "cloud_credential_error": "authentication",
    "billing_error": "spend_cap",
    "rate_limit": "rate_limit",
    "overloaded": "overload",
    "server_error": "infrastructure",
    "model_not_found": "configuration",
    "max_output_tokens": "agent",
}
_TOO_LONG = re.compile(r"prompt is too long|context (?:window|length)|input is too long", re.IGNORECASE)
_RESUME_LOST = re.compile(
    r"no conversation found|no (?:saved )?session found|thread not found|no rollout found", re.IGNORECASE
)


def judge(
    reading: Reading,
    client: str,
    outcome: Outcome,
    exit_code: int | None,
    stderr_tail: str = "",
    now_us: int = 0,
    *,
    stopped_for_grace: bool = False,
    zone: tzinfo | None = None,
) -> Verdict:
    """How an attempt ended.

    Args:
        reading: what its output said, read to its end.
        client: what it prints, as its row says: ``claude``, ``codex``, or another name of ``PARSERS``.
        outcome: of its process. A stop by us stays one, whatever the output says.
        exit_code: negative for the signal that ended the process.
        stderr_tail: the end of what it wrote there.
        now_us: when it ended, microseconds since the epoch.
        stopped_for_grace: it was stopped only because it lived on after its result, which then counts.
        zone: of times in its messages that name none; None: that of this machine.
    """
    output = _output(reading)
    result = reading.result
    well = result is not None and not result.is_error
    if outcome in ("stopped", "timed_out") and not (stopped_for_grace and result is not None):
        error = "timed out" if outcome == "timed_out" else "stopped"
        kind = "agent" if outcome == "timed_out" else ""
        return Verdict(error, kind, output=output, got_through=reading.answered)
    if outcome in ("lost", "not_started"):
        kind = "infrastructure" if outcome == "lost" else "configuration"
        error = _line(stderr_tail) or ("its process is gone" if outcome == "lost" else "it could not be started")
        return Verdict(error, kind, retryable=outcome == "lost", output=output, got_through=reading.answered)
    # A signal that came after the last word does not undo the work; one that came while more was being done does.
    done = exit_code == 0 or stopped_for_grace or (_signal(exit_code) and reading.concluded)
    if well and done:
        return Verdict(None, output=output, got_through=reading.answered)
    if result is None and exit_code == 0 and client not in PROVIDERS and not _told_failure(reading):
        return Verdict(None, output=output, got_through=reading.answered)
    return _failed(reading, client, exit_code, stderr_tail, now_us, output, zone)


def _failed(
    reading: Reading,
    client: str,
    exit_code: int | None,
    stderr_tail: str,
    now_us: int,
    output: str | None,
    zone: tzinfo | None,
) -> Verdict:
    told = _messages(reading, client, stderr_tail)
    text = "\n".join(told)[:_LONGEST_TEXT]
    lost = _RESUME_LOST.search(text) is not None
    kind = "configuration" if lost else _kind(reading, client, text, exit_code)
    until_us = None
    if kind in ("usage_limit", "rate_limit", "spend_cap", "overload"):
        stated = reading.limit is not None and reading.limit.status == "rejected" and reading.limit.resets_at_s
        until_us = believable(stated * 1_000_000 if stated else None, now_us) or _first_reset_us(told, now_us, zone)
    return Verdict(
        error=_error(reading, told, exit_code),
        kind=kind,
        retryable=lost or kind not in _FINAL,
        output=output,
        provider=PROVIDERS.get(client, client) if kind in _OF_PROVIDERS else "",
        until_us=until_us,
        got_through=reading.answered,
        resume_lost=lost,
    )


def _kind(reading: Reading, client: str, text: str, exit_code: int | None) -> str:
    """Which of ``FAILURES`` it was."""
    result = reading.result
    subtype = result.subtype if result else ""
    if subtype == "error_max_budget_usd":
        return "budget"
    if subtype.startswith("error_max_"):
        return "agent"
    if result is not None and not result.is_error:  # All was well, but then something was not.
        return "infrastructure" if _signal(exit_code) else "agent"
    if result is not None and (result.terminal_reason.startswith("aborted") or subtype == "error_during_execution"):
        return "agent"
    if result is None and _signal(exit_code):
        return "infrastructure"  # Whatever it had complained of before.
    if _TOO_LONG.search(text):
        return "agent"
    failure = _told_failure(reading)
    status = (result.api_error_status if result else None) or (failure.status if failure else None)
    code = failure.code if failure else ""
    if reading.limit is not None and reading.limit.status == "rejected" and (status == 429 or code == "rate_limit"):
        return "spend_cap" if _found("spend_cap", text) else "usage_limit"
    by_words = next((kind for kind, words in _WORDS if words.search(text)), "")
    if by_words in ("spend_cap", "usage_limit"):  # Which say more than the 429 or 400 that they came with.
        return by_words
    return _kind_of_status(status) or _CODES.get(code) or by_words or _kind_of_nothing(reading, client, text, exit_code)


def _kind_of_status(status: int | None) -> str:
    match status:
        case None:
            return ""
        case 401 | 403:
            return "authentication"
        case 402:
            return "spend_cap"
        case 408:
            return "infrastructure"
        case 429:
            return "rate_limit"
        case 529:
            return "overload"
        case _ if status >= 500:
            return "infrastructure"
        case _ if status >= 400:
            return "configuration"
        case _:
            return ""


def _kind_of_nothing(reading: Reading, client: str, text: str, exit_code: int | None) -> str:
    """Where neither a status nor words tell."""
    if reading.result is not None:
        return "agent"
    if exit_code == 0:
        return "infrastructure"  # Gone without a word.
    if exit_code in (126, 127):
        return "configuration"  # A shell's words for a command that is not there.
    if client not in PROVIDERS:
        return "agent"  # All that such a client tells is that it failed.
    return "configuration" if reading.lines == 0 and text else "infrastructure"  # It complained and did not even begin.


def _found(kind: str, text: str) -> bool:
    return any(words.search(text) for name, words in _WORDS if name == kind)


def _signal(exit_code: int | None) -> int:
    """The signal that ended a process, be it told by the system or by a shell or a client; 0: none."""
    if exit_code is None:
        return 9  # Nobody could say any more.
    return -exit_code if exit_code < 0 else exit_code - 128 if 128 < exit_code < 160 else 0


def _told_failure(reading: Reading) -> ApiFailure | None:
    """The failure that it ended with: after one that was tried again, all went on."""
    return reading.failures[-1] if reading.failures and not reading.failures[-1].retried else None


def _messages(reading: Reading, client: str, stderr_tail: str) -> list[str]:
    """What was said about the failure, the most telling first. What an agent says of its work is none of it."""
    result = reading.result
    told: list[str] = []
    if result is not None and result.is_error:
        told += result.errors
        if result.text and client == "claude":
            told.append(result.text)
    told += [failure.text for failure in reversed(reading.failures) if failure.text]
    if result is None:
        told.append(stderr_tail)
        if client not in PROVIDERS and not stderr_tail.strip():
            told.append(reading.last_text)  # Where there is but one stream, its end is all there is to go by.
    return [text for text in told if text.strip()]


def _first_reset_us(told: Sequence[str], now_us: int, zone: tzinfo | None) -> int | None:
    return next((at for text in told if (at := reset_us(text, now_us, zone)) is not None), None)


def _error(reading: Reading, told: Sequence[str], exit_code: int | None) -> str:
    """One line for a person."""
    result = reading.result
    if result is not None and result.subtype in _SUBTYPES:
        return _SUBTYPES[result.subtype]
    if result is not None and result.terminal_reason.startswith("aborted"):
        return "it was interrupted"
    if told and (line := _line(told[0])):
        return line
    signal = _signal(exit_code)
    if exit_code is None:
        return "its end was not seen"
    if signal:
        return f"killed by signal {signal}"
    ending = "without a result" if result is None else "with an error" if result.is_error else "after its result"
    return f"ended {ending}, with exit code {exit_code}"


_SUBTYPES = {
    "error_max_turns": "it reached its limit of turns",
    "error_max_budget_usd": "it reached its limit of dollars",
}


def _line(text: str) -> str:
    """The last line of a text that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][:_LONGEST_ERROR] if lines else ""
    return last if last.isprintable() else "".join(char if char.isprintable() else " " for char in last).strip()


def _output(reading: Reading) -> str | None:
    """What the agent leaves as its word: its result, or the last thing that it said."""
    result = reading.result
    return (result.text if result and not result.is_error else "").strip() or reading.last_text.strip() or None
