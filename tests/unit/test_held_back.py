"""What holds agents back is told as the dispatcher sees it, and lifted by what is named there."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from dispatching import Scene, ScriptedRunner
from paper import SECOND_US, plan_of, task

from parallel_agents import costs, held_back, look, standpoint, steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed, UnknownTask
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.eventstore.submission import PRIORITIES, Plan, Task
from parallel_agents.follow import Follower, exit_code
from parallel_agents.scheduler.runners.protocol import Charge
from parallel_agents.why import why

HOUR_US = 3600 * SECOND_US


def on_our_clock(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene whose dispatcher has a client, and whose clock is everybody's."""
    scene.runner = ScriptedRunner("claude")
    scene.dispatcher = scene.another("run")
    for module in (look, held_back, standpoint):
        monkeypatch.setattr(module, "wall_clock_us", lambda: scene.now_us)
    return scene


@pytest.fixture
def agents(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The same, made for one test."""
    return on_our_clock(scene, monkeypatch)


def agent(task_id: str, *dependencies: str, **fields: Any) -> Task:
    """A task of an agent; expected to cost some cents on haiku."""
    return Task(task_id=task_id, dependencies=dependencies, runner="claude", agent_type="qa-engineer", **fields)


def plan_with(budget_usd: float | None, *tasks: Task, **limits: Any) -> Plan:
    """A plan of agents under a budget."""
    budget = None if budget_usd is None else round(budget_usd * 1e6)
    return plan_of(*tasks, **limits).model_copy(update={"budget_usd_micros": budget})


def paid(usd: float | None) -> tuple[Charge, ...]:
    """What an attempt has cost."""
    micros = None if usd is None else round(usd * 1e6)
    return (Charge("claude-haiku-5-5", micros, "unknown" if micros is None else "agent", calls=1),)


def queued(scene: Scene, run_id: str) -> dict[str, str]:
    """The codes of why the queued tasks of a run wait; ``queue`` must say the same in words."""
    lines = look.queue(scene.log, run_id)
    found = {line["task_id"]: why(scene.log, run_id, line["task_id"]) for line in lines}
    assert {line["task_id"]: line["why"] for line in lines} == {name: one["why"] for name, one in found.items()}
    return {name: one["code"] for name, one in found.items()}


def limited(scene: Scene, name: str, for_us: int = HOUR_US) -> None:
    """The attempt of a task meets the end of its allowance."""
    scene.runner.end(
        name, error="no more until then", kind="usage_limit", provider="anthropic", until_us=scene.now_us + for_us
    )


def test_what_is_left_of_a_budget_is_the_same_on_every_page(agents: Scene) -> None:
    """An unknown cost counts as what was expected, also in what `cost` says is left."""
    run_id = agents.submit(plan=plan_with(0.5, agent("a")))
    agents.tick()
    attempt_id = agents.runner.launched[0].attempt_id
    agents.append(run_id, ev.CostCharged(task_id="a", attempt_id=attempt_id, usd_micros=None, source="unknown"))
    agents.runner.end("a")
    agents.tick()
    found = costs.cost(agents.log, run_id)
    assert found["left_usd"] == found["budgets"][0]["left_usd"] < 0.5


def test_a_completed_run_gets_no_other_budget_and_no_hint_that_fails(agents: Scene) -> None:
    """There is nothing that `retry` could open."""
    run_id = agents.submit(plan=plan_with(0.5, agent("a")))
    agents.tick()
    agents.runner.end("a")
    agents.tick()
    with pytest.raises(NotAllowed, match="it is completed") as refused:
        steer.change_budgets(agents.log, run_id, {"run": 1_000_000})
    assert refused.value.hint == ""


def test_what_is_said_to_be_due_is_what_the_dispatcher_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever limits, money and people do in between."""
    started = 0
    for seed in range(5):
        (tmp_path / str(seed)).mkdir()
        scene = on_our_clock(Scene(tmp_path / str(seed)), monkeypatch)
        started += _story(scene, Random(seed), f"seed {seed}")
        scene.log.close()
    assert started > 5


def _story(scene: Scene, random: Random, what: str) -> int:
    """One run with chance as its user; gives how many starts were foretold."""
    started = 0
    tasks = [agent(f"t{number}", priority=random.choice(PRIORITIES)) for number in range(6)]
    run_id = scene.submit(plan=plan_with(random.choice((None, 0.1, 0.5)), *tasks, max_parallel_agents=3))
    scene.tick()
    for _ in range(12):
        for task_id in [
            one["task_id"] for one in look.status(scene.log, run_id)["tasks"] if one["status"] == "running"
        ]:
            _maybe_end(scene, random, task_id)
        scene.tick()
        scene.now_us += random.randrange(0, 8) * SECOND_US
        status = look.status(scene.log, run_id)["status"]
        what_now = random.randrange(3)
        changes = {"run": random.choice((5_000_000, None))}
        if what_now == 0 and status == "paused":
            steer.resume(scene.log, run_id, "", changes)
        elif what_now == 0 and status == "running":
            steer.change_budgets(scene.log, run_id, changes)
        elif what_now == 1 and held_back.limits(scene.log):
            held_back.lift(scene.log, "anthropic")
        if look.status(scene.log, run_id)["status"] != "running":
            continue
        due = sorted(name for name, code in queued(scene, run_id).items() if code == "due")
        before = len(scene.runner.launched)
        scene.tick()
        begun = sorted(launch.task_id for launch in scene.runner.launched[before:])
        assert begun == due, what
        started += len(begun)
    return started


def _maybe_end(scene: Scene, random: Random, task_id: str) -> None:
    ends = random.choice(("", "", "", "well", "well", "limit", "agent", "dear"))
    if ends == "limit":
        limited(scene, task_id, random.randrange(1, 5) * SECOND_US)
    elif ends:
        usd = 0.2 if ends == "dear" else random.choice((0.01, None))
        fields = {"error": "wrong", "kind": "agent"} if ends == "agent" else {}
        scene.runner.end(task_id, charges=paid(usd), provider="anthropic", got_through=True, **fields)


def test_a_provider_that_lets_nobody_work_is_told_until_somebody_lifts_it(agents: Scene) -> None:
    """With until when, and the command; in the past as it was then."""
    run_id = agents.submit(agent("a"), agent("b"), max_parallel_agents=1)
    agents.tick()
    limited(agents, "a")
    agents.tick()
    until = rfc3339(agents.now_us + HOUR_US)
    (limit,) = look.status(agents.log, run_id)["limits"]
    assert (limit["provider"], limit["until"], limit["stated"], limit["kind"]) == (
        "anthropic",
        until,
        True,
        "usage_limit",
    )
    found = why(agents.log, run_id, "b")
    assert (found["code"], found["until"], found["settle"]) == ("provider", until, limit["lift"])
    met = next(row.seq for row in agents.log.rows(0, agents.log.last_seq()) if row.type == "ProviderLimited")
    assert look.status(agents.log, run_id, met - 1)["limits"] == []
    assert held_back.limits(agents.log, met) == [limit]
    with pytest.raises(NotAllowed, match="nobody waits for the provider or runner 'openai'"):
        held_back.lift(agents.log, "openai")
    held_back.lift(agents.log, "anthropic", "bought more")
    assert look.status(agents.log, run_id)["limits"] == held_back.limits(agents.log) == []
    with pytest.raises(NotAllowed):
        held_back.lift(agents.log, "anthropic")
    agents.tick()
    assert agents.runner.tasks() == ["a", "a"]


def test_a_wait_ends_by_itself_when_its_time_is_over(agents: Scene) -> None:
    """Nothing needs to be appended for that."""
    run_id = agents.submit(agent("a"), max_parallel_agents=1)
    agents.tick()
    limited(agents, "a", 2 * SECOND_US)
    agents.tick()
    assert queued(agents, run_id) == {"a": "provider"}
    agents.now_us += 2 * SECOND_US
    assert (queued(agents, run_id), held_back.limits(agents.log)) == ({"a": "due"}, [])


def test_other_budgets_are_set_whole_or_not_at_all(agents: Scene) -> None:
    """What is refused leaves no event; what is set goes with the resume, and is what the run keeps to."""
    run_id = agents.submit(plan=plan_with(0.05, agent("a", budget_usd_micros=40_000), agent("b", "a"), task("c")))
    agents.tick()
    agents.runner.end("a", charges=paid(0.06))
    agents.tick()
    assert look.status(agents.log, run_id)["pause_code"] == "budget"
    end = agents.log.last_seq()
    refused: list[tuple[dict[str, int | None], type[Exception], str]] = [
        ({"run": 60_000}, NotAllowed, "the budget of the run cannot be"),
        ({"run": 90_000, "task:a": 50_000}, NotAllowed, "the budget of task a cannot be"),
        ({"run": 90_000, "task:z": 50_000}, UnknownTask, "has no task 'z'"),
        ({"run": 90_000, "task:c": 50_000}, NotAllowed, "is no agent's"),
    ]
    for changes, kind, message in refused:
        with pytest.raises(kind, match=message):
            steer.resume(agents.log, run_id, "", changes)
        with pytest.raises(kind, match=message):
            steer.change_budgets(agents.log, run_id, changes)
    assert agents.log.last_seq() == end
    steer.resume(agents.log, run_id, "more", {"run": 90_000, "task:b": 20_000})
    assert [row.type for row in agents.log.rows(end, end + 9)] == ["BudgetChanged", "BudgetChanged", "RunResumed"]
    found = {one["scope"]: one["budget_usd"] for one in look.status(agents.log, run_id)["budgets"]}
    assert found == {"task:a": 0.04, "task:b": 0.02, "run": 0.09}
    with pytest.raises(NotAllowed, match="is not paused"):
        steer.resume(agents.log, run_id, "", {"run": 200_000})


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({"error": "x", "kind": "authentication"}, 4),
        ({"error": "x", "kind": "spend_cap"}, 6),
        ({"charges": paid(9.0)}, 6),
        ({"error": "x", "kind": "agent", "retryable": False}, 1),
        ({}, 0),
    ],
)
def test_who_waits_for_a_run_of_agents_learns_why_it_stands_by_a_code(agents: Scene, ends: Any, code: int) -> None:
    """4 where a key is missing, 6 where money is; what only failed is 1."""
    run_id = agents.submit(plan=plan_with(0.5, agent("a"), agent("b", "a")))
    agents.tick()
    agents.runner.end("a", **ends)
    agents.tick()
    if code == 0:
        agents.runner.end("b")
        agents.tick()
    follower = Follower(agents.log, run_id)
    assert follower.settled
    assert exit_code(follower.state) == code
    ways = held_back.what_it_needs(agents.log, follower.state)
    assert bool(ways) == (code in (4, 6))
    assert all(run_id in way for way in ways)


