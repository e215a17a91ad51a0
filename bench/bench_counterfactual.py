"""What would have happened otherwise: 1,000 recorded runs of the demo's size played again, simulated makespans against real
ones, and what a decision costs on a clock of its own.

The recorded runs have seven tasks each, in the stages of ``make demo``, with durations and costs that spread as those of agents
do. Graphs are measured executions and made-up instances, read from the folder that ``PARALLEL_AGENTS_DAGS`` names; each is
scaled to take some seconds, run once for the durations to be learned, simulated from these, and run three times more: where two
tasks end at once, milliseconds decide which one is followed up first, so the middle one of these is what it takes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

from bench.dispatching import plan_of
from bench.measure import Goal, scratch, tell
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.forecast import makespan_s
from parallel_agents.foreground import identity
from parallel_agents.otherwise.counterfactuals import all_otherwise
from parallel_agents.otherwise.run_figures import figures_of
from parallel_agents.otherwise.simulating import at_middle_s
from parallel_agents.otherwise.virtual_run import VirtualRun, runners_of
from parallel_agents.past_attempts import read_past
from parallel_agents.projections import status as st
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch
from parallel_agents.scheduler.runners.recorded import Part
from parallel_agents.scheduler.strategies import StrategyOptions, arrange
from parallel_agents.submit import submit

RUNS = 1000
GRAPHS = "PARALLEL_AGENTS_DAGS"
TEN = (
    "1000genome-2ch-100k", "blast-small", "cycles-1l-1c-9p", "epigenomics-hep-1seq-50k", "montage-2mass-005d",
    "psplib-j30-1-1", "psplib-j30-13-1", "psplib-j60-9-1", "psplib-j120-1-1", "srasearch-20a",
)  # fmt: skip
SLOTS = 4  # Of the graphs: more processes would wait for a processor, on the machines that this runs on.
TAKES = 3
TAKES_S = 6.0  # What a graph is scaled to.
DISPATCHES = 2_000
DEMO = {
    "arch": (), "ux": ("arch",), "backend": ("arch",), "frontend": ("ux", "backend"), "qa": ("frontend",),
    "security": ("frontend",), "deploy": ("qa", "security"),
}  # fmt: skip


def demo_plan() -> Plan:
    """Of the demo's size and shape."""
    tasks = [
        Task(
            task_id=name,
            agent_type=f"{name}-engineer",
            runner="claude",
            model="sonnet",
            dependencies=needed,
            max_retries=1,
        )
        for name, needed in DEMO.items()
    ]
    stages, arranged = arrange(tasks, "pipeline", StrategyOptions())
    return plan_of(arranged, 5).model_copy(update={"stages": stages, "strategy": "pipeline", "name": "demo"})


def fill(log_of: Log, clock: list[int]) -> None:
    """Play 1,000 runs, one after the other, and append them as they went."""
    plan, chance = demo_plan(), Random(1)

    def part_of(launch: Launch) -> Part:
        takes_s = min(590.0, chance.lognormvariate(5.0, 0.8))  # The time of each is up after 600.
        fails = chance.random() < 0.05
        charges = (Charge("sonnet", round(takes_s * 3000), "agent", calls=3),)
        return Part(
            round(takes_s * 1e6), Ended("", "exited", int(fails), "no luck" if fails else None, charges=charges)
        )

    submitted = ev.RunSubmitted(
        name="demo", plan_digest="", task_count=7, strategy="pipeline", workspace="none", workdir="/"
    )
    for _ in range(RUNS):
        world = VirtualRun(new_id(), part_of, clock[0] + 1_000_000, runners_of(plan))
        world.submit(plan, submitted)
        world.look()
        world.go_on()
        content = plan.to_bytes()
        for record in world.records:
            clock[0] = record.at_us
            blobs = {record.event.plan_digest: content} if isinstance(record.event, ev.RunSubmitted) else None
            log_of.append(record.run_id, record.version - 1, [record.event], blobs=blobs, actor=record.actor)
        world.close()


def play_all() -> None:
    """How long 1,000 recorded runs take under other settings."""
    clock = [1_700_000_000_000_000]
    with scratch() as folder:
        with Log(folder / "events.db", clock=lambda: clock[0], environ={}) as log:
            log._writer.execute("PRAGMA synchronous = OFF")  # To fill it is not what is measured.
            fill(log, clock)
            print(f"{log.last_seq():,} events of {RUNS:,} runs", flush=True)
        for name, value in (("max_parallel_agents", "1"), ("max_parallel_agents", "8"), ("strategy", "concurrent")):
            begun, used = time.perf_counter(), sum(os.times()[:4])
            found = all_otherwise(folder / "events.db", {name: value})
            took_s, used_s = time.perf_counter() - begun, sum(os.times()[:4]) - used
            whole = found["summary"]
            changed, middle = whole["runs"] - whole["unchanged"], whole["ratio"]["median"]
            detail = f"{changed:,} change, median ratio {middle:.2f}; load {os.getloadavg()[0]:.1f}"
            goal = Goal(10, 6, more_is_better=False)
            tell(f"counterfactual: 1,000 runs with {name}={value}", took_s, goal, detail, unit="s")
            tell("  the same, processor time for each of two processors", used_s / 2, goal, "", unit="s")


