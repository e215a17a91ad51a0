"""The live view: what it shows where the terminal is narrow."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from paper import PaperRun, plan_of, task
from rich.console import Console

from parallel_agents.cli.live import LiveView
from parallel_agents.eventstore import events as ev

AGENT = "software-architect"


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_last_words_are_cut_and_never_what_they_belong_to(width: int) -> None:
    """Sign, task and time stand in every line, however much a task had to say."""
    run = PaperRun(plan_of(task("architecture", agent_type=AGENT), task("checks", "architecture", agent_type=AGENT)))
    run.add(
        ev.TaskQueued(task_id="architecture"),
        ev.TaskStarted(task_id="architecture", attempt_id="a1", attempt=1, runner="shell"),
        ev.TaskCompleted(task_id="architecture", attempt_id="a1", duration_s=12.3, exit_code=0, output="word " * 60),
    )
    paper = io.StringIO()
    console = Console(file=paper, width=width, height=20)
    console.print(LiveView(None, SimpleNamespace(state=run.state), interval_s=1.0))
    lines = paper.getvalue().splitlines()
    (completed,) = (line for line in lines if "12.3 s" in line)
    assert re.match(r"✓ +architecture +software-", completed)
    assert completed.rstrip().endswith("…")
    assert any(re.match(r"· +checks +software-architect +after arch", line) for line in lines)
    assert max(map(len, lines)) <= width


def test_starts_that_wait_for_the_machine_are_in_sight_while_they_wait() -> None:
    """And how wide the pool is, where it is narrower than it may be."""
    limits = {"max_parallel_agents": 5, "min_workers": 2, "auto_scale": True}
    run = PaperRun(plan_of(task("a"), task("b"), **limits), ev.DispatchThrottled(reason="they are at 97 %", code="cpu"))

    def shown() -> str:
        paper = io.StringIO()
        view = LiveView(None, SimpleNamespace(state=run.state), interval_s=1.0)
        Console(file=paper, width=100, height=20).print(view)
        return paper.getvalue()

    assert "‖ starts wait for the processors: they are at 97 %" in shown()
    assert "workers of" not in shown()
    run.add(ev.DispatchUnthrottled(code="cpu"), ev.WorkersScaled(workers=3))
    assert "starts wait" not in shown()
    assert "‖ 3 workers of 5: what the machine can bear as it is" in shown()
    run.add(ev.DispatchThrottled(reason="full", code="memory"), ev.RunCancelled(counts={}))
    assert "‖" not in shown()
