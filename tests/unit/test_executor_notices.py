"""A program sees the notifications that users know, on stderr, and can switch them off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallel_agents import AgentTask, ParallelExecutor


def run(folder: Path, configuration: dict[str, Any]) -> None:
    """Two calls, the second of which fails."""

    def broken() -> None:
        raise ValueError("Test failed")

    file = folder / "configuration.json"
    file.write_text(json.dumps({"retryPolicy": {"enabled": False}, **configuration}))
    tasks = [
        AgentTask("backend-engineer", "api", "Implement", call=lambda: 1),
        AgentTask("qa-engineer", "qa", "Test", dependencies=["api"], call=broken),
    ]
    with ParallelExecutor(config_path=file, project_root=folder, store=folder / "events.db") as executor:
        executor.execute_parallel(tasks)


def test_notifications_go_to_stderr_as_they_happen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, and nothing goes to stdout, which is the program's own."""
    run(tmp_path, {})
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(": ", 1)[0] for line in said.err.splitlines()] == [
        "🚀 Parallel execution started",
        "▶️ Agent started",
        "✅ Agent completed",
        "▶️ Agent started",
        "❌ Agent failed",
        "🎉 Parallel execution completed",
    ]
    assert "❌ Agent failed: qa-engineer - ValueError: Test failed" in said.err


def test_a_configuration_without_progress_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``on_event`` is there for those who want to say it in their own way."""
    run(tmp_path, {"monitoring": {"realTimeProgress": False}})
    assert capsys.readouterr().err == ""


def test_the_traceback_of_a_call_lies_with_its_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the store, where ``logs`` looks for it; nothing of it comes to wherever the program happens to be."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    run(tmp_path, {})
    (left,) = tmp_path.rglob("stderr.log")
    assert left.parent.parent.name == "qa"
    assert "ValueError: Test failed" in left.read_text()
    assert not list(here.iterdir())
