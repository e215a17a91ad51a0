"""A store, the machine that its attempts run on, and dispatchers that come, freeze and die."""

from __future__ import annotations

import contextlib
import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from referee import RUN_ENDED, TASK_ENDED, Referee

from parallel_agents import steer
from parallel_agents import submit as submit_module
from parallel_agents import travel as travel_module
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, StoreError
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings, Stage, Task
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler import dispatcher as dispatcher_module
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan, why_not
from parallel_agents.scheduler.runners.protocol import Ended, Launch, Outcome, Runner
from parallel_agents.submit import submit

SECOND_US = 1_000_000
START_US = 1_700_000_000 * SECOND_US
WAITING = {
    "dependencies", "stage", "not_before", "no_slot", "lower_rank", "one_by_one", "queue_full", "blocked", "scope",
}  # fmt: skip


class Killed(BaseException):
    """The process of a dispatcher ends in the middle of what it does."""


class Machine:
    """What outlives dispatchers: attempts that run, and what the ended ones left in their folders."""

    def __init__(self) -> None:
        self.running: dict[str, Launch] = {}
        self.exit_files: dict[str, Ended] = {}
        self.revoked: set[str] = set()
        self.asked_to_stop: set[str] = set()

    def start(self, launch: Launch) -> None:
        """No attempt runs twice, and no two of one task at once."""
        assert launch.attempt_id not in self.running
        assert launch.attempt_id not in self.exit_files
        assert launch.attempt_id not in self.revoked
        self.running[launch.attempt_id] = launch

    def end(self, attempt_id: str, outcome: Outcome, error: str | None, *, retryable: bool = True) -> None:
        """One ends, and leaves its exit file."""
        del self.running[attempt_id]
        self.exit_files[attempt_id] = Ended(attempt_id, outcome, error=error, retryable=retryable)


class MachineRunner:
    """The runner of one dispatcher: tells of the ends of what it started or adopted, each once."""

    name = "shell"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.mine: set[str] = set()
        self.dies_in: int | None = None  # So many starts from now.

    def start(self, launch: Launch) -> None:
        """Begin."""
        if self.dies_in is not None:
            if self.dies_in == 0:
                raise Killed
            self.dies_in -= 1
        self.machine.start(launch)
        self.mine.add(launch.attempt_id)

    def adopt(self, launches: Iterable[Launch]) -> None:
        """What neither runs nor left an exit file is lost, and must never start any more."""
        for launch in launches:
            self.mine.add(launch.attempt_id)
            if launch.attempt_id not in self.machine.running and launch.attempt_id not in self.machine.exit_files:
                self.machine.revoked.add(launch.attempt_id)
                self.machine.exit_files[launch.attempt_id] = Ended(launch.attempt_id, "lost", began=False)

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """Ask; when it listens is up to the machine."""
        self.machine.asked_to_stop.add(attempt_id)

    def poll(self) -> list[Ended]:
        """What has ended: read anew from its file each time, as a file is."""
        found = [attempt_id for attempt_id in self.machine.exit_files if attempt_id in self.mine]
        self.mine -= set(found)
        return [replace(self.machine.exit_files[attempt_id]) for attempt_id in found]

    def close(self) -> None:
        """Nothing to let go of."""


