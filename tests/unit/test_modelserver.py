"""The scripted model server serves what its script says, and knows what it has served."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from modelserver import ModelServer, Reply, Usage, refuse, write
from waiting import wait_until

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server with nothing to say yet."""
    with ModelServer() as served:
        yield served


def ask(server: ModelServer, *said: str | list[dict[str, Any]], path: str = "/v1/messages", **more: Any) -> bytes:
    """Ask with what user and model have said in turn; give the body of the answer."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(said)]
    body = {"model": "model-a", "stream": True, "messages": messages, **more}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream."""
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]


def test_requests_get_the_replies_of_the_first_rule_whose_word_they_have(server: ModelServer) -> None:
    """In order, and the last one again and again; what nobody scripted is told apart."""
    server.on("pears", Reply("Pears."))
    server.on("apples", Reply("One."), Reply("Two.", usage=Usage(5, 6, 7, 8)))
    for word in ("apples", "apples", "pears", "apples", "plums"):
        ask(server, f"Please, {word}.")
    assert [one.word for one in server.served()] == ["apples", "apples", "pears", "apples", None]
    assert server.usage_by_model() == {"model-a": Usage(2010, 212, 14, 16)}


def test_a_rule_by_turn_does_not_care_who_asks_how_often(server: ModelServer) -> None:
    """What counts is how often the model has spoken since a person last did."""
    server.on("apples", Reply("First."), Reply("Second."), by_turn=True)
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]
    texts = [
        next(e["delta"]["text"] for e in events(ask(server, *said)) if e["type"] == "content_block_delta")
        for said in (["apples"], ["apples"], ["apples", "I write.", result], ["apples", "I write.", "Go on."])
    ]
    assert texts == ["First.", "First.", "Second.", "First."]


def test_usage_comes_in_two_parts_as_the_real_one_does(server: ModelServer) -> None:
    """Input tokens with the start of a message, the final output tokens with its delta."""
    server.on("", Reply("I write.", tools=(write("a", "b"),), usage=Usage(1, 2, 3, 4)))
    got = {event["type"]: event for event in events(ask(server, "Hello."))}
    assert got["message_start"]["message"]["usage"] == {
        "input_tokens": 1,
        "output_tokens": 1,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
    }
    assert got["message_delta"]["usage"] == {"output_tokens": 2}
    assert got["message_delta"]["delta"]["stop_reason"] == "tool_use"


def test_a_responses_call_counts_cached_tokens_as_input(server: ModelServer) -> None:
    """As the real API does; our own figures keep them apart."""
    server.on("apples", Reply("Apples.", usage=Usage(10, 2, 30, 0)))
    said = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "apples"}]}]
    *_, last = events(ask(server, path="/v1/responses", input=said))
    assert (last["type"], last["response"]["usage"]["input_tokens"]) == ("response.completed", 40)
    assert server.usage_by_model() == {"model-a": Usage(10, 2, 30, 0)}


def test_a_refusal_costs_nothing_and_says_how_long_to_wait(server: ModelServer) -> None:
    """Status, headers and body are the provider's."""
    server.on("", refuse("usage_limit", retry_after_s=7, reset_at_s=1_800_000_000))
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, "Hello.")
    with refused.value as answer:
        assert (answer.code, answer.headers["retry-after"]) == (429, "7")
        assert answer.headers["anthropic-ratelimit-unified-reset"] == "1800000000"
        assert json.loads(answer.read())["error"]["type"] == "rate_limit_error"
    assert server.usage_by_model() == {}


def test_a_limit_may_end_some_seconds_after_its_refusal_however_late_that_comes(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In headers and in bodies, and the test can see which moment was stated."""
    server.on("", refuse("usage_limit", reset_in_s=5))
    found = []
    for now_s, path in ((1_800_000_000.5, "/v1/messages"), (1_800_000_100.0, "/v1/responses")):
        monkeypatch.setattr("modelserver.server.time.time", lambda now_s=now_s: now_s)
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(server, "Hello.", path=path)
        with refused.value as answer:
            error = json.loads(answer.read())["error"]
            header = answer.headers["anthropic-ratelimit-unified-5h-reset"]
        found.append((header, error.get("resets_at"), error.get("resets_in_seconds")))
    assert found == [("1800000006", None, None), ("1800000105", 1_800_000_105, 5)]
    assert [one.reset_at_s for one in server.served()] == [1_800_000_006, 1_800_000_105]


def test_an_answer_that_is_cut_is_known_not_to_be_complete(server: ModelServer) -> None:
    """Its input was told, its output was not."""
    server.on("", Reply("Cut.", cut_after=2))
    with pytest.raises(http.client.IncompleteRead):
        ask(server, "Hello.")
    [one] = wait_until(server.served, "the request")
    assert (one.sent, one.told_input, one.told_output, one.complete) == (2, True, False, False)


def test_an_answer_that_hangs_ends_with_the_server(server: ModelServer) -> None:
    """So that no test waits for a client that waits for it."""
    server.on("", Reply("Hang.", hang_after=2))
    cut: list[Exception] = []

    def wait_for_the_end() -> None:
        try:
            ask(server, "Hello.")
        except http.client.IncompleteRead as error:
            cut.append(error)

    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    wait_until(lambda: server.served() and server.served()[0].sent == 2, "two events")
    server.close()
    thread.join(60)
    assert (thread.is_alive(), len(cut)) == (False, 1)


def test_the_transcripts_are_small_and_of_no_particular_machine() -> None:
    """Each with what was served to it, and each that goes on with another one with that one."""
    names = {file.stem for file in TRANSCRIPTS.glob("*.jsonl")}
    assert names
    for name in names:
        text = (TRANSCRIPTS / f"{name}.jsonl").read_text()
        facts = json.loads((TRANSCRIPTS / f"{name}.served.json").read_text())
        assert len(text.encode()) < 20_000, name
        assert "/tmp" not in text, name
        assert facts["resumes"] is None or facts["resumes"] in names, name
