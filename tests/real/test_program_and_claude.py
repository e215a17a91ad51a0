"""The whole program drives the real ``claude``: killed, limited, interrupted, and the bill is what the server has served."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from clients import find_claude, wait_for_events
from modelserver import ModelServer, Reply, Usage, bash, refuse, write
from programs import MODEL, Project, kill
from waiting import wait_until

from parallel_agents.eventstore import events as ev

BINARY = find_claude()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no claude: neither on PATH nor in the package claude-agent-sdk"),
]
COPIES = "cp made.txt copied-$PARALLEL_AGENTS_TASK.txt; rm made.txt"
WRITES = Reply("I write.", tools=(write("made.txt", "made\n"),), usage=Usage(900, 80, 0, 4000))
RUNS = Reply(
    "I run.",
    tools=(bash(COPIES),),
    usage=Usage(120, 40, 4000, 300),
)
DONE = Reply("Copied and done.", usage=Usage(60, 25, 4300, 0))
HANGS = Reply("I begin a long answer", usage=Usage(500, 50, 100, 0), hang_after=3)
RESET_IN_S = 20
"""A limit's, after its refusal: by then a client on a busy machine has told of it, and the run has noted it."""
FIVE = [f"t{number}" for number in range(5)]


@pytest.fixture
def project(tmp_path: Path, server: ModelServer) -> Iterator[Project]:
    """A project of its own."""
    assert BINARY
    made = Project(tmp_path, BINARY, server)
    yield made
    made.close()


def test_five_at_once_are_merged_and_charged_to_the_token(project: Project, server: ModelServer) -> None:
    """Each in a worktree of its own; no call is missing, none is charged twice, and the dollars are the client's."""
    server.on("the-shared-task", WRITES, RUNS, DONE, by_turn=True)
    project.run(project.plan({name: f"Do the-shared-task as {name}." for name in FIVE}))
    assert project.copied() == [f"copied-{name}.txt" for name in FIVE]
    assert project.bill() == server.usage_by_model()
    assert len(server.served()) == 15
    charges = project.events(ev.CostCharged)
    assert {(one.source, one.partial, one.calls, one.model) for one in charges} == {("agent", False, 3, MODEL)}
    assert sum(one.usd_micros for one in charges) == 5 * 24_030
    assert server.other_paths == []
    left = [json.loads(file.read_text())["temporary"] for file in project.folder.rglob("session.json")]
    assert len(left) == 5
    assert not any(map(os.path.exists, left))


def test_five_outlive_their_daemon_but_one(project: Project, server: ModelServer) -> None:
    """Daemon and one client are killed while all wait for their model. Four are taken over, one goes on with its session."""
    slow = Reply("I run.", tools=RUNS.tools, usage=RUNS.usage, wait_s=4.0)
    server.on("the-shared-task", WRITES, slow, DONE, by_turn=True)
    project.detach(project.plan({name: f"Do the-shared-task as {name}." for name in FIVE}))
    wait_until(lambda: len(server.served()) == 10, "five second calls")
    project.wait_for_session("t0")
    project.kill_daemon()
    kill(project.client_of("t0"))
    project("daemon", "start")
    project("wait")
    assert project.attempts() == dict.fromkeys(FIVE, 1) | {"t0": 2}
    assert len([one for one in project.events(ev.TaskStarted) if one.resumes]) == 1
    assert project.copied() == [f"copied-{name}.txt" for name in FIVE]
    assert len(server.served()) == 17  # The script counts from the last prompt: its second agent hears all of it again.
    assert project.bill() == server.usage_by_model()  # Of the call in flight, nothing had been served yet.


