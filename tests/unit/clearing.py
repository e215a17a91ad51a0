"""A project with runs whose files lie about, for tests of what may be cleared away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gitrepos import make_project, user_git, write
from paper import plan_of, task

from parallel_agents import housekeeping
from parallel_agents.checkpoint import refs, worktrees
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import snapshot
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import attempts_folder, files_home, make_home
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import FileSettings
from parallel_agents.housekeeping import Survey
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

DAY_S = 86_400


class Yard:
    """A project in git, its store, and what runs have left in it.

    Attributes:
        days: how long ago events happen that are appended.
    """

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, store: str = "") -> None:
        self.repository: Repository = make_project(tmp_path, monkeypatch)
        self.top = self.repository.top
        self.project = Project.find(root=self.top, start=self.top, store=store or None)
        make_home(self.project.store)
        self.days = 30.0
        self.log = Log(self.project.store, clock=self._now_us, environ={})
        self.head = user_git(self.top, "rev-parse", "HEAD")

    def _now_us(self) -> int:
        return round((time.time() - self.days * DAY_S) * 1e6)

    def append(self, run_id: str, *events: Event) -> None:
        """Something happens in a run."""

        def add(draft: Draft) -> None:
            for event in events:
                draft.add(run_id, event)

        self.log.transact(add)

    def run(self, *names: str) -> str:
        """A run that goes on."""
        plan = plan_of(*(task(name) for name in names or ("a",)), files=FileSettings())
        run_id = submit(self.log, plan, workdir=self.top, environ={}, start=Start("worktree", self.repository))
        self.append(run_id, ev.RunStarted())
        return run_id

    def ended(self, *names: str, how: type[Event] = ev.RunCancelled) -> str:
        """A run that has ended."""
        run_id = self.run(*names)
        self.append(run_id, *(ev.TaskCancelled(task_id=name) for name in names or ("a",)), how(counts={}))
        return run_id

    def place(self, run_id: str, name: str = "a") -> Path:
        """Where a task has its checkout."""
        return files_home(self.project.store) / "worktrees" / run_id / name

    def checkout(self, run_id: str, name: str = "a", files: dict[str, str] | None = None) -> Path:
        """A checkout, with changes that nobody has kept."""
        path = self.place(run_id, name)
        worktrees.add(self.repository, path, self.head)
        write(path, files or {})
        return path

    def keep(self, run_id: str, path: Path) -> str:
        """Make a checkpoint of a checkout, as its attempt's end does."""
        made = snapshot(self.repository, path, message="kept", parents=[self.head], at_us=1).commit
        self.hold(run_id, made)
        return made

    def hold(self, run_id: str, commit: str) -> str:
        """A checkpoint of a commit: its ref and its event. Gives its id."""
        checkpoint_id = new_id()
        refs.hold(self.repository, {refs.checkpoint_ref(run_id, checkpoint_id): commit})
        made = ev.CheckpointCreated(checkpoint_id=checkpoint_id, kind="after_attempt", label="kept", commit=commit)
        self.append(run_id, made)
        return checkpoint_id

    def attempt(self, run_id: str, name: str = "a", attempt: str = "attempt111") -> Path:
        """What an attempt wrote."""
        folder = attempts_folder(self.project.store) / run_id / name / attempt
        folder.mkdir(parents=True)
        write(folder, {"stdout.log": "said\n", "exit.json": "{}", "lock": ""})
        return folder

    def survey(self, **options: Any) -> Survey:
        """What may go."""
        return housekeeping.survey(self.log, self.project, **options)

    def found(self, **options: Any) -> set[str]:
        """The paths of what may go."""
        return {item.path for item in self.survey(**options).items}

    def stays(self, **options: Any) -> dict[str, str]:
        """What is said to stay, and why."""
        return {one.path: one.why for one in self.survey(**options).stays}

    def clean(self, between: Callable[[], None] = lambda: None, **options: Any) -> dict[str, Any]:
        """Look, and remove what was found."""
        found = self.survey(**options)
        between()
        return housekeeping.clean(self.log, self.project, found)

    def checkpoints(self, run_id: str) -> list[ev.CheckpointCreated]:
        """The checkpoints that the log has of a run."""
        return [one.event for one in self.log.read_run(run_id) if isinstance(one.event, ev.CheckpointCreated)]

    def status(self, run_id: str) -> str:
        """How a run stands."""
        return Projector(self.log).state(run_id).status

    def close(self) -> None:
        """Let go of the store."""
        self.log.close()


def make_old(path: Path, days: float = 30.0) -> None:
    """As if a file, or a folder with what is in it, had been written long ago."""
    at = time.time() - days * DAY_S
    for folder, _, names in os.walk(path):
        for name in names:
            os.utime(Path(folder, name), (at, at), follow_symlinks=False)
        os.utime(folder, (at, at))
    os.utime(path, (at, at), follow_symlinks=False)
