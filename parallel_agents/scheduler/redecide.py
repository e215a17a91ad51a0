"""The scheduler, run again on what a past decision was made on: does it decide the same? Pure.

A decision of the past is judged from the state of its run just before it, from what the rest of the log says of that moment
(slots, money, providers, circuits) and from the facts that its own event holds. What was decided on a sample that no event
holds (how full a disk was, how long a run was dispatched) is counted and not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.projections import status as st
from parallel_agents.projections.circuits import Circuits
from parallel_agents.projections.needs import Need, Needs
from parallel_agents.projections.occupancy import EXPECTED_MEMORY, Occupancy
from parallel_agents.projections.spend import Spend
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler import circuits as circuits_of
from parallel_agents.scheduler import governing
from parallel_agents.scheduler.agents.granting import AgentFacts, runner_name
from parallel_agents.scheduler.budget import Books, budgets_of
from parallel_agents.scheduler.decide import (
    cancelled_unstarted,
    decide_end,
    decide_finish,
    decide_start,
)
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan
from parallel_agents.scheduler.retry import JITTER
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.work import APPROVAL, REBASE_ROUNDS

NO_SLOT: Final = 1 << 60
"""Slots that are taken where a decision is judged that started nothing: whatever kept it from that is recorded nowhere."""
RESTED: Final = "rested_us"
"""Among the facts of a start: the time that rests were over by, where that is not the time of its event."""
LIVE: Final = "live_usd_micros"
"""What running agents were seen to have spent beyond what the log says, by attempt, where there was any."""
WORKING: Final = "working"
"""The types of the agents at work, where attempts of other runs were among them."""
THEN: Final = "then"
"""Of the last start of a decision: what kept it from starting more but its own rules. Empty: nothing did; None: others came
in between."""

_SAMPLED: Final = frozenset(
    {
        "WorkersScaled", "DispatchThrottled", "DispatchUnthrottled", "BudgetThresholdReached", "BudgetExceeded",
        "AttemptStuck", "AttemptRevived", "CircuitClosed", "RunnerFailed", "CircuitOpened", "ProviderLimited", "RunResumed",
        "RunPaused", "RunCancelRequested",
    }
)  # fmt: skip


class Divergence(NamedTuple):
    """Where the scheduler decides otherwise than it did."""

    seq: int
    type: str
    field: str
    recorded: Any
    now: Any


@dataclass(slots=True)
class Around:
    """What the rest of the log says of a moment, all runs together."""

    occupancy: Occupancy = field(default_factory=Occupancy)
    circuits: Circuits = field(default_factory=dict)
    spend: Spend | None = None  # Where the run has agents.
    actor: str = ""  # Of whoever dispatches the run: nobody else's events are decisions of the scheduler.
    agent_type: Callable[[str, str], str] = lambda run_id, task_id: ""  # By run and task.


@dataclass(slots=True)
class Judged:
    """How many decisions of each type were made again, and how many rest on what no event holds."""

    decisions: Counter[str] = field(default_factory=Counter)
    sampled: Counter[str] = field(default_factory=Counter)


class Redecider:
    """One run, event after event.

    Args:
        judged: counts go there.
    """

    def __init__(self, judged: Judged) -> None:
        self._judged = judged
        self._agenda: Agenda | None = None
        self._state: RunState | None = None

    def judge(self, state: RunState, commit: Sequence[Recorded], at: int, around: Around) -> Divergence | None:
        """Decide again what the event at a place decided, if it is the first one of a decision.

        Args:
            state: before that event; not changed, but for what the scheduler has taken note of.
            commit: all events of the run that were appended together with it. Those of no run that were appended among
                them have no number here.
            at: its place among them.
            around: the rest of the log, before that event.
        """
        record = commit[at]
        if record.actor != around.actor:
            return None
        match record.event:
            case _ if is_planned(record.event, state):
                if at and _follows(commit, at) and is_planned(commit[at - 1].event, state, as_before=True):
                    return None  # Judged with the first of them.
                return self._judge_plan(state, planned(commit, at, state), around)
            case ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost():
                return self._judge_end(state, commit, at, around)
            case ev.TaskCancelled(attempt_id=attempt_id) if attempt_id in state.running:
                return self._judge_stopped(state, record)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                return self._judge_finish(state, record, around)
            case ev.RunStarted():
                return self._same(record, {"status": state.status}, {"status": st.SUBMITTED})
            case event if type(event).__name__ in _SAMPLED:
                self._judged.sampled[type(event).__name__] += 1
            case _:
                pass  # Nothing that a scheduler decides: what happened, or what somebody has asked for.
        return None

    def forget(self) -> None:
        """The state is another one from here on."""
        self._agenda = None

    def _same(self, record: Recorded, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Divergence | None:
        name = type(record.event).__name__
        self._judged.decisions[name] += 1
        for key in recorded:
            if recorded[key] != now.get(key):
                return Divergence(record.seq, name, key, recorded[key], now.get(key))
        return None

    def _judge_plan(self, state: RunState, batch: Sequence[Recorded], around: Around) -> Divergence | None:
        """What one look at a run has led to: skips, cancellations, and what is queued, blocked and started."""
        facts, now_us = facts_at(state, batch, around), moment_of(state, batch)
        if self._agenda is None or self._state is not state:
            self._agenda, self._state = Agenda(state), state
        decision = plan(state, self._agenda, facts, now_us)
        if _steps(decision)[: len(batch)] != [_step(record) for record in batch]:
            return self._judge_one_by_one(state, batch, around)
        state.touched.update(name for _, name in _steps(decision)[len(batch) :])  # It is to think of these anew.
        starts = facts_at(state, batch, around)
        for record in batch:
            said = self._judge_step(state, record, decision, starts)
            if said is not None:
                return said
            if isinstance(record.event, ev.TaskStarted):
                starts.run_slots, starts.store_slots = starts.run_slots + 1, starts.store_slots + 1
        return _started_too_little(batch[-1], decision, len(batch))

    def _judge_one_by_one(self, state: RunState, batch: Sequence[Recorded], around: Around) -> Divergence | None:
        """The same where several looks have led to it: each step is to be the first of its kind that is due then."""
        self._agenda = None
        state = _copied(state)
        started: list[ev.TaskStarted] = []
        for place, record in enumerate(batch):
            facts = facts_at(state, batch[place:], around, started)
            agenda = Agenda(state)
            decision = plan(state, agenda, facts, moment_of(state, batch[place:]))
            wanted = _step(record)
            first = next((step for step in _steps(decision) if step[0] == wanted[0]), None)
            if first != wanted:
                self._judged.decisions[type(record.event).__name__] += 1
                return Divergence(record.seq, type(record.event).__name__, "task_id", wanted[1], first and first[1])
            said = self._judge_step(state, record, decision, facts_at(state, batch[place:], around, started))
            if said is not None:
                return said
            state = _moved(state, record)
            if isinstance(record.event, ev.TaskStarted):
                started.append(record.event)
        return None

    def _judge_step(self, state: RunState, record: Recorded, decision: Decision, facts: Facts) -> Divergence | None:
        match record.event:
            case ev.TaskSkipped(task_id=task_id) as event:
                skip = next(one for one in decision.skips if one.task_id == task_id)
                return self._same(
                    record, {"because": event.because, "reason": event.reason},
                    {"because": skip.because, "reason": skip.reason},
                )  # fmt: skip
            case ev.TaskCancelled(task_id=task_id) as event:
                made = cancelled_unstarted(state.tasks[task_id], state.reason)
                return self._same(record, _fields(event), _fields(made))
            case ev.TaskStarted() as event:
                return self._same(record, *_start_again(state, event, decision, facts))
            case event:
                self._judged.decisions[type(event).__name__] += 1
                return None

    def _judge_end(self, state: RunState, commit: Sequence[Recorded], at: int, around: Around) -> Divergence | None:
        """What the end of an attempt has led to: another attempt, and when; a pause; or nothing."""
        record = commit[at]
        event = record.event
        assert isinstance(event, ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost)
        task_id = state.running.get(event.attempt_id)
        if task_id is None:
            return None  # Work that a person has settled: it did not run any more.
        retry = _after(commit, at, event.attempt_id)
        recorded = None if retry is None else _fields(retry)
        task = state.tasks[task_id]
        if _to_be_resolved(state, task, commit, at):
            again = {"failures": task.failures, "wait_s": 0.0, "jitter_s": 0.0}
            return self._same(record, {"retry": True, **_only(recorded, again)}, {"retry": True, **again})
        ended = _as_it_ended(event, task, retry, around)
        draw = _draw(state, task, retry)
        made = decide_end(state, ended, _decided_at_us(record, retry), draw)
        said = self._same(record, {"type": type(event).__name__}, {"type": type(made[0]).__name__})
        if said is not None:
            return said
        again_now = next((one for one in made if isinstance(one, ev.TaskRetryScheduled)), None)
        if retry is None or again_now is None:
            return self._same(record, {"retry": retry is not None}, {"retry": again_now is not None})
        after = commit[at + 1 + _place_after(commit, at, event.attempt_id)]
        return self._same(after, recorded or {}, _fields(again_now))

    def _judge_stopped(self, state: RunState, record: Recorded) -> Divergence | None:
        event = record.event
        assert isinstance(event, ev.TaskCancelled)
        task = state.tasks[event.task_id]
        wanted = task.cancel_requested or state.cancel_requested
        reason = task.reason or (state.reason if state.cancel_requested else "")
        return self._same(record, {"wanted": True, "reason": event.reason}, {"wanted": wanted, "reason": reason})

    def _judge_finish(self, state: RunState, record: Recorded, around: Around) -> Divergence | None:
        if around.occupancy.of_run(state.run_id):
            return self._same(record, {"slots": 0}, {"slots": around.occupancy.of_run(state.run_id)})
        made = decide_finish(state)
        name = type(record.event).__name__
        if made is None or type(made) is not type(record.event):
            return self._same(record, {"type": name}, {"type": made and type(made).__name__})
        return self._same(record, _fields(record.event), _fields(made))


def facts_to_record(facts: Facts, at_us: int, rested_us: int, own: str) -> dict[str, Any]:
    """What a decision is about to be made on that neither the log nor its starts say: to be kept in their facts.

    Args:
        at_us: the time of the events that it leads to.
        rested_us: the time by which rests are over.
        own: the run.
    """
    told: dict[str, Any] = {} if rested_us == at_us else {RESTED: rested_us}
    if facts.agents is not None:
        books = facts.agents.books
        if live := {attempt_id: spent for attempt_id, spent in books.live.items() if spent}:
            told[LIVE] = live
        if any(held.agent and held.run_id != own for held in books.running.values()):
            told[WORKING] = list(facts.agents.working)
    return told


def kept_from_more(decision: Decision) -> str:
    """What kept a decision from starting more but its own rules; empty where nothing did."""
    if decision.pressed is not None:
        return decision.pressed.code
    return next((held.code for held in decision.held.values()), "")


def is_planned(event: Event, state: RunState, *, as_before: bool = False) -> bool:
    """Whether an event is a step of a plan: decided by looking at the run as a whole.

    Args:
        as_before: whether it may also be what comes in between the steps of one.
    """
    match event:
        case ev.TaskSkipped() | ev.TaskStarted():
            return True
        case ev.TaskQueued(reason=reason):
            return not reason
        case ev.TaskBlocked(reason=reason, attempt_id=attempt_id):
            return attempt_id is None and reason == APPROVAL
        case ev.TaskCancelled(attempt_id=attempt_id):
            return state.cancel_requested and (attempt_id is None or attempt_id not in state.running)
        case ev.CheckpointCreated(kind=kind):
            return as_before and kind == "before_attempt"
        case _:
            return False


def planned(commit: Sequence[Recorded], at: int, state: RunState) -> list[Recorded]:
    """The steps that follow one another in a commit, from a place on, without the checkpoints between them."""
    found: list[Recorded] = []
    for place in range(at, len(commit)):
        record = commit[place]
        if not is_planned(record.event, state, as_before=True) or (found and not _follows(commit, place)):
            break
        if not isinstance(record.event, ev.CheckpointCreated):
            found.append(record)
    return found


def _follows(commit: Sequence[Recorded], place: int) -> bool:
    """Whether nothing of another run came between an event and the one before it."""
    return commit[place].seq == commit[place - 1].seq + 1


def moment_of(state: RunState, batch: Sequence[Recorded]) -> int:
    """The time by which rests were over, microseconds since the epoch.

    Where it is not recorded (nothing was started, or an older release wrote it), whatever was taken up had rested.
    """
    starts = [record.event for record in batch if isinstance(record.event, ev.TaskStarted)]
    if any(THEN in start.facts for start in starts):
        return int(next((start.facts[RESTED] for start in starts if RESTED in start.facts), batch[0].at_us))
    taken_up = (record.event for record in batch if isinstance(record.event, ev.TaskStarted | ev.TaskBlocked))
    return max(batch[0].at_us, *(state.tasks[one.task_id].not_before_us or 0 for one in taken_up), 0)


def facts_at(
    state: RunState, batch: Sequence[Recorded], around: Around, started: Sequence[ev.TaskStarted] = ()
) -> Facts:
    """What a decision was made on, from the log and from its own starts.

    Args:
        started: by the same decision, before the batch.
    """
    starts = [record.event for record in batch if isinstance(record.event, ev.TaskStarted)]
    run_slots, at_us = around.occupancy.of_run(state.run_id) + len(started), batch[0].at_us
    if not starts:
        return Facts(NO_SLOT, run_slots)
    facts = Facts(len(around.occupancy.slots) + len(started), run_slots)
    running = {*around.occupancy.slots, *(one.attempt_id for one in started)}
    facts.circuits = circuits_of.facts_of(around.circuits, state, running, at_us)
    known = starts[0].facts
    if governing.limited(state.plan.settings) and "processes" in known:
        facts.machine = _machine(state, starts)
    if around.spend is not None:
        facts.agents = _agent_facts(state, known, around, at_us)
        for one in started:
            facts.agents.books.hold(one.attempt_id, state.run_id, one.task_id, one.reserved_usd_micros)
            facts.agents.working.append(state.tasks[one.task_id].task.agent_type)
    return facts


def _machine(state: RunState, starts: Sequence[ev.TaskStarted]) -> governing.Machine:
    """The machine as the starts have it recorded."""
    known, needs = starts[0].facts, _Recorded()
    for start in starts:
        expected = start.facts.get(EXPECTED_MEMORY, 0)
        kind = start.role or state.tasks[start.task_id].task.agent_type, start.runner
        needs.told[kind] = min(expected, needs.told.get(kind, expected))
    return governing.Machine(
        cpu_percent=known.get("cpu_percent"),
        available_bytes=known.get("available_bytes"),
        running=known["processes"],
        taken_bytes=known.get("taken_bytes", 0),
        needs=needs,
    )


@dataclass(slots=True)
class _Recorded(Needs):
    """What attempts were expected to need when they were started."""

    told: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, agent_type: str, runner: str) -> Need | None:
        expected = self.told.get((agent_type, runner))
        return Need(expected, 1, agent_type) if expected else None


def _agent_facts(state: RunState, known: Mapping[str, Any], around: Around, at_us: int) -> AgentFacts:
    assert around.spend is not None
    working = known.get(WORKING)
    if working is None:
        held = (one for one in around.spend.running.values() if one.agent)
        working = [around.agent_type(one.run_id, one.task_id) for one in held]
    return AgentFacts(Books(around.spend, at_us, known.get(LIVE, {})), budgets_of(state), at_us, list(working))


def _steps(decision: Decision) -> list[tuple[str, str]]:
    """All that a decision leads to, in the order in which it is appended."""
    skips = [("skip", skip.task_id) for skip in decision.skips]
    return [*skips, *(("cancel", name) for name in decision.cancels), *decision.steps]


def _step(record: Recorded) -> tuple[str, str]:
    match record.event:
        case ev.TaskSkipped(task_id=task_id):
            return "skip", task_id
        case ev.TaskCancelled(task_id=task_id):
            return "cancel", task_id
        case ev.TaskQueued(task_id=task_id):
            return "queue", task_id
        case ev.TaskBlocked(task_id=task_id):
            return "block", task_id
        case ev.TaskStarted(task_id=task_id):
            return "start", task_id
        case _:
            raise AssertionError(f"{type(record.event).__name__} is no step of a plan")


def _started_too_little(last: Recorded, decision: Decision, count: int) -> Divergence | None:
    """A start that is due now and was not then, where nothing but the rules can have kept it from that."""
    if not isinstance(last.event, ev.TaskStarted) or last.event.facts.get(THEN) != "":
        return None
    more = [name for what, name in _steps(decision)[count:] if what == "start"]
    return Divergence(last.seq, "TaskStarted", "then", None, more[0]) if more else None


_NOT_DECIDED: Final = frozenset({"attempt_id", "facts", "used_s"})


def _start_again(
    state: RunState, event: ev.TaskStarted, decision: Decision, facts: Facts
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a start says, and what it would say now."""
    granted, room = decision.grants.get(event.task_id), decision.rooms.get(event.task_id)
    runner = runner_name(state.tasks[event.task_id].task)
    made = decide_start(state, event.task_id, event.attempt_id, runner, facts, granted)
    recorded = {name: value for name, value in _fields(event).items() if name not in _NOT_DECIDED}
    now = {name: value for name, value in _fields(made).items() if name not in _NOT_DECIDED}
    figures = {**made.facts, **({} if room is None else {"workers": room.figures["workers"]})}
    for name, value in figures.items():
        if name in event.facts:
            recorded[f"facts.{name}"], now[f"facts.{name}"] = event.facts[name], value
    return recorded, now


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in type(event).model_fields}


