"""A state of the past, beside what others who keep events or checkpoints take for it: ``eventsourcing`` and LangGraph.

``eventsourcing``: one aggregate of 100,000 events in SQLite, brought to the version in its middle; once as the library does
it by itself, and once with a snapshot every 2,500 events. LangGraph: a thread of 2,000 checkpoints in SQLite, of which one is
read, and then all; a run of 2,000 events beside it. What they keep is less than our state of a run: how far each task is. A
state of ours makes its tasks when they are looked at; what it takes to have all of them is told beside it.
Where one of them is not installed (``pip install .[bench]``), that is said.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

from bench.bench_replay import lives
from bench.long_history import as_dispatched
from bench.measure import Goal, ratio, scratch, take_turns, tell
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import new_ids
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.retelling import moments

EVENTS = 100_000
CHECKPOINTS = 2_000
STATES = 200  # Of a moment each: they lie at different ways from a snapshot.
SNAPSHOT_EVERY = 2_500  # Events, of eventsourcing's; to make them takes it longer than all of the rest.
GOAL = Goal(1.0, 10.0)


def run_of(log: Log, events: int) -> str:
    """A run of about so many events, with the snapshots that a dispatcher would have made. Gives its id."""
    names = [f"task-{number}" for number in range(events // 4)]
    plan = Plan(name="bench", tasks=tuple(Task(task_id=name, command=("true",)) for name in names)).to_bytes()
    (run_id,) = new_ids(1)

    def begin(draft: Draft) -> None:
        draft.add_blob(digest_of(plan), plan)
        draft.add(
            run_id,
            ev.RunSubmitted(
                name="bench", plan_digest=digest_of(plan), task_count=len(names), strategy="concurrent",
                workspace="none", workdir="/",
            ),
        )  # fmt: skip
        draft.add(run_id, ev.RunStarted())

    log.transact(begin)
    chance = random.Random(1)
    for first in range(0, len(names), 25):
        some = names[first : first + 25]
        ids = new_ids(len(some))
        log.transact(lambda draft, some=some, ids=ids: [draft.add(run_id, one) for one in lives(some, ids, chance)])  # type: ignore[misc]
    as_dispatched(log, run_id)
    return run_id


def timed(ask: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    ask()
    return time.perf_counter() - begun


@cache
def _aggregate() -> Any:
    """A class of eventsourcing's, whose state is how far each task is. The library knows classes by name: one is made."""
    from eventsourcing.domain import Aggregate, event

    class Run(Aggregate):
        def __init__(self) -> None:
            self.tasks: dict[str, str] = {}

        @event("Moved")
        def move(self, task_id: str, status: str) -> None:
            self.tasks[task_id] = status

    return Run


