"""What we hold in memory for an agent that works: dispatcher and supervisor with 50 fake agents that hang, against with one.

The resident memory of both processes, without that of the clients. One agent has worked before, so that what the first one
loads (the price table, the readers) is in both figures; it is told apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from bench.agents_at_work import Found, fake, submit_agents, wait_for_end
from bench.measure import scratch, tell
from parallel_agents import steer
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine

AGENTS = 50
ROUNDS = 3
GIVE_UP_S = 120.0
STEPS = "write a.txt x\nhang"


def held_mb() -> float:
    """Of this process and of its supervisors, which are its children."""
    me = psutil.Process()
    return sum(one.memory_info().rss for one in (me, *me.children())) / 1e6


def unread(engine: Engine) -> bool:
    """Whether anything that agents have printed has not been read or priced yet. Once it has, no more is held for them."""
    assert engine._agents is not None
    watched = list(engine._agents._watched.values())
    return any(one.spent == 0 or one.tail.position < os.stat(one.tail.path).st_size for one in watched)


@contextmanager
def working(engine: Engine, log: Log, found: Found, folder: Path, count: int) -> Iterator[None]:
    """So many agents in the middle of an answer."""
    run_id = submit_agents(log, found, folder, [f"task-{number}" for number in range(count)], STEPS)
    engine.hold(run_id)
    home = folder / "runs" / run_id
    deadline = time.monotonic() + GIVE_UP_S
    while sum(b"long answer" in out.read_bytes() for out in home.glob("*/*/stdout.log")) < count or unread(engine):
        assert time.monotonic() < deadline, "they do not begin"
        time.sleep(0.1)
    try:
        yield
    finally:
        steer.cancel(log, run_id, grace_s=1.0)
        engine.loop.wake()
        wait_for_end(engine, run_id)


def one_round() -> tuple[float, float]:
    """Kilobytes for an agent, and megabytes for the first one."""
    with scratch() as folder, Log(folder / "events.db") as log:
        found = fake(folder / "fake")
        engine = Engine(log, kind="run", environ=found.environ, shell=True)
        try:
            engine.start()
            before_mb = held_mb()
            with working(engine, log, found, folder, 1):
                one_mb = held_mb()
            with working(engine, log, found, folder, AGENTS):
                many_mb = held_mb()
        finally:
            engine.close()
    return (many_mb - one_mb) / (AGENTS - 1) * 1000, one_mb - before_mb


def main() -> None:
    """Print the figures; each round in a process of its own, since what was once held is seldom given back."""
    if "--round" in sys.argv:
        print(*one_round())
        return
    rounds = []
    for _ in range(ROUNDS):
        ended = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--round"], check=True, capture_output=True, text=True
        )
        rounds.append(tuple(map(float, ended.stdout.split())))
    each_kb, first_mb = (median(values) for values in zip(*rounds, strict=True))
    detail = f"{AGENTS} fake agents at work, dispatcher and supervisor; the first one takes {first_mb:.0f} MB"
    tell("agents: memory that we hold for one that works", each_kb, None, detail, unit="kB")


if __name__ == "__main__":
    main()