def _only(fields: Mapping[str, Any] | None, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (fields or {}).get(name) for name in names}


def _place_after(commit: Sequence[Recorded], at: int, attempt_id: str) -> int:
    for place, record in enumerate(commit[at + 1 :]):
        if isinstance(record.event, ev.TaskRetryScheduled) and record.event.attempt_id == attempt_id:
            return place
    return -1


def _after(commit: Sequence[Recorded], at: int, attempt_id: str) -> ev.TaskRetryScheduled | None:
    """The retry that an end has led to: it is in the same commit."""
    place = _place_after(commit, at, attempt_id)
    if place < 0:
        return None
    found = commit[at + 1 + place].event
    assert isinstance(found, ev.TaskRetryScheduled)
    return found


def _to_be_resolved(state: RunState, task: TaskState, commit: Sequence[Recorded], at: int) -> bool:
    """Whether an attempt failed because its work does not merge, and is made again for that."""
    if state.plan.files.conflicts not in ("rebase", "agent"):
        return False
    event = commit[at].event
    return any(
        isinstance(one.event, ev.ConflictDetected)
        and not one.event.early
        and one.event.attempt_id == event.attempt_id  # type: ignore[attr-defined]
        and one.event.round - 1 < REBASE_ROUNDS
        for one in commit[:at]
    )


