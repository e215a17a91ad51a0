"""Whether an agent's task may start now, by whom and on which model: providers, budgets and requests. Pure.

Asked by ``plan`` for every task of an agent that nothing else holds back, and by ``why`` in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import Task
from parallel_agents.projections.spend import MINUTE_US, Wait
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.agents.clients import Client, clients
from parallel_agents.scheduler.agents.models import (
    Choice,
    cheaper,
    choose_model,
    has_name,
    is_alias,
    name_for,
    price_weight,
)
from parallel_agents.scheduler.breaker import CIRCUIT_OPEN, CircuitFacts
from parallel_agents.scheduler.budget import Books, Budgets, Candidate, Verdict, admit, tightness
from parallel_agents.scheduler.runners.protocol import NO_AGENTS

GOES_ON: Final = frozenset({"infrastructure", "overload", "rate_limit", "usage_limit", "budget"})
"""Failures after which an agent goes on where it was; after any other one it begins anew."""


@dataclass(slots=True)
class AgentFacts:
    """What the start of an agent depends on besides the state of its run."""

    books: Books
    budgets: Budgets
    now_us: int
    working: list[str] = field(default_factory=list)  # Agent types of the agents that work; empty texts where unknown.

    def count(self, run_id: str, task: Task, granted: Grant) -> None:
        """Count a start in that the decision at hand brings about."""
        self.books.hold(f"{run_id}/{task.task_id}", run_id, task.task_id, granted.reserve_usd_micros)
        self.working.append(task.agent_type)

    def copy(self) -> AgentFacts:
        """The same, to count starts in that are only thought of."""
        books = copy(self.books)
        books.running, books.rest = dict(books.running), dict(books.rest)
        return replace(self, books=books, working=list(self.working))

    def in_a_minute(self, agent_type: str) -> float:
        """How often one agent of that type will ask its models in the next minute, as it was seen; 0 where none was seen.

        At the pace at which they ask, but no more often than one of them does in all.
        """
        spend = self.books.spend
        working_s, attempts = spend.working_s.get(agent_type, 0.0), spend.attempts.get(agent_type, 0)
        if not working_s or not attempts:
            return 0.0
        return min(60 / working_s, 1 / attempts) * spend.calls[agent_type]

    def last_minute(self) -> tuple[float, int | None]:
        """How often agents that have ended asked their models in the last minute, and when the first of that is past."""
        recent = [(at_us, calls) for at_us, calls in self.books.spend.recent if at_us > self.now_us - MINUTE_US]
        return sum(calls for _, calls in recent), recent[0][0] + MINUTE_US if recent else None

    def at_once(self, agent_type: str) -> int:
        """How many requests one agent of that type was seen to make at the same time; 1 where none was seen."""
        return max(1, self.books.spend.at_once.get(agent_type, 1))

    def wait(self, provider: str) -> Wait | None:
        """That a provider lets nobody work now."""
        found = self.books.spend.waits.get(provider)
        return found if found is not None and found.until_us > self.now_us else None


@dataclass(frozen=True, slots=True)
class Grant:
    """An attempt of an agent that may start."""

    runner: str
    choice: Choice
    reserve_usd_micros: int | None = None
    limit_usd_micros: int | None = None
    resumes: str | None = None
    role: str = ""  # Who acts, where it is not the task's own agent type.


@dataclass(frozen=True, slots=True)
class Held:
    """Why it may not."""

    code: str  # provider, requests, budget or circuit_open.
    text: str
    until_us: int | None = None
    for_ever: bool = False  # Nothing that runs can change that.


def is_agent(task: Task) -> bool:
    """Whether a task is an agent's."""
    return task.runner is not None and task.runner not in NO_AGENTS


def runner_name(task: Task) -> str:
    """The runner that an attempt of a task is started with, where nobody stands in and nothing is to be resolved."""
    return task.runner or ("shell" if task.command else "python")


