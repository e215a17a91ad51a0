"""The state of a run at any position of its tape, as a value that nothing changes any more.

The fold consumes the state that it is given. So a frame shares with the one that it was made from every task that no event
between them has touched, and has copies of the others, made when the fold takes hold of them. A copy of a frame is then a copy
of one dict, and a step back is the kept frame before it and the few events since.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from operator import attrgetter
from typing import Final, NamedTuple

from parallel_agents.debugger.tape import Tape
from parallel_agents.eventstore.record import decode_brief
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.projector import placed
from parallel_agents.projections.replay import apply, derive
from parallel_agents.projections.status import RunState, TaskState

SPACING: Final = 250
"""Events between two kept frames, some milliseconds of folding. More of a run whose frames would need too much memory."""
_MOST: Final = 1_500_000  # Tasks in all kept frames together, some 60 MB.
_values = attrgetter(*TaskState.__slots__)


class Frame(NamedTuple):
    """A run after the event of a position: effective state, and all that was spent by then."""

    position: int  # -1: before its first event.
    state: RunState
    cost: Cost


class _Tasks(dict[str, TaskState]):
    """Tasks of which those that are looked up become copies of one's own, as long as ``own`` says whose those are."""

    own: set[str] | None = None

    def __getitem__(self, task_id: str) -> TaskState:
        task = super().__getitem__(task_id)
        if self.own is not None and task_id not in self.own:
            self.own.add(task_id)
            task = self[task_id] = TaskState(*_values(task))
        return task

    def freeze(self) -> None:
        """From here on nothing is copied, and nothing may be changed."""
        self.own = None


class Frames:
    """Frames of one tape. Used by one thread.

    Args:
        spacing: positions between two kept frames; None: as the size of the run makes it good.
    """

    def __init__(self, tape: Tape, spacing: int | None = None) -> None:
        self._tape = tape
        self._spacing = spacing
        self._places: list[int] = [-1]
        self._kept: dict[int, Frame] = {-1: Frame(-1, st.initial(tape.run_id), Cost())}
        self._last = self._kept[-1]

    def at(self, position: int) -> Frame:
        """The frame of a position, -1 included."""
        if position == self._last.position:
            return self._last
        frame = self._before(position)
        while (place := self._next_kept(frame)) <= position:
            frame = self._go(frame, place)
            self._keep(frame)
        if position != frame.position:
            frame = self._go(frame, position)
        self._last = frame
        return frame

    def walk(self, after: int, upto: int) -> Iterator[Frame]:
        """The frames with ``after < position <= upto``, for who keeps none of them: state and cost go on with the next."""
        tape = self._tape
        frame = self.at(after)
        state, cost = _begin(frame.state), _copied(frame.cost)
        position = after
        for brief in tape.briefs(after, upto):
            position += 1
            record = decode_brief(tape.run_id, brief)
            if position in tape.rollbacks:
                state = _begin(self.at(position).state)
            else:
                st.fold(state, record, tape.log.blob)
            cost_fold.fold(cost, record)
            yield Frame(position, state, cost)

    def _next_kept(self, frame: Frame) -> int:
        """The next position whose frame is kept."""
        between = self._spacing or max(SPACING, len(self._tape) * len(frame.state.tasks) // _MOST)
        return ((frame.position + 1) // between + 1) * between - 1

    def _before(self, position: int) -> Frame:
        """The nearest frame at or before a position that is there."""
        kept = self._kept[self._places[bisect_right(self._places, position) - 1]]
        return self._last if kept.position < self._last.position <= position else kept

    def _keep(self, frame: Frame) -> None:
        if frame.position not in self._kept:
            insort(self._places, frame.position)
            self._kept[frame.position] = frame

    def _go(self, frame: Frame, position: int) -> Frame:
        """The frame of a later position."""
        tape, base = self._tape, frame
        spans: list[tuple[int, int]] = []  # What counts, the last first; see ``projections.effective``.
        end = position
        while (rollback := tape.last_rollback(base.position, end)) is not None:
            spans.append((rollback, end))
            end = tape.rollbacks[rollback]
            if end < base.position:
                base = self._before(end)
        spans.append((base.position, end))
        state, cost = _begin(base.state), _copied(frame.cost)
        tasks = state.tasks
        for after, upto in reversed(spans):
            apply(state, tape.briefs(after, upto), tape.log.blob, cost if len(spans) == 1 else None)
        if len(spans) > 1:
            for brief in tape.briefs(frame.position, position):
                if brief[2] == "CostCharged":  # No rollback takes that back,
                    cost_fold.fold(cost, decode_brief(tape.run_id, brief))
            if (moved := tape.last_moved(position)) is not None:  # nor that.
                st.fold(state, decode_brief(tape.run_id, next(tape.briefs(moved - 1, moved))), tape.log.blob)
        if base.state.version == 0:
            derive(state)
        else:
            _derive(state, base.state)
        assert isinstance(tasks, _Tasks)
        tasks.freeze()
        if position >= 0:
            state.seq, state.version = tape.seqs[position], position + 1
        state.touched, state.broken = set(), set()
        return Frame(position, placed(tape.log, state), cost)


def _begin(state: RunState) -> RunState:
    """A state to fold onto, which leaves the one that it is made from as it is."""
    made = copy(state)
    made.tasks = tasks = _Tasks(state.tasks)
    tasks.own = set()
    made.counts, made.stage_open, made.running = Counter(state.counts), list(state.stage_open), dict(state.running)
    made.stage_failed = {stage: list(names) for stage, names in state.stage_failed.items()}
    made.throttled, made.task_budgets = dict(state.throttled), dict(state.task_budgets)
    made.touched, made.broken = set(), set()
    return made


def _copied(cost: Cost) -> Cost:
    return replace(cost, by_task=Counter(cost.by_task), unknown=dict(cost.unknown))


def _derive(state: RunState, base: RunState) -> None:
    """What follows from the statuses of tasks, worked out from where it was and from the tasks that were taken hold of."""
    tasks = state.tasks
    assert isinstance(tasks, _Tasks)
    assert tasks.own is not None
    before, taken = base.tasks, list(tasks.own)
    counts, stage_open = Counter(base.counts), list(base.stage_open)
    running = {attempt_id: name for attempt_id, name in base.running.items() if name not in tasks.own}
    satisfied: Counter[str] = Counter()  # Dependencies that are satisfied now and were not, by who needs them.
    for name in taken:
        was, now = before[name], tasks[name]
        if now.status == st.RUNNING and now.attempt_id is not None:
            running[now.attempt_id] = name
        if was.status == now.status:
            continue
        counts[was.status] -= 1
        counts[now.status] += 1
        stage_open[now.task.stage] += (now.status not in st.ENDED) - (was.status not in st.ENDED)
        change = st.satisfies(now.task, now.status) - st.satisfies(was.task, was.status)
        if change:
            for other in state.dependents.get(name, ()):
                satisfied[other] += change
    for name in {*taken, *satisfied}:
        tasks[name].open_dependencies = before[name].open_dependencies - satisfied[name]
    state.counts, state.stage_open, state.running = counts, stage_open, running
