"""One pass of the sampler over 50 attempts of 4 processes each, against listing /proc and reading each process's line.

psutil is told beside it, asked for what one line tells us (parent, times, memory), without what only members are asked for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import psutil

from bench.measure import ratio, take_turns, tell
from parallel_agents.scheduler.process import MARKER
from parallel_agents.scheduler.resources import Sampler

TREES = 50
PASSES = 5
TREE = "sleep 3600 & (sleep 3600 & sleep 3600); exit"
FIELDS = ["ppid", "create_time", "cpu_times", "memory_info"]


def timed_ms(do: Callable[[], object]) -> float:
    """Of one pass, the mean of a few."""
    begun = time.perf_counter()
    for _ in range(PASSES):
        do()
    return 1000 * (time.perf_counter() - begun) / PASSES


def list_processes() -> None:
    """What nobody can do without."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            except OSError:
                continue
            os.read(fd, 4096)
            os.close(fd)


def main() -> None:
    """Print the ratio and the milliseconds."""
    trees = {
        f"attempt-{number}": subprocess.Popen(
            ["sh", "-c", TREE], env={**os.environ, MARKER: f"attempt-{number}"}, start_new_session=True
        )
        for number in range(TREES)
    }
    try:
        live = {attempt_id: tree.pid for attempt_id, tree in trees.items()}
        sampler = Sampler(lambda: live)
        found = take_turns(
            {
                "ours": lambda: timed_ms(sampler.sample),
                "listing": lambda: timed_ms(list_processes),
                "psutil": lambda: timed_ms(lambda: list(psutil.process_iter(FIELDS))),
            },
            rounds=7,
        )
        processes = len(psutil.pids())
    finally:
        for tree in trees.values():
            os.killpg(tree.pid, signal.SIGKILL)
            tree.wait()
    ours, listing, others = (sorted(found[name])[3] for name in ("ours", "listing", "psutil"))
    detail = (
        f"{ours:.1f} ms a pass of {processes} processes, {TREES} trees; {listing:.1f} ms to read them, "
        f"{others:.1f} ms by psutil"
    )
    tell("sampling: a pass over 50 trees", ratio(found["ours"], found["listing"]), None, detail)


if __name__ == "__main__":
    main()
