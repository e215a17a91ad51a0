"""Real dispatchers that are killed at named moments of what they do about files; whoever comes next ends it all the same.

The moments are git commands: a `git` before the real one on PATH kills the process that called it, before the command is
carried out or right after. No hook in the product is needed for that.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from daemons import DAEMON, DEADLINE_S, Store, plan_of, task, wait_until
from forks import Forked

from parallel_agents import submit as submit_module
from parallel_agents import travel
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.record import derived_id
from parallel_agents.eventstore.submission import FileSettings, Gate, Plan, Task
from parallel_agents.project import Project
from parallel_agents.versioning import Start

SHIM = """#!/bin/sh
case "$*" in
*update-ref*)
  input="$CRASH_COUNT.$$"
  cat > "$input"
  said="$* $(cat "$input")";;
*) said="$*";;
esac
carry_out() {
  if [ -n "$input" ]; then {git} "$@" < "$input"; else {git} "$@"; fi
}
case "$said" in *"$CRASH_AT"*)
  echo >> "$CRASH_COUNT"
  if [ "$(wc -l < "$CRASH_COUNT")" -eq "$CRASH_NTH" ]; then
    [ "$CRASH_WHEN" = before ] || carry_out "$@"
    kill -9 $PPID
    exit 1
  fi;;
esac
carry_out "$@"
"""
ROLLBACK = """
import sys
from pathlib import Path
from parallel_agents import travel
from parallel_agents.project import Project
project = Project.find(start=Path.cwd(), store=sys.argv[1])
with project.open() as log:
    target = travel.target_of(log, sys.argv[2], sys.argv[3])
    travel.preview(log, sys.argv[2], target)
    travel.rollback(log, project, sys.argv[2], target)
"""
FINISH = """
import sys
from pathlib import Path
from parallel_agents import travel
from parallel_agents.project import Project
project = Project.find(start=Path.cwd(), store=sys.argv[1])
with project.open() as log:
    travel.finish_restoring(log, project, sys.argv[2])
