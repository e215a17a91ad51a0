"""Events appended and committed, validated, redacted and chained, against the standard library's sqlite3.

The baseline writes the same rows into the same table with the same pragmas, hash chain included; its bodies are ready-made.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import time
from pathlib import Path
from statistics import median

from bench.measure import Goal, ratio, scratch, take_turns, tell
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log

OUTPUT = (
    "The checkout page shows the basket, takes an address and a card, and hands the order on. 14 tests passed."
    + " " * 20
)
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def an_event(number: int) -> ev.TaskCompleted:
    """A typical event, with a body of about 320 bytes."""
    return ev.TaskCompleted(
        task_id=f"task-{number}", attempt_id="k3j5h2l4m6", duration_s=12.25, exit_code=0, output=OUTPUT, cpu_s=3.5,
        peak_memory_bytes=104857600,
    )  # fmt: skip


def ours(path: Path, commits: int, per_commit: int) -> float:
    """Events a second through the log, made and validated in that time too."""
    with Log(path, environ={}) as log:
        begun = time.perf_counter()
        for commit in range(commits):
            first = commit * per_commit
            log.append("abcdefghij", first, [an_event(number) for number in range(first, first + per_commit)])
        return commits * per_commit / (time.perf_counter() - begun)


def stdlib(path: Path, commits: int, per_commit: int) -> float:
    """Events a second by hand."""
    Log(path, environ={}).close()  # For the table alone.
    body = an_event(1000).model_dump_json()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    prev_hash, seq = bytes(32), 0
    begun = time.perf_counter()
    for _ in range(commits):
        rows = []
        for _ in range(per_commit):
            seq += 1
            digest = hashlib.sha256(body.encode()).digest()
            envelope = f"{seq}\x1fabcdefghij\x1f{seq}\x1fTaskCompleted\x1f1700000000000000\x1flocal\x1f".encode()
            link = hashlib.sha256(prev_hash + envelope + digest).digest()
            rows.append(
                (seq, "abcdefghij", seq, "TaskCompleted", 1700000000000000, "local", body, digest, prev_hash, link)
            )
            prev_hash = link
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")
    took = time.perf_counter() - begun
    connection.close()
    return commits * per_commit / took


def main() -> None:
    """Print both ratios."""
    with scratch() as folder:
        number = itertools.count()

        def store() -> Path:
            return folder / f"{next(number)}.db"

        for what, commits, per_commit, goal in (
            ("append: one event a commit", 300, 1, Goal(0.8, 0.9)),
            ("append: 100 events a commit", 60, 100, Goal(0.6, 0.8)),
        ):
            found = take_turns(
                {
                    "ours": lambda commits=commits, each=per_commit: ours(store(), commits, each),
                    "stdlib": lambda commits=commits, each=per_commit: stdlib(store(), commits, each),
                },
                rounds=15,
            )
            detail = f"{median(found['ours']):,.0f}/s against {median(found['stdlib']):,.0f}/s of stdlib sqlite3"
            tell(what, ratio(found["ours"], found["stdlib"]), goal, detail)


if __name__ == "__main__":
    main()
