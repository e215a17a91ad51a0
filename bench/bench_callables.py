"""No-op callables through their whole durable life: queued, started and completed, each on record before the next step.

4 at once against huey on SQLite at its defaults (WAL, synchronous FULL) with four threads, enqueueing included as the
submission is on our side. 64 at once against the standard library's sqlite3 that writes the same three events of every task,
hash chain included, in batches of 100 tasks.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import sqlite3
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from huey import SqliteHuey
from huey.signals import SIGNAL_COMPLETE

from bench.dispatching import run_callables
from bench.measure import Goal, ratio, scratch, take_turns, tell
from parallel_agents.eventstore.log import Log

TASKS = 3000
BATCH = 100
DEADLINE_S = 60
# What each of the three events holds besides the task's id.
LIFE: dict[str, dict[str, Any]] = {
    "TaskQueued": {"reason": ""},
    "TaskStarted": {"attempt_id": "k3j5h2l4m6", "attempt": 1, "runner": "python", "model": None, "base_commit": None,
                    "facts": {"run_slots": 63, "store_slots": 63}},
    "TaskCompleted": {"attempt_id": "k3j5h2l4m6", "duration_s": 0.000123, "exit_code": 0, "output": None, "cpu_s": 0.0001,
                      "peak_memory_bytes": 104857600},
}  # fmt: skip
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def nothing() -> None:
    """What every task does."""


def ours(path: Path, at_once: int) -> float:
    """Tasks a second, from the submission to the run's end."""
    with Log(path, environ={}) as log:
        begun = time.perf_counter()
        run_callables(log, {f"task-{number}": (nothing, ()) for number in range(TASKS)}, at_once=at_once)
        return TASKS / (time.perf_counter() - begun)


def huey(path: Path) -> float:
    """Tasks a second, from the first enqueueing to the last stored result."""
    logging.getLogger("huey").setLevel(logging.ERROR)
    queue = SqliteHuey("bench", filename=str(path))
    done = threading.Semaphore(0)
    queue.signal(SIGNAL_COMPLETE)(lambda _signal, _task: done.release())

    @queue.task()
    def give(number: int) -> int:
        return number

    consumer = queue.create_consumer(workers=4, periodic=False, initial_delay=0.001, max_delay=0.01)
    begun = time.perf_counter()
    for number in range(TASKS):
        give(number)
    consumer.start()
    for _ in range(TASKS):
        assert done.acquire(timeout=DEADLINE_S)
    took = time.perf_counter() - begun
    consumer.stop(graceful=True)
    queue.storage.close()
    return TASKS / took


def stdlib(path: Path) -> float:
    """Tasks a second by hand: three commits for a batch of tasks, their events made as JSON and chained."""
    Log(path, environ={}).close()  # For the table alone.
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    prev_hash, seq = bytes(32), 0
    begun = time.perf_counter()
    for first in range(0, TASKS, BATCH):
        for type_, fields in LIFE.items():
            rows = []
            for number in range(first, first + BATCH):
                seq += 1
                body = orjson.dumps({"task_id": f"task-{number}", **fields})
                digest = hashlib.sha256(body).digest()
                envelope = f"{seq}\x1fabcdefghij\x1f{seq}\x1f{type_}\x1f1700000000000000\x1flocal\x1f".encode()
                link = hashlib.sha256(prev_hash + envelope + digest).digest()
                rows.append(
                    (seq, "abcdefghij", seq, type_, 1700000000000000, "local", body.decode(), digest, prev_hash, link)
                )
                prev_hash = link
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")
    took = time.perf_counter() - begun
    connection.close()
    return TASKS / took


def main() -> None:
    """Print both ratios."""
    with scratch() as folder:
        number = itertools.count()

        def store() -> Path:
            return folder / f"{next(number)}.db"

        four = take_turns({"ours": lambda: ours(store(), 4), "huey": lambda: huey(store())}, rounds=7)
        detail = f"{median(four['ours']):,.0f} tasks/s against {median(four['huey']):,.0f} of huey"
        tell("callables: 4 at once, whole life", ratio(four["ours"], four["huey"]), Goal(3, 4), detail)
        many = take_turns({"ours": lambda: ours(store(), 64), "stdlib": lambda: stdlib(store())}, rounds=7)
        detail = f"{median(many['ours']):,.0f} tasks/s against {median(many['stdlib']):,.0f} of stdlib sqlite3"
        tell("callables: 64 at once, whole life", ratio(many["ours"], many["stdlib"]), Goal(0.4, 0.7), detail)


if __name__ == "__main__":
    main()
