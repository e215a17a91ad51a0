"""Questions to a store of a million events: ``history`` with filters, ``why`` and ``show``, and the SQL views.

384 runs of agents have ended there; in the second store one run has all the events. The time of a question is that from the
call to the last row, in a process that has everything imported; nothing is printed. What is told as ``first`` was asked
before the blocks of the log were known (see ``eventstore/blocks.py``); a dispatcher, or who asks first, leaves them.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from bench.bench_commands import COMMAND, ENVIRONMENT, seconds
from bench.bench_startup import make
from bench.long_history import Calendar, add_run
from bench.measure import ROUNDS, Goal, ratio, scratch, take_turns, tell
from parallel_agents import look
from parallel_agents.eventstore import blocks, views
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import new_ids
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.history import Question, history
from parallel_agents.why import why

EVENTS = 1_000_000
TASKS = 153_500  # Of the one run that has all the events.
GOAL = Goal(100.0, 50.0, more_is_better=False)


def make_one_run(store: Path) -> None:
    """A store in which one run has a million events."""
    store.parent.mkdir(parents=True)
    task_ids = [f"task-{number}" for number in range(TASKS)]
    plan = Plan(name="one", tasks=tuple(Task(task_id=name, agent_type="worker") for name in task_ids))
    with Log(store, environ={}, clock=Calendar()) as log:
        add_run(log, new_ids(1)[0], plan.to_bytes(), task_ids, random.Random(2))
        print(f"{log.last_seq():,} events of one run, {store.stat().st_size / 1e6:.0f} MB", flush=True)


class Took(NamedTuple):
    """Milliseconds, those of processors among them, and how much came of it."""

    ms: float
    cpu_ms: float
    count: int


def took(ask: Callable[[], Any], rounds: int = ROUNDS) -> Took:
    """How long a question takes: the median."""
    times, cpu, count = [], [], 0
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        found = ask()
        count = 1 if isinstance(found, dict) else sum(1 for _ in found)
        times.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - used) * 1000)
    return Took(median(times), median(cpu), count)


def told(what: str, found: Took, goal: Goal | None, detail: str = "") -> None:
    """Print one of them."""
    detail = ", ".join(filter(None, (detail, f"{found.count:,} found, {found.cpu_ms:.1f} ms of processor")))
    tell(f"asking: {what}", found.ms, goal, detail, unit="ms")


def questions(log: Log, run_id: str | None) -> dict[str, Callable[[], Any]]:
    """What is asked of one run, or of all."""
    start = log.rows_where("type = 'TaskStarted' AND seq > ?", (log.last_seq() // 3,), limit=1)[0]
    attempt_id = orjson.loads(start.body)["attempt_id"]

    def ask(newest: int | None = None, **words: Any) -> Callable[[], Any]:
        return lambda: history(log, Question(run_id, **words), newest=newest)

    return {
        "--type RunCompleted": ask(types=("RunCompleted",)),
        "--type ConflictDetected": ask(types=("ConflictDetected",)),
        "--type TaskFailed --limit 20": ask(20, types=("TaskFailed",)),
        "--task task-7": ask(task_id="task-7"),
        "--task task-7 --limit 20": ask(20, task_id="task-7"),
        "--attempt ID": ask(attempt=attempt_id)
        if run_id in (None, start.run_id)
        else ask(task_id="task-7", attempt="1"),
        "--actor local --limit 20": ask(20, actor="local"),
        "--cost-over 0.3999": ask(cost_over_usd_micros=399_900),
        "--since SEQ --until SEQ": ask(since="500000", until="500200"),
        "--since TIME --limit 20": ask(20, since="2025-06-15T20:00:00Z", until="2025-06-16T20:00:00Z"),
        "--text overloaded --limit 20": ask(20, text="overloaded"),
        "--text of no event": ask(text="nothing of the kind"),
    }


def tell_questions(log: Log, what: str, run_id: str | None) -> None:
    """Ask them all."""
    for name, ask in questions(log, run_id).items():
        told(f"{what}, {name}", took(ask), GOAL)


def rows_of(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    """What somebody with a tool of SQLite's gets."""
    return connection.execute(query).fetchall()


_LOADED = """
import sys
from parallel_agents.cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
_IMPORTS = """
import gc, sys
gc.set_threshold(20_000)  # As the command sets it.
for name in sys.argv[1:]:
    __import__(name)
gc.freeze()
"""


def commands(project: Path, run_id: str) -> None:
    """Whole commands against the modules that they load, and nothing done with them."""
    for words in (
        ("status",), ("status", run_id), ("why", run_id, "task-7"), ("show", run_id, "task-7"),
        ("history", "--limit", "20"), ("history", "--all", "--limit", "20"),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _LOADED, *words], cwd=project, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-500:]
        loaded = [name for name in done.stderr.splitlines()[-1].split() if not name.startswith("__m")]
        imports = [sys.executable, "-c", _IMPORTS, *loaded]
        found = take_turns(
            {
                "imports": lambda: seconds(imports, project),  # noqa: B023
                "command": lambda: seconds([*COMMAND, *words], project),  # noqa: B023
            },
            rounds=9,
        )
        detail = f"{median(found['command']):.3f} s"
        said = " ".join("RUN" if word == run_id else "TASK" if word == "task-7" else word for word in words)
        goal = Goal(1.5, 1.3, more_is_better=False)
        tell(f"asking: `{said}` against its imports", ratio(found["command"], found["imports"]), goal, detail)


def main(named: str | None = None) -> None:
    """Print the figures.

    Args:
        named: a folder with the two projects ``many`` and ``one``, or for them; made once, they are used as they are.
    """
    with scratch() as folder:
        place = Path(named) if named else folder
        many, one = (place / name / ".parallel-agents" / "events.db" for name in ("many", "one"))
        if not many.exists():
            make(place / "many", EVENTS)
        if not one.exists():
            make_one_run(one)
        with Log(many, environ={}) as log:
            run_id = log.rows_where("seq = ?", (log.last_seq() // 2,))[0].run_id
            if not blocks.covered(log):
                for name, ask in list(questions(log, None).items())[1:2]:
                    told(f"all runs, {name}, the first time, with making the blocks", took(ask, 1), None)
            if not blocks.texts_covered(log):
                ask = questions(log, None)["--text of no event"]
                told("all runs, --text of no event, the first time, with noting the texts", took(ask, 1), None)
                blocks.catch_up_texts(log)  # Such a question does so for some seconds, and the next ones go on.
            tell_questions(log, "one of 384 runs", run_id)
            tell_questions(log, "all 384 runs", None)
            for name, answer in {
                "why RUN TASK": lambda: why(log, run_id, "task-7"),
                "show RUN TASK": lambda: look.show(log, run_id, "task-7"),
            }.items():
                told(f"{name}, one of 384 runs", took(answer), GOAL)
        commands(place / "many", run_id)
        with Log(one, environ={}) as log:
            blocks.catch_up(log)
            blocks.catch_up_texts(log)
            tell_questions(log, "one run of a million events", log.rows_where("seq = ?", (1,))[0].run_id)
        with closing(sqlite3.connect(f"{many.as_uri()}?mode=ro", uri=True)) as connection:
            for name in views.VIEWS:
                query = f"SELECT * FROM {name} LIMIT 100"
                told(query, took(partial(rows_of, connection, query), 3), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
