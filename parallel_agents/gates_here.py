"""Quality gates on what a person lets be merged: run by the person's own process, in a checkout that goes afterwards.

The dispatcher runs them on every merge of its own. A merge that is approved or resolved is made by whoever says so, and
must not be known less of.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parallel_agents.checkpoint import worktrees
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.location import attempts_folder, files_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import Gate
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.checkouts import GATES
from parallel_agents.scheduler.environment import process_environment
from parallel_agents.scheduler.harvest import gated
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.scheduler.work import Gated

_STOP_S = 3.0  # For a gate that is interrupted, between SIGTERM and SIGKILL.


def task_gates(state: RunState) -> list[Gate]:
    """The gates that follow every task of a run, and hence every merge; none where its attempts share one directory."""
    if state.plan.workspace != "worktree":
        return []
    return [gate for gate in state.plan.files.gates if gate.after == "task"]


def run_gates(
    log: Log, repository: Repository, state: RunState, task: TaskState, commit: str, say: Callable[[str], None]
) -> tuple[Gated, ...]:
    """Run the gates that follow a task on a merge of its work, up to the first that does not pass.

    Args:
        commit: the merge.
        say: told what is run, before it is.
    Raises:
        GitFailed: there can be no checkout of it.
    """
    spec, home = task.task, files_home(Path(log.path))
    identity = {"RUN": state.run_id, "TASK": spec.task_id}
    env = process_environment(os.environ, state.environment, spec.env, spec.env_from, identity)
    folder = attempts_folder(Path(log.path)) / state.run_id / spec.task_id / str(task.attempt_id) / "gates"
    done: list[Gated] = []
    with _checkout(repository, home / "worktrees" / state.run_id / f"{GATES}-{new_id()}", commit, state) as top:
        cwd = top / os.path.relpath(state.workdir, repository.top)
        for gate in task_gates(state):
            say(f"gate: {' '.join(gate.command)}")
            launch = Launch(
                run_id=state.run_id, task_id=spec.task_id, attempt_id=(gate_id := new_id()), folder=folder / gate_id,
                workdir=cwd, command=gate.command, env=env, timeout_s=gate.timeout_s,
                max_output_bytes=state.plan.settings.max_output_bytes,
            )  # fmt: skip
            done.append(gated("merge", gate, _run(launch), str(launch.folder), commit))
            if not done[-1].passed:
                break
    return tuple(done)


@contextmanager
def _checkout(repository: Repository, path: Path, commit: str, state: RunState) -> Iterator[Path]:
    worktrees.add(repository, path, commit, sparse=state.plan.sparse)
    try:
        worktrees.copy_included(repository, path)
        yield path
    finally:
        worktrees.remove(repository, path)


def _run(launch: Launch) -> Ended:
    """One command under a supervisor, to its end. Interrupted, it is stopped first."""
    rung = threading.Event()
    runner = ShellRunner(rung.set)

    def wait(timeout_s: float | None) -> Ended | None:
        while not (ends := runner.poll()):
            if not rung.wait(timeout_s):
                return None
            rung.clear()
        return ends[0]

    try:
        runner.start(launch)
        ended = wait(None)
        assert ended is not None, "nobody gave up"
        return ended
    except BaseException:
        runner.stop(launch.attempt_id, grace_s=_STOP_S)
        wait(2 * _STOP_S)
        raise
    finally:
        runner.close()
