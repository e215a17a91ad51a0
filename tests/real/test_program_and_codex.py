"""The whole program drives the real ``codex``: it tells tokens and no dollars, and commits nothing, so that we do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import find_codex, wait_for_events
from modelserver import ModelServer, Reply, Tool, Usage, refuse
from programs import Project, kill

from parallel_agents.eventstore import events as ev

BINARY = find_codex()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="no codex on PATH")]
MODEL = "gpt-5.5"
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
COPIES = "cp made.txt copied-$PARALLEL_AGENTS_TASK.txt; rm made.txt"
WRITES = Reply("I write.", tools=(Tool("apply_patch", PATCH),), usage=Usage(900, 80))
RUNS = Reply("I run.", tools=(Tool("exec_command", {"cmd": COPIES}),), usage=Usage(120, 40, 900))
DONE = Reply("Copied and done.", usage=Usage(60, 25, 1000))
HANGS = Reply("I begin a long answer", usage=Usage(500, 50, 100), hang_after=3)
CONFIG = """
model_provider = "scripted"
[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
"""


@pytest.fixture
def project(tmp_path: Path, server: ModelServer) -> Iterator[Project]:
    """A project whose codex asks that server."""
    assert BINARY
    key = "-".join(("sk", "proj", "canaryofthekey0123456789canary"))
    made = Project(tmp_path, BINARY, server, OPENAI_API_KEY=key)
    config = made.folder / "clients" / "codex" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG.format(url=server.url))
    yield made
    made.close()


def plan(project: Project, *names: str) -> str:
    """Tasks for codex, each with its name in it."""
    return project.plan({name: f"Do the-codex-task as {name}." for name in names}, runner="codex", model=MODEL)


def test_two_at_once_are_merged_and_charged_to_the_token(project: Project, server: ModelServer) -> None:
    """The dollars come from the price table, and that is said."""
    server.on("the-codex-task", WRITES, RUNS, DONE, by_turn=True)
    project.run(plan(project, "a", "b"))
    assert project.copied() == ["copied-a.txt", "copied-b.txt"]
    assert project.bill() == server.usage_by_model()
    charges = project.events(ev.CostCharged)
    assert {(one.source, one.partial, one.model) for one in charges} == {("estimated", False, MODEL)}
    assert all(one.usd_micros > 0 and one.prices.startswith("genai-prices") for one in charges)


def test_one_that_is_killed_goes_on_where_it_was(project: Project, server: ModelServer) -> None:
    """What the killed one had spent is unknown at first; the thread's total has its finished calls, once."""
    server.on("the-codex-task", WRITES, HANGS, RUNS, DONE)
    project.detach(plan(project, "a"))
    wait_for_events(server, 2, 3)
    kill(project.client_of("a"))
    project("wait")
    first, second = project.events(ev.TaskStarted)
    assert second.resumes == first.attempt_id
    assert project.copied() == ["copied-a.txt"]
    unknown, known = project.events(ev.CostCharged)
    assert (unknown.usd_micros, unknown.source, unknown.partial) == (None, "unknown", True)
    assert known.usd_micros > 0
    assert project.bill() == server.usage_by_model()


def test_a_key_that_is_refused_pauses_the_run(project: Project, server: ModelServer) -> None:
    """As with any other client."""
    server.on("the-codex-task", refuse("unauthorized"))
    project.run(plan(project, "a"), code=4)
    assert [one.code for one in project.events(ev.RunPaused)] == ["authentication"]


def test_no_key_is_left_anywhere(project: Project, server: ModelServer) -> None:
    """Neither in our files nor in what codex keeps of its threads; it can go on with these all the same."""
    key = project.environment["OPENAI_API_KEY"]
    shows = Reply(f"The key {key} is shown.", tools=(Tool("exec_command", {"cmd": "echo " + key}),))
    server.on("the-codex-task", shows, HANGS, Reply(f"It is {key}."))
    project.detach(plan(project, "a"))
    wait_for_events(server, 2, 3)
    kill(project.client_of("a"))
    project("wait", code=None)
    assert len([one for one in project.events(ev.TaskStarted) if one.resumes]) == 1
    assert key in str(server.served()[0].headers)
    assert "[redacted]" in str(server.served()[2].request["input"])
    assert project.holding(key, "canaryofthekey") == []
