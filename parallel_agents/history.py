"""What happened, event by event: the questions of ``history``, and how their words are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import orjson

from parallel_agents.eventstore import blocks
from parallel_agents.eventstore.errors import InvalidUsage, UnknownCheckpoint, UnknownEvent, UnknownTask, nearest
from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import Row, decode
from parallel_agents.eventstore.selecting import LONG_RUN, Wanted, select, worth_blocks, worth_texts
from parallel_agents.eventstore.submission import load_plan
from parallel_agents.follow import POLL_S, wait_for_bell
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.rewind_times import moment_of
from parallel_agents.wording import nearest_name

CHARGES = ("CostCharged",)
TEXTS_S = 20.0
"""How long a question for a text goes on after its answer to make the next one fast: over a million events, mostly. What is left
is left to the next."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for, in the words of whoever asks. What is left out leaves no event out.

    Attributes:
        run_id: None: of all runs.
        attempt: an attempt's id, or with a run and a task its number.
        since, until: from this event or moment on, and up to it: a seq, a time, or such as "2 hours ago".
        after, before: the same without the event or the moment itself.
        cost_over_usd_micros: of attempts that have been charged more than this in all. Without types: their charges.
    """

    run_id: str | None = None
    types: tuple[str, ...] = ()
    task_id: str | None = None
    attempt: str | None = None
    actor: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    after: str | None = None
    before: str | None = None
    cost_over_usd_micros: int | None = None


def history(
    log: Log,
    question: Question,
    *,
    upto: int | None = None,
    newest: int | None = None,
    follow: bool = False,
    told: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> Iterator[Row | None]:
    """The events that fit a question, oldest first.

    Args:
        upto: as it was at this seq.
        newest: only so many of what is there, the newest of them.
        follow: go on with what is appended, until the run has ended or nothing more can fit; before each wait, None is given.
        told: called behind the last event with what is looked at for the next questions, how much of it is done, and how
            much there is.
    Raises:
        InvalidUsage: a word of the question means nothing; the hint names the nearest that does.
        UnknownTask, UnknownEvent: there is no such task, attempt or event.
    """
    end = log.last_seq() if upto is None else upto
    wanted = _meant(log, question, end, follow=follow)
    if follow and question.task_id is not None and question.run_id is not None:
        check_task(log, question.run_id, question.task_id)
    listener = log.doorbell.listen() if follow else None
    found = False
    try:
        while True:
            for row in select(log, _dear(log, question, wanted, end), end, newest=newest):
                found = True
                yield row
            if not follow:
                break
            if _over(log, wanted, end):
                return
            yield None
            wait_for_bell(listener, POLL_S)
            wanted, newest = replace(wanted, first=max(wanted.first, end + 1)), None
            end = log.last_seq()
    finally:
        if listener is not None:
            listener.close()
    if not found:
        _check_names(log, question, end)
    if worth_blocks(log, wanted, end):
        blocks.catch_up(log)  # Once the answer is out: who asks next waits for less.
    if worth_texts(log, wanted, end):
        _look_at_texts(log, told)


def _look_at_texts(log: Log, told: Callable[[str, int, int], None]) -> None:
    """Let the next question for a text know where none is, but for no longer than somebody waits."""
    until_s = monotonic() + TEXTS_S

    def goes_on(done: int, end: int) -> bool:
        told("events whose texts are noted for the next question", done, end)
        return monotonic() < until_s

    blocks.catch_up_texts(log, goes_on=goes_on)


def _over(log: Log, wanted: Wanted, end: int) -> bool:
    """Whether nothing more can come that fits: the run has ended, or the moment up to which it was asked for is past."""
    if log.last_seq() != end:
        return False
    if wanted.last is not None and wanted.last <= end:
        return True
    if wanted.until_us is not None and wanted.until_us < wall_clock_us():
        return True
    return wanted.run_id is not None and Projector(log).runs()[wanted.run_id].status in st.ENDED


def _meant(log: Log, question: Question, end: int, *, follow: bool) -> Wanted:
    """A question with its words looked up."""
    for name in question.types:
        check_type(name)
    first, last, until_us = _range(log, question, end, follow=follow)
    attempts = None if question.attempt is None else _attempts(log, question, question.attempt)
    return Wanted(
        question.run_id, question.types, question.task_id, attempts, question.actor, question.text, first, last, until_us
    )  # fmt: skip


def _attempts(log: Log, question: Question, named: str) -> frozenset[str]:
    """The attempts that are meant: one by its id, or those that had a number; more than one where some were undone."""
    if not named.isdecimal():
        return frozenset({named})
    if question.run_id is None or question.task_id is None:
        hint = "a number goes with --task and one run; an id does not"
        raise InvalidUsage(f"attempt {named[:20]} of which task?", hint=hint)
    starts = _starts(log, question.run_id, question.task_id)
    found = frozenset(attempt_id for attempt_id, number in starts.items() if str(number) == named)
    if not found:
        check_task(log, question.run_id, question.task_id)
        hint = f"it has {max(starts.values(), default=0)}"
        raise UnknownEvent(f"task {question.task_id!r} has no attempt {named[:20]}", hint=hint)
    return found


def _starts(log: Log, run_id: str, task_id: str | None) -> dict[str, int]:
    """The attempts of a run, or of a task of it, with their numbers."""
    rows = select(log, Wanted(run_id, types=("TaskStarted",), task_id=task_id), log.last_seq())
    bodies = (orjson.loads(row.body) for row in rows)
    return {str(body["attempt_id"]): int(body["attempt"]) for body in bodies}


def _dear(log: Log, question: Question, wanted: Wanted, end: int) -> Wanted:
    """The same of attempts that cost more than was said; what they cost is counted over all of their charges until then."""
    over = question.cost_over_usd_micros
    if over is None:
        return wanted
    charges = Wanted(wanted.run_id, CHARGES)
    known = 0 if wanted.run_id is not None and log.version(wanted.run_id) <= LONG_RUN else blocks.covered(log)
    if known:
        since = _charged(log, replace(charges, first=known + 1), end)
        charges = replace(charges, attempts=frozenset({*since, *blocks.spent_by_attempt(log, over)}))
    dear = frozenset(name for name, micros in _charged(log, charges, end).items() if micros > over)
    if wanted.attempts is not None:
        dear &= wanted.attempts
    return replace(wanted, attempts=dear, types=wanted.types or CHARGES)


def _charged(log: Log, charges: Wanted, end: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in select(log, charges, end):
        body = orjson.loads(row.body)
        total[body["attempt_id"]] += body["usd_micros"] or 0
    return total


def _range(log: Log, question: Question, end: int, *, follow: bool) -> tuple[int, int | None, int | None]:
    """The first and the last seq that fit, and the latest time where that is still to come."""
    first, last, until_us = 1, None, None
    for said, later in ((question.since, 0), (question.after, 1)):
        if said is not None:
            moment = _when(log, question.run_id, said, end, follow=follow)
            seq = moment if isinstance(moment, int) else _seq_at(log, moment[1] if later else moment[0] - 1)
            first = max(first, seq + (later or not isinstance(moment, int)))
    for said, earlier in ((question.until, 0), (question.before, 1)):
        if said is not None:
            moment = _when(log, question.run_id, said, end, follow=follow)
            if isinstance(moment, int):
                found = moment - earlier
            else:
                at_us = moment[0] - 1 if earlier else moment[1]
                if at_us >= wall_clock_us():
                    until_us = at_us if until_us is None else min(until_us, at_us)
                    continue
                found = _seq_at(log, at_us)
            last = found if last is None else min(last, found)
    if last is not None and first > last + 1:
        raise InvalidUsage(
            f"nothing can lie from event {first} on and up to event {last}", hint="the two ends are the wrong way round"
        )
    return first, last, until_us


def _seq_at(log: Log, at_us: int) -> int:
    """The last seq that was appended at or before a time; 0 before the first."""
    try:
        return log.seq_at(at_us)
    except UnknownEvent:
        return 0


def _when(log: Log, run_id: str | None, said: str, end: int, *, follow: bool) -> int | tuple[int, int]:
    """A seq, that of a checkpoint too, or the first and the last microsecond of the time that a text names."""
    text = said.strip().casefold()
    if text.removeprefix("-").isdecimal():
        seq = int(text) if len(text) <= 18 else 0
        if seq < 1 or (seq > end and not follow):
            raise UnknownEvent(f"there is no event {text[:40]}", hint=f"the log holds events 1 to {end}" if end else "")
        return seq
    now = datetime.now(UTC)
    if text == "now":
        return _us(now), _us(now)
    try:
        moment = moment_of(text, now)
    except OverflowError:
        moment = None
    if moment is None and (at_checkpoint := _checkpoint(log, run_id, said)) is not None:
        return at_checkpoint
    if moment is None:
        known = ("yesterday", "today", "now", "2 hours ago", "10 minutes ago", "an hour ago", "yesterday at 9:15")
        hint = nearest(text[:60], known)
        examples = "such as 412, 14:30, yesterday, '2 hours ago' or 2026-03-01T12:00:00Z"
        raise InvalidUsage(
            f"{said[:60]!r} is no event's number, time or checkpoint", hint=hint if hint.startswith("did") else examples
        )
    return _us(moment.begin), _us(moment.end)


def _checkpoint(log: Log, run_id: str | None, said: str) -> int | None:
    """The event of the checkpoint that a text names, as ``--at`` takes it; None where it names none."""
    from parallel_agents import moments  # Git comes with it.

    try:
        return (moments.in_store(log, said) if run_id is None else moments.in_run(log, lambda: run_id, said)).seq
    except (UnknownCheckpoint, UnknownEvent, InvalidUsage):
        return None


def _us(at: datetime) -> int:
    return (at.astimezone(UTC) - _EPOCH) // _MICROSECOND


def check_type(name: str) -> None:
    """Refuse what is no type of event.

    Raises:
        InvalidUsage: there is no such type.
    """
    if name not in EVENT_TYPES:
        raise InvalidUsage(f"there is no type of event {name[:60]!r}", hint=nearest_name(name, EVENT_TYPES))


def check_task(log: Log, run_id: str, task_id: str) -> None:
    """Refuse a task that the run does not have.

    Raises:
        UnknownTask: the run holds no such task.
    """
    known = _tasks_of(log, run_id)
    if task_id not in known:
        raise UnknownTask(f"run {run_id} has no task {task_id[:60]!r}", hint=nearest_name(task_id, known))


def _tasks_of(log: Log, run_id: str) -> list[str]:
    """The tasks of a run, by its plan alone."""
    first = log.rows_where("run_id = ? AND version = 1", (run_id,))
    digest = getattr(decode(first[0]).event, "plan_digest", "") if first else ""
    return [task.task_id for task in load_plan(log.blob(digest)).tasks] if digest else []


def _check_names(log: Log, question: Question, end: int) -> None:
    """Where nothing fits: whether that is because a name is none."""
    run_id, task_id = question.run_id, question.task_id
    if task_id is not None:
        if run_id is not None:
            check_task(log, run_id, task_id)
        else:
            known = {name for one in Projector(log).runs() for name in _tasks_of(log, one)}
            if task_id not in known:
                raise UnknownTask(f"no run has a task {task_id[:60]!r}", hint=nearest_name(task_id, known))
    attempt = question.attempt
    if attempt is not None and not attempt.isdecimal() and not _is_there(log, run_id, attempt, end):
        known_ids = [] if run_id is None else list(_starts(log, run_id, task_id))
        hint = nearest(attempt[:60], known_ids[:2000]) or "`parallel-agents show RUN TASK` lists them"
        raise UnknownEvent(f"there is no attempt {attempt[:60]!r}", hint=hint)
    if question.actor is not None:
        actors = _actors(log, run_id, end)
        if question.actor not in actors:
            raise InvalidUsage(
                f"nothing was done by {question.actor[:60]!r}", hint=nearest(question.actor[:60], actors)
            )


def _is_there(log: Log, run_id: str | None, attempt_id: str, end: int) -> bool:
    return next(select(log, Wanted(run_id, attempts=frozenset({attempt_id})), end), None) is not None


def _actors(log: Log, run_id: str | None, end: int) -> set[str]:
    if run_id is not None:
        query = "SELECT DISTINCT actor FROM events WHERE run_id = ? AND seq <= ?"
        return {str(actor) for (actor,) in log.ask(query, (run_id, end))}
    behind = log.ask("SELECT DISTINCT actor FROM events WHERE seq > ? AND seq <= ?", (blocks.covered(log), end))
    return {*blocks.names_of(log, blocks.ACTOR), *(str(actor) for (actor,) in behind)}
