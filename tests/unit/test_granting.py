"""Whether an agent may start: its provider, its requests, its money; on which model, and with which session."""

from __future__ import annotations

import pytest
from agentpaper import CENT, AgentRun, agent, agents_plan, paid
from paper import SECOND_US, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import FileSettings, Task
from parallel_agents.scheduler.agents.granting import GOES_ON, Grant, Held
from parallel_agents.scheduler.runners.protocol import FAILURES
from parallel_agents.scheduler.work import Clash, Work

LIMIT_S = 900
OVER_CLAUDE = {"lonely": {"command": ["lonely"], "model": ["-m", "{model}"]}}


def limited(run: AgentRun, provider: str = "anthropic", model: str | None = "opus", seconds: int = LIMIT_S) -> None:
    """A provider refuses a model from now on."""
    until = rfc3339(run.now_us + seconds * SECOND_US)
    run.store(
        ev.ProviderLimited(
            provider=provider, kind="usage_limit", until=until, model=model, stated=True, reason="5 hours"
        )
    )


def held(run: AgentRun, name: str = "a") -> Held:
    """Why a task does not start."""
    found = run.granted(name)
    assert isinstance(found, Held), found
    return found


def grant(run: AgentRun, name: str = "a") -> Grant:
    """How it starts."""
    found = run.granted(name)
    assert isinstance(found, Grant), found
    return found


def test_nothing_starts_on_a_provider_that_lets_nobody_work() -> None:
    """Until the time that it has stated, which is told; then everything does."""
    run = AgentRun(agents_plan(agent("a"), agent("b", runner="codex")))
    limited(run)
    found = held(run)
    assert (found.code, found.until_us, found.for_ever) == ("provider", run.now_us + LIMIT_S * SECOND_US, False)
    assert "anthropic lets nobody work until" in found.text
    assert "5 hours" in found.text
    assert run.why("a") == "provider"
    assert run.tick() == ["b"]
    run.wait(LIMIT_S)
    assert run.tick() == ["a"]


def test_a_client_that_names_no_provider_is_its_own() -> None:
    """What it was refused by is waited for as well."""
    run = AgentRun(agents_plan(agent("a", runner="lonely"), agents={"clients": OVER_CLAUDE}))
    limited(run, "lonely")
    assert held(run).code == "provider"


def test_another_runner_goes_on_where_that_is_configured() -> None:
    """Unless its own provider waits too, or it has no name for the model that the task wants."""
    failing = {"failover": ("codex",)}
    run = AgentRun(
        agents_plan(agent("a"), agent("named", model="claude-opus-5-5"), agent("alias", model="opus"), agents=failing)
    )
    limited(run)
    assert grant(run).runner == "codex"
    assert grant(run, "alias").choice.name == "gpt-6-astra"
    assert held(run, "named").code == "provider"
    assert run.starts("a").runner == "codex"
    limited(run, "openai")
    run.fails("a", "infrastructure")
    run.wait(10)
    assert held(run).code == "provider"


def test_another_model_goes_on_where_that_is_configured() -> None:
    """By its reason one sees why."""
    run = AgentRun(agents_plan(agent("a", agent_type="software-architect"), agents={"failover": ("haiku",)}))
    limited(run)
    choice = grant(run).choice
    assert (choice.model, choice.reason) == ("haiku", "its provider has no capacity for others: haiku")


@pytest.mark.parametrize(
    ("task", "clients"),
    [
        (agent("a", model="opus"), {}),
        (agent("a", runner="bare"), {"bare": {"command": ["bare"], "provider": "anthropic"}}),
    ],
)
def test_no_other_model_is_tried_where_none_can_be_chosen(task: Task, clients: dict[str, dict[str, object]]) -> None:
    """The task names one, or the client takes none: it would meet the same limit at once, over and over."""
    run = AgentRun(agents_plan(task, agents={"failover": ("haiku",), "clients": clients}))
    limited(run)
    assert held(run).code == "provider"


def test_each_model_is_tried_once_while_a_provider_refuses() -> None:
    """Two that are refused in turns would be tried for ever."""
    run = AgentRun(agents_plan(agent("a", max_retries=0), agents={"failover": ("haiku", "opus")}))
    models = []
    for _ in range(3):
        models.append(run.starts("a").model)
        run.fails("a", "usage_limit", provider="anthropic")
    assert models == ["sonnet", "haiku", "opus"]
    assert held(run).code == "provider"
    run.wait(LIMIT_S)
    assert run.starts("a").model == "sonnet"


