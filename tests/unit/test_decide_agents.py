"""What the end of an agent's attempt means: counted or not, paused or not, told to the next one or not."""

from __future__ import annotations

import pytest
from agentpaper import CENT, AgentRun, agent, agents_plan, paid

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import FileSettings, Gate
from parallel_agents.scheduler.runners.protocol import FAILURES
from parallel_agents.scheduler.work import Gated, Work

COUNTED = {"agent", "no_change", "infrastructure", "overload", "rate_limit", "configuration", "memory", "output"}
FINAL = {"authentication", "spend_cap", "configuration", "memory", "output"}  # The same again would end the same way.
OF_PROVIDERS = {"overload", "rate_limit", "usage_limit", "authentication", "spend_cap"}


def failed(kind: str, *, max_retries: int, times: int = 1) -> AgentRun:
    """A run whose only task has failed so many times; whoever is asked to, goes on."""
    run = AgentRun(agents_plan(agent("a", max_retries=max_retries), budget=1000 * CENT))
    for _ in range(times):
        assert run.tick() == ["a"]
        provider = "anthropic" if kind in OF_PROVIDERS else ""
        run.fails("a", kind, retryable=kind not in FINAL, provider=provider, charges=paid(CENT))
        run.wait(3600)
        if run.state.status == "paused" and len(run.of(ev.TaskStarted)) < times:
            run.add(ev.RunResumed())
    return run


def test_every_kind_of_failure_is_looked_at_here() -> None:
    """A new one has to be decided on."""
    assert set(FAILURES) == COUNTED | {"usage_limit", "budget", "authentication", "spend_cap"}


@pytest.mark.parametrize("kind", FAILURES)
def test_what_is_no_fault_of_an_attempt_uses_up_no_retry(kind: str) -> None:
    """A task without retries fails at the first failure that counts, and is made again after any other."""
    run = failed(kind, max_retries=0)
    task = run.state.tasks["a"]
    assert task.status == ("failed" if kind in COUNTED else "queued")
    assert task.failures == (1 if kind in COUNTED else 0)
    assert [one.kind for one in run.of(ev.TaskFailed)] == [kind]


@pytest.mark.parametrize("kind", sorted(COUNTED - FINAL))
def test_what_counts_is_tried_as_often_as_allowed_and_no_more(kind: str) -> None:
    """Over all attempts of the task, with a growing rest between them."""
    run = failed(kind, max_retries=2, times=3)
    assert run.state.tasks["a"].status == "failed"
    assert [one.failures for one in run.of(ev.TaskRetryScheduled)] == [1, 2]
    assert [one.wait_s for one in run.of(ev.TaskRetryScheduled)] == [5.0, 10.0]
    run.wait(3600)
    assert run.tick() == []


@pytest.mark.parametrize("kind", ["usage_limit", "budget", "authentication", "spend_cap"])
def test_what_counts_for_nothing_is_made_again_at_once(kind: str) -> None:
    """What has to be there first is looked at when it starts."""
    run = failed(kind, max_retries=0, times=4)
    retries = run.of(ev.TaskRetryScheduled)
    assert [(one.failures, one.wait_s) for one in retries] == [(0, 0.0)] * 4
    assert run.state.tasks["a"].status == "queued"


@pytest.mark.parametrize("kind", FAILURES)
def test_only_what_would_meet_everybody_pauses_a_run(kind: str) -> None:
    """By a code that a script can read."""
    run = failed(kind, max_retries=3)
    paused = kind in ("authentication", "spend_cap")
    assert (run.state.status, run.state.pause_code) == (("paused", kind) if paused else ("running", ""))


def test_charges_come_before_the_end_and_the_end_before_what_follows() -> None:
    """So whoever reads the end knows what it has cost."""
    run = AgentRun(agents_plan(agent("a")))
    run.tick()
    decided = run.fails("a", "spend_cap", provider="anthropic", retryable=False, charges=paid(1, 2))
    assert decided == ["CostCharged", "CostCharged", "TaskFailed", "TaskRetryScheduled", "RunPaused"]
    run = AgentRun(agents_plan(agent("a")))
    run.tick()
    decided = run.fails("a", "usage_limit", provider="anthropic", charges=paid(1))
    assert decided == ["CostCharged", "ProviderLimited", "TaskFailed", "TaskRetryScheduled"]