def by_agent(state: RunState, task: TaskState) -> bool:
    """Whether the next attempt of a task is an agent's: of a command's too, where it is to resolve a conflict."""
    return is_agent(task.task) or resolves(state, task)


def grant(state: RunState, task: TaskState, facts: AgentFacts, circuits: CircuitFacts | None = None) -> Grant | Held:
    """Whether the next attempt of an agent's task may start now.

    Args:
        circuits: runners that fail, where the run minds.
    """
    table = clients(state.plan.agents.clients)
    runner, instead = _runner(state, task, facts, table, circuits)
    if isinstance(instead, Held):
        return instead
    if (held := _requests(state, task, facts)) is not None:
        return held
    granted = _affordable(state, task, facts, runner, table.get(runner), instead)
    if isinstance(granted, Held):
        return granted
    resumes = None if granted.role or task.runner != runner else resumable(task, facts)
    return Grant(runner, granted.choice, granted.reserve_usd_micros, granted.limit_usd_micros, resumes, granted.role)


def resumable(task: TaskState, facts: AgentFacts) -> str | None:
    """The attempt whose session the next one goes on with.

    A session that another attempt has gone on with already is not as it was: a rollback has undone that one.
    """
    goes_on = task.failure_kind in GOES_ON or not task.failure_kind
    return task.resumes if goes_on and task.resumes not in facts.books.spend.resumed else None


def _runner(
    state: RunState, task: TaskState, facts: AgentFacts, table: Mapping[str, Client], circuits: CircuitFacts | None
) -> tuple[str, str | Held | None]:
    """Who runs it, and the model that it has to be on where its provider lets only others work."""
    spec, settings, own = task.task, state.plan.agents, runner_of(state, task)
    wait, broken = facts.wait(provider_of(own, table)), None if circuits is None else circuits.holds(own)
    if wait is None and broken is None:
        return own, None
    for other in settings.failover:
        if other in table:
            fits = spec.model is None or has_name(spec.model, other, settings)  # What a task names it gets.
            free = facts.wait(provider_of(other, table)) is None and (circuits is None or circuits.holds(other) is None)
            if other != own and fits and free:
                return other, None
        elif broken is not None or wait is None:
            continue  # Another model is no way past a client that is broken.
        elif _takes_over(other, own, wait, spec, table) and is_alias(other, settings):
            return own, other
    if broken is not None:
        return own, Held(CIRCUIT_OPEN, broken)
    assert wait is not None
    sure = "" if wait.stated else ", as far as we guess"
    text = (
        f"{provider_of(own, table)} lets nobody work until {rfc3339(wait.until_us)}{sure}: {wait.reason or wait.kind}"
    )
    return own, Held("provider", text, wait.until_us)


def _takes_over(model: str, runner: str, wait: Wait, spec: Task, table: Mapping[str, Client]) -> bool:
    """Whether a model may be tried while a provider refuses others: each once, or two would be tried in turns for ever."""
    chosen = runner not in table or table[runner].takes_model
    return chosen and spec.model is None and wait.model is not None and model not in wait.refused


def runner_of(state: RunState, task: TaskState) -> str:
    """Who runs an agent's task, where nobody has to stand in."""
    return task.task.runner if task.task.runner is not None and is_agent(task.task) else state.plan.agents.runner


def provider_of(runner: str, table: Mapping[str, Client]) -> str:
    """Whose limits a runner meets. A client that names nobody is its own provider."""
    client = table.get(runner)
    return runner if client is None else client.provider or client.name


