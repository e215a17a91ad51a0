"""What a dispatcher says of money and of providers: one wait for all, one charge for each, and who is stopped."""

from __future__ import annotations

from typing import Any

import pytest
from agentpaper import CENT, AgentRun, agent, agents_plan, paid
from paper import SECOND_US, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import from_rfc3339
from parallel_agents.eventstore.submission import RetryPolicy, Stage
from parallel_agents.scheduler.decide_money import decide_held
from parallel_agents.scheduler.runners.protocol import Charge

FIVE = "abcde"


def five(**fields: Any) -> AgentRun:
    """Five agents that work."""
    run = AgentRun(agents_plan(*(agent(name, max_retries=9) for name in FIVE), **fields))
    assert run.tick() == list(FIVE)
    return run


def refused(run: AgentRun, name: str, kind: str = "overload", *, until_s: float | None = None) -> None:
    """A provider refuses an attempt."""
    until_us = None if until_s is None else run.now_us + round(until_s * SECOND_US)
    run.fails(name, kind, provider="anthropic", until_us=until_us)


def waits_s(run: AgentRun) -> list[float]:
    """How long each wait that was told is, from when it was."""
    return [(from_rfc3339(one.until) - run.now_us) / SECOND_US for one in run.of(ev.ProviderLimited)]


def test_agents_that_fail_at_once_make_one_wait() -> None:
    """All had begun before it was known."""
    run = five()
    for name in FIVE:
        refused(run, name)
    assert [(one.count, one.stated) for one in run.of(ev.ProviderLimited)] == [(1, False)]
    assert waits_s(run) == [30]
    run.wait(29)
    assert run.tick() == []
    run.wait(1)
    assert run.tick() == list(FIVE)


def test_a_wait_doubles_with_each_new_refusal_up_to_a_quarter_of_an_hour() -> None:
    """Where the provider does not say for how long."""
    run, seen = five(retry=RetryPolicy(delay_s=0.0)), []
    for _ in range(8):
        for name in FIVE:
            refused(run, name)
        seen.append(run.of(ev.ProviderLimited)[-1])
        run.wait((from_rfc3339(seen[-1].until) - run.now_us) / SECOND_US)
        assert run.tick() == list(FIVE)
    assert [one.count for one in seen] == list(range(1, 9)) == [one.count for one in run.of(ev.ProviderLimited)]
    assert run.now_us // SECOND_US == 100 + 30 + 60 + 120 + 240 + 480 + 3 * 900


def test_a_stated_time_is_waited_for_instead_of_a_guess() -> None:
    """Whether it was told before or after the guess; a guess takes none of it back."""
    run = five()
    refused(run, "a")
    refused(run, "b", "usage_limit", until_s=7200)
    refused(run, "c")
    refused(run, "d", "usage_limit", until_s=600)
    assert waits_s(run) == [30, 7200]
    assert [one.stated for one in run.of(ev.ProviderLimited)] == [False, True]
    assert run.spend.waits["anthropic"].count == 1


def test_an_allowance_whose_reset_nobody_states_is_waited_for_a_quarter_of_an_hour() -> None:
    """A time that is over already is none."""
    for until_s in (None, 0, -5):
        run = five()
        refused(run, "a", "usage_limit", until_s=until_s)
        assert waits_s(run) == [900]


def test_a_stated_time_that_does_not_hold_is_not_believed_every_second() -> None:
    """A clock that is wrong by a second would start an agent each second, uncounted."""
    run, waited = five(), []
    for name in FIVE[1:]:
        run.ends(name)
    for _ in range(4):
        refused(run, "a", "usage_limit", until_s=1)
        waited.append((run.spend.waits["anthropic"].until_us - run.now_us) / SECOND_US)
        run.wait(waited[-1])
        assert run.tick() == ["a"]
    assert waited == [1, 30, 60, 120]


def test_a_success_after_a_refusal_frees_the_provider() -> None:
    """One that began before it says nothing, nor does one that never got through."""
    run = five()
    refused(run, "a")
    run.ends("b", provider="anthropic", got_through=True)
    assert run.of(ev.ProviderFreed) == []
    run.wait(30)
    run.tick()
    run.ends("a")
    assert run.of(ev.ProviderFreed) == []
    refused(run, "c")
    assert run.of(ev.ProviderLimited)[-1].count == 1  # It had begun before the first one as well.
    run.wait(60)
    run.tick()
    run.ends("c", provider="anthropic", got_through=True)
    assert [one.provider for one in run.of(ev.ProviderFreed)] == ["anthropic"]
    assert run.spend.waits == {}


def test_what_it_refuses_in_another_model_prolongs_a_wait_and_never_shortens_it() -> None:
    """There is one wait for a provider; what was stated holds."""
    run = AgentRun(agents_plan(agent("a", max_retries=9), agents={"failover": ("haiku",)}))
    run.tick()
    refused(run, "a", "usage_limit", until_s=7200)
    assert run.starts("a").model == "haiku"
    refused(run, "a", "overload")
    assert [round(wait) for wait in waits_s(run)] == [7200, 7200]
    assert run.spend.waits["anthropic"].refused == {"sonnet", "haiku"}
    run.wait(100)
    assert run.tick() == []


