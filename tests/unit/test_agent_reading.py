"""What agents print, read line by line: each message counted once, and nothing that a line holds stops the reading."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.scheduler.agents.bill import charges
from parallel_agents.scheduler.agents.reading import LONGEST_TEXT, Reading, Reported, Spent, Tokens
from parallel_agents.scheduler.agents.text_output import PARSERS
from parallel_agents.scheduler.agents.verdict import judge


def read(client: str, *lines: Any) -> Reading:
    """The reading of lines, given as objects or as bytes."""
    reading = Reading()
    for line in lines:
        PARSERS[client].feed(reading, line if isinstance(line, bytes) else json.dumps(line).encode())
    return reading


def usage(given: int, made: int, **more: int) -> dict[str, int]:
    """Of a message of the API."""
    return {"input_tokens": given, "output_tokens": made, **more}


def assistant(message_id: str, text: str = "", *, tokens: Any = None, **more: Any) -> dict[str, Any]:
    """An assistant line of claude's."""
    content = [{"type": "text", "text": text}]
    return {
        "type": "assistant",
        "message": {"id": message_id, "model": "m", "content": content, "usage": tokens or usage(10, 1)},
        **more,
    }


def begun(message_id: str, tokens: Any, speaker: str | None = None) -> dict[str, Any]:
    """The first event of a streamed message."""
    message = {"id": message_id, "model": "m", "usage": tokens}
    return {
        "type": "stream_event",
        "event": {"type": "message_start", "message": message},
        "parent_tool_use_id": speaker,
    }


def ended(tokens: Any, speaker: str | None = None, **more: Any) -> dict[str, Any]:
    """The event that tells its final usage."""
    event = {"type": "message_delta", "usage": tokens}
    return {"type": "stream_event", "event": event, "parent_tool_use_id": speaker, **more}


def test_a_message_is_counted_once_however_many_lines_tell_of_it() -> None:
    """The assistant lines, one for each block, carry what it began with; the delta has the last word."""
    reading = read(
        "claude",
        begun("a", usage(1000, 1, cache_read_input_tokens=50, cache_creation_input_tokens=7)),
        assistant("a", tokens=usage(1000, 1, cache_read_input_tokens=50)),
        assistant("a", tokens=usage(1000, 1)),
        ended({"output_tokens": 90}),
        assistant("a", tokens=usage(1000, 1)),
    )
    assert reading.messages == {"a": ("m", Tokens(1000, 90, 50, 7))}
    assert reading.calls == 1


def test_messages_streamed_at_once_keep_their_own_figures() -> None:
    """A subagent's and the main agent's, told apart by who called for them, or by the id where it is given."""
    reading = read(
        "claude",
        begun("a", usage(10, 1)),
        begun("b", usage(20, 1), "tool-1"),
        ended({"output_tokens": 5}, "tool-1"),
        ended({"output_tokens": 9}),
        begun("c", usage(30, 1)),
        ended({"output_tokens": 3}, api_message_id="a"),
    )
    assert [tokens.output for _, tokens in reading.messages.values()] == [9, 5, 1]


def test_a_message_that_was_not_streamed_has_its_usage_in_the_assistant_line() -> None:
    """As after a broken stream."""
    assert read("claude", assistant("a", tokens=usage(10, 70))).messages["a"][1] == Tokens(10, 70)


def test_the_last_result_counts_and_differences_add_up() -> None:
    """Two prompts in one process: the totals are cumulative, the differences are not."""

    def result(text: str, total: int, since: int) -> dict[str, Any]:
        row = {"outputTokens": 0, "costUSD": 0.5}
        return {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "result": text,
            "modelUsage": {"m": {**row, "inputTokens": total}},
            "model_usage_since_last_result": {"m": {**row, "inputTokens": since}},
        }

    reading = read("claude", result("one", 100, 40), result("two", 130, 30))
    assert reading.result
    assert reading.result.text == "two"
    assert reading.reported == Reported({"m": Spent(Tokens(130), 0.5)})
    assert reading.own == Reported({"m": Spent(Tokens(70), 1.0)})


def test_an_older_claude_tells_no_difference() -> None:
    """Then there is none, not even half of it."""
    old = {"type": "result", "is_error": False, "modelUsage": {"m": {"inputTokens": 5}}}
    new = {**old, "model_usage_since_last_result": {"m": {"inputTokens": 5}}}
    assert read("claude", old, new).own is None
    assert read("claude", new, old).own is None


def test_the_json_format_of_claude_is_one_result() -> None:
    """The same object, alone."""
    line = {"type": "result", "subtype": "success", "is_error": False, "result": "done", "session_id": "s"}
    reading = read("claude", line)
    assert reading.result
    assert (reading.session_id, reading.result.text) == ("s", "done")


