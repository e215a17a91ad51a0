"""Which tasks start now, and why the others do not. Pure: the state, the facts and the time in; commands out.

An ``Agenda`` is an index over a run's state (heaps of what is ready, by rank) so that planning costs what changed since
the last look and not the size of the run. It holds nothing that the state and the facts do not say: a new one, built
from the state alone, plans the same.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from parallel_agents.eventstore.submission import PRIORITIES, Stage
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import status_of, statuses
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler import governing
from parallel_agents.scheduler.agents.granting import AgentFacts, Grant, Held, by_agent, grant, runner_name
from parallel_agents.scheduler.breaker import CIRCUIT_OPEN, CircuitFacts
from parallel_agents.scheduler.governing import Machine, Pressure, Room
from parallel_agents.scheduler.graph import tails
from parallel_agents.scheduler.rests import Rests
from parallel_agents.scheduler.scopes import meet

Rank = tuple[int, float, int]
"""Priority (0 critical), minus the longest path to the end of the graph in seconds, position in the plan."""

EXPECTED_S = 1.0  # Weight of a task that does not say how long it is expected to take.


@dataclass(slots=True)
class Facts:
    """What a decision depends on besides the run's own state."""

    store_slots: int = 0  # Attempts of the whole store that hold a slot.
    run_slots: int = 0  # Those of this run, attempts that a rollback has undone included.
    agents: AgentFacts | None = None  # For a run with tasks of agents: money, providers, requests.
    circuits: CircuitFacts | None = None  # Runners that fail; None where the run does not mind, or all of them work.
    used_s: float = 0.0  # How long the run has been dispatched.
    machine: Machine | None = None  # For a run that the machine's load governs.
    rests: Rests = field(default_factory=Rests)  # As far as a steady clock has measured them.

    def copy(self) -> Facts:
        """The same, to count starts in that are only thought of."""
        return replace(
            self,
            agents=None if self.agents is None else self.agents.copy(),
            circuits=None if self.circuits is None else self.circuits.copy(),
            machine=None if self.machine is None else replace(self.machine),
        )


class Skip(NamedTuple):
    """A task that cannot run any more, and the task that failed."""

    task_id: str
    because: str
    reason: str


@dataclass(slots=True)
class Decision:
    """Commands, in the order in which they are to be carried out."""

    skips: list[Skip] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)  # How the agents among those that start do so.
    held: dict[str, Held] = field(default_factory=dict)  # Tasks of agents that money, providers or requests hold back.
    rooms: dict[str, Room] = field(default_factory=dict)  # What the machine has for those that start.
    pressed: Pressure | None = None  # Why it lets no further process start.
    cancels: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(
        default_factory=list
    )  # ("queue" | "block" | "start", task id), as they follow.


class Reason(NamedTuple):
    """Why a task does not start now: a stable code, a sentence, and the tasks that it waits for."""

    code: str
    text: str
    tasks: tuple[str, ...] = ()


