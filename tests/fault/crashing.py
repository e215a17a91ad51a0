"""A project whose processes are killed at crash points, and a referee over its log, its files, its processes and its bill."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from daemons import DAEMON, DEADLINE_S, Store, plan_of, wait_until
from forks import CLI, Forked

from parallel_agents import housekeeping
from parallel_agents import submit as submit_module
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.deep_verification import verify_deeply
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import scrubs, verify_rows
from parallel_agents.eventstore.crash_points import VARIABLE
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import FileSettings, Plan, Task
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.process import (
    ProcessIdentity,
    carriers,
    descendants,
    identity_of,
    is_alive,
    process_row,
    send_signal,
)
from parallel_agents.scheduler.runners.folder import PROCESS, read_object
from parallel_agents.versioning import Start

END_OF_ATTEMPT = (
    ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCancelled, ev.AttemptLost, ev.ResultDiscarded, ev.TaskBlocked,
)  # fmt: skip
CALL = (1000, 100)  # Tokens, in and out, that one call of the fake agent costs.
GATE = "gate"  # What is no task, but begun anew by every dispatcher.
HOURS_AGO_S = 7200.0
# What an attempt does: it says when it begins and ends, and notices another one of its task at the same time.
WORK = """
import fcntl, os, signal, sys, time
task, folder, *steps = sys.argv[1:]
def say(word):
    with open(f"{folder}/lines", "a") as file:
        file.write(f"{word} {task} {os.environ['PARALLEL_AGENTS_ATTEMPT']}\\n")
