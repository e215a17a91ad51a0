"""The world of the scheduler on a machine whose load comes and goes, with runs that are governed by it and runs that are not.

What is checked is told by the log and the load alone: every start of a process had to be allowed, every one that is left had
to be held back, and every run comes to its end on a machine that stays busy and has no memory left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from processes import Machine, MachineRunner
from world import TASK_ENDED, WAITING, World, one_story

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import Plan, RunSettings
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.governing import limited, machine_of, width
from parallel_agents.scheduler.machine_load import MachineLoad, Usage
from parallel_agents.scheduler.plan import Agenda, Facts, outlook, plan, why_not
from parallel_agents.scheduler.redecide import LEVEL, RESTED, THEN
from parallel_agents.scheduler.runners.protocol import Outcome

MB = 1_000_000


class Measured(Machine):
    """A machine that knows what attempts have needed of memory."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random

    def end(self, attempt_id: str, outcome: Outcome, error: str | None, *, retryable: bool = True) -> None:
        """One ends, and its peak is known, mostly."""
        super().end(attempt_id, outcome, error, retryable=retryable)
        self.exit_files[attempt_id].peak_memory_bytes = self.random.choice([0, 10, 300, 900]) * MB


class GovernedWorld(World):
    """A world with a load."""

    def __init__(self, random: Random, folder: Path) -> None:
        self.load = MachineLoad()
        self.random = random
        self.happened: Counter[str] = Counter()
        self._store: tuple[int, tuple[Occupancy, Needs]] | None = None
        super().__init__(random, folder)

    def new_machine(self) -> Machine:
        """One whose attempts are measured."""
        return Measured(self.random)

    def new_dispatcher(self) -> None:
        """With a sampler that all of them share."""
        self.begin_process({"shell": MachineRunner(self.machine)}, load=lambda: self.load)

    def random_plan(self) -> Plan:
        """Four in five of them are governed."""
        made, random = super().random_plan(), self.random
        if random.random() < 0.2:
            return made
        limits = {
            "max_cpu_percent": random.choice([None, 50.0, 80.0]), "throttle_cpu_percent": random.choice([None, 90.0, 40.0]),
            "max_memory_mb": random.choice([None, 1000]), "min_workers": random.randint(1, 3),
            "max_workers": random.choice([None, 1, 3]), "auto_scale": random.random() < 0.7,
        }  # fmt: skip
        settings, changed = dict(made.settings), dict[str, Any]()
        if random.random() < 0.7:  # Nothing but the machine and the limits keeps its tasks apart.
            free = {"dependencies": (), "files": (), "stage": 0, "approval": None}
            changed = {"tasks": tuple(one.model_copy(update=free) for one in made.tasks)}
            changed["stages"] = (made.stages[0].model_copy(update={"limit": None, "parallel": True}),)
            settings |= {"max_parallel_agents": 4, "store_limit": 6}
        changed["settings"] = RunSettings.model_validate({**settings, **limits})
        return made.model_copy(update=changed)

    def step(self) -> None:
        """The load changes now and then, and is sampled; then as ever."""
        random = self.random
        cpu, free = self.load.cpu_percent, self.load.available_bytes
        if not self.calm and random.random() < 0.15:
            cpu, free = random.choice([None, 10.0, 45.0, 60.0, 85.0, 100.0]), random.choice([None, 50, 500, 9000])
            free = None if free is None else free * MB
        used = {
            name: Usage(memory_bytes=random.choice([5, 200, 800]) * MB, cpu_percent=random.choice([1.0, 20.0]))
            for name in self.machine.running
            if random.random() < 0.7
        }
        self.load = MachineLoad(self.machine.now_us, cpu, free, used)
        super().step()

    def tick(self, dispatcher: Dispatcher) -> None:
        """What was started had to be allowed."""
        seen = self.log.last_seq()
        super().tick(dispatcher)
        self._check_starts(seen)
        if dispatcher in self.dispatchers and dispatcher._seen == self.log.last_seq():
            self._check_nothing_is_left(dispatcher)

    def _check_starts(self, seen: int) -> None:
        projector = Projector(self.log, use_snapshots=False)
        for record in self.log.read(seen):
            if not isinstance(record.event, ev.TaskStarted):
                continue
            state = projector.state(record.run_id, record.seq - 1)
            slots, limits, facts = projector.occupancy(record.seq - 1), state.plan.settings, record.event.facts
            if not limited(limits):
                assert facts.keys() - {THEN, LEVEL, RESTED} == {"run_slots", "store_slots"}
                continue
            self.happened["starts"] += 1
            busy, cpu, free = len(slots.slots), self.load.cpu_percent, self.load.available_bytes
            assert facts["processes"] == busy
            assert facts.get("cpu_percent") == cpu
            assert slots.of_run(record.run_id) < width(state) <= (limits.max_workers or 10**6)
            if busy >= limits.min_workers and cpu is not None:
                assert cpu <= (limits.max_cpu_percent or 100)
                assert cpu <= (limits.throttle_cpu_percent or 100)
                assert "cpu" not in state.throttled
            if busy and limits.max_memory_mb is not None:
                assert facts.get("taken_bytes", 0) + facts.get("memory_bytes", 0) <= limits.max_memory_mb * MB
                assert free is None or facts.get("memory_bytes", 0) < free
                assert "memory" not in state.throttled

    def _check_nothing_is_left(self, dispatcher: Dispatcher) -> None:
        """Planned anew, from the log and the load alone, nothing would start."""
        slots, needs = self.of_the_store()
        assert dispatcher.governor._needs in (None, needs), "what it has learned is what the log says"
        machine = machine_of(self.load, slots, needs, dispatcher.attempts.launched)
        now_us = max(self.now_us, self.referee.at_us)
        for priority in range(4):
            for run_id in dispatcher.held:
                state = self.by_the_log(run_id)
                facts = Facts(len(slots.slots), slots.of_run(run_id), rests=dispatcher.rests_of(run_id))
                facts.machine = machine if limited(state.plan.settings) else None
                decision = plan(state, Agenda(state), facts, now_us, priority=priority)
                assert (decision.steps, decision.skips, decision.cancels) == ([], [], [])
                if decision.pressed is not None:
                    self.happened[decision.pressed.code] += 1

    def of_the_store(self) -> tuple[Occupancy, Needs]:
        """Slots and needs from the first event on, made anew once there are more."""
        seq = self.log.last_seq()
        if self._store is None or self._store[0] != seq:
            projector = Projector(self.log, use_snapshots=False)
            self._store = seq, (projector.occupancy(), projector.needs())
        return self._store[1]

    def check_at_rest(self, dispatcher: Dispatcher, run_id: str, due: int | None) -> None:
        """Every task that is left has its reason, as far as another process can tell."""
        state, (slots, needs) = self.by_the_log(run_id), self.of_the_store()
        assert state.ended or not self.should_have_ended(run_id)
        facts = Facts(len(slots.slots), slots.of_run(run_id), rests=dispatcher.rests_of(run_id))
        now_us = max(self.now_us, self.referee.at_us)
        if limited(state.plan.settings):
            facts.machine = machine_of(MachineLoad(), slots, needs)
        seen = outlook(state, facts, now_us)
        for name, task in state.tasks.items():
            if task.status not in TASK_ENDED and task.status != "running" and not state.ended:
                code = why_not(state, name, facts, now_us, seen).code
                assert code in WAITING | {"paused", "cpu", "memory", "workers", "due", "approval"}, (name, code)

    def finish(self) -> Counter[str]:
        """The machine is busy for good and has no memory left, and every run ends all the same."""
        self.load = MachineLoad(self.machine.now_us, 100.0, 0)
        return super().finish() + self.happened


@contextmanager
def simulated(random: Random, folder: Path) -> Iterator[GovernedWorld]:
    """A world of its own."""
    world = GovernedWorld(random, folder)
    with one_story(world.holder_alive):
        yield world
    world.log.close()
