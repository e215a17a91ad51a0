"""The files of the runs that a dispatcher holds: orders for checkouts and merges, and refs that follow the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import attempts_folder, files_home
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded, decode_brief, derived_id, new_id
from parallel_agents.projections.status import COMPLETED, RUNNING, RunState, TaskState
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.checkouts import GATES, Checkouts, Followed, LaneMaker, Order, Prepared
from parallel_agents.scheduler.decide import GATE_FAILED, storable_text
from parallel_agents.scheduler.harvest import Harvest, StageChecked
from parallel_agents.scheduler.probing import EVERY_S
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.unfinished import unfinished
from parallel_agents.scheduler.work import Work, decide_stage, wants_merge

_NAMES_COMMITS = "type IN ('RunSubmitted', 'RunForked', 'TaskCompleted', 'CheckpointCreated', 'CheckpointRestored')"

FOREIGN = "somebody put"
"""How the reason of a pause begins that a commit of somebody else's on the run's branch is the reason of."""
SOON_S = 1.0  # Between the first tries to let refs follow: a lock is gone by then, or a disk has room again.
AGAIN_S = 5.0  # Between later ones: somebody stands on another branch by then.
TRIES = 3  # So often it is tried before a run ends with refs that do not follow: nobody looks after it then.


def before_checkpoint(attempt_id: str) -> str:
    """The checkpoint of an attempt's start."""
    return derived_id("before", attempt_id)


def known_commits(log: Log, run_id: str) -> set[str]:
    """Where the branch of a run may stand: commits that its events name, undone ones included."""
    known = _Known()
    for brief in log.briefs(run_id, where=_NAMES_COMMITS):
        known.learn(decode_brief(run_id, brief))
    return known.commits


@dataclass(slots=True)
class _Known:
    """What the log has said of a run's commits, undone events included."""

    commits: set[str] = field(default_factory=set)  # Where the branch may stand.
    to_hold: dict[str, str] = field(
        default_factory=dict
    )  # Checkpoint id -> commit, without their ref as far as we know.
    holding: set[str] = field(default_factory=set)  # Checkpoints whose refs are being made,
    failed: set[str] = field(default_factory=set)  # and those where that was tried in vain.
    restores: int = 0  # How many checkpoints the log has of what a failed run left in a shared directory.
    to_take_back: str | None = None  # The commit that such a directory is to be made equal to, before that begins.
    taken_back: bool | None = None  # Whether that has come to its end, whatever came of it; None before it is wanted.
    ends: int = 0  # How often the log has told of the run's end with a checkpoint.
    last: tuple[str, str | None] | None = None  # The checkpoint of the end that comes, and its commit.
    followed: str | None = None  # The integration line that the branch was last told to follow.
    foreign: str | None = None  # A commit of somebody else's on the branch.
    answered: str | None = None  # The integration line that it was last heard of, whatever came of it.
    failures: int = 0  # Of that, in a row.
    again_at: float | None = None  # When refs are told to follow once more (monotonic), after that has failed.
    probe_at: float | None = None  # When unfinished work is compared next (monotonic); None while that is under way.
    met: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)  # What was warned of: attempts and paths.

    def learn(self, record: Recorded) -> None:
        """Take note of an event that names a commit."""
        match record.event:
            case ev.RunSubmitted(base_commit=commit) | ev.RunForked(commit=commit):
                self.commits.add(commit or "")
            case ev.TaskCompleted(commit=commit) | ev.CheckpointRestored(commit=commit):
                self.commits.add(commit or "")
            case ev.CheckpointCreated(checkpoint_id=name, commit=commit):
                self.ends += record.event.kind == "after_run"
                self.restores += record.event.kind == "before_restore"
                if commit is not None and (self.last is None or self.last[0] != name):
                    self.to_hold[name] = commit
            case _:
                pass


