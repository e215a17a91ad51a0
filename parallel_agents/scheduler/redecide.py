"""The scheduler, run again on what a past decision was made on: does it decide the same? Pure.

A decision of the past is judged from the state of its run just before it, from what the rest of the log says of that moment
(slots, money, providers, circuits) and from the facts that its own event holds. What was decided on a sample that no event
holds (how full a disk was, how long a run was dispatched) is counted and not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.eventstore.submission import PRIORITIES
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import statuses
from parallel_agents.projections.needs import Need, Needs
from parallel_agents.projections.occupancy import EXPECTED_MEMORY
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler import circuits as circuits_of
from parallel_agents.scheduler import governing
from parallel_agents.scheduler.agents.granting import AgentFacts, runner_name
from parallel_agents.scheduler.budget import Books
from parallel_agents.scheduler.decide import (
    cancelled_unstarted,
    decide_end,
    decide_finish,
    decide_start,
)
from parallel_agents.scheduler.decide_money import BUDGET, LIVE
from parallel_agents.scheduler.plan import Agenda, Decision, Facts, plan
from parallel_agents.scheduler.redecide_machine import judge_health, judge_machine
from parallel_agents.scheduler.redecide_money import judge_money_pause, judge_resumed, judge_told, left_untold
from parallel_agents.scheduler.redecide_pauses import judge_cancel, judge_pause, ungated, unpaused
from parallel_agents.scheduler.redecide_runners import RunnersAgain
from parallel_agents.scheduler.rests import Rests
from parallel_agents.scheduler.retry import JITTER
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.scheduler.verdicts import Around, Divergence, Judged
from parallel_agents.scheduler.work import APPROVAL, REBASE_ROUNDS

NO_SLOT: Final = 1 << 60
"""Slots that are taken where a decision is judged that started nothing, and something that is recorded nowhere kept it from
that."""
RESTED: Final = "rested"
"""Among the facts of a start: that its rest was over by a steady clock, although it is not by the time of its event."""
WORKING: Final = "working"
"""The types of the agents at work, where attempts of other runs were among them."""
THEN: Final = "then"
"""Of the last start of a decision: what kept it from starting more but its own rules. Empty: nothing did."""
LEVEL: Final = "level"
"""Beside that: only tasks of at most this rank of priority were let start, since several runs share the slots by it."""


class Redecider:
    """One run, event after event.

    Args:
        judged: counts go there.
    """

    def __init__(self, judged: Judged) -> None:
        self._judged = judged
        self._agenda: Agenda | None = None
        self._state: RunState | None = None
        self._upto = 0  # The last event that was judged together with one before it.
        self._runners = RunnersAgain(judged)

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
                if record.seq <= self._upto:
                    return None
                batch = planned(commit, at, state)
                untold = left_untold(state, commit, at, around) or self._runners.untried(batch, around)
                return untold or self._judge_plan(state, batch, around)
            case ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost():
                return self._runners.unsaid(state, record, around) or self._judge_end(state, commit, at, around)
            case ev.TaskCompleted():
                return self._runners.unsaid(state, record, around)
            case ev.TaskCancelled(attempt_id=attempt_id) if attempt_id in state.running:
                return self._judge_stopped(state, record)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                return left_untold(state, commit, at, around) or self._judge_finish(state, record, around)
            case ev.BudgetThresholdReached() | ev.BudgetExceeded():
                return judge_told(state, commit, at, around, self._judged)
            case ev.RunPaused(code=code) if code == BUDGET:
                return judge_money_pause(state, commit, at, around, self._judged, _held_back(state, record, around))
            case ev.RunPaused():
                return judge_pause(state, commit, at, self._judged)
            case ev.TaskBlocked(attempt_id=str()):
                return unpaused(state, commit, at)
            case ev.GateChecked():
                return ungated(state, commit, at)
            case ev.RunCancelRequested():
                return judge_cancel(state, commit, at, around, self._judged)
            case ev.RunResumed():
                return judge_resumed(state, record, around, self._judged)
            case ev.RunStarted():
                return self._judged.same(record, {"status": state.status}, {"status": st.SUBMITTED})
            case ev.DispatchThrottled() | ev.DispatchUnthrottled() | ev.WorkersScaled():
                return judge_machine(state, commit, at, self._judged)
            case ev.AttemptStuck() | ev.AttemptRevived():
                return judge_health(state, record, self._judged)
            case _:
                pass  # Nothing that a scheduler decides: what happened, or what somebody has asked for.
        return None

    def judge_of_store(
        self, state: RunState, record: Recorded, coming: Sequence[Recorded], around: Around
    ) -> Divergence | None:
        """The same of an event of no run, as far as an attempt of this run is why.

        Args:
            coming: events of the run that were appended together with it, and after it.
        """
        return self._runners.judge(state, record, coming, around) if record.actor == around.actor else None

    def forget(self) -> None:
        """The state is another one from here on."""
        self._agenda = None

    def _judge_plan(self, state: RunState, batch: Sequence[Recorded], around: Around) -> Divergence | None:
        """What one look at a run has led to: skips, cancellations, and what is queued, blocked and started."""
        facts, level = facts_at(state, batch, around), _level_of(batch)
        state.touched |= _rested(state, batch)  # Or the agenda has them at rest.
        if self._agenda is None or self._state is not state:
            self._agenda, self._state = Agenda(state), state
        decision = plan(state, self._agenda, facts, batch[0].at_us, priority=level)
        same = _common(_steps(decision), [_step(record) for record in batch])
        if same <= _last_start(batch):
            self._upto = batch[-1].seq
            return self._judge_one_by_one(state, batch, around)
        batch = batch[:same]  # What follows may be of the next look.
        self._upto = batch[-1].seq
        state.touched.update(name for _, name in _steps(decision)[same:])  # It is to think of these anew.
        starts = facts_at(state, batch, around)
        for record in batch:
            said = self._judge_step(state, record, decision, starts)
            if said is not None:
                return said
            if isinstance(record.event, ev.TaskStarted):
                starts.run_slots, starts.store_slots = starts.run_slots + 1, starts.store_slots + 1
        said = _started_too_little(batch[_last_start(batch)], decision, len(batch))
        return None if said is None or _may_have_rested(state, batch) else said

    def _judge_one_by_one(self, state: RunState, batch: Sequence[Recorded], around: Around) -> Divergence | None:
        """The same where several looks have led to it: each step is to be the first of its kind that is due then."""
        self._agenda = None
        state = _copied(state)
        started: list[ev.TaskStarted] = []
        for place, record in enumerate(batch):
            rest, wanted = batch[place:], _step(record)
            decision = _first_look(state, facts_at(state, rest, around, started), rest, _level_of(batch))
            if _next_of(decision, wanted[0]) != wanted and wanted[0] in ("queue", "block"):
                none = replace(facts_at(state, rest, around, started), store_slots=NO_SLOT)
                pressed = _first_look(state, none, rest, _level_of(batch))
                before = rest[:1]  # Whoever starts later may have rested until then.
                earlier = _first_look(state, facts_at(state, before, around, started), before, _level_of(before))
                others = (pressed, earlier)
                decision = next((other for other in others if _next_of(other, wanted[0]) == wanted), decision)
            if (found := _next_of(decision, wanted[0])) != wanted:
                self._judged.decisions[type(record.event).__name__] += 1
                now = None if found is None else found[1]
                return Divergence(record.seq, type(record.event).__name__, "task_id", wanted[1], now)
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
                return self._judged.same(
                    record, {"because": event.because, "reason": event.reason},
                    {"because": skip.because, "reason": skip.reason},
                )  # fmt: skip
            case ev.TaskCancelled(task_id=task_id) as event:
                made = cancelled_unstarted(state.tasks[task_id], state.reason)
                return self._judged.same(record, _fields(event), _fields(made))
            case ev.TaskStarted() as event:
                return self._judged.same(record, *_start_again(state, event, decision, facts))
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
        task = state.tasks[task_id]
        if _to_be_resolved(state, task, commit, at):
            told = None if retry is None else (retry.failures, retry.wait_s)
            return self._judged.same(record, {"retry": told}, {"retry": (task.failures, 0.0)})
        ended = _as_it_ended(event, task, retry, around)
        ended.retryable = ended.retryable and not _has_spent_its_own(state, task, around)
        draw = _draw(state, task, retry)
        made = decide_end(state, ended, _decided_at_us(record, retry), draw)
        again = next((one for one in made if isinstance(one, ev.TaskRetryScheduled)), None)
        said = self._judged.same(
            record, {"type": type(event).__name__, "retry": retry is not None},
            {"type": type(made[0]).__name__, "retry": again is not None},
        )  # fmt: skip
        if said is not None or retry is None or again is None:
            return said or unpaused(state, commit, at)
        place = _place_after(commit, at, event.attempt_id)
        return self._judged.same(commit[place], _fields(retry), _fields(again)) or unpaused(state, commit, place)

    def _judge_stopped(self, state: RunState, record: Recorded) -> Divergence | None:
        event = record.event
        assert isinstance(event, ev.TaskCancelled)
        task = state.tasks[event.task_id]
        wanted = task.cancel_requested or state.cancel_requested
        reason = task.reason or (state.reason if state.cancel_requested else "")
        return self._judged.same(record, {"wanted": True, "reason": event.reason}, {"wanted": wanted, "reason": reason})

    def _judge_finish(self, state: RunState, record: Recorded, around: Around) -> Divergence | None:
        if around.occupancy.of_run(state.run_id):
            return self._judged.same(record, {"slots": 0}, {"slots": around.occupancy.of_run(state.run_id)})
        made = decide_finish(state)
        name = type(record.event).__name__
        if made is None or type(made) is not type(record.event):
            return self._judged.same(record, {"type": name}, {"type": made and type(made).__name__})
        return self._judged.same(record, _fields(record.event), _fields(made))


def _first_look(state: RunState, facts: Facts, batch: Sequence[Recorded], level: int) -> Decision:
    """A plan of the state alone, whatever was looked at before."""
    touched, broken = set(state.touched), set(state.broken)
    decision = plan(state, Agenda(state), facts, batch[0].at_us, priority=level)
    state.touched, state.broken = touched, broken
    return decision


def _held_back(state: RunState, record: Recorded, around: Around) -> Decision:
    """What would be planned where a run was paused since nothing of it can start.

    What rests by the time of events may have rested by the steady clock: nothing that rests lets a run be paused.
    """
    facts = facts_at(state, [record], around)
    queued = [name for name, status in statuses(state) if status == st.QUEUED]
    facts.rests.ends_us = {state.tasks[name].attempt_id or "": 0 for name in queued}
    return _first_look(state, facts, [record], len(PRIORITIES))


def _next_of(decision: Decision, kind: str) -> tuple[str, str] | None:
    return next((step for step in _steps(decision) if step[0] == kind), None)


def facts_to_record(facts: Facts, own: str) -> dict[str, Any]:
    """What a decision is about to be made on that neither the log nor its starts say: to be kept in their facts.

    Args:
        own: the run.
    """
    told: dict[str, Any] = {}
    if facts.agents is not None:
        books = facts.agents.books
        if live := {attempt_id: spent for attempt_id, spent in books.live.items() if spent}:
            told[LIVE] = live
        if any(held.agent and held.run_id != own for held in books.running.values()):
            told[WORKING] = list(facts.agents.working)
    return told


def kept_from_more(decision: Decision, level: int | None = None) -> dict[str, Any]:
    """What the last start of a decision says of its end.

    Args:
        level: of priority, where others share the slots by that.
    """
    held = next((one.code for one in decision.held.values()), "")
    then = {THEN: held if decision.pressed is None else decision.pressed.code}
    return then if level is None else {**then, LEVEL: level}


def is_planned(event: Event, state: RunState) -> bool:
    """Whether an event is a step of a plan: decided by looking at the run as a whole."""
    match event:
        case ev.TaskSkipped() | ev.TaskStarted():
            return True
        case ev.TaskQueued(reason=reason):
            return not reason
        case ev.TaskBlocked(reason=reason, attempt_id=attempt_id):
            return attempt_id is None and reason == APPROVAL
        case ev.TaskCancelled(attempt_id=attempt_id):
            return state.cancel_requested and (attempt_id is None or attempt_id not in state.running)
        case _:
            return False


def planned(commit: Sequence[Recorded], at: int, state: RunState) -> list[Recorded]:
    """The steps from a place on that one look at the run may have led to, without the checkpoints between them.

    They end with the first event that is something else or of another run, and with what follows the start that says that it
    was the last one, if that is no start.
    """
    found: list[Recorded] = []
    last = False
    for place in range(at, len(commit)):
        event = commit[place].event
        if found and not _follows(commit, place):
            break
        if isinstance(event, ev.CheckpointCreated) and event.kind == "before_attempt":
            continue
        if not is_planned(event, state) or (last and not isinstance(event, ev.TaskQueued | ev.TaskBlocked)):
            break
        found.append(commit[place])
        last = last or (isinstance(event, ev.TaskStarted) and THEN in event.facts)
    return found


def _common(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> int:
    """How many steps two lists begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _last_start(batch: Sequence[Recorded]) -> int:
    """The place of the last start; 0 where there is none."""
    return max((at for at, one in enumerate(batch) if isinstance(one.event, ev.TaskStarted)), default=0)


