"""Starts on a store of a million events, as whoever comes back after months meets it.

384 runs of agents have ended there. What is timed is a whole process: ``daemon run`` from its exec to its first commit, with
which it takes a run that waits and for which it must know what was ever spent; a plan of one task; what reads the list of
runs, and what reads one run. ``cold``: nothing of the store in the page cache, the last process killed, no snapshot of any
fold. ``warm``: once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil

from bench.bench_commands import COMMAND, ENVIRONMENT, seconds
from bench.long_history import Calendar, fill
from bench.measure import Goal, scratch, tell
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import FileSettings, Plan, Stage, Task
from parallel_agents.submit import submit

EVENTS = 1_000_000
ROUNDS = 3
GIVE_UP_S = 120.0
GOAL = Goal(1.0, 0.6, more_is_better=False)
PLAN = {"name": "one", "workspace": "none", "tasks": [{"task_id": "a", "command": ["true"]}]}


def make(project: Path, events: int) -> Path:
    """A project with such a store. Gives the store's file."""
    store = project / ".parallel-agents" / "events.db"
    store.parent.mkdir(parents=True)
    (project / "plan.json").write_text(json.dumps(PLAN))
    with Log(store, environ={}, clock=Calendar()) as log:
        runs = fill(log, events)
        print(f"{log.last_seq():,} events of {len(runs)} runs, {store.stat().st_size / 1e6:.0f} MB", flush=True)
    return store


def forget(store: Path) -> None:
    """No snapshot, and nothing of the store in the page cache."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("DELETE FROM snapshots")
    for path in (store, store.with_name(store.name + "-wal")):
        if path.exists():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def submit_one(store: Path) -> str:
    """A run whose conflicts an agent would resolve, so that who takes it has to know what was spent."""
    plan = Plan(
        name="bench", workspace="none", stages=(Stage(name="all"),), files=FileSettings(conflicts="agent"),
        tasks=(Task(task_id="a", command=("true",)),),
    )  # fmt: skip
    with Log(store, environ={}) as log:
        return submit(log, plan, workdir=store.parent.parent)


def daemon(store: Path) -> tuple[float, float]:
    """Start a daemon, let it take and end a run, and kill it.

    Returns:
        Seconds from its exec to its first commit, and megabytes that it takes of the memory then.
    """
    run_id = submit_one(store)
    with Log(store, environ={}) as log:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, "daemon", "run"], cwd=store.parent.parent, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def wait_for(type_: str) -> None:
            while not any(brief[2] == type_ for brief in log.briefs(run_id)):
                assert process.poll() is None, "it has ended"
                assert time.perf_counter() < begun + GIVE_UP_S, f"there is no {type_}"
                time.sleep(0.005)

        try:
            wait_for("RunClaimed")
            took = time.perf_counter() - begun
            wait_for("RunCompleted")  # What is left running would hold a slot.
            return took, psutil.Process(process.pid).memory_info().rss / 1e6
        finally:
            process.kill()
            process.wait()


def main(named: str | None = None) -> None:
    """Print the figures.

    Args:
        named: a project that ``make`` has made before; it is used as it is.
    """
    with scratch() as folder:
        project = Path(named) if named else folder / "project"
        store = project / ".parallel-agents" / "events.db"
        if not store.exists():
            make(project, EVENTS)
        with Log(store, environ={}) as log:
            some = log.row(log.last_seq() // 2)
        assert some is not None

        def command(*words: str) -> Callable[[], float]:
            return lambda: seconds([*COMMAND, *words], project)

        measures = {
            "the first tick of a daemon": lambda: daemon(store)[0],
            "`run` of one task": command("run", "plan.json"),
            "`runs`": command("runs"),
            "`status`": command("status"),
            "`status` of a run of 400 tasks": command("status", some.run_id),
            "`queue`": command("queue"),
        }
        for name, measure in measures.items():
            for how in ("cold", "warm"):
                took = []
                for _ in range(ROUNDS):
                    if how == "cold":
                        daemon(store)  # Killed with its work in the write-ahead log.
                        forget(store)
                    took.append(measure())
                tell(f"startup: a million events, {name}, {how}", median(took), GOAL, "", unit="s")
        tell("startup: a million events, memory of an idle daemon", daemon(store)[1], None, "", unit="MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
