"""A project in which the whole program drives real clients, as a user has it, with the model server as their provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients import QUIET
from modelserver import ModelServer, Usage
from waiting import wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.daemon import find_daemon
from parallel_agents.scheduler.process import carriers, identity_of, send_signal

COMMAND = str(Path(sys.executable).with_name("parallel-agents"))
LONGEST_S = 100.0
MODEL = "claude-sonnet-4-5"
CHARGED = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


class Project:
    """A git repository with a store, commands that run in it, and all that they leave."""

    def __init__(self, root: Path, binary: str, server: ModelServer, **env: str | None) -> None:
        self.root, self.server = root / "project", server
        for folder in (self.root, root / "home", root / "programs"):
            folder.mkdir(parents=True)
        (root / "programs" / Path(binary).name).symlink_to(binary)
        environment = {
            "PATH": f"{root / 'programs'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "a-key-of-no-worth",
            "OPENAI_API_KEY": "a-key-of-no-worth",
            **QUIET,
            **env,
        }
        self.environment = {name: value for name, value in environment.items() if value is not None}
        self.git("init", "-q", "-b", "main")
        (self.root / "start.txt").write_text("start\n")
        (self.root / ".gitignore").write_text("*.json\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "start")
        self._started: list[subprocess.Popen[str]] = []

    @property
    def folder(self) -> Path:
        """Of the store."""
        return self.root / ".parallel-agents"

    def git(self, *words: str) -> str:
        """A command of the user's."""
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.invalid")
        done = subprocess.run(["git", *who, *words], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def plan(self, descriptions: Mapping[str, str], **fields: Any) -> str:
        """Write a plan of agents; its path."""
        defaults = {"agent_type": "backend-engineer", "model": MODEL, "max_retries": 2, **fields}
        tasks = [{"task_id": name, "description": text} for name, text in descriptions.items()]
        (self.root / "plan.json").write_text(json.dumps({"name": "real", "defaults": defaults, "tasks": tasks}))
        config = {"execution": {"retryPolicy": {"retryDelay": 0}}, "agents": {"allowedTools": ["Bash"]}}
        (self.root / "config.json").write_text(json.dumps(config))
        return "plan.json"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command in the background."""
        process = subprocess.Popen(
            [COMMAND, *words], cwd=self.root, env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def __call__(self, *words: str, code: int | None = 0) -> str:
        """A command to its end; what it said."""
        process = self.start(*words)
        out, err = process.communicate(timeout=LONGEST_S)
        assert code is None or process.returncode == code, f"{words} ended with {process.returncode}:\n{out}\n{err}"
        return out

    def run(self, plan: str, *, code: int | None = 0) -> None:
        """Run a plan to its end."""
        self("run", plan, "--config", "config.json", code=code)

    def detach(self, plan: str) -> str:
        """Leave a plan to the daemon; the run's id."""
        run_id: str = json.loads(self("run", plan, "--config", "config.json", "--detach", "--json"))["run_id"]
        return run_id

    def kill_daemon(self) -> None:
        """As the system does it."""
        daemon = find_daemon(self.folder / "events.db")
        assert daemon is not None
        kill(daemon.identity.pid)

    def events(self, event_type: type[ev.Event]) -> list[Any]:
        """Of the whole store."""
        with Log(self.folder / "events.db") as log:
            return [one.event for one in log.read() if isinstance(one.event, event_type)]

    def attempts(self) -> Counter[str]:
        """How often each task was started."""
        return Counter(one.task_id for one in self.events(ev.TaskStarted))

    def attempt_of(self, task_id: str) -> Path:
        """The folder of a task's last attempt."""
        started = [one.attempt_id for one in self.events(ev.TaskStarted) if one.task_id == task_id]
        [folder] = self.folder.glob(f"runs/*/{task_id}/{started[-1]}")
        return folder

    def client_of(self, task_id: str) -> int:
        """The pid of the client that runs a task."""
        return int(json.loads((self.attempt_of(task_id) / "process.json").read_text())["pid"])

    def bill(self, *, partial: bool | None = None) -> dict[str, Usage]:
        """Tokens by model, as they were charged."""
        sums: dict[str, Counter[str]] = {}
        for one in self.events(ev.CostCharged):
            if partial in (None, one.partial):
                sums.setdefault(one.model, Counter()).update({name: getattr(one, name) for name in CHARGED})
        return {model: Usage(*(found[name] for name in CHARGED)) for model, found in sums.items()}

    def copied(self) -> list[str]:
        """The files that the script has its agents make, in the run's branch."""
        [branch] = self.git("branch", "--list", "parallel-agents/*", "--format=%(refname:short)").splitlines()
        return [name for name in self.git("ls-tree", "--name-only", branch).splitlines() if name.startswith("copied")]

    def holding(self, *pieces: str) -> list[str]:
        """The files of the store's folder that hold one of these."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if any(one.encode() in path.read_bytes() for one in pieces)]

    def wait_for_session(self, task_id: str) -> None:
        """Wait until the client has written down a tool's result; killed before that it has no session to go on with."""
        session = json.loads((self.attempt_of(task_id) / "session.json").read_text())["session"]

        def written() -> bool:
            files = self.folder.glob(f"clients/*/projects/*/{session}.jsonl")
            return any("tool_result" in one.read_text() for one in files)

        wait_until(written, "the session's file")

    def wait_for_words(self, task_id: str, words: str) -> None:
        """Wait until the client has printed them; what the server has sent may still be on its way through it."""
        out = self.attempt_of(task_id) / "stdout.log"
        wait_until(lambda: words.encode() in out.read_bytes(), f"{words!r} in the output")

    def close(self) -> None:
        """Leave nothing running."""
        if self.folder.exists():
            self("daemon", "stop", code=None)
            for pid in carriers([one.attempt_id for one in self.events(ev.TaskStarted)]):
                kill(pid)
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def kill(pid: int) -> None:
    """Exactly this process, if it still is there."""
    who = identity_of(pid)
    if who is not None:
        send_signal(who, signal.SIGKILL)