def _follows(commit: Sequence[Recorded], place: int) -> bool:
    """Whether nothing of another run came between an event and the one before it."""
    return commit[place].seq == commit[place - 1].seq + 1


def _rested(state: RunState, batch: Sequence[Recorded]) -> set[str]:
    """The tasks whose rest was over by a steady clock, although it is not by the time of events.

    Where that is not recorded (it was not started, or an older release wrote it), whatever was taken up had rested.
    """
    starts = [record.event for record in batch if isinstance(record.event, ev.TaskStarted)]
    told = any(THEN in start.facts for start in starts)
    found = {start.task_id for start in starts if start.facts.get(RESTED) or not told}
    found |= {record.event.task_id for record in batch if isinstance(record.event, ev.TaskBlocked)}
    return {name for name in found if (state.tasks[name].not_before_us or 0) > batch[0].at_us}


def _may_have_rested(state: RunState, batch: Sequence[Recorded]) -> bool:
    """Whether a task that was not taken up rests by the time of events, and may have rested by the steady clock.

    It stands in the queue then, and no event says whether it held back what comes behind it.
    """
    known = _rested(state, batch)
    queued = (name for name, status in statuses(state) if status == st.QUEUED and name not in known)
    return any((state.tasks[name].not_before_us or 0) > batch[0].at_us for name in queued)