def test_one_that_is_killed_goes_on_where_it_was(project: Project, server: ModelServer) -> None:
    """In mid-call, by SIGKILL. All that was served is charged, the call in flight as far as it was told."""
    server.on("the-killed-task", WRITES, HANGS, RUNS, DONE)
    project.detach(project.plan({"a": "Do the-killed-task."}))
    wait_for_events(server, 2, 3)
    project.wait_for_words("a", HANGS.text)
    project.wait_for_session("a")
    kill(project.client_of("a"))
    project("wait")
    first, second = project.events(ev.TaskStarted)
    assert second.resumes == first.attempt_id
    assert project.copied() == ["copied-a.txt"]
    assert project.bill(partial=True) == {MODEL: Usage(900 + 500, 80 + 1, 100, 4000)}
    assert project.bill(partial=False) == {MODEL: Usage(120 + 60, 40 + 25, 4000 + 4300, 300)}
    in_flight = HANGS.usage
    [served] = server.usage_by_model().values()
    [billed] = project.bill().values()
    assert 0 <= billed.input - served.input <= in_flight.input
    assert 0 <= billed.output - served.output <= in_flight.output


def test_all_that_is_killed_at_once_goes_on(project: Project, server: ModelServer) -> None:
    """Daemon, supervisor and client: the attempt is lost, and the next one takes its session up."""
    server.on("the-killed-task", WRITES, HANGS, RUNS, DONE)
    project.detach(project.plan({"a": "Do the-killed-task."}))
    wait_for_events(server, 2, 3)
    project.wait_for_words("a", HANGS.text)
    project.wait_for_session("a")
    process = json.loads((project.attempt_of("a") / "process.json").read_text())
    project.kill_daemon()
    kill(process["supervisor"]["pid"])
    kill(process["pid"])
    project("daemon", "start")
    project("wait")
    assert [one.task_id for one in project.events(ev.AttemptLost)] == ["a"]
    assert project.bill() == {MODEL: Usage(900 + 500 + 120 + 60, 80 + 1 + 40 + 25, 100 + 8300, 4300)}


def test_a_run_that_is_cancelled_ends_at_once_and_is_charged(project: Project, server: ModelServer) -> None:
    """By a word on its standard input: the client says what it has cost, the call in flight by its own guess."""
    server.on("the-stopped-task", WRITES, HANGS)
    run_id = project.detach(project.plan({"a": "Do the-stopped-task."}))
    wait_for_events(server, 2, 3)
    project("cancel", run_id)
    project("wait", run_id, code=None)
    [charge] = project.events(ev.CostCharged)
    assert (charge.source, charge.partial, charge.input_tokens, charge.cache_write_tokens) == (
        "agent",
        True,
        1400,
        4000,
    )
    assert 80 <= charge.output_tokens <= 80 + HANGS.usage.output


def test_one_that_was_taken_over_is_interrupted_too(project: Project, server: ModelServer) -> None:
    """By SIGINT: its standard input went with the daemon that had started it. The bill is the client's own."""
    server.on("the-stopped-task", WRITES, HANGS)
    run_id = project.detach(project.plan({"a": "Do the-stopped-task."}))
    wait_for_events(server, 2, 3)
    project.kill_daemon()
    project("daemon", "start")
    project("cancel", run_id)
    project("wait", run_id, code=None)
    [charge] = project.events(ev.CostCharged)
    assert (charge.source, charge.partial, charge.input_tokens) == (
        "agent",
        True,
        1400,
    )  # By SIGTERM it would tell nothing.


def test_the_limit_of_a_subscription_is_waited_for(tmp_path: Path, server: ModelServer) -> None:
    """Until the moment that the provider states; then the run goes on by itself, and no attempt was counted."""
    assert BINARY
    token = "-".join(("sk", "ant", "oat01", "0123456789abcdef"))
    project = Project(tmp_path, BINARY, server, ANTHROPIC_API_KEY=None, CLAUDE_CODE_OAUTH_TOKEN=token)
    try:
        server.on("the-limited-task", refuse("usage_limit", reset_in_s=RESET_IN_S), WRITES, RUNS, DONE)
        project.run(project.plan({"a": "Do the-limited-task."}, max_retries=0))
        [limited] = project.events(ev.ProviderLimited)
        assert (limited.kind, limited.stated) == ("usage_limit", True)
        refused, after, *_ = [one for one in server.served() if one.word is not None]
        assert datetime.fromisoformat(limited.until).timestamp() == refused.reset_at_s
        assert after.at_s - refused.at_s >= RESET_IN_S - 1.0  # By another clock than the one that was waited by.
        assert project.attempts() == {"a": 2}
        assert project.bill() == server.usage_by_model()
        assert project.copied() == ["copied-a.txt"]
    finally:
        project.close()


