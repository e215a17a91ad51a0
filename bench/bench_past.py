"""States of the past, of a million events: at random moments, against a fold of everything up to there.

Three stores, each made through the log itself, with the snapshots that a dispatcher leaves as its run goes on: one run of
160,000 tasks; one of 1,000 tasks, each of which was opened again and again; 1,000 runs of a thousand events, each with a plan
of its own. All of them are read in one process, as `diff`, a replay or a live view do; what the first look costs is told. The
sweep makes the light snapshots of the first store at other spacings. Memory is that of whole commands.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.bench_commands import COMMAND, ENVIRONMENT
from bench.long_history import Calendar, add_run, as_dispatched
from bench.measure import Goal, scratch, tell
from parallel_agents.eventstore.location import make_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode_brief, new_ids
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections import at_hand
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.at_hand import Writer
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import upkeep

EVENTS = 1_000_000
LOOKS, FOLDS = 60, 7
SPACINGS = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
MEMORY_MB = Goal(200.0, 120.0, more_is_better=False)


def a_plan(name: str, task_ids: list[str]) -> bytes:
    """A plan as a store holds it."""
    tasks = (Task(task_id=task_id, agent_type="backend-engineer", description=f"Do {task_id}.") for task_id in task_ids)
    return Plan(name=name, tasks=tuple(tasks)).to_bytes()


def repository(folder: Path) -> str:
    """A repository with one commit, which all of the history names. Gives the commit."""
    said = ""
    who = ("-c", "user.name=A User", "-c", "user.email=user@localhost")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "first"), ("rev-parse", "HEAD")):
        done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
        said = done.stdout.strip()
    return said


def one_run(project: Path, tasks: int, again: int) -> tuple[Path, str]:
    """A store of one run of so many tasks, in a project with files. Gives the store and the run."""
    project.mkdir()
    (project / "readme").write_text("hello\n")
    commit = repository(project)
    store = project / ".parallel-agents" / "events.db"
    make_home(store)
    task_ids = [f"task-{number}" for number in range(tasks)]
    (run_id,) = new_ids(1)
    begun = time.perf_counter()
    with Log(store, environ={}, clock=Calendar()) as log:
        add_run(
            log, run_id, a_plan("large", task_ids), task_ids, random.Random(1), repository=str(project), known=commit,
            again=again,
        )  # fmt: skip
        took_s = time.perf_counter() - begun
        print(
            f"{log.last_seq():,} events of {tasks:,} tasks, {store.stat().st_size / 1e6:.0f} MB, in {took_s:.0f} s",
            flush=True,
        )
        leave_snapshots(log, run_id)
    return store, run_id


def leave_snapshots(log: Log, run_id: str) -> None:
    """Those that a dispatcher leaves; what they are and what they cost is told."""
    took_s = as_dispatched(log, run_id)
    kind = "CASE WHEN projection LIKE 'task:%' THEN 'single tasks' ELSE projection END"
    for name, count, size in log._reader.execute(
        f"SELECT {kind}, count(*), sum(length(state)) FROM snapshots GROUP BY 1"
    ):
        print(f"  {count} snapshots of {name}, {size / 1e6:.1f} MB", flush=True)
    print(f"  {took_s / log.last_seq() * 1e6:.2f} us for each event to make them", flush=True)


def many_runs(project: Path) -> tuple[Path, list[str]]:
    """A store of a thousand runs of a thousand events."""
    project.mkdir()
    store = project / ".parallel-agents" / "events.db"
    make_home(store)
    task_ids = [f"task-{number}" for number in range(155)]
    run_ids: list[str] = []
    with Log(store, environ={}, clock=Calendar()) as log:
        while log.last_seq() < EVENTS:
            run_ids += new_ids(1)
            add_run(log, run_ids[-1], a_plan(f"plan {len(run_ids)}", task_ids), task_ids, random.Random(len(run_ids)))
        print(f"{log.last_seq():,} events of {len(run_ids):,} runs, {store.stat().st_size / 1e6:.0f} MB", flush=True)
        Projector(log).keep_up()
    return store, run_ids


def timed(measure: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock, and of this process."""
    wall, used = time.perf_counter(), time.process_time()
    measure()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - used) * 1e3


