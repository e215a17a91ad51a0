"""Moments of the past as people say them: "2 hours ago", "yesterday at 9:15", "14:30", "2026-03-01 12:00".

A time of day without a zone is local, as everywhere on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip

_UNITS = {
    "second": ("s", "sec", "secs", "second", "seconds"),
    "minute": ("m", "min", "mins", "minute", "minutes"),
    "hour": ("h", "hr", "hrs", "hour", "hours"),
    "day": ("d", "day", "days"),
    "week": ("w", "week", "weeks"),
}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_UNIT_OF = {said: unit for unit, names in _UNITS.items() for said in names}


def one_of(names: Iterable[str]) -> str:
    """A pattern for any of these; longer names first, or the beginning of one would be taken for another."""
    return "|".join(sorted(names, key=len, reverse=True))


_COUNT = rf"half an?|(?:a )?couple(?: of)?|\d{{1,9}}(?:\.\d{{1,6}})?|{one_of(NUMBERS)}"
_SPAN = re.compile(rf"(?P<count>{_COUNT})\s*(?P<unit>{one_of(_UNIT_OF)})(?![a-z])")
_BETWEEN = re.compile(r"^[\s,]*(?:and )?\s*")
_CLOCK = r"(?P<hour>\d{1,2})(?:[:.](?P<minute>\d\d))?(?:[:.](?P<second>\d\d))?\s*(?P<half>[ap]\.?m\.?)?"
_ON_A_DAY = re.compile(rf"(?P<day>yesterday|today|\d{{4}}-\d\d-\d\d)(?:(?:,? at |t|,? )(?P<clock>{_CLOCK}))?")
_AT = re.compile(rf"(?:at |around |by )?(?P<clock>{_CLOCK})(?: o'?clock)?")


class Moment(NamedTuple):
    """A stretch of time that was named, such as all of one minute, and how it is said exactly."""

    begin: datetime
    end: datetime  # Its last instant; the same as ``begin`` where an exact time was named.
    spoken: str


def moment_of(said: str, now: datetime) -> Moment | None:
    """What a text says of the past; None where it is no time.

    Args:
        said: in lower case, without anything around it.
        now: the present, with its zone.
    Raises:
        OverflowError: it lies outside of the calendar.
    """
    return _ago(said, now) or _on_a_day(said, now) or _at(said, now) or _exact(said)


def local(at: datetime) -> str:
    """A time as the local clock shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ago(said: str, now: datetime) -> Moment | None:
    span = re.fullmatch(r"(?:about )?(?P<span>.+?)\s*(?:ago|earlier|back|before now)", said)
    if span is None:
        return None
    rest, seconds = span["span"], 0.0
    while rest:
        part = _SPAN.match(rest)
        if part is None:
            return None
        seconds += _count(part["count"]) * _SECONDS[_UNIT_OF[part["unit"]]]
        rest = _BETWEEN.sub("", rest[part.end() :])
    at = now - timedelta(seconds=seconds)
    return Moment(at, at, local(at))


def _count(said: str) -> float:
    if said.startswith("half"):
        return 0.5
    return 2 if "couple" in said else float(NUMBERS.get(said, 0) or said)


def _on_a_day(said: str, now: datetime) -> Moment | None:
    match = _ON_A_DAY.fullmatch(said)
    if match is None:
        return None
    today = now.astimezone().date()
    try:
        day = {"today": today, "yesterday": today - timedelta(days=1)}.get(match["day"]) or date.fromisoformat(
            match["day"]
        )
    except ValueError:
        return None
    if match["clock"] is None:
        begin, end = datetime.combine(day, time()).astimezone(), datetime.combine(day, time.max).astimezone()
        return Moment(begin, min(end, now) if begin <= now else end, day.isoformat())
    return _stretch(day, match)


def _at(said: str, now: datetime) -> Moment | None:
    """A time of day alone: its last one that is not to come."""
    match = _AT.fullmatch(said)
    if match is None or (match["minute"] is None and match["half"] is None and not said.startswith("at ")):
        return None
    today = now.astimezone().date()
    found = _stretch(today, match)
    return found if found is None or found.begin <= now else _stretch(today - timedelta(days=1), match)


def _stretch(day: date, match: re.Match[str]) -> Moment | None:
    """The minute, or the second, that a clock shows once on a day."""
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if match["half"] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match["half"].startswith("p") else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    begin = datetime.combine(day, time(hour, minute, second)).astimezone()
    exact = match["second"] is not None
    length = timedelta(seconds=1) if exact else timedelta(minutes=1)
    return Moment(begin, begin + length - timedelta(microseconds=1), local(begin) if exact else local(begin)[:-3])


def _exact(said: str) -> Moment | None:
    """RFC 3339, as ``--json`` prints it."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[ t]\d\d:\d\d.*", said):
        return None
    try:
        at = datetime.fromisoformat(said.upper()).astimezone(UTC)
    except ValueError:
        return None
    return Moment(at, at, local(at))
