"""The SQL views of a store of a million events, as a person or Datasette asks them: questions with conditions, and whole views.

The three stores are those of ``bench past``: one run of 166,666 tasks; one of 1,000 tasks, each done again and again; a
thousand runs. What is asked is in the middle of the log. Times are those by the clock from the call to the last row, medians.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.bench_past import EVENTS, many_runs, one_run, warm
from bench.measure import Goal, scratch, tell
from parallel_agents.eventstore import views
from parallel_agents.eventstore.log import Log

GOAL = Goal(100.0, 20.0, more_is_better=False)
ROUNDS = 15
_OF_WHOLE_VIEWS = 1  # Each takes seconds.
QUESTIONS = (
    "SELECT * FROM runs",
    "SELECT * FROM runs WHERE run_id = :run",
    "SELECT * FROM tasks WHERE run_id = :run AND task_id = :task",
    "SELECT * FROM tasks WHERE run_id = :run LIMIT 20",
    "SELECT * FROM tasks LIMIT 20",
    "SELECT * FROM attempts WHERE run_id = :run AND task_id = :task",
    "SELECT * FROM attempts WHERE run_id = :run AND attempt_id = :attempt",
    "SELECT * FROM attempts WHERE attempt_id = :attempt",
    "SELECT * FROM attempts LIMIT 20",
    "SELECT * FROM attempts ORDER BY started_seq DESC LIMIT 20",
    "SELECT * FROM costs WHERE run_id = :run AND task_id = :task",
    "SELECT * FROM costs ORDER BY seq DESC LIMIT 20",
    "SELECT * FROM conflicts WHERE run_id = :run",
    "SELECT * FROM history LIMIT 20",
    "SELECT * FROM history ORDER BY seq DESC LIMIT 20",
    "SELECT * FROM history WHERE run_id = :run ORDER BY version DESC LIMIT 20",
    "SELECT * FROM decisions LIMIT 20",
    "SELECT * FROM decisions ORDER BY seq DESC LIMIT 20",
    "SELECT * FROM decisions WHERE run_id = :run AND task_id = :task",
)
OF_A_RUN = (
    "SELECT * FROM tasks WHERE run_id = :run",
    "SELECT * FROM attempts WHERE run_id = :run",
    "SELECT * FROM costs WHERE run_id = :run",
    "SELECT * FROM attempts WHERE run_id = :run ORDER BY started_seq DESC LIMIT 20",
    "SELECT * FROM history WHERE run_id = :run ORDER BY seq DESC LIMIT 20",
    "SELECT run_id, count(*) FROM attempts WHERE run_id = :run GROUP BY run_id",
    "SELECT run_id, count(*) FROM tasks WHERE run_id = :run GROUP BY run_id",
)
"""In proportion to the run: small where the runs are, and without a goal where one run is the whole log."""
WHOLE = (
    *(query for name in views.VIEWS for query in (f"SELECT count(*) FROM {name}", f"SELECT * FROM {name}")),
    "SELECT * FROM tasks ORDER BY seq DESC LIMIT 20",
    (
        "SELECT c.model, sum(c.usd), sum(c.usd * (a.undone OR a.outcome <> 'completed')) AS wasted"
        " FROM costs AS c JOIN attempts AS a USING (attempt_id) GROUP BY c.model"
    ),
    "SELECT at, decision, task_id, reason FROM decisions WHERE at BETWEEN '2026-03-01T11:00:00' AND '2026-03-01T12:00:00'",
)


def about(connection: sqlite3.Connection) -> dict[str, str]:
    """A run, a task and an attempt of it, from the middle of the log."""
    query = (
        "SELECT run_id, json_extract(body, '$.task_id'), json_extract(body, '$.attempt_id') FROM events"
        " WHERE type = 'TaskStarted' AND seq > ? LIMIT 1"
    )
    return dict(zip(("run", "task", "attempt"), connection.execute(query, (EVENTS // 2,)).fetchone(), strict=True))


def ask(connection: sqlite3.Connection, query: str, values: dict[str, str], rounds: int) -> tuple[float, float, int]:
    """Milliseconds: the median and the ninth decile; and how many rows came."""
    took, count = [], 0
    for _ in range(rounds):
        begun = time.perf_counter()
        count = sum(1 for _ in connection.execute(query, values))
        took.append((time.perf_counter() - begun) * 1e3)
    return median(took), sorted(took)[len(took) * 9 // 10], count


def questions(store: Path, what: str, *, small_runs: bool) -> None:
    """All of them, to one store."""
    with Log(store, environ={}) as log:  # Which gives it the views of this release,
        log.make_indexes()  # and these, as a dispatcher does.
    warm(store)
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        values = about(connection)
        for group, goal, rounds in (
            (QUESTIONS, GOAL, ROUNDS), (OF_A_RUN, GOAL if small_runs else None, ROUNDS if small_runs else _OF_WHOLE_VIEWS),
            (WHOLE, None, _OF_WHOLE_VIEWS),
        ):  # fmt: skip
            for query in group:
                half, most, count = ask(connection, query, values, rounds)
                told = query.removeprefix("SELECT ").replace(" ORDER BY", " BY").replace("run_id = :run", "run")
                detail = f"p90 {most:.1f} ms, {count:,} rows"
                tell(f"views: {what}: {told}"[:110], half, goal, detail, unit="ms")


def main(named: str | None = None) -> None:
    """Print the figures.

    Args:
        named: a folder in which an earlier call, or one of ``bench past``, has made the stores; or they are made there.
    """
    with scratch() as fresh:
        folder = Path(named) if named else fresh
        for name, tasks, again in (("large", EVENTS // 6, 0), ("busy", 1_000, EVENTS // 7_000)):
            store = folder / name / ".parallel-agents" / "events.db"
            if not store.exists():
                one_run(folder / name, tasks, again)
            questions(store, name, small_runs=False)
        store = folder / "many" / ".parallel-agents" / "events.db"
        if not store.exists():
            many_runs(folder / "many")
        questions(store, "many", small_runs=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