def test_a_run_that_was_cancelled_for_want_of_money_is_just_cancelled(agents: Scene) -> None:
    """What it was paused for is over with it."""
    run_id = agents.submit(plan=plan_with(0.5, agent("a"), agent("b", "a")))
    agents.tick()
    agents.runner.end("a", charges=paid(9.0))
    agents.tick()
    steer.cancel(agents.log, run_id)
    agents.tick()
    found = look.status(agents.log, run_id)
    assert (found["status"], found["pause_code"], found["ways_on"]) == ("cancelled", None, [])
    assert exit_code(Follower(agents.log, run_id).state) == 1


def test_a_pause_by_a_person_waits_for_one(agents: Scene) -> None:
    """Code 5, with nothing said about money."""
    run_id = agents.submit(agent("a"))
    steer.pause(agents.log, run_id)
    follower = Follower(agents.log, run_id)
    assert (exit_code(follower.state), held_back.what_it_needs(agents.log, follower.state)) == (5, [])


def test_runs_without_agents_are_not_asked_for_their_money(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's spending takes time to read, and nothing of it concerns them."""

    def refuse(*_: Any) -> None:
        raise AssertionError("nobody should read this")

    run_id = scene.submit(task("a"), task("b", "a"))
    scene.tick()
    monkeypatch.setattr("parallel_agents.projections.projector.Projector.spend", refuse)
    assert look.status(scene.log, run_id)["budgets"] == []
    assert why(scene.log, run_id, "b")["code"] == "dependencies"
    assert look.queue(scene.log, run_id) == []


def test_an_unknown_cost_is_counted_by_budgets_as_what_was_held_back(agents: Scene) -> None:
    """A charge of unknown cost counts in budgets as what was held back for it, and in no sum of money."""
    run_id = agents.submit(plan=plan_with(5.0, agent("a")))
    agents.tick()
    held = look.status(agents.log, run_id)["budgets"][0]["held_usd"]
    assert held > 0
    agents.runner.end("a", charges=paid(None))
    agents.tick()
    found = look.status(agents.log, run_id)
    assert (found["cost_usd"], found["unknown_attempts"], found["assumed_usd"]) == (0.0, 1, held)
    assert found["budgets"][0]["spent_usd"] == held
