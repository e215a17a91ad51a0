"""Commands to runs from any process: each decides on the run's state and appends; who dispatches the run sees it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ParallelAgentsError, StaleRun
from parallel_agents.eventstore.events import Event, TaskReopened
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import ENDED, RunState
from parallel_agents.scheduler import decide
from parallel_agents.scheduler import decide_budgets as budgets
from parallel_agents.scheduler.budget import budgets_of
from parallel_agents.scheduler.decide_budgets import OF_RUN as OF_RUN
from parallel_agents.scheduler.decide_budgets import Changes
from parallel_agents.scheduler.decide_budgets import of_task as of_task

EMERGENCY = "emergency stop"


def _decided(log: Log, run_id: str, decide_on: Callable[[RunState], Sequence[Event]]) -> list[Recorded]:
    """Decide and append; where another process was first, once more with everybody else locked out.

    At once so would keep the dispatcher waiting while a long history is read; never so, a busy run would run away from
    every reader.
    """
    state = Projector(log).state(run_id)
    try:
        events = decide_on(state)
        reach("steer.decided")
        records = log.append(run_id, state.version, events)
        reach("steer.appended")
        return records
    except StaleRun:
        pass

    def decide_now(draft: Draft) -> None:
        for event in decide_on(Projector(log).state(run_id)):
            draft.add(run_id, event)

    return log.transact(decide_now)


def pause(log: Log, run_id: str, reason: str = "") -> None:
    """No task of the run starts any more; running ones finish."""
    _decided(log, run_id, lambda state: decide.decide_pause(state, reason))


def resume(log: Log, run_id: str, reason: str = "", changes: Changes | None = None) -> None:
    """Go on after a pause.

    Args:
        changes: other budgets, set in the same commit.
    """
    if not changes:
        _decided(log, run_id, lambda state: decide.decide_resume(state, reason))
        return
    _decided(
        log, run_id, lambda state: budgets.decide_resume_with(state, Projector(log).spend(), changes, reason)
    )  # fmt: skip


def change_budgets(log: Log, run_id: str, changes: Changes) -> None:
    """Set other budgets for a run that goes on, or is paused."""
    _decided(log, run_id, lambda state: budgets.decide_budgets(state, Projector(log).spend(), changes))


def cancel(log: Log, run_id: str, task_id: str | None = None, reason: str = "", *, grace_s: float = 3.0) -> None:
    """End a run, or one task of it.

    Args:
        grace_s: of a run: between asking its processes to end and killing them.
    """
    if task_id is None:
        _decided(log, run_id, lambda state: decide.decide_cancel(state, reason, grace_s=grace_s))
    else:
        _decided(log, run_id, lambda state: decide.decide_cancel_task(state, task_id, reason))


def retry(log: Log, run_id: str, task_ids: Sequence[str] = (), changes: Changes | None = None) -> list[str]:
    """Open failed tasks again, and what was skipped because of them.

    Args:
        changes: other budgets, set in the same commit.
    Returns:
        The tasks that are pending again.
    """

    def decide_on(state: RunState) -> Sequence[Event]:
        spend = Projector(log).spend() if changes or budgets_of(state).tasks else None
        return budgets.decide_retry_with(state, spend, task_ids, changes or {})

    records = _decided(log, run_id, decide_on)
    return [record.event.task_id for record in records if isinstance(record.event, TaskReopened)]


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
