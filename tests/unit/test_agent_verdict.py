"""How an attempt of an agent ended: success, the kinds of failure, and until when a provider lets nobody work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.scheduler.agents.reading import ApiFailure, RateLimit, Reading, Result, Tokens
from parallel_agents.scheduler.agents.reset_times import reset_us
from parallel_agents.scheduler.agents.verdict import judge
from parallel_agents.scheduler.runners.protocol import FAILURES

NOW = datetime(2026, 11, 26, 11, 30, tzinfo=UTC)


def us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return int(moment.timestamp()) * 1_000_000


def good(text: str = "I did it.") -> Reading:
    """Of an agent that succeeded."""
    return Reading(result=Result("success", text=text), results=1, answered=True, lines=3)


def refused(text: str, status: int | None = None, code: str = "", **more: Any) -> Reading:
    """Of a claude whose provider refused."""
    result = Result("success", True, "api_error", text, api_error_status=status)
    return Reading(result=result, results=1, failures=[ApiFailure(text, status, code)], lines=3, **more)


def failed_codex(text: str) -> Reading:
    """Of a codex whose turn failed."""
    result = Result("turn.failed", True, errors=(text,))
    return Reading(result=result, results=1, failures=[ApiFailure(text)], lines=3, session_id="t")


def test_success_is_an_exit_code_of_0_and_a_result_and_no_error_in_it() -> None:
    """All three."""
    verdict = judge(good(), "claude", "exited", 0)
    assert (verdict.error, verdict.kind, verdict.output, verdict.got_through) == (None, "", "I did it.", True)
    assert judge(good(), "claude", "exited", 1).error == "ended after its result, with exit code 1"
    assert judge(Reading(), "claude", "exited", 0).kind == "infrastructure"
    assert judge(Reading(result=Result("success", is_error=True)), "claude", "exited", 0).kind == "agent"


def test_a_result_counts_where_only_its_grace_was_over() -> None:
    """We stopped the process since it lived on; any other stop stays one."""
    assert judge(good(), "claude", "stopped", 143, stopped_for_grace=True).error is None
    assert judge(good(), "claude", "stopped", 143).error == "stopped"
    assert judge(good(), "claude", "timed_out", 143).error == "timed out"
    assert judge(Reading(), "claude", "stopped", 143, stopped_for_grace=True).error == "stopped"
    assert judge(refused("Overloaded", 529), "claude", "stopped", 143, stopped_for_grace=True).kind == "overload"


def test_a_lost_process_and_one_that_never_was_are_told_apart() -> None:
    """Only the first is worth another try."""
    assert judge(Reading(), "claude", "lost", None).kind == "infrastructure"
    verdict = judge(Reading(), "claude", "not_started", None, "claude: command not found")
    assert (verdict.kind, verdict.retryable, verdict.error) == (
        "configuration",
        False,
        "claude: command not found",
    )


@pytest.mark.parametrize("exit_code", [-9, -15, 137, 143, 129])
def test_a_process_that_somebody_killed_is_no_fault_of_the_agent(exit_code: int) -> None:
    """But what it had finished before that stays finished."""
    assert judge(Reading(session_id="s", lines=3), "claude", "exited", exit_code, "401").kind == "infrastructure"
    reading = good()
    assert judge(reading, "claude", "exited", exit_code).error is None
    reading.count("more", "m", Tokens(1, 1))
    assert judge(reading, "claude", "exited", exit_code).kind == "infrastructure"


@pytest.mark.parametrize(
    ("text", "status", "code", "kind"),
    [
        ("Invalid API key · Fix external API key", 401, "authentication_failed", "authentication"),
        ("Invalid API key · Please run /login", None, "", "authentication"),
        ("Not logged in · Please run /login", None, "authentication_failed", "authentication"),
        ("OAuth token revoked · Please run /login", 401, "", "authentication"),
        ("API Error: 403 no permission", 403, "authentication_failed", "authentication"),
        ("Credit balance is too low", 400, "invalid_request", "spend_cap"),
        ("You've hit your monthly spend limit · resets Dec 1", 429, "rate_limit", "spend_cap"),
        ("API Error: 402 Payment Required", 402, "", "spend_cap"),
        ("API Error: Request rejected (429)", 429, "rate_limit", "rate_limit"),
        ("Claude AI usage limit reached|1795700000", 429, "rate_limit", "usage_limit"),
        ("You've hit your limit · resets 3pm (UTC)", 429, "rate_limit", "usage_limit"),
        ("You’ve hit your Opus weekly limit · resets 3pm", None, "", "usage_limit"),
        ("API Error: 529 Overloaded.", 529, "overloaded", "overload"),
        ("API Error: 500 Internal server error.", 500, "server_error", "infrastructure"),
        ("API Error: Connection refused (ECONNREFUSED)", None, "server_error", "infrastructure"),
        ("Request timed out.", None, "", "infrastructure"),
        ("There's an issue with the selected model (x). It may not exist", 404, "", "configuration"),
        ("API Error: 400 tools.0: bad schema", 400, "invalid_request", "configuration"),
        ("Prompt is too long", 400, "invalid_request", "agent"),
    ],
)
def test_what_claude_says_is_told_apart(text: str, status: int | None, code: str, kind: str) -> None:
    """By status, by its own word for it, and by the text."""
    verdict = judge(refused(text, status, code), "claude", "exited", 1, "", us(NOW))
    assert (verdict.kind, verdict.error) == (kind, text)
    assert verdict.retryable == (kind not in ("authentication", "spend_cap", "configuration"))
    assert verdict.provider == ("" if kind in ("infrastructure", "configuration", "agent") else "anthropic")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("You've hit your usage limit. Upgrade to Pro or try again in 3 days 4 hours.", "usage_limit"),
        (
            "stream disconnected before completion: Rate limit reached for gpt-5. Please try again in 1.5s.",
            "rate_limit",
        ),
        ("exceeded retry limit, last status: 429 Too Many Requests, request id: 1", "rate_limit"),
        ("Quota exceeded. Check your plan and billing details.", "spend_cap"),
        ("You exceeded your current quota, please check your plan", "spend_cap"),
        ("unexpected status 401 Unauthorized: Incorrect API key provided.", "authentication"),
        ("unexpected status 403 Forbidden: no", "authentication"),
        ("Selected model is at capacity. Please try a different model.", "overload"),
        ("We’re currently experiencing high demand, which may cause temporary errors.", "overload"),
        ("unexpected status 502 Bad Gateway", "infrastructure"),
        ("stream disconnected before completion: error sending request for url", "infrastructure"),
        ("The model `x` does not exist.", "configuration"),
        ("Your input exceeds the context window of this model.", "agent"),
        ("something nobody has heard of", "agent"),
    ],
)
def test_what_codex_says_is_told_apart(text: str, kind: str) -> None:
    """It tells texts only."""
    verdict = judge(failed_codex(text), "codex", "exited", 1, "", us(NOW))
    assert (verdict.kind, verdict.error) == (kind, text)


@pytest.mark.parametrize(
    ("subtype", "kind", "error"),
    [
        ("error_max_turns", "agent", "it reached its limit of turns"),
        ("error_max_budget_usd", "budget", "it reached its limit of dollars"),
        ("error_during_execution", "agent", "boom"),
        ("error_max_structured_output_retries", "agent", "boom"),
    ],
)
def test_what_the_agent_itself_did_not_manage_is_its_own(subtype: str, kind: str, error: str) -> None:
    """Even where an error that it had met and passed stands before it."""
    reading = Reading(result=Result(subtype, True, errors=("boom",)), results=1, lines=3)
    reading.fail(ApiFailure("", 529, "overloaded", retried=True))
    verdict = judge(reading, "claude", "exited", 1)
    assert (verdict.kind, verdict.error, verdict.retryable) == (kind, error, kind == "agent")


def test_what_the_agent_says_of_its_work_is_no_message_of_a_provider() -> None:
    """An agent that mends a rate limit talks of nothing else."""
    reading = Reading(
        result=Result("error_max_turns", True), last_text="Now 429 and usage limit reached work.", results=1
    )
    assert judge(reading, "claude", "exited", 1).kind == "agent"


def test_a_session_that_is_not_there_is_begun_anew() -> None:
    """Told by a mark of its own."""
    lost = Result("error_during_execution", True, errors=("No conversation found with session ID: x",))
    verdict = judge(Reading(result=lost, results=1), "claude", "exited", 1)
    assert (verdict.resume_lost, verdict.retryable, verdict.kind) == (True, True, "configuration")
    assert judge(Reading(), "claude", "exited", 1, "No conversation found with session ID: x").resume_lost


@pytest.mark.parametrize(
    "stderr",
    [
        "error: unknown option '--nonsense'",
        "--agent 'nobody' not found. Available agents: claude",
        "Error: Session ID 1234 is already in use.",
        "anything else, before a first line of output",
    ],
)
def test_a_client_that_does_not_even_begin_is_configured_wrongly(stderr: str) -> None:
    """It says why on stderr, with the last line the telling one."""
    verdict = judge(Reading(), "claude", "exited", 1, f"warning\n{stderr}\n")
    assert (verdict.kind, verdict.retryable, verdict.error) == ("configuration", False, stderr)


def test_a_stated_moment_is_believed_before_words() -> None:
    """The line about the allowance tells it to the second."""
    limit = RateLimit("rejected", 1_795_696_680, "five_hour")
    reading = refused("You've hit your limit · resets 3pm (UTC)", 429, "rate_limit", limit=limit)
    assert judge(reading, "claude", "exited", 1, "", us(NOW)).until_us == 1_795_696_680_000_000
    reading.limit = RateLimit("rejected", 2**52)  # Nobody waits so long.
    assert judge(reading, "claude", "exited", 1, "", us(NOW)).until_us == us(NOW.replace(hour=15, minute=0))
    reading.limit = RateLimit("allowed", 1_795_696_680)
    assert judge(reading, "claude", "exited", 1, "", us(NOW)).until_us == us(NOW.replace(hour=15, minute=0))


def test_another_client_is_judged_by_its_exit_code() -> None:
    """And by what it wrote to stderr, or else at the end of its output."""
    assert judge(Reading(last_text="Done.", lines=1), "aider", "exited", 0).error is None
    verdict = judge(Reading(lines=1), "aider", "exited", 1, "litellm.RateLimitError: 429")
    assert (verdict.kind, verdict.provider) == ("rate_limit", "aider")
    assert judge(Reading(lines=1, asked=True, last_text="I give up."), "aider", "exited", 1).kind == "agent"
    assert judge(Reading(), "aider", "exited", 1, "it did not work").kind == "agent"
    assert judge(Reading(), "aider", "exited", 127, "sh: aider: not there").kind == "configuration"


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Claude AI usage limit reached|1795700000", datetime.fromtimestamp(1_795_700_000, UTC)),
        ("usage limit reached|1795700000000", datetime.fromtimestamp(1_795_700_000, UTC)),
        ('{"type":"usage_limit_reached","resets_at":1795700000}', datetime.fromtimestamp(1_795_700_000, UTC)),
        ('"resets_in_seconds": 13872,', NOW + timedelta(seconds=13_872)),
        ("429 (retry-after: 30)", NOW + timedelta(seconds=30)),
        ("You've hit your limit · resets 3pm (UTC)", NOW.replace(hour=15, minute=0)),
        ("You've hit your 5-hour limit · resets 1:30am (Asia/Dhaka)", NOW.replace(hour=19)),
        ("hit your limit - resets Feb 7, 11am (Asia/Seoul)/login", datetime(2027, 2, 7, 2, tzinfo=UTC)),
        ("hit your limit · resets May 5 at 9pm (America/New_York)", datetime(2027, 5, 6, 1, tzinfo=UTC)),
        ("limit · resets Jan 5, 2027, 5:09pm (Asia/Kolkata)", datetime(2027, 1, 5, 11, 39, tzinfo=UTC)),
        ("Your limit will reset at 5pm (Europe/Warsaw).", NOW.replace(hour=16, minute=0)),
        ("or try again at 12:38 PM.", NOW.replace(minute=38)),
        ("or try again at 11:00 AM.", NOW.replace(hour=10, minute=0) + timedelta(days=1)),
        ("try again at Nov 29th, 2026 6:39 AM.", datetime(2026, 11, 29, 5, 39, tzinfo=UTC)),
        ("try again at 14:00", NOW.replace(hour=13, minute=0)),
        ("try again in 4 days 20 hours 9 minutes.", NOW + timedelta(days=4, hours=20, minutes=9)),
        ("Please try again in 1.574s. Visit", NOW + timedelta(seconds=1.574)),
        ("Please try again in 28ms.", NOW + timedelta(milliseconds=28)),
        ("spend limit reached · resets Dec 1", datetime(2026, 11, 30, 23, tzinfo=UTC)),
        ("hit your limit · resets 12:29pm (Mars/Phobos)", NOW - timedelta(minutes=1)),
        ("hit your limit · resets 12am (UTC)", datetime(2026, 11, 27, tzinfo=UTC)),
    ],
)
def test_a_reset_said_in_words_is_a_moment(text: str, moment: datetime) -> None:
    """In the zone that it names, else in that of the machine; a moment just passed is no time of tomorrow."""
    found = reset_us(text, us(NOW), BERLIN)
    assert found is not None
    assert datetime.fromtimestamp(found / 1_000_000, UTC) == moment


@pytest.fixture
def machine_in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its clock, as far as Python is told."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_in_new_york")
def test_a_time_without_a_zone_is_told_by_the_clock_of_this_machine() -> None:
    """By the rules of that day: in March its clocks have changed."""
    for text, moment in (
        ("try again at 12:38 PM.", NOW.replace(hour=17, minute=38)),
        ("try again at Mar 29th, 2027 6:39 AM.", datetime(2027, 3, 29, 10, 39, tzinfo=UTC)),
        ("try again at Jan 29th, 2027 6:39 AM.", datetime(2027, 1, 29, 11, 39, tzinfo=UTC)),
    ):
        assert reset_us(text, us(NOW)) == us(moment)


@pytest.mark.parametrize(
    "text",
    [
        *("Please try again later.", "try again in a moment", "resets soon", "resets 25:00", "resets 13pm (UTC)"),
        *(
            "resets Feb 31, 3pm (UTC)",
            "usage limit reached|9999999999999",
            "try again in 9000 days",
            "",
            "resets at 99",
        ),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    """Neither is one further off than a year."""
    assert reset_us(text, us(NOW), BERLIN) is None


@given(
    st.integers(us(datetime(2024, 1, 1, tzinfo=UTC)), us(datetime(2034, 1, 1, tzinfo=UTC))),
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland"]),
)
def test_a_time_of_day_is_the_next_such_moment(now_us: int, hour: int, minute: int, zone: str) -> None:
    """At most a day off, or an hour more where clocks change; and it is that time there."""
    half = "am" if hour < 12 else "pm"
    found = reset_us(f"resets {hour % 12 or 12}:{minute:02}{half} ({zone})", now_us)
    assert found is not None
    assert -300_000_000 <= found - now_us <= 25 * 3_600_000_000
    there = datetime.fromtimestamp(found / 1_000_000, ZoneInfo(zone))
    assert there.minute == minute
    assert there.hour == hour or there.utcoffset() != (there - timedelta(hours=3)).utcoffset()


@given(
    st.text(max_size=80) | st.from_regex(r"(resets|again) (at|in)? ?[A-Za-z]{0,4} ?\d{0,4}[:.,]?\d{0,3} ?(am|pm|d|h)?")
)
def test_no_text_stops_the_search_for_a_moment(text: str) -> None:
    """Providers write what they like."""
    found = reset_us(text, us(NOW), UTC)
    assert found is None or found - us(NOW) <= 366 * 86_400_000_000


def test_every_kind_that_is_told_is_a_kind_of_failure() -> None:
    """That the events know."""
    texts = ("Overloaded", "429", "401", "usage limit reached", "insufficient_quota", "no such thing", "ECONNRESET")
    kinds = [judge(failed_codex(text), "codex", "exited", 1).kind for text in texts]
    assert kinds == ["overload", "rate_limit", "authentication", "usage_limit", "spend_cap", "agent", "infrastructure"]
    assert set(kinds) <= set(FAILURES)
