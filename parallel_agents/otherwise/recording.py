"""What the log holds of a run that would happen again: how each attempt ended, and what came from outside. Pure.

A run is cut into looks: what was appended at one time by one actor. In the looks of its dispatcher stand decisions, which
whoever executes it again leaves to the scheduler, and ends of attempts, which are facts. All else came from outside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.agents.granting import provider_of
from parallel_agents.scheduler.decide_money import WAITS
from parallel_agents.scheduler.retry import JITTER
from parallel_agents.scheduler.runners.protocol import NO_AGENTS, Charge, Ended
from parallel_agents.scheduler.work import CONFLICT, REBASE_ROUNDS

COMPLETED: Final = "completed"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed out"
LOST: Final = "lost"
STOPPED: Final = "stopped"
DISCARDED: Final = "discarded"
BLOCKED: Final = "blocked"
OPEN: Final = "open"

NO_CHANGE: Final = "no_change"
OF_ITS_FILES: Final = ("declared output is missing: ", "conflict markers are left in ")
"""How errors begin that say what was wrong with the files of an attempt which ended well."""

GAVE_UP: Final = " did not: "
"""Between who was to resolve a conflict and why that came to nothing."""

_ENDS = (
    ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost | ev.TaskCancelled | ev.ResultDiscarded
    | ev.TaskBlocked
)  # fmt: skip


@dataclass(slots=True)
class Attempt:
    """One attempt as it was recorded. Times are microseconds since the epoch, those of the commits that tell of it.

    Attributes:
        outcome: one of the words above; ``open``: its end is not recorded.
        ended: its end as its runner told it, as far as that makes a difference.
        draw: that gave the jitter of the retry after it, in [0, 1); None: there was none.
        place: of its end among all events, so that what ended together is told in its order.
        paths: the first of those that it has changed.
        commit: of the files that it has left, where they were kept.
        merged: the integration line with these files, where they were merged.
        gates: that were run on its files, in order.
        well: whether it did all that was asked of it, and its files alone made a failure of that.
        gave_up: what kept it from resolving the conflict that is left to a person now; None: nothing did.
    """

    start: ev.TaskStarted
    started_us: int
    outcome: str = OPEN
    ended_us: int | None = None
    ended: Ended | None = None
    draw: float | None = None
    place: int = 0
    paths: tuple[str, ...] = ()
    commit: str | None = None
    merged: str | None = None
    gates: list[ev.GateChecked] = field(default_factory=list)
    well: bool = False
    gave_up: str | None = None

    @property
    def task_id(self) -> str:
        """Whose it is."""
        return self.start.task_id

    @property
    def took_us(self) -> int | None:
        """How long it held its slot."""
        return None if self.ended_us is None else self.ended_us - self.started_us

    @property
    def usd_micros(self) -> int:
        """What it is known to have cost."""
        return 0 if self.ended is None else sum(one.usd_micros or 0 for one in self.ended.charges)


@dataclass(frozen=True, slots=True)
class Look:
    """What was appended at one time by one actor, of all runs that matter."""

    at_us: int
    actor: str
    dispatcher: bool  # Whether the run's own dispatcher did.
    records: tuple[Recorded, ...]


@dataclass(slots=True)
class Recording:
    """A run from its first event to its last."""

    run_id: str
    looks: list[Look] = field(default_factory=list)
    stage_gates: list[tuple[int, ev.GateChecked]] = field(default_factory=list)  # With their times, in order.
    attempts: dict[str, Attempt] = field(default_factory=dict)  # By attempt id, in the order of their starts.

    @property
    def first(self) -> Recorded:
        """Its first event."""
        return next(one for one in self.looks[0].records if one.run_id == self.run_id)

    @property
    def by_task(self) -> dict[str, list[Attempt]]:
        """The attempts of each task, in their order."""
        found: dict[str, list[Attempt]] = defaultdict(list)
        for one in self.attempts.values():
            found[one.task_id].append(one)
        return found


def record_run(run_id: str, records: Iterable[Recorded]) -> Recording:
    """Gather a run.

    Args:
        records: its events, and those of others that count, in the order of the log.
    """
    made, kind = Recording(run_id), ""
    for (at_us, actor), grouped in groupby(records, lambda one: (one.at_us, one.actor)):
        for look in _ticks(grouped):
            for one in look:
                if one.run_id == run_id and isinstance(one.event, ev.RunClaimed):
                    kind = str(one.event.holder.get("kind"))
            made.looks.append(Look(at_us, actor, actor == kind, tuple(look)))
    for one_look in made.looks:
        _learn(made, one_look)
    return made


def _ticks(records: Iterable[Recorded]) -> Iterator[list[Recorded]]:
    """What was appended at one time, cut where a later tick begins.

    In one tick ends come before all that is planned, and what begins to rest does not start.
    """
    look: list[Recorded] = []
    planned, rests = False, set[tuple[str, str]]()
    for one in records:
        event = one.event
        if isinstance(event, ev.TaskRetryScheduled) and event.wait_s:
            rests.add((one.run_id, event.task_id))
        begins = is_planned(event) and (one.run_id, getattr(event, "task_id", "")) in rests
        if begins or (planned and _is_end(event)):
            yield look
            look, planned = [], False
            rests.clear()
        look.append(one)
        planned = planned or is_planned(event)
    yield look


def _is_end(event: Event) -> bool:
    return isinstance(event, _ENDS | ev.CostCharged) and event.attempt_id is not None


def is_planned(event: Event) -> bool:
    """Whether an event is a step of a plan, or a run's beginning or end: what comes after the ends in a tick."""
    match event:
        case ev.TaskQueued(reason=reason):
            return not reason
        case ev.TaskBlocked(attempt_id=attempt_id) | ev.TaskCancelled(attempt_id=attempt_id):
            return attempt_id is None
        case _:
            return isinstance(event, _PLANNED)


