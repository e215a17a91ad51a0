"""One tick of dispatching: catch up with the log, drain ends, plan, append in one commit, then make the world so.

The dispatcher owns the state of the runs that its process holds. It decides inside the write transaction, so slots and
leases hold across processes; what it decided is folded before the commit, and thrown away and read anew if the commit fails.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import Recorded, decode, new_ids
from parallel_agents.eventstore.submission import uncollected
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.at_hand import Writer
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler import decide, trouble
from parallel_agents.scheduler.accounts import Accounts, charges_of, has_agents
from parallel_agents.scheduler.agents.granting import runner_name
from parallel_agents.scheduler.attempts import Attempts, Held, checked
from parallel_agents.scheduler.awake import AwakeClock
from parallel_agents.scheduler.circuits import Breakers
from parallel_agents.scheduler.decide_money import decide_held
from parallel_agents.scheduler.governor import Governor
from parallel_agents.scheduler.machine_load import UNKNOWN, MachineLoad, Usage
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan, stage_over
from parallel_agents.scheduler.process import holder_alive, own_identity
from parallel_agents.scheduler.redecide import RESTED, facts_to_record, kept_from_more
from parallel_agents.scheduler.resources import FreeSpace
from parallel_agents.scheduler.rests import Rests
from parallel_agents.scheduler.run_time import RunTime
from parallel_agents.scheduler.runners.protocol import Ended, Runner
from parallel_agents.scheduler.throttle import decide_throttle
from parallel_agents.scheduler.upkeep import Upkeep
from parallel_agents.scheduler.vitals import HealthWatch
from parallel_agents.scheduler.work import APPROVAL, decide_work, kept_of_undone

if TYPE_CHECKING:
    from parallel_agents.scheduler.checkouts import LaneMaker

CHECK_HOLDERS_US = 1_000_000
"""How often the holders of other runs are looked at: a dead one is seen within a second."""


class Progress(NamedTuple):
    """What a waiting caller needs to know of a run, as of the last tick."""

    status: str
    running: int
    stuck: bool  # Only a person can go on: paused, or nothing left but what is blocked.


class Dispatcher:
    """Dispatches the runs that it is told to hold, or all that nobody holds. One thread at a time calls ``tick``."""

    def __init__(
        self,
        log: Log,
        runners: Mapping[str, Runner],
        *,
        kind: str,
        takes_all: bool = False,
        takes_left: Callable[[], bool] | None = None,
        clock: Callable[[], int] = wall_clock_us,
        draw: Callable[[], float] = random.random,
        environ: Mapping[str, str] | None = None,
        used: Callable[[str], Usage | None] = lambda attempt_id: None,
        steady: Callable[[], int] | None = None,
        wake: Callable[[], None] = lambda: None,
        live_spend: Callable[[], Mapping[str, int]] = dict,
        load: Callable[[], MachineLoad] = lambda: UNKNOWN,
        lane: LaneMaker | None = None,
        snapshots: bool = True,
    ) -> None:
        self.log = log
        self.runners = runners
        self.projector = Projector(log)
        self.held: dict[str, Held] = {}
        self.progress: dict[str, Progress] = {}
        self.listeners: list[Callable[[list[Recorded]], None]] = []
        self.name_attempts: Callable[[Sequence[str]], Sequence[str]] = lambda task_ids: new_ids(len(task_ids))
        self._me: dict[str, Any] = {**own_identity().to_dict(), "kind": kind}
        self._takes_all = takes_all
        self._takes_left = takes_left
        self._clock = clock
        self._draw = draw
        self._draining = False
        self._at_rest = False  # Whether a tick that was told to start nothing left nothing running.
        self._steady = steady = steady or AwakeClock().now_us
        self._times: dict[
            str, RunTime
        ] = {}  # Of the runs that are held, and of those that a failed commit took from us.
        self._rest_ends: dict[str, dict[str, int]] = {}  # Of the same runs, as ``Rests`` has them.
        self._steady_us = (0, 0)  # Of this tick, before and after the time of its events was read.
        self._free_space = FreeSpace(files_home(Path(log.path)), steady)
        self._wanted: set[str] = set()  # Runs to claim by name.
        self._asked: set[str] = set()  # Those that were ever asked for by name.
        self._taken: set[str] = set()  # Those that this dispatcher has held.
        self._leaving: set[str] = set()  # Runs to let go of.
        self._hands_back = False  # Whether to let go of all that nobody has asked for.
        self._requests: deque[tuple[str, str]] = deque()  # From other threads.
        self._completed: set[str] = set()  # Attempts that have ended whose task is completed by this very commit.
        self._seen = -1  # The last seq folded; -1 before the first look.
        self._snapshots = snapshots
        self._upkeep = Upkeep(log, self.projector, steady)
        self._occupancy = Occupancy()
        self._summaries: dict[str, RunSummary] = {}
        self._free_runs: set[str] = set()  # Not over and not held by this process.
        self._holders_checked_us = 0
        self.accounts = Accounts(self.projector, live_spend)
        self.breakers = Breakers(log)
        self.attempts = Attempts(
            log, runners, self.held, self._wanted, lambda run_id: self._occupancy.by_run.get(run_id, ()),
            clock=clock, steady=steady, environ=environ, used=used, wake=wake, cut=self.accounts.cut, lane=lane,
        )  # fmt: skip
        self.calls = self.attempts.calls
        self._health = HealthWatch(self.attempts, steady)
        self.governor = Governor(self.projector, load, steady, self.attempts.launched)

    def hold(self, run_id: str) -> None:
        """Ask for a run to be dispatched by this process as soon as no other living process holds it. Any thread."""
        self._requests.append(("hold", run_id))

    def let_go(self, run_id: str) -> None:
        """Ask for a run to be released at the next tick, unless it can go on. Any thread."""
        self._requests.append(("let_go", run_id))

    def hand_back(self) -> None:
        """From the next tick on, leave runs that were taken unasked to others, with what runs of them. Any thread."""
        self._requests.append(("hand_back", ""))

    def drain(self) -> None:
        """From the next tick on start nothing and claim nothing; what runs is recorded as it ends. Any thread."""
        self._draining = True

    @property
    def drained(self) -> bool:
        """Whether nothing runs of what this process holds, as of the last tick, and every end is recorded. Any thread."""
        return self._draining and self._at_rest

    def leave(self) -> None:
        """After the last tick: record what has ended, then release every run, so that others can go on at once.

        Attempts that run can be adopted, but for callables: a run with one under way stays ours as long as we live.
        """
        if not self.held:
            return
        self.drain()
        try:
            self.tick()
            for run_id, held in self.held.items():
                if not (held.state.callables and self._occupancy.of_run(run_id)):
                    self._leaving.add(run_id)
            self.log.transact(self._release_all, actor=str(self._me["kind"]))
            reach("release.committed")
        except StoreError as error:
            trouble.warn("could not let go of {}: {}", ", ".join(self.held) or "all runs", error)
        self.held.clear()

    def close(self) -> None:
        """Let what is done about files come to its end. After the last tick."""
        self.attempts.close()

    @property
    def busy(self) -> bool:
        """Whether this process has a run to dispatch, or an end or a request to take up. Any thread."""
        return bool(self.held or self._requests or self._wanted or self.attempts.polled or self.attempts.ends)

    def tick(self) -> int | None:
        """Do all that is due now.

        Returns:
            When something is due next, in microseconds since the epoch; None where only an event can change that.
        Raises:
            StoreError: the store refuses; nothing was appended, running attempts go on, the next tick starts anew.
        """
        with ExitStack() as collecting:  # What a tick makes is gone, or stays, when garbage is looked for again.
            return self._tick(collecting)

    def _tick(self, collecting: ExitStack) -> int | None:
        self.attempts.poll()
        while self._requests:
            what, run_id = self._requests.popleft()
            match what:
                case "hold":
                    self._wanted.add(run_id)
                    self._asked.add(run_id)
                case "let_go":
                    self._leaving.add(run_id)
                case _:
                    self._hands_back = True
        if self._seen < 0:
            self._load()
        self._health.look(held.state for held in self.held.values())
        started: list[tuple[str, str]] = []
        adopted: list[str] = []
        fresh: list[Recorded] = []
        steady_us = self._steady()

        def decide_all(draft: Draft) -> None:
            collecting.enter_context(uncollected())  # Not while the store is waited for.
            self._steady_us = (steady_us, self._steady())
            self._catch_up(draft, fresh)
            self._claim(draft, adopted)
            self.attempts.look_at_ends()
            self._take_ends(draft)
            self._let_go(draft)
            self._plan(draft, started)

        try:
            fresh += self.log.transact(decide_all, actor=str(self._me["kind"]))
        except BaseException:
            self._forget()
            raise
        if adopted:
            reach("claim.committed")
        if self.attempts.ends:
            reach("ends.committed")
        if started:
            reach("starts.committed")
        self.attempts.committed(self._completed)
        self._health.committed(held.state for held in self.held.values())
        self._leaving.clear()
        if self._wanted:
            self._answer_wanted()
        if fresh:
            self._seen = fresh[-1].seq
            self._publish(fresh)
        self.attempts.make_so(started, adopted)
        self._upkeep.after_tick(self._seen, quiet=not fresh)
        self._at_rest = self._draining and not any(self._occupancy.of_run(run_id) for run_id in self.held)
        return self._next_due()

    def _load(self) -> None:
        self.projector.keep_up()  # Here, where nobody waits for us to commit.
        end = self.log.last_seq()
        self._summaries = self.projector.runs(end)
        self._occupancy = self.projector.occupancy(end)
        self.breakers.load(end)
        self._free_runs = {name for name in self._summaries if not self._is_over(name)}
        # Also one that a commit which failed would have released: the log has us as its holder, so nobody else comes. What
        # another dispatcher of this very process holds has the same holder, and is not ours.
        ours = self._taken & self._free_runs
        self._wanted.update(name for name in ours if self._summaries[name].holder == self._me)
        self._seen = end
        self._holders_checked_us = 0

    def _is_over(self, run_id: str) -> bool:
        """Whether a run has ended and none of its attempts holds a slot, those that a rollback has undone included."""
        return self._summaries[run_id].status in status_fold.ENDED and self._occupancy.of_run(run_id) == 0

    def _answer_wanted(self) -> None:
        """Who waits for a run that we cannot hold learns how it stands."""
        for run_id in list(self._wanted):
            summary = self._summaries.get(run_id)
            if run_id in self.held:
                self._wanted.discard(run_id)
            elif summary is not None:
                self.progress[run_id] = Progress(summary.status, 0, False)
                if self._is_over(run_id):
                    self._wanted.discard(run_id)

    def _forget(self) -> None:
        """After a failed commit the folded state is ahead of the log: read everything anew at the next tick."""
        self._wanted.update(self.held)
        self.held.clear()
        self.accounts.forget()
        self.governor.forget()
        self._seen = -1

    def _add(self, draft: Draft, run_id: str, event: Event) -> None:
        self._fold(draft.add(run_id, event))

    def _add_all(self, draft: Draft, run_id: str, events: list[Event]) -> None:
        """The same as ``_add`` of each, in the one loop that every event of an attempt comes through."""
        records = draft.add_all(run_id, events)
        held = self.held.get(run_id)
        if held is None or self.attempts.files is not None or not _OF_TASKS.issuperset(map(type, events)):
            for record in records:
                self._fold(record)
            return
        occupancy, state, blob = self._occupancy, held.state, self.log.blob
        for record in records:
            occupancy_fold.fold(occupancy, record)
            status_fold.fold(state, record, blob)
        held.snapshot_seq_count += len(records)
        if self.accounts.spend is not None:
            for record in records:
                self.accounts.fold(record)
        if self.governor.asked:
            for record in records:
                self.governor.fold(record)

    def _fold(self, record: Recorded) -> None:
        occupancy_fold.fold(self._occupancy, record)
        self.accounts.fold(record)
        self.breakers.fold(record)
        self.governor.fold(record)
        if type(record.event) in _RUN_LEVEL:
            self._fold_run_level(record)
        held = self.held.get(record.run_id)
        if held is not None:
            status_fold.fold(held.state, record, self.log.blob)
            held.snapshot_seq_count += 1
            if self.attempts.files is not None:
                self.attempts.files.learn(record)

    def _fold_run_level(self, record: Recorded) -> None:
        runs_fold.fold(self._summaries, record)
        summary = self._summaries.get(record.run_id)
        if summary is None:
            return
        if isinstance(record.event, ev.RunClaimed) and record.event.holder != self._me:
            self._lose(record.run_id)  # Somebody took it over: whatever we still do for it is theirs.
        if record.run_id in self.held or self._is_over(record.run_id):
            self._free_runs.discard(record.run_id)
        else:
            self._free_runs.add(record.run_id)
            self._holders_checked_us = 0

    def _catch_up(self, draft: Draft, fresh: list[Recorded]) -> None:
        """Fold what other processes appended since the last tick."""
        if draft.seq == self._seen:
            return
        stale: set[str] = set()
        for row in self.log.rows(self._seen, draft.seq):
            record = decode(row)
            fresh.append(record)
            if isinstance(record.event, ev.RunRolledBack) and record.run_id in self.held:
                stale.add(record.run_id)
                del self.held[record.run_id]
            self._fold(record)
        for run_id in stale:
            if self._summaries[run_id].holder == self._me:
                self._take(run_id)
        self._seen = draft.seq

    def _take(self, run_id: str) -> None:
        state = self.projector.whole_state(run_id)
        self.accounts.open(state)
        self.governor.open(state)
        self._taken.add(run_id)
        agenda = Agenda(state)
        self.held[run_id] = Held(state, agenda, Path(state.workdir), Writer(state), agents=has_agents(state))
        self._free_runs.discard(run_id)
        known = self._times.get(run_id)
        if known is None or known.since_us != state.active_since_us or known.used_us < state.used_us:
            self._times[run_id] = RunTime.of(state, self._steady())
        self._rest_ends.setdefault(run_id, {})
        files = self.attempts.files_of(state)
        if files is not None:
            files.take_run(state)

    def _lose(self, run_id: str) -> None:
        held = self.held.pop(run_id, None)
        self._times.pop(run_id, None)
        self._rest_ends.pop(run_id, None)
        self.governor.lose(run_id)
        if held is not None and self.attempts.files is not None:
            self.attempts.files.let_go(held.state)

    def _claim(self, draft: Draft, adopted: list[str]) -> None:
        """Take the runs that this process was told to hold, and those whose holder is dead or that nobody holds."""
        now_us = self._clock()
        candidates = self._wanted & self._free_runs
        if abs(now_us - self._holders_checked_us) >= CHECK_HOLDERS_US:  # It may have been set back.
            self._holders_checked_us = now_us
            candidates |= self._free_runs if self._takes_all else self._left_runs()
        for run_id in sorted(
            candidates, key=lambda name: (name not in self._asked, self._summaries[name].history[0].seq)
        ):
            summary = self._summaries[run_id]
            if summary.holder != self._me and (self._draining or (summary.holder and holder_alive(summary.holder))):
                continue
            claim = ev.RunClaimed(holder=self._me, epoch=summary.epoch + 1)
            if summary.holder == self._me:
                self._take(run_id)
            else:
                record = draft.add(run_id, claim)
                self._rest_ends.pop(run_id, None)  # Where a claim of it failed, by a time that no event tells of.
                self._take(run_id)
                self._fold(record)
                reach("claim.drafted")
            adopted.append(run_id)

    def _left_runs(self) -> set[str]:
        """The runs whose dispatcher died or went away in the middle of them, where they are ours to go on with."""
        if self._takes_left is None or self._hands_back:
            return set()
        left = {run_id for run_id in self._free_runs if self._is_left(self._summaries[run_id])}
        return left if left and self._takes_left() else set()

    def _is_left(self, run: RunSummary) -> bool:
        """Never one that a person has paused, unless something of it still runs; nor one that only its program can call."""
        if run.callables or (run.status == status_fold.PAUSED and not self._occupancy.of_run(run.run_id)):
            return False
        return run.left if run.holder is None else not holder_alive(run.holder)

    def _take_ends(self, draft: Draft) -> None:
        self._completed.clear()
        attempts, files = self.attempts, self.attempts.files
        outdated: list[Ended] = []
        decided: dict[str, list[Event]] = {}  # By run. An end changes nothing that another one is decided on.
        taken: set[str] = set()
        for ended in attempts.ends:
            attempt_id = ended.attempt_id
            run_id = attempts.launched.get(attempt_id, "")
            held = self.held.get(run_id)
            if held is None or attempt_id in taken:
                continue
            taken.add(attempt_id)
            events = decided.setdefault(run_id, [])
            work = files.works.get(attempt_id) if files is not None else None
            if attempt_id in held.state.running:
                if files is not None and files.outdated(held.state, ended):
                    outdated.append(ended)
                    continue
                if held.agents:
                    ended = self._settled(draft, held.state, ended)
                self._rest_ends[run_id].pop(attempt_id, None)  # Of a commit that failed: its rest is yet to begin.
                task = held.state.tasks[held.state.running[attempt_id]]
                ended, said = self.breakers.judged(held.state, task, ended, draft.at_us)
                if said is not None:
                    self._add(draft, ev.STORE_RUN, said)
                if work is None:
                    ended = checked(held.state, task, ended)
                    if held.agents:
                        ended = decide.attributed(task, ended)
                    events += decide.decide_end(held.state, ended, draft.at_us, self._draw())
                    continue
                # What work means depends on what was merged before.
                self._add_all(draft, run_id, _paused_once(decided.pop(run_id)))
                self._add_all(draft, run_id, decide_work(held.state, ended, work, draft.at_us, self._draw()))
                if task.status == status_fold.COMPLETED:
                    self._completed.add(attempt_id)
            elif attempt_id in self._occupancy.slots:
                if held.agents:
                    self._settled(draft, held.state, ended)
                task_id = attempts.start_of(run_id, attempt_id).task_id
                events += kept_of_undone(task_id, attempt_id, work) if work is not None else []
                reason = "its attempt was undone by a rollback"
                events.append(ev.ResultDiscarded(task_id=task_id, attempt_id=attempt_id, reason=reason))
        for run_id, events in decided.items():
            self._add_all(draft, run_id, _paused_once(events) if self.held[run_id].agents else events)
        for ended in outdated:
            attempts.merge_again(ended)
        if attempts.ends:
            reach("ends.drafted")

    def _settled(self, draft: Draft, state: RunState, ended: Ended) -> Ended:
        """An end that this commit tells of, with what it means for money. Once only: it may have been told before."""
        if self.accounts.spend is None:
            return ended
        ended = self.accounts.cut_short(ended, state)
        self._account(draft, state, ended)
        return ended

    def _account(self, draft: Draft, state: RunState, ended: Ended) -> None:
        """What an attempt of an agent is charged with, before its end, and what it tells of its provider."""
        if self.accounts.spend is None or not (ended.charges or ended.provider or ended.denied):
            return
        task_id = state.running.get(ended.attempt_id)
        start = self.attempts.start_of(state.run_id, ended.attempt_id) if task_id is None else None
        task = state.tasks[start.task_id if start is not None else task_id or ""]
        agent_type = (start.role if start is not None else task.role) or task.task.agent_type
        runner = (start.runner if start is not None else task.runner) or ""
        charges = charges_of(task.task.task_id, agent_type, runner, ended)
        denied: list[Event] = []
        if ended.denied:
            task_id = task.task.task_id
            denied.append(ev.ToolsDenied(task_id=task_id, attempt_id=ended.attempt_id, tools=list(ended.denied)))
        self._add_all(draft, state.run_id, charges + denied)
        reach("costs.drafted")
        model = start.model if start is not None else task.model
        started_us = task.started_at_us if start is None else None
        said = self.accounts.of_provider(ended, started_us or 0, model, draft.at_us)
        if said is not None:
            self._add(draft, ev.STORE_RUN, said)

    def _let_go(self, draft: Draft) -> None:
        for run_id in [name for name in self.held if name in self._leaving]:
            if decide.is_stuck(self.held[run_id].state) and self._occupancy.of_run(run_id) == 0:
                self._release(draft, run_id)
        if self._hands_back:
            for run_id in [name for name in self.held if name not in self._asked]:
                self._release(draft, run_id, left=True)

    def _release(self, draft: Draft, run_id: str, *, left: bool = False) -> None:
        used_s = self._used_s(run_id)
        self._lose(run_id)
        self._wanted.discard(run_id)  # Where it is because a commit failed.
        self._add(draft, run_id, ev.RunReleased(epoch=self._summaries[run_id].epoch, left=left, used_s=used_s))
        reach("release.drafted")

    def _used_s(self, run_id: str) -> float:
        return self._times[run_id].used_us / 1e6

    def _release_all(self, draft: Draft) -> None:
        self._catch_up(draft, [])
        for run_id in [name for name in self.held if name in self._leaving]:
            # To end a daemon is a decision of somebody's; but who runs in a run that is rolled back to its end has to be stopped.
            undone = self.held[run_id].state.ended and self._occupancy.of_run(run_id) > 0
            self._release(draft, run_id, left=undone or not self._takes_all)

    def _plan(self, draft: Draft, started: list[tuple[str, str]]) -> None:
        steady_us = self._steady()
        self.governor.begin(self._occupancy)
        for run_id, held in self.held.items():
            state = held.state
            if state.status == status_fold.SUBMITTED and not state.cancel_requested:
                self._add(draft, run_id, ev.RunStarted())
            if held.agents and (again := self.accounts.waited(state, draft.at_us)) is not None:
                self._add(draft, run_id, again)
            waits = held.agents and self.accounts.waits(state, draft.at_us)
            used_us = self._times[run_id].look(state, steady_us, waits=waits)
            if not waits and (overdue := decide.decide_overdue(state, used_us)) is not None:
                self._add(draft, run_id, overdue)
            free = None if self.attempts.files_of(state) is None else self._free_space.bytes()
            for event in self._health.due(state):
                self._add(draft, run_id, event)
            if self.breakers.asks_for_proof(state, draft.at_us):
                for closed in self.breakers.proven(state, self.attempts.alive(), self._steady(), draft.at_us):
                    self._add(draft, ev.STORE_RUN, closed)
            throttle = decide_throttle(state, free)
            if throttle is not None:
                self._add(draft, run_id, throttle)
                if isinstance(throttle, ev.DispatchThrottled):
                    trouble.warn("run {} waits: {}", run_id, throttle.reason)
            self._add_all(draft, run_id, self.governor.due(state, draft.at_us))
            self._look_at_budgets(draft, run_id, state)
        levels = range(4) if len(self.held) > 1 else range(3, 4)
        if self._draining:
            levels = range(-1, 0)  # No task is as urgent as that.
        pressed: set[str] = set()
        for priority in levels:
            for run_id, held in self.held.items():
                facts = self._facts(held.state, draft.at_us)
                told = facts_to_record(facts, run_id)
                decision = plan(held.state, held.agenda, facts, draft.at_us, priority=priority)
                then = kept_from_more(decision, priority if len(levels) > 1 else None)
                self._carry_out(draft, run_id, held.state, decision, started, told, then)
                if decision.pressed is not None:
                    pressed.add(run_id)
                if priority != levels[-1] or not decision.held:
                    continue  # What is less urgent may cost nothing, and start.
                if (pause := decide_held(held.state, decision, told)) is not None:
                    self._add(draft, run_id, pause)
        for run_id, held in list(self.held.items()):
            slots = self._occupancy.of_run(run_id)
            self._add_all(draft, run_id, self.governor.look_back(held.state, run_id in pressed, slots))
            if not self._draining:
                self._pass_barriers(draft, run_id, held, started)
            finish = decide.decide_finish(held.state)
            if finish is not None and self._occupancy.of_run(run_id) == 0:
                files = self.attempts.files_of(held.state)
                events = [finish] if files is None else files.around_end(held.state, finish)
                for event in events:
                    self._add(draft, run_id, event)
                if events:
                    reach("finish.drafted")
            elif held.state.ended and self._occupancy.of_run(run_id) == 0:  # Rolled back to its end.
                self._add(draft, run_id, ev.RunReleased(epoch=self._summaries[run_id].epoch))

    def _pass_barriers(self, draft: Draft, run_id: str, held: Held, started: list[tuple[str, str]]) -> None:
        """What is due between two stages, and then what that lets start."""
        state, files = held.state, self.attempts.files_of(held.state)
        if files is None:
            return
        trespass = files.trespass(state)
        for event in ([] if trespass is None else [trespass]) + files.warnings(state):
            self._add(draft, run_id, event)
        while held.agenda.barriers and state.status == status_fold.RUNNING and not state.cancel_requested:
            over = stage_over(state)
            if over is None or (decide.is_last(state, over) and any(state.stage_failed.values())):
                return
            events = files.barrier(state, over, self.attempts.environment(state, None))
            for event in events:
                self._add(draft, run_id, event)
            if not events:
                return
            facts = self._facts(state, draft.at_us)
            told = facts_to_record(facts, run_id)
            decision = plan(state, held.agenda, facts, draft.at_us)
            self._carry_out(draft, run_id, state, decision, started, told, kept_from_more(decision))

    def _facts(self, state: RunState, now_us: int) -> Facts:
        """What a decision in a run depends on besides its state."""
        run_id = state.run_id
        facts = Facts(len(self._occupancy.slots), self._occupancy.of_run(run_id), rests=self.rests_of(run_id))
        facts.circuits = self.breakers.facts(state, self._occupancy.slots, now_us)
        facts.machine = self.governor.machine(state)
        if self.accounts.spend is not None and self.held[run_id].agents:
            facts.agents = self.accounts.facts(state, {name: held.state for name, held in self.held.items()}, now_us)
        return facts

    def rests_of(self, run_id: str) -> Rests:
        """Those of a run that is held, as of this tick."""
        return Rests(*self._steady_us, self._rest_ends[run_id])

    def _look_at_budgets(self, draft: Draft, run_id: str, state: RunState) -> None:
        facts = self._facts(state, draft.at_us).agents
        if facts is not None and not state.ended:
            for event in self.accounts.due(facts, state):
                self._add(draft, run_id, event)

    def _carry_out(
        self, draft: Draft, run_id: str, state: RunState, decision: Decision, started: list[tuple[str, str]],
        told: dict[str, Any], then: dict[str, Any],
    ) -> None:  # fmt: skip
        """Append what was decided, with what it was decided on.

        Args:
            told, then: for the facts of its starts, and for those of the last of them; see ``redecide``.
        """
        for skip in decision.skips:
            self._add(draft, run_id, ev.TaskSkipped(task_id=skip.task_id, because=skip.because, reason=skip.reason))
        for task_id in decision.cancels:
            self._add(draft, run_id, decide.cancelled_unstarted(state.tasks[task_id], state.reason))
        self.governor.note(state, decision)
        starts = [task_id for what, task_id in decision.steps if what == "start"]
        left, attempt_ids = len(starts), iter(self.name_attempts(starts))
        facts = Facts(len(self._occupancy.slots), self._occupancy.of_run(run_id), used_s=self._used_s(run_id))
        events: list[Event] = []
        files = self.attempts.files_of(state)
        for what, task_id in decision.steps:
            if what == "queue":
                events.append(ev.TaskQueued.trusted({"task_id": task_id, "reason": ""}))
            elif what == "block":
                events.append(ev.TaskBlocked(task_id=task_id, reason=APPROVAL))
            else:
                attempt_id = next(attempt_ids)
                runner = runner_name(state.tasks[task_id].task)
                granted = decision.grants.get(task_id)
                there = decision.rooms.get(task_id)
                figures = told if there is None else {**there.figures, **told}
                if (rest_us := state.tasks[task_id].not_before_us) is not None and rest_us > draft.at_us:
                    figures = {**figures, RESTED: True}
                left -= 1
                if not left:
                    figures = {**figures, **then}
                start = decide.decide_start(state, task_id, attempt_id, runner, facts, granted, figures)
                events.append(start)
                if (tried := self.breakers.tried(start, draft.at_us)) is not None:
                    self._add(draft, ev.STORE_RUN, tried)
                begin = start.begin_commit or start.base_commit
                checkpoint = None if files is None else files.before_start(state, task_id, attempt_id, begin)
                if checkpoint is not None:
                    events.append(checkpoint)
                started.append((run_id, attempt_id))
                facts.store_slots += 1
                facts.run_slots += 1
        self._add_all(draft, run_id, events)
        if started:
            reach("starts.drafted")

    def _publish(self, fresh: list[Recorded]) -> None:
        """Tell who listens, before anything is started and while the state of a run that has ended is still there."""
        ended = []
        for run_id in dict.fromkeys(record.run_id for record in fresh):  # In the order of the log, always the same.
            held = self.held.get(run_id)
            if held is not None:
                state = held.state
                # An attempt that a rollback has undone is no part of the state any more, and runs until it is stopped.
                stuck = decide.is_stuck(state) and self._occupancy.of_run(run_id) == 0
                self.progress[run_id] = Progress(state.status, len(state.running), stuck)
                if self._snapshots:
                    self._upkeep.keep_snapshots(held, fresh)
                if state.ended and self._occupancy.of_run(run_id) == 0:
                    ended.append(run_id)
            elif run_id in self._summaries:
                summary = self._summaries[run_id]
                self.progress[run_id] = Progress(summary.status, 0, False)
        for listener in self.listeners:
            try:
                listener(fresh)
            except Exception:
                trouble.report_exception("a listener failed; dispatching goes on")
        if ended:
            reach("finish.committed")
        for run_id in ended:
            if self.attempts.files is not None:
                self.attempts.files.go_on(self.held[run_id].state)
            self._lose(run_id)

    def _next_due(self) -> int | None:
        due = self.attempts.due()
        if (freed := self.accounts.next_due_us(self._clock())) is not None:
            due.append(freed)
        if (closed := self.breakers.next_due_us(self._clock())) is not None:
            due.append(closed)
        now_us = self._clock()
        for run_id, held in self.held.items():
            if (left_us := held.agenda.next_rest_us(held.state)) is not None:
                due.append(now_us + left_us)
            left_us = decide.time_left_us(held.state, self._times[run_id].used_us)
            if left_us is not None and not (held.agents and self.accounts.waits(held.state, now_us)):
                due.append(now_us + left_us)
        return min(due, default=None)


def _paused_once(events: list[Event]) -> list[Event]:
    """What ends in one commit mean for a run, with the first of the pauses that follow from them."""
    pauses = [event for event in events if isinstance(event, ev.RunPaused)]
    return [event for event in events if event not in pauses[1:]] if len(pauses) > 1 else events


_RUN_LEVEL = frozenset(cls for name, cls in ev.EVENT_TYPES.items() if name.startswith("Run"))  # As the log has it.
_OF_TASKS = frozenset({ev.TaskQueued, ev.TaskStarted, ev.TaskCompleted, ev.TaskFailed, ev.TaskRetryScheduled})
