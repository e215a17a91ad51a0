"""What a dispatcher knows of money and of providers, and what it has to say about them in the log.

Nothing of it is read before the process holds a run with tasks of agents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import MINUTE_US, Spend, Wait
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.granting import AgentFacts, by_agent, is_agent, provider_of, runner_of
from parallel_agents.scheduler.budget import Books, Budgets, Stop, budgets_of, crossings, overspent, usd, words_of
from parallel_agents.scheduler.decide import PAUSES, storable_text
from parallel_agents.scheduler.plan import Decision
from parallel_agents.scheduler.runners.protocol import Ended

WAITS: Final = frozenset({"rate_limit", "usage_limit", "overload"})
"""Failures that all agents of a provider have in common, so that none of them is started for a while."""
FIRST_WAIT_US: Final = 30_000_000  # Where a provider does not say for how long; doubled each time in a row,
LONGEST_WAIT_US: Final = 900_000_000  # up to this.
LONG_WAIT_US: Final = 60_000_000  # From here on a wait is told apart from the time that a run has run.
USAGE_WAIT_US: Final = 900_000_000  # Of an allowance that is used up, where it is not said until when.


def has_agents(state: RunState) -> bool:
    """Whether a run has tasks of agents, or conflicts that agents resolve."""
    return state.plan.files.conflicts == "agent" or any(is_agent(task) for task in state.plan.tasks)


class Accounts:
    """Called from the dispatcher's thread only.

    Args:
        live: what running attempts have spent so far, as far as what they have put out tells; in micro-dollars.
    """

    def __init__(self, projector: Projector, live: Callable[[], Mapping[str, int]]) -> None:
        self.spend: Spend | None = None
        self.elsewhere: Callable[[str, str], str] = _unknown  # The agent type of a task, of runs that others dispatch.
        self.cut: dict[str, Stop] = {}  # Attempts that are stopped because a budget is spent.
        self._budgets: dict[str, tuple[Any, Budgets]] = {}  # By run, with what they follow from.
        self._projector = projector
        self._live = live

    def open(self, state: RunState) -> None:
        """Read what was spent, where a run that is taken asks for it and nobody has read it yet."""
        if self.spend is None and has_agents(state):
            self.spend = self._projector.spend()

    def forget(self) -> None:
        """What was folded may not be in the log."""
        self.spend = None

    def fold(self, record: Recorded) -> None:
        """Keep up with the log."""
        if self.spend is not None:
            spend_fold.fold(self.spend, record)

    def facts(self, state: RunState, states: Mapping[str, RunState], now_us: int) -> AgentFacts | None:
        """What the agents of a run depend on; None where it has none.

        Args:
            states: the runs that this process holds.
        """
        if self.spend is None:
            return None
        return agent_facts(self.spend, state, states, now_us, self._live(), self._budgets_of(state), self.elsewhere)

    def _budgets_of(self, state: RunState) -> Budgets:
        """The same as of ``budgets_of``. It goes through all tasks, so it is asked only where something has changed."""
        key = (state.plan_digest, state.budget_usd_micros, tuple(state.task_budgets.items()))
        found = self._budgets.get(state.run_id)
        if found is None or found[0] != key:
            found = self._budgets[state.run_id] = key, budgets_of(state)
        return found[1]

    def due(self, facts: AgentFacts, state: RunState) -> list[Event]:
        """What is to be told of the budgets of a run, and its pause where one is spent. Notes who is to be stopped."""
        running = sorted(set(state.running.values()))
        events: list[Event] = list(crossings(facts.books, facts.budgets, running or None))
        for stop in overspent(facts.books, facts.budgets):
            self.cut.setdefault(stop.attempt_id, stop)
        spent = next((one for one in events if isinstance(one, ev.BudgetExceeded) and not _of_task(one.scope)), None)
        if spent is not None and facts.budgets.settings.pause and state.status == st.RUNNING:
            words = f"{usd(spent.spent_usd_micros)} of {usd(spent.budget_usd_micros)}"
            events.append(ev.RunPaused(reason=f"{words_of(spent.scope)} is spent: {words}", code="budget"))
        return events

    def stuck(self, state: RunState, decision: Decision) -> Event | None:
        """A pause, where all that could start is held back by a budget, and nothing that runs can change that."""
        held = decision.held
        if state.running or decision.steps or not held or state.status != st.RUNNING:
            return None
        if not all(one.for_ever for one in held.values()):
            return None
        if any(name not in held and could_start(state, task) for name, task in state.tasks.items()):
            return None  # It rests, or has no slot.
        return ev.RunPaused(reason=next(iter(held.values())).text, code="budget")

    def next_due_us(self, now_us: int) -> int | None:
        """When the next provider lets us work again, or requests of the last minute are past."""
        if self.spend is None:
            return None
        due = [wait.until_us for wait in self.spend.waits.values()]
        due += [at_us + MINUTE_US for at_us, _ in self.spend.recent]
        return min((when for when in due if when > now_us), default=None)

    def waits(self, state: RunState, now_us: int) -> bool:
        """Whether a run has nothing to do but to wait for a provider. That is no time that it runs."""
        return any(wait.until_us > now_us for wait in self._waited_for(state))

    def waited(self, state: RunState, now_us: int) -> Event | None:
        """That a run goes on after such a wait: from then on it is seen anew how long it runs."""
        since_us = state.active_since_us or 0
        for wait in self._waited_for(state):
            if wait.until_us <= now_us and wait.until_us - max(wait.seen_us, since_us) >= LONG_WAIT_US:
                return ev.RunResumed(reason=f"{wait.kind}: its time is over")
        return None

    def _waited_for(self, state: RunState) -> Iterator[Wait]:
        """What the providers have said on whom a run waits in which nothing runs."""
        if self.spend is None or not self.spend.waits or state.running or state.status != st.RUNNING:
            return
        if state.cancel_requested:
            return
        table = clients(state.plan.agents.clients)
        waiting = (task for task in state.tasks.values() if could_start(state, task) and by_agent(state, task))
        for provider in {provider_of(runner_of(state, task), table) for task in waiting}:
            if provider in self.spend.waits:
                yield self.spend.waits[provider]

    def cut_short(self, ended: Ended, state: RunState) -> Ended:
        """The end of an attempt in other words, where it, or we, have stopped it for a budget.

        It is made again once there is money, but for one that has spent the budget of its task.
        """
        stop = self.cut.pop(ended.attempt_id, None)
        if (
            stop is None and ended.outcome == "stopped" and state.pause_code == "budget"
        ):  # By a dispatcher that is dead.
            ended.outcome, ended.error, ended.kind = "exited", state.reason, "budget"
        if ended.outcome == "exited" and ended.error is None:
            return ended
        if stop is not None:
            ended.outcome, ended.error, ended.kind, ended.retryable = "exited", stop.why, "budget", True
        elif ended.kind == "budget":
            task_id = state.running.get(ended.attempt_id)
            ended.retryable = True
            if task_id is not None and state.tasks[task_id].limit_usd_micros is None:
                ended.kind = "agent"  # No limit of ours: none of our budgets would ever bound its attempts.
        if stop is not None and _of_task(stop.scope):
            ended.retryable = False
        spent = self._spent_of_task(ended, state)
        if spent is not None and (ended.retryable or ended.kind in PAUSES):  # Nothing could start again.
            ended.retryable = False
            if stop is None:
                ended.error = f"{ended.error or ended.outcome}; and {spent}"
        return ended

    def _spent_of_task(self, ended: Ended, state: RunState) -> str | None:
        """That a task's own budget is spent with what an attempt of it is to be charged with, in words."""
        task_id = state.running.get(ended.attempt_id)
        if self.spend is None or task_id is None or not (state.plan.budgets.enabled and state.plan.budgets.pause):
            return None
        budget = state.task_budgets.get(task_id, state.tasks[task_id].task.budget_usd_micros)
        if budget is None:
            return None
        spent, rest = self.spend.by_task[state.run_id, task_id], self.spend.rest.get(ended.attempt_id, 0)
        for one in ended.charges:
            micros = rest if one.usd_micros is None else one.usd_micros
            spent, rest = spent + micros, max(0, rest - micros)
        if spent < budget:
            return None
        return f"{words_of(f'task:{task_id}')} is spent: {usd(spent)} of {usd(budget)}"

    def of_provider(self, ended: Ended, started_us: int, model: str | None, now_us: int) -> Event | None:
        """What an attempt's end says of its provider: that it lets nobody work, or that it does so again."""
        if self.spend is None or not ended.provider:
            return None
        before = self.spend.waits.get(ended.provider)
        if ended.kind not in WAITS:
            through = ended.got_through and ended.error is None and before is not None and before.seen_us <= started_us
            return ev.ProviderFreed(provider=ended.provider) if through else None
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


