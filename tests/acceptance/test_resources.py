"""On a machine that is really busy: what waits, what is said of it, and that the run comes to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scratch import Scratch, wait_until

GOVERNED = (
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__MAX_CPU_PERCENT",
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__THROTTLE_THRESHOLD",
)
# Any work at all is too much, so that one program that works does for a busy machine, however many processors it has.
EASILY_BUSY = """
resource_management: {cpu: {max_cpu_percent: 0.5, throttle_threshold: 1}}
execution: {worker_pool: {min_workers: 1}}
"""
WORK = "import os, time\nwhile os.getppid() == int(os.environ['PARENT']): pass"


@contextmanager
def foreign_program() -> Iterator[None]:
    """Keeps one processor busy."""
    work = subprocess.Popen([sys.executable, "-c", WORK], env={**os.environ, "PARENT": str(os.getpid())})
    try:
        yield
    finally:
        work.kill()
        work.wait()


@pytest.mark.slow
def test_a_busy_machine_holds_starts_back_and_says_so_and_the_run_ends_all_the_same(cli: Scratch) -> None:
    """With a foreign program that never stops: beside the one attempt that runs nothing starts, and then one at a time."""
    for name in GOVERNED:
        del cli.environment[name]
    cli.write("parallel-agents.yaml", EASILY_BUSY)
    first = {"task_id": "first", "command": ["sh", "-c", "until [ -e go ]; do sleep 0.05; done"]}
    others = [{"task_id": f"t{number}", "command": ["sh", "-c", "[ -e go ] || sleep 0.5"]} for number in range(40)]
    plan = cli.plan({**first, "priority": "high"}, *others, max_parallel_agents=2)
    with foreign_program():
        run = cli.begin("run", plan)
        wait_until(lambda: cli.store.exists() and cli.quick("runs", "--json").data, "the run")
        wait_until(lambda: cli.quick("status", "--json").data["throttled"], "starts to wait")
        found = cli.quick("status", "--json").data
        assert [one["code"] for one in found["throttled"]] == ["cpu"]
        assert "starts wait for the processors: the processors are at" in cli.quick("status").out
        assert found["counts"]["running"] == 1
        assert cli.quick("why", "t39", "--json").data["code"] == "cpu"
        before = found["counts"]["queued"]
        assert before > 0
        (cli.root / "go").touch()
        said = cli.said_by(run)
    assert said.code == 0
    starts = [event["data"]["facts"] for event in cli.quick("history", "--type", "TaskStarted", "--json").lines]
    assert all(facts["processes"] == 0 for facts in starts[-before:])
    assert all(facts["cpu_percent"] > 0.5 for facts in starts[-before:])
