"""The same random stories on a machine whose load comes and goes, with runs that are governed by it and runs that are not.

What is checked is told by the log and the load alone: every start of a process had to be allowed, every one that is left had
to be held back, and every run comes to its end on a machine that stays busy and has no memory left.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from world import RUN_ENDED, SECOND_US, TASK_ENDED, WAITING, Machine, MachineRunner, World, one_story

from examples import examples
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import Plan, RunSettings
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.dispatcher import Dispatcher
from parallel_agents.scheduler.governing import limited, machine_of, width
from parallel_agents.scheduler.machine_load import MachineLoad, Usage
from parallel_agents.scheduler.plan import Agenda, Facts, plan, why_not
from parallel_agents.scheduler.runners.protocol import Outcome

MB = 1_000_000
STORIES = settings(max_examples=examples(8), deadline=None, phases=[Phase.explicit, Phase.generate])


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
        self._steady_us = self._wall_us = 0
        self.looked_at = 0
        self.starts = 0
        self.held: set[str] = set()
        super().__init__(random, folder)

    def new_dispatcher(self) -> None:
        """With a sampler that all of them share."""
        if not isinstance(self.machine if hasattr(self, "machine") else None, Measured):
            self.machine = Measured(self.random)
        self.begin({"shell": MachineRunner(self.machine)}, load=lambda: self.load)
        self.dispatchers[-1].governor._steady = self.steady

    def steady(self) -> int:
        """The clock without its steps back."""
        self._steady_us += max(0, self.now_us - (self._wall_us or self.now_us))
        self._wall_us = self.now_us
        return self._steady_us

    def random_plan(self) -> Plan:
        """Four in five of them are governed."""
        made, random = super().random_plan(), self.random
        if random.random() < 0.2:
            return made
        limits = {
            "max_cpu_percent": random.choice([None, 50.0, 80.0]), "throttle_cpu_percent": random.choice([None, 90.0, 40.0]),
            "max_memory_mb": random.choice([None, 1000]), "min_workers": random.randint(1, 3),
            "max_workers": random.choice([None, 2, 5]), "auto_scale": random.random() < 0.7,
        }  # fmt: skip
        return made.model_copy(update={"settings": RunSettings.model_validate({**dict(made.settings), **limits})})

    def step(self) -> None:
        """The load changes now and then, and is sampled; then as ever."""
        random = self.random
        cpu, free = self.load.cpu_percent, self.load.available_bytes
        if not self.calm and random.random() < 0.3:
            cpu, free = random.choice([None, 10.0, 45.0, 60.0, 85.0, 100.0]), random.choice([None, 50, 500, 9000])
            free = None if free is None else free * MB
        used = {
            name: Usage(memory_bytes=random.choice([5, 200, 800]) * MB, cpu_percent=random.choice([1.0, 20.0]))
            for name in self.machine.running
            if random.random() < 0.7
        }
        self.load = MachineLoad(self.load.at_us + SECOND_US, cpu, free, used)
        super().step()

    def tick(self, dispatcher: Dispatcher) -> None:
        """What was started had to be allowed."""
        self.looked_at = self.log.last_seq()
        super().tick(dispatcher)
        self._check_starts()
        if dispatcher in self.dispatchers:
            self._check_nothing_is_left(dispatcher)

    def _check_starts(self) -> None:
        projector = Projector(self.log, use_snapshots=False)
        for record in self.log.read(self.looked_at):
            if not isinstance(record.event, ev.TaskStarted):
                continue
            state = projector.state(record.run_id, record.seq - 1)
            slots, limits, facts = projector.occupancy(record.seq - 1), state.plan.settings, record.event.facts
            if not limited(limits):
                assert facts.keys() == {"run_slots", "store_slots"}
                continue
            self.starts += 1
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
        projector = Projector(self.log, use_snapshots=False)
        slots = projector.occupancy()
        machine = machine_of(self.load, slots, projector.needs(), dispatcher.attempts.launched)
        now_us = max(self.now_us, self.referee._at_us)
        for priority in range(4):
            for run_id in dispatcher.held:
                state = projector.state(run_id)
                facts = Facts(len(slots.slots), slots.of_run(run_id))
                facts.machine = machine if limited(state.plan.settings) else None
                decision = plan(copy.deepcopy(state), Agenda(state), facts, now_us, priority=priority)
                assert (decision.steps, decision.skips, decision.cancels) == ([], [], [])
                if decision.pressed is not None:
                    self.held.add(decision.pressed.code)

    def _check_at_rest(self, state: RunState) -> None:
        """Every task that is left has its reason, as far as another process can tell."""
        slots, now = Projector(self.log).occupancy(), self.referee.runs[state.run_id].now
        assert state.ended or now.of(*TASK_ENDED) != list(now.tasks) or self._slots(state.run_id)
        now_us = max(self.now_us, self.referee._at_us)
        facts = Facts(len(slots.slots), slots.of_run(state.run_id))
        if limited(state.plan.settings):
            facts.machine = machine_of(MachineLoad(), slots, Projector(self.log).needs())
        for name, task in state.tasks.items():
            if task.status not in TASK_ENDED and task.status != "running" and not state.ended:
                code = why_not(state, name, facts, now_us).code
                assert code in WAITING | {"paused", "cpu", "memory", "workers", "due"}, (name, code)


def told(seed: int) -> GovernedWorld:
    """One story. In its end the machine is busy for good and has no memory left, and every run ends all the same."""
    with tempfile.TemporaryDirectory() as folder:
        world = GovernedWorld(Random(seed), Path(folder))
        with one_story(world.holder_alive):
            for _ in range(60):
                world.step()
            world.load = MachineLoad(world.load.at_us, 100.0, 0)
            world.settle()
        assert all(run.now.status in RUN_ENDED for run in world.referee.runs.values())
        world.log.close()
        return world


@STORIES
@given(st.integers(0, 2**32))
def test_on_a_machine_whose_load_comes_and_goes_the_rules_hold_and_every_run_comes_to_its_end(seed: int) -> None:
    """Whoever dies in between."""
    told(seed)


def test_such_stories_meet_every_reason() -> None:
    """So that the property above says something."""
    held: set[str] = set()
    starts = 0
    for seed in range(12):
        world = told(seed)
        held, starts = held | world.held, starts + world.starts
    assert held == {"cpu", "memory", "workers"}
    assert starts > 50