def by_eventsourcing(folder: Path, *, snapshots: bool) -> Callable[[], object]:
    """Fills a store of theirs; gives what brings the aggregate to a version about its middle."""
    from eventsourcing.application import Application

    store = folder / f"peer-{snapshots}.db"
    app: Any = Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(store),
            "IS_SNAPSHOTTING_ENABLED": "y" if snapshots else "n",
        }
    )
    run = _aggregate()()
    for number in range(EVENTS):
        run.move(f"task-{number // 4}", ("queued", "started", "charged", "completed")[number % 4])
        if number % 500 == 499:
            app.save(run)
        if snapshots and number % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
            app.take_snapshot(run.id)
    chance = random.Random(3)
    return lambda: app.repository.get(run.id, version=EVENTS // 2 + chance.randrange(SNAPSHOT_EVERY))


def eventsourcing(folder: Path) -> None:
    """The state in the middle of 100,000 events."""
    if find_spec("eventsourcing") is None:
        print("peers: eventsourcing is not installed", flush=True)
        return
    with Log(folder / "ours.db") as log:
        run_id, projector = run_of(log, EVENTS), Projector(log)
        middle, chance = log.last_seq() // 2, random.Random(3)

        def ours() -> float:
            seq = middle + chance.randrange(SNAPSHOT_EVERY)
            return timed(lambda: projector.state(run_id, seq))

        for snapshots in (False, True):
            theirs = partial(timed, by_eventsourcing(folder, snapshots=snapshots))
            found = take_turns({"ours": ours, "theirs": theirs})
            ours_ms, theirs_ms = median(found["ours"]) * 1e3, median(found["theirs"]) * 1e3
            how = f"with a snapshot every {SNAPSHOT_EVERY:,}" if snapshots else "as it comes"
            detail = f"{ours_ms:.1f} ms against {theirs_ms:.1f} ms"
            tell(
                f"peers: middle of {EVENTS:,} events, eventsourcing {how}",
                ratio(found["theirs"], found["ours"]),
                GOAL,
                detail,
            )


class Tasks(TypedDict):
    """What a graph of LangGraph keeps: how far each task is."""

    tasks: dict[str, str]


def langgraph(folder: Path) -> None:
    """One state of the past, and all of them."""
    if find_spec("langgraph") is None or find_spec("langgraph.checkpoint.sqlite") is None:
        print("peers: LangGraph and its SQLite checkpoints are not installed", flush=True)
        return
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import START, StateGraph

    made: Any = StateGraph(Tasks)
    made.add_node("work", lambda state: {"tasks": state["tasks"]})
    made.add_edge(START, "work")
    with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver, Log(folder / "few.db") as log:
        graph = made.compile(checkpointer=saver)
        thread: Any = {"configurable": {"thread_id": "1"}}
        state: dict[str, str] = {}
        for number in range(CHECKPOINTS):
            state[f"task-{number // 4}"] = ("queued", "started", "charged", "completed")[number % 4]
            graph.update_state(thread, {"tasks": dict(state)}, as_node="work")
        kept = [one.config for one in graph.get_state_history(thread)]
        run_id, projector, chance = run_of(log, CHECKPOINTS), Projector(log), random.Random(2)
        last = log.last_seq()

        def ours() -> RunState:
            return projector.state(run_id, chance.randrange(2, last))

        def theirs() -> float:
            return timed(lambda: graph.get_state(chance.choice(kept)))

        found = take_turns({"ours": lambda: timed(ours), "theirs": theirs}, rounds=STATES)
        found |= take_turns(
            {"ours, all tasks": lambda: timed(lambda: ours().tasks.values()), "theirs again": theirs},
            rounds=STATES // 4,
        )
        found |= take_turns(
            {
                "our history": lambda: timed(lambda: [moment.state.seq for moment in moments(log, run_id)]),
                "their history": lambda: timed(lambda: list(graph.get_state_history(thread))),
            }
        )
        for what, mine, other in (
            (f"a state of {CHECKPOINTS:,}, LangGraph's get_state", "ours", "theirs"),
            ("the same, and every task of it made", "ours, all tasks", "theirs again"),
            (f"all of {CHECKPOINTS:,}, LangGraph's get_state_history", "our history", "their history"),
        ):
            ours_ms, theirs_ms = median(found[mine]) * 1e3, median(found[other]) * 1e3
            tell(
                f"peers: {what}",
                ratio(found[other], found[mine]),
                GOAL,
                f"{ours_ms:.2f} ms against {theirs_ms:.2f} ms",
            )
        names = ("graph.db", "few.db")
        written = [
            sum(path.stat().st_size for path in folder.glob(f"{name}*")) for name in names
        ]  # With what is not folded yet.
        detail = f"{written[1] / 1e6:.1f} MB against {written[0] / 1e6:.1f} MB"
        tell(f"peers: what {CHECKPOINTS:,} of them take on the disk, LangGraph", written[0] / written[1], GOAL, detail)


def main() -> None:
    """Print the figures."""
    with scratch() as folder:
        eventsourcing(folder)
        langgraph(folder)


if __name__ == "__main__":
    main()
