"""What people answer in a run that is played again otherwise with its files: conflicts settled, and results approved.

Who waited for an answer then waits as long, and gets the same one. Who did not wait then is answered at once: its own lines are
taken of what clashes. That is assumed, and told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.merging import Merge, Take
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.otherwise.recording import Recording
from parallel_agents.otherwise.virtual_run import VirtualRun
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.scheduler.decide_settling import decide_approve_result, decide_settled, is_conflict
from parallel_agents.settling import merged_with_line, merged_work

SIDES: Final = frozenset({"ours", "theirs", "both"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said to blocked work, and after how many microseconds."""

    after_us: int
    how: str = ""  # As in ``ConflictResolved``; empty: it was approved.


@dataclass(slots=True)
class Answers:
    """The answers of one run that are still to come.

    Attributes:
        given: by task, in their order, as they were recorded.
        unasked: of tasks that wait here and did not then: the paths that clashed, if any.
    """

    given: dict[str, list[Answer]] = field(default_factory=dict)
    unasked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _due: dict[str, tuple[int, Answer | None]] = field(default_factory=dict)

    def next_us(self) -> int | None:
        """When the next one comes."""
        return min((at_us for at_us, _ in self._due.values()), default=None)

    def look(self, record: Recorded) -> None:
        """Take note of what has happened."""
        match record.event:
            case ev.TaskBlocked(task_id=name, attempt_id=str()):
                said = next(iter(self.given.get(name, ())), None)
                self._due[name] = record.at_us + (0 if said is None else said.after_us), said
            case ev.TaskStarted(task_id=name) | ev.TaskCompleted(task_id=name) | ev.TaskCancelled(task_id=name):
                if self._due.pop(name, None) is not None and self.given.get(name):
                    self.given[name].pop(0)
            case _:
                pass

    def act(self, world: VirtualRun, state: RunState) -> None:
        """Answer what is due."""
        for name in [name for name, (at_us, _) in self._due.items() if at_us <= world.now_us]:
            _, said = self._due.pop(name)
            if self.given.get(name):
                self.given[name].pop(0)
            task = state.tasks[name]
            if task.status == st.BLOCKED and not state.ended and not state.cancel_requested:
                world.append([(state.run_id, event) for event in self._events(state, task, said, world.now_us)])
                return  # The integration line is another one now.

    def _events(self, state: RunState, task: TaskState, said: Answer | None, now_us: int) -> list[Event]:
        name = task.task.task_id
        if not is_conflict(task):
            if said is None:
                self.unasked[name] = ()
            return decide_approve_result(state, name, merged_work(state, task), now_us)
        how = said.how if said is not None and said.how in SIDES else "theirs"
        try:
            made = self._merge(state, task, now_us, cast("Take", how))
        except GitFailed:  # Both sides of what has no lines.
            how, made = "theirs", self._merge(state, task, now_us, "theirs")
        paths = tuple(task.conflict["paths"]) if task.conflict else ()
        if said is None or said.how not in SIDES:
            self.unasked[name] = paths
        assert made.commit is not None, "a side was taken of all that clashes"
        return decide_settled(state, name, made.commit, how, paths)

    def _merge(self, state: RunState, task: TaskState, now_us: int, take: Take = "") -> Merge:
        assert state.repository is not None
        repository = open_repository(state.repository, Path(state.workdir))
        return merged_with_line(repository, state, task, take=take, at_us=now_us)


def answers_of(recording: Recording, records: Sequence[Recorded]) -> Answers:
    """What people answered in a run, and which of it is still to come after what has happened here.

    Args:
        records: what has happened so far.
    """
    found, since, how = Answers(), dict[str, int](), dict[str, str]()
    for look in recording.looks:
        for one in look.records:
            if one.run_id != recording.run_id:
                continue
            match one.event:
                case ev.TaskBlocked(task_id=name, attempt_id=str()):
                    since[name] = look.at_us
                case ev.ConflictResolved(task_id=name):
                    how[name] = one.event.how
                case ev.TaskCompleted(task_id=name) if name in since:
                    said = Answer(look.at_us - since.pop(name), how.pop(name, ""))
                    found.given.setdefault(name, []).append(said)
                case _:
                    pass
    for one in records:
        if one.run_id == recording.run_id:
            found.look(one)
    return found
