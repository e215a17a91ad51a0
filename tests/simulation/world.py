"""A store, the machine that its attempts run on, and dispatchers that come, freeze and die."""

from __future__ import annotations

import contextlib
import copy
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from moody_log import Mood, new_log
from processes import SECOND_US, Killed, Machine, MachineRunner
from referee import RUN_ENDED, TASK_ENDED, Referee

from parallel_agents import steer, travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.projections import at_hand, status
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler import dispatcher as dispatcher_module
from parallel_agents.scheduler import upkeep
from parallel_agents.scheduler.decide_past import decide_rollback
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, outlook, plan, why_not
from parallel_agents.scheduler.runners.protocol import Outcome, Runner
from parallel_agents.submit import submit

START_US = 1_700_000_000 * SECOND_US
HOUR_US = 3600 * SECOND_US
WAITING = {
    "dependencies", "stage", "not_before", "no_slot", "lower_rank", "one_by_one", "queue_full", "blocked", "scope",
}  # fmt: skip
MOODS: Final[tuple[Mood, ...]] = ("refuses", "is unsure", "dies before", "dies after", "is overtaken")


@contextmanager
def one_story(holder_alive: Callable[[dict[str, Any]], bool], make_ids: Sequence[str] = ()) -> Iterator[None]:
    """The process table is the world's, ids count up, and snapshots are taken often, so that a seed tells one story.

    Args:
        make_ids: more modules that make ids.
    """
    numbers = itertools.count(1)

    def new_ids(count: int) -> list[str]:
        return [f"id{next(numbers):08}" for _ in range(count)]

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(dispatcher_module, "holder_alive", holder_alive))
        stack.enter_context(patch.object(dispatcher_module, "new_ids", new_ids))
        stack.enter_context(patch.object(upkeep, "SNAPSHOT_EVERY", 7))
        stack.enter_context(patch.object(upkeep, "LIGHT_EVERY", 5))
        stack.enter_context(patch.object(upkeep, "LIGHT_EVERY_OF_SMALL", 3))
        stack.enter_context(patch.object(at_hand, "NEAR", 4))  # A run of more tasks is a large one.
        stack.enter_context(patch.object(at_hand, "SINGLY", 2))
        for name in ("submit", "travel", *make_ids):
            stack.enter_context(patch(f"parallel_agents.{name}.new_id", lambda: new_ids(1)[0]))
        yield


class Inhabited(ABC):
    """A store, and the dispatchers that live on it, driven by one source of randomness."""

    def __init__(self, random: Random, folder: Path, *, first_pid: int = 1) -> None:
        self.random = random
        self.folder = folder
        self.now_us = START_US  # On the wall's clock.
        self.machine = self.new_machine()
        self.log = new_log(folder, lambda: self.now_us)
        self.log.meanwhile = self.others_go_on
        self.alive: set[int] = set()  # Pids.
        self.dispatchers: list[Dispatcher] = []
        self.ticking: list[Dispatcher] = []  # One, and within its sleep another one.
        self.calm = False  # Nothing goes wrong any more.
        self._pids = first_pid - 1

    def new_machine(self) -> Machine:
        """What its attempts run on."""
        return Machine()

    def holder_alive(self, holder: dict[str, Any]) -> bool:
        """What the process table says."""
        return holder["pid"] in self.alive

    def time_passes(self, by_us: int) -> None:
        """On both clocks; the one of the wall alone may be set back."""
        self.now_us += by_us
        self.machine.go_on(max(0, by_us))

    @abstractmethod
    def new_dispatcher(self) -> None:
        """A process that takes whatever nobody holds."""

    @abstractmethod
    def tick(self, dispatcher: Dispatcher) -> None:
        """One tick, and everything that must hold after it."""

    def begin_process(self, runners: Mapping[str, Runner], **more: Any) -> None:
        """Such a process, with its runners."""
        self._pids += 1
        made = Dispatcher(
            self.log, runners, kind=f"process {self._pids}", takes_all=True, clock=lambda: self.now_us,
            draw=lambda: self.random.random(), environ={}, steady=lambda: self.machine.now_us, **more,
        )  # fmt: skip
        made._me = {"pid": self._pids, "start_time": 1, "boot_id": "b", "kind": f"process {self._pids}"}
        self.alive.add(self._pids)
        self.dispatchers.append(made)

    def kill(self, dispatcher: Dispatcher) -> None:
        """Its attempts go on; somebody else comes if nobody is left."""
        self.alive.discard(dispatcher._me["pid"])
        if dispatcher in self.dispatchers:
            self.dispatchers.remove(dispatcher)
        if not self.dispatchers:
            self.new_dispatcher()

    def others_go_on(self) -> None:
        """Whoever has just committed sleeps so long that it is taken for dead, and its runs are taken over."""
        if not self.ticking or self.calm:
            return
        sleeper = self.ticking[-1]
        self.alive.discard(sleeper._me["pid"])
        others = [one for one in self.dispatchers if one is not sleeper and one._me["pid"] in self.alive]
        if not others:
            self.new_dispatcher()
            others = self.dispatchers[-1:]
        for _ in range(2):
            self.time_passes(2 * SECOND_US)
            self.tick(others[0])