class Agenda:
    """What could start, best rank first. Mended from ``state.touched`` at every look."""

    def __init__(self, state: RunState) -> None:
        dependencies: dict[str, tuple[str, ...]] = {}
        expected: dict[str, float] = {}
        priorities, stages = list[int](), array("I")
        self.scoped = False
        borne: set[str] = set()  # Those that may fail.
        for task in state.plan.tasks:  # Once, as those of a large plan are made anew by who looks at them.
            name = task.task_id
            dependencies[name], expected[name] = task.dependencies, task.expected_s or EXPECTED_S
            priorities.append(PRIORITIES.index(task.priority))
            stages.append(task.stage)
            self.scoped = self.scoped or bool(task.files)
            if task.allow_failure:
                borne.add(name)
        tail = tails(dependencies, expected)
        self._ids = list(dependencies)
        self._ranks: list[Rank] = [
            (priority, -tail[name], index)
            for index, (name, priority) in enumerate(zip(self._ids, priorities, strict=True))
        ]
        # Places in the order of ranks stand for the ranks in the heaps: numbers are compared five times as fast.
        self._index_at = [index for _, _, index in sorted(self._ranks)]
        self._place = [0] * len(self._ids)
        for place, index in enumerate(self._index_at):
            self._place[index] = place
        self.ready: list[int] = []  # Places of what is pending, dependencies satisfied, in an open stage.
        self.queued: list[int] = []
        # Queued tasks that rest: when until, in microseconds, and position; by the time of events, and by the steady clock.
        self.resting: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._now_us, self._rests = 0, Rests()  # As of the last look.
        self.later: dict[int, list[int]] = {}  # Ready but for their stage: positions by stage.
        self.stage = 0
        self.barriers = has_barriers(state)
        satisfied: set[str] = set()
        for name, status in statuses(state):
            if status == st.COMPLETED or (name in borne and status in st.BORNE):
                satisfied.add(name)
            elif status in st.ENDED:
                state.broken.add(name)
        for index, (name, status) in enumerate(statuses(state)):
            if status == st.PENDING:  # Most of a run that has just begun: none is made for this.
                if satisfied.issuperset(dependencies[name]):
                    self.later.setdefault(stages[index], []).append(index)
            elif status not in st.ENDED:
                state.touched.add(name)

    def rank(self, task: TaskState) -> Rank:
        """Smaller is sooner."""
        return self._ranks[task.index]

    def mend(self, state: RunState, now_us: int, rests: Rests) -> None:
        """Look: take up what changed, which is the state's touched tasks, and rests that are over."""
        self._now_us, self._rests = now_us, rests
        for task_id in state.touched:
            task = state.tasks[task_id]
            # Asked of every one, so that its rest is measured.
            goes_on = task.not_before_us is not None and rests.goes_on(task, now_us)
            if task.status not in st.ENDED:
                self.stage = min(self.stage, task.task.stage)
            if task.status == st.PENDING:
                if task.open_dependencies == 0:
                    self.later.setdefault(task.task.stage, []).append(task.index)
            elif task.status == st.QUEUED:
                if goes_on:
                    self._let_rest(task)
                else:
                    heapq.heappush(self.queued, self._place[task.index])
        state.touched.clear()
        for heap, until_us in zip(self.resting, (now_us, rests.now_us), strict=True):
            while heap and heap[0][0] <= until_us:
                _, index = heapq.heappop(heap)
                task = state.tasks[self._ids[index]]
                if not rests.goes_on(task, now_us):  # Else it rested in an earlier life of the task.
                    heapq.heappush(self.queued, self._place[index])

    def _let_rest(self, task: TaskState) -> None:
        for heap, due_us in zip(self.resting, self._rests.ends_of(task), strict=True):
            assert due_us is not None
            heapq.heappush(heap, (due_us, task.index))

    def open_stages(self, state: RunState, skips: Mapping[str, Skip]) -> None:
        """Go on to the first stage that has something open, and take up what was ready but for its stage.

        Args:
            skips: tasks that this very decision ends; a stage of which nothing else is left is done.
        """
        if self.stage < len(state.stage_open) - 1:
            leaving = Counter(state.tasks[name].task.stage for name in skips)
            while self.stage < len(state.stage_open) - 1 and state.stage_open[self.stage] == leaving[self.stage]:
                if self.barriers and state.stages_passed <= self.stage:
                    break
                self.stage += 1
        for stage in [stage for stage in self.later if stage <= self.stage]:
            for index in self.later.pop(stage):
                queued = status_of(state, self._ids[index]) == st.QUEUED
                heapq.heappush(self.queued if queued else self.ready, self._place[index])

    def best(self, state: RunState, heap: list[int], status: str, ahead: Mapping[str, str]) -> TaskState | None:
        """The first task of a heap that is still in that status, as of the last look. Stale entries are dropped on the way.

        Args:
            ahead: statuses by task that this very decision will bring about.
        """
        while heap:
            index = self._index_at[heap[0]]
            task = state.tasks[self._ids[index]]
            if ahead.get(task.task.task_id, task.status) == status:
                if task.task.stage > self.stage:  # A retry has opened an earlier stage again.
                    self.later.setdefault(task.task.stage, []).append(index)
                elif status == st.QUEUED and task.not_before_us is not None and self._rests.goes_on(task, self._now_us):
                    self._let_rest(task)
                elif task.open_dependencies == 0:
                    return task
            heapq.heappop(heap)
        return None

    def next_rest_us(self, state: RunState) -> int | None:
        """How long after the last look a rest is over next, in microseconds; None where nothing rests."""
        left_us = []
        for which, now_us in enumerate((self._now_us, self._rests.now_us)):
            heap = self.resting[which]
            while heap:
                due_us, index = heap[0]
                task = state.tasks[self._ids[index]]
                rests = task.status == st.QUEUED and self._rests.goes_on(task, self._now_us)
                if rests and self._rests.ends_of(task)[which] == due_us:
                    left_us.append(due_us - now_us)
                    break
                heapq.heappop(heap)
        return min(left_us, default=None)


