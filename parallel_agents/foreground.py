"""Dispatching runs in this very process, until they have settled: what `run`, `resume` and a lonely `cancel` do.

While it does that for one run, it also goes on with those that others have left in the middle: whose process was killed, or
lost its terminal. Where a daemon dispatches, they are the daemon's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from parallel_agents import steer
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.follow import Follower, is_dispatched
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.daemon import find_daemon
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.job_control import stop_between_ticks
from parallel_agents.scheduler.process import own_identity

LEAVE_S = 5.0  # How long letting go of a run may take before we leave without.


def identity(kind: str) -> dict[str, Any]:
    """Who this process is, as ``RunClaimed`` records it."""
    return {**own_identity().to_dict(), "kind": kind}


class Interrupts:
    """How often somebody asked for an end: once lets what runs finish, twice stops it.

    Signal handlers call ``add`` or set a flag; the loop below looks. Appending in a handler could meet our own open
    transaction.

    Attributes:
        leaves: somebody wants to leave the run alone, with what runs of it: whoever dispatches next goes on with it.
        sleeps: somebody wants this process stopped, as Ctrl-Z does.
        put_away: clears the terminal for as long as it sleeps.
    """

    def __init__(self) -> None:
        self.count = 0
        self.taken = 0
        self.leaves = False
        self.sleeps = False
        self.put_away: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def leave(self) -> None:
        """Ask to leave the run alone."""
        self.leaves = True

    def sleep(self) -> None:
        """Ask to be stopped for a while."""
        self.sleeps = True

    def add(self, times: int = 1) -> None:
        """Ask, or ask again."""
        self.count += times


def dispatch(
    log: Log,
    follower: Follower,
    *,
    kind: str,
    told: Callable[[list[Recorded]], None],
    every_s: float = 0.1,
    interrupts: Interrupts | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Hold a run until it has settled; when this returns, nothing of it runs any more, unless somebody wanted to leave.

    Args:
        kind: what this process is, as leases name it.
        told: called with the run's new events, or with none, about every ``every_s`` seconds.
        interrupts: the first pauses the run, so that what runs finishes and nothing starts; the second cancels it.
        say: told, a line each, which other runs are taken over, and how to go on with them when they are let go of.
    Raises:
        StoreError: the store refuses; attempts that run go on and can be adopted.
    """
    interrupts = interrupts or Interrupts()
    run_id = follower.run_id
    trouble.say_plainly()
    shell = any(task.command for task in follower.state.plan.tasks)
    engine = Engine(log, kind=kind, shell=shell, takes_left=lambda: find_daemon(log.path) is None)
    others: dict[str, None] = {}  # In the order in which they were taken over.
    try:
        engine.hold(run_id)
        engine.start()
        while not interrupts.leaves:
            engine.wait(run_id, until=lambda progress: progress.status in _ENDED or progress.stuck, timeout_s=every_s)
            told(follower.catch_up())
            log.check_in_place()
            for other in list(engine.dispatcher.held):
                if other != run_id and other not in others:
                    others[other] = None
                    say(f"run {other} was left in the middle by a process that is gone; it goes on here as well")
            if interrupts.sleeps:
                interrupts.sleeps = False
                with interrupts.put_away():
                    stop_between_ticks(engine.loop)
            if follower.state.ended or (follower.settled and _let_go(engine, run_id)):
                break
            if _obey(log, run_id, interrupts):
                engine.dispatcher.hand_back()
                engine.loop.wake()  # Our own bell is not rung for us.
        told(follower.catch_up())
    finally:
        engine.close()
    runs = Projector(log).runs() if others else {}
    for other in others:
        if runs[other].status not in _ENDED and not is_dispatched(log, other):
            say(
                f"run {other} has not ended; `parallel-agents resume {other}` or `parallel-agents daemon start` goes on"
            )


_ENDED = frozenset({"completed", "failed", "cancelled"})


def _let_go(engine: Engine, run_id: str) -> bool:
    """Release a run that only a person can move. False where somebody just did."""
    dispatcher = engine.dispatcher
    dispatcher.let_go(run_id)
    engine.loop.wake()
    engine.loop.wait(lambda: run_id not in dispatcher.held or not dispatcher.progress[run_id].stuck, LEAVE_S)
    return run_id not in dispatcher.held


def _obey(log: Log, run_id: str, interrupts: Interrupts) -> bool:
    """Append what was asked for since the last look; gives whether anything was."""
    before = interrupts.taken
    while interrupts.taken < min(interrupts.count, 2):
        interrupts.taken += 1
        try:
            if interrupts.taken == 1 and interrupts.count == 1:
                steer.pause(log, run_id, "interrupted")
            elif interrupts.taken == 2:
                steer.cancel(log, run_id, reason="interrupted")
        except NotAllowed:
            continue  # It was paused already, or has ended meanwhile.
    return interrupts.taken > before


def settle_undone(log: Log, run_id: str, *, timeout_s: float) -> list[str]:
    """Wait until attempts that a rollback has undone are stopped; where nobody dispatches the run, stop them here.

    Args:
        timeout_s: after which we give up; whoever dispatches next goes on.
    Returns:
        The attempts that still run.
    """
    if not undone_attempts(log, run_id):
        return []
    if is_dispatched(log, run_id):
        return _wait_undone(log, run_id, timeout_s)
    trouble.say_plainly()
    engine = Engine(log, kind="rollback")
    try:
        engine.hold(run_id)
        engine.start()
        return _wait_undone(log, run_id, timeout_s)
    finally:
        engine.close()


def undone_attempts(log: Log, run_id: str) -> list[str]:
    """Attempts that hold a slot although the run's state does not know them any more."""
    projector = Projector(log)
    slots = projector.occupancy().by_run.get(run_id)
    return sorted(slots - projector.state(run_id).running.keys()) if slots else []


def _wait_undone(log: Log, run_id: str, timeout_s: float) -> list[str]:
    deadline = time.monotonic() + timeout_s
    while (left := undone_attempts(log, run_id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def settle_cancelled(log: Log, run_ids: list[str], *, timeout_s: float = 15.0) -> list[str]:
    """Carry out the cancellation of runs that nobody dispatches.

    Args:
        timeout_s: after which we give up; whoever dispatches next goes on.
    Returns:
        The runs that have not ended.
    """
    lonely = [run_id for run_id in run_ids if not is_dispatched(log, run_id)]
    if not lonely:
        return []
    trouble.say_plainly()
    engine = Engine(log, kind="cancel")
    try:
        for run_id in lonely:
            engine.hold(run_id)
        engine.start()
        left = []
        for run_id in lonely:
            if engine.wait(run_id, until=lambda progress: progress.status in _ENDED, timeout_s=timeout_s) is None:
                left.append(run_id)
        return left
    finally:
        engine.close()