def test_five_that_cannot_authenticate_pause_their_run() -> None:
    """Nothing of it counts, and nothing starts until somebody has done something."""
    run = five()
    run.fails("a", "authentication", retryable=False)
    assert (run.state.status, run.state.pause_code, run.state.tasks["a"].failures) == ("paused", "authentication", 0)
    assert run.state.reason == "a: its agent cannot authenticate: authentication trouble"
    assert run.fails("b", "authentication", retryable=False) == ["TaskFailed", "TaskRetryScheduled"]
    assert run.tick() == []
    run.add(ev.RunResumed())
    assert run.tick() == ["a", "b"]


def looked(run: AgentRun) -> list[ev.Event]:
    """What is told of the budgets, as in a tick."""
    facts = run.facts().agents
    assert facts is not None
    events = run.accounts.due(facts, run.state)
    run.add(*events)
    return events


def test_a_spent_budget_is_told_once_pauses_the_run_and_stops_who_spends_of_it() -> None:
    """What was cut off counts as no failure, and goes on once there is money."""
    run = AgentRun(agents_plan(agent("a", max_retries=0), agent("b"), budget=100 * CENT))
    run.tick()
    run.live["a1"] = 80 * CENT
    assert [type(one).__name__ for one in looked(run)] == ["BudgetThresholdReached"]
    run.live["a1"] = 101 * CENT
    assert [type(one).__name__ for one in looked(run)] == [
        "BudgetThresholdReached", "BudgetThresholdReached", "BudgetExceeded", "RunPaused",
    ]  # fmt: skip
    assert (run.state.pause_code, set(run.accounts.cut)) == ("budget", {"a1"})
    assert looked(run) == []
    ended = run.ends("a", error="stopped", outcome="stopped", charges=paid(103 * CENT), resumable=True)
    assert ended == ["CostCharged", "TaskFailed", "TaskRetryScheduled"]
    failed = run.of(ev.TaskFailed)[-1]
    assert (failed.kind, failed.error) == ("budget", "the budget of the run is spent: $1.01 of $1.00")
    assert (run.state.tasks["a"].failures, run.accounts.cut) == (0, {})
    run.add(ev.BudgetChanged(scope="run", budget_usd_micros=300 * CENT), ev.RunResumed())
    assert run.starts("a").resumes == "a1"


def test_one_that_has_done_its_work_before_it_was_stopped_has_succeeded() -> None:
    """The money is gone in any case."""
    run = AgentRun(agents_plan(agent("a"), budget=100 * CENT))
    run.tick()
    run.live["a1"] = 101 * CENT
    looked(run)
    assert run.ends("a", charges=paid(101 * CENT)) == ["CostCharged", "TaskCompleted"]


def test_one_that_a_dispatcher_stopped_for_a_budget_and_did_not_live_to_tell_is_no_failure() -> None:
    """The run was paused for it; whom it was going to stop, it knew alone."""
    run = AgentRun(agents_plan(agent("a", max_retries=0), budget=100 * CENT))
    run.tick()
    run.live["a1"] = 101 * CENT
    looked(run)
    run.accounts.cut.clear()
    assert run.ends("a", error="stopped", outcome="stopped", charges=paid(101 * CENT))[1:] == [
        "TaskFailed", "TaskRetryScheduled",
    ]  # fmt: skip
    assert run.of(ev.TaskFailed)[-1].kind == "budget"


@pytest.mark.parametrize("kind", ["agent", "infrastructure", "usage_limit", "budget"])
def test_a_task_that_has_spent_its_own_budget_fails_however_it_ended(kind: str) -> None:
    """It could never start again, and would hold its run for ever."""
    run = AgentRun(agents_plan(agent("a", budget_usd_micros=50 * CENT, max_retries=3), agent("b", "a")))
    run.tick()
    decided = run.fails("a", kind, charges=paid(30 * CENT, None), retryable=True, provider="anthropic")
    assert "TaskRetryScheduled" not in decided
    assert run.of(ev.TaskFailed)[-1].error == f"{kind} trouble; and the budget of task a is spent: $0.5000 of $0.5000"
    run.tick()
    assert run.statuses() == {"a": "failed", "b": "skipped"}


def test_an_attempt_that_is_stopped_for_the_budget_of_its_task_fails_it() -> None:
    """The run goes on."""
    run = AgentRun(agents_plan(agent("a", budget_usd_micros=50 * CENT), agent("b")))
    run.tick()
    run.live["a1"] = 50 * CENT
    assert [type(one).__name__ for one in looked(run)] == ["BudgetThresholdReached"] * 3 + ["BudgetExceeded"]
    run.ends("a", error="stopped", outcome="stopped", charges=paid(50 * CENT))
    assert (run.state.tasks["a"].status, run.state.status) == ("failed", "running")


