"""What holds the agents of a store back, and how a person lets them go on: budgets, providers, keys. As plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from parallel_agents import broken_runners
from parallel_agents.broken_runners import circuit_lines, closing
from parallel_agents.costs import budget_line, usd
from parallel_agents.eventstore.errors import NotAllowed, nearest
from parallel_agents.eventstore.events import STORE_RUN, ProviderFreed
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import decode, rfc3339
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import statuses
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import Spend
from parallel_agents.projections.status import OWN as OWN
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.accounts import agent_facts, has_agents
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.granting import GOES_ON as GOES_ON
from parallel_agents.scheduler.agents.granting import AgentFacts, is_agent, provider_of, runner_of
from parallel_agents.scheduler.budget import Books, Budgets, Use, budgets_of, percent, words_of
from parallel_agents.scheduler.budget import usd as usd_text
from parallel_agents.scheduler.circuits import read_circuits
from parallel_agents.scheduler.decide_budgets import more_than

AUTHENTICATION = "authentication"


def facts_of(
    projector: Projector, state: RunState, now_us: int, end: int, spend: Spend | None = None
) -> AgentFacts | None:
    """What the start of this run's agents depends on, as the dispatcher sees it; None where it has none.

    What running agents have spent since their start stands in no event, so here it is what they have reserved.

    Args:
        now_us: the moment that is looked at.
        end: the last event that is looked at.
        spend: of the store up to there, where it is known already.
    """
    if not has_agents(state):
        return None
    spend = projector.spend(end) if spend is None else spend
    others = {held.run_id for held in spend.running.values() if held.agent} - {state.run_id}
    states = {state.run_id: state, **{name: projector.state(name, end) for name in others}}
    return agent_facts(spend, state, states, now_us, {})


def money_and_waits(projector: Projector, state: RunState, upto: int | None) -> dict[str, Any]:
    """The part of ``status`` that tells of agents: budgets, and providers that let nobody work."""
    answer: dict[str, Any] = {
        "pause_code": (state.status == st.PAUSED and state.pause_code) or None,
        "budgets": [],
        "assumed_usd": 0.0,
        "limits": [],
    }
    answer["ways_on"] = []
    limits, now_us = budgets_of(state), _now_us(projector.log, upto)
    broken = broken_runners.of_run(circuit_lines(read_circuits(projector.log, upto), now_us), state)
    if not (has_agents(state) or limits.limited):
        return {**answer, "limits": broken}
    spend = _spend_of(projector, limits, upto)
    if limits.limited:
        uses = list(Books(spend, now_us).use(limits))
        answer["budgets"] = [budget_line(use) for use in uses]
        answer["assumed_usd"] = usd(spend.assumed_by_run[state.run_id])
    answer["limits"] = [*_of_run(wait_lines(spend, now_us), state), *broken]
    answer["ways_on"] = list(ways_on(state, spend, now_us)) if upto is None else []
    return answer


def what_it_needs(log: Log, state: RunState) -> list[str]:
    """What a run that money or a key holds up needs to go on, a sentence each; none where that is not so."""
    if not (state.pause_code or state.ended):
        return []
    return list(ways_on(state, _spend_of(Projector(log), budgets_of(state)), wall_clock_us()))


def _spend_of(projector: Projector, limits: Budgets, upto: int | None = None) -> Spend:
    """Of the store's spending what is told to a run with such limits: mostly far less to read than all of it."""
    if limits.limited and limits.limited_by_time:
        return projector.spend(upto)
    waits = _waits(projector.log, upto)
    if not (limits.limited or limits.tasks):
        return waits
    return replace(projector.spend_of(limits.run_id, upto), waits=waits.waits)


def wait_lines(spend: Spend, now_us: int) -> list[dict[str, Any]]:
    """The providers that let nobody work at a moment."""
    return [
        {
            "provider": provider,
            "runner": None,
            "kind": wait.kind,
            "until": rfc3339(wait.until_us),
            "stated": wait.stated,
            "reason": wait.reason,
            "model": wait.model,
            "since": rfc3339(wait.seen_us),
            "attempt_id": wait.attempt_id,
            "lift": lifting_command(provider),
        }
        for provider, wait in sorted(spend_fold.waiting(spend, now_us))
    ]


def lifting_command(provider: str) -> str:
    """What lets the agents of a provider start again at once."""
    return f"parallel-agents limits --clear {provider}"


def limits(log: Log, upto: int | None = None) -> list[dict[str, Any]]:
    """The waits of a store: for providers, and for runners that are broken."""
    now_us = _now_us(log, upto)
    return [*wait_lines(_waits(log, upto), now_us), *circuit_lines(read_circuits(log, upto), now_us)]


def limits_of(log: Log, state: RunState) -> list[dict[str, Any]]:
    """The waits that hold tasks of a run back now. Quick, so that it can be asked again and again."""
    if not state.counts[st.QUEUED]:
        return []
    broken = broken_runners.of_run(circuit_lines(read_circuits(log), wall_clock_us()), state)
    return [*_of_run(wait_lines(_waits(log), wall_clock_us()), state), *broken] if has_agents(state) else broken


