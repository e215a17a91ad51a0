"""A conflict that an agent resolves: what it finds in its checkout, what becomes of what it leaves, and when it is a person's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakeagent.installing import install
from scratch import Scratch
from versioned import git, versioned

SEEN = "home/seen"
CONFIG = {"conflictResolution": {"strategy": "agent"}, "execution": {"retryPolicy": {"maxRetries": 1, "retryDelay": 0}}}


def clashing(cli: Scratch, *resolver: str, **config: Any) -> str:
    """Two agents that change the same line, the second one after the first one was merged; gives the plan's name."""
    versioned(cli, {"f.txt": "one\ntwo\nthree\n"})
    install(cli.root / "home" / "bin")
    merged = "until git rev-parse -q --verify parallel-agents/$PARALLEL_AGENTS_RUN:a.txt; do sleep 0.02; done"
    script = {
        "Resolve a merge conflict": [f"run cp f.txt {cli.root / SEEN}", *resolver],
        "Make it A": ["run printf 'one\\nA\\nthree\\n' > f.txt; touch a.txt", "say I made it A."],
        "Make it B": [f"run {merged}; printf 'one\\nB\\nthree\\n' > f.txt", "say I made it B."],
    }
    cli.write("home/script.json", json.dumps(script))
    cli.environment["PATH"] = f"{cli.root / 'home' / 'bin'}:{cli.environment['PATH']}"
    cli.environment["ANTHROPIC_API_KEY"] = "-".join(("key", "of", "nobody"))
    cli.write("config.json", json.dumps({**CONFIG, **config}))
    env = {"FAKE_AGENT_SCRIPT": str(cli.root / "home/script.json")}
    tasks = [
        {"task_id": name.lower(), "agent_type": "backend-engineer", "description": f"Make it {name}", "env": env}
        for name in ("A", "B")
    ]
    cli.write("plan.json", json.dumps({"name": "clash", "tasks": tasks}))
    return "plan.json"


def test_an_agent_resolves_a_conflict_in_a_checkout_of_its_own(cli: Scratch) -> None:
    """It finds the merge with its markers, both sides' words, and what it leaves is the merge."""
    plan = clashing(cli, "run printf 'one\\nAB\\nthree\\n' > f.txt", "say I kept both.")
    cli.quick("run", plan, "--config", "config.json")
    seen = Path(cli.root, SEEN).read_text()
    assert [line.split()[0] for line in seen.splitlines()] == [
        "one",
        "<<<<<<<",
        "A",
        "=======",
        "B",
        ">>>>>>>",
        "three",
    ]
    status = cli.quick("status", "--json").data
    run, task = status["run_id"], status["tasks"][1]
    assert (task["status"], task["attempts"], task["model"]) == ("completed", 2, "opus")
    assert git(cli, "show", f"parallel-agents/{run}:f.txt") == "one\nAB\nthree"
    events = cli.quick("history", "--json").lines
    settled = [event["data"] for event in events if event["type"] == "ConflictResolved"]
    assert [(one["how"], one["paths"]) for one in settled] == [("agent", ["f.txt"])]
    started = [event["data"] for event in events if event["type"] == "TaskStarted"]
    assert [one["role"] for one in started] == ["", "", "merge-engineer"]
    prompts = [path.read_text() for path in (cli.root / ".parallel-agents/runs" / run / "b").glob("*/prompt.md")]
    resolving = next(text for text in prompts if text.startswith("# Resolve a merge conflict"))
    assert "I made it A." in resolving
    assert "I made it B." in resolving
    assert cli.quick("logs", run, "b").out.endswith("I kept both.\n")  # Told in words; the file is for programs.
    assert json.loads(cli.quick("logs", run, "b", "--raw").out.splitlines()[0])["type"] == "system"
    log = git(cli, "log", "--format=%s", f"parallel-agents/{run}").splitlines()
    assert "Merge b, with conflicts" in log  # Both works are among its ancestors.


def test_an_agent_resolves_what_two_commands_have_done(cli: Scratch) -> None:
    """They need no agent themselves."""
    clashing(cli, "run printf 'one\\nAB\\nthree\\n' > f.txt", "say I kept both.")
    merged = "until git rev-parse -q --verify parallel-agents/$PARALLEL_AGENTS_RUN:a.txt; do sleep 0.02; done"
    env = {"FAKE_AGENT_SCRIPT": str(cli.root / "home/script.json")}
    commands = {
        "a": "printf 'one\\nA\\nthree\\n' > f.txt; touch a.txt",
        "b": f"{merged}; printf 'one\\nB\\nthree\\n' > f.txt",
    }
    tasks = [{"task_id": name, "command": ["sh", "-c", line], "env": env} for name, line in commands.items()]
    cli.write("plan.json", json.dumps({"name": "clash", "tasks": tasks}))
    cli.quick("run", "plan.json", "--config", "config.json")
    run = cli.quick("status", "--json").data["run_id"]
    assert git(cli, "show", f"parallel-agents/{run}:f.txt") == "one\nAB\nthree"
    started = [event["data"] for event in cli.quick("history", "--json").lines if event["type"] == "TaskStarted"]
    assert [(one["runner"], one["role"]) for one in started] == [
        ("shell", ""), ("shell", ""), ("claude", "merge-engineer"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "resolver",
    [
        pytest.param(["say It is beyond me."], id="leaves markers"),
        pytest.param(["exit 3"], id="fails", marks=pytest.mark.slow),
    ],
)
def test_a_conflict_that_no_agent_resolves_waits_for_a_person(cli: Scratch, resolver: list[str]) -> None:
    """With the work as it was before, so that `resolve` can take a side."""
    plan = clashing(cli, *resolver)
    cli.quick("run", plan, "--config", "config.json", code=5)
    status = cli.quick("status", "--json").data
    task = status["tasks"][1]
    assert task["status"] == "blocked"
    assert "f.txt" in task["reason"]
    assert "merge-engineer did not" in task["reason"]
    cli.quick("resolve", status["run_id"], "b", "--take", "theirs")
    cli.quick("resume", status["run_id"])
    assert git(cli, "show", f"parallel-agents/{status['run_id']}:f.txt") == "one\nB\nthree"
