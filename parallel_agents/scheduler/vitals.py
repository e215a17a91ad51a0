"""The health of running attempts, as their dispatcher sees it: looked at now and then, and told where something is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from parallel_agents.eventstore.events import Event
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.attempts import Attempts
from parallel_agents.scheduler.health import Pulse, Vitals, beat, decide_health
from parallel_agents.scheduler.process import ProcessRow, cpu_s_of, descendants, processes
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT

_DELETED = " (deleted)"  # So Linux calls a folder that is there no more.


def vitals_of(folder: str, pid: int, table: Mapping[int, ProcessRow]) -> Vitals:
    """One look at one attempt.

    Args:
        folder: of its files.
        pid: of its first process.
        table: all processes.
    """
    row = table.get(pid)
    members = {pid, *descendants([pid], table)}
    return Vitals(
        printed_bytes=sum(map(_size, (f"{folder}/{STDOUT}", f"{folder}/{STDERR}"))),
        cpu_s=sum(map(cpu_s_of, members)),
        alive=row is not None and not row.zombie,
        checkout=not _where(pid).endswith(_DELETED),
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _where(pid: int) -> str:
    """The directory of a process; empty where that cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


class HealthWatch:
    """Looks at what runs, each run as often as its settings say. Called from the dispatcher's thread only.

    Args:
        steady: microseconds, by a clock that nobody sets.
    """

    def __init__(self, attempts: Attempts, steady: Callable[[], int]) -> None:
        self._attempts = attempts
        self._steady = steady
        self._pulses: dict[str, Pulse] = {}  # By attempt.
        self._looked_us: dict[str, int] = {}  # By run.
        self._fresh: set[str] = set()  # Runs that have been looked at and not been decided on.

    def look(self, states: Iterable[RunState]) -> None:
        """See to the runs whose time it is, in one pass over the processes. Outside of any transaction: it takes a while."""
        now_us = self._steady()
        due = [state for state in states if state.running and self._is_due(state, now_us)]
        if not due:
            return
        pids, table = self._attempts.alive(), processes()
        for state in due:
            self._looked_us[state.run_id] = now_us
            self._fresh.add(state.run_id)
            for attempt_id, task_id in state.running.items():
                if (pid := pids.get(attempt_id)) is not None:
                    seen = vitals_of(self._attempts.folder_of(state.run_id, task_id, attempt_id), pid, table)
                    self._pulses[attempt_id] = beat(self._pulses.get(attempt_id), seen, now_us)

    def _is_due(self, state: RunState, now_us: int) -> bool:
        every_s = state.plan.settings.health_check_s
        if every_s is None or state.ended:
            return False
        before = self._looked_us.get(state.run_id)
        return before is None or now_us - before >= every_s * 1e6

    def due(self, state: RunState) -> Iterator[Event]:
        """What is to be said of the attempts of a run, once after each look."""
        if state.run_id not in self._fresh:
            return
        stuck_after_us = round(state.plan.settings.stuck_after_s * 1e6)
        for attempt_id, task_id in list(state.running.items()):
            pulse, task = self._pulses.get(attempt_id), state.tasks[task_id]
            if pulse is not None and (event := self._decided(state, task, pulse, stuck_after_us)) is not None:
                yield event

    def _decided(self, state: RunState, task: TaskState, pulse: Pulse, stuck_after_us: int) -> Event | None:
        decided = decide_health(task, pulse, stuck_after_us, "")
        if decided is None or task.stuck is not None:
            return decided
        folder = self._attempts.folder_of(state.run_id, task.task.task_id, task.attempt_id or "")
        return decide_health(task, pulse, stuck_after_us, self._attempts.last_words(task, folder))

    def committed(self, states: Iterable[RunState]) -> None:
        """What was to be said is in the log. Forget what does not run any more."""
        if not self._fresh:
            return
        self._fresh.clear()
        held = {state.run_id: state for state in states}
        running = {attempt_id for state in held.values() for attempt_id in state.running}
        self._pulses = {attempt_id: pulse for attempt_id, pulse in self._pulses.items() if attempt_id in running}
        self._looked_us = {run_id: at_us for run_id, at_us in self._looked_us.items() if run_id in held}
