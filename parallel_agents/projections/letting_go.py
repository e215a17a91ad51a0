"""The state of a large run on the way through its events, without holding all of its tasks.

Most tasks of a large run have not begun, or have ended. So those that are there are let go again and again while the run is
folded, but for their statuses, and folded from their own few events once something more happens to them or somebody looks at
them; what nothing has happened to is what the plan says of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parallel_agents.eventstore.events import RunSubmitted
from parallel_agents.eventstore.known_plans import KnownPlan, known_plan
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import at_hand
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import Singles, Tasks
from parallel_agents.projections.status import RunState, TaskState

EVERY: Final = 5_000
"""Events between two times that tasks are let go: some megabytes of them, of which few are needed soon again."""

Behind = Callable[[int], Singles]
"""Gives what folds tasks of the run by themselves as of a seq."""


class PassedTasks(Tasks):
    """Tasks of a run that is folded from its start on."""

    def __init__(self, known: KnownPlan, behind: Behind, state: RunState, told: Callable[[TaskState], None]) -> None:
        """None of them has begun.

        Args:
            state: of the run after its first event.
            told: told of each that is let go.
        """
        super().__init__(known, behind(state.seq), self.passing)
        self._behind, self._told = behind, told
        self._letters = bytearray(at_hand.BLANK * len(known.positions), "ascii")
        self.rebase(state, self._single)

    def let_go(self, state: RunState) -> None:
        """Hold no task any more. Only between two events, where nobody has one of them in hand.

        Args:
            state: of the run, with what hangs on the statuses of its tasks.
        """
        if self.is_whole:
            return
        for task in self.made():
            self._told(task)
        self.rebase(state, self._behind(state.seq))


def begin(
    first: Recorded,
    blob: Callable[[str], bytes],
    behind: Behind,
    told: Callable[[TaskState], None] = lambda task: None,
) -> RunState | None:
    """The state after the first event of a run that is large, no fork, and of which nothing was moved to an archive.

    None for another one.

    Args:
        told: told of each task that is let go.
    """
    event = first.event
    if not isinstance(event, RunSubmitted) or event.task_count <= at_hand.NEAR or not behind(first.seq).has_all:
        return None
    known = known_plan(event.plan_digest, blob)
    state = RunState(first.run_id, dependents=known.dependents)
    st.submitted(state, event, first.at_us, known.plan)
    state.seq, state.version, state.stage_open = first.seq, first.version, list(known.stage_sizes)
    state.tasks = PassedTasks(known, behind, state, told)
    return state


def let_go(state: RunState) -> None:
    """Hold no task of a state that ``begin`` gave. Only between two events, where nobody has one of them in hand."""
    if isinstance(state.tasks, PassedTasks):
        state.tasks.let_go(state)
