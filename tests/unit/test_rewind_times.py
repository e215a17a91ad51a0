"""Moments of the past as people say them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.rewind_times import moment_of

NOW = datetime(2026, 3, 10, 16, 0, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone with a summer time: an hour before UTC in March, two from the 29th on."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("2 hours ago", 7200),
        ("an hour ago", 3600),
        ("half an hour ago", 1800),
        ("a couple of minutes ago", 120),
        ("about 10 min ago", 600),
        ("1h30m ago", 5400),
        ("1 hour and 5 minutes ago", 3900),
        ("three days ago", 259_200),
        ("1.5 hours ago", 5400),
        ("90s ago", 90),
        ("a week earlier", 604_800),
    ],
)
def test_a_span_ago_is_one_instant(said: str, seconds: float) -> None:
    """In any unit, in digits or in words, in several parts."""
    found = moment_of(said, NOW)
    assert found is not None
    assert found.begin == found.end == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("said", "begin", "end"),
    [
        ("at 14:30", "2026-03-10T13:30:00", "2026-03-10T13:30:59.999999"),
        ("14:30:05", "2026-03-10T13:30:05", "2026-03-10T13:30:05.999999"),
        ("at 9", "2026-03-10T08:00:00", "2026-03-10T08:00:59.999999"),
        ("2pm", "2026-03-10T13:00:00", "2026-03-10T13:00:59.999999"),
        ("at 12:30 a.m.", "2026-03-09T23:30:00", "2026-03-09T23:30:59.999999"),
        ("at 23:15", "2026-03-09T22:15:00", "2026-03-09T22:15:59.999999"),
        ("yesterday", "2026-03-08T23:00:00", "2026-03-09T22:59:59.999999"),
        ("yesterday at 14:30", "2026-03-09T13:30:00", "2026-03-09T13:30:59.999999"),
        ("today", "2026-03-09T23:00:00", "2026-03-10T16:00:30"),
        ("2026-03-01", "2026-02-28T23:00:00", "2026-03-01T22:59:59.999999"),
        ("2026-03-01 12:00", "2026-03-01T11:00:00", "2026-03-01T11:00:59.999999"),
        ("2026-03-01t12:00:00z", "2026-03-01T12:00:00", "2026-03-01T12:00:00"),
        ("2026-03-01 12:00:00.25+02:00", "2026-03-01T10:00:00.250000", "2026-03-01T10:00:00.250000"),
    ],
)
def test_a_time_on_the_clock_is_all_that_the_clock_shows_so(said: str, begin: str, end: str) -> None:
    """Local without a zone; a time of day alone is its last one."""
    found = moment_of(said, NOW)
    assert found is not None
    assert [at.astimezone(UTC).replace(tzinfo=None).isoformat() for at in (found.begin, found.end)] == [begin, end]


def test_yesterday_over_the_change_of_the_clock_is_told_by_the_clock() -> None:
    """Twenty-three hours before, where the night was an hour short."""
    now = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)  # 14:00 in summer time.
    found = moment_of("yesterday at 14:00", now)
    assert found is not None
    assert found.begin.astimezone(UTC) == datetime(2026, 3, 28, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "said",
    ["", "ago", "two", "soon", "25:00", "14:61", "13pm", "2026-13-01", "9", "3 lightyears ago", "2026-03-01 25:00"],
)
def test_what_is_no_time_is_none(said: str) -> None:
    """So that it can be read as something else."""
    assert moment_of(said, NOW) is None


def test_what_lies_outside_of_the_calendar_is_an_overflow() -> None:
    """Not a checkpoint of the year 1."""
    with pytest.raises(OverflowError):
        moment_of("999999999 weeks ago", NOW)


@given(st.integers(0, 10_000), st.sampled_from([("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86_400)]))
def test_any_count_of_any_unit_is_understood(count: int, unit: tuple[str, int]) -> None:
    """Exactly."""
    found = moment_of(f"{count} {unit[0]} ago", NOW)
    assert found is not None
    assert NOW - found.begin == timedelta(seconds=count * unit[1])


@given(st.text(max_size=30))
def test_whatever_is_said_is_a_time_or_is_not(said: str) -> None:
    """Nothing else is raised, and nothing begins after its end."""
    try:
        found = moment_of(said, NOW)
    except OverflowError:
        return
    assert found is None or found.begin <= found.end
