"""Following one run by its events, from any process, and what its end means to a caller."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_agents.activity import last_words
from parallel_agents.eventstore.doorbell import drain
from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.decide import MAX_EXECUTION, is_stuck
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.scheduler.runners.folder import STDOUT, last_line

if TYPE_CHECKING:
    import socket

OK, TASK_FAILED, NO_ACCESS, WAITS_FOR_PERSON, LIMIT_REACHED, INTERRUPTED = 0, 1, 4, 5, 6, 130
POLL_S = 0.5  # The truth behind the doorbell.


_OF_MONEY = frozenset({"budget", "spend_cap"})


class Follower:
    """The state of one run, brought up to date with the log whenever ``catch_up`` is called.

    Raises:
        UnknownRun: there is no such run.
    """

    def __init__(self, log: Log, run_id: str) -> None:
        self.log = log
        self.run_id = run_id
        self._projector = Projector(log)
        self.state: RunState = self._projector.whole_state(run_id)

    def catch_up(self) -> list[Recorded]:
        """Fold what was appended to the run since the last call, and give it, oldest first."""
        fresh = self.log.read_run(self.run_id, self.state.version)
        if any(isinstance(record.event, RunRolledBack) for record in fresh):
            self.state = self._projector.whole_state(self.run_id)
            return fresh
        for record in fresh:
            self.state = st.fold(self.state, record, self.log.blob)
        return fresh

    @property
    def settled(self) -> bool:
        """Whether the run has ended, or only a person can go on."""
        return self.state.ended or is_stuck(self.state)


def exit_code(state: RunState) -> int:
    """What a command that waited for a run exits with (the table is in the README)."""
    if state.status == st.COMPLETED:
        return OK
    kinds = {task.failure_kind for task in state.tasks.values() if task.status == st.FAILED}
    if state.status == st.PAUSED:
        kinds.add(state.pause_code)
    if "authentication" in kinds:
        return NO_ACCESS
    if state.reason == MAX_EXECUTION or kinds & _OF_MONEY:
        return LIMIT_REACHED
    return TASK_FAILED if state.ended else WAITS_FOR_PERSON


def follow(follower: Follower, told: Callable[[list[Recorded]], None], *, every_s: float = POLL_S) -> None:
    """Block until a run that another process dispatches has settled.

    Args:
        told: called with what is new, at once when something is, and with nothing every ``every_s`` seconds.
    """
    listener = follower.log.doorbell.listen()
    try:
        while True:
            told(follower.catch_up())
            if follower.settled:
                return
            wait_for_bell(listener, every_s)
    finally:
        if listener is not None:
            listener.close()


def wait_for_bell(listener: socket.socket | None, timeout_s: float) -> None:
    """Rest until another process appended something, or the time is up."""
    if listener is None:
        time.sleep(min(timeout_s, 0.1))
        return
    heard, _, _ = select.select([listener], [], [], timeout_s)
    if heard:
        drain(listener)


def is_dispatched(log: Log, run_id: str) -> bool:
    """Whether a living process holds the run."""
    summary = Projector(log).runs().get(run_id)
    return summary is not None and summary.holder is not None and holder_alive(summary.holder)


def last_output(log: Log, state: RunState, task: TaskState) -> str | None:
    """The last line that a task's last attempt has printed, or None; of an agent the last thing that it did or said."""
    if task.attempt_id is None:
        return None
    folder: Path = attempts_folder(log.path) / state.run_id / task.task.task_id / task.attempt_id
    client = clients(state.plan.agents.clients).get(task.runner or "")
    return last_line(str(folder / STDOUT)) if client is None else last_words(folder / STDOUT, client.output)