def test_calls_that_are_tried_again_are_charged_once(project: Project, server: ModelServer) -> None:
    """The client waits as it is told and goes on; nobody else hears of it."""
    server.on("the-limited-task", refuse("rate_limit", retry_after_s=1), WRITES, refuse("overloaded"), RUNS, DONE)
    project.run(project.plan({"a": "Do the-limited-task."}))
    assert project.attempts() == {"a": 1}
    assert project.bill() == server.usage_by_model()
    assert project.events(ev.ProviderLimited) == []


@pytest.mark.parametrize(("refusal", "kind"), [("overloaded", "overload"), ("rate_limit", "rate_limit")])
def test_a_provider_that_lets_nobody_work_is_waited_for(
    tmp_path: Path, server: ModelServer, refusal: str, kind: str
) -> None:
    """The client gives up; then nobody starts for a while, and that is said."""
    assert BINARY
    project = Project(tmp_path, BINARY, server, CLAUDE_CODE_MAX_RETRIES="1")
    try:
        server.on("the-limited-task", refuse(refusal))
        run_id = project.detach(project.plan({"a": "Do the-limited-task."}))
        wait_until(lambda: project.events(ev.ProviderLimited), "the wait")
        [limited] = project.events(ev.ProviderLimited)
        assert (limited.provider, limited.kind, limited.stated) == ("anthropic", kind, False)
        assert 20.0 < datetime.fromisoformat(limited.until).timestamp() - time.time() <= 30.0
        assert project.events(ev.CostCharged) == []
        assert project.attempts() == {"a": 1}
        project("cancel", run_id)
    finally:
        project.close()


def test_a_key_that_is_refused_pauses_the_run(project: Project, server: ModelServer) -> None:
    """The others are not sent into the same refusal, and nothing is charged."""
    server.on("the-keyless-task", refuse("unauthorized"))
    project.run(project.plan({name: f"Do the-keyless-task as {name}." for name in ("a", "b")}), code=4)
    assert [one.code for one in project.events(ev.RunPaused)] == ["authentication"]
    assert project.events(ev.CostCharged) == []


def test_no_key_is_left_anywhere(tmp_path: Path, server: ModelServer) -> None:
    """The client's own sessions, caches and settings included: they lie in our folder."""
    assert BINARY
    key = "-".join(("sk", "ant", "api03", "canaryofthekey0123456789canary"))
    project = Project(tmp_path, BINARY, server, ANTHROPIC_API_KEY=key)
    try:
        shows = Reply(
            f"The key {key} is shown.", tools=(bash('echo "$ANTHROPIC_API_KEY"; echo "$ANTHROPIC_API_KEY" >&2'),)
        )
        server.on("the-telling-task", shows, Reply(f"It is {key}."))
        server.on("the-killed-task", shows, HANGS, Reply(f"It is {key}."))
        project.detach(project.plan({"a": "Do the-telling-task.", "b": "Do the-killed-task."}))
        wait_until(lambda: sum(one.word == "the-killed-task" for one in server.served()) == 2, "the call that hangs")
        project.wait_for_session("b")
        kill(project.client_of("b"))
        project("wait")
        said = [project("history", "--json"), project("logs", "latest", "a"), project("status", "--json")]
        pieces = (key, "canaryofthekey", key[-20:])
        assert project.holding(*pieces) == []
        assert [text for text in said if any(one in text for one in pieces)] == []
    finally:
        project.close()
