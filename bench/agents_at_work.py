"""Agents to measure with: clients that can be had here, and runs of one task or of many."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.repositories import NOBODYS_SETTINGS
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import AgentSettings, Plan, RunSettings, Stage, Task
from parallel_agents.foreground import identity
from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.agents.finding import find_client
from parallel_agents.scheduler.engine import Engine
from parallel_agents.submit import submit
from parallel_agents.versioning import Start

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # The fake agent and the scripted server are test programs.

from fakeagent.installing import install
from modelserver import ModelServer, Reply

SETTINGS = AgentSettings(max_requests=100_000, requests_per_minute=1_000_000)


@dataclass(frozen=True, slots=True)
class Found:
    """A client that can be started here, and the environment in which it can."""

    name: str
    program: str
    environ: Mapping[str, str]


def fake(folder: Path) -> Found:
    """The fake agent, under the name of ``claude``."""
    bin_folder = install(folder / "bin", "claude")
    return Found("the fake agent", str(bin_folder / "claude"), _environ(folder, f"{bin_folder}:{os.environ['PATH']}"))


@contextmanager
def real(folder: Path) -> Iterator[Found | None]:
    """The real ``claude`` with a model server of its own on this machine, or None where there is none."""
    program = find_client(BUILT_IN["claude"], os.environ["PATH"])
    if program is None:
        yield None
        return
    with ModelServer() as server:
        server.on("", Reply("done"))
        path = f"{Path(program).parent}:{os.environ['PATH']}"
        quiet = {"DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1"}
        more = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "a-key-of-no-worth", **quiet}
        yield Found("claude", program, {**_environ(folder, path), **more})


def _environ(folder: Path, path: str) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    own = {"PATH": path, "HOME": str(home), "CLAUDE_CONFIG_DIR": str(folder / "config"), "LANG": "C.UTF-8"}
    return {**own, **NOBODYS_SETTINGS}


def submit_agents(
    log: Log, found: Found, workdir: Path, names: Sequence[str], steps: str, start: Start | None = None
) -> str:
    """A run of one agent for each name, all at once; gives its id."""
    at_once = len(names)
    tasks = [
        Task(
            task_id=name, agent_type="general", description="Do what you are told.", runner="claude",
            env={"FAKE_AGENT": steps},
        )
        for name in names
    ]  # fmt: skip
    plan = Plan(
        name="bench", workspace="none" if start is None else start.workspace, stages=(Stage(name="all"),), tasks=tuple(tasks),
        settings=RunSettings(max_parallel_agents=at_once, store_limit=at_once, max_queue_size=max(100, at_once)),
        agents=SETTINGS,
    )  # fmt: skip
    return submit(log, plan, workdir=workdir, claim=identity("run"), environ=found.environ, start=start)


def wait_for_end(engine: Engine, run_id: str) -> None:
    """Until a run is over.

    Raises:
        AssertionError: it did not complete.
    """
    end = engine.wait(run_id, until=lambda progress: progress.status in ("completed", "failed", "cancelled", "paused"))
    assert end is not None
    assert end.status in ("completed", "cancelled"), end
