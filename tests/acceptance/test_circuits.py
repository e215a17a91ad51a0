"""A client that breaks in the middle of a run: what a user sees, and that nothing is lost once it is mended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fakeagent.installing import install
from scratch import NEEDS_A_MISSING_CLIENT, Scratch, wait_until

AT_ONCE = "[execution.retry_policy]\nretry_delay = 0\n"


@pytest.fixture
def client(cli: Scratch) -> Path:
    """The program of a client that a test can break and mend."""
    folder = install(cli.root / "home" / "bin")
    cli.environment["PATH"] = f"{folder}:{cli.environment['PATH']}"
    cli.write(
        "parallel-agents.toml",
        "[safety_features.circuit_breaker]\nreset_timeout = 1\n" + AT_ONCE,
    )
    return Path(folder) / "claude"


def agent(task_id: str, *steps: str, **fields: Any) -> dict[str, Any]:
    """A task of an agent."""
    description = "\n".join(("Do it.", *(f"@{step}" for step in steps)))
    return {"task_id": task_id, "agent_type": "qa-engineer", "description": description, **fields}


def opened(cli: Scratch) -> list[dict[str, Any]]:
    """What was told of circuits that opened."""
    events = cli.quick("history", "--all", "--type", "CircuitOpened", "--json").lines
    return [event["data"] for event in events]


@pytest.mark.parametrize(
    ("way", "words"),
    [
        pytest.param("rm {client}", "no such command: 'claude'", id="removed", marks=NEEDS_A_MISSING_CLIENT),
        pytest.param(r"printf '#!/bin/sh\nexit 1\n' > {client}", "exit code 1", id="silent", marks=pytest.mark.slow),
        pytest.param(
            r"printf '#!/bin/sh\necho cannot load its libraries >&2; exit 127\n' > {client}",
            "cannot load its libraries",
            id="complaining",
        ),
    ],
)
def test_a_run_waits_for_a_client_that_is_gone_and_goes_on_when_it_is_back(
    cli: Scratch, client: Path, way: str, words: str
) -> None:
    """All that was to be started meanwhile is started then, and nothing has failed for good."""
    whole = client.read_bytes()
    rest = [agent(f"t{number}", "say ok", dependencies=["first"], max_retries=2) for number in range(4)]
    first = agent("first", f"run {way.format(client=client)}", "say ok")
    run = cli.begin("run", cli.plan(first, *rest))
    wait_until(cli.sparing(lambda: cli.store.exists() and opened(cli)), "the circuit to open")
    assert words in opened(cli)[0]["reason"]
    assert opened(cli)[0]["failures"] == 3
    found = cli.until(lambda found: found["limits"], "the limit to be told")  # But for the moments in which one tries.
    assert [one["runner"] for one in found["limits"]] == ["claude"]
    wait_until(lambda: "runner claude starts nothing" in cli.quick("status").out, "the status to say so")
    wait_until(lambda: re.search(r"failed \d+ times in a row", cli.quick("limits").out), "the count of failures")
    assert {line["why"].split(":")[0].split(" until ")[0] for line in cli.quick("queue", "--json").data} <= {
        "the circuit of runner claude is open",
        "runner claude is tried by one attempt first",
    }
    client.write_bytes(whole)
    client.chmod(0o755)
    said = cli.said_by(run)
    assert said.code == 0, said
    assert "runner claude starts nothing" in said.err
    found = cli.quick("status", "--json").data
    assert (found["counts"], found["limits"]) == ({"completed": 5}, [])
    types = [event["type"] for event in cli.quick("history", "--all", "--json").lines]
    assert types.index("CircuitOpened") < types.index("CircuitHalfOpened") < types.index("CircuitClosed")
    assert "circuits" in cli.quick("doctor").out


@NEEDS_A_MISSING_CLIENT
def test_doctor_names_a_broken_runner_and_a_person_can_clear_it(cli: Scratch, client: Path) -> None:
    """The daemon is not needed for that; whoever dispatches next starts at once."""
    rest = [agent(f"t{number}", "say ok", dependencies=["first"]) for number in range(3)]
    cli.write("parallel-agents.toml", "[safety_features.circuit_breaker]\nreset_timeout = 900\n" + AT_ONCE)
    whole = client.read_bytes()
    run = cli.begin("run", cli.plan(agent("first", f"run rm {client}", "say ok"), *rest, defaults={"max_retries": 3}))
    wait_until(cli.sparing(lambda: cli.store.exists() and opened(cli)), "the circuit to open")
    assert "circuit claude" in cli.quick("doctor").out
    assert cli.quick("why", "t0", "--json").data["settle"] == "parallel-agents limits --clear claude"
    client.write_bytes(whole)
    client.chmod(0o755)
    assert "start" in cli.quick("limits", "--clear", "claude").out
    assert cli.said_by(run).code == 0