def _level_of(batch: Sequence[Recorded]) -> int:
    event = batch[_last_start(batch)].event
    return event.facts.get(LEVEL, len(PRIORITIES)) if isinstance(event, ev.TaskStarted) else len(PRIORITIES)


def facts_at(
    state: RunState, batch: Sequence[Recorded], around: Around, started: Sequence[ev.TaskStarted] = ()
) -> Facts:
    """What a decision was made on, from the log and from its own starts.

    Args:
        started: by the same decision, before the batch.
    """
    starts = [record.event for record in batch if isinstance(record.event, ev.TaskStarted)]
    facts = Facts(len(around.occupancy.slots) + len(started), around.occupancy.of_run(state.run_id) + len(started))
    ends = {state.tasks[name].attempt_id or "": 0 for name in _rested(state, batch)}
    facts.rests = Rests(now_us=1, since_us=2, ends_us=ends)  # All others go on resting.
    at_us, running = batch[0].at_us, {*around.occupancy.slots, *(one.attempt_id for one in started)}
    facts.circuits = circuits_of.facts_of(around.circuits, state, running, at_us)
    first = batch[0].event
    known = starts[0].facts if starts else first.facts if isinstance(first, ev.RunPaused) else {}
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
    return AgentFacts(Books(around.spend, at_us, known.get(LIVE, {})), around.budgets.of(state), at_us, list(working))


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


