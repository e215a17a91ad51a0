"""When a plan that is to run again and again is due. Pure: expressions and times in, times out.

The five fields are read as Debian's cron reads them, by cronsim; a time that the zone's clocks leave out or show twice
is due once (see ADR 0026). Seconds, and APScheduler's own reading of the fields, are not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from parallel_agents.eventstore.errors import InvalidUsage, nearest

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_NICKNAMES: Final = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIELDS: Final = "minute, hour, day of month, month, day of week"
MOST_COUNTED: Final = 1000
"""Missed times are counted up to here: a schedule of every minute misses half a million in a year."""
_HOUR_US: Final = 3_600_000_000
_WINDOWS_US: Final = tuple(_HOUR_US * hours for hours in (1, 24, 24 * 32, 24 * 366, 24 * 366 * 9))


class Timetable(NamedTuple):
    """What is due when: five fields of cron, on the clocks of a zone."""

    cron: str
    zone: str  # A name of the IANA database, such as Europe/Paris.


class Due(NamedTuple):
    """The latest time that is due and has not been seen to."""

    at_us: int
    missed: int  # Due times between the last one that was seen to and this one; at most ``MOST_COUNTED``.


def timetable(cron: str, zone: str) -> Timetable:
    """A timetable from what somebody wrote.

    Raises:
        InvalidUsage: it is not five fields, a field is wrong, no such day exists, or there is no such zone.
    """
    text = " ".join(cron.split())
    fields = _NICKNAMES.get(text.casefold(), text)
    if len(fields.split(" ")) != 5 or len(fields) > 200:
        hint = 'such as "0 9 * * 1-5" (' + _FIELDS + "), or " + ", ".join(sorted(_NICKNAMES))
        raise InvalidUsage(f"--cron {cron[:100]!r} has not five fields", hint=hint)
    found = Timetable(fields, zone)
    _zone(zone)
    from cronsim import CronSimError

    try:
        first = next(_times_after(found, 0), None)
    except CronSimError as error:
        said = str(error).lower()
        raise InvalidUsage(f"--cron {fields!r}: {said}", hint=f"the fields are {_FIELDS}") from None
    if first is None:
        raise InvalidUsage(f"--cron {fields!r} is never due", hint="no month has such a day")
    return found


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        hint = nearest(name, sorted(available_timezones())) if available_timezones() else "install tzdata"
        raise InvalidUsage(f"there is no time zone {name[:100]!r}", hint=hint) from None


def _times_after(table: Timetable, after_us: int) -> Iterator[int]:
    """The times that are due, ascending, all later than ``after_us``; microseconds since the epoch."""
    from cronsim import CronSim

    seconds = after_us // 1_000_000
    start = datetime.fromtimestamp(seconds, UTC).astimezone(_zone(table.zone))
    latest_us = after_us
    for found in CronSim(table.cron, start):
        at_us = round(found.timestamp()) * 1_000_000
        # From the second showing of a repeated hour it names the first one, which is over.
        if at_us > latest_us:
            latest_us = at_us
            yield at_us


def next_after(table: Timetable, after_us: int) -> int | None:
    """The first time that is due later than a moment; None where there is none in the next fifty years."""
    return next(_times_after(table, after_us), None)


def due(table: Timetable, seen_us: int, now_us: int) -> Due | None:
    """What is due at a moment, or None.

    Args:
        seen_us: up to here everything was seen to.
    """
    first = next_after(table, seen_us)
    if first is None or first > now_us:
        return None
    latest = first
    for window_us in _WINDOWS_US:
        begin_us = max(seen_us, now_us - window_us)
        found = next_after(table, begin_us)
        if found is not None and found <= now_us:
            for at_us in _times_after(table, begin_us):
                if at_us > now_us:
                    break
                latest = at_us
            break
    missed = 0
    for at_us in _times_after(table, seen_us):
        if at_us >= latest or missed == MOST_COUNTED:
            break
        missed += 1
    return Due(latest, missed)