def test_an_error_that_claude_made_up_as_a_message_is_a_failure_and_no_call() -> None:
    """It costs nothing, and is not what the agent said."""
    reading = read(
        "claude",
        assistant("a", "Working."),
        {
            "type": "assistant",
            "message": {"id": "x", "model": "<synthetic>", "content": [{"type": "text", "text": "Overloaded"}]},
            "error": "overloaded",
            "is_api_error_message": True,
            "api_error_status": 529,
        },
    )
    assert reading.calls == 1
    assert reading.last_text == "Working."
    assert (reading.failures[-1].status, reading.failures[-1].code) == (529, "overloaded")


def test_a_line_of_five_megabytes_is_read() -> None:
    """And only a bounded part of it is kept."""
    reading = read("claude", assistant("a", "x" * 5_000_000))
    assert LONGEST_TEXT <= len(reading.last_text) < LONGEST_TEXT + 100
    assert "4980000 characters left out" in reading.last_text


def test_half_of_an_emoji_costs_no_result() -> None:
    """JavaScript prints it as it is, the quick parser refuses it, and no database could hold it."""
    line = b'{"type":"result","is_error":false,"result":"cut here \\ud83d","subtype":"success"}'
    reading = read("claude", line)
    assert reading.result
    assert reading.result.text == "cut here ?"


def test_bytes_that_are_no_utf_8_cost_no_result() -> None:
    """They are shown as what they are: not readable."""
    reading = read("claude", b'{"type":"result","is_error":false,"result":"caf\xe9"}')
    assert reading.result
    assert reading.result.text == "caf\ufffd"


def test_a_cut_line_is_counted_and_left() -> None:
    """With what comes after it read."""
    reading = read("claude", b'{"type":"assistant","mess', assistant("a", "after"))
    assert (reading.bad_lines, reading.last_text) == (1, "after")


def test_a_line_written_into_another_one_is_found() -> None:
    """As some versions print the state of the allowance."""
    inside = b'{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":9}}'
    line = b'{"type":"assistant","message":{"content":"par' + inside
    reading = read("claude", line)
    assert reading.limit
    assert (reading.limit.status, reading.limit.resets_at_s) == ("rejected", 9)


def test_unknown_types_are_counted_by_name_and_not_without_end() -> None:
    """A client of tomorrow may print what it likes."""
    reading = read("claude", *({"type": f"t{number}"} for number in range(500)), {"type": "t1"})
    assert reading.unknown["t1"] == 2
    assert len(reading.unknown) == 100


def test_tools_that_were_not_allowed_are_named() -> None:
    """Which is no failure by itself."""
    line = {"type": "result", "is_error": False, "permission_denials": [{"tool_name": "Bash"}, {}, 3]}
    assert read("claude", line).denials == ("Bash", "?", "?")
    live = {"type": "system", "subtype": "permission_denied", "tool_name": "Write"}
    assert read("claude", live, live).denials == ("Write", "Write")  # Told at once, and once more in the result.
    assert read("claude", live, line).denials == ("Bash", "?", "?")


def test_tokens_of_codex_are_told_without_those_of_the_cache() -> None:
    """Its own figure includes them."""
    told = {"input_tokens": 1000, "cached_input_tokens": 700, "cache_write_input_tokens": 100, "output_tokens": 5}
    reading = read("codex", {"type": "thread.started", "thread_id": "t"}, {"type": "turn.completed", "usage": told})
    assert reading.session_id == "t"
    assert reading.reported == Reported({"": Spent(Tokens(200, 5, 700, 100))})


def test_a_warning_of_codex_is_no_failure() -> None:
    """Items of type error come in runs that succeed."""
    reading = read(
        "codex",
        {"type": "item.completed", "item": {"type": "error", "message": "metadata not found"}},
        {"type": "error", "message": "Reconnecting... 1/5 (timeout)"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "done"}},
        {"type": "turn.completed", "usage": {}},
    )
    assert judge(reading, "codex", "exited", 0).error is None
    assert judge(reading, "codex", "exited", 0).output == "done"


def test_the_output_of_a_command_of_codex_is_not_what_it_says() -> None:
    """However long it is; that it ran shows that the provider has answered."""
    for length in (10, 100_000):
        item = {"id": "item_1", "type": "command_execution", "aggregated_output": "x" * length}
        line = json.dumps({"type": "item.completed", "item": item}, separators=(",", ":")).encode()
        reading = read("codex", {"type": "item.completed", "item": {"type": "agent_message", "text": "I look."}}, line)
        assert (reading.last_text, reading.answered, reading.bad_lines) == ("I look.", True, 0)


def test_plain_text_leaves_its_last_lines() -> None:
    """And tells nothing of its cost: unknown."""
    reading = read("text", *(f"line {number}".encode() for number in range(2000)), b"", b"I changed two files.")
    assert reading.last_text.endswith("line 1999\n\nI changed two files.")
    assert len(reading.last_text) <= 4000
    (charge,) = charges(reading, None, True, lambda model, tokens, calls: None)
    assert (charge.usd_micros, charge.source) == (None, "unknown")