def _as_it_ended(
    event: ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost, task: TaskState, retry: ev.TaskRetryScheduled | None,
    around: Around,
) -> Ended:  # fmt: skip
    """An end as its runner told it, as far as that makes a difference."""
    circuit = around.circuits.get(task.runner or "")
    spared = retry is not None and retry.failures == task.failures
    free = spared and circuit is not None and circuit.until_us is not None  # Its runner is left alone for a while.
    match event:
        case ev.TaskTimedOut():
            return Ended(event.attempt_id, "timed_out", error=event.error, free=free)
        case ev.AttemptLost():
            return Ended(
                event.attempt_id, "lost", error=event.error, retryable=event.retryable, began=event.began, free=free,
                resumable=event.resumable,
            )  # fmt: skip
        case ev.TaskFailed():
            # A usage limit is no fault where its provider is known; one that is not known counts as any failure.
            return Ended(
                event.attempt_id, "exited", error=event.error, retryable=event.retryable, kind=event.kind, free=free,
                resumable=event.resumable, provider="told" if event.kind == "usage_limit" and spared else "",
            )  # fmt: skip


def _draw(state: RunState, task: TaskState, retry: ev.TaskRetryScheduled | None) -> float:
    """The draw that gave the jitter which is recorded, in [0, 1) if it can have been one."""
    if retry is None or not retry.jitter_s:
        return 0.0
    wait_s = retry.wait_s - retry.jitter_s
    return retry.jitter_s / (wait_s * JITTER) if wait_s else 0.0


def _decided_at_us(record: Recorded, retry: ev.TaskRetryScheduled | None) -> int:
    """When a rest began: at the time of its event, or later where the clock was set back meanwhile."""
    if retry is None:
        return record.at_us
    return max(record.at_us, from_rfc3339(retry.not_before) - round(retry.wait_s * 1e6))


def _copied(state: RunState) -> RunState:
    """A copy that can be moved on step by step."""
    return replace(
        state,
        tasks={name: replace(task) for name, task in state.tasks.items()},
        counts=Counter(state.counts),
        stage_open=list(state.stage_open),
        stage_failed={stage: list(names) for stage, names in state.stage_failed.items()},
        running=dict(state.running),
        touched=set(state.touched),
        broken=set(state.broken),
    )


def _moved(state: RunState, record: Recorded) -> RunState:
    return st.fold(state, record, _no_blob)


def _no_blob(digest: str) -> bytes:
    raise AssertionError(f"no step of a plan names a document: {digest}")