def _waits(log: Log, upto: int | None = None) -> Spend:
    """Of the store's spending no more than who lets nobody work: that stands in the few events of no run."""
    spend = Spend()
    for row in log.rows(0, log.last_seq() if upto is None else upto, run_id=STORE_RUN):
        if row.type in _OF_PROVIDERS:
            spend_fold.fold(spend, decode(row))
    return spend


_OF_PROVIDERS = frozenset({"ProviderLimited", "ProviderFreed"})


def _of_run(lines: list[dict[str, Any]], state: RunState) -> list[dict[str, Any]]:
    if not lines:
        return []
    table = clients(state.plan.agents.clients)
    resolved = state.plan.files.conflicts == "agent"
    runners = {runner_of(state, task) for task in state.tasks.values() if resolved or is_agent(task.task)}
    providers = {provider_of(name, table) for name in runners}
    return [line for line in lines if line["provider"] in providers]


def lift(log: Log, named: str, reason: str = "") -> None:
    """Let agents of a provider, or attempts of a runner, start again before the time is up. Who dispatches hears it at once.

    Raises:
        NotAllowed: nobody waits for a provider or a runner of that name.
    """

    def decide(draft: Draft) -> None:
        waits, circuits = {name for name, _ in spend_fold.waiting(_waits(log), draft.at_us)}, read_circuits(log)
        closed = closing(circuits, named, draft.at_us, reason)
        if named not in waits and closed is None:
            known = [*waits, *(line["runner"] for line in circuit_lines(circuits, draft.at_us))]
            raise NotAllowed(f"nobody waits for the provider or runner {named!r}", hint=nearest(named, known))
        if closed is not None:
            draft.add(STORE_RUN, closed)
        if named in waits:
            draft.add(STORE_RUN, ProviderFreed(provider=named, reason=reason or "lifted by a person"))

    log.transact(decide)


def ways_on(state: RunState, spend: Spend, now_us: int) -> Iterator[str]:
    """What a run that money or a key holds up needs to go on, a sentence each."""
    run_id, resume = state.run_id, f"`parallel-agents resume {state.run_id}`"
    if state.status == st.PAUSED and state.pause_code == AUTHENTICATION:
        yield f"log in, or set the key in the environment, then {resume}"
    elif state.status == st.PAUSED and state.pause_code == "spend_cap":
        yield f"see to the account's money at its provider, then {resume}"
    elif state.status == st.PAUSED and state.pause_code == "budget":
        for use in Books(spend, now_us).use(budgets_of(state)):
            if use.share >= state.plan.budgets.critical and (way := _way_over(run_id, use)):
                yield way
    if state.status == st.FAILED:
        limits = budgets_of(state).tasks
        for name, status in statuses(state):
            limit = limits.get(name) if status == st.FAILED else None
            if limit is not None and state.tasks[name].failure_kind == "budget":
                more = more_than(spend.by_task[run_id, name], limit)
                yield (
                    f"{words_of(f'task:{name}')} is spent; `parallel-agents retry {run_id} {name} --task-budget "
                    f"{name}={more}` and then {resume} go on"
                )


def _way_over(run_id: str, use: Use) -> str:
    """How to get past a budget that is spent, or as good as spent."""
    kind, _, name = use.scope.partition(":")
    of = f"{usd_text(use.spent_usd_micros)} of {usd_text(use.budget_usd_micros)}"
    more = more_than(use.spent_usd_micros, use.budget_usd_micros)
    far = "spent" if use.spent else f"used to {percent(use.share)}"
    said = f"{words_of(use.scope)} is {far}: {of}; `parallel-agents resume {run_id} "
    match kind:
        case "run":
            return f"{said}--budget {more}` goes on"
        case "task":
            return f"{said}--task-budget {name}={more}` goes on"
        case _:
            return f"{said.rstrip()}` goes on once that {kind} is over"


def why_of_task(state: RunState, task: TaskState, spend: Spend, now_us: int, code: str) -> dict[str, Any]:
    """What ``why`` adds for an agent's task: until when its provider lets nobody work, and the command that helps."""
    if code == "provider":
        provider = provider_of(runner_of(state, task), clients(state.plan.agents.clients))
        wait = spend.waits.get(provider)
        if wait is not None and wait.until_us > now_us:
            return {"until": rfc3339(wait.until_us), "stated": wait.stated, "settle": lifting_command(provider)}
    if code in ("paused", "budget", "failed"):
        ways = list(ways_on(state, spend, now_us))
        return {"ways_on": ways} if ways else {}
    return {}


def _now_us(log: Log, upto: int | None) -> int:
    row = None if upto is None else log.row(upto)
    return wall_clock_us() if row is None else row.at_us
