"""From the end of a callable to the begin of the one that waits for it, in a chain of 200; in between lies one durable commit.

The times are taken inside the callables. What such a commit alone takes on this disk stands beside them.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from bench.dispatching import run_callables
from bench.measure import ROUNDS, Goal, scratch, tell
from parallel_agents.eventstore.log import Log

LENGTH = 200


def gaps_ms(path: Path) -> list[float]:
    """Milliseconds from each end to the next begin."""
    spans: list[tuple[float, float]] = []

    def link() -> None:
        begun = time.perf_counter()
        spans.append((begun, time.perf_counter()))

    calls: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
        f"link-{number}": (link, (f"link-{number - 1}",) if number else ()) for number in range(LENGTH)
    }
    with Log(path, environ={}) as log:
        run_callables(log, calls, at_once=4)
    return [(begin - end) * 1000 for (_, end), (begin, _) in itertools.pairwise(spans)]


def commits_ms(path: Path) -> list[float]:
    """Milliseconds of commits by the standard library's sqlite3, each of three rows as large as an event."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT, hash BLOB)")
    took = []
    for _ in range(LENGTH):
        begun = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events (body, hash) VALUES (?, ?)", [("x" * 200, bytes(32))] * 3)
        connection.execute("COMMIT")
        took.append((time.perf_counter() - begun) * 1000)
    connection.close()
    return took


def main() -> None:
    """Print the median and the 99th percentile."""
    with scratch() as folder:
        gaps_ms(folder / "warm.db")
        gaps: list[float] = []
        commits: list[float] = []
        for number in range(2 * ROUNDS):
            gaps += gaps_ms(folder / f"{number}.db")
            commits += commits_ms(folder / f"{number}-bare.db")
        for what, found, bare, goal in (
            ("median", median(gaps), median(commits), Goal(1, 0.7, more_is_better=False)),
            ("99th percentile", _p99(gaps), _p99(commits), Goal(5, 3, more_is_better=False)),
        ):
            detail = f"{found / bare:.1f} times a bare commit ({bare:.2f} ms)"
            tell(f"chain: completed to next started, {what}", found, goal, detail, unit="ms")


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


if __name__ == "__main__":
    main()
