"""What the real codex is put through, once for every transcript in ``tests/data/transcripts``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from clients import Client, start_codex
from modelserver import Reply, Tool, Usage, refuse
from scenarios import HOUR_S, Recording, Stage

PATCH = "*** Begin Patch\n*** Add File: hello.txt\n+hello\n*** End Patch\n"
WRITES = Reply("I write the file.", tools=(Tool("apply_patch", PATCH),), usage=Usage(900, 80))
RUNS = Reply("I run it.", tools=(Tool("exec_command", {"cmd": "wc -c hello.txt"}),), usage=Usage(120, 40, 900))
DONE = Reply("hello.txt is there; it has 6 bytes.", usage=Usage(60, 25, 1000))
HANGS = Reply("I begin a long answer", usage=Usage(500, 50, 100), hang_after=3)
MODEL = "gpt-5.5"


def start(stage: Stage, *replies: Reply, word: str = "the-scripted-task") -> Client:
    """Codex with a prompt that has the word in it."""
    stage.server.on(word, *replies)
    return start_codex(
        stage.binary, stage.server, stage.place, f"Please do {word}.", "--sandbox", "workspace-write", model=MODEL
    )


def play(stage: Stage, *replies: Reply, word: str = "the-scripted-task") -> Client:
    """The same, to its end."""
    client = start(stage, *replies, word=word)
    client.wait()
    return client


def go_on(stage: Stage, before: Client) -> Client:
    """Codex going on with the thread of a process before, to its end."""
    thread = next(o["thread_id"] for o in before.objects if o["type"] == "thread.started")
    client = start_codex(
        stage.binary, stage.server, stage.place, "Go on.", "--sandbox", "workspace-write", resumes=thread, model=MODEL
    )
    client.wait()
    return client


def well(stage: Stage) -> Iterator[Recording]:
    """Three calls, then one more in the same thread."""
    client = play(stage, WRITES, RUNS, DONE, Reply("Nothing is left to do.", usage=Usage(70, 7, 1100)))
    yield Recording("codex-ok", client, None, "three calls, a patch and a command")
    at = stage.next_call()
    yield Recording("codex-resumed", go_on(stage, client), None, "usage is cumulative", at, "codex-ok")


def stopped(stage: Stage) -> Iterator[Recording]:
    """Stopped in mid-call by each signal; the first one is resumed."""
    client = start(stage, WRITES, HANGS, DONE)
    client.until_text("hello.txt")
    stage.wait_for_events(2, 3)
    os.killpg(client.process.pid, signal.SIGKILL)
    client.wait()
    yield Recording("codex-killed", client, "infrastructure", "SIGKILL in mid-call: no usage is told")
    at = stage.next_call()
    yield Recording("codex-resumed-after-kill", go_on(stage, client), None, "", at, "codex-killed")
    for name, number in (("interrupted", signal.SIGINT), ("terminated", signal.SIGTERM)):
        at = stage.next_call()
        client = start(stage, WRITES, HANGS, word=f"the-{name}-task")
        stage.wait_for_events(at + 1, 3)
        os.killpg(client.process.pid, number)
        client.wait()
        yield Recording(f"codex-{name}", client, "infrastructure", f"{number.name} in mid-call", at)


def refused(stage: Stage) -> Iterator[Recording]:
    """All that a server refuses with."""
    reset_at_s = int(time.time()) // 60 * 60 + HOUR_S
    for name, reply, kind, note in (
        ("failed", refuse("server_error"), "overload", "500; the client tells of high demand only"),
        ("unauthorized", refuse("unauthorized"), "authentication", "401"),
        ("unknown-model", refuse("unknown_model"), "configuration", "404"),
        ("rate-limit", refuse("rate_limit", retry_after_s=1), "rate_limit", "429"),
        ("usage-limit", refuse("usage_limit", reset_at_s=reset_at_s), "usage_limit", "429, usage_limit_reached"),
        ("no-credit", refuse("no_credit"), "spend_cap", "429, insufficient_quota"),
        ("overloaded", refuse("overloaded"), "overload", "503, server_is_overloaded"),
    ):
        at = stage.next_call()
        yield Recording(f"codex-{name}", play(stage, reply, word=f"the-{name}-task"), kind, note, at)


CODEX_SCENARIOS = (well, stopped, refused)