def plan(state: RunState, agenda: Agenda, facts: Facts, now_us: int, *, priority: int = len(PRIORITIES)) -> Decision:
    """What is due in one run. The facts are counted up with every start.

    Args:
        facts: slots taken before this decision.
        now_us: microseconds since the epoch.
        priority: only tasks of at most this rank of priority start, so that runs can share slots by priority.
    """
    decision = Decision()
    agenda.mend(state, now_us, facts.rests)
    if state.cancel_requested:
        if any(state.counts[status] for status in _NOT_STARTED):
            decision.cancels = [name for name, task in state.tasks.items() if task.status in _NOT_STARTED]
        return decision
    skips = _skips(state, agenda.stage)
    agenda.open_stages(state, skips)
    decision.skips = list(skips.values())
    if state.status != st.RUNNING:
        return decision
    ahead = dict.fromkeys(skips, st.SKIPPED)
    freed = sum(state.tasks[name].status == st.QUEUED for name in ahead)
    room = state.plan.settings.max_queue_size - state.counts[st.QUEUED] + freed
    busy = _scopes(state) if agenda.scoped else {}
    aside: list[int] = []  # Places of tasks that something of their own holds back: their files, their agent.
    while True:
        # A queue that is full of tasks which cannot start (their rest, stage or dependency was opened again) takes one
        # more: it may be the one that they wait for. While the machine lets nothing start, it would start neither.
        one_more = decision.pressed is None or state.callables
        while room > 0 or (one_more and agenda.best(state, agenda.queued, st.QUEUED, ahead) is None):
            task = agenda.best(state, agenda.ready, st.PENDING, ahead)
            if task is None:
                break
            place = heapq.heappop(agenda.ready)
            if needs_approval(task):
                ahead[task.task.task_id] = st.BLOCKED
                decision.steps.append(("block", task.task.task_id))
                continue
            heapq.heappush(agenda.queued, place)
            ahead[task.task.task_id] = st.QUEUED
            decision.steps.append(("queue", task.task.task_id))
            room -= 1
        started = False
        while (task := agenda.best(state, agenda.queued, st.QUEUED, ahead)) is not None:
            if agenda.rank(task)[0] > priority or gate(state, state.plan.stages[task.task.stage], facts) is not None:
                break
            place = heapq.heappop(agenda.queued)
            if needs_approval(task):
                ahead[task.task.task_id] = st.BLOCKED
                decision.steps.append(("block", task.task.task_id))
                room += 1
                started = True  # Nothing was, but the queue has room for what is ready.
                continue
            if (task.task.files and scope_taken(task, busy)) or not _admit(state, task, facts, decision):
                aside.append(place)
                if decision.pressed is not None and not state.callables:  # What comes behind it is a process, too.
                    break
                continue
            busy |= {task.task.task_id: task.task.files} if task.task.files else {}
            ahead[task.task.task_id] = st.RUNNING
            decision.steps.append(("start", task.task.task_id))
            facts.store_slots += 1
            facts.run_slots += 1
            room += 1
            started = True
        if not started and not (decision.held and _passes_by(state, agenda, facts, decision, ahead, priority)):
            for place in aside:
                heapq.heappush(agenda.queued, place)
            return decision


def _admit(state: RunState, task: TaskState, facts: Facts, decision: Decision) -> bool:
    """Whether money, providers and the machine let a task start. It is counted in, or the decision says what holds it back.

    Once the machine has no room for one process, no other one of the run passes it.
    """
    granted = _granted(state, task, facts)
    if isinstance(granted, Held):
        decision.held[task.task.task_id] = granted
        return False
    if facts.machine is not None and governing.is_process(task.task):
        there = decision.pressed or governing.ask(state, task, facts.run_slots, facts.machine)
        if isinstance(there, Pressure):
            decision.pressed = there
            if there.code == st.MEMORY and st.MEMORY in state.throttled:
                facts.machine.first = facts.machine.first or (state.run_id, task.task.task_id)
            return False
        decision.rooms[task.task.task_id] = there
        facts.machine.add(there.expected, 0)
    if granted is not None:
        assert facts.agents is not None
        decision.grants[task.task.task_id] = granted
        facts.agents.count(state.run_id, task.task, granted)
    if facts.circuits is not None:
        facts.circuits.take(runner_name(task.task) if granted is None else granted.runner)
    return True