def looks(count: int, look: Callable[[], Callable[[], object]]) -> tuple[float, float, float]:
    """The median and the ninth decile of many looks, and the median of what they used of a processor; in milliseconds.

    Args:
        look: draws one.
    """
    found = [timed(look()) for _ in range(count)]
    wall = sorted(one[0] for one in found)
    return median(wall), wall[len(wall) * 9 // 10], median(one[1] for one in found)


def states_of_one_run(log: Log, run_id: str, what: str) -> None:
    """A state at a random moment against the fold of all before it, with and without going through all of its tasks."""
    projector, plain, chance = Projector(log), Projector(log, use_snapshots=False), random.Random(2)
    last = log.last_seq()
    first_ms, _ = timed(lambda: projector.state(run_id, last // 2))
    ratios, of_all = [], []
    for _ in range(FOLDS):
        seq = chance.randrange(last // 20, last)
        folded, _ = timed(lambda seq=seq: plain.state(run_id, seq))  # type: ignore[misc]
        mine, _ = timed(lambda seq=seq: projector.state(run_id, seq))  # type: ignore[misc]
        whole, _ = timed(lambda seq=seq: list(projector.state(run_id, seq).tasks.values()))  # type: ignore[misc]
        ratios.append(folded / mine)
        of_all.append(folded / whole)
    detail = f"medians of {FOLDS} moments; a fold of all took {folded / 1e3:.2f} s at the last of them"
    tell(f"past: {what}, against a full fold", median(ratios), Goal(25.0, 50.0), detail)
    half, most, used = looks(LOOKS, lambda: _at(projector, run_id, chance.randrange(1, last)))
    detail = f"p90 {most:.1f} ms, {used:.1f} ms of a processor; the first look of a process {first_ms:.0f} ms"
    tell(f"past: {what}, p50", half, Goal(40.0, 20.0, more_is_better=False), detail, unit="ms")
    tell(f"past: {what}, and every task of it read", median(of_all), None, "against a full fold")


def _at(projector: Projector, run_id: str, seq: int) -> Callable[[], object]:
    return lambda: projector.state(run_id, seq)


def warm(store: Path) -> None:
    """Let the system have a store in memory, as it has one that is in use."""
    with store.open("rb") as file:
        while file.read(1 << 24):
            pass


def single_tasks(log: Log, run_ids: Sequence[str], tasks: int, what: str) -> None:
    """One task at a random moment, of random runs."""
    projector, chance = Projector(log), random.Random(3)

    query = "SELECT run_id, min(seq), max(seq) FROM events GROUP BY run_id"
    spans = {run_id: (first, last) for run_id, first, last in log._fetch(query, ())}

    def draw() -> Callable[[], object]:
        run_id, task_id = chance.choice(run_ids), f"task-{chance.randrange(tasks)}"
        seq = chance.randrange(spans[run_id][0], spans[run_id][1] + 1)
        return lambda: projector.task(run_id, task_id, seq)

    draw()()
    gc.collect()
    gc.freeze()  # Or what earlier figures have left would be looked through again and again.
    half, most, used = looks(1_000, draw)
    detail = f"p90 {most:.3f} ms, {used:.3f} ms of a processor"
    tell(f"past: {what}, p50", half, Goal(0.2, 0.05, more_is_better=False), detail, unit="ms")


def small_runs(log: Log, run_ids: Sequence[str]) -> None:
    """A whole run of a thousand events among a thousand others."""
    projector, chance = Projector(log), random.Random(4)
    gc.collect()
    gc.freeze()
    ends = {run_id: log._fetch("SELECT max(seq) FROM events WHERE run_id = ?", (run_id,))[0][0] for run_id in run_ids}

    def draw() -> Callable[[], object]:
        run_id = chance.choice(run_ids)
        return _at(projector, run_id, ends[run_id])

    half, most, used = looks(400, draw)
    detail = f"p90 {most:.1f} ms, {used:.1f} ms of a processor"
    goal = Goal(5.0, 2.0, more_is_better=False)
    tell("past: a run of 1,000 events among 1,000 of them, p50", half, goal, detail, unit="ms")


def sweep(log: Log, run_id: str) -> None:
    """Light snapshots at other spacings: what making, keeping and reading them costs."""
    last = log.last_seq()
    for spacing in SPACINGS:
        state, made, took_s = status_fold.initial(run_id), [], 0.0
        writer: Writer | None = None
        for number, brief in enumerate(log.briefs(run_id)):
            record = decode_brief(run_id, brief)
            status_fold.fold(state, record, log.blob)
            begun = time.perf_counter()
            writer = writer or Writer(state)
            writer.learn(record.event)
            if number % spacing == 0:
                made.append((run_id, at_hand.NAME, at_hand.VERSION, state.seq, writer.dump()))
            took_s += time.perf_counter() - begun
        log._writer.execute("DELETE FROM snapshots WHERE projection = ?", (at_hand.NAME,))
        log._writer.execute("BEGIN")
        log._writer.executemany("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", made)
        log._writer.execute("COMMIT")
        projector, chance = Projector(log), random.Random(5)
        half, most, used = looks(LOOKS, lambda: _at(projector, run_id, chance.randrange(1, last)))  # noqa: B023
        size = sum(len(one[-1]) for one in made)
        mark = " <- in force" if spacing == upkeep.LIGHT_EVERY else ""
        print(
            f"  every {spacing:>6,} events: {took_s / last * 1e6:6.2f} us an event to make, {size / 1e6:6.2f} MB in all, read p50"
            f" {half:6.1f} ms, p90 {most:6.1f} ms, {used:6.1f} ms of a processor{mark}",
            flush=True,
        )


_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def memory(project: Path, *words: str) -> float:
    """The most memory, in MB, that a whole command holds. It has to succeed.

    A small process starts it, because what a child held before it was a program of its own counts as the child's.
    """
    asked = [sys.executable, "-c", _PEAK, *COMMAND, *words]
    said = subprocess.run(
        asked, cwd=project, env=ENVIRONMENT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert said[0] == "0", words
    return int(said[1]) * (1 if sys.platform == "darwin" else 1024) / 1e6


def memories(project: Path, run_id: str, task_id: str, what: str, verbs: Sequence[str]) -> None:
    """Of commands that read."""
    then = ("--at", "400000")
    words: dict[str, tuple[str, ...]] = {
        "status": ("status", run_id, "--json"), "status in words": ("status", run_id), "history": ("history", run_id),
        "status --at": ("status", run_id, *then), "history --json": ("history", "--all", "--json"),
        "files": ("files", run_id, "--json"), "why": ("why", run_id, task_id, "--json"),
        "why --at": ("why", run_id, task_id, *then),
        "show": ("show", run_id, task_id, "--json"), "logs": ("logs", run_id, task_id), "queue": ("queue", run_id, "--json"),
        "queue --at": ("queue", run_id, *then, "--json"), "timeline": ("timeline", run_id, "--json"),
        "cost": ("cost", run_id, "--json"), "checkpoints": ("checkpoints", run_id, "--json"),
        "conflicts": ("conflicts", run_id, "--json"), "diff": ("diff", run_id, "400000", "now", "--json"),
        "replay": ("replay", run_id, "--json"), "replay --verify": ("replay", run_id, "--verify"), "verify": ("verify",),
    }  # fmt: skip
    for verb in verbs:
        held = memory(project, *words[verb])
        tell(f"past: memory of `{verb}`, {what}", held, MEMORY_MB, "the most that it held", unit="MB")


FEW = (
    "status",
    "show",
    "history",
    "history --json",
    "why",
    "timeline",
    "cost",
    "checkpoints",
    "replay",
    "replay --verify",
    "verify",
)
ALL = (
    "status", "status in words", "status --at", "history", "files", "why", "why --at", "show", "logs", "queue", "queue --at",
    "timeline", "cost", "checkpoints", "conflicts", "diff", "replay", "replay --verify", "verify",
)  # fmt: skip


def main(named: str | None = None) -> None:
    """Print the figures.

    Args:
        named: a folder in which an earlier call has made the stores; they are used as they are, or made there.
    """
    with scratch() as fresh:
        folder = Path(named) if named else fresh
        made: dict[str, Any] = {}
        for name, tasks, again in (("large", EVENTS // 6, 0), ("busy", 1_000, EVENTS // 7_000)):
            store = folder / name / ".parallel-agents" / "events.db"
            if not store.exists():
                one_run(folder / name, tasks, again)
            with Log(store, environ={}) as log:
                (run_id,) = Projector(log).runs()
                made[name] = run_id
                states_of_one_run(log, run_id, f"a run of {tasks:,} tasks, a million events")
                single_tasks(log, [run_id], tasks, f"one task of a run of {tasks:,}, a million events")
        store = folder / "many" / ".parallel-agents" / "events.db"
        if not store.exists():
            many_runs(folder / "many")
        warm(store)
        with Log(store, environ={}) as log:
            run_ids = list(Projector(log).runs())
            single_tasks(log, run_ids, 155, "one task of a run among 1,000, a million events")
            small_runs(log, run_ids)
        with Log(folder / "large" / ".parallel-agents" / "events.db", environ={}) as log:
            sweep(log, made["large"])
        memories(folder / "many", run_ids[500], "task-7", "1,000 runs", FEW)
        memories(folder / "busy", made["busy"], "task-7", "a run of 1,000 tasks", ALL)
        memories(folder / "large", made["large"], f"task-{EVENTS // 6 - 1}", "a run of 166,666 tasks", ALL)


if __name__ == "__main__":
    main(*sys.argv[1:])
