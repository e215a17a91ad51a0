"""A recorded run, executed again: the scheduler decides, attempts do what they did, and what came from outside comes again.

Look by look, at the times at which the run's dispatcher looked then. What it decides now is compared with what is recorded,
event by event, up to the first difference.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, new_ids
from parallel_agents.eventstore.submission import Plan, load_plan
from parallel_agents.otherwise.recording import BLOCKED, Attempt, Look, Recording, is_planned
from parallel_agents.otherwise.reenacting_files import FilesAgain, files_again
from parallel_agents.otherwise.same_events import (
    OF_COMMITS,
    OF_FILES,
    began_late,
    differ,
    differs_at_its_end,
    is_compared,
    is_given,
    is_seen,
    named,
    starts_last,
)
from parallel_agents.otherwise.surroundings import Surroundings, begin_again, has_agents, recording_of
from parallel_agents.otherwise.virtual_run import VirtualRun, runners_of, without_world
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.status import CPU, MEMORY
from parallel_agents.scheduler.budget import Stop
from parallel_agents.scheduler.decide import MAX_EXECUTION
from parallel_agents.scheduler.decide_money import LIVE
from parallel_agents.scheduler.governing import WORKERS, limited
from parallel_agents.scheduler.redecide import LEVEL, RESTED, THEN
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.recorded import FAR_US, Part
from parallel_agents.scheduler.verdicts import Divergence

WAKES_US: Final = 2_000_000  # Whatever is due is looked at so soon, even where every hint was lost.
OF_THE_MACHINE: Final = frozenset({CPU, MEMORY, WORKERS})
SILENT_LOOKS: Final = (
    3  # As many steps as lie between two events of one end: its files are kept, merged, and merged again.
)
REPORT_EVERY: Final = 500  # Looks between two reports of progress, where no files are laid out.
_FINISHES: Final = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)
_LEASES: Final = (ev.RunClaimed, ev.RunReleased)


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    same: Counter[str] = field(default_factory=Counter)  # Events that came out the same, by type.
    given: Counter[str] = field(default_factory=Counter)  # From outside, by type: taken from the recording.
    divergence: Divergence | None = None  # The first.
    looks: int = 0  # That were played, the one that differs included.


Acts = Callable[[Launch, Attempt | None], Part]


def as_recorded(launch: Launch, attempt: Attempt | None) -> Part:
    """What an attempt did."""
    if attempt is None or attempt.ended is None or attempt.outcome == BLOCKED:
        return Part(None, Ended(launch.attempt_id, "stopped"))
    return Part(attempt.took_us, attempt.ended, attempt.place)


class Reenactment:
    """One run, executed again.

    Args:
        log: the store that it was recorded in; only read.
        plan: in place of the recorded one.
        obeys: whether an attempt that is asked to stop does so although it is not recorded to.
        acts: says what an attempt does, by the recorded one that it stands for; left out: the same.
        around: what other runs held and had spent, where many runs of the store are asked for.
        files: its files, which stay the caller's; None: what they decided is given, as recorded.
    """

    def __init__(
        self,
        log: Log,
        recording: Recording,
        plan: Plan | None = None,
        *,
        obeys: bool = False,
        acts: Acts | None = None,
        around: Surroundings | None = None,
        files: FilesAgain | None = None,
    ) -> None:
        self.recording = recording
        self.outcome = Outcome()
        self.ids: dict[str, str] = {}  # Recorded attempt -> the one that stands for it.
        self._log = log
        self._acts_by = acts or as_recorded
        self._seqs: list[tuple[int, int]] = []  # Recorded seq -> seq here, ascending.
        first = recording.first
        assert isinstance(first.event, ev.RunSubmitted | ev.RunForked)
        recorded = load_plan(log.blob(first.event.plan_digest))
        self.plan = without_world(plan or recorded, files=files is not None)
        self.governed = limited(recorded.settings) or has_agents(recorded)
        self.has_files = has_files(recording)
        self.files = files
        began = [one.start.runner for one in recording.attempts.values()]
        self.world = VirtualRun(
            recording.run_id, self.part_of, first.at_us, runners_of(self.plan, began), obeys=obeys, frozen=not obeys,
            place=None if files is None else files.place,
        )  # fmt: skip
        self.world.draw_of = self.draw_of
        self.world.place_of = self.place_of
        if files is not None:
            files.follow(plan or recorded)
        self._names = {task_id: iter(attempts) for task_id, attempts in recording.by_task.items()}
        self.world.dispatcher.name_attempts = self.name_attempts
        self._acts: dict[str, Attempt] = {}  # By the id of the attempt that stands for it.
        self._busy: set[str] = set()  # Recorded attempts that run as processes.
        self._held_back = False  # Whether less than the settings say may run.
        self._leaves = False  # Whether the dispatcher lets go of the run next.
        self._early: deque[Recorded] = deque()  # Decided here before it was there, as no files were waited for.
        place = None if files is None else files.place
        begin_again(self.world, log, first, self.plan, recorded.budget_usd_micros, around, place)
        self._seqs.append((first.seq, self.world.records[-1].seq))

    def close(self) -> None:
        """Forget all of it."""
        self.world.close()

    def name_attempts(self, task_ids: Sequence[str]) -> list[str]:
        """The ids that the attempts of these tasks have in the recording, or new ones."""
        found = [next(self._names.get(task_id, iter(())), None) for task_id in task_ids]
        new = iter(new_ids(found.count(None)))
        return [next(new) if one is None else one.start.attempt_id for one in found]

    def place_of(self, attempt_id: str) -> int:
        """The place of an attempt's end in the recording."""
        attempt = self._acts.get(attempt_id)
        return FAR_US if attempt is None else attempt.place

    def part_of(self, launch: Launch) -> Part:
        """What an attempt does: what its recorded one did."""
        now_us = None if self.world.runner.obeys else self.world.now_us
        if self.files is not None and (said := self.files.gate(launch, now_us)) is not None:
            return said
        attempt = self.recording.attempts.get(launch.attempt_id)
        if attempt is not None:
            self._acts[launch.attempt_id] = attempt
            self.ids[attempt.start.attempt_id] = launch.attempt_id
        part = self._acts_by(launch, attempt)
        if self.files is not None:
            part = self.files.part(launch, attempt, part, per_agent=self.plan.files.per_agent)
        late_us = 0 if attempt is None or self.world.runner.obeys else attempt.started_us - self.world.now_us
        if late_us and part.takes_us is not None:  # It waited for files then, or does so here.
            return replace(part, takes_us=max(0, part.takes_us + late_us))
        return part

    def act_of(self, attempt_id: str) -> Attempt | None:
        """The recorded attempt that one here stands for."""
        return self._acts.get(attempt_id)

    def draw_of(self, attempt_id: str) -> float:
        """The draw that was recorded."""
        attempt = self._acts.get(attempt_id)
        return 0.5 if attempt is None or attempt.draw is None else attempt.draw

    def play(self, told: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
        """All looks, or those up to the first difference.

        Args:
            told: told of progress: looks that were made, and how many there are.
        """
        for number, look in enumerate(self.recording.looks):
            if number % (REPORT_EVERY if self.files is None else 1) == 0:
                told(number, len(self.recording.looks))
            if self.world.runner.obeys and (said := self._between(look)) is not None:
                self.outcome.divergence = said
                return self.outcome
            self.world.now_us = max(self.world.now_us, look.at_us)
            self._leaves = self._lets_go_after(number)
            self.outcome.looks = number + 1
            self.outcome.divergence = self.play_look(look)
            if self.outcome.divergence is not None:
                return self.outcome
        self.outcome.divergence = differs_at_its_end(
            self._log, self.world.log, self.recording.run_id, self.recording.looks[-1].records[-1].seq
        )
        return self.outcome

    def _between(self, look: Look) -> Divergence | None:
        """What is due now between two looks at which nothing was due then."""
        while (at_us := self._next_before(look)) is not None:
            self.world.now_us = max(self.world.now_us, at_us)
            made = [one for one in self.world.look() if self._is_compared(one)]
            if made:
                now = named(made[0].event)
                return Divergence(look.records[0].seq, type(made[0].event).__name__, "event before it", None, now)
            if at_us == self._next_before(look):
                return None  # It is due, and waits for what comes.
        return None

    def _next_before(self, look: Look) -> int | None:
        """When anything happens before a look. What is only due may have been seen to as late as then."""
        ends_us, due_us = self.world.runner.next_end_us(), self.world.due_us
        times = [ends_us] if ends_us is not None and ends_us < look.at_us else []
        times += [due_us] if due_us is not None and due_us < look.at_us - WAKES_US else []
        watch_us = self.world.watch_us()
        times += [watch_us] if watch_us is not None and watch_us < look.at_us else []
        return min(times, default=None)

    def _lets_go_after(self, number: int) -> bool:
        """Whether the next of the run's events is that its dispatcher lets go of it: it has started nothing any more."""
        for look in self.recording.looks[number + 1 : number + 3]:
            for one in look.records:
                if self._is_own(one):
                    return isinstance(one.event, ev.RunReleased)
        return any(
            self._is_own(one) and isinstance(one.event, ev.RunReleased) for one in self.recording.looks[number].records
        )

    def play_look(self, look: Look) -> Divergence | None:
        """What came from outside then, and what the dispatcher decides now."""
        self._count_busy(look)
        if not look.dispatcher:
            self.give(look.records)
            return None
        planned = self._first(look, is_planned)
        cut = self._first(look, lambda event: isinstance(event, ev.TaskStarted))
        seen = {one.seq for one in look.records[:planned] if self._is_own(one) and is_seen(one.event)}
        self.give([one for one in look.records[:cut] if self._comes_with(one) or one.seq in seen])
        own = (one for one in look.records if self._is_own(one) and one.seq not in seen)
        wanted = [one for one in own if self._is_compared(one)]
        said = self._decide(look, wanted) if wanted else None
        self.give([one for one in look.records[cut:] if self._comes_with(one)])
        return said

    def _first(self, look: Look, of: Callable[[Event], bool]) -> int:
        """The place of the run's first event of a kind; behind the last one where there is none."""
        places = (place for place, one in enumerate(look.records) if self._is_own(one) and of(one.event))
        return next(places, len(look.records))

    def give(self, records: Sequence[Recorded]) -> None:
        """Let happen from outside what is recorded."""
        given: list[tuple[str, Event]] = []
        places = []
        for record in records:
            event = record.event
            without = self.files is None and type(event).__name__ in OF_FILES
            skipped = isinstance(event, ev.RunSubmitted | ev.RunForked) or (
                self._is_own(record) and (isinstance(event, _LEASES) or without)
            )
            if not skipped:
                given.append((record.run_id, self._as_here(record)))
                self.outcome.given[type(event).__name__] += self._is_own(record)
            if self._is_own(record):
                places.append((record.seq, 0 if skipped else len(given)))
        before = self.world.records[-1].seq if self.world.records else 0
        if given:
            self.world.append(given)
        self._seqs += [(seq, before + at) for seq, at in places]

    def _decide(self, look: Look, wanted: list[Recorded]) -> Divergence | None:
        self._make_ready(look, wanted)
        if not self.world.runner.obeys:
            self.world.runner.horizon = look.records[-1].seq
        made = [*self._early, *self._made(len(wanted) - len(self._early))]
        self._early.clear()
        if any(isinstance(one.event, ev.TaskStarted) and LEVEL in one.event.facts for one in wanted):
            wanted, made = starts_last(wanted), starts_last(made)
        for there, here in zip(wanted, made, strict=False):
            said = differ(there, here.event, self.ids, self.files)
            if said is not None and said.field == "not_before" and began_late(there):
                self.give([there])  # Measured by a clock that was ahead of the time of events.
            elif said is not None:
                return said
            self.outcome.same[type(there.event).__name__] += 1
            self._seqs.append((there.seq, here.seq))
        if len(wanted) > len(made):
            missing = wanted[len(made)]
            if all(is_seen(one.event) for one in wanted[len(made) :]):
                self.give(wanted[len(made) :])
                return None
            return Divergence(missing.seq, type(missing.event).__name__, "event", named(missing.event), None)
        more = made[len(wanted) :]
        if self.has_files and (not self.world.runner.obeys or all(isinstance(one.event, _FINISHES) for one in more)):
            self._early += more
        elif more:
            now = more[0].event
            return Divergence(wanted[-1].seq, type(now).__name__, "event after it", None, named(now))
        return None

    def _made(self, wanted: int) -> list[Recorded]:
        """What is decided now. Where files are there, a look may have followed others that told of nothing."""
        made = [one for one in self.world.look() if self._is_compared(one)]
        looks = 0
        while self.files is not None and len(made) < wanted and looks < SILENT_LOOKS:
            more = [one for one in self.world.look() if self._is_compared(one)]
            looks = 0 if more else looks + 1
            made += more
        return made

    def _make_ready(self, look: Look, wanted: Sequence[Recorded]) -> None:
        """What a look depends on that the recording tells: the load, the time that was used, who was stopped for money."""
        starts = [one.event for one in wanted if isinstance(one.event, ev.TaskStarted)]
        shared = any(isinstance(one.event, ev.TaskStarted) and LEVEL in one.event.facts for one in look.records)
        if self.governed or shared or self._leaves:
            self._let_run(look, starts)
        elif self._held_back:
            self._let_run(look, starts, free=True)
        live: dict[str, int] = next((start.facts[LIVE] for start in starts if LIVE in start.facts), {})
        self.world.live = {self.ids.get(attempt_id, attempt_id): spent for attempt_id, spent in live.items()}
        for start in starts:
            if start.facts.get(RESTED) or THEN not in start.facts:  # An older release does not tell.
                self._let_rest(start.task_id, look.at_us)
        for one in wanted:
            if isinstance(one.event, ev.TaskBlocked):
                self._let_rest(one.event.task_id, look.at_us)
        for one in wanted:
            match one.event:
                case ev.RunCancelRequested(reason=reason) if reason == MAX_EXECUTION and not self.world.runner.obeys:
                    self.world.skipped_us += round(self.plan.settings.max_execution_s * 1e6)
                case ev.TaskFailed(kind="budget") as failed:
                    here = self.ids.get(failed.attempt_id, "")
                    scope = "run" if failed.retryable else f"task:{failed.task_id}"
                    self.world.dispatcher.accounts.cut[here] = Stop(here, failed.task_id, scope, failed.error)
                case _:
                    pass

    def _count_busy(self, look: Look) -> None:
        """Which recorded attempts run as processes after a look."""
        for one in look.records:
            if self._is_own(one) and (attempt_id := getattr(one.event, "attempt_id", None)) is not None:
                if isinstance(one.event, ev.TaskStarted):
                    self._busy |= {attempt_id} if one.event.runner != occupancy_fold.CALLABLE else set()
                elif type(one.event).__name__ in occupancy_fold.TYPES:
                    self._busy.discard(attempt_id)

    def _let_run(self, look: Look, starts: Sequence[ev.TaskStarted], *, free: bool = False) -> None:
        """So many processes as ran after a look, where what is recorded nowhere may have kept it from starting more."""
        facts = starts[-1].facts if starts else {}
        if self.world.runner.obeys:
            free = free or facts.get(THEN, "") not in OF_THE_MACHINE
        else:
            free = free or (facts.get(THEN, WORKERS) == "" and LEVEL not in facts)
        self._held_back = not free
        workers = self.plan.settings.max_parallel_agents if free else len(self._busy)
        if self.world.state is None or self.world.state.workers != workers:
            self.world.append([(self.recording.run_id, ev.WorkersScaled(workers=workers))])

    def _let_rest(self, task_id: str, at_us: int) -> None:
        """A rest was over by a steady clock before it was so by the time of events."""
        task = None if self.world.state is None else self.world.state.tasks[task_id]
        if task is not None and task.not_before_us is not None and task.not_before_us > at_us:
            self.world.skipped_us += max(0, task.not_before_us - min(at_us, task.queued_at_us or at_us))

    def _is_compared(self, record: Recorded) -> bool:
        return record.run_id == self.recording.run_id and is_compared(record.event, files=self.files is not None)

    def _is_own(self, record: Recorded) -> bool:
        return record.run_id == self.recording.run_id

    def _comes_with(self, record: Recorded) -> bool:
        """Whether an event of a dispatcher's look is given and not decided."""
        event = record.event
        if self._is_own(record):
            return is_given(event, files=self.files is not None)
        if record.run_id == STORE_RUN:
            return not self._is_said_here(event)
        return True

    def _is_said_here(self, event: Event) -> bool:
        """Whether an event of no run is one that the dispatcher says of this run's attempts."""
        attempt_id = getattr(event, "attempt_id", "")
        if attempt_id:
            return attempt_id in self.recording.attempts
        return not getattr(event, "reason", "") or isinstance(event, ev.CircuitClosed)

    def _as_here(self, record: Recorded) -> Event:
        """An event with the names that its attempts have here, and without its files."""
        event, changes = record.event, dict[str, Any]()
        if not self._is_own(record):
            return event
        attempt_id = getattr(event, "attempt_id", None)
        if attempt_id in self.ids:
            changes["attempt_id"] = self.ids[attempt_id]
            if isinstance(event, ev.TaskBlocked | ev.ResultDiscarded):
                self.world.runner.forget(self.ids[attempt_id])
        if isinstance(event, ev.RunRolledBack):
            changes["to_seq"] = max((here for there, here in self._seqs if there <= event.to_seq), default=1)
        for name in OF_COMMITS & type(event).model_fields.keys():
            if (commit := getattr(event, name)) is not None:
                changes[name] = None if self.files is None else self.files.as_here(commit)
        return event.model_copy(update=changes) if changes else event


def has_files(recording: Recording) -> bool:
    """Whether the files of a run are versioned."""
    event = recording.first.event
    return getattr(event, "base_commit", None) is not None or getattr(event, "commit", None) is not None


def files_of(
    log: Log, recording: Recording, repository: Callable[[], Repository] | None
) -> tuple[FilesAgain | None, str]:
    """The files of a run, to be executed again.

    Args:
        repository: gives the repository that holds them; None: nobody asks for them.
    Returns:
        Them, or None and why they cannot be had; no reason where it has none, or nobody asks.
    """
    if repository is None or not has_files(recording):
        return None, ""
    state = st.fold(st.initial(recording.run_id), recording.first, log.blob)
    if state.plan.workspace != "worktree":
        return None, "its attempts shared a directory, in which one saw what others had half done"
    try:
        return files_again(repository(), recording, state.workdir)
    except (GitFailed, NotAllowed) as error:
        return None, str(error)


def execute(
    log: Log,
    run_id: str,
    told: Callable[[int, int], None] = lambda done, total: None,
    repository: Callable[[], Repository] | None = None,
) -> dict[str, Any]:
    """Execute a run again and compare it with its recording.

    Args:
        told: told of progress: looks that were made, and how many there are.
        repository: gives the repository that holds its files; left out: they are not laid out, and what they decided (merges,
            conflicts, gates) is given.
    Returns:
        ``{"run_id", "ok", "same": {type: count}, "given": {type: count}, "looks", "attempts", "files_judged", "files_left",
        "commits": {"same", "alike"}, "divergence": {"seq", "type", "field", "recorded", "now"} | None}``. ``given`` is what
        came from outside. ``files_judged`` is false where the run has files that were not laid out, and ``files_left`` says
        why; of ``commits``, ``same`` are those that came out to the last bit, ``alike`` those that hold the same files.
    Raises:
        UnknownRun: there is no such run.
    """
    recording = recording_of(log, run_id)
    with ExitStack() as stack:
        files, why = files_of(log, recording, repository)
        if files is not None:
            stack.callback(files.close)
        again = stack.enter_context(closing(Reenactment(log, recording, files=files)))
        found = again.play(told)
    return {
        "run_id": run_id,
        "ok": found.divergence is None,
        "same": dict(sorted(found.same.items())),
        "given": dict(sorted((+found.given).items())),
        "looks": found.looks,
        "attempts": len(again.ids),
        "files_judged": files is not None or not again.has_files,
        "files_left": why,
        "commits": None if files is None else {"same": files.same, "alike": files.alike},
        "divergence": None if found.divergence is None else found.divergence._asdict(),
    }
