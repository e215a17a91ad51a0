"""What each task of a run did all the time: it waited for something, an attempt of it ran, or it had ended. Nothing in between.

Why it waited is what the scheduler says of it (``why_not``, which ``why`` asks too), from the state of that moment. It is
asked again only where something changed that the answer can depend on.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parallel_agents.eventstore.events import RunClaimed, TaskStarted
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.pictures.moving import Moving
from parallel_agents.pictures.stretches import ATTEMPT, OVER, WAIT, Stretch, Waits
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.plan import (
    Agenda,
    Facts,
    Outlook,
    Rank,
    Reason,
    gate,
    has_barriers,
    plan,
    stage_over,
    why_not,
)
from parallel_agents.scheduler.redecide import THEN
from parallel_agents.scheduler.scopes import meet

_DEPENDENCIES, _STAGE, _RESTS, _SCOPE, _DUE = "dependencies", "stage", "not_before", "scope", "due"
_NOBODY = "no_dispatcher"


def waits(log: Log, run_id: str, upto: int | None = None) -> Waits:
    """What each task of a run did all the time, as far as the log tells at a seq.

    Args:
        upto: None: at the last event of the store; of a run that goes on that is where its open stretches are cut.
    Raises:
        UnknownRun: the run has no event up to there.
    """
    moving = Moving(log, run_id, upto)
    follower = Follower(moving)
    begin_us = None
    for at_us, records in moving.moments():
        begin_us = at_us if begin_us is None else begin_us
        follower.follow(at_us, records)
    assert begin_us is not None, "a run begins with an event"
    follower.close(moving.end_us)
    ends = [of[-1].end_us for of in follower.by_task.values() if of]
    return Waits(begin_us, max(ends, default=begin_us), moving.end, follower.by_task, moving.state)


@dataclass(slots=True)
class _Seen:
    """What the reasons of tasks that nothing touched depend on, as of the last look."""

    shared: tuple[Any, ...] = ()
    ending: tuple[Any, ...] = ()
    first_stage: int = 0
    held: dict[str, str] = field(default_factory=dict)
    skips: frozenset[str] = frozenset()
    head: str | None = None
    busy: frozenset[str] = frozenset()  # Tasks with declared files that run or are about to.


class Follower:
    """Moves a run on and keeps the stretches of its tasks. ``plan`` is asked at each moment, with the agenda of the last one."""

    def __init__(self, moving: Moving) -> None:
        self.moving = moving
        self.by_task: dict[str, list[Stretch]] = {}
        self._now: dict[str, Stretch] = {}  # The stretch of each task that has not ended.
        self._taken_up: set[str] = set()  # Tasks that run because a rollback or a fork goes back to where they did.
        self._agenda: Agenda | None = None
        self._broken: set[str] = set()
        self._line: list[tuple[Rank, str]] = []  # Queued tasks by rank.
        self._lined: set[str] = set()
        self._rests: list[tuple[int, str]] = []
        self._staged: dict[int, set[str]] = defaultdict(set)  # Waiting for their stage, by stage.
        self._waiting: set[str] = set()  # For anything else than dependencies and stages.
        self._scoped: dict[tuple[str, ...], set[str]] = defaultdict(set)  # Of these, by the files that they declare.
        self._taken: dict[str, set[str]] = defaultdict(set)  # Whose files were taken, by who had them.
        self._seen = _Seen()
        self._then = ""  # What kept the last decision from starting more.
        self._last_us: int | None = None
        self._seq = 0

    def follow(self, at_us: int, records: Iterable[Recorded]) -> None:
        """Take up the events of one time, and what has changed without any since the time before."""
        while self._last_us is not None and (due_us := self._due()) is not None and due_us < at_us:
            self._look(due_us)
        for record in records:
            if isinstance(record.event, RunClaimed) and record.run_id == self.moving.run_id and self.moving.held:
                self._nobody_did()
            if self.moving.fold(record):
                self._begin_again(record)
            elif record.run_id == self.moving.run_id:
                self._take_up(record)
            self._seq = record.seq
        self._look(at_us)

    def close(self, end_us: int) -> None:
        """Nothing more is looked at: what goes on is cut there, and a task that has ended has no more stretches."""
        while self._last_us is not None and (due_us := self._due()) is not None and due_us < end_us:
            self._look(due_us)
        for name, stretch in self._now.items():
            if stretch.kind != OVER:
                stretch.open = True
                self._end(name, end_us)
            kept = self.by_task[name]
            while kept and kept[-1].kind == OVER:  # It was opened again, and no more came of it.
                kept.pop()

    def _nobody_did(self) -> None:
        """Another process takes over what one has not let go of: what was due, that one was not there to start."""
        for now in self._now.values():
            if now.kind == WAIT and now.code == _DUE:
                now.code, now.why = _NOBODY, "no process dispatched its run: the one that had was gone"

    def _due(self) -> int | None:
        assert self._last_us is not None
        while self._rests and self._rests[0][0] <= self._last_us:
            heapq.heappop(self._rests)
        rest_us = self._rests[0][0] if self._rests else None
        other_us = self.moving.due_after(self._last_us)
        return min((when for when in (rest_us, other_us) if when is not None), default=None)

    def _take_up(self, record: Recorded) -> None:
        """An event of the run: attempts begin and end with theirs."""
        state = self.moving.state
        if not self._now:
            self._begin(record)
            return
        if isinstance(record.event, TaskStarted):
            self._then = record.event.facts.get(THEN, "")
        name = getattr(record.event, "task_id", None)
        if name in state.tasks:
            self._move(state.tasks[name], record)

    def _begin(self, record: Recorded) -> None:
        """The first event. What had ended before it, in the run that this one was forked from, is no stretch of this one."""
        for name, task in self.moving.state.tasks.items():
            self.by_task[name] = []
            self._now[name] = Stretch(name, OVER, record.at_us, record.at_us, record.seq, task.status)
            self._move(task, record)
        self._forget()

    def _begin_again(self, record: Recorded) -> None:
        for task in self.moving.state.tasks.values():
            self._move(task, record)
        self._forget()

    def _forget(self) -> None:
        """The state is another one: it is asked anew of all tasks."""
        self._agenda, self._seen = None, _Seen()
        self._broken.clear()
        self._line.clear()
        self._lined.clear()
        for waiting in (self._waiting, self._scoped, self._taken, self._staged):
            waiting.clear()
        self.moving.state.touched.update(self.moving.state.tasks)

    def _move(self, task: TaskState, record: Recorded) -> None:
        """Begin another stretch where the task is in another one of the three kinds, or in another attempt."""
        name, before = task.task.task_id, self._now[task.task.task_id]
        kind = ATTEMPT if task.status == st.RUNNING else OVER if task.status in st.ENDED else WAIT
        if kind == before.kind and (kind != ATTEMPT or before.attempt_id == task.attempt_id):
            if kind == OVER:
                before.code = task.status
            return
        if before.kind == ATTEMPT:
            before.code = task.status
        self._end(name, record.at_us)
        self._now[name] = Stretch(name, kind, record.at_us, record.at_us, record.seq)
        if kind == ATTEMPT:
            self._now[name].attempt_id, self._now[name].code = task.attempt_id or "", st.RUNNING
            if not isinstance(record.event, TaskStarted):
                self._taken_up.add(name)
        elif kind == OVER:
            self._now[name].code = task.status
        if kind != WAIT:
            self._leave(task)

    def _end(self, name: str, at_us: int) -> None:
        """Keep a stretch. A wait of no length is none; an attempt is one all the same."""
        done = self._now[name]
        done.end_us = at_us
        kept = self.by_task[name]
        if done.kind == OVER and not kept and done.seq == self.moving.first:
            return  # It had ended before the run began.
        if done.kind == WAIT and done.length_us and kept and (kept[-1].kind, kept[-1].code) == (WAIT, done.code):
            kept[-1].end_us, kept[-1].open = at_us, done.open  # Nothing that has taken any time was between them.
        elif done.length_us or (done.kind == ATTEMPT and name not in self._taken_up):
            kept.append(done)
        self._taken_up.discard(name)

    def _leave(self, task: TaskState) -> None:
        name = task.task.task_id
        self._waiting.discard(name)
        self._staged[task.task.stage].discard(name)
        if task.task.files:
            self._scoped[task.task.files].discard(name)

    def _look(self, at_us: int) -> None:
        """Ask for the reasons that can be other ones by now."""
        moving, self._last_us = self.moving, at_us
        state = moving.state
        if not state.tasks:
            return
        touched = set(state.touched)
        facts = moving.facts(at_us)
        outlook = self._outlook(facts, at_us)
        for name in self._ask(state, outlook, touched, at_us):
            task = state.tasks[name]
            if task.status != st.RUNNING and task.status not in st.ENDED:
                self._say(task, self.told(why_not(state, name, facts, at_us, outlook)), at_us)

    def told(self, reason: Reason) -> Reason:
        """A reason, or the one that the log has for what is due and does not start: nobody to start it, or what was seen then.

        The last start of each decision says what kept it from starting more, if that was more than its own rules: such as the
        load of the processors, which no other event holds.
        """
        if reason.code != _DUE:
            return reason
        if not self.moving.held:
            return Reason(_NOBODY, "no process dispatches its run")
        return Reason(self._then, "as the dispatcher saw it when it last started something") if self._then else reason

    def _outlook(self, facts: Facts, at_us: int) -> Outlook:
        """The same as ``outlook`` gives, at the cost of what changed."""
        state = self.moving.state
        self._broken = {
            name
            for name in self._broken | state.broken
            if any(state.tasks[one].status not in st.ENDED for one in state.dependents.get(name, ()))
        }
        if self._agenda is None or self._agenda.barriers != has_barriers(state):
            self._agenda = Agenda(state)
            self._broken |= state.broken
        agenda, touched = self._agenda, set(state.touched)
        self._mend_line(state, touched)
        state.broken = set(self._broken)
        after = facts.copy()
        decision = plan(state, agenda, after, at_us)
        state.broken, state.touched = set(), {name for _, name in decision.steps}  # It is to think of these anew.
        starting = {name for what, name in decision.steps if what == "start"}
        line = [one for one in self._line if not facts.rests.goes_on(state.tasks[one[1]], at_us)]
        for what, name in decision.steps:
            if what == "queue" and name not in self._lined:
                insort(line, (agenda.rank(state.tasks[name]), name))
        return Outlook(decision, starting, after, line, agenda.rank)

    def _mend_line(self, state: RunState, touched: Iterable[str]) -> None:
        assert self._agenda is not None
        for name in touched:
            queued = state.tasks[name].status == st.QUEUED
            if queued and name not in self._lined:
                self._lined.add(name)
                insort(self._line, (self._agenda.rank(state.tasks[name]), name))
            elif not queued and name in self._lined:
                self._lined.discard(name)
                self._line.remove((self._agenda.rank(state.tasks[name]), name))

    def _ask(self, state: RunState, outlook: Outlook, touched: set[str], at_us: int) -> Iterator[str]:
        """The tasks whose reasons may have changed, each once."""
        before, held = self._seen, {name: one.code for name, one in outlook.decision.held.items()}
        skips = frozenset(skip.task_id for skip in outlook.decision.skips)
        gates = {
            stage: closed and closed.code
            for stage in {state.tasks[name].task.stage for _, name in outlook.line}
            for closed in [gate(state, state.plan.stages[stage], outlook.facts)]
        }
        pressed = outlook.decision.pressed and outlook.decision.pressed.code
        first = next((stage for stage, left in enumerate(state.stage_open) if left), len(state.stage_open))
        head = next((name for _, name in outlook.line if name not in held), None)
        names = (*state.running.values(), *outlook.starting)
        busy = frozenset(name for name in names if state.tasks[name].task.files)
        shared = (state.status, stage_over(state), gates, pressed, self.moving.held, self._then)
        ending = (state.cancel_requested, state.ended)
        self._seen = _Seen(shared, ending, first, held, skips, head, busy)

        asked = set(touched)
        asked |= {name for name, code in held.items() if before.held.get(name) != code}
        asked |= before.held.keys() - held.keys()
        asked |= skips ^ before.skips
        asked |= {name for name in (head, before.head) if name is not None and head != before.head}
        asked |= {name for _, name in outlook.decision.steps}
        for stage in range(before.first_stage, first + 1):
            asked |= self._staged.get(stage, set())
        while self._rests and self._rests[0][0] <= at_us:
            asked.add(heapq.heappop(self._rests)[1])
        if ending != before.ending:
            asked |= state.tasks.keys()
        elif shared != before.shared or first < before.first_stage:
            asked |= self._waiting
        elif busy != before.busy:
            asked |= set(self._met(state, busy - before.busy, before.busy - busy))
        return iter(sorted(asked, key=lambda name: state.tasks[name].index))

    def _met(self, state: RunState, new: frozenset[str], gone: frozenset[str]) -> Iterator[str]:
        """Waiting tasks whose files meet those of what starts, or were taken by what does not run any more."""
        for name in gone:
            yield from self._taken.pop(name, ())
        declared = {state.tasks[name].task.files for name in new}
        for files, waiting in self._scoped.items():
            if waiting and any(meet(files, others) for others in declared):
                yield from waiting

    def _say(self, task: TaskState, reason: Reason, at_us: int) -> None:
        """Note a reason; another one than before begins another stretch."""
        name = task.task.task_id
        self._leave(task)
        now = self._now[name]
        if now.code != reason.code:
            if now.start_us != at_us:
                self._end(name, at_us)
                now = self._now[name] = Stretch(name, WAIT, at_us, at_us, self._seq)
            now.code, now.why, now.tasks = reason.code, reason.text, reason.tasks
        if reason.code == _STAGE:
            self._staged[task.task.stage].add(name)
        elif reason.code != _DEPENDENCIES:
            self._waiting.add(name)
            if task.task.files:
                self._scoped[task.task.files].add(name)
        if reason.code == _SCOPE:
            self._taken[reason.tasks[0]].add(name)
        if reason.code == _RESTS and task.not_before_us is not None:
            heapq.heappush(self._rests, (task.not_before_us, name))