lock = open(f"{folder}/lock.{task}", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    say("overlaps")
if "deaf" in steps:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("begins")
for step in steps:
    what, _, of = step.partition(":")
    if what == "write":
        name, _, text = of.partition(":")
        with open(name, "a") as file:
            file.write(f"{text}\\n")
    elif what == "once" and not os.path.exists(f"{folder}/failed.{task}"):
        open(f"{folder}/failed.{task}", "w").close()
        sys.exit("as told")
    elif what == "wait":
        while not os.path.exists(f"{folder}/{of}"):
            time.sleep(0.005)
say("ends")
"""


class At(NamedTuple):
    """Where a process dies: the how manieth time that it reaches a point."""

    point: str
    count: int = 1

    @property
    def environ(self) -> dict[str, str]:
        """What makes it so."""
        return {VARIABLE: f"{self.point}:{self.count}"}


class Line(NamedTuple):
    """What an attempt said."""

    word: str
    task_id: str
    attempt_id: str


def is_supervisor(pid: int) -> bool:
    """Whether a process is one, by the program that it runs."""
    try:
        return "runners.supervisor" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


class World(Store):
    """A store in a repository with one commit.

    Attributes:
        outside: a folder of ours that no checkout holds.
    """

    def __init__(self, folder: Path, outside: Path) -> None:
        super().__init__(folder)
        self.outside = outside
        self.work = outside / "work.py"
        self.work.write_text(WORK)
        (self.path.parent / ".gitignore").write_text("*\n")
        (folder / "file").write_text("first\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "A User")
        self.git("config", "user.email", "user@localhost")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")
        self.seen: list[bytes] = []  # Hashes of the events that were there after the last crash.
        self.agents: dict[str, int] = {}  # Task to the calls that its agent makes.

    def git(self, *args: str) -> str:
        """A command of the user's."""
        return subprocess.run(["git", *args], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    @property
    def repository(self) -> Repository:
        """The user's."""
        found = find_repository(self.folder)
        assert found is not None
        return found

    # Work.

    def command(self, task_id: str, *steps: str) -> tuple[str, ...]:
        """What an attempt of a task runs."""
        return (sys.executable, "-S", "-I", str(self.work), task_id, str(self.outside), *steps)

    def task(self, task_id: str, *steps: str, after: Sequence[str] = (), **fields: Any) -> Task:
        """A task that does these steps."""
        fields = {"max_retries": 0, **fields}
        return Task(task_id=task_id, command=self.command(task_id, *steps), dependencies=tuple(after), **fields)

    def agent(self, task_id: str, *steps: str) -> Task:
        """A task of an agent: one call that runs the steps, and one that says that it is done."""
        self.agents[task_id] = 2
        script = f"run {shlex.join(self.command(task_id, *steps))}\nsay Done."
        return Task(
            task_id=task_id, agent_type="backend-engineer", description=f"Do {task_id}.", runner="claude",
            model="claude-sonnet-4-5", env={"FAKE_AGENT": script}, max_retries=0,
        )  # fmt: skip

    def plan(self, *tasks: Task, workspace: str = "worktree", at_once: int = 1, **files: Any) -> str:
        """Submit a run; gives its id."""
        limits = {"max_parallel_agents": at_once, "store_limit": at_once}
        plan = Plan(**{**dict(plan_of(tasks, **limits)), "workspace": workspace, "files": FileSettings(**files)})
        start = None if workspace == "none" else Start(workspace, self.repository)
        return submit_module.submit(self.log, plan, workdir=self.folder, start=start)

    def said(self) -> list[Line]:
        """What attempts have said so far."""
        file = self.outside / "lines"
        return [Line(*line.split()) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, word: str, task_id: str) -> None:
        """Until an attempt of a task has said that."""
        wait_until(lambda: any(one[:2] == (word, task_id) for one in self.said()), f"{task_id} {word}")

    def go(self, name: str = "go") -> None:
        """Let those go on that wait for it."""
        (self.outside / name).touch()

    # Processes.

    def begin(self, at: At | None, *command: str) -> Forked:
        """A process in the project, that dies at a point: a command of ours, or a daemon where there is none."""
        program, words = (CLI, command) if command else (DAEMON, (str(self.path),))
        process = Forked(program, *words, cwd=self.folder, env={**os.environ, **(at.environ if at else {})})
        self.processes.append(process)
        return process

    def died(self, process: Forked, at: At) -> str:
        """Wait until a process has died at its point; gives what it had printed."""
        out, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGKILL, f"{at} was never reached: {process.returncode}, {out}{said}"
        self.seen = [row.hash for row in self.log.rows()]
        return out

    def dies(self, at: At, *command: str) -> str:
        """A command of ours, or a daemon, lives until it comes to a point. Gives what it had printed."""
        return self.died(self.begin(at, *command), at)

    def cli(self, *words: str, at: At | None = None) -> str:
        """A command of ours, to its end, or to its death where that is told."""
        if at is not None:
            return self.dies(at, *words)
        done = self.begin(None, *words)
        out, said = done.communicate(timeout=DEADLINE_S)
        assert done.returncode == 0, f"{words}: {done.returncode}, {out}{said}"
        return out

    def supervisor_of(self, daemon: Forked) -> ProcessIdentity:
        """The supervisor that a daemon has. Probes of the machine, and what it has started, are none."""
        # One that it starts looks like it until it has another program.
        [pid] = wait_until(
            lambda: found if len(found := [*filter(is_supervisor, descendants([daemon.pid]))]) == 1 else None,
            "a supervisor",
        )
        who = identity_of(pid)
        assert who is not None
        return who

    @staticmethod
    def wait_dead(who: ProcessIdentity) -> None:
        """Until a process has ended."""
        wait_until(lambda: not is_alive(who), f"process {who.pid} to end")

    def end_daemon(self, process: Forked) -> None:
        """As a user ends it."""
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=DEADLINE_S)[1]
        assert process.returncode == 0, said

    @contextmanager
    def dispatching(self) -> Iterator[Engine]:
        """All that a daemon does, in this process: what is not to be killed is quicker so."""
        with Log(self.path, actor="daemon") as log:
            engine = Engine(log, kind="daemon", takes_all=True)
            engine.start()
            try:
                yield engine
            finally:
                engine.close()

    def run_to_end(self, run_id: str) -> str:
        """Dispatch until a run has ended; gives its status."""
        with self.dispatching():
            return self.ended(run_id)

    # The referee.

    def check(self, *, removes_checkpoints: bool = False) -> None:
        """All that must hold once every run has ended, whatever was killed on the way."""
        self.check_log()
        self.check_attempts()
        self.check_processes()
        self.check_money()
        self.check_second_restart()
        self.check_files(removes_checkpoints=removes_checkpoints)

    def check_log(self) -> None:
        """Every acknowledged event is there, the chain holds, and every run and task has ended."""
        rows = list(self.log.rows())
        assert [row.hash for row in rows[: len(self.seen)]] == self.seen, "an acknowledged event is gone"
        scrubbed = scrubs(row for row in rows if row.type == ev.SecretScrubbed.__name__)
        assert verify_rows(rows, scrubbed).broken is None
        assert self.log.last_seq() == len(rows)
        occupancy = Projector(self.log).occupancy()
        assert not occupancy.slots, f"attempts hold slots and nobody works: {occupancy.slots}"
        for run_id, summary in Projector(self.log).runs().items():
            state = self.state(run_id)
            assert state.ended, f"run {run_id} is {state.status}"
            assert not state.running
            assert summary.holder is None, "a run that has ended is held"
            assert {one.status for one in state.tasks.values()} <= {"completed", "failed", "cancelled", "skipped"}

    def check_attempts(self) -> None:
        """No attempt ran twice at the same time, none again after its result was recorded, and none that nobody knows."""
        said = self.said()
        assert [line for line in said if line.word == "overlaps"] == []
        words = Counter((line.word, line.attempt_id) for line in said if line.task_id != GATE)
        assert max(words.values(), default=1) == 1, "an attempt ran twice"
        begun = {attempt_id for word, attempt_id in words if word == "begins"}
        started: dict[str, str] = {}
        for run_id in Projector(self.log).runs():
            done: set[str] = set()
            for record in self.records(run_id):
                match record.event:
                    case ev.TaskStarted(task_id=task_id, attempt_id=attempt_id):
                        assert task_id not in done, f"{task_id} was started after its result was recorded"
                        assert attempt_id not in started, "an attempt was started twice"
                        started[attempt_id] = task_id
                    case ev.TaskCompleted(task_id=task_id, attempt_id=str(attempt_id)):
                        done.add(task_id)
                        assert attempt_id in begun, f"{task_id} is completed and never ran"
                        assert words["ends", attempt_id] == 1, f"{task_id} is completed and has not come to its end"
                    case ev.AttemptLost(attempt_id=attempt_id, began=False):
                        assert attempt_id not in begun, "an attempt that never began has begun"
                    case ev.RunRolledBack() | ev.TaskReopened():
                        done.clear()
                    case _:
                        pass
            self._check_one_end_each(run_id)
        assert begun <= started.keys(), "something ran that the log does not know"

    def _check_one_end_each(self, run_id: str) -> None:
        ends = Counter(
            event.attempt_id
            for event in (record.event for record in self.records(run_id))
            if isinstance(event, END_OF_ATTEMPT) and event.attempt_id is not None
        )
        starts = [event.attempt_id for event in self.events(run_id, ev.TaskStarted)]
        assert all(ends[name] >= 1 for name in starts), "an attempt was started and never ended"
        blocked = {event.attempt_id for event in self.events(run_id, ev.TaskBlocked)}
        assert [name for name in starts if ends[name] > 1 and name not in blocked] == []

    def check_processes(self) -> None:
        """No process is left of any attempt, nor of whoever supervised it."""
        started = [record.event.attempt_id for record in self.log.read() if isinstance(record.event, ev.TaskStarted)]
        assert carriers(started) == {}, "a process without a task"
        for file in self.path.parent.glob(f"runs/*/*/*/{PROCESS}"):
            written = read_object(str(file.parent), PROCESS)
            assert written is not None
            who = ProcessIdentity.from_dict(written["supervisor"])
            self.wait_dead(who)
            if written["state"] == "running":
                assert not is_alive(ProcessIdentity.from_dict(written))

    def check_money(self) -> None:
        """Every call of an agent that has come to its end is charged, once; and nothing is held back any more."""
        spent: Counter[str] = Counter()
        tokens: dict[str, Counter[str]] = {}
        for run_id in Projector(self.log).runs():
            for charge in self.events(run_id, ev.CostCharged):
                spent[charge.attempt_id] += charge.usd_micros
                tokens.setdefault(charge.task_id, Counter()).update(
                    calls=charge.calls, input=charge.input_tokens, output=charge.output_tokens
                )
        wanted = {
            name: Counter(calls=calls, input=calls * CALL[0], output=calls * CALL[1])
            for name, calls in self.agents.items()
        }
        assert tokens == wanted, "the bill is not what the agents have used"
        spend = Projector(self.log).spend()
        assert spend.running == {}, "money is held back for nobody"
        assert sum(spend.by_run.values()) == sum(spent.values())

    def check_files(self, *, removes_checkpoints: bool = False) -> None:
        """Every ref that the log names is there and no other; no worktree and no half made thing is left after `gc`."""
        for run_id in Projector(self.log).runs():
            state = self.state(run_id)
            if state.plan.workspace == "worktree":
                stands = self.git("rev-parse", f"parallel-agents/{run_id}").strip()
                assert stands == state.integration, f"the branch of {run_id} does not follow its log"
        project = Project.find(start=self.folder)
        found = verify_deeply(self.log, project)
        assert found["ok"], found["findings"]
        self._grow_old()
        self._gc(project)
        assert len(self.git("worktree", "list").splitlines()) == 1, "a worktree has leaked"
        assert list((self.path.parent / "worktrees").glob("*")) == []
        git_dir = self.folder / ".git"
        assert [one.name for one in (git_dir / "parallel-agents").glob("*") if one.is_dir()] == []
        assert {one.name for one in git_dir.rglob("*.lock")} <= {"worktrees.lock", "restoring.lock"}
        assert list(self.outside.glob("tmp/pa-*")) == [], "a folder for temporary files has leaked"
        held = dict(
            line.split(" ")[::-1]
            for line in self.git(
                "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/parallel-agents/"
            ).splitlines()
        )
        named, lost = self._named_by_log()
        assert held.keys() <= named, "a ref that no event accounts for"
        if not removes_checkpoints:
            assert {name: held.get(name) for name in lost} == lost, "a checkpoint is lost"
        self.git("fsck", "--no-dangling", "--connectivity-only")

    def _named_by_log(self) -> tuple[set[str], dict[str, str]]:
        """The refs that there may be, and those that there must be with their commits."""
        may: set[str] = set()
        must: dict[str, str] = {}
        for record in self.log.read():
            run_id = record.run_id
            match record.event:
                case ev.CheckpointCreated(checkpoint_id=name, commit=str(commit)):
                    must[f"{run_id}/{name}"] = commit
                case ev.TaskStarted(attempt_id=attempt_id):
                    may.add(f"{run_id}/{attempt_id}")
                case ev.RunForked(parent=parent):
                    may |= {f"{run_id}/{one.partition('/')[2]}" for one in may if one.startswith(f"{parent}/")}
                case _:
                    pass
        return may | must.keys(), must

    def _grow_old(self) -> None:
        """What lies about seems to have been made hours ago, so that nobody takes it for work that is under way."""
        git_dir = self.folder / ".git"
        old = time.time() - HOURS_AGO_S
        for folder in (git_dir / "parallel-agents", git_dir / "refs" / "parallel-agents"):
            for path in [folder, *folder.rglob("*")]:
                if path.exists():
                    os.utime(path, (old, old))

    def _gc(self, project: Project) -> None:
        """As the command does it."""
        found = housekeeping.survey(self.log, project, older_than_s=0.0, lost_refs=True)
        done = housekeeping.clean(self.log, project, found)
        assert [one for one in done["left"] if one["failed"]] == []

    def check_second_restart(self) -> None:
        """Whoever dispatches next finds nothing to do."""
        before = self._standing()
        with self.dispatching() as engine:
            for run_id in Projector(self.log).runs():
                engine.hold(run_id)
                engine.wait(run_id, until=lambda progress: True, timeout_s=DEADLINE_S)
        assert self._standing() == before, "a second restart has changed something"

    def _standing(self) -> tuple[object, ...]:
        refs = self.git("for-each-ref")
        return self.log.last_seq(), refs, self.git("worktree", "list"), self.said()


def kill_group(pids: Sequence[int]) -> None:
    """Kill processes at once, and wait until they are gone, or zombies."""
    for pid in pids:
        who = identity_of(pid)
        if who is not None:
            send_signal(who, signal.SIGKILL)
            wait_until(lambda pid=pid: (row := process_row(pid)) is None or row.zombie, f"{pid} to go")
