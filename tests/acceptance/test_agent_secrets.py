"""Keys that an agent has, is told, prints or fails with are found nowhere afterwards: every file of the store is looked into."""

from __future__ import annotations

import json
from pathlib import Path

from fakeagent.installing import install
from scratch import Scratch

KEY = "-".join(("sk", "ant", "api03", "canaryofthekey0123456789"))
TOKEN = '"'.join(("canary", "of/the\\service", "0123456789"))  # It looks like no key, and JSON writes it otherwise.
SIGNS = ("canaryofthekey", "canary" + '"', "canary" + '\\"', "of/the")


def left_in(folder: Path) -> list[str]:
    """The files below a folder that hold a piece of one of them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(sign.encode() in path.read_bytes() for sign in SIGNS)]


def test_no_key_of_an_agent_is_found_anywhere(cli: Scratch, tmp_path: Path) -> None:
    """In no file of the store, its log ahead included, nor in what the commands print."""
    cli.environment |= {
        "PATH": f"{install(tmp_path / 'programs')}:{cli.environment['PATH']}",
        "ANTHROPIC_API_KEY": KEY,
        "SERVICE_TOKEN": TOKEN,
    }
    script = tmp_path / "script.json"
    tell = ['run echo "$ANTHROPIC_API_KEY $SERVICE_TOKEN"', 'run echo "$SERVICE_TOKEN" >&2']
    script.write_text(
        json.dumps(
            {
                "Do second": [f"prompt {tmp_path / 'prompt'}", f"stderr {TOKEN} {KEY}", *tell, "exit 3"],
                "Do third": [*tell, "die 9"],
                "Do first": [*tell, f"say The keys are {KEY} and {TOKEN}."],
            }
        )
    )
    tasks = [
        {"task_id": "first", "description": "Do first."},
        {"task_id": "second", "description": "Do second.", "dependencies": ["first"], "allow_failure": True},
        {"task_id": "third", "description": "Do third.", "allow_failure": True},
    ]
    defaults = {
        "agent_type": "backend-engineer", "env": {"FAKE_AGENT_SCRIPT": str(script)}, "env_from": ["SERVICE_TOKEN"],
    }  # fmt: skip
    plan = cli.plan(*tasks, defaults=defaults)
    cli.quick("daemon", "start")
    run = cli.quick("run", plan, "--detach", "--json").data["run_id"]
    cli.quick("wait", run, code=None)
    assert cli.store.with_name("events.db-wal").stat().st_size > 0
    folder = cli.store.parent
    told = (tmp_path / "prompt").read_text()
    assert "The keys are [redacted] and [redacted]." in told
    assert left_in(folder) == []
    for name in ("stdout.log", "stderr.log", "prompt.md", "stdin", "session.json", "exit.json"):
        assert list((folder / "runs").rglob(name)), name
    assert list((folder / "clients").rglob("*.json")), "sessions of the client"
    assert folder.joinpath("events.daemon.log").exists()
    said = {
        words: cli.quick(*words)
        for words in (
            ("history", run, "--json"),
            ("status", run, "--json"),
            ("status", run),
            ("cost", run, "--json"),
            *(("logs", run, name) for name in ("first", "second", "third")),
            *(("show", run, name, "--json") for name in ("first", "second", "third")),
        )
    }
    assert [words for words, one in said.items() if any(sign in one.out + one.err for sign in SIGNS)] == []
    shown = "The keys are [redacted] and [redacted]."
    assert [shown in said[words].out for words in (("logs", run, "first"), ("show", run, "first", "--json"))] == [
        True,
        True,
    ]
    cli.quick("daemon", "stop")