def test_json_lines_as_opencode_documents_them() -> None:
    """Steps add up; a line that is no JSON is text."""

    def step(cost: float) -> dict[str, Any]:
        tokens = {"input": 10, "output": 2, "reasoning": 1, "cache": {"read": 3, "write": 4}}
        return {"type": "step_finish", "sessionID": "s", "part": {"cost": cost, "tokens": tokens}}

    reading = read("json", step(0.25), step(0.5), {"type": "text", "part": {"text": "All done."}})
    assert reading.own == Reported({"": Spent(Tokens(20, 6, 6, 8), 0.75)})
    assert (reading.session_id, reading.last_text) == ("s", "All done.")
    assert read("json", b"Error: no model").last_text == "Error: no model"


def test_json_lines_as_gemini_documents_them() -> None:
    """Pieces of a message are joined; the result tells tokens."""
    reading = read(
        "json",
        {"type": "init", "session_id": "s", "model": "gemini-x"},
        {"type": "message", "role": "assistant", "content": "All ", "delta": True},
        {"type": "message", "role": "assistant", "content": "done.", "delta": True},
        {"type": "result", "status": "success", "stats": {"input_tokens": 9, "cached": 4, "output_tokens": 2}},
    )
    assert reading.own == Reported({"gemini-x": Spent(Tokens(5, 2, 4))})
    assert judge(reading, "gemini", "exited", 0).output == "All done."


def test_totals_of_a_session_survive_a_file() -> None:
    """The next attempt reads them; what is garbage in it is left out."""
    told = Reported({"m": Spent(Tokens(1, 2, 3, 4), 0.5, True), "": Spent(Tokens(5), None)})
    assert Reported.from_json(json.loads(json.dumps(told.as_json()))) == told
    assert Reported.from_json({"m": [1, 2], "n": None, "o": ["x", True, -1, 2.5, "y", 1]}).models == {
        "o": Spent(Tokens(), None)
    }
    assert Reported.from_json([1]).models == {}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("<synthetic>"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TYPES = (
    *("system", "assistant", "result", "stream_event", "rate_limit_event", "turn.completed", "turn.failed", "error"),
    *("item.completed", "thread.started", "step_finish", "text", "message", "init", "message_start", "message_delta"),
)
KEYS = (
    *("message", "event", "usage", "modelUsage", "model_usage_since_last_result", "errors", "permission_denials"),
    *(
        "rate_limit_info",
        "item",
        "part",
        "stats",
        "content",
        "id",
        "model",
        "session_id",
        "subtype",
        "is_error",
        "error",
    ),
    *("api_error_status", "input_tokens", "output_tokens", "costUSD", "inputTokens", "tokens", "cache", "resetsAt"),
    *("api_message_id", "parent_tool_use_id", "result", "terminal_reason", "status", "thread_id", "text", "m"),
)
NEARLY = st.recursive(
    ANYTHING,
    lambda inner: st.builds(
        lambda fields, kind: {**fields, "type": kind},
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
        st.sampled_from(TYPES),
    ),
    max_leaves=12,
)
LINES = st.lists(st.binary(max_size=60) | NEARLY.map(lambda value: json.dumps(value).encode()), max_size=5)


@given(LINES, st.sampled_from(sorted(PARSERS)), st.sampled_from(["exited", "lost", "stopped"]), st.integers(-15, 160))
def test_no_output_stops_the_reading(lines: list[bytes], client: str, outcome: Any, exit_code: int) -> None:
    """Whatever it holds, each line is counted, there is a verdict, and the bill holds no negative figure."""
    reading = read(client, *lines)
    assert reading.lines == len(lines) or client == "json"
    verdict = judge(reading, client, outcome, exit_code, "", 0)
    assert (verdict.output or "x").encode()
    for finished in (True, False):
        for charge in charges(reading, None, finished, lambda model, tokens, calls: (sum(tokens.kinds()), "table")):
            assert charge.usd_micros is None or charge.usd_micros >= 0
            assert min(charge.input_tokens, charge.output_tokens, charge.calls) >= 0


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_long_line_of_garbage_is_left_quickly(client: str) -> None:
    """Brackets without end, too deep for any parser, and a number of a million digits."""
    begun_s = time.process_time()  # Of this process alone, whatever else the machine does.
    reading = read(
        client, b"[" * 2_000_000, b'{"a":' * 400_000, b"9" * 1_000_000, b'{"type":"result","x":' + b"9" * 100_000
    )
    assert (reading.lines, reading.bad_lines) == (4, 4)
    assert time.process_time() - begun_s < 5
