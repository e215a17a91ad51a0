"""When the rest before a retry is over: by the time of events, or by a clock that nobody sets. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from parallel_agents.projections.status import TaskState


@dataclass(slots=True)
class Rests:
    """Those of one run, as far as one dispatcher has seen them.

    The end of a rest is told in the time of events, which stands still after the clock was set back, until it has caught up.
    So a rest is also over when the dispatcher has known of it for as long as was left of it then, by the steady clock.
    """

    now_us: int = 0  # By the steady clock, read before the time of events was,
    since_us: int = 0  # and read after it: so that of two clocks that nobody sets this one is never the first.
    ends_us: dict[str, int] = field(default_factory=dict)  # By the attempt that failed, by the steady clock.

    def goes_on(self, task: TaskState, at_us: int) -> bool:
        """Whether a task rests. A rest that is seen for the first time is measured from here on.

        Args:
            at_us: the time of the next event.
        """
        if task.not_before_us is None or task.not_before_us <= at_us:
            return False
        left_us = task.not_before_us - at_us
        return self.ends_us.setdefault(task.attempt_id or "", self.since_us + left_us) > self.now_us

    def ends_of(self, task: TaskState) -> tuple[int | None, int | None]:
        """When the rest of a task is over, by the time of events and by the steady clock."""
        return task.not_before_us, self.ends_us.get(task.attempt_id or "")
