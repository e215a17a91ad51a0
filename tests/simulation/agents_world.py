"""Agents that spend, are refused and are cut off, on a machine that outlives its dispatchers; and what must always hold."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from processes import SECOND_US, Killed, Machine, MachineRunner
from world import MOODS, START_US, Inhabited, one_story, plain

from parallel_agents import held_back, steer, travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.eventstore.submission import (
    AgentSettings,
    BudgetSettings,
    Plan,
    RetryPolicy,
    RunSettings,
    Stage,
    Task,
)
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.budget import budgets_of
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Outcome
from parallel_agents.submit import submit

CALL_USD_MICROS = 60_000  # The most that one call of a model costs here.
PROVIDERS = {"claude": "anthropic", "codex": "openai", "lonely": "lonely"}


class AgentMachine(Machine):
    """What outlives dispatchers, and what its agents have spent."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: Counter[str] = Counter()
        self.ends: Callable[[str, Outcome, str], None] = lambda attempt_id, outcome, kind: None  # With its bill.

    def stops(self, attempt_id: str) -> None:
        """One that was asked to, or whose time is up."""
        self.ends(attempt_id, "timed_out" if self.asked_to_stop[attempt_id][1] else "stopped", "")

    def spending(self) -> dict[str, int]:
        """What is seen of those that run."""
        return {attempt_id: self.spent[attempt_id] for attempt_id in self.running}


@dataclass
class Books:
    """A ledger of our own, kept event by event."""

    spent: Counter[str] = field(default_factory=Counter)  # By scope: ``run ID``, ``task ID NAME``, ``day DATE``.
    reserved: dict[str, int] = field(default_factory=dict)  # What is left of it, by attempt.
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)  # Attempts under way: run and task.
    charges: dict[str, list[int | None]] = field(default_factory=dict)
    waits: dict[str, tuple[int, set[str | None]]] = field(default_factory=dict)  # Provider: until when, for whom.
    limits: dict[str, int | None] = field(default_factory=dict)