class Folded(NamedTuple):
    """A run as its log says it is: as of its last event, and its newest snapshot then."""

    upto: int
    snapshot: int
    state: RunState


class World(Inhabited):
    """All of it."""

    def __init__(self, random: Random, folder: Path, *, first_pid: int = 1) -> None:
        super().__init__(random, folder, first_pid=first_pid)
        self.referee = self.new_referee()
        self._looked_at: dict[str, tuple[int, int]] = {}  # By run: by which process, at which event.
        self._folded: dict[str, Folded] = {}  # By run.
        self.unreadable_after: int | None = None  # So many reads of the next tick go well.
        self.new_dispatcher()

    def new_referee(self) -> Referee:
        """Who reads its log."""
        return Referee(self.log, self.lives, lambda: self.machine.now_us)

    def lives(self, name: str) -> bool:
        """Whether a process of that name is taken for alive."""
        return int(name.removeprefix("process ")) in self.alive

    def new_dispatcher(self) -> None:
        """With a runner of commands."""
        self.begin_process({"shell": MachineRunner(self.machine)})

    def others_go_on(self) -> None:
        """What was committed before counts from then on."""
        self.referee.look()
        super().others_go_on()

    def begin(self) -> None:
        """There is a run."""
        self._submits()

    def random_plan(self) -> Plan:
        """Up to nine tasks in up to three stages, with tight limits."""
        random = self.random
        stages = tuple(
            Stage(
                name=f"s{number}", parallel=random.random() < 0.8, fail_fast=random.random() < 0.4,
                limit=random.choice([None, None, 1, 2]), phase=number // 2,
            )
            for number in range(random.randint(1, 3))
        )  # fmt: skip
        tasks: list[Task] = []
        for index in range(random.randint(1, 9)):
            needed = random.sample(tasks, random.randint(0, min(2, len(tasks))))
            stage = max([random.randrange(len(stages)), *(one.stage for one in needed)])
            tasks.append(
                Task(
                    task_id=f"t{index}", dependencies=tuple(sorted(one.task_id for one in needed)), command=("true",),
                    priority=random.choice(["critical", "high", "medium", "low"]), stage=stage,
                    allow_failure=random.random() < 0.2, max_retries=random.randint(0, 2),
                    files=random.choice([(), (), ("a",), ("b",), ("a", "b")]),
                    approval=random.choice([None, None, None, "required"]), timeout_s=random.choice([20.0, 60.0, 600.0]),
                )
            )  # fmt: skip
        settings = RunSettings(
            max_parallel_agents=random.randint(1, 4), store_limit=random.randint(1, 5),
            max_queue_size=random.choice([1, 2, 100]), max_execution_s=random.choice([31_536_000.0] * 4 + [120.0]),
            retry=RetryPolicy(delay_s=random.choice([0.0, 2.0]), exponential=random.random() < 0.8, ceiling_s=3.0),
        )  # fmt: skip
        return Plan(name="simulated", stages=stages, tasks=tuple(tasks), settings=settings)

    def step(self) -> None:
        """One thing happens, then one dispatcher ticks, mostly."""
        random = self.random
        far = 700 if self.machine.hanging & self.machine.running.keys() else 1
        self.time_passes(round(random.choice([0, 0.1, 1, 3, far if self.calm else -5]) * SECOND_US))
        happens = random.choice(
            [self._ends, self._ends, self._ends, self._steers, self._submits, self._breaks, self._idles]
        )
        happens()
        if self.calm or random.random() < 0.7:
            self.tick(random.choice(self.dispatchers))
        self.machine.check()

    def tick(self, dispatcher: Dispatcher) -> None:
        """One tick, and everything that must hold after it."""
        try:
            due = self._called(dispatcher)
        except (StoreError, Killed) as error:
            self._looked_at.clear()
            if isinstance(error, Killed):
                self.kill(dispatcher)
            self.referee.look()
            return
        self.referee.look()
        self._check_processes()
        if dispatcher._seen == self.log.last_seq():  # Else others have gone on while it slept.
            for run_id in dispatcher.held:
                self.check_at_rest(dispatcher, run_id, due)

    def _called(self, dispatcher: Dispatcher) -> int | None:
        self.ticking.append(dispatcher)
        self.log.reads_left, self.unreadable_after = self.unreadable_after, None
        try:
            return dispatcher.tick()
        finally:
            self.ticking.pop()
            self.log.reads_left = None

    def _check_processes(self) -> None:
        """Whatever a run counts on exists, and nothing of a task runs twice."""
        of_task: Counter[tuple[str, str]] = Counter()
        for launch in self.machine.running.values():
            assert launch.attempt_id in self.referee.slots, f"{launch.attempt_id} runs, and no event says so"
            if launch.attempt_id in self._known(launch.run_id):
                of_task[launch.run_id, launch.task_id] += 1
        assert max(of_task.values(), default=0) <= 1, "no two attempts of one task run at once"

    def _known(self, run_id: str) -> set[str | None]:
        return {task.attempt_id for task in self.referee.runs[run_id].now.tasks.values() if task.status == "running"}

    def check_at_rest(self, dispatcher: Dispatcher, run_id: str, due: int | None) -> None:
        """A tick leaves nothing undone, says the referee."""
        held = dispatcher.held[run_id].state
        assert held.ended or not self.should_have_ended(run_id), "it should have ended"
        now_us = max(self.now_us, self.referee.at_us)
        self.referee.check_at_rest(run_id, now_us, None if due is None else due - self.now_us + now_us)
        for attempt_id, (of, name) in self.referee.slots.items():
            if of == run_id and attempt_id in self.machine.running:
                self._check_told(attempt_id, run_id, name)
        facts = dispatcher._facts(held, now_us)
        assert (facts.store_slots, facts.run_slots) == (len(self.referee.slots), self._slots(run_id)), "slots leak"
        looked_at = (dispatcher._me["pid"], self.log.last_seq())
        if self._looked_at.get(run_id) != looked_at:
            self._looked_at[run_id] = looked_at
            self._check_by_the_log(held, facts, now_us)

    def _check_by_the_log(self, held: RunState, facts: Facts, now_us: int) -> None:
        """What is held is what the log says; a plan made from that alone has nothing to do, and a reason for each task."""
        state = self.by_the_log(held.run_id)
        assert plain(held) == plain(state), "what is held is what the log says"
        seen = outlook(state, facts, now_us)
        for name, task in state.tasks.items():
            code = why_not(state, name, facts, now_us, seen).code
            if task.status in TASK_ENDED or task.status == "running":
                assert code == task.status
            elif state.status == "paused":
                assert code in WAITING | {"paused"}
            elif state.ended:  # Rolled back into the commit of a retry, before its RunResumed.
                assert code == "run_ended"
            else:
                assert code in WAITING, (name, code)
        assert plan(state, Agenda(state), copy.copy(facts), now_us) == Decision()

    def by_the_log(self, run_id: str) -> RunState:
        """A state folded from the first event on, whenever the run has changed; every new snapshot has to agree with it."""
        upto = max(self.referee.runs[run_id].after)
        snapshot = max(self.log.snapshot_seq(run_id, fold.NAME, fold.VERSION) for fold in (status, at_hand))
        known = self._folded.get(run_id)
        if known is not None and (known.upto, known.snapshot) == (upto, snapshot):
            return known.state
        state = Projector(self.log, use_snapshots=False).state(run_id)
        if snapshot != (0 if known is None else known.snapshot):
            assert plain(Projector(self.log).state(run_id)) == plain(state), "what snapshots say is what the log says"
        self._folded[run_id] = Folded(upto, snapshot, state)
        return state

    def should_have_ended(self, run_id: str) -> bool:
        """Whether nothing of a run is left."""
        now = self.referee.runs[run_id].now
        return now.of(*TASK_ENDED) == list(now.tasks) and not self._slots(run_id)

    def _check_told(self, attempt_id: str, run_id: str, name: str) -> None:
        """What must not go on has been asked to stop; what may has not."""
        now = self.referee.runs[run_id].now
        task, asked = now.tasks[name], self.machine.asked_to_stop.get(attempt_id)
        undone = (task.status, task.attempt_id) != ("running", attempt_id)
        if undone or now.cancelling or task.cancelling:
            assert asked is not None, f"{attempt_id} is to stop, and nobody has told it"

    def _slots(self, run_id: str) -> int:
        return sum(of == run_id for of, _ in self.referee.slots.values())

    def _idles(self) -> None:
        """Nothing happens."""

    def _ends(self) -> None:
        """Some attempts end, well or not, hang or vanish; those that were asked to stop listen, mostly."""
        machine, random = self.machine, self.random
        for attempt_id in list(machine.running):  # Never by id: ids are random, and a seed must tell one story.
            if attempt_id in machine.hanging:
                continue
            if attempt_id in machine.asked_to_stop and random.random() < 0.7:
                machine.stops(attempt_id)
            elif random.random() < 0.5:
                kind = random.random()
                if self.calm or kind < 0.6:
                    machine.end(attempt_id, "exited", None)
                elif kind < 0.67:
                    machine.hanging.add(attempt_id)
                elif kind < 0.74:
                    machine.vanish(attempt_id)
                else:
                    outcome: Outcome = random.choice(["exited", "exited", "timed_out", "lost"])
                    again = (
                        outcome == "timed_out" or random.random() < 0.8
                    )  # A time that was up says nothing of the task.
                    machine.end(attempt_id, outcome, "trouble", retryable=again)

    def _submits(self) -> None:
        """One more run, up to three."""
        if len(self.referee.runs) < 3 and not self.calm:
            submit(self.log, self.random_plan(), workdir=self.folder, environ={})
            self.referee.look()

    def _steers(self) -> None:
        """Somebody interferes with a run, from another process; refusals are no news."""
        if not self.referee.runs or self.calm:
            return
        run_id = self.random.choice(list(self.referee.runs))
        name = self.random.choice(sorted(self.referee.runs[run_id].now.tasks))
        choices: list[Callable[[], object]] = [
            lambda: steer.pause(self.log, run_id),
            lambda: steer.resume(self.log, run_id),
            lambda: steer.resume(self.log, run_id),
            lambda: steer.cancel(self.log, run_id, name),
            lambda: steer.retry(self.log, run_id),
            lambda: steer.retry(self.log, run_id, [name]),
            lambda: self._blocks(run_id, name),
            lambda: self._rolls_back(run_id),
            lambda: self._rolls_back(run_id),
            lambda: self._forks(run_id),
            lambda: (
                steer.cancel(self.log, run_id, grace_s=self.random.choice([3.0, 0.0]))
                if self.random.random() < 0.3
                else None
            ),
        ]
        with contextlib.suppress(NotAllowed):
            self.random.choice(choices)()
        self.referee.look()

    def _blocks(self, run_id: str, name: str) -> None:
        """A task waits for a person, or a person answers."""
        now = self.referee.runs[run_id].now
        if now.status in RUN_ENDED or now.cancelling:
            return
        if now.of("blocked"):
            self._answers(run_id, now.of("blocked")[0])
        elif now.tasks[name].status in ("pending", "queued"):
            self.append(run_id, ev.TaskBlocked(task_id=name, reason="approval"))

    def _answers(self, run_id: str, name: str) -> None:
        """Somebody lets the next attempt of a task start."""
        number = self.referee.runs[run_id].now.tasks[name].attempts + 1
        self.append(run_id, ev.TaskUnblocked(task_id=name, attempt=number))

    def _rolls_back(self, run_id: str) -> None:
        """To any of its moments, undone ones among them."""
        run = self.referee.runs[run_id]
        target, projector = self.random.choice(list(run.after)), Projector(self.log)
        self.append(run_id, *decide_rollback(projector.state(run_id), projector.state(run_id, target), target))

    def _forks(self, run_id: str) -> None:
        """Another run goes on from any moment of this one, with other limits now and then."""
        if len(self.referee.runs) < 5:
            settings = self.random.choice([{}, {}, {"max_parallel_agents": "1"}, {"task.max_retries": "1"}])
            travel.fork(self.log, run_id, self.random.choice(list(self.referee.runs[run_id].after)), settings)

    def append(self, run_id: str, *events: Event) -> None:
        """Somebody appends."""
        self.log.append(run_id, Projector(self.log).state(run_id).version, events)

    def _breaks(self) -> None:
        """A dispatcher dies, at rest or anywhere in a tick, sleeps, or meets a disk that refuses; clocks are set."""
        if self.calm:
            return
        victim = self.random.choice(self.dispatchers)
        runner = victim.runners["shell"]
        assert isinstance(runner, MachineRunner)
        match self.random.randrange(10):
            case 0:
                self.kill(victim)
            case 1:
                runner.dies_in = self.random.randrange(3)
            case 2:
                self.sleeps(victim)
            case 3 | 4 | 5:
                self.log.mood = self.random.choice(MOODS)
            case 6:
                with contextlib.suppress(Killed):
                    victim.leave()
                self.kill(victim)
            case 7:
                self.new_dispatcher()
            case 8:
                self._breaks_badly()
            case 9:
                self.unreadable_after = self.random.randrange(4)

    def sleeps(self, dispatcher: Dispatcher) -> None:
        """Everybody takes it for dead, but it goes on after a while."""
        self.alive.discard(dispatcher._me["pid"])

    def _breaks_badly(self) -> None:
        """The machine starts anew, its clock is set, or all snapshots are lost."""
        match self.random.randrange(4):
            case 0:
                for attempt_id in list(self.machine.running):
                    self.machine.vanish(attempt_id)
                for one in list(self.dispatchers):
                    self.kill(one)
            case 1 | 2:
                self.now_us += self.random.choice([-24, -1, 1, 24]) * HOUR_US
            case 3:
                self.log._writer.execute("DELETE FROM snapshots")

    def kill(self, dispatcher: Dispatcher) -> None:
        """What it has said before counts."""
        self.referee.look()
        super().kill(dispatcher)

    def finish(self) -> Counter[str]:
        """Every run comes to its end, and the log is what was written."""
        self.settle()
        assert verify_rows(self.log.rows()).broken is None
        return Counter(type(one.event).__name__ for one in self.log.read())

    def settle(self, steps: int = 400) -> None:
        """From here on nothing goes wrong, every person answers, and every run must come to its end."""
        self.calm, self.log.mood, self.unreadable_after = True, "", None
        self.now_us = max(self.now_us, self.referee.at_us)
        for one in self.dispatchers:
            runner = one.runners["shell"]
            assert isinstance(runner, MachineRunner)
            runner.dies_in = None
        for _ in range(steps):
            for run_id, run in self.referee.runs.items():
                for name in run.now.of("blocked"):
                    if run.now.status not in RUN_ENDED:
                        self._answers(run_id, name)
                self.referee.look()
                if run.now.status == "paused" and not run.now.cancelling:
                    steer.resume(self.log, run_id)
            self.referee.look()
            if all(run.now.status in RUN_ENDED for run in self.referee.runs.values()) and not self.referee.slots:
                break
            self.step()
        else:
            raise AssertionError(f"not settled: {[(r.now.status, r.holder) for r in self.referee.runs.values()]}")
        assert not self.machine.running, "no process is left"


