"""Runs of agents as their user sees them: what they cost, what holds them back, and what lets them go on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fakeagent.installing import install
from scratch import NEEDS_A_MISSING_CLIENT, Scratch, in_state
from terminal import quickly_on_terminal

DEAR = "@usage 1000000 20000 0 0"  # On haiku some $0.11 a call.


@pytest.fixture
def agents(cli: Scratch) -> Scratch:
    """A project on a machine that has clients of both kinds, which do what their tasks' descriptions say."""
    folder = install(cli.root / "home" / "bin")
    cli.environment["PATH"] = f"{folder}:{cli.environment['PATH']}"
    return cli


def agent(task_id: str, *steps: str, **fields: Any) -> dict[str, Any]:
    """A task of an agent."""
    description = "\n".join(("Do it.", *(f"@{step}" for step in steps)))
    return {"task_id": task_id, "agent_type": "qa-engineer", "description": description, **fields}


def types(cli: Scratch) -> list[str]:
    """The types of the latest run's events."""
    return [event["type"] for event in cli.quick("history", "--json").lines]


def test_a_run_of_agents_says_who_did_what_on_which_model_and_what_it_cost(agents: Scratch) -> None:
    """All of it by the log: the status, each attempt with its prompt, the history in words, the expected cost of the next."""
    plan = agents.plan(agent("first", "say All good."), agent("second", "say ok", dependencies=["first"]), budget_usd=5)
    foreseen = agents.quick("run", plan, "--dry-run")
    assert "$5.00; enough for what is expected" in foreseen.out
    assert "prior" in foreseen.out
    said = agents.quick("run", plan)
    assert "cost $0.00" in said.out
    assert "of $5.00" in said.out
    found = agents.quick("status", "--json").data
    assert [task["model"] for task in found["tasks"]] == ["haiku", "haiku"]
    assert (found["pause_code"], found["limits"], found["ways_on"], found["unknown_attempts"]) == (None, [], [], 0)
    (budget,) = found["budgets"]
    assert (budget["scope"], budget["spent_usd"], budget["held_usd"]) == ("run", found["cost_usd"], 0.0)
    assert budget["left_usd"] == pytest.approx(5 - found["cost_usd"])
    (attempt,) = agents.quick("show", "first", "--json").data["attempt_list"]
    assert (attempt["runner"], attempt["model"], attempt["model_reason"]) == (
        "claude",
        "haiku",
        "qa-engineer gets haiku",
    )
    assert (attempt["resumes"], attempt["kind"], attempt["output"]) == (None, None, "All good.")
    assert [(one["source"], one["partial"]) for one in attempt["costs"]] == [("agent", False)]
    assert attempt["cost_usd"] + found["tasks"][1]["cost_usd"] == pytest.approx(found["cost_usd"])
    page = agents.quick("show", "first").out
    assert "claude, haiku: qa-engineer gets haiku" in page
    assert "(reported)" in page
    assert re.search(r"session +new", page)
    prompt = agents.quick("show", "second", "--prompt").out
    assert "Do it." in prompt
    assert "All good." in prompt  # What it depends on has left.
    assert "--attempt goes with --prompt" in agents.quick("show", "second", "--attempt", "1", code=2).err
    assert "has no attempt 7" in agents.quick("show", "second", "--prompt", "--attempt", "7", code=3).err
    assert "by claude on haiku (qa-engineer gets haiku)" in agents.quick("history").out
    again = agents.quick("run", plan, "--dry-run", "--json").data
    assert [task["cost_usd"]["basis"] for task in again["tasks"]] == ["task", "task"]


