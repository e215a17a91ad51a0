"""What a dispatcher knows of money and of providers, and what it has to say about them in the log.

Nothing of it is read before the process holds a run with tasks of agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import MINUTE_US, Spend
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.agents.granting import AgentFacts, is_agent
from parallel_agents.scheduler.budget import Books, Budgets, BudgetsAtHand, Stop, budgets_of, overspent, usd, words_of
from parallel_agents.scheduler.decide import PAUSES
from parallel_agents.scheduler.decide_money import (
    decide_provider,
    decide_told,
    decide_waited,
    of_task,
    waited_for,
)
from parallel_agents.scheduler.runners.protocol import Ended


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
        self._budgets = BudgetsAtHand()
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
        return agent_facts(self.spend, state, states, now_us, self._live(), self._budgets.of(state), self.elsewhere)

    def due(self, facts: AgentFacts, state: RunState) -> list[Event]:
        """What is to be told of the budgets of a run, and its pause where one is spent. Notes who is to be stopped."""
        for stop in overspent(facts.books, facts.budgets):
            self.cut.setdefault(stop.attempt_id, stop)
        return decide_told(facts.books, facts.budgets, state)

    def next_due_us(self, now_us: int) -> int | None:
        """When the next provider lets us work again, or requests of the last minute are past."""
        if self.spend is None:
            return None
        due = [wait.until_us for wait in self.spend.waits.values()]
        due += [at_us + MINUTE_US for at_us, _ in self.spend.recent]
        return min((when for when in due if when > now_us), default=None)

    def waits(self, state: RunState, now_us: int) -> bool:
        """Whether a run has nothing to do but to wait for a provider. That is no time that it runs."""
        return self.spend is not None and any(wait.until_us > now_us for wait in waited_for(self.spend, state))

    def waited(self, state: RunState, now_us: int) -> Event | None:
        """See ``decide_waited``."""
        return None if self.spend is None else decide_waited(self.spend, state, now_us)

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
        if stop is not None and of_task(stop.scope):
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
        """See ``decide_provider``."""
        return None if self.spend is None else decide_provider(self.spend, ended, started_us, model, now_us)


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