"""


class Moment(NamedTuple):
    """Where a process is killed: at the nth git command that holds some words, before it or after.

    Of ``update-ref`` what it is told on stdin counts too.
    """

    words: str
    nth: int
    when: str


class Files(Store):
    """A store in a git repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.path.parent / ".gitignore").write_text("*\n")
        real = shutil.which("git")
        self.shim = folder.parent / "shim"
        self.shim.mkdir()
        (self.shim / "git").write_text(SHIM.replace("{git}", str(real)))
        (self.shim / "git").chmod(0o755)
        (folder / "file").write_text("first\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")
        self.crashes = 0

    @property
    def repository(self) -> Repository:
        """The user's."""
        found = find_repository(self.folder)
        assert found is not None
        return found

    def git(self, *args: str) -> str:
        """A command of the user's."""
        who = ("-c", "user.name=A User", "-c", "user.email=user@localhost")
        return subprocess.run(["git", *who, *args], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def submit_files(
        self, tasks: Sequence[Task], *, files: FileSettings | None = None, workspace: str = "worktree"
    ) -> str:
        """A run whose files are versioned, one attempt at a time."""
        plan = plan_of(tasks, max_parallel_agents=1, store_limit=1)
        plan = Plan(**{**dict(plan), "workspace": workspace, "files": files or FileSettings()})
        start = Start("worktree" if workspace == "worktree" else "shared", self.repository)
        return submit_module.submit(self.log, plan, workdir=self.folder, start=start)

    def dies_at(self, moment: Moment, program: str = DAEMON, *words: str) -> None:
        """A process runs until the moment comes, and is killed by it."""
        self.crashes += 1
        crash = {
            "CRASH_AT": moment.words, "CRASH_NTH": str(moment.nth), "CRASH_WHEN": moment.when,
            "CRASH_COUNT": str(self.shim / f"count{self.crashes}"), "PATH": f"{self.shim}:{os.environ['PATH']}",
        }  # fmt: skip
        process = Forked(program, str(self.path), *words, cwd=self.folder, env={**os.environ, **crash})
        self.processes.append(process)
        said = process.communicate(timeout=DEADLINE_S)[1]
        assert process.returncode == -signal.SIGKILL, f"{moment} never came: {said}"

    def merged_times(self, run_id: str) -> Counter[str]:
        """How often the work of each task is in the run's branch."""
        says = "--format=%(trailers:key=Parallel-Agents-Task,valueonly)"
        return Counter(self.git("log", "--no-merges", says, f"main..parallel-agents/{run_id}").split())

    def check_clean(self, run_id: str) -> None:
        """Every branch and ref is accounted for, no worktree is left, and the log is whole."""
        state = self.state(run_id)
        wait_until(
            lambda: self.git("rev-parse", f"parallel-agents/{run_id}").strip() == state.integration, "the branch"
        )
        wait_until(lambda: len(self.git("worktree", "list").splitlines()) == 1, "checkouts to be taken away")
        named = {event.checkpoint_id for event in self.events(run_id, ev.CheckpointCreated)}
        named |= {event.attempt_id for event in self.events(run_id, ev.TaskStarted)}
        named |= {event.commit for event in self.events(run_id, ev.TaskCompleted)}
        refs = self.git("for-each-ref", "--format=%(refname:lstrip=3)", f"refs/parallel-agents/{run_id}").split()
        assert {ref.rpartition("/")[2] for ref in refs} <= named, "a ref that no event accounts for"
        assert self.git("status", "--porcelain") == ""
        assert verify_rows(self.log.rows()).broken is None
        self.git("fsck", "--no-dangling")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A repository with one commit, and an empty store in it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    folder = tmp_path / "project"
    folder.mkdir()
    made = Files(folder)
    yield made
    made.close()


# The refs that are made from the start of a process to the end of the first attempt that it starts: those of checkpoints
# before, of the attempt's start, of its work, and of the merge. The branch is made with a run, and moved by a merge.
HOLD = "update refs/parallel-agents/"
BRANCH = "e refs/heads/parallel-agents/"  # That of create, or of update.
MADE = Moment(BRANCH, 1, "after")  # The branch is there from here on.
CHECKOUT = (  # Of the first task: those after it take over its checkout.
    Moment("worktree add", 1, "before"),
    Moment("worktree add", 1, "after"),  # Registered, and empty.
    Moment("read-tree -m -u", 1, "after"),  # Checked out, and nothing started.
    Moment("for-each-ref", 1, "after"),  # The last that is done before the process starts.
)
KEEPING = (
    MADE,
    Moment("for-each-ref", 2, "before"),  # The first that is done when a process has ended.
    Moment("write-tree", 1, "after"),
    Moment("commit-tree", 1, "after"),  # The work is a commit, and no ref holds it.
    Moment(HOLD, 3, "after"),  # A ref holds it, and nothing is merged.
)
MERGING = (
    MADE,
    Moment("^{tree}", 2, "before"),  # The first that a merge asks, where nothing was merged meanwhile.
    Moment(HOLD, 4, "before"),
    Moment(HOLD, 4, "after"),  # A ref holds the merge, and no event names it.
    Moment(BRANCH, 1, "before"),  # An event names it, and the branch has not moved.
    Moment(BRANCH, 1, "after"),
)


@pytest.mark.parametrize("moments", [CHECKOUT, KEEPING, MERGING], ids=["checkout", "keeping", "merging"])
def test_work_is_merged_exactly_once_wherever_a_dispatcher_is_killed(files: Files, moments: tuple[Moment, ...]) -> None:
    """One dies at every moment; the one after the last ends the run."""
    names = [f"t{number}" for number in range(len(moments) + 1)]
    tasks = [
        task(name, f"echo {name} >> lines; echo {name} > {name}", *names[:at][-1:], max_retries=0)
        for at, name in enumerate(names)
    ]
    run_id = files.submit_files(tasks)
    for moment in moments:
        files.dies_at(moment)
    files.daemon()
    assert files.ended(run_id) == "completed"
    files.check_clean(run_id)
    assert files.git("show", f"parallel-agents/{run_id}:lines").split() == names
    assert files.merged_times(run_id) == dict.fromkeys(names, 1)


def test_a_run_ends_only_when_its_branch_stands_where_its_log_says(files: Files) -> None:
    """So that nobody has to look after runs that are over: who dies before the branch moves leaves a run that goes on."""
    run_id = files.submit_files([task("a", "echo a > a", max_retries=0)])
    files.dies_at(Moment(BRANCH, 2, "before"))
    assert files.state(run_id).tasks["a"].status == "completed"
    assert not files.state(run_id).ended
    files.daemon()
    assert files.ended(run_id) == "completed"
    assert files.git("rev-parse", f"parallel-agents/{run_id}").strip() == files.state(run_id).integration
    files.check_clean(run_id)


@pytest.mark.slow
def test_a_run_ends_although_the_ref_of_its_last_checkpoint_cannot_be_made(files: Files) -> None:
    """It is tried, and told of: a run that never ended would be worse."""
    run_id = files.submit_files([task("a", "echo a > a", max_retries=0)])
    name = derived_id("after_run", f"{run_id}:0")
    lock = files.repository.git_dir / "refs" / "parallel-agents" / run_id / f"{name}.lock"
    lock.touch()
    daemon = files.daemon()
    assert files.ended(run_id) == "completed"
    assert files.events(run_id, ev.CheckpointCreated)[-1].checkpoint_id == name
    daemon.send_signal(signal.SIGTERM)
    assert f"the refs of run {run_id} do not follow" in daemon.communicate(timeout=DEADLINE_S)[1]


def test_files_that_gates_make_are_never_part_of_the_work_although_a_dispatcher_dies_meanwhile(files: Files) -> None:
    """What was kept when the attempt ended is what is merged, whoever goes on."""
    waits = f"touch made-by-gate; echo . >> {files.shim}/gates; while ! test -e {files.shim}/go; do sleep 0.02; done"
    settings = FileSettings(gates=(Gate(command=("sh", "-c", waits), after="task"),))
    run_id = files.submit_files([task("a", "echo a > a", max_retries=0)], files=settings)
    first = files.daemon()
    wait_until((files.shim / "gates").exists, "the gate to run")
    files.kill(first)
    (files.shim / "go").touch()
    files.daemon()
    assert files.ended(run_id) == "completed"
    files.check_clean(run_id)
    assert files.git("ls-tree", "--name-only", f"parallel-agents/{run_id}").split() == ["a", "file"]
    assert files.merged_times(run_id) == {"a": 1}


@pytest.mark.parametrize(
    ("moment", "happened"),
    [
        (Moment("diff-tree", 1, "before"), False),  # While it is looked at what would change.
        (Moment(BRANCH, 1, "before"), True),  # In the log, and the branch has not moved.
        (Moment(BRANCH, 1, "after"), True),
    ],
    ids=["before", "committed", "moved"],
)
def test_a_rollback_that_is_killed_has_happened_or_has_not(files: Files, moment: Moment, happened: bool) -> None:
    """Never between: whoever dispatches next finds the branch where the log says."""
    run_id = files.submit_files([task("a", "echo a > a"), task("b", "echo b > b", "a")])
    _run(files, run_id)
    before = files.state(run_id)
    target = next(r.seq for r in files.records(run_id) if isinstance(r.event, ev.TaskCompleted))
    files.dies_at(moment, ROLLBACK, run_id, str(target))
    after = files.state(run_id)
    assert (after.integration != before.integration) == happened
    assert after.status == ("paused" if happened else "completed")
    travel.follow_branch(files.log, run_id)
    assert files.git("rev-parse", f"parallel-agents/{run_id}").strip() == after.integration


@pytest.mark.parametrize(
    "moment",
    [
        Moment(HOLD, 1, "after"),  # What was there is held, and no event names it.
        Moment("read-tree -m -u", 1, "before"),
        Moment("read-tree -m -u", 1, "after"),  # The files are there, and the log says that it is being done.
    ],
    ids=["held", "before", "after"],
)
def test_a_shared_directory_is_taken_back_whole_wherever_that_is_killed(files: Files, moment: Moment) -> None:
    """The log says that it is being done; who says it again does all of it."""
    run_id, target = _shared_run(files)
    files.dies_at(moment, ROLLBACK, run_id, target)
    assert (files.folder / "b").exists() == (moment.when == "before" or moment.words == HOLD)
    assert files.state(run_id).restoring is not None
    subprocess.run(
        [sys.executable, "-c", FINISH, str(files.path), run_id], cwd=files.folder, check=True, timeout=DEADLINE_S
    )
    assert files.state(run_id).restoring is None
    assert (files.folder / "file").read_text() == "a\n"
    assert not (files.folder / "b").exists()
    assert Project.find(start=files.folder).store == files.path


def test_a_rollback_that_is_killed_while_it_looks_at_a_shared_directory_has_not_happened(files: Files) -> None:
    """Everything is as it was, and it can be said again."""
    run_id, target = _shared_run(files)
    before = files.state(run_id)
    files.dies_at(Moment("write-tree", 1, "after"), ROLLBACK, run_id, target)
    assert files.state(run_id).seq == before.seq
    assert (files.folder / "b").exists()
    subprocess.run(
        [sys.executable, "-c", ROLLBACK, str(files.path), run_id, target],
        cwd=files.folder, check=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (files.folder / "file").read_text() == "a\n"
    assert not (files.folder / "b").exists()


def _shared_run(files: Files) -> tuple[str, str]:
    """A run in the project's directory that has ended, and the event of its first task's end."""
    run_id = files.submit_files([task("a", "echo a > file"), task("b", "rm file; echo b > b", "a")], workspace="shared")
    _run(files, run_id)
    return run_id, str(next(r.seq for r in files.records(run_id) if isinstance(r.event, ev.TaskCompleted)))


def _run(files: Files, run_id: str) -> None:
    """To its end, refs included."""
    daemon = files.daemon()
    assert files.ended(run_id) == "completed"
    daemon.send_signal(signal.SIGTERM)
    said = daemon.communicate(timeout=DEADLINE_S)[1]
    state = files.state(run_id)
    if state.plan.workspace == "worktree":
        assert files.git("rev-parse", f"parallel-agents/{run_id}").strip() == state.integration, said
