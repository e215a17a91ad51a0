"""Runs a real client against the scripted model server, in a place of its own, with an environment built from nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelserver import ModelServer
from waiting import wait_until

STREAMS = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")
PERMISSIONS = ("--permission-mode", "acceptEdits", "--allowedTools", "Bash")
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
MODEL = "claude-sonnet-4-5"
HANG_S = 90.0  # Only a client that hangs takes so long.


def find_claude() -> str | None:
    """The ``claude`` command: the one in the package ``claude-agent-sdk``, whose version is pinned, else that of PATH."""
    package = importlib.util.find_spec("claude_agent_sdk")
    if package and package.origin and (bundled := Path(package.origin).parent / "_bundled" / "claude").exists():
        return str(bundled)
    return shutil.which("claude")


def find_codex() -> str | None:
    """The ``codex`` command of PATH."""
    return shutil.which("codex")


@dataclass(slots=True)
class Place:
    """Where clients run: a project, a home, and a folder for the client's own things."""

    root: Path
    project: Path = field(init=False)
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        self.project, self.config = self.root / "project", self.root / "config"
        for folder in (self.project, self.config, self.root / "home", self.root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)

    def env(self, server: ModelServer, **more: str) -> dict[str, str]:
        """The environment of a client: it knows of nothing but this place and the server."""
        return {
            "PATH": os.defpath if not (node := shutil.which("node")) else f"{Path(node).parent}:{os.defpath}",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "CLAUDE_CONFIG_DIR": str(self.config),
            "CODEX_HOME": str(self.config),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "a-key-of-no-worth",
            "OPENAI_API_KEY": "a-key-of-no-worth",
            **QUIET,
            **more,
        }


class Client:
    """One process of a client, and what it has printed so far."""

    def __init__(
        self, command: list[str], cwd: Path, env: Mapping[str, str], prompt: bytes, *, keep_open: bool
    ) -> None:
        pipe = subprocess.PIPE
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        STARTED.append(self)
        self.lines: list[bytes] = []
        self.stderr = b""
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()
        assert self.process.stdin
        self.process.stdin.write(prompt)
        self.process.stdin.flush()
        if not keep_open:
            self.process.stdin.close()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Its lines, read."""
        return [json.loads(line) for line in list(self.lines)]

    @property
    def result(self) -> dict[str, Any] | None:
        """The last result line of claude."""
        results = [o for o in self.objects if o["type"] == "result"]
        return results[-1] if results else None

    def say(self, line: dict[str, Any], *, close: bool = False) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()
        if close:
            self.process.stdin.close()

    def interrupt(self) -> None:
        """Ask claude to stop, and say that nothing more will come."""
        self.say(INTERRUPT, close=True)

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Wait until it has printed such a line."""
        wait_until(lambda: any(condition(o) for o in self.objects), what, every_s=0.02)

    def until_text(self, text: str) -> None:
        """Wait until the model's words have reached its output."""
        wait_until(lambda: any(text.encode() in line for line in list(self.lines)), text, every_s=0.02)

    def wait(self) -> int:
        """Wait for its end and for the last of its lines; give its exit code."""
        try:
            code = self.process.wait(HANG_S)
        finally:
            self.process.kill()
        for reader in self._readers:
            reader.join()
        return code

    def _read_out(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)

    def _read_err(self) -> None:
        assert self.process.stderr
        self.stderr = self.process.stderr.read()


STARTED: list[Client] = []


def end_all() -> None:
    """End every client that a test has left behind."""
    while STARTED:
        STARTED.pop().process.kill()


def wait_for_events(server: ModelServer, call: int, events: int) -> None:
    """Wait until so many events of a call have been written."""
    wait_until(
        lambda: len(served := server.served()) >= call and served[call - 1].sent >= events, f"events of call {call}"
    )


INTERRUPT = {"type": "control_request", "request_id": "stop-1", "request": {"subtype": "interrupt"}}


def user_line(prompt: str) -> bytes:
    """A prompt as claude reads it with ``--input-format stream-json``."""
    message = {"type": "user", "message": {"role": "user", "content": prompt}}
    return json.dumps(message).encode() + b"\n"


def start_claude(
    binary: str,
    server: ModelServer,
    place: Place,
    prompt: str,
    *more: str,
    resumes: str | None = None,
    session_id: str | None = None,
    permissions: tuple[str, ...] = PERMISSIONS,
    model: str = MODEL,
    keep_open: bool = False,
    env: Mapping[str, str] | None = None,
) -> Client:
    """Start claude as our runner does: stream-json both ways."""
    session = ("--resume", resumes) if resumes else ("--session-id", session_id or str(uuid.uuid4()))
    command = [binary, "-p", "--input-format", "stream-json", *STREAMS, "--model", model, *session, *permissions, *more]
    return Client(command, place.project, place.env(server, **(env or {})), user_line(prompt), keep_open=keep_open)


def start_codex(
    binary: str,
    server: ModelServer,
    place: Place,
    prompt: str,
    *more: str,
    resumes: str | None = None,
    model: str = "gpt-5-codex",
    env: Mapping[str, str] | None = None,
) -> Client:
    """Start codex with the scripted server as its provider, without tries of its own unless they are asked for."""
    provider = "model_providers.scripted"
    settings = {
        "model_provider": "scripted",
        f"{provider}.name": "scripted",
        f"{provider}.base_url": f"{server.url}/v1",
        f"{provider}.env_key": "OPENAI_API_KEY",
        f"{provider}.wire_api": "responses",
    }
    numbers = {f"{provider}.request_max_retries": 1, f"{provider}.stream_max_retries": 1}
    options = [part for name, value in settings.items() for part in ("-c", f'{name}="{value}"')]
    options += [part for name, value in numbers.items() for part in ("-c", f"{name}={value}")]
    going_on = ["resume", resumes] if resumes else []
    command = [binary, "exec", "--json", "--skip-git-repo-check", *options, "-m", model, *more, *going_on, "-"]
    return Client(command, place.project, place.env(server, **(env or {})), prompt.encode(), keep_open=False)
