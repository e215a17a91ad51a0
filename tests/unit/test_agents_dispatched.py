"""Agents in a dispatcher: what each has cost is told once, whatever happens to the commit, the run or the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from agentpaper import CENT, agent, agents_plan, paid
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, task

from parallel_agents import steer, travel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded, rfc3339
from parallel_agents.eventstore.submission import RetryPolicy
from parallel_agents.held_back import lift, money_and_waits, why_of_task
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.decide_past import decide_rollback
from parallel_agents.scheduler.run_files import RunFiles


class Agents(Scene):
    """A scene whose tasks are agents', with what they are seen to spend."""

    def __init__(self, folder: Path) -> None:
        self.live: dict[str, int] = {}
        super().__init__(folder)
        self.runner = ScriptedRunner("claude")
        self.dispatcher = self.another("run", live_spend=lambda: self.live)

    def of(self, event_type: type[ev.Event]) -> list[Any]:
        """All events of a type."""
        return [one.event for one in self.log.read() if isinstance(one.event, event_type)]

    def attempt(self, name: str) -> str:
        """The last attempt of a task."""
        return [launch.attempt_id for launch in self.runner.launched if launch.task_id == name][-1]

    def roll_back(self, run_id: str, to: int) -> None:
        """As a user does, and then they go on."""
        projector = Projector(self.log)
        now, there = projector.state(run_id), projector.state(run_id, to)
        self.log.append(run_id, now.version, decide_rollback(now, there, to))
        steer.resume(self.log, run_id)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Agents]:
    """One of them."""
    made = Agents(tmp_path)
    yield made
    made.end_of_story()


