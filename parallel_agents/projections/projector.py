"""Brings folds up to date: from a snapshot and the tail, from nothing, or as of a moment of the past."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from hashlib import sha256
from operator import attrgetter
from typing import ParamSpec, TypeVar

from parallel_agents.eventstore import blocks
from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.errors import UnknownRun, nearest
from parallel_agents.eventstore.events import RunRolledBack
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Brief, Recorded, damaged, decode, decode_brief
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.selecting import Wanted, select
from parallel_agents.projections import at_hand, letting_go
from parallel_agents.projections import bill as bill_fold
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections import needs as needs_fold
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.at_hand import Tasks
from parallel_agents.projections.bill import Line
from parallel_agents.projections.cost import Cost
from parallel_agents.projections.effective import kept_spans
from parallel_agents.projections.letting_go import Behind, PassedTasks
from parallel_agents.projections.needs import Needs
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.one_task import OneTask
from parallel_agents.projections.passing import Passing
from parallel_agents.projections.replay import replay
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.spend import Spend
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.projections.store_wide import KEEP_EVERY, OCCUPANCY, RUNS, SPEND, State, StoreWide
from parallel_agents.projections.undone import undone_of

_ROLLED_BACK = RunRolledBack.__name__
_FEW = 2000  # Events that are read before it is known whether a rollback is among them: to ask costs as much as some of them.
_QUEUED_FOR_THE_FIRST_TIME = """(type = 'TaskQueued' AND instr(body, '"reason":""'))"""  # A bill does not need those.
_OF_A_BILL = f"type IN {bill_fold.FOLDED} AND NOT {_QUEUED_FOR_THE_FIRST_TIME}"
_PLAIN = """instr(body, '"reserved_usd_micros":null,"resumes":null') > 0"""  # In this order, unless an older release wrote it.
_KNOWS = """instr(body, '"reserved_usd_micros":') > 0"""
_NEVER_BEGAN = """type = 'AttemptLost' AND instr(body, '"began":false') > 0"""
_OF_SPENDING = (
    f"(type IN {spend_fold.OF_MONEY} OR (type = 'TaskStarted' AND NOT {_PLAIN} AND {_KNOWS}) OR ({_NEVER_BEGAN}))"
)
_OF_RUN_SPENDING = (*spend_fold.OF_MONEY, *spend_fold.OF_SLOTS)
_OF_CHARGES = "type = 'CostCharged'"
_MOVED = f"{RUN_LEVEL} AND type = 'RunMoved'"
_OF_SLOTS = f"type IN {spend_fold.OF_SLOTS}"
_OF_NEEDS = f"type IN {tuple(cls.__name__ for cls in needs_fold.FOLDED)}"
NEEDS_LOOK_BACK = 4000  # Newest events of the store that tell what attempts need: some thousand attempts.


@dataclass(slots=True)
class RunView:
    """What is known of one run at one moment: its effective state, and all that it has cost."""

    state: RunState
    cost: Cost


_OF_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, IndexError, AssertionError)
_BLOCKS_CAUGHT_UP = 100  # 25,000 events, in 0.1 s; what is left is left to the next time, and to who asks.
_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")


def _blames(ask: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """Folds trust what was validated when it was appended; where one stumbles, look whether that is still what is stored."""

    @wraps(ask)
    def asked(*given: _Given.args, **named: _Given.kwargs) -> _Answer:
        try:
            return ask(*given, **named)
        except _OF_DAMAGE:
            projector = given[0]
            assert isinstance(projector, Projector)
            for row in projector.log.rows(stored=True):
                if (
                    row.body != ELSEWHERE
                    and sha256(row.body.encode(errors="surrogateescape")).digest() != row.body_digest
                ):
                    raise damaged(row.seq) from None
            raise

    return asked


class Projector:
    """Answers from one log. Holds no state of its own but the log.

    Raises (all methods):
        StoreError: an event is not what was written.
    """

    def __init__(self, log: Log, *, use_snapshots: bool = True) -> None:
        self.log = log
        self.use_snapshots = use_snapshots

    @_blames
    def state(self, run_id: str, upto: int | None = None) -> RunState:
        """The effective state of a run, as a reader saw it at a seq (None: now).

        Raises:
            UnknownRun: the run has no event up to there.
        """
        end = self.log.last_seq() if upto is None else upto
        state = self._state_at(run_id, end)
        if state.version == 0:
            raise unknown_run(self.log, run_id, upto)
        return placed(self.log, state)

    def whole_state(self, run_id: str, upto: int | None = None) -> RunState:
        """The same, for who goes through its tasks again and again: all of them are there, however large the run is."""
        state = self.state(run_id, upto)
        if isinstance(state.tasks, Tasks):
            state.tasks.fill()
        return state

    def begin(self, first: Recorded) -> RunState:
        """The state after the first event of a run, for who folds on and lets go of tasks (see ``letting_go``)."""
        behind = self._behind(first.run_id)
        begun = None if behind is None else letting_go.begin(first, self.log.blob, behind)
        return begun or status_fold.fold(status_fold.initial(first.run_id), first, self.log.blob)

    def _state_at(self, run_id: str, upto: int, *, light: bool = True) -> RunState:
        base = self._from_snapshot(run_id, upto, light=light)
        briefs: Iterable[Brief] = self.log.briefs(run_id, base.version, upto, after_seq=base.seq)
        if upto - base.seq > _FEW:
            rolled_back = self.log.rolled_back(run_id, base.version, upto)
            rollbacks = self._rollbacks(run_id, base.seq, upto) if rolled_back else []
        else:
            briefs = list(briefs)
            rollbacks = [
                (brief[0], event.to_seq)
                for brief in briefs
                if brief[2] == _ROLLED_BACK and isinstance(event := decode_brief(run_id, brief).event, RunRolledBack)
            ]
        if not rollbacks:
            return self._folded(base, briefs)
        spans = kept_spans(rollbacks, upto)
        first = spans[-1][1]  # What counts from the run's start on goes up to there.
        if first < base.seq:
            base = self._state_at(run_id, first, light=light)
            spans.pop()
        last: Brief | None = None

        def kept() -> Iterator[Brief]:
            nonlocal last
            for last in briefs:
                if any(after < last[0] <= end for after, end in spans):
                    yield last

        state = self._folded(base, kept())
        for row in self.log.rows(0, upto, where=_MOVED):
            if row.run_id == run_id:  # No rollback takes that back.
                status_fold.fold(state, decode(row), self.log.blob)
        if last is not None:
            state.seq, state.version = last[0], last[1]
        return state

    def _rollbacks(self, run_id: str, after: int, upto: int) -> list[tuple[int, int]]:
        """The seqs of those of a run, and where they go."""
        rows = self.log.rows(after, upto, where=f"{RUN_LEVEL} AND type = '{_ROLLED_BACK}'")
        events = [(row.seq, decode(row).event) for row in rows if row.run_id == run_id]
        return [(seq, event.to_seq) for seq, event in events if isinstance(event, RunRolledBack)]

    def _folded(self, base: RunState, briefs: Iterable[Brief], cost: Cost | None = None) -> RunState:
        """A state and what came after it. Of a large run that had to be folded from its start on, a snapshot is left."""
        state = replay(base, briefs, self.log.blob, cost, self._behind(base.run_id))
        if self.use_snapshots and isinstance(state.tasks, PassedTasks) and not state.tasks.is_whole:
            row = (at_hand.NAME, at_hand.VERSION, state.seq, at_hand.dump(state))
            self.log.leave_snapshots(state.run_id, [row])
        return state

    def _from_snapshot(self, run_id: str, upto: int, *, light: bool = True) -> RunState:
        """The state of the newest light snapshot, else of the newest whole one; of a large run that has fewer of those."""
        if not self.use_snapshots:
            return status_fold.initial(run_id)
        if light and (state := self._from_light_snapshot(run_id, upto)) is not None:
            return state
        found = self.log.load_snapshot(run_id, status_fold.NAME, status_fold.VERSION, upto)
        return status_fold.initial(run_id) if found is None else status_fold.load(run_id, found[1], self.log.blob)

    def _from_light_snapshot(self, run_id: str, upto: int) -> RunState | None:
        found = self.log.load_snapshot(run_id, at_hand.NAME, at_hand.VERSION, upto)
        if found is None or not self.log.has_task_index:  # Without it each task would be looked for in the whole run.
            return None
        seq, snapshot = found
        try:
            return at_hand.load(
                run_id,
                snapshot,
                self.log.blob,
                OneTask(self.log, run_id, seq),
                lambda: self._state_at(run_id, seq, light=False),
            )
        except at_hand.DAMAGED:  # It is a cache.
            return None

    def _behind(self, run_id: str) -> Behind | None:
        """What gives single tasks of a run that is folded; None where each would be looked for in all of it."""
        if not self.log.has_task_index:
            return None
        return lambda seq: OneTask(self.log, run_id, seq, use_snapshots=self.use_snapshots)

    def _has_snapshot(self, run_id: str) -> bool:
        kinds = ((status_fold.NAME, status_fold.VERSION), (at_hand.NAME, at_hand.VERSION))
        return any(self.log.snapshot_seq(run_id, name, version) for name, version in kinds)

    def save_snapshot(self, state: RunState) -> None:
        """Keep a state as a snapshot of its seq."""
        self.log.save_snapshot(state.run_id, status_fold.NAME, status_fold.VERSION, state.seq, status_fold.dump(state))

    def save_light_snapshot(self, run_id: str, seq: int, snapshot: bytes) -> None:
        """Keep a light snapshot of a run (see ``at_hand``)."""
        self.save_light_snapshots(run_id, [(seq, snapshot)])

    def save_light_snapshots(self, run_id: str, made: Sequence[tuple[int, bytes]]) -> None:
        """Keep some, each with its seq, in one commit."""
        self.log.save_snapshots(run_id, [(at_hand.NAME, at_hand.VERSION, *one) for one in made])

    @_blames
    def task(self, run_id: str, task_id: str, upto: int | None = None) -> TaskState:
        """One task of a run as a reader saw it at a seq (None: now), by its own events and not by those of the run.

        Raises:
            UnknownRun: the run has no event up to there.
            UnknownTask: the run has no such task.
        """
        end = self.log.last_seq() if upto is None else upto
        return OneTask(self.log, run_id, end, use_snapshots=self.use_snapshots).of(task_id)

    @_blames
    def cost(self, run_id: str, upto: int | None = None) -> Cost:
        """What a run has cost, undone work included."""
        total = Cost()
        for row in self.log.briefs(run_id, 0, upto, where=_OF_CHARGES):
            cost_fold.fold(total, decode_brief(run_id, row))
        return total

    @_blames
    def bill(self, run_id: str, upto: int | None = None) -> Iterable[Line]:
        """Every charge of a run, with what became of the work that it paid for. Read anew by each who goes through them."""
        end = self.log.last_seq() if upto is None else upto
        if next(self.log.briefs(run_id, 0, end, where=_OF_CHARGES), None) is None:
            return ()
        records = (decode_brief(run_id, row) for row in self.log.briefs(run_id, 0, end, where=_OF_A_BILL))
        fates = bill_fold.fates_of(records, undone_of(self.log, run_id, end))

        def lines() -> Iterator[Line]:
            rows = self.log.briefs(run_id, 0, end, where=_OF_CHARGES)
            return bill_fold.lines((decode_brief(run_id, row) for row in rows), fates)

        return Passing(lines)

    @_blames
    def spend(self, upto: int | None = None) -> Spend:
        """What the whole store has spent, holds back and has told, and which providers let nobody work.

        The starts and ends of attempts are read of runs that have not ended only, but for starts that reserved something (a
        charge of unknown cost stands for that) or go on with a session.
        """
        end = self.log.last_seq() if upto is None else upto
        state = self._store_wide(SPEND, end)
        if state is not None:
            if state.running:
                open_runs = set(self._open_runs(end))
                state.running = {name: held for name, held in state.running.items() if held.run_id in open_runs}
            return state
        state = Spend()
        for row in self.log.rows(0, end, where=_OF_SPENDING):
            spend_fold.fold_row(state, row)
        running = Spend()
        for run_id in self._open_runs(end):
            for brief in self.log.briefs(run_id, 0, end, where=_OF_SLOTS):
                spend_fold.fold(running, decode_brief(run_id, brief))
        state.running = running.running
        return state

    @_blames
    def spend_of(self, run_id: str, upto: int | None = None) -> Spend:
        """What one run has spent and holds back, by its own events: of ``spend`` all that its own budgets are about."""
        end = self.log.last_seq() if upto is None else upto
        state = Spend()
        for brief in self.log.briefs(run_id, 0, end, where=f"(type IN {_OF_RUN_SPENDING})"):
            spend_fold.fold(state, decode_brief(run_id, brief))
        if state.running and run_id not in self._open_runs(end):
            state.running.clear()
        return state

    def _store_wide(self, fold: StoreWide[State], end: int) -> State | None:
        """A fold of the whole store from its snapshot on; None where it has none and is not worth one.

        What had to fold a long tail up to the end of the log leaves a snapshot.
        """
        if not self.use_snapshots:
            return None
        base = fold.newest(self.log, end)
        since = 0 if base is None else base[0]
        keep = end - since >= KEEP_EVERY and end >= self.log.last_seq()
        if base is None and not keep:
            return None
        state = fold.state(self.log, end, base)
        if keep:
            fold.keep(self.log, end, state)
        return state

    @_blames
    def keep_up(self) -> None:
        """Make new snapshots of what is folded over the whole store, and tell what its blocks name, where that is far behind."""
        end = self.log.last_seq()
        self._keep_up(RUNS, end)
        self._keep_up(OCCUPANCY, end)
        self._keep_up(SPEND, end)
        if end - blocks.covered(self.log) >= blocks.KEEP_EVERY:
            blocks.catch_up(self.log, at_most=_BLOCKS_CAUGHT_UP)

    def _keep_up(self, fold: StoreWide[State], end: int) -> None:
        if end - fold.newest_seq(self.log) >= KEEP_EVERY:
            self._store_wide(fold, end)

    @_blames
    def view(self, run_id: str, upto: int | None = None) -> RunView:
        """State and cost of one moment."""
        end = self.log.last_seq() if upto is None else upto
        if (self.use_snapshots and self._has_snapshot(run_id)) or self.log.rolled_back(run_id, 0, end):
            return RunView(self.state(run_id, end), self.cost(run_id, end))
        cost = Cost()  # Both in one pass, where it begins at the first event.
        state = self._folded(status_fold.initial(run_id), self.log.briefs(run_id, 0, end), cost)
        if state.version == 0:
            raise unknown_run(self.log, run_id, upto)
        return RunView(state, cost)

    @_blames
    def runs(self, upto: int | None = None) -> dict[str, RunSummary]:
        """All runs, oldest first."""
        end = self.log.last_seq() if upto is None else upto
        found = self._store_wide(RUNS, end)
        return runs_fold.fold_all(self.log.run_level(end)) if found is None else found

    @_blames
    def occupancy(self, upto: int | None = None) -> Occupancy:
        """Slots of the whole store, held by runs that have not ended: the others hold none."""
        end = self.log.last_seq() if upto is None else upto
        found = self._store_wide(OCCUPANCY, end)
        if found is not None:
            return occupancy_fold.of_runs(found, set(self._open_runs(end))) if found.slots else found
        state = Occupancy()
        for run_id in self._open_runs(end):
            for row in self.log.briefs(run_id, 0, end, where=_OF_SLOTS):
                occupancy_fold.fold(state, decode_brief(run_id, row))
        return state

    @_blames
    def needs(self, upto: int | None = None) -> Needs:
        """How much memory the attempts that were the last ones of the store have needed."""
        end = self.log.last_seq() if upto is None else upto
        state = Needs()
        for row in self.log.rows(max(0, end - NEEDS_LOOK_BACK), end, where=_OF_NEEDS, stored=True):
            if row.body != ELSEWHERE:  # Of a run that was archived; no archive is needed to start.
                needs_fold.fold(state, decode(row))
        return state

    def _open_runs(self, upto: int) -> list[str]:
        """Those that may hold a slot: not ended, or ended and not released yet, or left with somebody who is to be stopped."""
        runs = self.runs(upto).values()
        return [run.run_id for run in runs if run.status not in status_fold.ENDED or run.holder is not None or run.left]

    def records(self, run_id: str, upto: int | None = None) -> list[Recorded]:
        """Every event of a run, undone ones too.

        Raises:
            UnknownRun: there is none.
        """
        found = self.log.read_run(run_id, 0, upto)
        if not found:
            raise unknown_run(self.log, run_id, upto)
        return found

    def task_records(self, run_id: str, task_id: str, upto: int | None = None) -> list[Recorded]:
        """The events that name a task, undone ones too, and the rollbacks of its run: all that its attempts are told by.

        Raises:
            UnknownRun: there is no such run.
        """
        end = self.log.last_seq() if upto is None else upto
        if not self.log.has_begun(run_id, end):
            raise unknown_run(self.log, run_id, upto)
        wanted = (Wanted(run_id, task_id=task_id), Wanted(run_id, types=(_ROLLED_BACK,)))
        rows = [row for one in wanted for row in select(self.log, one, end)]
        return [decode(row) for row in sorted(rows, key=attrgetter("seq"))]


def placed(log: Log, state: RunState) -> RunState:
    """The state, with the places where the files of an imported run are here. Its events name those of another machine."""
    if log.carried is not None and state.run_id == log.carried.run_id:
        state.workdir, state.repository = log.carried.workdir, log.carried.repository
    return state


def unknown_run(log: Log, run_id: str, upto: int | None = None) -> UnknownRun:
    """The error for a run that is not there, with the nearest that is, or that it had not begun by then."""
    if upto is not None and (first := next(log.briefs(run_id), None)) is not None:
        return UnknownRun(f"run {run_id} had not begun at event {upto}", hint=f"its first event is {first[0]}")
    known = list(Projector(log).runs(upto))
    hint = nearest(run_id, known) if known else "`parallel-agents run PLAN` makes the first one"
    return UnknownRun(f"there is no run {run_id!r}" + (f" at event {upto}" if upto is not None else ""), hint=hint)