def test_an_allowance_of_nobody_is_waited_for_as_any_failure() -> None:
    """A runner that does not say whose it is would be started over and over."""
    run = AgentRun(agents_plan(agent("a", max_retries=1)))
    run.tick()
    run.fails("a", "usage_limit")
    assert (run.state.tasks["a"].failures, run.tick()) == (1, [])
    run.wait(10)
    assert run.tick() == ["a"]
    assert run.fails("a", "usage_limit") == ["TaskFailed"]


def test_a_session_that_is_not_there_any_more_is_no_failure_of_the_task() -> None:
    """The next attempt begins anew, so that it can happen once only."""
    run = AgentRun(agents_plan(agent("a", max_retries=1)))
    run.tick()
    run.fails("a", "infrastructure", resumable=True)
    run.wait(10)
    assert run.starts("a").resumes == "a1"
    run.fails("a", "configuration", retryable=True)
    start = run.starts("a")
    assert (start.resumes, run.state.tasks["a"].failures) == (None, 1)
    run.fails("a", "configuration", retryable=True)
    assert run.state.tasks["a"].status == "failed"


@pytest.mark.parametrize("kind", FAILURES)
def test_a_task_that_is_being_cancelled_is_cancelled_whatever_it_ends_with(kind: str) -> None:
    """What it has cost is charged all the same, and nobody is paused."""
    run = AgentRun(agents_plan(agent("a")))
    run.tick()
    run.add(ev.TaskCancelRequested(task_id="a", reason="enough"))
    run.fails("a", kind, charges=paid(CENT))
    assert (run.state.tasks["a"].status, run.state.status) == ("cancelled", "running")
    assert run.spend.by_run["paper"] == CENT


KEPT = Work("check00001", commit="w1", changed=0)


def test_an_agent_that_changed_nothing_where_changes_were_asked_for_has_failed() -> None:
    """Declared outputs or files ask for them."""
    for fields in ({"files": ("src/**",)}, {"outputs": ("a.txt",)}):
        run = AgentRun(agents_plan(agent("a", max_retries=0, **fields), files=FileSettings()))
        run.tick()
        run.ends("a", work=KEPT)
        end = run.of(ev.TaskFailed)[-1]
        assert end.kind == "no_change"
        assert end.error.startswith("no change: it changed no file, and the task names ")


def test_an_agent_that_had_nothing_to_change_is_done_and_that_is_told() -> None:
    """A review changes nothing."""
    run = AgentRun(agents_plan(agent("a"), files=FileSettings()))
    run.tick()
    run.ends("a", work=KEPT)
    assert run.of(ev.TaskCompleted)[-1].outcome == "no_change"


def test_a_gate_that_its_work_does_not_pass_is_an_agents_own_failure() -> None:
    """It begins anew and is told so; on a stronger model, where that is configured."""
    settings = FileSettings(gates=(Gate(command=("make", "test"), after="task"),))
    run = AgentRun(
        agents_plan(agent("a", max_retries=1), files=settings, agents={"retry_stronger": True})
    )  # fmt: skip
    run.tick()
    gate = Gated("task", "make test", 2, 1.0, "3 failed")
    run.ends("a", work=Work("check00001", commit="w1", changed=1, gates=(gate,)), resumable=True)
    assert run.of(ev.TaskFailed)[-1].kind == "agent"
    run.wait(10)
    start = run.starts("a")
    assert (start.resumes, start.model) == (None, "opus")
    assert start.model_reason == ("backend-engineer gets sonnet; one up, because the agent itself failed before: opus")


def test_infrastructure_changes_nothing_and_an_agents_own_failure_does() -> None:
    """The history tells which: by the kind of the failure, and by the reason of the model after it."""
    run = AgentRun(agents_plan(agent("a", max_retries=9), agents={"retry_stronger": True}))
    models = []
    for kind in ("infrastructure", "overload", "agent", "infrastructure", "no_change", "rate_limit"):
        models.append(run.starts("a").model)
        run.fails("a", kind, output=f"words at the {kind}")
        run.wait(3600)
    models.append(run.starts("a").model)
    assert models == ["sonnet", "sonnet", "sonnet", "opus", "opus", "opus", "opus"]
    lesson = run.state.tasks["a"].lesson
    assert lesson == {"error": "no_change trouble", "output": "words at the no_change", "changed": None}


def test_a_model_that_the_task_names_stays() -> None:
    """Whatever has failed."""
    run = AgentRun(agents_plan(agent("a", model="haiku"), agents={"retry_stronger": True}))
    run.tick()
    run.fails("a", "agent")
    run.wait(10)
    assert run.starts("a").model == "haiku"
