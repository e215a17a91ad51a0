"""What a daemon holds in memory while it dispatches a plan of 1,000 tasks, and one of 100,000.

The resident memory of the daemon alone, without its supervisor, once it has some attempts of the plan behind it; and the most
that it has held until then. Shell tasks, every second of which waits for the one before it; four run at once.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

import psutil

from bench.bench_commands import COMMAND, ENVIRONMENT
from bench.dispatching import plan_of
from bench.measure import scratch, tell
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Task
from parallel_agents.submit import submit

ROUNDS = 3
ENDS = 20  # Attempts that have ended when it is looked at.
GIVE_UP_S = 300.0


def held_mb(store: Path, size: int) -> tuple[float, float]:
    """Of a daemon with such a plan: what it holds, and the most that it has held."""
    make_home(store)
    tasks = [
        Task(task_id=f"task-{number}", command=("true",), dependencies=(f"task-{number - 1}",) if number % 2 else ())
        for number in range(size)
    ]
    with Log(store, environ={}) as log:
        run_id = submit(log, plan_of(tasks, 4), workdir=store.parent.parent)
        process = subprocess.Popen(
            [*COMMAND, "daemon", "run"], cwd=store.parent.parent, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + GIVE_UP_S
            while sum(brief[2] == "TaskCompleted" for brief in log.briefs(run_id)) < ENDS:
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < deadline, "it dispatches nothing"
                time.sleep(0.1)
            now_mb = psutil.Process(process.pid).memory_info().rss / 1e6
            status = Path(f"/proc/{process.pid}/status").read_text()
            most_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            return now_mb, most_kb * 1024 / 1e6
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Print the figures."""
    with scratch() as folder:
        for size in (1_000, 100_000):
            found = [
                held_mb(folder / f"{size}-{number}" / ".parallel-agents" / "events.db", size)
                for number in range(ROUNDS)
            ]
            now_mb, most_mb = (median(figures) for figures in zip(*found, strict=True))
            tell(f"memory: a daemon with {size:,} tasks", now_mb, None, f"at most {most_mb:.0f} MB", unit="MB")


if __name__ == "__main__":
    main()
