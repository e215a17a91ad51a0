"""What a task runs around its command: how it is started, and what its end says of it."""

from __future__ import annotations

from parallel_agents.eventstore.submission import Task
from parallel_agents.scheduler.runners.protocol import Ended


def with_steps(spec: Task, folder: str) -> tuple[str, ...]:
    """The command of a task, with its setup and teardown around it where it has any."""
    if spec.command is None or (spec.setup is None and spec.teardown is None):
        return spec.command or ()
    raise AssertionError


def steps_told(ended: Ended, folder: str) -> Ended:
    """The end of an attempt in the words of the step that failed, where it was not the command."""
    return ended
