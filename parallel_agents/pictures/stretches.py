"""What a task did over time, stretch by stretch: it waited, an attempt of it ran, or it had ended. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from parallel_agents.projections.status import RunState

WAIT, ATTEMPT, OVER = "wait", "attempt", "over"


@dataclass(slots=True)
class Stretch:
    """A stretch of a task's time. Times are microseconds since the epoch.

    Attributes:
        kind: wait, attempt, or over: the task had ended, and was opened again later.
        code: of a wait: what ``why`` calls its reason; of an attempt: its outcome as the state has it; of over: the status.
        why: of a wait: the reason in words, as it was at the beginning.
        tasks: of a wait: the tasks that the reason names.
        seq: the event after which it began.
        open: it had not ended when the run was looked at.
    """

    task_id: str
    kind: str
    start_us: int
    end_us: int
    seq: int
    code: str = ""
    why: str = ""
    tasks: tuple[str, ...] = ()
    attempt_id: str = ""
    open: bool = False

    @property
    def length_us(self) -> int:
        """How long it was."""
        return self.end_us - self.start_us


class Waits(NamedTuple):
    """The stretches of every task, from when the run was submitted to the task's last end, and when that was for the run."""

    begin_us: int
    end_us: int  # The last end of a task, or the moment that is looked at where one is still open.
    seq: int  # The last event that was looked at.
    by_task: dict[str, list[Stretch]]
    state: RunState  # Of the run at the end.