def test_no_cheaper_model_is_taken_than_the_one_that_its_provider_lets_work() -> None:
    """It may be the one that is refused."""
    run = AgentRun(
        agents_plan(
            agent("a", agent_type="qa-engineer", expected_usd_micros=2 * CENT, expected_model="haiku"),
            agents={"failover": ("sonnet",)}, budget=10 * CENT,
        )
    )  # fmt: skip
    limited(run, model="haiku")
    assert grant(run).choice.model == "sonnet"
    assert grant(run).reserve_usd_micros == 10 * CENT


def test_so_many_agents_work_at_once_as_their_requests_allow() -> None:
    """One always may."""
    run = AgentRun(agents_plan(agent("a"), agent("b"), agent("c"), agents={"max_requests": 2}))
    assert run.tick() == ["a", "b"]
    assert held(run, "c").code == "requests"
    assert "maxConcurrentRequests is 2" in held(run, "c").text
    run.ends("a")
    assert run.tick() == ["c"]


def test_agents_start_as_long_as_their_kind_was_not_seen_to_ask_too_often() -> None:
    """Ten requests a minute each were seen of this type; of another one nothing is known. What was just asked counts too."""
    run = AgentRun(
        agents_plan(
            agent("a"), agent("b"), agent("c"), agent("d", agent_type="reviewer"), agents={"requests_per_minute": 25}
        )
    )
    run.add(
        ev.CostCharged(
            task_id="a", attempt_id="x", usd_micros=1, agent_type="backend-engineer", calls=10, duration_s=60.0
        )
    )
    assert run.tick() == ["a", "d"]  # Ten of the last minute, and ten of this one.
    found = held(run, "b")
    assert "10 requests were made in the last minute" in found.text
    assert "it would be 30; resourceManagement.api.rateLimitPerMinute is 25" in found.text
    assert found.until_us is not None
    run.now_us = found.until_us
    assert run.tick() == ["b"]
    run.ends("a")
    assert run.tick() == ["c"]


def test_short_agents_are_taken_for_what_they_ask_in_all() -> None:
    """Four requests in a second are not 240 in a minute."""
    run = AgentRun(agents_plan(agent("a"), agent("b"), agent("c"), agents={"requests_per_minute": 16}))
    charge = ev.CostCharged(
        task_id="a", attempt_id="x", usd_micros=1, agent_type="backend-engineer", calls=4, duration_s=1.0
    )
    run.add(charge)
    over_us = run.now_us + 60 * SECOND_US
    assert run.tick() == ["a", "b", "c"]
    assert run.accounts.next_due_us(run.now_us) == over_us


def test_what_runs_is_never_more_than_the_budget_together() -> None:
    """The third waits for what the others hold back, and starts with what they leave."""
    plan = agents_plan(*(agent(name, expected_usd_micros=40 * CENT) for name in "abc"), budget=100 * CENT,
                       budgets={"cheaper_first": False, "by_priority": False})  # fmt: skip
    run = AgentRun(plan)
    assert run.tick() == ["a", "b"]
    found = held(run, "c")
    assert (found.code, found.for_ever) == ("budget", False)
    assert "2 running attempts hold back" in found.text
    run.ends("a", charges=paid(CENT))
    assert run.tick() == ["c"]
    assert [one.reserved_usd_micros for one in run.of(ev.TaskStarted)] == [40 * CENT] * 3


def test_a_cheaper_model_comes_before_waiting() -> None:
    """And says why."""
    plan = agents_plan(
        agent("a", expected_usd_micros=60 * CENT, expected_model="sonnet"),
        agent("b", expected_usd_micros=60 * CENT, expected_model="sonnet"),
        budget=100 * CENT,
    )
    run = AgentRun(plan)
    run.tick()
    first, second = run.of(ev.TaskStarted)
    assert (first.model, second.model) == ("sonnet", "haiku")
    assert second.reserved_usd_micros == 3 * CENT
    assert "one down, because it is expected to cost $0.6000" in second.model_reason


def test_one_that_needs_more_than_there_is_starts_alone_and_holds_all_of_it() -> None:
    """So does one of which nobody knows what it needs."""
    for expected in (500 * CENT, None):
        run = AgentRun(
            agents_plan(agent("a", expected_usd_micros=expected, model="opus"), agent("b"), budget=100 * CENT)
        )
        assert run.tick() == ["a"]
        start = run.starts("a")
        assert (start.reserved_usd_micros, start.facts["limit_usd_micros"]) == (100 * CENT, 100 * CENT)
        assert held(run, "b").code == "budget"


