"""Which moment of the past a text means: an event's number, a time, words such as "2 hours ago", or a checkpoint.

The one place that reads such texts, for every verb that looks back, goes back or branches off. A position that is not there
is an error and never the nearest one instead: past the end of the log, before its beginning, or a time that is to come.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from parallel_agents.eventstore.errors import InvalidUsage, UnknownCheckpoint, UnknownEvent
from parallel_agents.eventstore.events import STORE_RUN, RunCancelled, RunCompleted, RunFailed
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import from_rfc3339

if TYPE_CHECKING:
    from parallel_agents.rewind_phrases import Understood

SUCH_AS: Final = "such as 412, 2026-03-01T12:00:00Z, '2 hours ago', or a checkpoint"
NOW: Final = "now"
_ENDS: Final = (RunCompleted, RunFailed, RunCancelled)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_US: Final = 3600 * 1_000_000  # What was named is a day where it is longer than this, else a time of day.


class Meant(NamedTuple):
    """A moment: the last event that belongs to it, and how the text was understood."""

    seq: int
    reading: str
    checkpoint_id: str | None = None


def in_store(log: Log, text: str) -> Meant:
    """The moment of the whole store that a text means; a checkpoint may be of any run, or made by hand.

    Raises:
        UnknownEvent: no event stands there: the number or the time lies outside of the log, or the time is to come.
        UnknownCheckpoint: the words fit no checkpoint.
        Ambiguous: they fit several equally well.
        InvalidUsage: the text is empty.
    """
    return _by_number_or_time(log, text) or _by_checkpoint(log, None, text)


def in_run(log: Log, named: Callable[[], str], text: str, *, by_hand: bool = True) -> Meant:
    """The same where it is about one run: a checkpoint has to be of that run.

    Args:
        named: gives the run's id; asked only where the text is neither a number nor a time.
        by_hand: whether a checkpoint that was made by hand, and so is of no run, may be named too.
    Raises:
        UnknownCheckpoint: also where the one that is named is of another run.
    """
    found = _by_number_or_time(log, text)
    if found is not None:
        return found
    run_id = named()
    try:
        return _by_checkpoint(log, run_id, text)
    except UnknownCheckpoint:
        elsewhere = _by_name_elsewhere(log, run_id, text, by_hand=by_hand)
        if elsewhere is None:
            raise
        return elsewhere


def _by_number_or_time(log: Log, text: str) -> Meant | None:
    said = text.strip()
    if not said:
        raise InvalidUsage(f"{text!r} names no moment", hint=SUCH_AS)
    if said.removeprefix("-").isdecimal():
        return _by_number(log, said)
    if said.casefold() == NOW:
        return Meant(log.last_seq(), "now")
    return _by_time(log, said)


def _by_number(log: Log, said: str) -> Meant:
    last = log.last_seq()
    seq = int(said) if len(said) <= 20 else 0  # Python converts no number of thousands of digits.
    if not 1 <= seq <= last:
        raise UnknownEvent(f"there is no event {said[:40]}", hint=f"the log holds events 1 to {last}" if last else "")
    return Meant(seq, f"event {seq}")


def _by_time(log: Log, said: str) -> Meant | None:
    """The last event at or before a time: of a time of day at that instant, of a day at its end."""
    at_us: int | None = None
    spoken = said
    if _DAY.fullmatch(said) is None:
        with contextlib.suppress(ValueError):
            at_us = from_rfc3339(said)
    now_us = wall_clock_us()
    if at_us is None:
        from parallel_agents.rewind_times import moment_of

        now = datetime.fromtimestamp(now_us / 1e6, UTC)
        try:
            found = moment_of(" ".join(said.casefold().split()), now)
        except OverflowError:
            raise UnknownEvent(f"{said!r} lies outside of the calendar", hint=SUCH_AS) from None
        if found is None:
            return None
        begin_us, end_us = _us(found.begin), _us(found.end)
        at_us = end_us if end_us - begin_us >= _DAY_US else begin_us
        spoken = found.spoken
    last = log.row(log.last_seq())
    if at_us > max(now_us, 0 if last is None else last.at_us):
        from parallel_agents.rewind_times import local

        now = datetime.fromtimestamp(now_us / 1e6, UTC)
        raise UnknownEvent(f"{spoken} has not come yet", hint=f"now is {local(now)}")
    return Meant(log.seq_at(at_us), f"the last event at {spoken}")


def _us(at: datetime) -> int:
    return from_rfc3339(at.isoformat())


def _by_checkpoint(log: Log, run_id: str | None, text: str) -> Meant:
    from parallel_agents import checkpoints  # Most moments are numbers, and git is imported for these.

    return _moment_of(log, checkpoints.meant(log, run_id, text))


def _moment_of(log: Log, found: Understood) -> Meant:
    checkpoint = found.checkpoint
    seq = int(checkpoint["seq"])
    if checkpoint["kind"] == "after_run":  # It comes right before the end that it is named after.
        after = next(log.read(seq, seq + 1, run_id=checkpoint["run_id"]), None)
        seq += after is not None and isinstance(after.event, _ENDS)
    return Meant(seq, found.reading, str(checkpoint["checkpoint_id"]))


def _by_name_elsewhere(log: Log, run_id: str, text: str, *, by_hand: bool) -> Meant | None:
    """A checkpoint of that very name that is not of the run; None where there is none."""
    from parallel_agents import checkpoints
    from parallel_agents.rewind_phrases import find_by_name

    found = find_by_name(text, checkpoints.passing(log, STORE_RUN))
    if found is not None:
        if by_hand:
            return _moment_of(log, found)
        raise UnknownCheckpoint(
            f"checkpoint {found.checkpoint['checkpoint_id']} was made by hand and is of no run",
            hint=f"`parallel-agents checkpoint restore {found.checkpoint['checkpoint_id']}` takes files back to it",
        )
    for one in checkpoints.passing(log, None):
        if one["checkpoint_id"] == text.strip():
            raise UnknownCheckpoint(
                f"checkpoint {text.strip()} is of run {one['run_id']}, not of run {run_id}",
                hint=f"name run {one['run_id']}, or one of `parallel-agents checkpoints {run_id}`",
            )
    return None