def agent_facts(
    spend: Spend,
    state: RunState,
    states: Mapping[str, RunState],
    now_us: int,
    live: Mapping[str, int],
    budgets: Budgets | None = None,
    elsewhere: Callable[[str, str], str] | None = None,
) -> AgentFacts:
    """What the agents of a run depend on, from the store's spending.

    Args:
        budgets: of the run, where somebody has them at hand.
        elsewhere: the agent type of a task of any other run, where somebody knows.
    """
    books = Books(spend, now_us, live)
    working = []
    for held in spend.running.values():
        if held.agent:
            run = states.get(held.run_id)
            task = None if run is None else run.tasks.get(held.task_id)
            working.append((elsewhere or _unknown)(held.run_id, held.task_id) if task is None else task.task.agent_type)
    return AgentFacts(books, budgets or budgets_of(state), now_us, working)


def could_start(state: RunState, task: TaskState) -> bool:
    """Whether nothing but its own rest, a slot, or what it spends keeps a task from starting."""
    stage = next((number for number, open_ in enumerate(state.stage_open) if open_), 0)
    return task.status == st.QUEUED and task.open_dependencies == 0 and task.task.stage <= stage


def charges_of(task_id: str, agent_type: str, runner: str, ended: Ended) -> list[Event]:
    """What an attempt is charged with, one event for each model."""
    duration_s = max(0, ended.ended_at_us - ended.started_at_us) / 1e6
    return [
        ev.CostCharged(
            task_id=task_id, attempt_id=ended.attempt_id, usd_micros=one.usd_micros, model=one.model,
            agent_type=agent_type, input_tokens=one.input_tokens, output_tokens=one.output_tokens, calls=one.calls,
            partial=one.partial, cache_read_tokens=one.cache_read_tokens, cache_write_tokens=one.cache_write_tokens,
            source=one.source, prices=one.prices, runner=runner, duration_s=0.0 if number else duration_s,
            at_once=0 if number else ended.at_once,
        )
        for number, one in enumerate(ended.charges)
    ]  # fmt: skip


def _unknown(run_id: str, task_id: str) -> str:
    return ""


def _guess_us(kind: str, count: int) -> int:
    if kind == "usage_limit":
        return USAGE_WAIT_US
    return min(FIRST_WAIT_US << min(max(0, count - 1), 10), LONGEST_WAIT_US)


def _of_task(scope: str) -> bool:
    return scope.startswith("task:")