_PLANNED = ev.TaskStarted | ev.TaskSkipped | ev.RunStarted | ev.RunCompleted | ev.RunFailed | ev.RunCancelled


def _learn(made: Recording, look: Look) -> None:
    mine = [one for one in look.records if one.run_id == made.run_id]
    own = [one.event for one in mine]
    charges: dict[str, list[ev.CostCharged]] = defaultdict(list)
    for event in own:
        match event:
            case ev.TaskStarted():
                made.attempts[event.attempt_id] = Attempt(event, look.at_us)
            case ev.CostCharged():
                charges[event.attempt_id].append(event)
            case ev.CheckpointCreated(kind="after_attempt", attempt_id=str(attempt_id)) if attempt_id in made.attempts:
                attempt = made.attempts[attempt_id]
                attempt.paths, attempt.commit = tuple(event.paths), event.commit
            case ev.GateChecked(attempt_id=None):
                made.stage_gates.append((look.at_us, event))
            case ev.GateChecked(attempt_id=str(attempt_id)) if attempt_id in made.attempts:
                made.attempts[attempt_id].gates.append(event)
            case _:
                pass
    for place, event in enumerate(own):
        if isinstance(event, _ENDS) and (found := made.attempts.get(event.attempt_id or "")) is not None:
            if found.ended_us is not None:
                continue  # Work that waited for a person, and is settled.
            found.outcome, found.ended_us = _outcome(event), look.at_us
            found.place = mine[place].seq
            paid = charges[found.start.attempt_id]
            found.ended = _as_told(event, found, look, paid)
            found.ended.charges = tuple(map(_charge, paid))
            found.ended.at_once = max((one.at_once for one in paid), default=0)
            found.ended.denied = tuple(
                name for one in own if isinstance(one, ev.ToolsDenied) and one.attempt_id == event.attempt_id
                for name in one.tools
            )  # fmt: skip
            retry = retry_of(own, place, found.start.attempt_id)
            found.draw = None if retry is None else draw_of(retry)
            found.ended.free = _is_free(own[:place], event, retry)
            found.merged = event.commit if isinstance(event, ev.TaskCompleted) else None
            found.well = _did_well(own[:place], event)
            if isinstance(event, ev.TaskBlocked) and GAVE_UP in event.reason:
                found.gave_up = event.reason.partition(GAVE_UP)[2]


def retry_of(own: Sequence[Event], place: int, attempt_id: str) -> ev.TaskRetryScheduled | None:
    """The retry that the end at a place has led to."""
    for event in own[place + 1 :]:
        if isinstance(event, ev.TaskRetryScheduled) and event.attempt_id == attempt_id:
            return event
    return None


def draw_of(retry: ev.TaskRetryScheduled) -> float:
    """The draw that gave a recorded jitter."""
    wait_s = retry.wait_s - retry.jitter_s
    return retry.jitter_s / (wait_s * JITTER) if wait_s and retry.jitter_s else 0.0


def _outcome(event: _ENDS) -> str:
    match event:
        case ev.TaskCompleted():
            return COMPLETED
        case ev.TaskFailed():
            return FAILED
        case ev.TaskTimedOut():
            return TIMED_OUT
        case ev.AttemptLost():
            return LOST
        case ev.TaskCancelled():
            return STOPPED
        case ev.ResultDiscarded():
            return DISCARDED
        case ev.TaskBlocked():
            return BLOCKED


