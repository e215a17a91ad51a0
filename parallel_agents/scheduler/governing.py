"""Whether the machine lets one more process start: its processors, its memory, the width of the pool of workers. Pure.

Asked by ``plan`` for every process that nothing else holds back, and by ``why`` in the same words. Something always goes
on: ``min_workers`` processes of the store may run however busy the processors are, and one however little memory there is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from parallel_agents.eventstore.submission import RunSettings, Task
from parallel_agents.projections import status as st
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.occupancy import CALLABLE, EXPECTED_MEMORY, Occupancy
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.granting import resolves, runner_name
from parallel_agents.scheduler.machine_load import MachineLoad

MEGABYTE: Final = 1_000_000
LEFT_BYTES: Final = 100 * MEGABYTE
"""Of what is available, starts leave so much to everybody else."""
EASE_PERCENT: Final = 90
"""Of a limit that starts were throttled at: they go on below it, or every sample would stop or release them."""
WORKERS: Final = "workers"


@dataclass(slots=True)
class Machine:
    """What a start depends on besides its run: the load of the machine, and all processes that run on it for us."""

    cpu_percent: float | None = None  # Of all processors together; None: not known, so it holds nothing back.
    available_bytes: int | None = None  # Likewise.
    running: int = 0  # Attempts of the store that are processes.
    taken_bytes: int = 0  # Of these: what each uses or is expected to need, whichever is more.
    used_bytes: int = 0  # Of these, as far as they were measured.
    coming_bytes: int = 0  # What they are expected to need and do not use yet.
    needs: Needs = field(default_factory=Needs)
    first: tuple[str, str] | None = None  # Run and task that have waited for memory for a while: nobody passes them.

    def add(self, expected: int, used: int | None) -> None:
        """Count a process that runs.

        Args:
            expected: bytes; 0 where that is unknown.
            used: bytes; None where nobody here can measure it: of what is available it has taken its part already.
        """
        self.running += 1
        self.taken_bytes += max(expected, used or 0)
        self.used_bytes += used or 0
        self.coming_bytes += 0 if used is None else max(0, expected - used)


def machine_of(load: MachineLoad, occupancy: Occupancy, needs: Needs, ours: Collection[str] = ()) -> Machine:
    """The machine, with all processes of the store that run.

    Args:
        ours: attempts that this process has started or adopted, and can measure.
    """
    machine = Machine(load.cpu_percent, load.available_bytes, needs=needs)
    for attempt_id in occupancy.slots:
        if attempt_id not in occupancy.calls:
            usage = load.attempts.get(attempt_id)
            used = usage.memory_bytes if usage is not None else 0 if attempt_id in ours else None
            machine.add(occupancy.memory.get(attempt_id, 0), used)
    return machine


class Pressure(NamedTuple):
    """Why the machine does not let a task start."""

    code: str  # cpu, memory or workers.
    text: str
    hard: bool = False  # Beyond what a run is to be throttled at, and not just beyond what lets no more start.
    expected: int = 0  # Bytes of memory that it is expected to need.
    figures: Mapping[str, Any] = MappingProxyType({})  # What that was decided on, for replay.


class Room(NamedTuple):
    """A process that may start."""

    expected: int  # Bytes of memory; 0 where that is unknown.
    figures: dict[str, Any]  # What that was decided on, for replay.
    warning: str = ""


def is_process(task: Task) -> bool:
    """Whether an attempt of a task is a process of its own: everything but a callable."""
    return runner_name(task) != CALLABLE


def limited(settings: RunSettings) -> bool:
    """Whether a run asks for anything of this at all; plans of older releases do not."""
    cpu = settings.max_cpu_percent is not None or settings.throttle_cpu_percent is not None
    return cpu or settings.max_memory_mb is not None or settings.auto_scale or settings.max_workers is not None


def most_workers(settings: RunSettings) -> int:
    """What the pool goes up to. The smallest limit counts."""
    return min(settings.max_parallel_agents, settings.max_workers or settings.max_parallel_agents)


def least_workers(settings: RunSettings) -> int:
    """What it never goes below."""
    return min(settings.min_workers, most_workers(settings))


def width(state: RunState) -> int:
    """How many processes of a run may run at once, by its pool of workers."""
    settings = state.plan.settings
    most = most_workers(settings)
    return (
        most
        if state.workers is None or not settings.auto_scale
        else max(least_workers(settings), min(state.workers, most))
    )


def processes(state: RunState, run_slots: int) -> int:
    """How many of the slots that a run holds are those of processes."""
    if not state.callables:
        return run_slots
    return run_slots - sum(state.tasks[name].runner == CALLABLE for name in state.running.values())


def ask(state: RunState, task: TaskState, run_slots: int, machine: Machine) -> Room | Pressure:
    """Whether the next attempt of a task may start now, if it is a process."""
    settings = state.plan.settings
    wide, busy = width(state), processes(state, run_slots)
    if busy >= wide:
        most = most_workers(settings)
        scaled = f", scaled down from {most} to what the machine can bear" if wide < most else ""
        return Pressure(WORKERS, f"no worker: {busy} of {wide} of this run are taken{scaled}")
    found = ask_machine(state, task, machine)
    if isinstance(found, Pressure):
        return found
    expected, warning = found
    return Room(expected, _figures(task, machine, expected, wide), warning)


def ask_machine(
    state: RunState, task: TaskState, machine: Machine, expected: int | None = None
) -> Pressure | tuple[int, str]:
    """What the processors and the memory of the machine say to one more process, whatever the pool of its run has free.

    Args:
        expected: bytes of memory that it needs, where somebody knows what was expected.
    Returns:
        Why it does not start; or what it is expected to need, and what warns of that where nothing else runs.
    """
    settings = state.plan.settings
    if machine.running >= settings.min_workers and (held := _cpu(state, machine)) is not None:
        return held._replace(figures={TASK: task.task.task_id, **figures_of(machine)})
    size, whence = expected_bytes(state, task, machine.needs) if expected is None else (expected, "")
    held = _memory(state, task, machine, size, whence)
    if held is None or not machine.running:
        return size, "" if held is None else held.text
    return held._replace(figures={TASK: task.task.task_id, **figures_of(machine, size)})


TASK: Final = "task_id"
"""Among the facts of a decision: the task that was asked for."""
FIRST: Final = "first"
"""Run and task that memory goes to before any other."""


def figures_of(machine: Machine, expected: int = 0) -> dict[str, Any]:
    """The machine as facts have it; what is not known, and what is nothing, is left out.

    Args:
        expected: bytes of memory that the next process is expected to need.
    """
    figures = {
        "processes": machine.running, "cpu_percent": machine.cpu_percent, "available_bytes": machine.available_bytes,
        "taken_bytes": machine.taken_bytes or None, "used_bytes": machine.used_bytes or None,
        "coming_bytes": machine.coming_bytes or None, EXPECTED_MEMORY: expected or None,
        FIRST: None if machine.first is None else list(machine.first),
    }  # fmt: skip
    return {name: value for name, value in figures.items() if value is not None}


def machine_from(figures: Mapping[str, Any]) -> Machine:
    """Read what ``figures_of`` gave."""
    first = figures.get(FIRST)
    return Machine(
        cpu_percent=figures.get("cpu_percent"), available_bytes=figures.get("available_bytes"),
        running=figures["processes"], taken_bytes=figures.get("taken_bytes", 0),
        used_bytes=figures.get("used_bytes", 0), coming_bytes=figures.get("coming_bytes", 0),
        first=None if first is None else (first[0], first[1]),
    )  # fmt: skip


def eased_cpu_percent(settings: RunSettings) -> float:
    """Below this, starts that were throttled go on."""
    limits = [100.0 if settings.max_cpu_percent is None else settings.max_cpu_percent]
    if settings.throttle_cpu_percent is not None:
        limits.append(settings.throttle_cpu_percent * EASE_PERCENT / 100)
    return min(limits)


def _cpu(state: RunState, machine: Machine) -> Pressure | None:
    settings, cpu = state.plan.settings, machine.cpu_percent
    throttled = state.throttled.get(st.CPU)
    if cpu is None:
        return None if throttled is None else Pressure(st.CPU, throttled)
    hard = settings.throttle_cpu_percent is not None and cpu > settings.throttle_cpu_percent
    above = settings.max_cpu_percent is not None and cpu > settings.max_cpu_percent
    if not (hard or above or (throttled is not None and cpu > eased_cpu_percent(settings))):
        return None
    if hard:
        limit = f"and starts are throttled above {settings.throttle_cpu_percent:g} %"
    elif above:
        limit = f"and nothing starts above {settings.max_cpu_percent:g} %"
    else:
        limit = f"and starts that were throttled go on below {eased_cpu_percent(settings):g} %"
    floor = f"{machine.running} of ours run, and {settings.min_workers} may at any load"
    return Pressure(st.CPU, f"the processors are at {cpu:.0f} %, {limit}; {floor}", hard)


def expected_bytes(state: RunState, task: TaskState, needs: Needs) -> tuple[int, str]:
    """What the next attempt of a task is expected to need, and how that is known, in words.

    Its last attempt has needed no less than it was seen to; nine in ten of its kind have needed no more.
    """
    own = task.peak_memory_bytes
    found = needs.of(_agent_type(state, task), runner_name(task.task))
    if found is None or own > found.bytes:
        return own, "as its last attempt did"
    many = f"{found.samples} attempts" if found.samples > 1 else "one attempt"
    return found.bytes, f"by {many} of {found.kind!r} before"


def _agent_type(state: RunState, task: TaskState) -> str:
    return state.plan.agents.resolver if resolves(state, task) else task.task.agent_type


def _memory(state: RunState, task: TaskState, machine: Machine, expected: int, whence: str) -> Pressure | None:
    limit_mb = state.plan.settings.max_memory_mb
    if limit_mb is None:
        return None
    throttled = state.throttled.get(st.MEMORY)
    if machine.available_bytes is None and machine.used_bytes == 0 and throttled is not None:
        return Pressure(st.MEMORY, throttled, expected=expected)
    if machine.first not in (None, (state.run_id, task.task.task_id)):
        text = f"memory goes first to {machine.first[1]} of run {machine.first[0]}, which has waited for it longer"
        return Pressure(st.MEMORY, text, expected=expected)
    ease = EASE_PERCENT if throttled is not None else 100
    limit, own = (
        limit_mb * MEGABYTE,
        f"it is expected to need {_mb(expected)} ({whence})" if expected else "it needs some",
    )
    others = f"what runs takes {_mb(machine.taken_bytes)}" if machine.running else "nothing else runs"
    if machine.used_bytes * 100 > limit * ease:
        text = f"attempts use {_mb(machine.used_bytes)} of memory, and starts wait above {_mb(limit * ease // 100)}"
        return Pressure(st.MEMORY, text, hard=True, expected=expected)
    if machine.available_bytes is not None:
        free = machine.available_bytes - machine.coming_bytes
        if (expected + LEFT_BYTES) * 100 > free * ease:
            text = (
                f"{_mb(max(0, free))} of the machine's memory are free: {own}, and {_mb(LEFT_BYTES)} are left to others"
            )
            return Pressure(st.MEMORY, text, hard=True, expected=expected)
    if machine.taken_bytes + expected > limit:
        return Pressure(st.MEMORY, f"memory: {own}, {others}, and all may take {_mb(limit)}", expected=expected)
    return None


def _mb(size: int) -> str:
    return f"{round(size / MEGABYTE):,} MB"


def _figures(task: TaskState, machine: Machine, expected: int, wide: int) -> dict[str, Any]:
    """What is known of that which the decision was made on; what is not known is left out."""
    figures: dict[str, Any] = {"workers": wide, "processes": machine.running}
    if machine.cpu_percent is not None:
        figures["cpu_percent"] = round(machine.cpu_percent, 1)
    if machine.available_bytes is not None:
        figures["available_bytes"] = machine.available_bytes
    if expected:
        figures[EXPECTED_MEMORY] = expected
    if machine.taken_bytes:
        figures["taken_bytes"] = machine.taken_bytes
    if task.task.agent_type != runner_name(task.task):
        figures["agent_type"] = task.task.agent_type
    return figures