def _passes_by(
    state: RunState, agenda: Agenda, facts: Facts, decision: Decision, ahead: Mapping[str, str], priority: int
) -> bool:
    """Whether the best task that is ready may start while money or providers hold back all that is queued.

    Else a queue that is full of those would hold back what is more urgent, or costs nothing, for as long.
    """
    if agenda.best(state, agenda.queued, st.QUEUED, ahead) is not None:
        return False
    task = agenda.best(state, agenda.ready, st.PENDING, ahead)
    if task is None or agenda.rank(task)[0] > priority or gate(state, state.plan.stages[task.task.stage], facts):
        return False
    if facts.machine is not None and governing.is_process(task.task):
        there = decision.pressed or governing.ask(state, task, facts.run_slots, facts.machine)
        if isinstance(there, Pressure):
            return False
    return not isinstance(_granted(state, task, facts), Held)


def _granted(state: RunState, task: TaskState, facts: Facts) -> Grant | Held | None:
    """How an agent's task starts, or what holds it or its runner back; None of any other task that nothing holds."""
    if facts.agents is not None and by_agent(state, task):
        return grant(state, task, facts.agents, facts.circuits)
    if facts.circuits is None:
        return None
    why = facts.circuits.holds(runner_name(task.task))
    return None if why is None else Held(CIRCUIT_OPEN, why)


def has_barriers(state: RunState) -> bool:
    """Whether something is due between two stages of a run: a checkpoint or gates."""
    plan = state.plan
    return state.integration is not None and (
        (plan.files.between_stages and len(plan.stages) > 1) or stage_gates(state)
    )


def stage_gates(state: RunState) -> bool:
    """Whether gates are due at the end of each stage."""
    return state.integration is not None and any(gate.after == "stage" for gate in state.plan.files.gates)


def stage_over(state: RunState) -> int | None:
    """The first stage that has ended without its barrier. The last one has none but for gates."""
    stage = state.stages_passed
    if stage >= len(state.stage_open) or any(state.stage_open[: stage + 1]):
        return None
    return None if stage == len(state.stage_open) - 1 and not stage_gates(state) else stage


def needs_approval(task: TaskState) -> bool:
    """Whether a person has to let the next attempt start. What was said of one attempt holds for no later one."""
    return task.task.approval == "required" and task.approved_attempt != task.attempts + 1