def test_budgets_that_only_tell_stop_nobody() -> None:
    """``pauseOnBudgetExceeded: false``."""
    run = AgentRun(agents_plan(agent("a", budget_usd_micros=50 * CENT), budget=50 * CENT, budgets={"pause": False}))
    run.tick()
    run.live["a1"] = 60 * CENT
    assert {type(one).__name__ for one in looked(run)} == {"BudgetThresholdReached", "BudgetExceeded"}
    assert run.accounts.cut == {}
    assert "TaskRetryScheduled" in run.fails("a", "infrastructure", charges=paid(60 * CENT))


def stuck(run: AgentRun) -> ev.Event | None:
    """The pause that a tick would add."""
    return decide_held(run.state, run.plan(), {})


def test_a_run_that_no_money_moves_any_more_is_paused() -> None:
    """It says so, instead of waiting for ever; not while something rests or runs."""
    run = AgentRun(agents_plan(agent("a"), agent("b"), agent("c", max_retries=1), budget=100 * CENT))
    run.add(ev.TaskQueued(task_id="c"))
    run.add(ev.TaskStarted(task_id="c", attempt_id="c1", attempt=1, runner="claude"))
    run.fails("c", "infrastructure", charges=paid(100 * CENT))
    run.tick()
    assert stuck(run) is None
    run.wait(60)
    pause = stuck(run)
    assert isinstance(pause, ev.RunPaused)
    assert (pause.code, pause.reason) == ("budget", "the budget of the run is spent: $1.00 of $1.00")


def test_what_waits_for_a_stage_that_was_opened_again_keeps_no_run_from_being_paused() -> None:
    """It cannot start either."""
    stages = (Stage(name="one"), Stage(name="two"))
    run = AgentRun(
        agents_plan(agent("a", budget_usd_micros=CENT), agent("b", stage=1, allow_failure=True), stages=stages)
    )
    run.tick()
    run.fails("a", "agent", retryable=False, charges=paid(CENT))
    run.add(ev.TaskQueued(task_id="b"), ev.TaskReopened(task_id="a"))
    run.tick()
    assert run.statuses() == {"a": "queued", "b": "queued"}
    assert stuck(run) is not None


def test_other_work_keeps_a_run_from_being_paused() -> None:
    """What costs nothing may still start, and a provider lets us work again by itself."""
    run = AgentRun(agents_plan(agent("a"), task("b", runner="shell"), budget=100 * CENT, max_parallel_agents=1))
    run.add(ev.CostCharged(task_id="a", attempt_id="x", usd_micros=100 * CENT))
    assert run.tick() == ["b"]
    assert stuck(run) is None
    run = AgentRun(agents_plan(agent("a"), agent("b", runner="codex", max_retries=9)))
    run.tick()
    run.ends("a")
    refused(run, "b", "usage_limit", until_s=100)
    assert stuck(run) is None


def test_the_next_thing_due_is_the_end_of_a_wait() -> None:
    """The first that is to come."""
    run = AgentRun(agents_plan(agent("a"), agent("b", runner="codex")))
    run.tick()
    assert run.accounts.next_due_us(run.now_us) is None
    refused(run, "a", "usage_limit", until_s=100)
    run.fails("b", "usage_limit", provider="openai", until_us=run.now_us + 50 * SECOND_US)
    assert run.accounts.next_due_us(run.now_us) == run.now_us + 50 * SECOND_US
    assert run.accounts.next_due_us(run.now_us + 50 * SECOND_US) == run.now_us + 100 * SECOND_US
    assert run.accounts.next_due_us(run.now_us + 100 * SECOND_US) is None


def test_every_model_of_an_attempt_is_charged_and_its_time_once() -> None:
    """By the type that acted."""
    run = AgentRun(agents_plan(agent("a")))
    run.tick()
    run.ends(
        "a", charges=(Charge("m", 5, "agent", input_tokens=7, calls=2), Charge(None, None, "unknown", partial=True))
    )
    first, second = run.of(ev.CostCharged)
    assert (first.usd_micros, first.input_tokens, first.duration_s, first.agent_type) == (5, 7, 1.0, "backend-engineer")
    assert (second.usd_micros, second.source, second.partial, second.duration_s) == (None, "unknown", True, 0.0)


def test_a_limit_that_a_client_has_set_itself_counts_as_a_failure() -> None:
    """No budget of ours would ever end it; where ours was the limit, it has spent what there was."""
    run = AgentRun(agents_plan(agent("a", max_retries=1)))
    for _ in range(2):
        assert run.tick() == ["a"]
        run.fails("a", "budget", retryable=False, charges=paid(100 * CENT))
        run.wait(60)
    assert run.statuses() == {"a": "failed"}
    run = AgentRun(agents_plan(agent("a", max_retries=0), budget=100 * CENT))
    run.tick()
    run.fails("a", "budget", retryable=False, charges=paid(100 * CENT))
    assert run.statuses() == {"a": "queued"}
