"""An archive that is killed at any moment loses nothing, and the next one brings it to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_agents import archiving, look
from parallel_agents.archived import at_hand
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import archive_folder
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.history import Question, history
from parallel_agents.verification import verify

TASKS = 10
ROWS_A_COMMIT = 16  # So that the bodies go in several commits.
PLAN = Plan(name="house", workspace="none", tasks=tuple(Task(task_id=f"t{number}") for number in range(TASKS)))
# Kills itself with -9 right before the nth call of a function that changes something outside.
KILLED = """
import os, signal, sys
from pathlib import Path

import pytest
from parallel_agents import archiving, housekeeping
from parallel_agents.eventstore import caches
from parallel_agents.eventstore.log import Log

left = int(sys.argv[2])

def dying(function):
    def called(*args, **kwargs):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return called

class DyingConnection:
    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *values):
        if statement.startswith(("COMMIT", "DELETE")):
            return dying(self._connection.execute)(statement, *values)
        return self._connection.execute(statement, *values)

caches._CHUNK = int(sys.argv[3])
os.replace, os.fsync, os.open = dying(os.replace), dying(os.fsync), dying(os.open)
Path.touch, Path.unlink, Path.rmdir = dying(Path.touch), dying(Path.unlink), dying(Path.rmdir)
housekeeping.delete = dying(housekeeping.delete)
with Log(Path(sys.argv[1]), environ={}) as log:
    log._writer = DyingConnection(log._writer)
    archiving.archive(log, ["alpha"], named=True)
"""


def add_run(log: Log) -> None:
    """One that has completed, of tasks with large outputs and files."""
    submitted = ev.RunSubmitted(
        name="house", plan_digest=digest_of(PLAN.to_bytes()), task_count=TASKS, strategy="concurrent",
        workspace="none", workdir="/project",
    )  # fmt: skip
    events: list[ev.Event] = [submitted, ev.RunStarted()]
    for number in range(TASKS):
        who = {"task_id": f"t{number}", "attempt_id": f"attempt{number}"}
        events += [
            ev.TaskQueued(task_id=who["task_id"]),
            ev.TaskStarted(**who, attempt=1, runner="shell"),
            ev.TaskCompleted(**who, duration_s=1.0, output=f"{number} " * 300),
        ]
        folder = attempts_folder(log.path) / "alpha" / who["task_id"] / who["attempt_id"]
        folder.mkdir(parents=True)
        (folder / "stdout.log").write_text(f"{number}\n" * 100)
    events.append(ev.RunCompleted(counts={"completed": TASKS}))
    log.append("alpha", 0, events, blobs={submitted.plan_digest: PLAN.to_bytes()})


def answers(log: Log) -> object:
    """What can be seen of the run."""
    lines = [look.history_row(row) for row in history(log, Question("alpha")) if row is not None]
    files = []
    for number in range(TASKS):
        with at_hand(log.path, attempts_folder(log.path) / "alpha" / f"t{number}" / f"attempt{number}") as folder:
            files.append((folder / "stdout.log").read_bytes())
    return lines, look.status(log, "alpha"), files


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_step_nothing_is_lost_and_the_next_call_ends_it(tmp_path: Path) -> None:
    """Before calls that change the disk or the store, the first eight and every fourth, until one comes through."""
    step, codes, committed = 0, [], 0
    while not codes or codes[-1] != 0:
        step += 1
        assert step < 400, "it never comes through"
        if step > 8 and step % 4 and codes[-1] != 0:  # Files are synced, and folders go, one like the other.
            codes.append(-9)
            continue
        store = tmp_path / str(step) / "events.db"
        store.parent.mkdir()
        with Log(store, environ={}) as log:
            add_run(log)
            before = answers(log)
            command = [sys.executable, "-c", KILLED, str(store), str(step), str(ROWS_A_COMMIT)]
            killed = subprocess.run(command, capture_output=True, text=True)
            codes.append(killed.returncode)
            assert killed.returncode in (0, -9), killed.stderr
        with Log(store, environ={}) as log:
            assert answers(log) == before
            assert verify(log)["ok"]
            committed += any(row.type == "RunArchived" for row in log.rows())
            archiving.archive(log, ["alpha"], named=True)
            assert answers(log) == before
            assert verify(log)["ok"]
            assert sum(not row.body for row in log.rows(stored=True)) == TASKS
            assert sum(row.type == "RunArchived" for row in log.rows()) == 1
            assert [path.name for path in archive_folder(store).iterdir()] == [f"alpha-{3 + 3 * TASKS}.zip"]
            assert not (attempts_folder(store) / "alpha").exists()
    assert committed > 3
    assert len(codes) > 30