class MoodyLog(Log):
    """Refuses a commit now and then, and keeps what each commit held."""

    refuses = False

    def transact(self, decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        """As a log does, or not at all. In what a dispatcher commits, ends come before starts."""

        def then_fail(draft: Draft) -> None:
            decide(draft)
            raise StoreError("the disk is full")

        if self.refuses and actor is not None:
            self.refuses = False
            return super().transact(then_fail, actor=actor)
        made = super().transact(decide, actor=actor)
        started = False
        for record in made:
            started |= isinstance(record.event, ev.TaskStarted)
            ended = isinstance(record.event, ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost)
            assert not (started and ended), "ends precede starts in a commit"
        return made


@contextmanager
def one_story(holder_alive: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """The process table is the world's, and ids count up, so that a seed tells one story."""
    numbers = itertools.count(1)

    def new_ids(count: int) -> list[str]:
        return [f"id{next(numbers):08}" for _ in range(count)]

    with (
        patch.object(dispatcher_module, "holder_alive", holder_alive),
        patch.object(dispatcher_module, "new_ids", new_ids),
        patch.object(submit_module, "new_id", lambda: new_ids(1)[0]),
        patch.object(travel_module, "new_id", lambda: new_ids(1)[0]),
    ):
        yield


class Inhabited(ABC):
    """A store, and the dispatchers that live on it, driven by one source of randomness."""

    def __init__(self, random: Random, folder: Path, *, first_pid: int = 1) -> None:
        self.random = random
        self.folder = folder
        self.now_us = START_US
        self.set_back_us = 0  # By how much in all somebody has set the clock back.
        self.log = MoodyLog(folder / "events.db", clock=lambda: self.now_us, environ={})
        self.log._writer.execute("PRAGMA synchronous = OFF")
        self.alive: set[int] = set()  # Pids.
        self.dispatchers: list[Dispatcher] = []
        self.calm = False  # Nothing goes wrong any more.
        self._pids = first_pid - 1

    def holder_alive(self, holder: dict[str, Any]) -> bool:
        """What the process table says."""
        return holder["pid"] in self.alive

    @abstractmethod
    def new_dispatcher(self) -> None:
        """A process that takes whatever nobody holds."""

    def begin(self, runners: Mapping[str, Runner], **more: Any) -> None:
        """Such a process, with its runners."""
        self._pids += 1
        made = Dispatcher(
            self.log, runners, kind=f"process {self._pids}", takes_all=True, clock=lambda: self.now_us,
            draw=self.random.random, environ={}, steady=lambda: self.now_us + self.set_back_us, **more,
        )  # fmt: skip
        made._me = {"pid": self._pids, "start_time": 1, "boot_id": "b", "kind": f"process {self._pids}"}
        self.alive.add(self._pids)
        self.dispatchers.append(made)

    def kill(self, dispatcher: Dispatcher) -> None:
        """Its attempts go on; somebody else comes if nobody is left."""
        self.alive.discard(dispatcher._me["pid"])
        self.dispatchers.remove(dispatcher)
        if not self.dispatchers:
            self.new_dispatcher()


class World(Inhabited):
    """All of it."""

    def __init__(self, random: Random, folder: Path, *, first_pid: int = 1) -> None:
        super().__init__(random, folder, first_pid=first_pid)
        self.referee = Referee(self.log)
        self.machine = Machine()
        self.new_dispatcher()

    def new_dispatcher(self) -> None:
        """With a runner of commands."""
        self.begin({"shell": MachineRunner(self.machine)})

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
                    approval=random.choice([None, None, None, "required"]),
                )
            )  # fmt: skip
        settings = RunSettings(
            max_parallel_agents=random.randint(1, 4), store_limit=random.randint(1, 5),
            max_queue_size=random.choice([1, 2, 100]), max_execution_s=31_536_000.0,
            retry=RetryPolicy(delay_s=random.choice([0.0, 2.0])),
        )  # fmt: skip
        return Plan(name="simulated", stages=stages, tasks=tuple(tasks), settings=settings)

    def step(self) -> None:
        """One thing happens, then one dispatcher ticks, mostly."""
        random = self.random
        passes_us = round(random.choice([0, 0.1, 1, 3, -5 if not self.calm else 1]) * SECOND_US)
        self.now_us += passes_us
        self.set_back_us += max(0, -passes_us)
        self.referee.set_back_us = self.set_back_us
        happens = random.choice(
            [self._ends, self._ends, self._ends, self._steers, self._submits, self._breaks, self._idles]
        )
        happens()
        if self.calm or random.random() < 0.7:
            self.tick(random.choice(self.dispatchers))

    def tick(self, dispatcher: Dispatcher) -> None:
        """One tick, and everything that must hold after it."""
        try:
            dispatcher.tick()
        except StoreError:
            self.referee.look()
            return
        except Killed:
            self.kill(dispatcher)
            self.referee.look()
            return
        self.referee.look()
        for run_id, held in dispatcher.held.items():
            read = Projector(self.log, use_snapshots=False).state(run_id)
            assert plain(held.state) == plain(read), "what is held is what the log says"
            self._check_at_rest(read)
        of_task: dict[tuple[str, str], int] = {}
        for launch in self.machine.running.values():
            key = (launch.run_id, launch.task_id)
            of_task[key] = of_task.get(key, 0) + (launch.attempt_id in self._known(launch.run_id))
        assert max(of_task.values(), default=0) <= 1, "no two attempts of one task run at once"

    def _known(self, run_id: str) -> set[str | None]:
        return {task.attempt_id for task in self.referee.runs[run_id].now.tasks.values() if task.status == "running"}

    def _check_at_rest(self, state: RunState) -> None:
        """A tick leaves nothing undone, says an agenda made from the log alone; and every task left has its reason."""
        now = self.referee.runs[state.run_id].now
        assert state.ended or now.of(*TASK_ENDED) != list(now.tasks) or self._slots(state.run_id), (
            "it should have ended"
        )
        now_us = max(self.now_us, self.referee._at_us)
        facts = Facts(len(self.referee.slots), self._slots(state.run_id))
        fresh = copy.deepcopy(state)
        assert plan(fresh, Agenda(fresh), copy.copy(facts), now_us) == Decision()
        for name, task in state.tasks.items():
            code = why_not(state, name, facts, now_us).code
            if task.status in TASK_ENDED or task.status == "running":
                assert code == task.status
            elif state.status == "paused":
                assert code in WAITING | {"paused"}
            elif state.ended:  # Rolled back into the commit of a retry, before its RunResumed.
                assert code == "run_ended"
            else:
                assert code in WAITING, (name, code)

    def _slots(self, run_id: str) -> int:
        return sum(of == run_id for of, _ in self.referee.slots.values())

    def _idles(self) -> None:
        """Nothing happens."""

    def _ends(self) -> None:
        """Some attempts end, well or not; those that were asked to stop listen, mostly."""
        for attempt_id in list(self.machine.running):  # Never by id: ids are random, and a seed must tell one story.
            if attempt_id in self.machine.asked_to_stop and self.random.random() < 0.7:
                self.machine.end(attempt_id, "stopped", "stopped")
            elif self.random.random() < 0.5:
                kind = self.random.random()
                if self.calm or kind < 0.6:
                    self.machine.end(attempt_id, "exited", None)
                else:
                    outcome: Outcome = self.random.choice(["exited", "exited", "timed_out", "lost"])
                    self.machine.end(attempt_id, outcome, "trouble", retryable=self.random.random() < 0.8)

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
            lambda: steer.cancel(self.log, run_id) if self.random.random() < 0.3 else None,
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
        """As DESIGN 6 says: one commit, the requeueing of what ran there, and a pause unless that was the end."""
        run = self.referee.runs[run_id]
        target = self.random.randint(min(run.after), self.log.last_seq())
        there = run.after[max(seq for seq in run.after if seq <= target)]
        events: list[Event] = [ev.RunRolledBack(to_seq=target)]
        events += [ev.TaskQueued(task_id=name, reason="rolled_back") for name in there.of("running")]
        events += [ev.RunPaused(reason="rolled back")] if there.status not in RUN_ENDED else []
        self.append(run_id, *events)

    def append(self, run_id: str, *events: Event) -> None:
        """Somebody appends."""
        self.log.append(run_id, Projector(self.log).state(run_id).version, events)

    def _breaks(self) -> None:
        """A dispatcher dies, at rest or in the middle of a tick, freezes, or meets a full disk; another comes."""
        if self.calm:
            return
        victim = self.random.choice(self.dispatchers)
        runner = victim.runners["shell"]
        assert isinstance(runner, MachineRunner)
        match self.random.randrange(6):
            case 0:
                self.kill(victim)
            case 1:
                runner.dies_in = self.random.randrange(3)
            case 2:
                self.alive.discard(victim._me["pid"])  # It only sleeps, but everybody takes it for dead.
            case 3:
                self.log.refuses = True
            case 4:
                victim.leave()
                self.kill(victim)
            case 5:
                self.new_dispatcher()

    def kill(self, dispatcher: Dispatcher) -> None:
        """What it has said before counts."""
        self.referee.look()
        super().kill(dispatcher)

    def settle(self, steps: int = 400) -> None:
        """From here on nothing goes wrong, every person answers, and every run must come to its end."""
        self.calm, self.log.refuses = True, False
        for one in self.dispatchers:
            runner = one.runners["shell"]
            assert isinstance(runner, MachineRunner)
            runner.dies_in = None
        for _ in range(steps):
            for run_id, run in self.referee.runs.items():
                for name in run.now.of("blocked"):
                    if run.now.status not in RUN_ENDED:
                        self._answers(run_id, name)
                if run.now.status == "paused" and not run.now.cancelling:
                    steer.resume(self.log, run_id)
            self.referee.look()
            if all(run.now.status in RUN_ENDED for run in self.referee.runs.values()) and not self.referee.slots:
                break
            self.step()
        else:
            raise AssertionError(f"not settled: {[(r.now.status, r.holder) for r in self.referee.runs.values()]}")
        assert not self.machine.running.keys() & self.referee.slots.keys()


def plain(state: RunState) -> dict[str, Any]:
    """Every field of a state but what the scheduler has still to look at."""
    return {name: getattr(state, name) for name in RunState.__slots__ if name not in ("touched", "broken")}
