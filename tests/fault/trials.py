"""A project whose store lies on a disk that fails, used as a user uses it, and what has to hold of it at the end."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "acceptance"))  # Where the command line is used from outside.

from failing_disk import FailingDisk
from forks import Forked
from scratch import Said, Scratch, Stem, shell, wait_until
from versioned import versioned

# What a run imports, so that no fork has to.
_IMPORTED = (
    "parallel_agents.foreground", "parallel_agents.planfile", "parallel_agents.versioning", "parallel_agents.submit",
    "parallel_agents.scheduler.run_files", "parallel_agents.scheduler.runners.shell", "parallel_agents.deep_verification",
    "parallel_agents.cli.live", "sqlalchemy.dialects.sqlite", "psutil",
)  # fmt: skip


@cache
def stem(made: Path | None) -> Stem:
    """Forks commands, with the library in them or without."""
    return Stem({} if made is None else {"LD_PRELOAD": str(made)}, _IMPORTED)


def make_template(folder: Path) -> Path:
    """A project in a repository, whose failed attempts are followed by the next at once."""
    project = Scratch(folder / "project")
    versioned(project, {"README.md": "hello\n"})
    again = "[execution.retry_policy]\nretry_delay = 0.01\nexponential_backoff = false\n"
    project.write("parallel-agents.toml", again + "[resource_management.disk]\nmin_free_mb = 0\n")
    return project.root


class Trial(Scratch):
    """A copy of the template, whose store lies on a disk that fails."""

    def __init__(self, root: Path, template: Path) -> None:
        super().__init__(root)
        shutil.rmtree(root)
        shutil.copytree(template, root, symlinks=True)
        self.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        self.ran = root.parent / f"{root.name}.ran"
        self.ran.unlink(missing_ok=True)  # Of another trial of that name.
        tasks = [self.task("one"), self.task("two", "one", then="echo 2 >two"), self.task("three")]
        self.written = self.plan(*tasks, defaults={"max_retries": 2})

    def task(self, task_id: str, *needs: str, then: str = "true") -> dict[str, Any]:
        """One that says that it begins, and finds out whether it is there twice."""
        here = f"{self.ran}.{task_id}"
        mark = f"echo {task_id} $PARALLEL_AGENTS_ATTEMPT >>{self.ran}"
        return shell(
            task_id, f"mkdir {here} || echo {task_id} twice >>{self.ran}; {mark}; {then}; rmdir {here}", *needs
        )

    def forked(self, *words: str, made: Path | None = None, environment: Mapping[str, str] | None = None) -> Said:
        """A command to its end; it shows no traceback, and an error says what and what next."""
        files = {name: str(self.root / "home" / f"{name}.txt") for name in ("out", "err")}
        given = {**self.environment, **(environment or {})}
        request = {"words": words, "cwd": str(self.root), "environment": given, **files}
        code = stem(made).ask(request)
        said = Said(code, *(Path(path).read_text("utf-8", "replace") for path in files.values()))
        assert "Traceback" not in said.err + said.out, said.err
        assert code in (0, 1, 2), said.err
        if code == 2:
            assert "error: " in said.err
        return said

    def fork(self, program: str, *words: str, env: Mapping[str, str] | None = None) -> Forked:
        """A program of ours in the background, as ``start`` starts commands.

        Args:
            env: on top of ``environment``.
        """
        process = Forked(program, *words, cwd=self.root, env={**self.environment, **(env or {})})
        self._started.append(process)
        return process

    def events(self, run: str = "latest", *more: str) -> list[dict[str, Any]]:
        """The history of a run."""
        return self.forked("history", run, "--json", *more).lines

    def tried(self, disk: FailingDisk, made: Path) -> Said:
        """The run, on the disk that fails."""
        return self.forked("run", self.written, made=made, environment=disk.environment)

    def mended(self) -> None:
        """What a user does once the disk is mended: say it again."""
        runs = self.forked("runs", "--json").data if self.store.exists() and self.store.stat().st_size else []
        if not runs:
            assert self.forked("run", self.written).code == 0
            return
        status = runs[-1]["status"]
        if status == "failed":
            self.forked("retry")
        if status != "completed":
            assert self.forked("resume").code == 0
        assert len(runs) == 1

    def check(self) -> None:
        """What has to hold at the end of everything."""
        wait_until(lambda: not self.ours(), "the end of all processes")
        events = self.forked("history", "--json").lines
        assert events[-1]["type"] in ("RunCompleted", "RunReleased", "CheckpointCreated")
        status = self.forked("status", "--json").data
        assert [task["status"] for task in status["tasks"]] == ["completed"] * 3
        found = self.forked("verify", "--deep", "--json").data
        assert [one for one in found["findings"] if one["level"] == "error"] == []
        ran = [line.split() for line in self.ran.read_text().splitlines()]
        assert not [task_id for task_id, attempt_id in ran if attempt_id == "twice"]
        assert max(Counter(map(tuple, ran)).values()) == 1, "an attempt ran twice"
        ended = {event["data"]["attempt_id"]: event["seq"] for event in events if event["type"] == "TaskCompleted"}
        started = {
            event["data"]["attempt_id"]: event["data"]["task_id"] for event in events if event["type"] == "TaskStarted"
        }
        assert len(ended) == 3, "a task was completed twice"
        assert {attempt_id for _, attempt_id in ran} <= started.keys(), "an attempt ran that no event tells of"
        assert len(list((self.root / ".git/worktrees").glob("*"))) <= len(list(self.store.parent.glob("worktrees/*/*")))
