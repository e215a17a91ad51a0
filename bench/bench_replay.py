"""The replay of a million events: 10 runs of 25,000 tasks, each queued, started, charged and completed.

``hot`` is how every reader gets a run's state and cost: from the stored rows, with an event object for none of the frequent
types. ``typed`` builds every event. The baseline selects the same rows, parses their bodies with orjson and keeps a dict of
status, attempts and times by task, and the sum of the costs. It knows no plans, so those are loaded before the clock starts;
what a whole view takes, plan included, is a line of its own.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import Any

import orjson

from bench.bench_append import OUTPUT
from bench.measure import ROUNDS, Goal, ratio, scratch, take_turns, tell
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import new_ids
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.replay import replay
from parallel_agents.projections.status import RunState

RUNS = 10
TASKS = 25_000
PER_COMMIT = 100  # Tasks; 400 events.


def lives(task_ids: list[str], attempt_ids: list[str], chance: random.Random) -> Iterator[ev.Event]:
    """The events of some tasks, from queued to completed, mixed as those of parallel attempts are."""
    for task_id in task_ids:
        yield ev.TaskQueued(task_id=task_id)
    for task_id, attempt_id in zip(task_ids, attempt_ids, strict=True):
        yield ev.TaskStarted(
            task_id=task_id, attempt_id=attempt_id, attempt=1, runner="shell", model="opus",
            facts={"run_slots": 3, "store_slots": 4},
        )  # fmt: skip
    for task_id, attempt_id in zip(task_ids, attempt_ids, strict=True):
        yield ev.CostCharged(
            task_id=task_id, attempt_id=attempt_id, usd_micros=chance.randrange(1_000_000), model="opus",
            agent_type="backend-engineer", input_tokens=20_000, output_tokens=1_500, calls=12,
        )  # fmt: skip
        yield ev.TaskCompleted(
            task_id=task_id, attempt_id=attempt_id, duration_s=chance.random() * 100, exit_code=0,
            output=OUTPUT, cpu_s=2.5, peak_memory_bytes=120_000_000,
        )  # fmt: skip


def fill(log: Log) -> list[str]:
    """Make the runs, through the log itself. Gives their ids."""
    chance = random.Random(1)
    run_ids = new_ids(RUNS)
    task_ids = [f"task-{number}" for number in range(TASKS)]
    plan = Plan(name="bench", tasks=tuple(Task(task_id=name, command=("true",)) for name in task_ids)).to_bytes()

    def begin(draft: Draft) -> None:
        draft.add_blob(digest_of(plan), plan)
        for run_id in run_ids:
            submitted = ev.RunSubmitted(
                name="bench", plan_digest=digest_of(plan), task_count=TASKS, strategy="concurrent", workspace="none",
                workdir="/",
            )  # fmt: skip
            draft.add(run_id, submitted)
            draft.add(run_id, ev.RunStarted())

    log.transact(begin)
    for run_id in run_ids:
        for first in range(0, TASKS, PER_COMMIT):
            names = task_ids[first : first + PER_COMMIT]
            attempt_ids = new_ids(len(names))

            def add(draft: Draft, run_id: str = run_id, names: list[str] = names, ids: list[str] = attempt_ids) -> None:
                for event in lives(names, ids, chance):
                    draft.add(run_id, event)

            log.transact(add)
        log.transact(lambda draft, run_id=run_id: draft.add(run_id, ev.RunCompleted(counts={"completed": TASKS})))  # type: ignore[misc]
    return run_ids


def baseline(connection: sqlite3.Connection, run_id: str) -> int:
    """Gives the cost, in micro-dollars."""
    cost = 0
    tasks: dict[str, dict[str, object]] = {}
    rows = connection.execute("SELECT type, at, body FROM events WHERE run_id = ? ORDER BY version", (run_id,))
    for type_, at, body in rows:
        data = orjson.loads(body)
        if type_ == "CostCharged":
            cost += data["usd_micros"]
        elif type_ == "TaskQueued":
            tasks[data["task_id"]] = {"status": "queued", "queued_at": at}
        elif type_ == "TaskStarted":
            task = tasks[data["task_id"]]
            task["status"], task["attempts"], task["started_at"] = "running", data["attempt"], at
        elif type_ == "TaskCompleted":
            task = tasks[data["task_id"]]
            task["status"], task["ended_at"], task["exit_code"] = "completed", at, data["exit_code"]
            task["output"], task["duration_s"] = data["output"], data["duration_s"]
    return cost


def submitted(log: Log, run_id: str) -> RunState:
    """The state after the first event: the plan is loaded."""
    return replay(status_fold.initial(run_id), islice(log.briefs(run_id), 1), log.blob)


def typed(log: Log, state: RunState) -> int:
    """The same by events."""
    cost = Cost()
    for record in islice(log.read(run_id=state.run_id), state.version, None):
        status_fold.fold(state, record, log.blob)
        cost_fold.fold(cost, record)
    assert state.status == "completed"
    return cost.usd_micros


def hot(log: Log, state: RunState) -> int:
    """The same by rows."""
    cost = Cost()
    replay(state, log.briefs(state.run_id, state.version), log.blob, cost)
    assert state.status == "completed"
    return cost.usd_micros


def view(log: Log, run_id: str) -> int:
    """The same by what commands ask, without snapshots."""
    return Projector(log, use_snapshots=False).view(run_id).cost.usd_micros


def main() -> None:
    """Print both ratios."""
    with scratch() as folder:
        path = folder / "events.db"
        with Log(path, environ={}) as log:
            begun = time.perf_counter()
            run_ids = fill(log)
            events = log.last_seq()
            print(f"{events:,} events made in {time.perf_counter() - begun:.0f} s", flush=True)

            connection = sqlite3.connect(path)

            def rate(fold: Callable[[Any], int], prepare: Callable[[str], Any] = str) -> float:
                """Events a second, run by run; what prepares a run is not timed."""
                took, cost = 0.0, 0
                for run_id in run_ids:
                    prepared = prepare(run_id)
                    begun = time.perf_counter()
                    cost += fold(prepared)
                    took += time.perf_counter() - begun
                costs.add(cost)
                return events / took

            costs: set[int] = set()
            found = take_turns(
                {
                    "hot": lambda: rate(lambda state: hot(log, state), lambda run_id: submitted(log, run_id)),
                    "typed": lambda: rate(lambda state: typed(log, state), lambda run_id: submitted(log, run_id)),
                    "view": lambda: rate(lambda run_id: view(log, run_id)),
                    "baseline": lambda: rate(lambda run_id: baseline(connection, run_id)),
                },
                ROUNDS,
            )
            connection.close()
            assert len(costs) == 1, costs
    for what, name, goal in (
        ("hot fold", "hot", Goal(0.6, 0.8)),
        ("typed fold", "typed", Goal(0.25, 0.35)),
        ("views, plans included", "view", None),
    ):
        detail = f"{median(found[name]):,.0f} events/s against {median(found['baseline']):,.0f}"
        tell(f"replay: a million events, {what}", ratio(found[name], found["baseline"]), goal, detail)


if __name__ == "__main__":
    main()