def graph_plan(path: Path) -> Plan:
    """A graph as commands that sleep, scaled to its time on the slots."""
    tasks = json.loads(path.read_text())["tasks"]

    def made(scale: float) -> Plan:
        return plan_of(
            [
                Task(
                    task_id=one["id"], dependencies=tuple(one["deps"]), expected_s=max(0.01, one["duration_s"] * scale),
                    command=("sleep", f"{max(0.01, one['duration_s'] * scale):.3f}"), max_retries=0,
                )
                for one in tasks
            ],
            SLOTS,
        ).model_copy(update={"name": path.stem})  # fmt: skip

    whole = made(1.0)
    return made(TAKES_S / makespan_s(whole, [task.expected_s or 0.0 for task in whole.tasks]))


def real_s(log: Log, engine: Engine, plan: Plan) -> float:
    """What a plan takes when it is run."""
    run_id = submit(log, plan, workdir=log.path.parent, claim=identity("run"))
    engine.hold(run_id)
    end = engine.wait(run_id, until=lambda progress: progress.status in st.ENDED)
    assert end is not None
    assert end.status == st.COMPLETED, end
    return figures_of(log.read_run(run_id), run_id).makespan_s


def graphs(folder: Path) -> Iterator[tuple[str, float, list[float]]]:
    """Simulated and real makespans, in seconds, the latter in ascending order."""
    with scratch() as place, Log(place / "events.db") as log:
        engine = Engine(log, kind="run", shell=True)
        try:
            engine.start()
            for name in TEN:
                plan = graph_plan(folder / f"{name}.json")
                real_s(log, engine, plan)
                simulated_s = at_middle_s(plan, read_past(log, name, runs=1))
                yield name, simulated_s, sorted(real_s(log, engine, plan) for _ in range(TAKES))
        finally:
            engine.close()


def compare(folder: Path) -> None:
    """How far simulated makespans are from real ones."""
    off = []
    for name, simulated_s, taken_s in graphs(folder):
        measured_s = median(taken_s)
        off.append(abs(simulated_s / measured_s - 1) * 100)
        spread = f"{taken_s[0]:.3f} to {taken_s[-1]:.3f}"
        said = f"simulated {simulated_s:6.3f} s, real {measured_s:6.3f} s ({spread}): {off[-1]:.2f} % off"
        print(f"  {name:<28} {said}", flush=True)
    goal = Goal(2, 1, more_is_better=False)
    tell(
        "simulate: makespan against the real one, worst of ten graphs",
        max(off),
        goal,
        f"median {median(off):.2f} %",
        unit="%",
    )


_CHANCE = Random(1)


def _whatever(launch: Launch) -> Part:
    return Part(_CHANCE.randrange(1, 10**6), Ended("", "exited", 0))


def decisions() -> None:
    """What one dispatch costs on a clock of its own: an end, the plan after it, a start, and their commit."""
    took = {}
    for size in (2_000, 100_000):
        tasks = [
            Task(task_id=f"t{number}", command=("true",), dependencies=(f"t{number - 1}",) if number % 2 else ())
            for number in range(size)
        ]
        plan = plan_of(tasks, 8)
        world = VirtualRun("sized", _whatever, 10**15, runners_of(plan))
        world.submit(plan, ev.RunSubmitted(
            name="sized", plan_digest="", task_count=size, strategy="concurrent", workspace="none", workdir="/"
        ))  # fmt: skip
        world.look()
        figures = []
        for _ in range(min(DISPATCHES, size - 100)):
            at_us = world.next_us()
            assert at_us is not None
            world.now_us = at_us
            begun = time.perf_counter()
            world.look()
            figures.append((time.perf_counter() - begun) * 1e6)
        took[size] = median(figures)
        world.close()
    small, large = took.values()
    detail = f"{large:,.0f} us against {small:,.0f} us"
    tell(
        "counterfactual: a dispatch of 100,000 tasks against 2,000",
        large / small,
        Goal(2, 1.2, more_is_better=False),
        detail,
    )


def main() -> int:
    """Print all of it. Gives 2 where the graphs are not there."""
    play_all()
    decisions()
    named = os.environ.get(GRAPHS)
    if named is None:
        print(f"{GRAPHS} names no folder of graphs: simulated makespans are not compared", file=sys.stderr)
        return 2
    compare(Path(named))
    return 0


if __name__ == "__main__":
    sys.exit(main())