def _as_told(event: _ENDS, attempt: Attempt, look: Look, paid: Sequence[ev.CostCharged]) -> Ended:
    attempt_id, runner = attempt.start.attempt_id, attempt.start.runner
    took_s = getattr(event, "duration_s", paid[0].duration_s if paid else None)
    began_us = look.at_us - (round(took_s * 1e6) if took_s is not None else look.at_us - attempt.started_us)
    measured = {
        name: getattr(event, name)
        for name in ("cpu_s", "peak_memory_bytes", "peak_cpu_percent", "peak_open_files", "disk_written_bytes")
        if hasattr(event, name)
    }
    said = Ended(attempt_id, "exited", started_at_us=began_us, ended_at_us=look.at_us, **measured)
    store = [one.event for one in look.records if one.run_id == STORE_RUN]
    match event:
        case ev.TaskCompleted() | ev.TaskBlocked():
            said.exit_code, said.output = event.exit_code, event.output
            freed = [one.provider for one in store if isinstance(one, ev.ProviderFreed) and not one.reason]
            if freed and provider_of(runner, BUILT_IN) in freed:
                said.provider, said.got_through = provider_of(runner, BUILT_IN), True
        case ev.TaskFailed():
            said.exit_code, said.output, said.error = event.exit_code, event.output, event.error
            said.retryable, said.kind, said.resumable = event.retryable, event.kind, event.resumable
            if event.kind in WAITS:
                said.provider = provider_of(runner, BUILT_IN)
            elif not event.kind and runner not in NO_AGENTS:
                said.outcome = "not_started"
        case ev.TaskTimedOut():
            said.outcome, said.error = "timed_out", event.error
        case ev.AttemptLost():
            said.outcome, said.error, said.retryable = "lost", event.error, event.retryable
            said.began, said.resumable = event.began, event.resumable
        case ev.TaskCancelled() | ev.ResultDiscarded():
            said.outcome, said.error = "stopped", "stopped"
    _blame(said, store)
    return said


def _blame(said: Ended, store: Sequence[Event]) -> None:
    """What the events of no run say of an end: whose fault it was, and until when a provider lets nobody work."""
    for one in store:
        match one:
            case ev.ProviderLimited(attempt_id=said.attempt_id):
                said.provider = one.provider
                said.until_us = from_rfc3339(one.until) if one.stated else None
            case ev.RunnerFailed(attempt_id=said.attempt_id) | ev.CircuitOpened(attempt_id=said.attempt_id):
                said.fault = "runner"
                if said.outcome == "exited":
                    said.outcome = "not_started"
            case _:
                pass


def _is_free(before: Sequence[Event], event: _ENDS, retry: ev.TaskRetryScheduled | None) -> bool:
    """Whether an attempt was made again at once and counted as no failure, by what is no rule of its own end."""
    if retry is None or retry.wait_s or not isinstance(event, ev.TaskFailed):
        return False
    return is_to_be_merged_again(before, event.attempt_id)


def is_to_be_merged_again(before: Sequence[Event], attempt_id: str) -> bool:
    """Whether work met a conflict at its merge, so that its task is done once more on the merged result."""
    return any(
        isinstance(one, ev.ConflictDetected) and not one.early and one.attempt_id == attempt_id
        and one.round - 1 < REBASE_ROUNDS
        for one in before
    )  # fmt: skip


def _did_well(before: Sequence[Event], event: _ENDS) -> bool:
    """Whether only its files have made a failure of an attempt: they met a conflict, or a gate, or were not there."""
    if not isinstance(event, ev.TaskFailed):
        return False
    for one in before:
        match one:
            case (
                ev.ConflictDetected(early=False, attempt_id=event.attempt_id)
                | ev.GateChecked(passed=False, attempt_id=event.attempt_id)
            ):
                return True
            case _:
                pass
    return event.kind == NO_CHANGE or event.error.startswith(OF_ITS_FILES)


def _charge(event: ev.CostCharged) -> Charge:
    return Charge(
        model=event.model, usd_micros=event.usd_micros, source=event.source,  # type: ignore[arg-type]
        input_tokens=event.input_tokens, output_tokens=event.output_tokens, cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens, calls=event.calls, partial=event.partial, prices=event.prices,
    )  # fmt: skip


def is_conflict_pause(event: Event) -> bool:
    """Whether a run was paused because work did not merge."""
    return isinstance(event, ev.RunPaused) and f": {CONFLICT}" in event.reason


def outcomes(attempts: Mapping[str, Attempt]) -> dict[str, int]:
    """How many attempts ended in which way."""
    found: dict[str, int] = defaultdict(int)
    for one in attempts.values():
        found[one.outcome] += 1
    return dict(found)
