"""A project of its own for the command line, used as anybody uses it: by the console script, from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil
import pytest
from any_load import AT_ANY_LOAD
from waiting import DEADLINE_S as DEADLINE_S
from waiting import line_with as line_with
from waiting import next_line as next_line
from waiting import wait_until as wait_until

from parallel_agents.eventstore.doorbell import doorbell_prefix
from parallel_agents.scheduler.process import MARKER

COMMAND = str(Path(sys.executable).with_name("parallel-agents"))
NEEDS_A_MISSING_CLIENT = pytest.mark.skipif(
    find_spec("claude_agent_sdk") is not None, reason="a package beside us brings the client that is to be missing"
)


class Said(NamedTuple):
    """What a command said, and with which code it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> dict[str, str]:
        """The one JSON document on stderr, of a command that was given ``--json`` and failed."""
        error: dict[str, str] = json.loads(self.err)["error"]
        assert set(error) == {"code", "message", "hint"}
        return error


class Stem:
    """The process of ``stem.py``; it ends when this one does, because nobody writes to it any more.

    Args:
        environment: of that process; what a command gets is in each request.
        modules: what it imports besides, so that no command has to.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, modules: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("stem.py")), *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="surrogateescape",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", **(environment or {})},
        )  # fmt: skip
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Carry out one command line; its exit code, or what else was asked for."""
        assert self._process.stdin is not None
        with self._lock:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return json.loads(next_line(self._process.stdout))


@cache
def _stem() -> Stem:
    return Stem()


class Begun:
    """A command that goes on in a fork of the stem, to be used as a ``Popen`` is.

    Args:
        request: as the stem takes it, but for its output.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.args = list(request["words"])
        self.returncode: int | None = None
        with tempfile.TemporaryDirectory() as folder:
            pipes = {name: os.path.join(folder, name) for name in ("out", "err")}
            for pipe in pipes.values():
                os.mkfifo(pipe)
            ends = [os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) for pipe in pipes.values()]
            self.pid = int(_stem().ask({**request, **pipes, "begin": True}))
        for end in ends:
            os.set_blocking(end, True)
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8", errors="replace") for end in ends)

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = _stem().ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Wait for its end; its exit code."""
        wait_until(lambda: self.poll() is not None, f"the end of {self.args}")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """If it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """If it still runs, at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = DEADLINE_S) -> tuple[str, str]:
        """Wait for its end; what it has said that nobody has read."""
        with ThreadPoolExecutor(1) as pool:
            err = pool.submit(_rest, self.stderr)
            out = _rest(self.stdout)
        self.wait(timeout)
        return out, err.result()


def _rest(file: IO[str]) -> str:
    if file.closed:
        return ""
    with file:
        return file.read()


