"""What a task runs around its command: how it is started, and what its end says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from parallel_agents.eventstore.submission import Task
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT, last_line, make_folder, read_object
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.runners.steps import STEPS, wrap


def with_steps(spec: Task, folder: str) -> tuple[str, ...]:
    """The command of a task, with its setup and teardown around it where it has any."""
    if spec.command is None or (spec.setup is None and spec.teardown is None):
        return spec.command or ()
    make_folder(folder)
    return wrap(
        spec.command, setup=spec.setup, teardown=spec.teardown, timeout_s=spec.setup_timeout_s, gates=(), folder=folder
    )


def steps_told(spec: Task, ended: Ended, folder: str) -> Ended:
    """The end of an attempt in the words of the step that failed, where that was not the command."""
    if ended.outcome != "exited" or (spec.setup is None and spec.teardown is None):
        return ended
    told = read_object(folder, STEPS) or {}
    for name in ("setup", "teardown"):
        step = told.get(name) or {}
        if step.get("error") and (name == "setup" or ended.error is None):
            words = f"{name} failed: {step['error']}"
            said = last_line(f"{folder}/{STDERR}", but=words)
            if said is None and spec.command is not None:  # What an agent's client prints is for programs.
                said = last_line(f"{folder}/{STDOUT}")
            return replace(ended, error=f"{words}: {said}" if said else words)
    return ended if spec.command is None else replace(ended, output=_output(told, ended, folder))


def _output(told: dict[str, Any], ended: Ended, folder: str) -> Any:
    """The last line that the command itself has printed, not what came after it."""
    span = (told.get("command") or {}).get("stdout_bytes")
    if not span:
        return ended.output
    return last_line(f"{folder}/{STDOUT}", begin=span[0], end=span[1])
