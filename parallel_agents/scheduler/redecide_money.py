"""What was told of money, and the pauses that followed from it, decided again. Pure.

What running agents were seen to spend stands in the facts of what was told. An older release has recorded no more than what
was spent in all: what that is beyond the charges of the log is taken for seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections.spend import PERIODS, Spend
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.budget import Books, Budgets, crossings
from parallel_agents.scheduler.decide_money import BUDGET, LIVE, decide_held, decide_spent, decide_waited
from parallel_agents.scheduler.plan import Decision
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged, missing

Told = ev.BudgetThresholdReached | ev.BudgetExceeded
_PLANNED: Final = (ev.TaskQueued, ev.TaskBlocked, ev.TaskStarted, ev.TaskSkipped, ev.TaskCancelled)
_COMPARED: Final[dict[type[Event], tuple[str, ...]]] = {
    ev.BudgetThresholdReached: ("scope", "share", "spent_usd_micros"),
    ev.BudgetExceeded: ("scope", "spent_usd_micros", "budget_usd_micros"),
}


def judge_told(
    state: RunState, commit: Sequence[Recorded], at: int, around: Around, judged: Judged
) -> Divergence | None:
    """Whether a share of a budget is to be told, whether it is the next one, and whether what follows it does.

    Args:
        at: the place of what was told of a budget.
    """
    record = commit[at]
    told, spend = record.event, around.spend
    assert isinstance(told, Told)
    budgets = around.budgets.of(state)
    if spend is None:
        return judged.same(record, {"scope": told.scope}, {})
    scopes = None if LIVE in told.facts else told.scope
    live = told.facts[LIVE] if LIVE in told.facts else _live_of(told, spend, budgets, record.at_us)
    due = _due(Books(spend, record.at_us, live), budgets, state, scopes)
    if not due:
        return judged.same(record, {"scope": told.scope}, {})
    found = judged.as_made(record, due[0], _COMPARED[type(told)])
    return found or _follows(state, commit, at, due[1:], budgets)


def _follows(
    state: RunState, commit: Sequence[Recorded], at: int, due: Sequence[Told], budgets: Budgets
) -> Divergence | None:
    """Whether what is due after something that was told does follow it: another share, or the pause of the run."""
    after = commit[at + 1].event if at + 1 < len(commit) else None
    if due:
        return None if type(after) is type(due[0]) else missing(commit[at], after, due[0])
    if isinstance(after, Told):
        return None  # Of the next look, or not due at all.
    pause = decide_spent(_told_before(commit, at + 1), budgets, state)
    paused = isinstance(after, ev.RunPaused) and after.code == BUDGET
    return None if pause is None or paused else missing(commit[at], after, pause)


def judge_money_pause(
    state: RunState, commit: Sequence[Recorded], at: int, around: Around, judged: Judged, decision: Decision
) -> Divergence | None:
    """Whether a run is to be paused because money is spent.

    Args:
        at: the place of the pause.
        decision: what would be planned there.
    """
    record = commit[at]
    assert isinstance(record.event, ev.RunPaused)
    if (spent := decide_spent(_told_before(commit, at), around.budgets.of(state), state)) is not None:
        return judged.as_made(record, spent, ("code",))
    if LIVE not in record.event.facts and (around.spend is None or around.spend.running):
        judged.unjudged(record)
        return None
    return judged.as_made(record, decide_held(state, decision, {}), ("code",))


def judge_resumed(state: RunState, record: Recorded, around: Around, judged: Judged) -> Divergence | None:
    """Whether a run has waited for a provider whose time is over."""
    spend = around.spend
    return judged.as_made(record, None if spend is None else decide_waited(spend, state, record.at_us), ())


def left_untold(state: RunState, commit: Sequence[Recorded], at: int, around: Around) -> Divergence | None:
    """Something that was to be told before a look at the run came to this event, whatever running agents were seen to spend.

    Args:
        at: the place of an event that is planned, or of the end of the run: money was looked at before.
    """
    spend, record = around.spend, commit[at]
    if spend is None or state.ended:
        return None
    budgets, books = around.budgets.of(state), Books(spend, record.at_us)
    if budgets.limited:
        # Whoever was started at the same time may have been so after the look.
        running = {name for name in state.running.values() if state.tasks[name].started_at_us != record.at_us}
        due = crossings(books, budgets, sorted(running) if state.running else None)
        if due:
            return missing(record, None, due[0], "before")
    if any(isinstance(one.event, _PLANNED) for one in commit[:at]):
        return None  # What has become ready by that very look waits from the next one on.
    resumed = decide_waited(spend, state, record.at_us)
    return None if resumed is None else missing(record, None, resumed, "before")


def _due(books: Books, budgets: Budgets, state: RunState, scope: str | None) -> list[Told]:
    """What is to be told at a look.

    Args:
        scope: of one budget alone; None: of all.
    """
    due = crossings(books, budgets, sorted(set(state.running.values())) or None)
    return [one for one in due if scope in (None, one.scope)]


def _live_of(told: Told, spend: Spend, budgets: Budgets, at_us: int) -> Mapping[str, int]:
    """What those that run in a budget must have been seen to spend, where that was not recorded."""
    used = next((use for use in Books(spend, at_us).use(budgets) if use.scope == told.scope), None)
    seen = 0 if used is None else told.spent_usd_micros - used.spent_usd_micros
    if seen <= 0:
        return {}
    for attempt_id, held in spend.running.items():
        mine = held.run_id == budgets.run_id
        task = f"task:{held.task_id}" if mine else ""
        if told.scope.startswith(PERIODS) or (mine and told.scope in ("run", task)):
            return {attempt_id: seen}
    return {}


def _told_before(commit: Sequence[Recorded], at: int) -> list[Event]:
    """What was told of budgets right before a place."""
    first = at
    while first > 0 and isinstance(commit[first - 1].event, Told):
        first -= 1
    return [one.event for one in commit[first:at]]
