"""What is to be told of money and of providers, and what follows from it for a run: its pauses and when it goes on. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.projections import status as st
from parallel_agents.projections.spend import Spend, Wait
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.granting import by_agent, provider_of, runner_of
from parallel_agents.scheduler.budget import Books, Budgets, crossings, usd, words_of
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.scheduler.plan import Decision
from parallel_agents.scheduler.runners.protocol import Ended

BUDGET: Final = "budget"
"""The code of a pause because money is spent."""
LIVE: Final = "live_usd_micros"
"""Among the facts of a decision: what running agents were seen to have spent beyond what the log says, by attempt."""
WAITS: Final = frozenset({"rate_limit", "usage_limit", "overload"})
"""Failures that all agents of a provider have in common, so that none of them is started for a while."""
FIRST_WAIT_US: Final = 30_000_000  # Where a provider does not say for how long; doubled each time in a row,
LONGEST_WAIT_US: Final = 900_000_000  # up to this.
LONG_WAIT_US: Final = 60_000_000  # From here on a wait is told apart from the time that a run has run.
USAGE_WAIT_US: Final = 900_000_000  # Of an allowance that is used up, where it is not said until when.


def decide_told(books: Books, budgets: Budgets, state: RunState) -> list[Event]:
    """What is due to be told of the budgets of a run, and its pause where one is spent.

    What running agents were seen to spend stands in the facts of each event, for replay.
    """
    running = sorted(set(state.running.values()))
    told: list[Event] = list(crossings(books, budgets, running or None))
    if not told:
        return told
    facts = {LIVE: seen_of(books)}
    told = [event.model_copy(update={"facts": facts}) for event in told]
    pause = decide_spent(told, budgets, state)
    return told if pause is None else [*told, pause]


def seen_of(books: Books) -> dict[str, int]:
    """What those that run were seen to have spent, in micro-dollars by attempt, where that is anything."""
    return {attempt_id: spent for attempt_id, spent in books.live.items() if spent and attempt_id in books.running}


def decide_spent(told: list[Event], budgets: Budgets, state: RunState) -> ev.RunPaused | None:
    """The pause of a run, where one of the budgets is spent that all its tasks keep to.

    Args:
        told: of its budgets at this look.
    """
    spent = next((one for one in told if isinstance(one, ev.BudgetExceeded) and not of_task(one.scope)), None)
    if spent is None or not budgets.settings.pause or state.status != st.RUNNING:
        return None
    words = f"{usd(spent.spent_usd_micros)} of {usd(spent.budget_usd_micros)}"
    return ev.RunPaused(reason=f"{words_of(spent.scope)} is spent: {words}", code=BUDGET)


def decide_held(state: RunState, decision: Decision, told: dict[str, Any]) -> ev.RunPaused | None:
    """A pause, where all that could start is held back by a budget, and nothing that runs can change that.

    Args:
        told: for the facts of the pause: what the decision was made on.
    """
    held = decision.held
    if state.running or decision.steps or not held or state.status != st.RUNNING:
        return None
    if not all(one.for_ever for one in held.values()):
        return None
    if any(name not in held and could_start(state, task) for name, task in state.tasks.items()):
        return None  # It rests, or has no slot.
    return ev.RunPaused(reason=next(iter(held.values())).text, code=BUDGET, facts={LIVE: {}, **told})


def could_start(state: RunState, task: TaskState) -> bool:
    """Whether nothing but its own rest, a slot, or what it spends keeps a task from starting."""
    stage = next((number for number, open_ in enumerate(state.stage_open) if open_), 0)
    return task.status == st.QUEUED and task.open_dependencies == 0 and task.task.stage <= stage


def waited_for(spend: Spend, state: RunState) -> Iterator[Wait]:
    """What the providers have said on whom a run waits in which nothing runs."""
    if not spend.waits or state.running or state.status != st.RUNNING or state.cancel_requested:
        return
    table = clients(state.plan.agents.clients)
    waiting = (task for task in state.tasks.values() if could_start(state, task) and by_agent(state, task))
    for provider in {provider_of(runner_of(state, task), table) for task in waiting}:
        if provider in spend.waits:
            yield spend.waits[provider]


def decide_waited(spend: Spend, state: RunState, now_us: int) -> ev.RunResumed | None:
    """That a run goes on after it had nothing to do but to wait for a provider: from then on it is seen anew how long it runs."""
    since_us = state.active_since_us or 0
    for wait in waited_for(spend, state):
        if wait.until_us <= now_us and wait.until_us - max(wait.seen_us, since_us) >= LONG_WAIT_US:
            return ev.RunResumed(reason=f"{wait.kind}: its time is over")
    return None


def decide_provider(spend: Spend, ended: Ended, started_us: int, model: str | None, now_us: int) -> Event | None:
    """What an attempt's end says of its provider: that it lets nobody work, or that it does so again.

    Args:
        started_us: when it was decided to start it.
        model: that it was started on.
    """
    if not ended.provider:
        return None
    before = spend.waits.get(ended.provider)
    if ended.kind not in WAITS:
        through = ended.got_through and ended.error is None and before is not None and before.seen_us <= started_us
        return ev.ProviderFreed(provider=ended.provider, attempt_id=ended.attempt_id) if through else None
    stated = ended.until_us is not None and ended.until_us > now_us
    # It began before that was known: no new refusal. What starts in the commit that tells of it comes after it.
    same = before is not None and started_us < before.seen_us
    count = (0 if before is None else before.count) + (not same)
    until_us = ended.until_us if stated and ended.until_us is not None else now_us + _guess_us(ended.kind, count)
    if count > 1:  # A time that was stated and did not hold is not trusted again without a pause of ours.
        until_us = max(until_us, now_us + _guess_us("", count - 1))
    if before is not None and before.until_us > now_us:
        if same and (before.until_us >= until_us or (before.stated and not stated)):
            return None
        if not same and before.until_us > until_us and (before.stated or not stated):
            until_us, stated = before.until_us, before.stated  # It has refused another model as well.
    return ev.ProviderLimited(
        provider=ended.provider, kind=ended.kind, until=rfc3339(until_us), reason=storable_text(ended.error or ""),
        model=model, stated=stated, count=max(1, count), attempt_id=ended.attempt_id,
    )  # fmt: skip


def of_task(scope: str) -> bool:
    """Whether a scope is that of one task's own budget."""
    return scope.startswith("task:")


def _guess_us(kind: str, count: int) -> int:
    if kind == "usage_limit":
        return USAGE_WAIT_US
    return min(FIRST_WAIT_US << min(max(0, count - 1), 10), LONGEST_WAIT_US)
