"""`verify` of a million events against SHA-256 over the same bytes and the select that reads them.

The baseline selects the same columns in the same order and feeds what the chain covers (body, envelope, digest, previous hash) to
one SHA-256. `verify` takes two digests for each event and compares. Once as it is, with a process for each
processor, and once by itself in one process. Memory is that of the whole command, with the processes that it starts.
"""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from statistics import median
from unittest import mock

import psutil

from bench.bench_replay import fill
from bench.measure import ROUNDS, Goal, ratio, scratch, take_turns, tell
from parallel_agents import verification
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.stored_rows import COLUMNS

COMMAND = (sys.executable, "-m", "parallel_agents.cli.main")
_COLLECT_AFTER = 20_000  # As the command has it.
_LOOK_S = 0.01  # Between two looks at what is held.


def baseline(connection: sqlite3.Connection) -> str:
    """One digest over all of it."""
    digest = sha256()
    for seq, run_id, version, type_, at, actor, body, body_digest, prev_hash, _ in connection.execute(
        f"SELECT {COLUMNS} FROM events ORDER BY seq"
    ):
        digest.update(body.encode())
        digest.update(prev_hash)
        digest.update(f"{seq}\x1f{run_id}\x1f{version}\x1f{type_}\x1f{at}\x1f{actor}\x1f".encode())
        digest.update(body_digest)
    return digest.hexdigest()


def rate(events: int, check: Callable[[], object]) -> float:
    """Events a second."""
    begun = time.perf_counter()
    assert check()
    return events / (time.perf_counter() - begun)


def memory_mb(store: Path) -> float:
    """The most that the command and the processes that it starts were seen to hold together."""
    words = (*COMMAND, "--store", str(store), "verify")
    most = 0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                one = psutil.Process(process.pid)
                most = max(most, sum(each.memory_info().rss for each in (one, *one.children())))
            time.sleep(_LOOK_S)
    assert process.returncode == 0
    return most / 1e6


def main() -> None:
    """Print the ratios."""
    gc.set_threshold(_COLLECT_AFTER)
    with scratch() as folder:
        path = folder / "events.db"
        with Log(path, environ={}) as log:
            fill(log)
            events = log.last_seq()
            connection = sqlite3.connect(path)

            def alone() -> bool:
                with mock.patch.object(verification, "MOST_PROCESSES", 1):
                    return bool(verification.verify(log)["ok"])

            found = take_turns(
                {
                    "verify": lambda: rate(events, lambda: verification.verify(log)["ok"]),
                    "alone": lambda: rate(events, alone),
                    "baseline": lambda: rate(events, lambda: baseline(connection)),
                },
                ROUNDS,
            )
            connection.close()
        memory = memory_mb(path)
    took = events / median(found["verify"])
    for what, name, goal in (("", "verify", Goal(0.5, 0.8)), (", in one process", "alone", None)):
        detail = f"{median(found[name]):,.0f} events/s against {median(found['baseline']):,.0f}"
        tell(f"verify: a million events{what}", ratio(found[name], found["baseline"]), goal, detail)
    tell("verify: memory", memory, Goal(200, 100, more_is_better=False), f"a million events in {took:.1f} s", unit="MB")


if __name__ == "__main__":
    main()