class AgentsWorld(Inhabited):
    """All of it."""

    machine: AgentMachine

    def __init__(self, random: Random, folder: Path) -> None:
        super().__init__(random, folder)
        self.books = Books()
        self.plans: dict[str, Plan] = {}
        self.ticks = 0
        self._seen = 0
        self._starts_at: Counter[tuple[str, str, int]] = Counter()
        self.new_dispatcher()

    def new_machine(self) -> AgentMachine:
        """One that knows what was spent on it."""
        made = AgentMachine()
        made.ends = self.end
        return made

    def new_dispatcher(self) -> None:
        """With one runner for all clients, and for commands."""
        runner = MachineRunner(self.machine)
        self.begin_process(dict.fromkeys([*PROVIDERS, "shell"], runner), live_spend=self.machine.spending)

    def random_plan(self) -> Plan:
        """Up to eight tasks, most of them agents', with tight budgets, mostly."""
        random = self.random
        stages = tuple(Stage(name=f"s{number}", fail_fast=False) for number in range(random.choice([1, 1, 2])))
        tasks: list[Task] = []
        for index in range(random.randint(1, 8)):
            needed = random.sample(tasks, random.randint(0, min(1, len(tasks))))
            stage = max([random.randrange(len(stages)), *(one.stage for one in needed)])
            runner = random.choice(["claude", "claude", "claude", "codex", "lonely", "shell"])
            agent = runner != "shell"
            expected = random.choice([None, 10_000, 100_000, 400_000]) if agent else 0
            tasks.append(
                Task(
                    task_id=f"t{index}", dependencies=tuple(sorted(one.task_id for one in needed)), stage=stage,
                    command=None if agent else ("true",), runner=runner,
                    agent_type=random.choice(["qa-engineer", "backend-engineer", "software-architect"]) if agent else "shell",
                    description="Do it" if agent else "", model=random.choice([None, None, None, "opus"]) if agent else None,
                    priority=random.choice(["critical", "high", "medium", "low"]), max_retries=random.randint(0, 3),
                    expected_usd_micros=expected, expected_model="sonnet" if agent and random.random() < 0.7 else None,
                    budget_usd_micros=random.choice([None, None, 300_000]) if agent else None,
                )
            )  # fmt: skip
        settings = RunSettings(
            max_parallel_agents=random.randint(1, 4), store_limit=random.randint(2, 6),
            max_queue_size=random.choice([1, 2, 100]), max_execution_s=31_536_000.0,
            retry=RetryPolicy(delay_s=random.choice([0.0, 2.0])),
        )  # fmt: skip
        agents = AgentSettings(
            failover=random.choice([(), ("codex",), ("haiku",), ("sonnet", "haiku"), ("haiku", "codex")]),
            max_requests=random.choice([2, 10]), requests_per_minute=random.choice([5, 100]),
            retry_stronger=random.random() < 0.5, clients={"lonely": {"command": ["lonely"], "model": ["-m", "{model}"]}},
        )  # fmt: skip
        budgets = BudgetSettings(
            day_usd_micros=random.choice([None, None, 900_000]), pause=random.random() < 0.85,
            by_priority=random.random() < 0.5, cheaper_first=random.random() < 0.7,
        )  # fmt: skip
        return Plan(
            name="agents", stages=stages, tasks=tuple(tasks), settings=settings, agents=agents, budgets=budgets,
            budget_usd_micros=random.choice([None, 250_000, 1_000_000]),
        )  # fmt: skip

    def begin(self) -> None:
        """There is a run."""
        self.submits()

    def submits(self) -> None:
        """One more run, up to two."""
        if len(self.plans) < 2 and not self.calm:
            made = self.random_plan()
            run_id = submit(self.log, made, workdir=self.folder, environ={})
            self.plans[run_id] = made
            self.books.limits[f"run {run_id}"] = made.budget_usd_micros
            for task in made.tasks:
                self.books.limits[f"task {run_id} {task.task_id}"] = task.budget_usd_micros

    def step(self) -> None:
        """One thing happens, then one dispatcher ticks, mostly."""
        random = self.random
        self.time_passes(round(random.choice([0, 0, 0.2, 2, 40, 1000 if random.random() < 0.3 else 1]) * SECOND_US))
        random.choice(
            [
                self.calls,
                self.calls,
                self.calls,
                self.ends,
                self.ends,
                self.submits,
                random.choice([self.steers, self.breaks]),
            ]
        )()
        if self.calm or random.random() < 0.8:
            self.tick(random.choice(self.dispatchers))
        self.machine.check()

    def calls(self) -> None:
        """Some of those that work have asked their model once more; they look at what they were told in between."""
        machine = self.machine
        for attempt_id, launch in list(machine.running.items()):
            if attempt_id in machine.asked_to_stop:
                if self.random.random() < 0.8:
                    self.end(attempt_id, "stopped", "")
            elif launch.errand is not None and self.random.random() < 0.7:
                machine.spent[attempt_id] += self.random.randint(1, CALL_USD_MICROS)
                limit = launch.errand.limit_usd_micros
                if limit is not None and machine.spent[attempt_id] >= limit and self.random.random() < 0.7:
                    self.end(attempt_id, "exited", "budget", retryable=False)

    def ends(self) -> None:
        """Some end, well or not."""
        random = self.random
        for attempt_id, launch in list(self.machine.running.items()):
            if random.random() < 0.5:
                continue
            if attempt_id in self.machine.asked_to_stop:
                self.end(attempt_id, "stopped", "")
            elif self.calm or random.random() < 0.25:
                self.end(attempt_id, "exited", None)
            elif launch.errand is None:
                self.end(attempt_id, random.choice(["exited", "lost"]), "", retryable=random.random() < 0.8)
            else:
                outcome: Outcome = random.choice(["exited"] * 8 + ["timed_out", "lost"])
                kind = random.choice(
                    ["agent", "agent", "infrastructure", "overload", "rate_limit", "usage_limit", "usage_limit",
                     "authentication", "spend_cap", "configuration"]
                ) if outcome == "exited" else ""  # fmt: skip
                self.end(
                    attempt_id, outcome, kind, retryable=kind not in ("configuration", "authentication", "spend_cap")
                )

    def end(self, attempt_id: str, outcome: Outcome, kind: str | None, *, retryable: bool = True) -> None:
        """An attempt ends and leaves its file. A kind of None: well."""
        random, errand = self.random, self.machine.running.pop(attempt_id).errand
        agent, spent = errand is not None, self.machine.spent[attempt_id]
        charges: tuple[Charge, ...] = ()
        if agent and spent:
            charges = (Charge("m", spent, "agent", calls=2),)
            if random.random() < 0.2:
                charges = (Charge("m", spent // 2, "agent", calls=1), Charge(None, None, "unknown", calls=1))
        error = None if kind is None else f"{kind or outcome} trouble"
        provider = (errand.client.provider or errand.client.name) if errand is not None else ""
        until = random.choice([None, self.now_us + 900 * SECOND_US, self.now_us + SECOND_US, self.now_us - SECOND_US])
        refused = kind in ("overload", "rate_limit", "usage_limit", "authentication", "spend_cap")
        got_through = agent and bool(spent)
        self.machine.exit_files[attempt_id] = Ended(
            attempt_id, outcome, exit_code=0 if kind is None else 1, error=error, retryable=retryable, kind=kind or "",
            charges=charges, started_at_us=self.now_us - SECOND_US, ended_at_us=self.now_us,
            resumable=got_through and outcome != "timed_out",
            provider=provider if outcome == "exited" and (refused or got_through) else "", got_through=got_through,
            until_us=until if refused else None,
        )  # fmt: skip

    def steers(self) -> None:
        """Somebody interferes; refusals are no news."""
        if not self.plans or self.calm:
            return
        run_id = self.random.choice(list(self.plans))
        with contextlib.suppress(NotAllowed):
            match self.random.randrange(10):
                case 0:
                    steer.pause(self.log, run_id, "lunch")
                case 1 | 2:
                    steer.resume(self.log, run_id)
                case 3:
                    steer.retry(self.log, run_id)
                case 4:
                    self.raises_budgets(run_id)
                case 5:
                    self.rolls_back(run_id)
                case 6:
                    steer.cancel(self.log, run_id, self.random.choice(self.plans[run_id].tasks).task_id)
                case 7:
                    self.forks(run_id)
                case 8:
                    held_back.lift(self.log, self.random.choice(list(PROVIDERS.values())))
                case 9 if self.random.random() < 0.2:
                    steer.cancel(self.log, run_id)
                case _:
                    pass

    def forks(self, run_id: str) -> None:
        """Another run goes on from some event of this one."""
        if len(self.plans) < 4:
            seq = self.random.choice([one.seq for one in self.log.read() if one.run_id == run_id])
            child = travel.fork(self.log, run_id, seq, {})["run_id"]
            state = Projector(self.log).state(child)
            self.plans[child] = self.plans[run_id]
            self.books.limits[f"run {child}"] = state.budget_usd_micros
            for task in state.plan.tasks:
                micros = state.task_budgets.get(task.task_id, task.budget_usd_micros)
                self.books.limits[f"task {child} {task.task_id}"] = micros

    def raises_budgets(self, run_id: str, by: int = 500_000) -> None:
        """Somebody has more money."""
        state = Projector(self.log).state(run_id)
        events: list[ev.Event] = []
        if state.budget_usd_micros is not None:
            events.append(ev.BudgetChanged(scope="run", budget_usd_micros=state.budget_usd_micros + by))
        for name, micros in budgets_of(state).tasks.items():
            events.append(ev.BudgetChanged(scope=f"task:{name}", budget_usd_micros=micros + by))
        if events:
            self.log.append(run_id, state.version, events)

    def rolls_back(self, run_id: str) -> None:
        """To some event of the run."""
        records = [one.seq for one in self.log.read() if one.run_id == run_id]
        projector, target = Projector(self.log), self.random.choice(records)
        now, there = projector.state(run_id), projector.state(run_id, target)
        if now.cancel_requested or there.seq >= now.seq:
            return
        events: list[ev.Event] = [ev.RunRolledBack(to_seq=target)]
        events += [ev.TaskQueued(task_id=name, reason="rolled_back") for name in there.running.values()]
        if not there.ended:
            events.append(ev.RunPaused(reason="rolled back"))
        self.log.append(run_id, now.version, events)

    def breaks(self) -> None:
        """A dispatcher dies, at rest or in the middle of a tick, or meets a full disk; another comes."""
        if self.calm:
            return
        victim = self.random.choice(self.dispatchers)
        match self.random.randrange(6):
            case 0:
                self.kill(victim)
            case 1:
                runner_of(victim).dies_in = self.random.randrange(3)
            case 2 | 5:
                self.log.mood = self.random.choice(MOODS)
            case 3:
                with contextlib.suppress(Killed):
                    victim.leave()
                self.look()
                self.kill(victim)
            case 4:
                self.new_dispatcher()

    def tick(self, dispatcher: Dispatcher) -> None:
        """One tick, and everything that must hold after it."""
        self.ticks += 1
        self.ticking.append(dispatcher)
        try:
            due = dispatcher.tick()
        except StoreError:
            self.look()
            return
        except Killed:
            self.kill(dispatcher)
            self.look()
            return
        finally:
            self.ticking.pop()
        self.look()
        if dispatcher._seen != self.log.last_seq():
            return  # Others have gone on while it slept.
        states = {run_id: held.state for run_id, held in dispatcher.held.items()}
        if self.ticks % 4 == 0:
            for run_id, state in states.items():
                assert plain(state) == plain(Projector(self.log, use_snapshots=False).state(run_id))
            if dispatcher.accounts.spend is not None and states:
                kept = {name: held for name, held in dispatcher.accounts.spend.running.items() if held.run_id in states}
                read = Projector(self.log).spend()
                mine = {name: held for name, held in read.running.items() if held.run_id in states}
                assert replace(dispatcher.accounts.spend, running=kept) == replace(read, running=mine)
        for state in states.values():
            if state.status == "running" and not self.books.runs and due is None and not dispatcher._draining:
                assert state.counts["blocked"], f"{state.run_id} waits for nothing: {self.told()}"
            if state.status == "paused" and not state.cancel_requested:
                assert state.reason, "a pause has a reason"

    def look(self) -> None:
        """Read on in the log; every rule is looked at event by event."""
        for record in self.log.read(self._seen):
            self._seen = record.seq
            self._check(record)

    def _check(self, record: Recorded) -> None:
        books, run_id, event = self.books, record.run_id, record.event
        match event:
            case ev.TaskStarted():
                self._check_start(record, event)
            case ev.CostCharged():
                books.charges.setdefault(event.attempt_id, []).append(event.usd_micros)
                rest = books.reserved.get(event.attempt_id, 0)
                micros = rest if event.usd_micros is None else event.usd_micros
                books.reserved[event.attempt_id] = max(0, rest - micros)
                for scope in self._scopes(run_id, event.task_id, record.at_us):
                    books.spent[scope] += micros
            case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost() | ev.ResultDiscarded():
                self._check_end(event.attempt_id)
            case ev.TaskCancelled():
                if event.attempt_id is not None:
                    self._check_end(event.attempt_id)
            case ev.TaskRetryScheduled():
                task = next(one for one in self.plans[run_id].tasks if one.task_id == event.task_id)
                assert event.failures <= task.max_retries, "never more retries than allowed"
            case ev.BudgetChanged():
                scope = f"run {run_id}" if event.scope == "run" else f"task {run_id} {event.scope[5:]}"
                books.limits[scope] = event.budget_usd_micros
            case ev.ProviderLimited():
                until_us, models = books.waits.get(event.provider, (0, set()))
                models = set(models) if until_us > record.at_us else set()
                books.waits[event.provider] = (from_rfc3339(event.until), models | {event.model})
            case ev.ProviderFreed():
                books.waits.pop(event.provider, None)
            case _:
                pass

    def _scopes(self, run_id: str, task_id: str, at_us: int) -> list[str]:
        return [f"run {run_id}", f"task {run_id} {task_id}", f"day {datetime.fromtimestamp(at_us / 1e6, UTC).date()}"]

    def _check_end(self, attempt_id: str) -> None:
        known = self.machine.exit_files[attempt_id]
        charged = self.books.charges.get(attempt_id, [])
        assert charged == [one.usd_micros for one in known.charges], f"{attempt_id} is charged once, before its end"
        del self.books.runs[attempt_id]
        self.books.reserved.pop(attempt_id, None)

    def _check_start(self, record: Recorded, event: ev.TaskStarted) -> None:
        books, run_id = self.books, record.run_id
        assert event.attempt_id not in books.runs
        books.runs[event.attempt_id] = (run_id, event.task_id)
        made = self.plans[run_id]
        if event.runner == "shell":
            return
        self._starts_at[run_id, event.task_id, record.at_us] += 1
        assert self._starts_at[run_id, event.task_id, record.at_us] <= 6, "nothing starts over and over at one moment"
        until_us, models = books.waits.get(PROVIDERS[event.runner], (0, set()))
        if until_us > record.at_us:
            assert event.model in made.agents.failover, f"{event.runner} waits, and {event.model} starts"
            assert event.model not in models, f"{event.model} was refused itself"
        books.reserved[event.attempt_id] = event.reserved_usd_micros or 0
        if not made.budgets.pause:
            return
        day = f"day {datetime.fromtimestamp(record.at_us / 1e6, UTC).date()}"
        for scope in self._scopes(run_id, event.task_id, record.at_us):
            limit = made.budgets.day_usd_micros if scope == day else books.limits.get(scope)
            if limit is None:
                continue
            inside = [
                one for one, (run, task) in books.runs.items() if scope in (f"run {run}", f"task {run} {task}", day)
            ]
            held = sum(books.reserved.get(one, 0) for one in inside)
            assert books.spent[scope] < limit, f"{scope} is spent"
            assert books.spent[scope] + held <= limit, f"{scope}: {books.spent[scope]} + {held} > {limit}"

    def told(self) -> str:
        """The end of the log, for a failure."""
        lines = []
        for one in list(self.log.read())[-25:]:
            said = {name: value for name, value in vars(one.event).items() if value}
            lines.append(f"{one.seq} {(one.at_us - START_US) / 1e6:g} {one.run_id} {type(one.event).__name__} {said}")
        return "\n".join(lines)

    def finish(self) -> Counter[str]:
        """Everybody dies, and every run comes to its end all the same."""
        try:
            self.restarts()
            self.settle()
        except BaseException as error:
            error.add_note(self.told())
            raise
        assert verify_rows(self.log.rows()).broken is None
        return Counter(type(one.event).__name__ for one in self.log.read())

    def restarts(self) -> None:
        """Everybody dies; who comes next has nothing to say that the one after it would have to say again."""
        self.log.mood = ""
        for _ in range(2):
            for one in list(self.dispatchers):
                self.kill(one)
            before = self.log.last_seq()
            for _ in range(6):
                seq = self.log.last_seq()
                self.tick(self.dispatchers[0])
                if self.log.last_seq() == seq:
                    break
        appended = {type(one.event) for one in self.log.read(before)}
        assert appended <= {ev.RunClaimed}, f"the second restart has told {appended}"

    def settle(self, steps: int = 500) -> None:
        """From here on nothing goes wrong, there is money, and every run must come to its end."""
        self.calm, self.log.mood = True, ""
        for one in self.dispatchers:
            runner_of(one).dies_in = None
        for _ in range(steps):
            states = self.states()
            if all(state.ended for state in states.values()) and not self.books.runs:
                return
            for run_id, state in states.items():
                if state.status == "paused" and not state.cancel_requested:
                    self.raises_budgets(run_id, 5_000_000)
                    steer.resume(self.log, run_id)
                    if state.pause_code == "budget":
                        self.time_passes(86_400 * SECOND_US)
            self.step()
        raise AssertionError(f"not settled: {[(one.status, one.reason) for one in self.states().values()]}")

    def states(self) -> dict[str, RunState]:
        """All runs by the log alone."""
        return {run_id: Projector(self.log).state(run_id) for run_id in self.plans}


def runner_of(dispatcher: Dispatcher) -> MachineRunner:
    """The one that it has for all clients."""
    runner = dispatcher.runners["claude"]
    assert isinstance(runner, MachineRunner)
    return runner


@contextmanager
def simulated(random: Random, folder: Path) -> Iterator[AgentsWorld]:
    """A world of its own."""
    world = AgentsWorld(random, folder)
    with one_story(world.holder_alive):
        yield world
    world.log.close()
