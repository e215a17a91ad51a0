"""Starts on a store of a million events, as whoever comes back after months meets it.

384 runs of agents have ended there. What is timed is a whole process: ``daemon run`` from its exec to its first commit, with
which it takes a run that waits and for which it must know what was ever spent; a plan of one task; what reads the list of
runs, and what reads one run. ``cold``: the last process was killed, and nothing of the store is in the page cache. ``warm``:
once more. The first start of all finds no snapshot of any fold, as that of a store which an older release has written.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from bench.bench_commands import COMMAND, ENVIRONMENT, seconds
from bench.long_history import Calendar, fill
from bench.measure import Goal, scratch, tell
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import FileSettings, Plan, Stage, Task
from parallel_agents.submit import submit

EVENTS = 1_000_000
ROUNDS = 3
GIVE_UP_S = 300.0
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
    """Nothing of the store in the page cache."""
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


class Took(NamedTuple):
    """Seconds, those of processors among them, and megabytes of memory at the end where they were looked at."""

    seconds: float
    cpu_s: float
    memory_mb: float = 0.0


def command(project: Path, *words: str) -> Took:
    """A whole command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = seconds([*COMMAND, *words], project)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def daemon(store: Path) -> Took:
    """A daemon from its exec to its claim on a run, which it then ends; after that it is killed."""
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
            took, used = time.perf_counter() - begun, psutil.Process(process.pid).cpu_times()
            wait_for("RunCompleted")  # What is left running would hold a slot.
            return Took(took, used.user + used.system, psutil.Process(process.pid).memory_info().rss / 1e6)
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
        first = daemon(store)
        tell(
            "startup: a million events, the first start of all",
            first.seconds,
            None,
            f"{first.cpu_s:.2f} s of processor",
            unit="s",
        )
        measures: dict[str, Callable[[], Took]] = {
            "the first tick of a daemon": lambda: daemon(store),
            "`run` of one task": lambda: command(project, "run", "plan.json"),
            "`runs`": lambda: command(project, "runs"),
            "`status`": lambda: command(project, "status"),
            "`status` of a run of 400 tasks": lambda: command(project, "status", some.run_id),
            "`queue`": lambda: command(project, "queue"),
        }
        for name, measure in measures.items():
            for how in ("cold", "warm"):
                found: list[Took] = []
                for _ in range(ROUNDS):
                    if how == "cold":
                        daemon(store)  # Killed with its work in the write-ahead log.
                        forget(store)
                    found.append(measure())
                took = median(one.seconds for one in found)
                detail = f"{median(one.cpu_s for one in found):.2f} s of processor"
                tell(f"startup: a million events, {name}, {how}", took, GOAL, detail, unit="s")
        memory_mb = daemon(store).memory_mb
        tell("startup: a million events, memory of a daemon", memory_mb, None, "its first run has ended", unit="MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
