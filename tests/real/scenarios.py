"""What the real claude is put through, once for every transcript in ``tests/data/transcripts``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from clients import Client, Place, start_claude, wait_for_events
from modelserver import ModelServer, Reply, Tool, Usage, bash, refuse, write
from waiting import wait_until

ONE_TRY = {"CLAUDE_CODE_MAX_RETRIES": "1"}
HOUR_S = 3600
WRITES = Reply("I write the file.", tools=(write("hello.txt", "hello\n"),), usage=Usage(900, 80, 0, 4000))
RUNS = Reply("I run it.", tools=(bash("wc -c hello.txt"),), usage=Usage(120, 40, 4000, 300))
DONE = Reply("hello.txt is there; it has 6 bytes.", usage=Usage(60, 25, 4300, 0))
HANGS = Reply("I begin a long answer", usage=Usage(500, 50, 100, 0), hang_after=3)


@dataclass(slots=True)
class Recording:
    """A client that has ended, and how its transcript is to be read."""

    name: str
    client: Client
    kind: str | None  # Of our kinds of failure; None: it succeeded.
    note: str
    first_call: int = 1  # Of the server's numbers: calls before it belong to an earlier process of the session.
    resumes: str | None = None  # The transcript of that process.


@dataclass(slots=True)
class Stage:
    """What a scenario is played on. Every scenario gets a fresh one."""

    binary: str
    server: ModelServer
    place: Place

    def play(self, *replies: Reply, word: str = "the-scripted-task", **options: Any) -> Client:
        """Claude with a prompt that has the word in it, to its end."""
        client = self.start(*replies, word=word, **options)
        client.wait()
        return client

    def start(
        self, *replies: Reply, word: str = "the-scripted-task", more: tuple[str, ...] = (), **options: Any
    ) -> Client:
        """Claude with a prompt that has the word in it."""
        self.server.on(word, *replies)
        return start_claude(self.binary, self.server, self.place, f"Please do {word}.", *more, **options)

    def go_on(self, session_id: str, more: tuple[str, ...] = (), **options: Any) -> Client:
        """Claude going on with a session, to its end; the script goes on too."""
        client = start_claude(self.binary, self.server, self.place, "Go on.", *more, resumes=session_id, **options)
        client.wait()
        return client

    def wait_for_session(self, session_id: str) -> None:
        """Wait until the client has written the first tool's result into its session, which it does a moment later.

        Killed before that it has no session that could be gone on with.
        """
        files = self.place.config.rglob
        name = f"{session_id}.jsonl"
        wait_until(lambda: any("tool_result" in file.read_text() for file in files(name)), "the session's file")

    def next_call(self) -> int:
        """The number that the next request will have."""
        return len(self.server.served()) + 1

    def wait_for_events(self, call: int, events: int) -> None:
        """Wait until so many events of a call have been written."""
        wait_for_events(self.server, call, events)


def well(stage: Stage) -> Iterator[Recording]:
    """One call, then more of them in the same session."""
    session = str(uuid.uuid4())
    replies = (WRITES, RUNS, DONE, Reply("Nothing is left to do.", usage=Usage(70, 7, 4400, 0)))
    client = stage.play(*replies, session_id=session)
    yield Recording("claude-tools", client, None, "three calls, two tools, cache tokens")
    at = stage.next_call()
    client = stage.go_on(session)
    yield Recording("claude-resumed-after-success", client, None, "one call", at, "claude-tools")


def ok(stage: Stage) -> Iterator[Recording]:
    """A single call without tools."""
    yield Recording("claude-ok", stage.play(Reply("All is well.")), None, "one call, no tools")


def two_prompts(stage: Stage) -> Iterator[Recording]:
    """Two prompts in one process: two results, the second one with the total of both."""
    client = stage.start(Reply("First."), Reply("Second.", usage=Usage(50, 5, 1000, 0)), keep_open=True)
    client.until(lambda o: o["type"] == "result", "the first result")
    client.say(
        {"type": "user", "message": {"role": "user", "content": "Please do the-scripted-task again."}}, close=True
    )
    client.wait()
    yield Recording("claude-two-prompts", client, None, "two result lines; totals are cumulative")


def subagents(stage: Stage) -> Iterator[Recording]:
    """A subagent in the foreground, then one in the background on another model."""
    stage.server.on(
        "the-subtask",
        Reply("I look.", tools=(bash("echo sub"),), usage=Usage(200, 20)),
        found := Reply("The subagent has found it.", usage=Usage(210, 21)),
    )
    ask = {"description": "look", "prompt": "do the-subtask", "subagent_type": "general-purpose"}
    foreground = Tool("Agent", ask | {"run_in_background": False})
    client = stage.play(Reply("I ask one.", tools=(foreground,)), Reply("All done."))
    yield Recording(
        "claude-subagent", client, None, "its calls are in modelUsage, not in usage; no stream events of it"
    )
    at = stage.next_call()
    stage.server.on("the-other-subtask", found)
    background = Tool("Agent", ask | {"prompt": "do the-other-subtask", "model": "haiku"})
    client = stage.play(
        Reply("I ask one.", tools=(background,)), Reply("Waiting."), Reply("Done."), word="the-parent-task"
    )
    yield Recording("claude-subagent-background", client, None, "another model; two result lines", at)


def killed(stage: Stage) -> Iterator[Recording]:
    """Killed in mid-call, resumed, and resumed once more."""
    session = str(uuid.uuid4())
    done = Reply("Finished after all.", usage=Usage(300, 30, 600, 0))
    client = stage.start(WRITES, HANGS, done, Reply("More.", usage=Usage(70, 7)), session_id=session)
    client.until_text("I begin a long answer")
    stage.wait_for_session(session)
    client.process.kill()
    client.wait()
    yield Recording("claude-killed", client, "infrastructure", "SIGKILL in mid-call: no result line; partial")
    at = stage.next_call()
    name, note = "claude-resumed-after-kill", "its totals know nothing of the killed process"
    yield Recording(name, stage.go_on(session), None, note, at, "claude-killed")
    at = stage.next_call()
    yield Recording(
        "claude-resumed-again", stage.go_on(session), None, "totals have the process before in them", at, name
    )


def killed_late(stage: Stage) -> Iterator[Recording]:
    """Killed between its result and its end, resumed by another model, and forked."""
    session = str(uuid.uuid4())
    client = stage.start(WRITES, Reply("Said."), DONE, session_id=session, keep_open=True)
    client.until(lambda o: o["type"] == "result", "the result")
    stage.wait_for_session(session)
    client.process.kill()
    client.wait()
    name = "claude-killed-after-result"
    yield Recording(name, client, None, "SIGKILL after the result line, which says that all is well")
    at = stage.next_call()
    client = stage.go_on(session, model="haiku")
    again = "claude-resumed-by-another-model"
    yield Recording(again, client, None, "the total lacks the process that was killed after its result", at, name)
    at = stage.next_call()
    client = stage.go_on(session, more=("--fork-session",))
    yield Recording("claude-forked", client, None, "another session id; the total is that of both", at, again)


def interrupted(stage: Stage) -> Iterator[Recording]:
    """Interrupted in mid-call by a control request, then resumed."""
    session = str(uuid.uuid4())
    client = stage.start(WRITES, HANGS, DONE, session_id=session, keep_open=True)
    client.until_text("I begin a long answer")
    client.interrupt()
    client.wait()
    note = "a result with the cost; the output of the call in flight is the client's guess"
    yield Recording("claude-interrupted", client, "agent", note)
    at = stage.next_call()
    yield Recording("claude-resumed-after-interrupt", stage.go_on(session), None, "", at, "claude-interrupted")


def terminated(stage: Stage) -> Iterator[Recording]:
    """SIGTERM in mid-call, then resumed."""
    session = str(uuid.uuid4())
    client = stage.start(WRITES, HANGS, DONE, session_id=session)
    client.until_text("I begin a long answer")
    client.process.terminate()
    client.wait()
    name = "claude-terminated"
    yield Recording(name, client, "infrastructure", "SIGTERM in mid-call: 143, no result line; partial")
    at = stage.next_call()
    note = "the total has the terminated process in it, but for its call in flight"
    yield Recording("claude-resumed-after-terminate", stage.go_on(session), None, note, at, name)


def limits(stage: Stage) -> Iterator[Recording]:
    """What the client itself was told to stop at."""
    again = Reply("Once more.", tools=(bash("echo again"),), usage=Usage(1000, 1000))
    client = stage.play(again, more=("--max-turns", "2"))
    yield Recording("claude-max-turns", client, "agent", "error_max_turns")
    at = stage.next_call()
    client = stage.play(again, word="the-costly-task", more=("--max-budget-usd", "0.03"))
    yield Recording("claude-max-budget", client, "budget", "error_max_budget_usd; overshoots by part of one call", at)


def denied(stage: Stage) -> Iterator[Recording]:
    """Tools that nobody allowed."""
    tools = (bash("curl http://127.0.0.1:1/"), write("/outside.txt", "x"))
    client = stage.play(
        Reply("I try.", tools=tools), Reply("I could not."), permissions=("--permission-mode", "acceptEdits")
    )
    yield Recording("claude-denied", client, None, "two permission_denials; a success all the same")


def refused(stage: Stage) -> Iterator[Recording]:
    """All that a server refuses with."""
    for name, reply, kind, note in (
        ("rate-limit", refuse("rate_limit", retry_after_s=1), "rate_limit", "429, retried once"),
        ("unauthorized", refuse("unauthorized"), "authentication", "401"),
        ("forbidden", refuse("forbidden"), "authentication", "403"),
        ("unknown-model", refuse("unknown_model"), "configuration", "404"),
        ("server-error", refuse("server_error"), "infrastructure", "500"),
        ("overloaded", refuse("overloaded"), "overload", "529"),
        ("no-credit", refuse("no_credit"), "spend_cap", "400, credit balance too low"),
    ):
        at = stage.next_call()
        client = stage.play(reply, word=f"the-{name}-task", env=ONE_TRY)
        yield Recording(f"claude-{name}", client, kind, note, at)


def limited(stage: Stage) -> Iterator[Recording]:
    """The usage limit of a subscription. The client heeds its headers with a token of one only."""
    reply = refuse("usage_limit", retry_after_s=HOUR_S, reset_at_s=int(time.time()) // 60 * 60 + HOUR_S)
    env = {"CLAUDE_CODE_OAUTH_TOKEN": "a-token-of-no-worth", "ANTHROPIC_API_KEY": ""}
    client = stage.play(WRITES, reply, env=env)
    yield Recording("claude-usage-limit", client, "usage_limit", "rate_limit_event with resetsAt, after one good call")
    at = stage.next_call()
    client = stage.play(reply, word="the-other-task", env=ONE_TRY)
    yield Recording("claude-usage-limit-key", client, "rate_limit", "the same with an API key: no reset is told", at)


def unreachable(stage: Stage) -> Iterator[Recording]:
    """No key at all, and nobody at the address."""
    client = stage.play(DONE, env={"ANTHROPIC_API_KEY": ""})
    yield Recording("claude-not-logged-in", client, "authentication", "no request at all")
    client = stage.play(DONE, env=ONE_TRY | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
    yield Recording("claude-connection-refused", client, "infrastructure", "no request at all")


def broken(stage: Stage) -> Iterator[Recording]:
    """Streams that break, and what the client does instead."""
    client = stage.play(Reply("Cut.", cut_after=3), Reply("After the cut."), env=ONE_TRY)
    yield Recording("claude-cut-stream", client, None, "the client's totals leave the cut call out")
    at = stage.next_call()
    client = stage.play(Reply("Failing.", error_after=3), Reply("Not streamed."), word="the-failing-task", env=ONE_TRY)
    yield Recording(
        "claude-unstreamed", client, None, "the second call is not streamed: its assistant line is final", at
    )
    at = stage.next_call()
    other = ("--fallback-model", "claude-haiku-4-5")
    replies = (*[refuse("overloaded")] * 3, Reply("From the other model."))
    client = stage.play(*replies, word="the-overloaded-task", more=other)
    yield Recording("claude-model-fallback", client, None, "529 three times, then another model", at)


def odd(stage: Stage) -> Iterator[Recording]:
    """A model without a price, and a session that nobody knows."""
    client = stage.play(Reply("Who am I?"), model="model-of-no-price")
    yield Recording("claude-unpriced", client, None, "costBasis unknown: the client guesses a price")
    at = stage.next_call()
    client = stage.go_on(str(uuid.uuid4()))
    yield Recording("claude-resume-unknown", client, "configuration", "No conversation found", at)


Scenario = Callable[[Stage], Iterator[Recording]]
SCENARIOS: tuple[Scenario, ...] = (
    ok,
    well,
    two_prompts,
    subagents,
    killed,
    killed_late,
    interrupted,
    terminated,
    limits,
    denied,
    refused,
    limited,
    unreachable,
    broken,
    odd,
)
