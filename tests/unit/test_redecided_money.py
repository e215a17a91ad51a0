"""What was not told of money, and pauses that money does not explain, are named."""

from __future__ import annotations

import copy

from agentpaper import CENT, AgentRun, agent, agents_plan, paid
from paper import SECOND_US
from redeciding import Again

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.scheduler.decide_money import decide_held, decide_told
from parallel_agents.scheduler.verdicts import Around

PAUSE = ev.RunPaused(code="budget", facts={"live_usd_micros": {}})


def again(run: AgentRun, *events: Event) -> Again:
    """What comes of them after all that the run has done."""
    return Again(run, events, Around(spend=copy.deepcopy(run.spend)))


def spent(cents: int, budget_cents: int, *, told: bool = False) -> AgentRun:
    """Two tasks, one of which has cost so much.

    Args:
        told: whether what there was to tell of that was told.
    """
    run = AgentRun(agents_plan(agent("a"), agent("b"), budget=budget_cents * CENT, max_parallel_agents=1))
    assert run.tick() == ["a"]
    run.now_us += SECOND_US
    run.ends("a", charges=paid(cents * CENT))
    facts = run.facts().agents
    assert facts is not None
    if told:
        run.add(*decide_told(facts.books, facts.budgets, run.state))
    return run


def step(run: AgentRun) -> Event:
    """What a plan begins with, whatever it is."""
    return ev.TaskStarted(task_id="b", attempt_id="b1", attempt=1, runner="claude")


def test_a_share_of_which_nothing_was_told_is_missed_at_the_next_step_of_a_plan() -> None:
    """Charges alone have passed it; where they have not, nobody knows what was seen."""
    assert again(spent(80, 100), step(spent(80, 100))).named == (
        "TaskStarted", "before", None, "BudgetThresholdReached run 0.75",
    )  # fmt: skip
    for run in (spent(70, 100), spent(80, 100, told=True)):
        named = again(run, step(run)).named
        assert named is None or named[1] != "before"


def test_a_share_of_which_nothing_was_told_is_missed_at_the_end_of_a_run() -> None:
    """Which is looked at after the money."""
    run = AgentRun(agents_plan(agent("a"), budget=100 * CENT))
    run.tick()
    run.now_us += SECOND_US
    run.ends("a", charges=paid(80 * CENT))
    done = ev.RunCompleted(counts={"completed": 1})
    assert again(run, done).named == ("RunCompleted", "before", None, "BudgetThresholdReached run 0.75")
    told = ev.BudgetThresholdReached(scope="run", share=0.75, spent_usd_micros=80 * CENT, facts={"live_usd_micros": {}})
    assert again(run, told, done).named is None


def test_a_pause_because_nothing_can_start_for_money_is_decided_again() -> None:
    """From what is planned there; another one has no reason."""
    run = spent(96, 100, told=True)
    run.tick()
    pause = decide_held(run.state, run.plan(), {})
    assert pause is not None
    assert pause.facts == {"live_usd_micros": {}}
    found = again(run, pause)
    assert (found.named, found.judged.decisions["RunPaused"]) == (None, 1)
    rich = spent(10, 100, told=True)
    assert again(rich, PAUSE).named == ("RunPaused", "type", "RunPaused", None)


def test_an_older_release_has_told_why_a_run_was_paused_only_where_nobody_else_spent() -> None:
    """What others were seen to spend then is nowhere."""
    run = spent(96, 100, told=True)
    run.tick()
    older = ev.RunPaused(code="budget")
    assert again(run, older).judged.decisions == {"RunPaused": 1}
    around = Around(spend=copy.deepcopy(run.spend))
    assert around.spend is not None
    around.spend.running["else"] = next(iter(spent_by_others().spend.running.values()))
    assert Again(run, [older], around).judged.sampled == {"RunPaused": 1}


def spent_by_others() -> AgentRun:
    """A run with an agent that works."""
    run = AgentRun(agents_plan(agent("x")))
    run.tick()
    return run


def test_the_time_of_a_run_is_not_up_while_it_waits_for_a_provider() -> None:
    """That is no time that it runs."""
    run = AgentRun(agents_plan(agent("a", max_retries=9), max_execution_s=60.0))
    run.tick()
    overdue = ev.RunCancelRequested(reason="max_execution_time", facts={"used_s": 61.0})
    assert again(run, overdue).named is None
    run.fails("a", "rate_limit", provider="anthropic", until_us=run.now_us + 600 * SECOND_US)
    assert again(run, overdue).named == ("RunCancelRequested", "type", "RunCancelRequested", None)