class RunFiles:
    """What a dispatcher does about files. Called from its thread only.

    Args:
        start_gate: runs a command as a supervised process.
        wake: called from other threads when a step is done.
        lane: see ``Checkouts``.
    """

    def __init__(
        self, log: Log, start_gate: Callable[[Launch], None], wake: Callable[[], None], lane: LaneMaker | None = None
    ) -> None:
        self._log = log
        self.checkouts = Checkouts(files_home(Path(log.path)), wake, lane)
        self.harvest = Harvest(self.checkouts, start_gate)
        self.works: dict[str, Work] = {}  # Of ends that are to be committed, by attempt.
        self._orders: dict[str, Order] = {}
        self._known: dict[str, _Known] = {}
        self._told: set[tuple[str, str]] = set()
        self.begun: set[str] = set()  # Attempts whose process runs in its checkout.
        self._folder = str(attempts_folder(log.path))

    def take_run(self, state: RunState) -> None:
        """A run is ours from here on: learn which commits of it the log knows, and end the gates that run in its checkouts."""
        run_id = state.run_id
        known = self._known[run_id] = _Known(probe_at=time.monotonic() + EVERY_S if _compares(state) else None)
        for brief in self._log.briefs(run_id, where=_NAMES_COMMITS):
            known.learn(decode_brief(run_id, brief))
        if state.plan.files.gates and state.repository is not None:
            root, ours = Path(self._folder, run_id), self.harvest.gates_of(run_id)
            places = [root / task_id / attempt_id for attempt_id, task_id in state.running.items()]
            gates = [gate for place in (*places, *root.glob(f"{GATES}/*/*")) for gate in place.glob("gates/*")]
            left = [gate for gate in unfinished(gates) if gate.name not in ours]
            if left:
                self.checkouts.end_gates(state.repository, left)

    def learn(self, record: Recorded) -> None:
        """Take note of an event that names a commit."""
        known = self._known.get(record.run_id)
        if known is not None:
            known.learn(record)

    def order(self, state: RunState, task: TaskState, attempt_id: str, env: Mapping[str, str]) -> Order:
        """The order of an attempt: the one that was made for it, or a new one."""
        found = self._orders.get(attempt_id)
        if found is None:
            spec, plan = task.task, state.plan
            base = task.base_commit or state.integration
            assert base is not None
            assert state.repository is not None
            assert plan.workspace != "none"
            found = self._orders[attempt_id] = Order(
                run_id=state.run_id, task_id=spec.task_id, attempt_id=attempt_id, attempt=task.attempts,
                folder=f"{self._folder}/{state.run_id}/{spec.task_id}/{attempt_id}", repository=state.repository,
                workdir=Path(state.workdir), workspace=plan.workspace, base=base, begin=task.begin_commit,
                description=spec.description,
                outputs=spec.outputs, sparse=plan.sparse, fail_on_gates=plan.files.fail_on_gates,
                before_id=before_checkpoint(attempt_id) if plan.files.per_agent else None,
                after_id=derived_id("after", attempt_id), conflict=task.conflict, env=dict(env),
                resolving=bool(task.role) and task.conflict is not None,
                merges=plan.workspace == "worktree" and spec.approval != "result",
            )  # fmt: skip
        return found

    def undone_order(self, state: RunState, started: ev.TaskStarted, env: Mapping[str, str]) -> Order | None:
        """The order of an attempt that the state does not know any more."""
        if started.attempt_id not in self._orders and started.base_commit is not None:
            task = TaskState(state.tasks[started.task_id].task, 0, 0, base_commit=started.base_commit)
            self.order(state, task, started.attempt_id, env)
        return self._orders.get(started.attempt_id)

    def keep(self, state: RunState, order: Order, ended: Ended) -> None:
        """An attempt has ended: see to what it left."""
        self.begun.discard(order.attempt_id)
        gates = [gate for gate in state.plan.files.gates if gate.after == "task"]
        self.harvest.keep(order, ended, gates, state.plan.files.conflicts)

    def poll(self) -> list[Ended]:
        """Take up what is done; gives the ends whose files are known, their work in ``works``."""
        self.harvest.poll()
        self.last_words()
        ends = []
        for order, ended, work in self.harvest.reaped:
            self._orders[order.attempt_id] = order
            self.works[order.attempt_id] = work
            ends.append(ended)
        self.harvest.reaped.clear()
        return ends

    def prepared(self) -> list[Prepared]:
        """Checkouts that are there, or are not to be had."""
        found, self.harvest.prepared = self.harvest.prepared, []
        return found

    def outdated(self, state: RunState, ended: Ended) -> bool:
        """Whether work was merged with an integration line that is another one by now; it is merged again then."""
        work = self.works.get(ended.attempt_id)
        if work is None or work.onto is None or work.onto == state.integration:
            return False
        return wants_merge(state, state.tasks[state.running[ended.attempt_id]], ended)

    def merge_again(self, ended: Ended) -> None:
        """Put outdated work in line once more."""
        order, work = self._orders[ended.attempt_id], self.works.pop(ended.attempt_id)
        self.harvest.merged(order.run_id)
        kept = Work(work.checkpoint_id, work.commit, work.changed, shared=work.shared, paths=work.paths)
        self.harvest.merge(order, ended, kept)

    def committed(self, ended: Ended, *, completed: bool) -> None:
        """An attempt's end is in the log."""
        self.begun.discard(ended.attempt_id)
        work, order = self.works.pop(ended.attempt_id, None), self._orders.pop(ended.attempt_id, None)
        if order is None:
            return
        if work is not None and work.onto is not None:
            self.harvest.merged(order.run_id)
        self.checkouts.release(order, free=completed)

    def before_start(self, state: RunState, task_id: str, attempt_id: str, commit: str | None) -> Event | None:
        """The checkpoint of an attempt's start: the commit whose files it begins with."""
        if not state.plan.files.per_agent:
            return None
        return ev.CheckpointCreated(
            checkpoint_id=before_checkpoint(attempt_id), kind="before_attempt", label=f"before {task_id}",
            commit=commit, task_id=task_id, attempt_id=attempt_id,
            agent_type=state.tasks[task_id].task.agent_type,
        )  # fmt: skip

    def barrier(self, state: RunState, stage: int, env: Mapping[str, str]) -> list[Event]:
        """What is due at the end of a stage: its checkpoint, at once where no gate comes first."""
        gates = [gate for gate in state.plan.files.gates if gate.after == "stage"]
        if not gates:
            return [stage_checkpoint(state, stage)]
        found = next((one for one in self.harvest.stages if (one.run_id, one.stage) == (state.run_id, stage)), None)
        if found is not None:
            self.harvest.stages.remove(found)
            if found.commit == state.integration:
                return _stage_checked(state, found)
        order = self._stage_order(state, stage, env)
        self.harvest.check_stage(order, stage, gates)
        return []

    def _stage_order(self, state: RunState, stage: int, env: Mapping[str, str]) -> Order:
        assert state.integration is not None
        assert state.repository is not None
        assert state.plan.workspace != "none"
        check_id = new_id()
        return Order(
            run_id=state.run_id, task_id=GATES, attempt_id=check_id, attempt=0,
            folder=f"{self._folder}/{state.run_id}/{GATES}/{stage}/{check_id}", repository=state.repository,
            workdir=Path(state.workdir), workspace=state.plan.workspace, base=state.integration,
            sparse=state.plan.sparse, env=dict(env),
        )  # fmt: skip

    def around_end(self, state: RunState, finish: Event) -> list[Event]:
        """A run's end, and before it its files as configured after a failure, and their checkpoint.

        Nothing, as long as its branch and its refs have not been seen to: nobody looks after runs that are over.
        """
        settings, base, commit = state.plan.files, state.base_commit, state.integration
        events: list[Event] = []
        back = isinstance(finish, ev.RunFailed) and settings.rollback_on_failure and not settings.preserve_successful
        if back and base is not None and commit != base:  # Its branch, or its directory, follows before its end.
            before = state.before_run or ""
            events.append(ev.CheckpointRestored(checkpoint_id=before, reason="rollbackOnFailure", commit=base))
            if state.plan.workspace == "shared":
                events.append(ev.FilesRestoring(commit=base, checkpoint_id=before))
        else:
            if settings.after_run:
                made, label = self._checkpoint_of_end(state.run_id, commit), "after the run"
                events.append(ev.CheckpointCreated(checkpoint_id=made, kind="after_run", label=label, commit=commit))
            events.append(finish)
        return events if self._may_end(state, back=back) else []

    def _may_end(self, state: RunState, *, back: bool) -> bool:
        """Whether all that follows the log does so.

        Args:
            back: a shared directory that is being taken back, is so because the run has failed.
        """
        known = self._known.get(state.run_id)
        if known is None:
            return True
        if known.holding or not known.to_hold.keys() <= known.failed or 0 < known.failures < TRIES:
            return False
        if back and state.restoring is not None and not known.taken_back:
            if known.taken_back is None:
                known.taken_back, known.to_take_back = False, state.restoring
            return False
        return state.plan.workspace != "worktree" or known.foreign is not None or known.answered == state.integration

    def _checkpoint_of_end(self, run_id: str, commit: str | None) -> str:
        """Its id. Its ref is made before the event that names it, because nobody makes it afterwards."""
        known = self._known.get(run_id)
        if known is None:
            return new_id()
        if known.last is None or known.last[1] != commit:
            known.last = derived_id("after_run", f"{run_id}:{known.ends}"), commit
            if commit is not None:
                known.to_hold[known.last[0]] = commit
        return known.last[0]

    def warnings(self, state: RunState) -> list[Event]:
        """Conflicts that will come, told once each, of attempts that still run."""
        known, events = self._known[state.run_id], list[Event]()
        for found in [one for one in self.harvest.probed if one.run_id == state.run_id]:
            self.harvest.probed.remove(found)
            known.probe_at = time.monotonic() + max(EVERY_S, 10 * found.took_s)
            for one in found.meetings:
                seen = (one.attempt_id, one.other_attempt, one.paths)
                if seen in known.met or one.attempt_id not in state.running:
                    continue
                known.met.add(seen)
                events.append(
                    ev.ConflictDetected(
                        task_id=one.task_id, other_task_id=one.other_task_id, paths=list(map(storable_text, one.paths)),
                        kinds=list(one.kinds), attempt_id=one.attempt_id, early=True, onto=one.onto, commit=one.commit,
                    )
                )  # fmt: skip
        return events

    def _probe(self, state: RunState, known: _Known) -> None:
        """Compare unfinished work where there is more than one piece of it, or merged work it does not know of."""
        if not _compares(state):
            return
        assert state.integration is not None
        now = time.monotonic()
        orders = [self._orders[name] for name in state.running if name in self._orders and name in self.begun]
        if not orders or (len(orders) == 1 and orders[0].base == state.integration):
            known.probe_at = now + EVERY_S
        elif known.probe_at is not None and now >= known.probe_at:
            known.probe_at = None
            self.checkouts.probe(state.run_id, orders, state.integration)

    def next_due_s(self) -> float | None:
        """In how many seconds unfinished work is to be compared, or refs are to be told to follow once more."""
        due = [known.again_at for known in self._known.values() if known.failures < TRIES]
        if self.begun:
            due += [known.probe_at for known in self._known.values()]
        return min((max(0.0, when - time.monotonic()) for when in due if when is not None), default=None)

    @property
    def has_news(self) -> bool:
        """Whether something was done that the next tick takes up."""
        return bool(self.harvest.stages or self.harvest.followed or self.harvest.reaped or self.harvest.prepared)

    def go_on(self, state: RunState) -> None:
        """After a commit: the next merge, a look at unfinished work, and refs that follow."""
        known = self._known.get(state.run_id)
        if known is None or state.integration is None or state.repository is None:
            return
        if known.to_take_back is not None:
            commit, known.to_take_back = known.to_take_back, None
            self._take_back(state, commit, known.restores)
        self._probe(state, known)
        self.harvest.merge_next(state.run_id, state.integration)
        early = known.again_at is not None and time.monotonic() < known.again_at
        if early and known.answered == state.integration and not state.ended:
            return
        if state.plan.workspace == "worktree" and known.foreign is None and known.followed != state.integration:
            known.followed = state.integration
        elif not known.to_hold:
            return
        held, known.to_hold, known.again_at = known.to_hold, {}, None
        known.holding.update(held)
        branch = known.followed if state.plan.workspace == "worktree" and known.foreign is None else None
        self.checkouts.follow(state.run_id, state.repository, Path(state.workdir), branch, held, known.commits)

    def trespass(self, state: RunState) -> Event | None:
        """A pause, where somebody has put a commit of their own on the run's branch."""
        event: Event | None = None
        for found in [one for one in self.harvest.followed if one.run_id == state.run_id]:
            self.harvest.followed.remove(found)
            known = self._known[state.run_id]
            if found.restored:
                known.taken_back = True
                self._tell(found)
                continue
            known.answered = found.commit or known.answered
            known.holding.difference_update(found.held)
            if found.error is not None:
                known.failed.update(found.held)
                known.failures = TRIES if found.for_good else known.failures + 1
                wait_s = SOON_S if known.failures < TRIES else AGAIN_S
                known.followed, known.again_at = None, time.monotonic() + wait_s
                known.to_hold = {**found.held, **known.to_hold}
                self._tell(found)
            elif found.foreign is not None and known.foreign is None:
                known.foreign = found.foreign
                self._tell(found)
                reason = f"{FOREIGN} {found.foreign[:12]} on the branch parallel-agents/{state.run_id}, which is kept"
                event = ev.RunPaused(reason=reason) if state.status == RUNNING else None
            else:
                known.failures = 0
        return event

    def last_words(self) -> None:
        """What came of refs of runs that are not ours any more, or have ended: nobody tries again, so it is told."""
        for found in [one for one in self.harvest.followed if one.run_id not in self._known]:
            self.harvest.followed.remove(found)
            self._tell(found)

    def _tell(self, found: Followed) -> None:
        """Each only once."""
        said = found.error
        if found.foreign is not None:
            said = f"somebody put {found.foreign[:12]} on the branch, which is kept; move it to a branch of your own"
        if said is not None and (found.run_id, said) not in self._told:
            self._told.add((found.run_id, said))
            trouble.warn("the refs of run {} do not follow: {}", found.run_id, said)

    def let_go(self, state: RunState) -> None:
        """The run is not ours any more, or has ended."""
        self.harvest.forget_run(state.run_id)
        self._known.pop(state.run_id, None)
        if state.ended and state.repository is not None:
            completed = [name for name, task in state.tasks.items() if task.status == COMPLETED]
            run_id, version = state.run_id, state.version

            def still() -> bool:
                return self._log.version(run_id) == version

            self.checkouts.end_run(run_id, state.repository, Path(state.workdir), completed, still)

    def _take_back(self, state: RunState, commit: str, number: int) -> None:
        """Make the shared directory what it was before a run that failed; what is there now is kept as a checkpoint.

        Args:
            number: how often that was recorded before. Who begins again after a crash makes the same checkpoint.
        """
        run_id, checkpoint_id = state.run_id, derived_id("before_restore", f"{state.run_id}:{number}")

        def append(event: Event) -> None:
            def add(draft: Draft) -> None:
                draft.add(run_id, event)

            self._log.transact(add)

        def keep(found: str) -> None:
            label = "what a failed run had done"
            append(ev.CheckpointCreated(checkpoint_id=checkpoint_id, kind="before_restore", label=label, commit=found))

        def record() -> None:
            append(
                ev.CheckpointRestored(
                    checkpoint_id=state.before_run or "", reason="rollbackOnFailure", into=state.workdir, in_place=True
                )
            )

        assert state.repository is not None
        self.checkouts.restore(run_id, state.repository, Path(state.workdir), commit, checkpoint_id, keep, record)


def _compares(state: RunState) -> bool:
    """Whether unfinished work is compared before it is merged."""
    return state.plan.files.detect_early and state.plan.workspace == "worktree"


def stage_checkpoint(state: RunState, stage: int) -> Event:
    """The checkpoint at the end of a stage."""
    name = state.plan.stages[stage].name
    return ev.CheckpointCreated(
        checkpoint_id=new_id(), kind="stage", label=f"after stage {name}", commit=state.integration, stage=stage
    )


def _stage_checked(state: RunState, checked: StageChecked) -> list[Event]:
    events: list[Event] = [
        ev.GateChecked(
            scope="stage", command=gate.command, passed=gate.passed, exit_code=gate.exit_code,
            duration_s=gate.duration_s, output=gate.output, log=gate.log, commit=checked.commit, stage=checked.stage,
        )
        for gate in checked.gates
    ]  # fmt: skip
    if checked.error is not None:
        return [*events, ev.RunCancelRequested(reason=f"{GATE_FAILED}: {checked.error}")]
    then = decide_stage(state, checked.stage, checked.gates)
    return [*events, *(then or [stage_checkpoint(state, checked.stage)])]
