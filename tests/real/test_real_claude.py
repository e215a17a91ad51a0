"""The real ``claude`` against the scripted model server: what the transcripts say is what it does."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from clients import Place, find_claude, start_claude
from modelserver import ModelServer, Reply, Usage, bash, write
from scenarios import HANGS, SCENARIOS, Scenario, Stage

BINARY = find_claude()
TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no claude: neither on PATH nor in the package claude-agent-sdk"),
]
KINDS = {
    "inputTokens": "input",
    "outputTokens": "output",
    "cacheReadInputTokens": "cache_read",
    "cacheCreationInputTokens": "cache_write",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place of its own."""
    return Place(tmp_path)


def told(usages: dict[str, dict[str, Any]]) -> dict[str, Usage]:
    """Tokens by model, as a result line tells them."""
    return {model: Usage(**{ours: usage[theirs] for theirs, ours in KINDS.items()}) for model, usage in usages.items()}


CHANCE = {("claude-cut-stream", "total_cost_usd")}
"""What the client says one time so and another time otherwise: whether a call that was cut off counts, as far as it came."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_it_still_does_what_was_recorded(scenario: Scenario, server: ModelServer, place: Place) -> None:
    """Exit code, result and what the server was asked for are those of the transcripts."""
    assert BINARY
    for now in scenario(Stage(BINARY, server, place)):
        facts = json.loads((TRANSCRIPTS / f"{now.name}.served.json").read_text())
        lines = [json.loads(line) for line in (TRANSCRIPTS / f"{now.name}.jsonl").read_text().splitlines()]
        then = next((line for line in reversed(lines) if line["type"] == "result"), {})
        result = now.client.result or {}
        assert now.client.process.returncode == facts["exit_code"], now.name
        for key in ("subtype", "is_error", "terminal_reason", "api_error_status", "num_turns", "total_cost_usd"):
            if (now.name, key) not in CHANCE:
                assert result.get(key) == then.get(key), (now.name, key)
        calls = server.served()[now.first_call - 1 :]
        assert Counter((c.model, c.status) for c in calls) == Counter((c["model"], c["status"]) for c in facts["calls"])


def test_five_at_once_tell_what_was_served_to_the_token(server: ModelServer, place: Place) -> None:
    """Each in a worktree of its own, all of one repository; their files are their own."""
    assert BINARY
    server.on(
        "the-shared-task",
        Reply("I write.", tools=(write("made.txt", "made\n"),), usage=Usage(900, 80, 0, 4000), wait_s=0.1),
        Reply("I run.", tools=(bash("git status --short"),), usage=Usage(120, 40, 4000, 300)),
        Reply("Done.", usage=Usage(60, 25, 4300, 0)),
        by_turn=True,
    )
    git(place.project, "init", "--quiet")
    git(place.project, "commit", "--quiet", "--allow-empty", "-m", "start")
    places = [Place(place.root / f"agent-{number}") for number in range(5)]
    for one in places:
        one.project.rmdir()
        git(place.project, "worktree", "add", "--quiet", "--detach", str(one.project))
    clients = [start_claude(BINARY, server, one, f"Do the-shared-task, number {n}.") for n, one in enumerate(places)]
    assert [client.wait() for client in clients] == [0] * 5
    results = [client.result for client in clients]
    sums: Counter[str] = Counter()
    for result in results:
        assert result
        [usage] = told(result["modelUsage"]).values()
        sums.update({kind: getattr(usage, kind) for kind in KINDS.values()})
    [served] = server.usage_by_model().values()
    assert Usage(**sums) == served
    assert all((one.project / "made.txt").read_text() == "made\n" for one in places)


def test_what_a_killed_client_has_told_is_what_it_was_served(server: ModelServer, place: Place) -> None:
    """By its stream events, but for the output of the call in flight; who resumes it tells the rest."""
    assert BINARY
    session = str(uuid.uuid4())
    last = Reply("Done.", usage=Usage(60, 25, 4300, 0))
    server.on("the-killed-task", Reply("I write.", tools=(write("made.txt", "made\n"),)), HANGS, last)
    client = start_claude(BINARY, server, place, "Do the-killed-task.", session_id=session)
    client.until_text("I begin a long answer")
    Stage(BINARY, server, place).wait_for_session(session)
    client.process.kill()
    client.wait()
    inputs, outputs = {}, {}
    for line in client.objects:
        event = line.get("event", {})
        if event.get("type") == "message_start":
            inputs[line["api_message_id"]] = event["message"]["usage"]["input_tokens"]
        elif event.get("type") == "message_delta":
            outputs[line["api_message_id"]] = event["usage"]["output_tokens"]
    first, second = server.served()
    assert inputs == {first.message_id: first.usage.input, second.message_id: second.usage.input}
    assert outputs == {first.message_id: first.usage.output}
    client = start_claude(BINARY, server, place, "Go on.", resumes=session)
    assert client.wait() == 0
    assert client.result
    assert told(client.result["modelUsage"]) == {second.model: last.usage}


def test_a_line_of_5_mb_comes_whole(server: ModelServer, place: Place) -> None:
    """Nothing is cut off, neither in the stream nor in the result."""
    assert BINARY
    server.on("the-long-task", Reply("y" * 5_000_000))
    client = start_claude(BINARY, server, place, "Do the-long-task.")
    assert client.wait() == 0
    assert client.result
    assert len(client.result["result"]) == 5_000_000


def test_nothing_but_the_model_is_asked_for(server: ModelServer, place: Place) -> None:
    """With the variables that keep it quiet it asks the server for no other path."""
    assert BINARY
    server.on("the-quiet-task", Reply("Done."))
    assert start_claude(BINARY, server, place, "Do the-quiet-task.").wait() == 0
    assert ([one.path for one in server.served()], server.other_paths) == (["/v1/messages"], [])


def git(folder: Path, *arguments: str) -> None:
    """Run git, as somebody."""
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.invalid")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)
