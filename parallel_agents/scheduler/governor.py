"""What a dispatcher knows of the machine, and what it has to say about it in the log.

It takes no sample: the load is handed in. What attempts have needed before is read when the first run that asks for it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import needs as needs_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler import scaling, trouble
from parallel_agents.scheduler.governing import (
    EASE_PERCENT,
    MEGABYTE,
    WORKERS,
    Machine,
    Pressure,
    is_process,
    limited,
    machine_of,
    processes,
)
from parallel_agents.scheduler.machine_load import MachineLoad
from parallel_agents.scheduler.plan import Decision
from parallel_agents.scheduler.scaling import Gauge
from parallel_agents.scheduler.throttle import decide_eased, decide_pressed


@dataclass(slots=True)
class _Watch:
    """What has been seen of one run, tick by tick."""

    gauge: Gauge
    pressed: Pressure | None = None  # In the tick at hand, or the last one.
    since_us: int = 0  # When that began, by the steady clock.
    warned: bool = False  # That memory is above its mark.


class Governor:
    """Called from the dispatcher's thread only.

    Args:
        load: what the sampler has seen last.
        steady: microseconds, by a clock that nobody sets.
        ours: attempts that this process has started or adopted.
    """

    def __init__(
        self,
        projector: Projector,
        load: Callable[[], MachineLoad],
        steady: Callable[[], int],
        ours: Collection[str],
    ) -> None:
        self._projector = projector
        self._load = load
        self._steady = steady
        self._ours = ours
        self._needs: Needs | None = None
        self._watched: dict[str, _Watch] = {}
        self._seen = load()
        self._machine: Machine | None = None  # In this tick, with what it has started.

    def open(self, state: RunState) -> None:
        """A run is taken."""
        if not limited(state.plan.settings):
            return
        if state.callables and not any(is_process(task.task) for task in state.tasks.values()):
            return
        self._watched[state.run_id] = _Watch(Gauge())
        if self._needs is None:
            self._needs = self._projector.needs()

    @property
    def asked(self) -> bool:
        """Whether anybody needs it to keep up with the log."""
        return self._needs is not None

    def forget(self) -> None:
        """What was folded may not be in the log."""
        self._needs = self._machine = None
        self._watched.clear()

    def lose(self, run_id: str) -> None:
        """A run is ours no more."""
        self._watched.pop(run_id, None)

    def fold(self, record: Recorded) -> None:
        """Keep up with the log."""
        if self._needs is not None:
            needs_fold.fold(self._needs, record)

    def begin(self, occupancy: Occupancy) -> None:
        """A tick begins to plan."""
        if self._watched:
            assert self._needs is not None
            self._seen = self._load()
            self._machine = machine_of(self._seen, occupancy, self._needs, self._ours)

    def machine(self, state: RunState) -> Machine | None:
        """What the starts of a run depend on; None where it asks for none of it."""
        return self._machine if state.run_id in self._watched else None

    def due(self, state: RunState, now_us: int) -> list[Event]:
        """What is to be told before anything is planned: that a run may go on, and how wide its pool is."""
        watch, machine = self._watched.get(state.run_id), self._machine
        if watch is None or machine is None or state.status != st.RUNNING or state.cancel_requested:
            return []
        events: list[Event] = []
        events += decide_eased(state, machine, watch.pressed.expected if watch.pressed is not None else 0)
        scaled = scaling.decide_width(state, watch.gauge, now_us)
        if scaled is not None:
            scaling.start_anew(watch.gauge)
            events.append(scaled)
        _warn_of_memory(watch, state, machine)
        return events

    def note(self, state: RunState, decision: Decision) -> None:
        """What was planned: why the machine lets nothing more start, and what it lets start although it should not."""
        watch = self._watched.get(state.run_id)
        if watch is None:
            self._count_ungoverned(state, decision)
            return
        if decision.pressed is not None:
            if watch.pressed is None or watch.pressed.code != decision.pressed.code:
                watch.since_us = self._steady()
            watch.pressed = decision.pressed
        for task_id, room in decision.rooms.items():
            if room.warning:
                alone = "task {} of run {} starts all the same, with nothing beside it: {}"
                trouble.warn(alone, task_id, state.run_id, room.warning)

    def _count_ungoverned(self, state: RunState, decision: Decision) -> None:
        """What a run starts that does not ask weighs on those that do."""
        if self._machine is not None:
            for what, task_id in decision.steps:
                if what == "start" and is_process(state.tasks[task_id].task):
                    self._machine.add(0, 0)

    def look_back(self, state: RunState, pressed: bool, run_slots: int) -> list[Event]:
        """After all was planned: what is to be told of a run that starts nothing because of the machine.

        Args:
            pressed: whether anything planned in this tick was held back by the machine.
            run_slots: attempts of the run that hold a slot by now.
        """
        watch = self._watched.get(state.run_id)
        if watch is None:
            return []
        if not pressed:
            watch.pressed = None
        waits = watch.pressed is not None and watch.pressed.code == WORKERS
        scaling.observe(watch.gauge, state, self._seen, processes(state, run_slots), waits=waits)
        told = decide_pressed(state, watch.pressed, (self._steady() - watch.since_us) / 1e6)
        if isinstance(told, ev.DispatchThrottled):
            trouble.warn("run {} waits: {}", state.run_id, told.reason)
        return [] if told is None else [told]


def _warn_of_memory(watch: _Watch, state: RunState, machine: Machine) -> None:
    """Once for each time that the mark is passed."""
    settings = state.plan.settings
    if settings.max_memory_mb is None:
        return
    mark = settings.max_memory_mb * MEGABYTE * settings.memory_warning_percent / 100
    if not watch.warned and machine.used_bytes > mark:
        watch.warned = True
        trouble.warn(
            "attempts use {:,} MB of memory, more than {:g} % of the {:,} MB that run {} lets them use",
            machine.used_bytes // MEGABYTE, settings.memory_warning_percent, settings.max_memory_mb, state.run_id,
        )  # fmt: skip
    elif watch.warned and machine.used_bytes < mark * EASE_PERCENT / 100:
        watch.warned = False