def _place_after(commit: Sequence[Recorded], at: int, attempt_id: str) -> int:
    """Where in the commit the retry is told that an end has led to; -1: there is none."""
    for place in range(at + 1, len(commit)):
        event = commit[place].event
        if isinstance(event, ev.TaskRetryScheduled) and event.attempt_id == attempt_id:
            return place
    return -1


def _after(commit: Sequence[Recorded], at: int, attempt_id: str) -> ev.TaskRetryScheduled | None:
    place = _place_after(commit, at, attempt_id)
    found = commit[place].event
    return found if place >= 0 and isinstance(found, ev.TaskRetryScheduled) else None


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


def _has_spent_its_own(state: RunState, task: TaskState, around: Around) -> bool:
    """Whether a task's own budget is spent, so that no attempt of it could start again."""
    name, budgets = task.task.task_id, state.plan.budgets
    limit = state.task_budgets.get(name, task.task.budget_usd_micros)
    if around.spend is None or limit is None or not (budgets.enabled and budgets.pause):
        return False
    return around.spend.by_task[state.run_id, name] >= limit


def _draw(state: RunState, task: TaskState, retry: ev.TaskRetryScheduled | None) -> float:
    """The draw that gave the jitter which is recorded, in [0, 1) if it can have been one."""
    if retry is None or not retry.jitter_s:
        return 0.0
    wait_s = retry.wait_s - retry.jitter_s
    return retry.jitter_s / (wait_s * JITTER) if wait_s else 0.0


def _decided_at_us(record: Recorded, retry: ev.TaskRetryScheduled | None) -> int:
    """When a rest began: at the time of its event, or later where an older release wrote it and the clock had been set back."""
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