def test_near_the_end_only_what_matters_most_starts() -> None:
    """And where nothing runs that could change that, nothing ever will."""
    run = AgentRun(agents_plan(agent("a", priority="critical"), agent("b"), budget=100 * CENT))
    run.add(ev.CostCharged(task_id="a", attempt_id="x", usd_micros=96 * CENT))
    assert "only critical tasks start" in held(run, "b").text
    assert run.tick() == ["a"]
    assert not held(run, "b").for_ever
    run.ends("a", charges=paid(CENT))
    assert held(run, "b").for_ever


def test_a_spent_budget_lets_nothing_start_for_ever() -> None:
    """Only a person can change that."""
    run = AgentRun(agents_plan(agent("a"), budget=100 * CENT))
    run.add(ev.CostCharged(task_id="a", attempt_id="x", usd_micros=100 * CENT))
    assert held(run).for_ever
    run.add(ev.BudgetChanged(scope="run", budget_usd_micros=200 * CENT))
    assert grant(run).reserve_usd_micros == 100 * CENT


@pytest.mark.parametrize("kind", FAILURES)
def test_a_session_is_gone_on_with_only_where_it_was_cut_off(kind: str) -> None:
    """After a failure of its own an agent begins anew: the same again would hardly do better."""
    run = AgentRun(agents_plan(agent("a", max_retries=3), files=FileSettings(), budget=1000 * CENT))
    run.tick()
    work = Work("check00001", commit="w1", changed=1)
    run.fails("a", kind, work=work, resumable=True, provider="anthropic", charges=paid(CENT))
    run.add(ev.RunResumed())
    run.wait(2 * LIMIT_S)
    start = run.starts("a")
    goes_on = kind in GOES_ON
    assert start.resumes == ("a1" if goes_on else None)
    assert (start.base_commit, start.begin_commit) == ("c0", "w1" if goes_on else None)


def test_another_runner_does_not_go_on_with_a_session() -> None:
    """It would not know it."""
    run = AgentRun(agents_plan(agent("a"), agents={"failover": ("codex",)}))
    run.tick()
    run.fails("a", "usage_limit", provider="anthropic", resumable=True)
    start = run.starts("a")
    assert (start.runner, start.resumes) == ("codex", None)


def test_a_session_is_gone_on_with_once() -> None:
    """A rollback takes the attempt back that went on with it, not what that one has said in it."""
    run = AgentRun(agents_plan(agent("a", max_retries=3)))
    run.tick()
    run.fails("a", "infrastructure", resumable=True)
    run.wait(60)
    assert grant(run).resumes == "a1"
    run.store(ev.TaskStarted(task_id="a", attempt_id="undone", attempt=2, runner="claude", resumes="a1"))
    assert grant(run).resumes is None


def test_after_a_conflict_work_begins_anew_on_the_merged_result() -> None:
    """Its session would go on with the files that did not merge."""
    run = AgentRun(agents_plan(agent("a"), files=FileSettings(conflicts="rebase")))
    run.tick()
    run.add(ev.CheckpointRestored(checkpoint_id="x", commit="c5"))
    work = Work("check00001", commit="w1", changed=1, onto="c5", clashes=(Clash("a.txt", "contents"),))
    run.ends("a", work=work, resumable=True)
    start = run.starts("a")
    assert (start.resumes, start.base_commit, start.begin_commit) == (None, "c5", None)


def test_a_conflict_is_resolved_by_an_agent_of_its_own_type() -> None:
    """On the model of that type, and in no session of another one."""
    run = AgentRun(agents_plan(agent("a"), files=FileSettings(conflicts="agent")))
    run.tick()
    work = Work("check00001", commit="w1", changed=1, onto="c5", clashes=(Clash("a.txt", "contents"),))
    run.ends("a", work=work, resumable=True)
    start = run.starts("a")
    assert (start.role, start.model, start.resumes) == ("merge-engineer", "opus", None)


def test_a_queue_that_is_full_of_what_is_held_back_lets_others_pass() -> None:
    """What another provider lets work, and what costs nothing; no more of what would be held back itself."""
    held_too = [agent(f"f{number}", "b") for number in range(5)]
    run = AgentRun(
        agents_plan(agent("a"), agent("b", runner="codex"), task("e", "b", runner="shell"), *held_too, max_queue_size=1)
    )
    limited(run)
    assert run.tick() == ["b"]
    run.ends("b")
    assert run.tick() == ["e"]
    for _ in range(3):
        assert run.tick() == []
    assert run.state.counts["queued"] <= 2