def _requests(state: RunState, task: TaskState, facts: AgentFacts) -> Held | None:
    """Whether what runs asks for so much already that one more agent of this kind would ask for too much."""
    settings, kind = state.plan.agents, task.task.agent_type
    past, over_us = facts.last_minute()
    if not facts.working and not past:
        return None
    most = settings.requests_per_agent
    at_once = sum(min(most, facts.at_once(one)) for one in (*facts.working, kind))
    if facts.working and at_once > settings.max_requests:
        text = (
            f"the {len(facts.working)} agents that work and this one would make {at_once} requests at once, by what their kind "
            f"was seen to do, and resourceManagement.api.maxConcurrentRequests is {settings.max_requests}"
        )
        return Held("requests", text)
    asked = past + sum(map(facts.in_a_minute, (*facts.working, kind)))
    if asked > settings.requests_per_minute:
        text = (
            f"{past:.0f} requests were made in the last minute, and with those of the {len(facts.working)} agents that work and "
            f"of this one, by what their kind was seen to ask, it would be {asked:.0f}; "
            f"resourceManagement.api.rateLimitPerMinute is {settings.requests_per_minute}"
        )
        return Held("requests", text, over_us)
    return None


def _affordable(
    state: RunState, task: TaskState, facts: AgentFacts, runner: str, client: Client | None, model: str | None
) -> Grant | Held:
    """The model that it starts on, and what it holds back of the budgets."""
    spec, settings, budgets = task.task, state.plan.agents, state.plan.budgets
    role = settings.resolver if resolves(state, task) else ""
    takes_model = client is None or client.takes_model
    tight = tightness(facts.books, facts.budgets, spec.task_id) if budgets.enabled and budgets.cheaper_first else 0.0

    def chosen(tight: float) -> Choice:
        if model is not None and spec.model is None:
            return Choice(model, name_for(model, runner, settings), f"its provider has no capacity for others: {model}")
        return choose_model(
            spec, settings, tight=tight, warning=budgets.warning, failures_by_agent=own_failures(task), runner=runner,
            takes_model=takes_model, agent_type=role or None,
        )  # fmt: skip

    choice = chosen(tight)
    # A cheaper model than one that its provider lets work may be one that it does not.
    verdict = _ask(task, facts, choice, runner, cheapest=model is not None)
    if verdict.answer == "cheaper":
        choice = _one_down(choice, verdict, runner, state)
        verdict = _ask(task, facts, choice, runner, cheapest=True)
    if verdict.answer == "start":
        return Grant(runner, choice, verdict.reserve_usd_micros, verdict.limit_usd_micros, role=role)
    return Held("budget", verdict.why, for_ever=verdict.running == 0)


def _ask(task: TaskState, facts: AgentFacts, choice: Choice, runner: str, *, cheapest: bool = False) -> Verdict:
    spec = task.task
    expected = expected_usd_micros(spec, choice.model, runner)
    less = None
    if not cheapest and spec.model is None and choice.model is not None and cheaper(choice.model) != choice.model:
        less = expected_usd_micros(spec, cheaper(choice.model), runner)
    return admit(facts.books, facts.budgets, Candidate(spec.task_id, spec.priority, expected, less))


def _one_down(choice: Choice, verdict: Verdict, runner: str, state: RunState) -> Choice:
    assert choice.model is not None
    model = cheaper(choice.model)
    return Choice(
        model, name_for(model, runner, state.plan.agents), f"{choice.reason}; one down, because {verdict.why}"
    )


def expected_usd_micros(task: Task, model: str | None, runner: str) -> int | None:
    """What an attempt is expected to cost on a model; None where nobody knows."""
    if task.expected_usd_micros is None:
        return None
    usual, other = price_weight(task.expected_model, runner), price_weight(model, runner)
    if usual is None or other is None:
        return task.expected_usd_micros
    return round(task.expected_usd_micros * other / usual)


def resolves(state: RunState, task: TaskState) -> bool:
    """Whether the next attempt of a task resolves the conflict that the last one met."""
    return task.conflict is not None and state.plan.files.conflicts == "agent"


def own_failures(task: TaskState) -> int:
    """Whether an attempt has failed by the agent's own fault: 1, also where something from outside came after that."""
    return int(task.lesson is not None or task.failure_kind in ("agent", "no_change"))
