"""A tick that takes up the end of one attempt and starts the next one, with 100,000 tasks in the plan and with 100.

Both runs lie in stores of their own and tick in turns. The attempts end at once, so a tick is what the dispatcher itself does,
its commit included; what it does besides the commit is told apart.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from statistics import median

from bench.dispatching import plan_of
from bench.measure import ROUNDS, Goal, scratch, tell
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Task
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.submit import submit

LARGE, SMALL = 100_000, 100
TICKS = 80  # Of each, in a round; the small plan has few more.


class OneByOne:
    """A runner whose attempts end one at each look at it."""

    name = "shell"

    def __init__(self) -> None:
        self.running: list[str] = []

    def start(self, launch: Launch) -> None:
        """Remember it."""
        self.running.append(launch.attempt_id)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """There is nothing to adopt."""

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """There is nothing to stop."""

    def poll(self) -> list[Ended]:
        """The end of the first that runs, as long as others do."""
        if len(self.running) < 4:
            return []
        now_us = time.time_ns() // 1000
        return [Ended(self.running.pop(0), "exited", exit_code=0, started_at_us=now_us - 1000, ended_at_us=now_us)]

    def close(self) -> None:
        """Nothing to let go of."""


def dispatcher(log: Log, size: int) -> Dispatcher:
    """One that holds a run of that size, of which every second task waits for the one before it; four run at once."""
    tasks = [
        Task(task_id=f"task-{number}", command=("true",), dependencies=(f"task-{number - 1}",) if number % 2 else ())
        for number in range(size)
    ]
    run_id = submit(log, plan_of(tasks, 4), workdir=log.path.parent)
    made = Dispatcher(log, {"shell": OneByOne()}, kind="run")
    made.hold(run_id)
    made.tick()
    return made


def main() -> None:
    """Print the ratio of the ticks, and of what is in them but the commit."""
    ratios: list[float] = []
    bare: list[float] = []
    large_us: list[float] = []
    small_us: list[float] = []
    with scratch() as folder, Log(folder / "large.db") as large_log:
        large = dispatcher(large_log, LARGE)
        for number in range(ROUNDS + 1):
            with Log(folder / f"small-{number}.db") as small_log:
                small = dispatcher(small_log, SMALL)
                gc.collect()
                took: dict[Dispatcher, list[float]] = {large: [], small: []}
                cpu: dict[Dispatcher, list[float]] = {large: [], small: []}
                for _ in range(TICKS):
                    for each in (large, small):
                        begun, cpu_begun = time.perf_counter(), time.thread_time()
                        each.tick()
                        took[each].append((time.perf_counter() - begun) * 1e6)
                        cpu[each].append((time.thread_time() - cpu_begun) * 1e6)
            if number:
                ratios.append(median(took[large]) / median(took[small]))
                bare.append(median(cpu[large]) / median(cpu[small]))
                large_us.append(median(took[large]))
                small_us.append(median(took[small]))
    detail = f"{median(large_us):,.0f} us against {median(small_us):,.0f} us"
    goal = Goal(2, 1.2, more_is_better=False)
    tell("tick: 100,000 tasks in the plan against 100", median(ratios), goal, detail)
    tell("tick: the same, processor time alone", median(bare), goal, "waiting for the disk left out")


if __name__ == "__main__":
    main()
