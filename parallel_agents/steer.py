"""Commands to runs from any process: each decides on the run's state and appends; who dispatches the run sees it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parallel_agents.eventstore.errors import ParallelAgentsError, StaleRun
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import ENDED, RunState
from parallel_agents.scheduler import decide

EMERGENCY = "emergency stop"


def _decided(log: Log, run_id: str, decide_on: Callable[[RunState], Sequence[Event]]) -> list[Recorded]:
    """Decide and append; where another process was first, once more with everybody else locked out.

    At once so would keep the dispatcher waiting while a long history is read; never so, a busy run would run away from
    every reader.
    """
    state = Projector(log).state(run_id)
    try:
        return log.append(run_id, state.version, decide_on(state))
    except StaleRun:
        pass

    def decide_now(draft: Draft) -> None:
        for event in decide_on(Projector(log).state(run_id)):
            draft.add(run_id, event)

    return log.transact(decide_now)


def pause(log: Log, run_id: str, reason: str = "") -> None:
    """No task of the run starts any more; running ones finish."""
    _decided(log, run_id, lambda state: decide.decide_pause(state, reason))


def resume(log: Log, run_id: str, reason: str = "") -> None:
    """Go on after a pause."""
    _decided(log, run_id, lambda state: decide.decide_resume(state, reason))


def cancel(log: Log, run_id: str, task_id: str | None = None, reason: str = "", *, grace_s: float = 3.0) -> None:
    """End a run, or one task of it.

    Args:
        grace_s: of a run: between asking its processes to end and killing them.
    """
    if task_id is None:
        _decided(log, run_id, lambda state: decide.decide_cancel(state, reason, grace_s=grace_s))
    else:
        _decided(log, run_id, lambda state: decide.decide_cancel_task(state, task_id, reason))


def retry(log: Log, run_id: str, task_ids: Sequence[str] = ()) -> list[str]:
    """Open failed tasks again, and what was skipped because of them.

    Returns:
        The tasks that are pending again.
    """
    records = _decided(log, run_id, lambda state: decide.decide_retry(state, task_ids))
    return [str(getattr(record.event, "task_id", "")) for record in records if hasattr(record.event, "task_id")]


def stop_everything(log: Log) -> list[str]:
    """The emergency stop: every run that has not ended is cancelled, and its processes are killed without grace.

    Returns:
        The runs that were told to stop.
    """
    stopped = []
    for run_id, summary in Projector(log).runs().items():
        if summary.status in ENDED:
            continue
        try:
            _decided(log, run_id, lambda state: decide.decide_cancel(state, EMERGENCY, grace_s=0.0))
        except ParallelAgentsError:
            continue  # It ended meanwhile.
        stopped.append(run_id)
    return stopped
