"""Real daemons and other processes on one store, for the tests that kill them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forks import Forked
from waiting import DEADLINE_S as DEADLINE_S
from waiting import wait_until as wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore import usage_samples
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.daemon import find_daemon
from parallel_agents.scheduler.process import carriers, identity_of, send_signal
from parallel_agents.submit import submit

Process = subprocess.Popen[str] | Forked
DAEMON = """
import sys
from pathlib import Path
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.scheduler.daemon import run_daemon
try:
    run_daemon(Path(sys.argv[1]), started_at="today")
except ParallelAgentsError as error:
    sys.exit(f"error: {error} ({error.hint})")
"""


def task(task_id: str, script: str, *dependencies: str, **fields: Any) -> Task:
    """A task that runs a shell script."""
    return Task(task_id=task_id, command=("sh", "-c", script), dependencies=dependencies, **fields)


def plan_of(tasks: Sequence[Task], **limits: float) -> Plan:
    """A plan whose retries come soon."""
    settings = RunSettings(retry=RetryPolicy(delay_s=0.05, exponential=False), **limits)
    return Plan(name="fault", tasks=tuple(tasks), settings=settings)


class Store:
    """A store in a folder, and every process that a test starts on it.

    Args:
        exists: whether it is there already.
    """

    def __init__(self, folder: Path, *, exists: bool = False) -> None:
        self.folder = folder
        self.path = folder / ".parallel-agents" / "events.db"
        self.path.parent.mkdir(exist_ok=exists)
        self.log = Log(self.path)
        self.processes: list[Process] = []

    def start(self, program: str, *words: str, whole: bool = False) -> Process:
        """A process that runs a Python program; its first argument is the store.

        Args:
            whole: in an interpreter of its own, for a program that has something to do before we are imported.
        """
        if whole:
            process: Process = subprocess.Popen(
                [sys.executable, "-c", program, str(self.path), *words], cwd=self.folder, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        else:
            process = Forked(program, str(self.path), *words, cwd=self.folder)
        self.processes.append(process)
        return process

    def daemon(self) -> Process:
        """One that dispatches."""
        process = self.start(DAEMON)

        def dispatches() -> bool:
            assert process.poll() is None, process.communicate()[1]
            found = find_daemon(self.path)
            return found is not None and found.identity.pid == process.pid

        wait_until(dispatches, "the daemon")
        return process

    def kill_daemons(self, name: str, *counts: int) -> None:
        """One daemon after the other, each as soon as a file of the store's folder has so many lines; the last one lives."""
        for count in counts:
            daemon = self.daemon()
            wait_until(lambda count=count: len(self.lines(name)) >= count, f"{count} lines in {name}")
            self.kill(daemon)
        self.daemon()

    @staticmethod
    def kill(process: Process, signum: int = signal.SIGKILL) -> None:
        """Signal one, and wait until it has gone."""
        process.send_signal(signum)
        process.communicate(timeout=DEADLINE_S)

    def submit(self, *tasks: Task, **limits: float) -> str:
        """A run that nobody holds yet."""
        return submit(self.log, plan_of(tasks, **limits), workdir=self.folder)

    def state(self, run_id: str) -> RunState:
        """How it stands."""
        return Projector(self.log).state(run_id)

    def ended(self, run_id: str) -> str:
        """Wait for its end, and give its status."""
        wait_until(lambda: self.state(run_id).ended, f"the end of {run_id}")
        return self.state(run_id).status

    def events(self, run_id: str, event_type: type[ev.Event]) -> list[Any]:
        """Its events of one type."""
        return [record.event for record in self.records(run_id) if isinstance(record.event, event_type)]

    def records(self, run_id: str) -> list[Recorded]:
        """All its events."""
        return self.log.read_run(run_id)

    def points(self, run_id: str) -> list[usage_samples.Point]:
        """What was kept of what its last attempt has used."""
        attempt_ids = [event.attempt_id for event in self.events(run_id, ev.TaskStarted)]
        return usage_samples.read(self.path, run_id, attempt_ids[-1]) if attempt_ids else []

    def lines(self, name: str) -> list[str]:
        """What tasks wrote into a file of their working directory."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def command_of(self, run_id: str, task_id: str) -> int:
        """The pid of a task's command, once it runs."""

        def found() -> int:
            attempt_id = self.state(run_id).tasks[task_id].attempt_id
            return min(carriers([attempt_id]), default=0) if attempt_id else 0

        pid: int = wait_until(found, f"the command of {task_id}")
        return pid

    def close(self) -> None:
        """End everything that was started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                self.kill(process)
        attempts = [record.event.attempt_id for record in self.log.read() if isinstance(record.event, ev.TaskStarted)]
        for pid in carriers(attempts):
            who = identity_of(pid)
            if who is not None:
                send_signal(who, signal.SIGKILL)
        self.log.close()


def gone(pid: int) -> bool:
    """Whether no process has this pid."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        who = identity_of(pid)
        return who is None
    return True
