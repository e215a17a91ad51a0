"""Many processes at once on one store, killed at random: every task once, every limit kept, and nobody is told of a lock."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Process, Store, plan_of, wait_until
from fakeagent.installing import install

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.submission import BudgetSettings, Plan, Task
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.process import carriers
from parallel_agents.submit import submit

SUBMITTER = """
import random, sys
from pathlib import Path
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.submit import submit
store, who, plans, tasks = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Log(store) as log:
    for number in range(plans):
        name = f"{who}-{number}"
        if any(run.name == name for run in Projector(log).runs().values()):
            continue  # By one of the same name that was killed.
        chance = random.Random(name)
        made = []
        for index in range(tasks):
            needed = chance.sample(made, chance.randint(0, min(2, len(made))))
            made.append(Task(
                task_id=f"t{index}", dependencies=tuple(sorted(one.task_id for one in needed)), max_retries=0,
                command=("sh", "-c", f"echo {name}-t{index} >> out.txt"),
                priority=chance.choice(["critical", "high", "medium", "low"]),
            ))
        settings = RunSettings(
            max_parallel_agents=4, store_limit=6, max_queue_size=chance.choice([3, 100]),
            retry=RetryPolicy(delay_s=0.05, exponential=False),
        )
        submit(log, Plan(name=name, workspace="none", tasks=tuple(made), settings=settings), workdir=store.parents[1])
"""
DISPATCHER = """
import sys, threading
from pathlib import Path
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.engine import Engine
with Log(Path(sys.argv[1])) as log:
    engine = Engine(log, kind=sys.argv[2], takes_all=True)
    engine.start()
    stop = Path(sys.argv[1]).with_name("stop")
    engine.loop.wait(stop.exists)
    engine.close()