def test_a_spent_budget_pauses_the_run_until_somebody_gives_more(agents: Scratch) -> None:
    """Code 6, of whoever waits. Less than is spent is refused whole; more lets what was cut off go on where it was."""
    steps = [DEAR[1:], "write a.txt x", "say done"]
    plan = agents.plan(agent("dear", *steps), agent("next", "say ok", dependencies=["dear"]), budget_usd=0.05)
    said = agents.quick("run", plan, code=6)
    assert "the budget of the run is spent: $0.11" in said.out
    assert "⛔ the budget of the run is spent" in said.err
    assert [agents.quick(verb, code=6).code for verb in ("wait", "attach")] == [6, 6]
    found = agents.quick("status", "--json").data
    assert (found["status"], found["pause_code"]) == ("paused", "budget")
    (way,) = found["ways_on"]
    assert f"`parallel-agents resume {found['run_id']} --budget 0." in way
    assert way in agents.quick("why", "dear", "--json").data["ways_on"]
    before = agents.event_count()
    refused = agents.quick("resume", "--budget", "0.06", "--json", code=2).complaint
    assert "cannot be $0.0600: $0.11" in refused["message"]
    for wrong in ("much", "-1", "nan"):
        assert "--budget" in agents.quick("resume", "--budget", wrong, code=2).err
    assert "--budget 'x': is no number" in agents.quick("resume", "--budget", "x", code=2).err
    assert "has no task 'nobody'" in agents.quick("resume", "--budget", "9", "--task-budget", "nobody=1", code=3).err
    assert agents.event_count() == before
    assert agents.quick("resume", "--budget", "2", "--json").data["counts"] == {"completed": 2}
    seen = types(agents)
    assert seen[seen.index("BudgetChanged") + 1] == "RunResumed"
    attempts = agents.quick("show", "dear", "--json").data["attempt_list"]
    assert [one["kind"] for one in attempts] == ["budget", None]
    assert attempts[1]["resumes"] == attempts[0]["attempt_id"]
    assert "has ended" in agents.quick("budget", "--budget", "3", code=2).err


def test_a_task_that_has_spent_its_own_budget_needs_a_higher_one(agents: Scratch) -> None:
    """It fails by that, with code 6; to open it again without more money is refused, and says how it is done."""
    plan = agents.plan(agent("dear", DEAR[1:], "write a.txt x", "say done", budget_usd=0.01), agent("other", "say ok"))
    said = agents.quick("run", plan, code=6)
    found = agents.quick("status", "--json").data
    assert in_state(found, "completed") == {"other"}
    command = f"parallel-agents retry {found['run_id']} dear --task-budget dear=0."
    assert command in said.out
    assert command in agents.quick("retry", "--json", code=2).complaint["hint"]
    agents.quick("retry", "latest", "dear", "--task-budget", "dear=1")
    assert types(agents)[-3:] == ["BudgetChanged", "TaskReopened", "RunResumed"]
    assert agents.quick("resume", "--json").data["counts"] == {"completed": 2}


def test_a_run_without_a_key_ends_with_4_and_goes_on_after_a_login(agents: Scratch) -> None:
    """What could not begin counts as no failure; it needs no retries."""
    logged_in = agents.root / "home" / "logged-in"
    plan = agents.plan(agent("a", f"once {logged_in} fail not-logged-in", "say ok"), agent("b", "say ok"))
    said = agents.quick("run", plan, code=4)
    assert "Not logged in" in said.out
    assert "log in, or set the key in the environment, then `parallel-agents resume" in said.out
    assert agents.quick("wait", code=4).code == 4
    assert "log in" in agents.quick("status").out
    assert agents.quick("resume", "--json").data["counts"] == {"completed": 2}


def test_an_account_without_money_ends_a_run_with_6(agents: Scratch) -> None:
    """It is the provider's limit and no budget of ours: what is said is another thing."""
    said = agents.quick("run", agents.plan(agent("a", "fail no-credit")), code=6)
    assert "see to the account's money at its provider" in said.out
    assert agents.quick("status", "--json").data["pause_code"] == "spend_cap"


def test_a_used_up_allowance_is_waited_for_by_all_and_can_be_lifted(agents: Scratch) -> None:
    """One wait for everybody, seen by every verb that tells why, and no failure of the attempt that met it."""
    met = agents.root / "home" / "met"
    plan = agents.plan(
        agent("a", f"once {met} limit 3600", "say ok"), agent("b", "say ok", dependencies=["a"]),
        {"task_id": "c", "command": ["true"]},
    )  # fmt: skip
    assert agents.quick("limits", "--json", code=3).complaint["code"] == "unknown_run"
    running = agents.begin("run", plan, "--json")
    found = agents.until(lambda found: found["limits"] and in_state(found, "completed") == {"c"}, "the limit to be met")
    (limit,) = found["limits"]
    assert (limit["provider"], limit["kind"], limit["stated"]) == ("anthropic", "usage_limit", True)
    assert agents.quick("limits", "--json").data == [limit]
    why = agents.quick("why", "a", "--json").data
    assert (why["code"], why["until"]) == ("provider", limit["until"])
    assert why["settle"] == limit["lift"] == "parallel-agents limits --clear anthropic"
    assert "anthropic lets nobody work" in agents.quick("queue").out
    assert "anthropic lets no agent start until" in agents.quick("status").out
    assert "did you mean 'anthropic'?" in agents.quick("limits", "--clear", "antropic", code=2).err
    assert "⏳ anthropic lets no agent start until" in agents.quick("wait", "--timeout", "0.1", code=6).err
    agents.quick("limits", "--clear", "anthropic", "--reason", "a new plan")
    said = agents.said_by(running)
    assert (said.code, said.data["counts"], said.data["limits"]) == (0, {"completed": 3}, [])
    failed = [
        event["data"] for event in agents.quick("history", "--json").lines if event["type"] == "TaskRetryScheduled"
    ]
    assert [data["failures"] for data in failed] == [0]
    assert "every provider lets agents work" in agents.quick("limits").err