def test_a_commit_that_was_not_acknowledged_charges_nobody_twice(
    scene: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the log, though the dispatcher was told otherwise; the end is still at hand."""
    run_id = scene.submit(plan=agents_plan(agent("a"), agent("b", "a")))
    scene.tick()
    scene.runner.end("a", charges=paid(5 * CENT), provider="anthropic", got_through=True)
    transact = Log.transact

    def unheard(log: Log, decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        transact(log, decide, actor=actor)
        raise StoreError("the disk is gone, or was it?")

    with monkeypatch.context() as patched:
        patched.setattr(Log, "transact", unheard)
        with pytest.raises(StoreError):
            scene.dispatcher.tick()
    scene.tick()
    assert [one.usd_micros for one in scene.of(ev.CostCharged)] == [5 * CENT]
    assert scene.statuses(run_id) == {"a": "completed", "b": "running"}


def test_a_commit_that_failed_is_decided_anew_with_the_same_words(scene: Agents) -> None:
    """Also of an attempt that was stopped for a budget, of which the dispatcher alone knew."""
    scene.submit(plan=agents_plan(agent("a"), budget=100 * CENT))
    scene.tick()
    scene.live[scene.attempt("a")] = 100 * CENT
    scene.tick()
    assert scene.runner.stops == [("a", False, 3.0)]
    scene.live.clear()
    scene.runner.end("a", outcome="stopped", error="stopped", charges=paid(100 * CENT))
    scene.log.refusals = 1
    with pytest.raises(StoreError):
        scene.dispatcher.tick()
    scene.tick()
    assert [one.usd_micros for one in scene.of(ev.CostCharged)] == [100 * CENT]
    assert [one.kind for one in scene.of(ev.TaskFailed)] == ["budget"]


def test_agents_that_cannot_authenticate_pause_their_run_once(scene: Agents) -> None:
    """However many of them are told of in one commit."""
    scene.submit(plan=agents_plan(agent("a"), agent("b"), agent("c")))
    scene.tick()
    for name in "abc":
        scene.runner.end(name, error="401", kind="authentication", retryable=False, provider="anthropic")
    scene.tick()
    assert [one.code for one in scene.of(ev.RunPaused)] == ["authentication"]
    assert len(scene.of(ev.TaskRetryScheduled)) == 3


def test_what_a_rollback_has_undone_is_charged_once_and_its_session_is_over(scene: Agents) -> None:
    """The attempt that went on with a session has changed it; the next one begins anew."""
    plan = agents_plan(agent("a", max_retries=5), retry=RetryPolicy(delay_s=0.0))
    run_id = scene.submit(plan=plan)
    scene.tick()
    first = scene.attempt("a")
    scene.runner.end("a", error="killed", kind="infrastructure", resumable=True, charges=paid(CENT))
    scene.tick()
    second = scene.attempt("a")
    cut_at = next(one.seq for one in scene.log.read() if isinstance(one.event, ev.TaskRetryScheduled))
    assert [one.resumes for one in scene.of(ev.TaskStarted)] == [None, first]
    scene.roll_back(run_id, cut_at)
    scene.tick()
    scene.runner.end("a", outcome="stopped", error="stopped", charges=paid(2 * CENT), resumable=True)
    # It is the third attempt that runs now; the second one's end is still to come.
    ended = scene.runner.poll()[0]
    ended.attempt_id = second
    scene.runner._ends.append(ended)
    scene.tick()
    starts = scene.of(ev.TaskStarted)
    assert [one.resumes for one in starts] == [None, first, None]
    assert [(one.attempt_id, one.usd_micros) for one in scene.of(ev.CostCharged)] == [(first, CENT), (second, 2 * CENT)]
    assert [one.attempt_id for one in scene.of(ev.ResultDiscarded)] == [second]
    assert Projector(scene.log).spend() == scene.dispatcher.accounts.spend


def test_two_dispatchers_share_one_wait_and_one_budget(scene: Agents) -> None:
    """Each knows what the other has appended, before it decides."""
    today = {"day_usd_micros": 100 * CENT, "cheaper_first": False, "by_priority": False}
    scene.submit(plan=agents_plan(agent("a", expected_usd_micros=60 * CENT), budgets=today))
    other_runner = ScriptedRunner("claude")
    other = scene.another("other", other_runner)
    other._me = {**other._me, "pid": 1, "kind": "other"}
    scene.tick()
    run_id = scene.submit(plan=agents_plan(agent("b", expected_usd_micros=60 * CENT), budgets=today))
    scene.dispatcher.let_go(run_id)
    scene.dispatcher._requests.clear()
    other.hold(run_id)
    other.tick()
    assert other_runner.tasks() == []
    scene.runner.end(
        "a", error="limit", kind="usage_limit", provider="anthropic", until_us=scene.now_us + 60 * SECOND_US
    )
    scene.tick()
    assert scene.runner.tasks() == ["a"]
    assert other.tick() == scene.now_us + 60 * SECOND_US
    assert other_runner.tasks() == []
    scene.now_us += 60 * SECOND_US
    other.tick()
    assert other_runner.tasks() == ["b"]
    scene.tick()
    assert scene.runner.tasks() == ["a"]


def test_a_dispatcher_that_comes_after_one_that_died_says_nothing_again(scene: Agents) -> None:
    """Thresholds, waits and pauses are in the log."""
    run_id = scene.submit(plan=agents_plan(agent("a"), budget=100 * CENT))
    scene.dispatcher._me = {**scene.dispatcher._me, "start_time": 1}
    scene.tick()
    scene.runner.end("a", error="stop", kind="usage_limit", provider="anthropic", charges=paid(100 * CENT))
    scene.tick()
    assert [one.code for one in scene.of(ev.RunPaused)] == ["budget"]
    seq = scene.log.last_seq()
    scene.dispatcher = scene.another("next", live_spend=lambda: scene.live)
    scene.dispatcher.hold(run_id)
    scene.tick()
    scene.tick()
    assert scene.types(seq) == ["RunClaimed"]


def test_no_money_is_read_for_a_run_without_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there is to read."""
    scene = Scene(tmp_path)

    def read(self: Projector, upto: int | None = None) -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(Projector, "spend", read)
    scene.submit(plan=agents_plan(agent("a", runner=None, command=("true",))))
    scene.tick()
    scene.runner.end("a")
    scene.tick()
    assert scene.types(of="RunCompleted") == ["RunCompleted"]
    assert scene.dispatcher.accounts.spend is None
    scene.log.close()


def test_the_time_that_a_run_waits_for_a_provider_is_not_time_that_it_runs(scene: Agents) -> None:
    """Five hours until an allowance is there again would end every run of an hour; and it is looked at only then."""
    run_id = scene.submit(plan=agents_plan(agent("a"), max_execution_s=3600.0))
    scene.tick()
    reset_us = scene.now_us + 5 * 3600 * SECOND_US
    scene.runner.end("a", error="limit", kind="usage_limit", provider="anthropic", until_us=reset_us)
    assert scene.tick() == reset_us
    scene.now_us += 3 * 3600 * SECOND_US
    assert scene.tick() == reset_us
    assert scene.types(of="Cancel") == []
    scene.now_us = reset_us
    assert scene.tick() == reset_us + 3600 * SECOND_US
    assert scene.last(ev.RunResumed).reason == "usage_limit: its time is over"
    assert scene.statuses(run_id) == {"a": "running"}
    scene.now_us += 3600 * SECOND_US
    scene.tick()
    assert scene.last(ev.RunCancelRequested).reason == "max_execution_time"


def test_a_fork_begins_anew_where_its_parent_would_go_on_with_a_session(scene: Agents) -> None:
    """The session is its parent's, as is what it has cost; what went wrong there it is told."""
    run_id = scene.submit(plan=agents_plan(agent("a", max_retries=5), budget=100 * CENT))
    scene.tick()
    first = scene.attempt("a")
    scene.runner.end("a", error="wrong", kind="agent", charges=paid(60 * CENT))
    scene.tick()
    scene.now_us += 10 * SECOND_US
    scene.tick()
    second = scene.attempt("a")
    scene.runner.end("a", error="killed", kind="infrastructure", resumable=True)
    scene.tick()
    child = travel.fork(scene.log, run_id, scene.log.last_seq(), {})["run_id"]
    steer.resume(scene.log, child)
    scene.dispatcher.hold(child)
    scene.now_us += 60 * SECOND_US
    scene.tick()
    starts = [one for one in scene.log.read() if isinstance(one.event, ev.TaskStarted)]
    assert {one.run_id: one.event.resumes for one in starts if one.event.attempt == 3} == {child: None, run_id: second}
    state = scene.dispatcher.held[child].state
    assert state.tasks["a"].lesson == {"error": "wrong", "output": None, "changed": None}
    assert first != second
    spend = scene.dispatcher.accounts.spend
    assert spend is not None
    assert (spend.by_run[run_id], spend.by_run[child]) == (60 * CENT, 0)


def test_a_wait_for_a_client_that_names_no_provider_is_shown_and_can_be_lifted(scene: Agents) -> None:
    """By the name of the client."""
    rows = {"lonely": {"command": ["lonely"]}}
    run_id = scene.submit(plan=agents_plan(agent("a", runner="lonely"), agents={"clients": rows}))
    until = rfc3339(scene.now_us + 60 * SECOND_US)
    scene.log.append(
        "store", 0, [ev.ProviderLimited(provider="lonely", kind="usage_limit", until=until, stated=True, count=1)]
    )
    scene.tick()
    projector, state = Projector(scene.log), scene.state(run_id)
    assert [one["provider"] for one in money_and_waits(projector, state, scene.log.last_seq())["limits"]] == ["lonely"]
    said = why_of_task(state, state.tasks["a"], projector.spend(), scene.now_us, "provider")
    assert said["settle"] == "parallel-agents limits --clear lonely"
    lift(scene.log, "lonely")


def test_a_run_that_is_submitted_while_a_provider_refuses_has_all_of_its_time_afterwards(scene: Agents) -> None:
    """As one that meets the refusal itself."""
    until_us = scene.now_us + 5 * 3600 * SECOND_US
    limited = ev.ProviderLimited(
        provider="anthropic", kind="usage_limit", until=rfc3339(until_us), stated=True, count=1
    )  # fmt: skip
    scene.log.append("store", 0, [limited])
    scene.now_us += 100 * SECOND_US
    run_id = scene.submit(plan=agents_plan(agent("a"), max_execution_s=3600.0))
    assert scene.tick() == until_us
    scene.now_us = until_us
    assert scene.tick() == until_us + 3600 * SECOND_US
    assert scene.statuses(run_id) == {"a": "running"}
    assert len(scene.of(ev.RunResumed)) == 1


def test_an_agent_whose_checkout_is_ready_after_the_money_was_gone_is_not_started(scene: Agents) -> None:
    """It would make its first call before anybody looked at it; nothing of it counts."""
    run_id = scene.submit(plan=agents_plan(agent("a", max_retries=0), agent("b"), budget=100 * CENT))
    scene.tick()
    attempts = scene.dispatcher.attempts
    attempt_id, launched = scene.attempt("a"), len(scene.runner.launched)
    scene.live[attempt_id] = 100 * CENT
    scene.tick()
    order = SimpleNamespace(run_id=run_id, attempt_id=attempt_id, task_id="a")
    ready = SimpleNamespace(prepared=lambda: [SimpleNamespace(order=order, error=None)], go_on=lambda state: None)
    attempts._go_on_with_files(cast(RunFiles, ready))
    assert len(scene.runner.launched) == launched
    scene.live.clear()
    scene.tick()
    assert [one.kind for one in scene.of(ev.TaskFailed)] == ["budget"]
    assert scene.statuses(run_id)["a"] == "queued"


def test_an_attempt_that_never_began_leaves_the_session_as_it_was(scene: Agents) -> None:
    """Its dispatcher died between the commit and the start; the work of hours is gone on with all the same."""
    scene.submit(plan=agents_plan(agent("a", max_retries=5), retry=RetryPolicy(delay_s=0.0)))
    scene.tick()
    first = scene.attempt("a")
    scene.runner.end("a", error="killed", kind="infrastructure", resumable=True)
    scene.tick()
    scene.runner.end("a", outcome="lost", began=False)
    scene.tick()
    assert [one.resumes for one in scene.of(ev.TaskStarted)] == [None, first, first]
    assert Projector(scene.log).spend() == scene.dispatcher.accounts.spend


def test_a_run_is_not_paused_for_money_while_a_less_urgent_task_of_it_costs_nothing(scene: Agents) -> None:
    """Also where several runs share the slots by priority, and the queue is full of what money holds back."""
    shell = ScriptedRunner("shell")
    scene.dispatcher.runners = {"claude": scene.runner, "shell": shell}
    scene.dispatcher.attempts._runners = scene.dispatcher.runners
    scene.submit(plan=agents_plan(agent("other"), agent("long")))
    scene.tick()
    plan = agents_plan(
        agent("dear", priority="critical"), task("free", priority="low"), budgets={"day_usd_micros": 5 * CENT},
        max_queue_size=1,
    )  # fmt: skip
    scene.runner.end("other", charges=paid(10 * CENT), provider="anthropic", got_through=True)
    run_id = scene.submit(plan=plan)
    scene.tick()
    scene.runner.end("long")
    scene.tick()
    assert scene.state(run_id).pause_code == "budget"
    steer.resume(scene.log, run_id)
    scene.submit(plan=agents_plan(agent("third")))
    scene.tick()
    assert scene.statuses(run_id) == {"dear": "queued", "free": "running"}
    assert scene.state(run_id).status == "running"
    shell.end("free")
    scene.runner.end("third")
    scene.tick()
    assert scene.state(run_id).status == "paused"
