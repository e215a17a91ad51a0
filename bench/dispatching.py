"""Runs plans through the engine in this process, as ``run`` and the Python API do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.submission import Plan, RunSettings, Stage, Task
from parallel_agents.foreground import identity
from parallel_agents.scheduler.engine import Engine
from parallel_agents.submit import submit

Calls = Mapping[str, tuple[Callable[..., Any], Sequence[str]]]
"""Task id -> the callable and the task ids that it waits for."""


def plan_of(tasks: Sequence[Task], at_once: int) -> Plan:
    """A plan of these tasks, up to ``at_once`` of them at the same time."""
    limits = RunSettings(max_parallel_agents=at_once, store_limit=at_once, max_queue_size=max(100, at_once))
    return Plan(name="bench", workspace="none", stages=(Stage(name="all"),), tasks=tuple(tasks), settings=limits)


def run_callables(log: Log, calls: Calls, *, at_once: int) -> None:
    """Submit callables as one run and dispatch it to its end.

    Raises:
        AssertionError: the run did not complete.
    """
    tasks = [
        Task(task_id=name, agent_type="python", dependencies=tuple(needs), runner="python")
        for name, (_, needs) in calls.items()
    ]
    run_id = submit(
        log, plan_of(tasks, at_once), workdir=log.path.parent, callables=True, environ={}, claim=identity("python")
    )
    engine = Engine(log, kind="python", pool={"max_workers": at_once}, environ={})
    for name, (call, _) in calls.items():
        engine.dispatcher.calls[run_id, name] = (call, None)
    _dispatch(engine, run_id)


def run_commands(log: Log, commands: Mapping[str, tuple[str, ...]], *, at_once: int, engine: Engine) -> None:
    """Submit commands as one run and dispatch it to its end, on an engine that is ready.

    Raises:
        AssertionError: the run did not complete.
    """
    tasks = [Task(task_id=name, command=command, runner="shell") for name, command in commands.items()]
    run_id = submit(log, plan_of(tasks, at_once), workdir=log.path.parent, claim=identity("run"))
    engine.hold(run_id)
    _wait(engine, run_id)


def _dispatch(engine: Engine, run_id: str) -> None:
    try:
        engine.hold(run_id)
        engine.start()
        _wait(engine, run_id)
    finally:
        engine.close()


def _wait(engine: Engine, run_id: str) -> None:
    end = engine.wait(run_id, until=lambda progress: progress.status in ("completed", "failed", "cancelled"))
    assert end is not None
    assert end.status == "completed", end