class TornWorld(World):
    """One whose log is cut off anywhere at its end, also in the middle of a commit; somebody goes on from there."""

    def finish(self) -> Counter[str]:
        """Whatever ran is lost, and everything comes to its end."""
        cut = round(self.random.random() * self.log.last_seq())
        while is_completed_by(self.log, cut + 1):
            cut += 1
        self.log._writer.execute("DELETE FROM events WHERE seq > ?", (cut,))
        self.log._writer.execute("DELETE FROM snapshots WHERE seq > ?", (cut,))
        self.log.close()
        later = World(self.random, self.folder, first_pid=100)
        self.log = later.log
        with patch.object(dispatcher_module, "holder_alive", later.holder_alive):
            later.now_us = self.now_us
            later.referee.torn = cut
            later.referee.look()
            return later.finish()


def is_completed_by(log: Log, seq: int) -> bool:
    """Whether an event only completes what a rollback or a fork, a few events before, has begun."""
    row = log.row(seq)
    said = row is not None and ("rolled" in row.body or "forked" in row.body)
    return said and row is not None and row.type in ("TaskQueued", "RunPaused")


@contextmanager
def simulated(random: Random, folder: Path) -> Iterator[World]:
    """A world of its own."""
    world = World(random, folder)
    with one_story(world.holder_alive):
        yield world
    world.log.close()


@contextmanager
def torn(random: Random, folder: Path) -> Iterator[World]:
    """One that is going to be torn."""
    world = TornWorld(random, folder)
    with one_story(world.holder_alive):
        yield world
    world.log.close()


def plain(state: RunState) -> dict[str, Any]:
    """Every field of a state but what the scheduler has still to look at."""
    return {name: getattr(state, name) for name in RunState.__slots__ if name not in ("touched", "broken")}