"""
SEED = int(os.environ.get("MANY_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store, the fake agent on PATH, and no bill of the developer's."""
    monkeypatch.setenv("PATH", f"{install(tmp_path / 'programs')}:{os.environ['PATH']}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "-".join(("key", "of", "nobody")))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / "project"
    folder.mkdir()
    made = Store(folder)
    yield made
    made.close()


class Crowd:
    """Submitters and dispatchers, of which one after the other is killed and replaced."""

    def __init__(
        self, store: Store, chance: random.Random, *, dispatchers: int, submitters: list[tuple[str, str, str]]
    ) -> None:
        self.store, self.chance = store, chance
        self.dispatchers = [self.dispatcher(number) for number in range(dispatchers)]
        self.submitters = {words: store.start(SUBMITTER, *words) for words in submitters}
        self.said: list[str] = []  # On stderr, by those that are gone.
        self.kills = 0

    def dispatcher(self, number: int) -> Process:
        """One that takes whatever nobody holds."""
        return self.store.start(DISPATCHER, f"dispatcher {number}")

    def kill_one(self) -> None:
        """One of them, and another one in its place."""
        self.kills += 1
        busy = [words for words, process in self.submitters.items() if process.poll() is None]
        if busy and self.chance.random() < 0.3:
            words = self.chance.choice(busy)
            self._bury(self.submitters[words], kill=True)
            self.submitters[words] = self.store.start(SUBMITTER, *words)
            return
        number = self.chance.randrange(len(self.dispatchers))
        self._bury(self.dispatchers[number], kill=True)
        self.dispatchers[number] = self.dispatcher(number)

    def go_home(self) -> None:
        """The dispatchers end in good order, and the submitters have ended."""
        (self.store.path.parent / "stop").touch()
        for process in (*self.submitters.values(), *self.dispatchers):
            assert self._bury(process) == 0, self.said[-1]

    def _bury(self, process: Process, *, kill: bool = False) -> int:
        if kill:
            process.kill()
        self.said.append(process.communicate(timeout=60)[1])
        return process.returncode

    @property
    def submitted(self) -> bool:
        """Whether all that was to be submitted is; one that fails is a failure of the test."""
        assert all(process.poll() in (None, 0) for process in self.submitters.values())
        return all(process.poll() == 0 for process in self.submitters.values())


def check_limits(store: Store) -> int:
    """At no event of the log more attempts than the limits say; the most there ever were."""
    occupancy, most = Occupancy(), 0
    for record in store.log.read():
        occupancy_fold.fold(occupancy, record)
        if isinstance(record.event, ev.TaskStarted):
            most = max(most, len(occupancy.slots))
            assert occupancy.of_run(record.run_id) <= 4, record.seq
    assert most <= 6
    return most


def check_leases(store: Store) -> None:
    """Epochs of a run go up by one, and only who holds a run starts something of it."""
    epochs: Counter[str] = Counter()
    holders: dict[str, str] = {}
    for record in store.log.read():
        if isinstance(record.event, ev.RunClaimed):
            epochs[record.run_id] += 1
            assert record.event.epoch == epochs[record.run_id]
            holders[record.run_id] = record.actor
        elif isinstance(record.event, ev.TaskStarted):
            assert holders[record.run_id] == record.actor, record.seq


def a_crowd_ends_its_work(store: Store, *, plans: int, tasks: int, kills: int) -> None:
    """Eight submitters, four dispatchers, and so many kills on the way."""
    print(f"MANY_SEED={SEED}")
    chance = random.Random(SEED)
    words = [(f"s{number}", str(plans), str(tasks)) for number in range(8)]
    crowd = Crowd(store, chance, dispatchers=4, submitters=words)
    total = 8 * plans * tasks

    def over() -> bool:
        runs = Projector(store.log).runs().values()
        return crowd.submitted and len(runs) == 8 * plans and all(run.ended_at_us is not None for run in runs)

    due = sorted(chance.randrange(1, total * 9 // 10) for _ in range(kills))  # Each when so many tasks are done.
    deadline = time.monotonic() + 600.0
    while not over():
        done_so_far = len(store.lines("out.txt"))
        assert time.monotonic() < deadline, f"{done_so_far} of {total} tasks were done"
        if crowd.kills < kills and done_so_far >= due[crowd.kills]:
            crowd.kill_one()
        else:
            time.sleep(0.02)
    while crowd.kills < kills:  # The work was done sooner than somebody could be killed over it.
        crowd.kill_one()
    crowd.go_home()
    assert {run.status for run in Projector(store.log).runs().values()} == {"completed"}
    done = Counter(store.lines("out.txt"))
    assert set(done.values()) == {1}, [name for name, times in done.items() if times > 1]
    assert len(done) == total
    assert not [said for said in crowd.said if "locked" in said or "Traceback" in said]
    assert verify_rows(store.log.rows()).broken is None
    assert check_limits(store) > 1
    check_leases(store)
    starts = [record.event for record in store.log.read() if isinstance(record.event, ev.TaskStarted)]
    assert carriers([event.attempt_id for event in starts]) == {}
    unfinished = {event.attempt_id for event in starts if isinstance(event, ev.TaskStarted)}
    for record in store.log.read():
        if isinstance(record.event, ev.TaskCompleted | ev.AttemptLost):
            unfinished.discard(record.event.attempt_id)
    assert unfinished == set()


def test_a_crowd_of_processes_does_every_task_once(store: Store) -> None:
    """A hundred and sixty tasks."""
    a_crowd_ends_its_work(store, plans=1, tasks=20, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_tasks_and_forty_kills(store: Store) -> None:
    """The same, at length."""
    a_crowd_ends_its_work(store, plans=10, tasks=25, kills=40)


def test_one_budget_of_a_day_holds_over_runs_that_several_processes_dispatch(store: Store) -> None:
    """Six runs of three processes, one of which is killed: all of it charged once, and not more than the budget lets."""
    probe = _agents(store, 1, 10_000_000)
    first = store.start(DISPATCHER, "dispatcher 0")
    assert store.ended(probe) == "completed"
    [charge] = store.events(probe, ev.CostCharged)
    assert charge.usd_micros
    budget = charge.usd_micros * 8  # The probe, and seven more.
    runs = [_agents(store, 3, budget) for _ in range(6)]
    others = [store.start(DISPATCHER, f"dispatcher {number}") for number in (1, 2)]
    wait_until(lambda: sum(len(store.events(run, ev.CostCharged)) for run in runs) >= 2, "the first charges")
    store.kill(first)

    def settled() -> bool:
        states = [store.state(run) for run in runs]
        return all(state.status in ("paused", "completed") and not state.running for state in states)

    wait_until(settled, "every run to be over or to wait for money")
    spent = Projector(store.log).spend()
    charges = [charge for run in (probe, *runs) for charge in store.events(run, ev.CostCharged)]
    assert len({charge.attempt_id for charge in charges}) == len(charges)
    assert sum(charge.usd_micros or 0 for charge in charges) == spent.by_day.total() <= budget
    starts = [event for run in (probe, *runs) for event in store.events(run, ev.TaskStarted)]
    assert {event.attempt_id for event in starts} == {charge.attempt_id for charge in charges}
    assert {store.state(run).pause_code for run in runs if store.state(run).status == "paused"} == {"budget"}
    (store.path.parent / "stop").touch()
    for other in others:
        assert "locked" not in other.communicate(timeout=60)[1]


def _agents(store: Store, count: int, budget_usd_micros: int) -> str:
    """A run of so many agents, of equal cost, under a budget of the day."""
    tasks = [
        Task(
            task_id=f"a{number}", agent_type="worker", description="Do it.", runner="claude", model="claude-sonnet-4-5",
            max_retries=0, env={"FAKE_AGENT": "say Done."}, expected_s=1.0,
        )
        for number in range(count)
    ]  # fmt: skip
    budgets = BudgetSettings(day_usd_micros=budget_usd_micros, by_priority=False, cheaper_first=False)
    plan = Plan(**{**dict(plan_of(tasks)), "workspace": "none", "budgets": budgets})
    return submit(store.log, plan, workdir=store.folder)
