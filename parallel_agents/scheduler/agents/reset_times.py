"""When a provider lets one work again, as the messages of Claude Code and Codex say it in words.

The forms were measured with both clients, or are quoted in the public issues of their repositories:
``usage limit reached|1755615600``, ``resets 3pm (UTC)``, ``resets Nov 29, 6:39am (America/New_York)``,
``resets Jan 5, 2027, 5:09pm (Asia/Kolkata)``, ``resets May 5 at 9pm (America/New_York)``, ``try again at 12:38 PM.``,
``try again at Nov 29th, 2026 6:39 AM.``, ``try again in 4 days 20 hours 9 minutes``, ``try again in 1.574s``,
``"resets_at":1777936568``, ``"resets_in_seconds":13872``.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_US = 366 * 86_400 * 1_000_000  # A wait of more than a year is a misreading.
# Messages tell minutes and clocks differ: what has been a moment ago is no time of tomorrow.
_JUST_PASSED = timedelta(minutes=5)

_STAMP = re.compile(r"(?:limit reached\||resets_?at\W{1,4})(\d{10,13})\b", re.IGNORECASE)
_SECONDS = re.compile(r"(?:resets_in_seconds|retry[-_]after)\W{1,4}(\d{1,8})\b", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AT = re.compile(
    r"\b(?:resets?|again|renews|available)(?:\s+(?:at|on))?\s+"
    r"(?:(?P<month>[a-z]{3})[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(?P<year>20\d\d))?(?:,|\s+at|\b)\s*)?"
    r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap])\.?m\b|(?P<hour24>\d{1,2}):(?P<minute24>\d\d)\b)?"
    r"(?:\s*\((?P<zone>[A-Za-z0-9_+/-]{1,40})\))?",
    re.IGNORECASE,
)
_IN = re.compile(
    r"\b(?:again|resets?|retry|wait)\s+(?:in|after)\s+"
    r"((?:~?\d+(?:\.\d+)?\s*(?:milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\b[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|d|h|m|s)", re.IGNORECASE)
_UNIT_S = {"ms": 0.001, "milli": 0.001, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def reset_us(text: str, now_us: int, zone: tzinfo | None = None) -> int | None:
    """When the text says that work can go on.

    Args:
        text: a message of a client.
        now_us: when it came, microseconds since the epoch.
        zone: of times whose zone is not named; None: that of this machine, which the clients ran in.
    Returns:
        Microseconds since the epoch (UTC), or None where the text tells no time.
    """
    return believable(_told_us(text[:10_000], now_us, zone), now_us)


def believable(told_us: int | None, now_us: int) -> int | None:
    """The moment that was told, unless it is so far off that it was none."""
    return told_us if told_us is not None and told_us - now_us <= _LONGEST_US else None


def _told_us(text: str, now_us: int, zone: tzinfo | None) -> int | None:
    if stamp := _STAMP.search(text):
        digits = stamp[1]
        return int(digits) * (1_000_000 if len(digits) <= 11 else 1_000)
    if seconds := _SECONDS.search(text):
        return now_us + int(seconds[1]) * 1_000_000
    if span := _IN.search(text):
        wait_s = sum(float(number) * _UNIT_S[unit.lower()] for number, unit in _PART.findall(span[1]))
        return now_us + int(wait_s * 1_000_000) if wait_s < 1e9 else None
    for found in _AT.finditer(text):
        if (found["month"] and found["month"].lower() in _MONTHS) or (
            not found["month"] and (found["hour"] or found["hour24"])
        ):
            return _moment(found, now_us, _zone_of(found["zone"], zone))
    return None


def _zone_of(name: str | None, otherwise: tzinfo | None) -> tzinfo | None:
    if name is not None:
        if name.upper() in ("UTC", "GMT", "Z"):
            return UTC
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass  # A name that this machine does not know.
    return otherwise


def _moment(found: re.Match[str], now_us: int, zone: tzinfo | None) -> int | None:
    """The next moment that the words can mean."""
    hour, minute = int(found["hour"] or found["hour24"] or 0), int(found["minute"] or found["minute24"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower() == "p" else 0)

    def utc(clock: datetime) -> datetime:
        """Of what a clock there shows; without a zone, of this machine's clock, by its rules for that day."""
        return clock.replace(tzinfo=zone).astimezone(UTC)

    try:
        now = _EPOCH + timedelta(microseconds=now_us)
        earliest = now - _JUST_PASSED
        here = now.astimezone(zone)
        clock = here.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0, tzinfo=None)
        if not found["month"]:
            days = (utc(clock + timedelta(days=number)) for number in (-1, 0, 1, 2))
            return _us(next(day for day in days if day >= earliest))
        month, day = _MONTHS.index(found["month"].lower()) + 1, int(found["day"])
        if found["year"]:
            return _us(utc(clock.replace(int(found["year"]), month, day)))
        for year in range(here.year - 1, here.year + 9):  # Up to eight, for a 29th of February.
            if _is_a_day(year, month, day) and utc(clock.replace(year, month, day)) >= earliest:
                return _us(utc(clock.replace(year, month, day)))
    except (ValueError, OverflowError):
        pass  # 25 o'clock, or the 31st of February.
    return None


def _is_a_day(year: int, month: int, day: int) -> bool:
    try:
        datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return False
    return True


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