class Scratch:
    """A project, what was started in it, and what is left of that.

    Attributes:
        root: its folder; ``HOME`` lies in it, so that every process of ours can be told by its environment.
        environment: what commands are given; nothing of the developer's own configures us.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".git").mkdir(parents=True)  # Marks the root, wherever the tests themselves lie.
        (root / "home").mkdir()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            **AT_ANY_LOAD,
            "GIT_CEILING_DIRECTORIES": os.path.realpath(root.parent),  # Whatever repository the tests lie in.
        }
        self._started: list[subprocess.Popen[str] | Begun] = []
        self._kept: tuple[Path, dict[str, str]] | None = None

    def keep(self) -> Scratch:
        """Keep a copy of the project as it is now, for the many tests that begin there (see ``anew``); gives itself."""
        folder = shutil.copytree(self.root, self.root.with_name(f"{self.root.name} as it was kept"), symlinks=True)
        self._kept = folder, dict(self.environment)
        return self

    def anew(self) -> Iterator[Scratch]:
        """What a fixture yields for a test: the project as it was kept, in the place where it was made."""
        assert self._kept is not None
        folder, environment = self._kept
        shutil.rmtree(self.root)
        shutil.copytree(folder, self.root, symlinks=True)
        self.environment = dict(environment)
        yield self
        self.close()

    @property
    def store(self) -> Path:
        """The store's file; nothing makes it but the command line."""
        return self.root / ".parallel-agents" / "events.db"

    def write(self, name: str, content: str | bytes | Mapping[str, Any]) -> Path:
        """Write a file of the project; a mapping is a plan."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                path.write_bytes(content)
            case str():
                path.write_text(content, encoding="utf-8")
            case _:
                path.write_text(json.dumps(content))
        return path

    def plan(self, *tasks: Mapping[str, Any], name: str = "plan", **head: Any) -> str:
        """Write a plan whose tasks are not tried again unless they say so; its path."""
        defaults = {"max_retries": 0, "agent_type": "worker", **head.pop("defaults", {})}
        return str(self.write(f"{name}.json", {"name": name, **head, "defaults": defaults, "tasks": list(tasks)}))

    def start(
        self,
        *words: str,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        script: str = "",
        **more: Any,
    ) -> Any:
        """Start a command in the background; whatever is left of it is ended with the project.

        Args:
            env: on top of ``environment``; None takes a variable away.
            script: a line of shell that the command, ``"$@"``, is part of.
            more: for ``Popen``.
        """
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        text = {"encoding": "utf-8", "errors": "replace"}
        command = ["sh", "-c", script, "sh", COMMAND, *words] if script else [COMMAND, *words]
        process = subprocess.Popen(
            command, cwd=cwd or self.root, env=self._environment(env), **{**streams, **text, **more}
        )
        self._started.append(process)
        return process

    def begin(self, *words: str, cwd: Path | None = None, env: Mapping[str, str | None] | None = None) -> Any:
        """The same as ``start`` in a fork of a process that has imported everything, wherever its start is not the point."""
        self._started.append(Begun(self._request(words, cwd, env)))
        return self._started[-1]

    def said_by(self, process: Any) -> Said:
        """Wait for the end of a command that was started, and what it said. No command ever shows a traceback."""
        out, err = process.communicate(timeout=DEADLINE_S)
        said = Said(process.returncode, out or "", err or "")
        assert "Traceback" not in said.err + said.out, said.err
        return said

    def __call__(self, *words: str, code: int | None = 0, **more: Any) -> Said:
        """Run a command to its end as a whole process, where its start or its streams are the point; ``quick`` costs a tenth.

        It has to end with ``code``, unless that is None.
        """
        said = self.said_by(self.start(*words, **more))
        assert code is None or said.code == code, f"{words} ended with {said.code}:\n{said.out}\n{said.err}"
        return said

    def quick(
        self,
        *words: str,
        code: int | None = 0,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> Said:
        """The same in a fork of a process that has imported everything: for the many commands that start nothing."""
        files = {name: str(self.root / "home" / f"{name}.txt") for name in ("out", "err")}
        ended_with = self.ask(words, files, cwd=cwd, env=env)
        said = Said(ended_with, *(Path(path).read_text("utf-8", "replace") for path in files.values()))
        assert "Traceback" not in said.err + said.out, said.err
        assert code is None or said.code == code, f"{words} ended with {said.code}:\n{said.out}\n{said.err}"
        return said

    def ask(
        self,
        words: Sequence[str],
        files: Mapping[str, str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> int:
        """Run a command on these files (see ``stem.py``); its exit code."""
        return int(_stem().ask({**self._request(words, cwd, env), **files}))

    def _request(self, words: Sequence[str], cwd: Path | None, env: Mapping[str, str | None] | None) -> dict[str, Any]:
        return {"words": words, "cwd": str(cwd or self.root), "environment": self._environment(env)}

    def _environment(self, env: Mapping[str, str | None] | None) -> dict[str, str]:
        return {name: value for name, value in {**self.environment, **(env or {})}.items() if value is not None}

    def event_count(self) -> int:
        """How many events the store holds, without asking ourselves; 0 where there is no store."""
        if not self.store.exists():
            return 0
        connection = sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
        finally:
            connection.close()

    def events(self, run: str = "latest", *more: str) -> list[dict[str, Any]]:
        """The history of a run."""
        return self.quick("history", run, "--json", *more).lines

    def sparing(self, look: Callable[[], Any]) -> Callable[[], Any]:
        """The same look, taken anew only where something was written since, or a while has passed.

        Whoever waits takes nothing from what is waited for.
        """
        seen: list[tuple[int, int, int]] | None = None
        found, due = None, 0.0

        def spared() -> Any:
            nonlocal seen, found, due
            if (now := self._written()) != seen or time.monotonic() > due:
                found = look()
                seen, due = now, time.monotonic() + 0.2
            return found

        return spared

    def _written(self) -> list[tuple[int, int, int]]:
        """What differs between the files of the store before and after a commit, but for two commits in one moment."""
        kept = []
        for path in (self.store, self.store.with_name(f"{self.store.name}-wal")):
            with contextlib.suppress(OSError):
                about = path.stat()
                kept.append((about.st_ino, about.st_size, about.st_mtime_ns))
        return kept

    def until(self, condition: Callable[[dict[str, Any]], Any], what: str, run: str = "latest") -> dict[str, Any]:
        """Wait until the status of a run satisfies a condition; that status."""

        def status() -> dict[str, Any] | None:
            said = self.quick("status", run, "--json", code=None)
            return said.data if said.code == 0 else None

        look = self.sparing(status)
        found: dict[str, Any] = wait_until(lambda: (seen := look()) and condition(seen) and seen, what)
        return found

    def until_running(self, *task_ids: str, run: str = "latest") -> dict[str, Any]:
        """Wait until just these tasks are running, and each has its process: its files are seen to before that."""
        wanted = set(task_ids)

        def begun(found: dict[str, Any]) -> bool:
            folder = self.store.parent / "runs" / found["run_id"]
            tasks = [task for task in found["tasks"] if task["status"] == "running"]
            return {task["task_id"] for task in tasks} == wanted and all(
                (folder / task["task_id"] / task["attempt_id"] / "process.json").exists() for task in tasks
            )

        return self.until(begun, f"{wanted} to run", run)

    def ours(self) -> dict[int, str]:
        """The processes of this project: commands, daemons, supervisors, attempts and what they left; pid -> command."""
        home, root, bell = str(self.root / "home"), str(self.root), doorbell_prefix(self.store)
        forks = [one for one in self._started if isinstance(one, Begun) and one.poll() is None]
        found = {one.pid: " ".join(one.args) for one in forks}  # Their environment is told as that of the stem.
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                environment = process.environ()
                mine = environment.get("HOME") == home or bell in words or any(root in word for word in words)
                if not mine and MARKER in environment:
                    mine = process.cwd().startswith(root)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(words)
            except (psutil.Error, OSError):
                continue  # It has ended, or is somebody else's.
        found.pop(os.getpid(), None)
        return found

    def close(self) -> None:
        """End whatever is left, each process by its own id."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=DEADLINE_S)
        self._started.clear()
        left = self.ours()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 2.0
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            while left and time.monotonic() < deadline:
                time.sleep(0.02)
                left = self.ours()
        assert left == {}


def in_state(found: Mapping[str, Any], status: str) -> set[str]:
    """The tasks of a status, as ``status --json`` gives it, that are in a state."""
    return {task["task_id"] for task in found["tasks"] if task["status"] == status}


def shell(task_id: str, script: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    """A task that runs a line of shell."""
    return {"task_id": task_id, "command": ["sh", "-c", script], "dependencies": list(dependencies), **fields}


def until_file(name: str) -> str:
    """A line of shell that goes on once a file is there."""
    return f"until [ -e {name} ]; do sleep 0.02; done"
