"""A runner of each kind, with work that all of them can do, for the tests that every runner passes."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakeagent.installing import install
from waiting import DEADLINE_S, wait_until

from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.runners.agent import AgentRunner
from parallel_agents.scheduler.runners.callables import CallableRunner, TaskContext
from parallel_agents.scheduler.runners.protocol import Ended, Errand, Launch
from parallel_agents.scheduler.runners.shell import ShellRunner


class Stage:
    """One runner, the ends it gave, and launches with all that they need."""

    many = 50  # At once.
    failure = ""  # What is said of failing work.
    last_word: str | None = None  # Of endless work, when it is stopped.

    def __init__(self, make: Callable[[Callable[[], None]], Any], folder: Path) -> None:
        self.folder = folder
        self.rings = 0
        self.ends: list[Ended] = []
        self._ring = threading.Event()
        self.runner = make(self._on_end)
        self._made = 0

    def _on_end(self) -> None:
        self.rings += 1
        self._ring.set()

    def launch(self, *, command: tuple[str, ...] = (), call: Callable[..., Any] | None = None, **given: Any) -> Launch:
        """A launch with an id of its own."""
        self._made += 1
        attempt_id = f"attempt-{os.getpid()}-{self.folder.name}-{self._made}"
        given.setdefault("env", {"PATH": os.environ["PATH"]})
        given.setdefault("workdir", self.folder)
        folder = self.folder / "runs" / "run" / f"task-{self._made}" / attempt_id
        return Launch("run", f"task-{self._made}", attempt_id, folder, command=command, call=call, **given)

    def start(self, launch: Launch) -> str:
        """Start it; gives its id."""
        self.runner.start(launch)
        return launch.attempt_id

    def end_of(self, attempt_id: str) -> Ended:
        """Wait for the end of one attempt, as the loop would: woken by ``on_end``."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self.ends += self.runner.poll()
            for ended in self.ends:
                if ended.attempt_id == attempt_id:
                    return ended
            assert time.monotonic() < deadline, f"{attempt_id} does not end"
            self._ring.wait(1.0)
            self._ring.clear()

    def run(self, launch: Launch) -> Ended:
        """Start and wait for the end."""
        return self.end_of(self.start(launch))

    def count(self, attempt_id: str) -> int:
        """How many ends an attempt has had so far."""
        self.ends += self.runner.poll()
        return sum(ended.attempt_id == attempt_id for ended in self.ends)


class Shell(Stage):
    """Work as commands."""

    failure = "exit code 3: trouble"

    def __init__(self, folder: Path) -> None:
        super().__init__(ShellRunner, folder)

    def saying(self, text: str) -> Launch:
        """Work that succeeds with an output."""
        return self.launch(command=("echo", text))

    def failing(self) -> Launch:
        """Work that fails."""
        return self.launch(command=("sh", "-c", "echo trouble >&2; exit 3"))

    def endless(self, begun: Path) -> Launch:
        """Work that says that it has begun and goes on until it is stopped."""
        return self.launch(command=("sh", "-c", f"touch '{begun}'; exec sleep 600"))


class Callables(Stage):
    """Work as callables."""

    failure = "ValueError: trouble in two lines"

    def __init__(self, folder: Path) -> None:
        super().__init__(CallableRunner, folder)

    def saying(self, text: str) -> Launch:
        """Work that succeeds with an output."""
        return self.launch(call=lambda: text)

    def failing(self) -> Launch:
        """Work that fails."""

        def fail() -> None:
            raise ValueError("trouble\nin two lines")

        return self.launch(call=fail)

    def endless(self, begun: Path) -> Launch:
        """Work that says that it has begun and goes on until it is stopped."""

        def go_on(context: TaskContext) -> str:
            begun.touch()
            context.wait()
            return "too late"

        return self.launch(call=go_on)


class Agents(Stage):
    """Work as errands of agents."""

    many = 10  # Each is a Python process.
    failure = "fake agent: told to exit"
    last_word = "I begin a long answer"

    def __init__(self, folder: Path) -> None:
        super().__init__(AgentRunner, folder)
        self.programs = install(folder / "programs")

    def errand(self, *steps: str, env: dict[str, str] | None = None, timeout_s: float = 600.0, **given: Any) -> Launch:
        """An errand of the fake agent that does these steps."""
        given.setdefault("client", BUILT_IN["claude"])
        given.setdefault("session_id", str(uuid.uuid4()))
        variables = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CLAUDE_CONFIG_DIR": str(self.folder / "clients" / "claude"),
            "CODEX_HOME": str(self.folder / "clients" / "codex"),
        }
        variables |= {"FAKE_AGENT": "\n".join(steps)} if steps else {}
        errand = Errand(**{"prompt": "Do it.", **given})
        return self.launch(errand=errand, env=variables | (env or {}), timeout_s=timeout_s)

    def saying(self, text: str) -> Launch:
        """Work that succeeds with an output."""
        return self.errand(f"say {text}")

    def failing(self) -> Launch:
        """Work that fails."""
        return self.errand("stderr trouble", "exit 3")

    def endless(self, begun: Path) -> Launch:
        """Work that says that it has begun and goes on until it is stopped."""
        return self.errand(f"write {begun} yes", "hang")

    def take_over(self, *launches: Launch) -> None:
        """Let go of the runner, as a dispatcher's end does, and have another one go on."""
        self.runner.close()
        self.ends.clear()
        self.runner = AgentRunner(self._on_end)
        self.runner.adopt([replace(one, errand=replace(one.errand, prompt="")) for one in launches if one.errand])


def close(stage: Stage) -> None:
    """Leave nothing running behind a test."""
    for pid in list(getattr(stage.runner, "live", dict)()):
        stage.runner.stop(pid, grace_s=0.0)
    wait_until(lambda: stage.runner.running() == 0, "the last attempts to end")
    stage.runner.close()