def _scopes(state: RunState, starting: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The declared files of what runs, by task."""
    running = (state.tasks[name].task for name in (*state.running.values(), *starting))
    return {task.task_id: task.files for task in running if task.files}


def scope_taken(task: TaskState, busy: Mapping[str, tuple[str, ...]]) -> str | None:
    """The first running task whose declared files meet those of this one, or None."""
    return next((name for name, files in busy.items() if meet(task.task.files, files)), None)


_NOT_STARTED = frozenset({st.PENDING, st.QUEUED, st.BLOCKED})


def gate(state: RunState, stage: Stage, facts: Facts) -> Reason | None:
    """Why no further task of a stage may start now, or None where one may."""
    settings = state.plan.settings
    if (full := state.throttled.get(st.DISK)) is not None:
        return Reason(st.DISK, full)
    if facts.run_slots >= settings.max_parallel_agents:
        return Reason("no_slot", f"no slot: {facts.run_slots} of {settings.max_parallel_agents} of this run are taken")
    if facts.store_slots >= settings.store_limit:
        return Reason("no_slot", f"no slot: {facts.store_slots} of {settings.store_limit} of the store are taken")
    if not stage.parallel and facts.run_slots > 0:
        return Reason("one_by_one", f"stage {stage.name!r} runs its tasks one by one")
    if stage.limit is not None and facts.run_slots >= stage.limit:
        return Reason("no_slot", f"no slot: {facts.run_slots} of {stage.limit} of stage {stage.name!r} are taken")
    return None


def _skips(state: RunState, first_open: int) -> dict[str, Skip]:
    """Tasks that need what has failed for good, and stages behind a failed one that fails fast.

    Args:
        first_open: no stage before this one has an open task.
    """
    skips: dict[str, Skip] = {}
    if not state.broken and not state.stage_failed:
        return skips
    leaving: Counter[int] = Counter()

    def skip(name: str, because: str, reason: str) -> None:
        """Skip a task, if it has not started, and all that needs it."""
        waiting = [name] if reason == "fail_fast" else list(state.dependents.get(name, ()))
        while waiting:
            gone = waiting.pop()
            task = state.tasks[gone]
            if gone in skips or task.status not in _NOT_STARTED:
                continue
            skips[gone] = Skip(gone, because, reason)
            leaving[task.task.stage] += 1
            waiting += state.dependents.get(gone, ())
            reason = "dependency"

    broken, state.broken = state.broken, set()
    for name in sorted(broken, key=lambda name: (state.tasks[name].ended_at_us or 0, state.tasks[name].index)):
        failed = state.tasks[name]
        if failed.status in st.ENDED and not st.satisfies(failed.task, failed.status):
            skip(name, _first_cause(state, failed), "dependency")
    for number, failed_ids in sorted(state.stage_failed.items()):
        if not state.plan.stages[number].fail_fast or state.stage_open[number] > leaving[number]:
            continue
        if _open_behind(state, number, first_open):
            phase = state.plan.stages[number].phase
            for name, task in state.tasks.items():
                if task.task.stage > number and state.plan.stages[task.task.stage].phase == phase:
                    skip(name, failed_ids[0], "fail_fast")
    return skips


def _first_cause(state: RunState, gone: TaskState) -> str:
    """The task that failed first, of which an ended one is a consequence.

    A fork from the middle of a retry's commit may have opened that task again and left this one skipped; then what
    needs it is skipped because of this one.
    """
    if gone.status == st.SKIPPED and gone.because is not None:
        first = state.tasks[gone.because]
        if first.status in st.ENDED and not st.satisfies(first.task, first.status):
            return gone.because
    return gone.task.task_id


def _open_behind(state: RunState, number: int, first_open: int) -> bool:
    """Whether a later stage of the same phase has open tasks. The stages of a phase stand together."""
    stages = state.plan.stages
    for later in range(max(number + 1, min(first_open, len(stages))), len(stages)):
        if stages[later].phase != stages[number].phase:
            return False
        if state.stage_open[later] > 0:
            return True
    return False


@dataclass(slots=True)
class Outlook:
    """What the next tick would do in a run, for those who ask why it leaves a task. Made by ``outlook``."""

    decision: Decision
    starting: set[str]
    facts: Facts  # As they would be after it.
    line: list[tuple[Rank, str]]  # Who starts or waits for a slot, best rank first; nobody who rests.
    rank: Callable[[TaskState], Rank]


def outlook(state: RunState, facts: Facts, now_us: int) -> Outlook:
    """Plan without doing it. Goes through all tasks; ask it once for many questions.

    Args:
        facts: slots taken now.
        now_us: microseconds since the epoch.
    """
    touched, broken = set(state.touched), set(state.broken)
    agenda, after = Agenda(state), facts.copy()
    decision = plan(state, agenda, after, now_us)
    state.touched, state.broken = touched, broken
    starting = {name for what, name in decision.steps if what == "start"}
    waiting = [name for what, name in decision.steps if what == "queue"]
    waiting += [name for name, status in statuses(state) if status == st.QUEUED]
    line = [(agenda.rank(task), name) for name in waiting if not facts.rests.goes_on(task := state.tasks[name], now_us)]
    return Outlook(decision, starting, after, sorted(line), agenda.rank)


def why_not(state: RunState, task_id: str, facts: Facts, now_us: int, seen: Outlook | None = None) -> Reason:
    """Why a task is not started now, by the same rules that ``plan`` starts tasks by.

    Args:
        facts: slots taken now.
        now_us: microseconds since the epoch.
        seen: the outlook of this state and moment, where the caller has it already.
    """
    task = state.tasks[task_id]
    if task.status == st.RUNNING:
        return Reason("running", f"it runs: attempt {task.attempts}{_stuck(task)}")
    if task.status in st.ENDED:
        return _why_ended(state, task)
    if state.cancel_requested:
        return Reason("cancelling", "its run is being cancelled")
    if state.ended:
        return Reason("run_ended", f"its run has ended: {state.status}")
    seen = seen or outlook(state, facts, now_us)
    for skip in seen.decision.skips:
        if skip.task_id == task_id:
            return Reason(
                "skipping",
                f"it will be skipped: {skip.because} {_how(state, skip.because)}" + _by(skip.reason),
                (skip.because,),
            )
    if task.status == st.BLOCKED:
        return Reason("blocked", f"it waits for a person: {task.reason}")
    if state.status == st.RUNNING and ("block", task_id) in seen.decision.steps:
        return Reason("approval", "it will wait for a person to let it start")
    open_ = [
        name for name in task.task.dependencies if not st.satisfies(state.tasks[name].task, state.tasks[name].status)
    ]
    if open_:
        return Reason("dependencies", f"waiting for {', '.join(open_)}", tuple(open_))
    if before := _before_its_stage(state, task):
        stage = state.plan.stages[task.task.stage]
        named = ", ".join(before[:5]) + (", ..." if len(before) > 5 else "")
        return Reason(
            "stage", f"stage {stage.name!r} starts when the stages before it have ended: {named}", tuple(before)
        )
    if state.status == st.PAUSED:
        return Reason("paused", "its run is paused" + (f": {state.reason}" if state.reason else ""))
    if task.not_before_us is not None and facts.rests.goes_on(task, now_us):
        wait_s = (task.not_before_us - now_us) / 1e6
        return Reason("not_before", f"retry not before {wait_s:.1f} s from then (failed {task.failures} times)")
    if state.status == st.SUBMITTED:
        return Reason("no_dispatcher", "no process dispatches its run yet")
    if (over := stage_over(state)) is not None and over < task.task.stage and has_barriers(state):
        name = state.plan.stages[over].name
        return Reason("barrier", f"stage {name!r} is over; its gates and its checkpoint come before the next stage")
    if task.task.files and (other := scope_taken(task, _scopes(state, seen.starting - {task_id}))) is not None:
        return Reason("scope", f"its files meet those of {other}, which runs: {', '.join(task.task.files)}", (other,))
    if (held := seen.decision.held.get(task_id)) is not None:
        return Reason(held.code, held.text, tuple(state.running.values()))
    if task_id in seen.starting:
        return Reason("due", "nothing holds it: it starts at the next tick of the process that dispatches its run")
    return _why_no_slot(state, task, seen)


def _stuck(task: TaskState) -> str:
    """That a running attempt looks stuck, and what it printed last."""
    if task.stuck is None:
        return ""
    words = f"; its last words: {task.stuck['last_output']}" if task.stuck["last_output"] else ""
    return f", and looks stuck: {task.stuck['reason']}{words}"


def _before_its_stage(state: RunState, task: TaskState) -> list[str]:
    if not any(state.stage_open[: task.task.stage]):
        return []
    return [
        name
        for name, status in statuses(state)
        if status not in st.ENDED and state.tasks[name].task.stage < task.task.stage
    ]


def _why_no_slot(state: RunState, task: TaskState, seen: Outlook) -> Reason:
    """Why a task that is ready, in a run that runs, is left by the next tick."""
    place = next((place for place, (_, name) in enumerate(seen.line) if name == task.task.task_id), None)
    if place is None:
        limit = state.plan.settings.max_queue_size
        return Reason("queue_full", f"queue full: {state.counts[st.QUEUED]} of {limit} are queued")
    closed = gate(state, state.plan.stages[task.task.stage], seen.facts)
    if closed is None and seen.decision.pressed is not None and governing.is_process(task.task):
        closed = Reason(*seen.decision.pressed[:2])
    assert closed is not None, "a tick starts whatever it can"
    if closed.code in (st.DISK, st.CPU):  # Whose turn it is makes no difference.
        return closed
    ahead = [name for _, name in seen.line[:place] if name not in seen.decision.held]  # Those wait for something else.
    if not ahead:
        return Reason(closed.code, closed.text, tuple(state.running.values()))
    text = f"{closed.text}; {len(ahead)} of better rank are ahead: {', '.join(ahead[:5])}"
    return Reason("lower_rank", text, tuple(state.running.values()))


def _why_ended(state: RunState, task: TaskState) -> Reason:
    match task.status:
        case st.SKIPPED:
            because = task.because or ""
            return Reason("skipped", f"skipped: {because} {_how(state, because)}" + _by(task.reason), (because,))
        case st.CANCELLED:
            return Reason("cancelled", "cancelled" + (f": {task.reason}" if task.reason else ""))
        case st.FAILED:
            return Reason("failed", f"failed after {task.attempts} attempt{'s' * (task.attempts != 1)}: {task.error}")
        case _:
            return Reason("completed", f"completed in attempt {task.attempts}")


def _how(state: RunState, because: str) -> str:
    """How a task that others are skipped because of came to its end, or that it has been opened again since."""
    match state.tasks[because].status if because in state.tasks else st.FAILED:
        case st.CANCELLED:
            return "was cancelled"
        case st.SKIPPED:
            return "was skipped"
        case st.FAILED:
            return "failed"
        case _:
            return "had failed"


def _by(reason: str) -> str:
    return ", and its pipeline fails fast" if reason == "fail_fast" else ""