def test_a_budget_can_be_seen_and_changed_while_a_run_goes_on(agents: Scratch) -> None:
    """Of the run and of a task; a fork's own one goes before what was set in its parent."""
    go = agents.root / "home" / "go"
    wait = f"run until [ -e {go} ]; do sleep 0.02; done"
    plan = agents.plan(agent("a", wait, "say ok"), {"task_id": "c", "command": ["true"]}, budget_usd=5)
    running = agents.begin("run", plan, "--json")
    agents.until_running("a")
    agents.quick("budget", "--budget", "7.5", "--task-budget", "a=2")
    found = agents.quick("budget", "--json").data["budgets"]
    assert {one["scope"]: one["budget_usd"] for one in found} == {"task:a": 2.0, "run": 7.5}
    assert "no agent's" in agents.quick("budget", "--task-budget", "c=1", code=2).err
    agents.quick("budget", "--budget", "none")
    assert [one["scope"] for one in agents.quick("budget", "--json").data["budgets"]] == ["task:a"]
    go.touch()
    assert agents.said_by(running).code == 0
    start = next(event["seq"] for event in agents.quick("history", "--json").lines if event["type"] == "TaskStarted")
    agents.quick("fork", "--at", str(start), "--set", "a.budget_usd=3")
    assert [one["budget_usd"] for one in agents.quick("budget", "latest", "--json").data["budgets"]] == [3.0, 5.0]


def test_costs_that_nobody_will_know_are_told_before_and_after(agents: Scratch) -> None:
    """A model without a price, under a budget: the budget counts what was expected, and no sum says so much."""
    plan = agents.plan(agent("a", "say ok", runner="codex", model="gpt-nobody-knows"), budget_usd=5)
    said = agents.quick("run", plan, "--json")
    assert "THE BUDGET CANNOT BE MEASURED for a: the agent codex on gpt-nobody-knows" in said.err
    assert (said.data["cost_usd"], said.data["unknown_attempts"]) == (0.0, 1)
    (budget,) = said.data["budgets"]
    assert budget["spent_usd"] == said.data["assumed_usd"] > 0.1
    assert "at least $0.00, and 1 attempt of unknown cost" in agents.quick("status").out
    assert "unknown for gpt-nobody-knows" in agents.quick("show", "a").out
    assert "CANNOT BE MEASURED" not in agents.quick("run", agents.plan(agent("a", runner="codex")), "--dry-run").err


@NEEDS_A_MISSING_CLIENT
def test_doctor_says_which_agents_could_be_driven(agents: Scratch) -> None:
    """Where they lie, what they tell, and whether they are logged in; what is missing is wrong only where it is meant."""

    def runners(**env: str | None) -> dict[str, dict[str, str]]:
        lines = json.loads(agents.quick("doctor", "--json", env=env, code=None).out)
        return {line["check"]: line for line in lines if line["check"].startswith("runner ")}

    found = runners(ANTHROPIC_API_KEY="dummy")
    assert found["runner claude"]["level"] == "ok"
    for part in ("/claude", "tells cost, tokens, session", "tested by us", "logged in by ANTHROPIC_API_KEY"):
        assert part in found["runner claude"]["detail"]
    assert "no key set" in found["runner codex"]["detail"]
    agents.write("home/.claude/.credentials.json", "{}")
    assert ".credentials.json" in runners()["runner claude"]["detail"]
    missing = runners(PATH="/usr/bin:/bin")["runner claude"]
    assert (missing["level"], runners(PATH="/usr/bin:/bin")["runner codex"]["level"]) == ("warning", "ok")
    assert "not found" in missing["detail"]


def test_somebody_who_watches_sees_that_the_money_is_gone(agents: Scratch) -> None:
    """It stands below the tasks, and what goes on stands at the end."""
    agents.plan(agent("dear", DEAR[1:], "write a.txt x", "say done"), budget_usd=0.05)
    shown = quickly_on_terminal(agents, "run", "plan.json")
    said = "\n".join(shown.screen.lines)
    assert shown.code == 6
    assert "⛔ the budget of the run is spent: $0.11" in said
    assert "again: it reached its limit of dollars" in said
    assert "--budget 0." in said
