"""An attempt that looks stuck, as its user sees it; and that a time which is up ends it, whoever dispatches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fakeagent.installing import install
from scratch import Scratch, wait_until

OFTEN = "[safety_features]\nhealth_check_interval = 0.1\nstuck_after = 1\n"


def types(cli: Scratch) -> list[str]:
    """The types of the latest run's events about the health of attempts."""
    return [event["type"] for event in cli.quick("history", "--json").lines if event["type"].startswith("Attempt")]


def stuck(cli: Scratch) -> Any:
    """What the status says of the one task."""
    if not cli.store.exists():
        return None
    said = cli.quick("status", "--json", code=None)
    return said.data["tasks"][0]["stuck"] if said.code == 0 else None  # The store is there a moment before its run.


def test_a_silent_command_is_named_with_its_last_words_until_it_goes_on(cli: Scratch, tmp_path: Path) -> None:
    """In the status, in ``why``, in the history and to whoever waits; nothing is ended by that."""
    cli.write("parallel-agents.toml", OFTEN)
    first, second = tmp_path / "first", tmp_path / "second"
    waits = "until [ -e {file} ]; do read -t 0.2 nothing <> {pipe} || :; done"  # Without a process, or CPU to speak of.
    pipe = tmp_path / "pipe"
    script = "; ".join(
        (f"mkfifo {pipe}", "echo waiting for a lock", waits.format(file=first, pipe=pipe), "echo got it",
         waits.format(file=second, pipe=pipe), "echo done")
    )  # fmt: skip
    run = cli.begin("run", cli.plan({"task_id": "quiet", "command": ["bash", "-c", script]}))
    told = wait_until(cli.sparing(lambda: stuck(cli)), "it to be named")
    assert (told["kind"], told["last_output"]) == ("silent", "waiting for a lock")
    assert "looks stuck: it has printed nothing and used no CPU" in cli.quick("status").out
    assert "its last words: waiting for a lock" in cli.quick("why", "quiet").out
    assert "its last words: waiting for a lock" in cli.quick("history").out
    first.touch()
    wait_until(cli.sparing(lambda: types(cli)[:2] == ["AttemptStuck", "AttemptRevived"]), "it to go on")
    second.touch()
    said = cli.said_by(run)
    assert said.code == 0
    assert "quiet looks stuck: it has printed nothing" in said.err
    assert cli.quick("status", "--json").data["tasks"][0]["stuck"] is None
    assert stuck(cli) is None


def test_an_agent_that_hangs_is_named_with_what_it_said_last(cli: Scratch) -> None:
    """Its silence ends it later, as ever; here a person does."""
    folder = install(cli.root / "home" / "bin")
    cli.environment["PATH"] = f"{folder}:{cli.environment['PATH']}"
    cli.write("parallel-agents.toml", OFTEN)
    task = {"task_id": "agent", "agent_type": "qa-engineer", "description": "Do it.\n@say I look around.\n@hang"}
    run = cli.begin("run", cli.plan(task))
    told = wait_until(cli.sparing(lambda: stuck(cli)), "it to be named")
    assert told["kind"] == "silent"
    assert "{" not in told["last_output"]
    cli.quick("cancel", "latest", "--yes")
    assert cli.said_by(run).code != 0


def test_a_checkout_that_is_gone_is_named(cli: Scratch, tmp_path: Path) -> None:
    """Whatever removed it: what the attempt writes from then on is lost."""
    cli.write("parallel-agents.toml", OFTEN)
    place, go = tmp_path / "place", tmp_path / "go"
    place.mkdir()
    script = f"cd {place}; until [ -e {go} ]; do echo working; sleep 0.05; done"
    run = cli.begin("run", cli.plan({"task_id": "homeless", "command": ["sh", "-c", script]}))
    wait_until(lambda: cli.store.exists() and cli.quick("logs", "homeless", code=None).out, "it to begin")
    shutil.rmtree(place)
    told = wait_until(cli.sparing(lambda: stuck(cli)), "it to be named")
    assert told["kind"] == "checkout"
    go.touch()
    cli.said_by(run)


def test_nobody_is_named_where_health_checks_are_off(cli: Scratch) -> None:
    """A run that was silent all the time."""
    cli.write("parallel-agents.toml", OFTEN + "health_checks = false\n")
    cli.quick("run", cli.plan({"task_id": "quiet", "command": ["sleep", "2"]}))
    assert types(cli) == []
