"""Agents in a Python program: what they cost stands in the result, and no wait is for ever where money or a key is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakeagent.installing import install

from parallel_agents import AgentTask, ParallelExecutionResult, ParallelExecutor
from parallel_agents.eventstore.errors import InvalidPlan

Run = Callable[..., ParallelExecutionResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs tasks in a project of its own, on a machine with clients that do what descriptions say."""
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{install(tmp_path / 'bin')}:/usr/bin:/bin")
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "FAKE_AGENT"):
        monkeypatch.delenv(name, raising=False)

    def execute(*tasks: AgentTask) -> ParallelExecutionResult:
        with ParallelExecutor(project_root=project, runner="claude") as executor:
            return executor.execute_parallel(tasks)

    return execute


def agent(task_id: str, *steps: str, **fields: Any) -> AgentTask:
    """A task of an agent that does these steps."""
    return AgentTask("qa-engineer", task_id, "\n".join(f"@{step}" for step in steps), **fields)


def test_the_result_of_agents_tells_their_money_and_their_calls(run: Run) -> None:
    """The sum of what each was charged with; what was printed by the client is counted, and its words are the output."""
    task = agent("a", "write a.txt x", "say done")
    result = run(task, agent("b", "say ok"))
    assert result.success
    assert (task.output, task.api_calls) == ("done", 2)
    assert result.total_api_calls == 3
    assert result.total_cost_usd == pytest.approx(0.00045)  # Three calls of the fake agent on haiku.
    assert [text for text in result.warnings if "cost" in text] == []


def test_costs_that_nobody_knows_are_a_warning(run: Run) -> None:
    """Then the sum is a lower bound."""
    result = run(agent("a", "say ok", runner="codex", model="gpt-nobody-knows"))
    assert (result.success, result.total_cost_usd) == (True, 0.0)
    assert "total_cost_usd is at least that much: nobody knows what 1 attempt cost" in result.warnings


def test_a_context_that_is_told_in_part_is_warned_of(run: Run) -> None:
    """The rest of the task is told all the same."""
    result = run(agent("a", "say ok", context={"x": "y" * 40_000}), agent("b", "say ok", context={"x": "y" * 9_000}))
    told = [text for text in result.warnings if "context" in text]
    assert told == ["the context of task 'a' has 40,013 bytes; its agent is told 40,000 of them"]


def test_names_that_are_nearly_ours_are_warned_of(run: Run, tmp_path: Path) -> None:
    """They are taken as they are, since a client may know a model of that name."""
    (tmp_path / "project" / "parallel-agents.toml").write_text(
        '[agents]\nfailover = ["codx", "opus"]\nmodel_of = {"qa-enginer" = "haiku", reviewer = "sonnt"}\n'
    )
    result = run(agent("a", "say ok", model="opusss"), agent("b", "say ok", model="claude-opus-5-5"))
    assert [text for text in result.warnings if "taken as it is" in text] == [
        "task 'a' names 'opusss', which is taken as it is. did you mean 'opus'?",
        "agents.modelOf.reviewer names 'sonnt', which is taken as it is. did you mean 'sonnet'?",
        "agents.failover names 'codx', which is taken as it is. did you mean 'codex'?",
        "agents.modelOf names 'qa-enginer', which is taken as it is. did you mean 'qa-engineer'?",
    ]


def test_a_description_reaches_its_agent_whole_or_the_plan_is_refused(run: Run, tmp_path: Path) -> None:
    """Nothing is cut of what was asked for, at whatever length."""
    task = agent("a", "prompt told.txt", "say done")
    task.description += "\n" + "ä" * 100_000 + " the end of it"
    assert run(task).success
    told = next((tmp_path / "project").rglob("prompt.md")).read_text()
    assert task.description in told
    for runner, most in (("claude", "400,000"), ("gemini", "60,000")):
        with pytest.raises(
            InvalidPlan, match=f"task 'b': its description has .* bytes, and its agent is told {most} at most"
        ):
            run(AgentTask("qa-engineer", "b", "ä" * 200_001, runner=runner))


def test_a_program_is_told_what_a_run_without_a_key_needs(run: Run) -> None:
    """It returns as soon as nothing runs, and the run can be gone on with from the command line."""
    result = run(agent("a", "fail not-logged-in"))
    assert (result.success, result.completed_tasks) == (False, 0)
    assert any(text.startswith("the run is paused: a: its agent cannot authenticate") for text in result.errors)
    assert any(f"`parallel-agents resume {result.run_id}`" in text for text in result.errors)


def test_a_program_is_told_what_a_spent_budget_needs(run: Run) -> None:
    """Of a task; the command that goes on is in the errors."""
    result = run(agent("a", "usage 1000000 20000 0 0", "write a.txt x", "say ok", budget_usd=0.01))
    assert not result.success
    assert any(f"retry {result.run_id} a --task-budget a=0." in text for text in result.errors), result.errors
    assert result.total_cost_usd == pytest.approx(0.11, abs=0.01)


def test_a_program_that_waits_for_a_provider_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until when, and what lifts it; then it goes on by itself."""
    result = run(agent("a", f"once {tmp_path / 'met'} limit 2", "say ok"))
    assert result.success
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("⏳")]
    assert len(said) == 1
    assert "anthropic lets no agent start until " in said[0]
    assert "`parallel-agents limits --clear anthropic` lifts that" in said[0]
