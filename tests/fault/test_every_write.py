"""Every write of a short run fails once, and once for good until the disk is mended; with each error that a disk can give.

What has to hold afterwards, whatever was hit: the error is told in words; once the disk is mended, what a user would do
leads the run to its end; the chain holds and everything matches it; no attempt ran twice; no process is left.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "acceptance"))  # Where the command line is used from outside.

from failing_disk import FailingDisk, Fault, failing, library
from scratch import Said, Scratch, Stem, shell, wait_until
from versioned import versioned

# What a run imports, so that no fork has to.
_IMPORTED = (
    "parallel_agents.foreground", "parallel_agents.planfile", "parallel_agents.versioning", "parallel_agents.submit",
    "parallel_agents.scheduler.run_files", "parallel_agents.scheduler.runners.shell", "parallel_agents.deep_verification",
    "parallel_agents.cli.live", "sqlalchemy.dialects.sqlite", "psutil",
)  # fmt: skip
MODES = [
    Fault(error=error, lasting=lasting) for error in (errno.ENOSPC, errno.EIO, errno.EROFS) for lasting in (False, True)
] + [Fault(error=errno.ENOSPC, torn=True)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail."""
    return library(tmp_path_factory.mktemp("library"))


@cache
def stem(made: Path | None) -> Stem:
    """Forks commands, with the library in them or without."""
    return Stem({} if made is None else {"LD_PRELOAD": str(made)}, _IMPORTED)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a repository, with a plan of three tasks that say outside of it that they ran."""
    project = Scratch(tmp_path_factory.mktemp("template") / "project")
    versioned(project, {"README.md": "hello\n"})
    project.write("parallel-agents.toml", "[execution.retry_policy]\nretry_delay = 0.01\nexponential_backoff = false\n")
    return project.root


class Trial(Scratch):
    """A copy of the template, whose store lies on a disk that fails."""

    def __init__(self, root: Path, template: Path) -> None:
        super().__init__(root)
        shutil.rmtree(root)
        shutil.copytree(template, root, symlinks=True)
        self.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        self.ran = root.parent / f"{root.name}.ran"
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


def one_fault(tmp_path: Path, template: Path, made: Path, fault: Fault) -> int:
    """One run under one fault, mended and gone on with. Gives how many writes there were before the disk was mended."""
    trial = Trial(tmp_path / f"at{fault.at}", template)
    try:
        with failing(trial.store.parent, made, tmp_path / "control", fault) as disk:
            said = trial.tried(disk, made)
            disk.mend()
            try:
                trial.mended()
                trial.check()
            except AssertionError as error:
                raise AssertionError(f"{fault} ({disk.what}), after {said.err[-2000:]!r}: {error}") from error
            return disk.count if disk.failed else 0
    finally:
        trial.close()
        shutil.rmtree(trial.root)


SAMPLE = [(7 + 17 * number, MODES[number % len(MODES)]) for number in range(11)]
"""Of all writes and faults: far apart, so that each part of a run is hit."""


@pytest.mark.parametrize(("at", "mode"), SAMPLE, ids=lambda value: str(value).replace(" ", "-"))
def test_a_run_survives_a_write_that_fails(at: int, mode: Fault, tmp_path: Path, template: Path, made: Path) -> None:
    """A sample of all of them."""
    fault = Fault(at, mode.error, mode.lasting, mode.torn)
    assert one_fault(tmp_path, template, made, fault) >= at


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode).replace(" ", "-"))
def test_a_run_survives_whichever_write_fails(mode: Fault, tmp_path: Path, template: Path, made: Path) -> None:
    """Each in turn, until a run has fewer. All that went wrong is told at the end."""
    at, reached, wrong = 0, 1, []
    while reached:
        at += 1
        try:
            reached = one_fault(tmp_path, template, made, Fault(at, mode.error, mode.lasting, mode.torn))
        except AssertionError as error:
            wrong.append(str(error))
    assert at > 100
    assert wrong == []


@pytest.fixture
def trial(tmp_path: Path, template: Path) -> Iterator[Trial]:
    """A project whose disk is well to begin with."""
    made = Trial(tmp_path / "trial", template)
    yield made
    made.close()


def test_the_disk_counts_and_fails_as_it_is_told(trial: Trial, made: Path, tmp_path: Path) -> None:
    """Or nothing here would be tried at all: git, the supervisor and the database are counted, and none else."""
    with failing(trial.store.parent, made, tmp_path / "control", Fault()) as disk:
        assert trial.tried(disk, made).code == 0
        assert disk.count > 100
        assert (disk.failed, disk.what) == (0, "")
    trial.check()
