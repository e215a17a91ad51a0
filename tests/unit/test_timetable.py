"""When a scheduled plan is due, summer time and missed times included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.scheduler.timetable import MOST_COUNTED, Timetable, due, next_after, timetable

PARIS = ZoneInfo("Europe/Paris")
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0 2,3 * * *",
        "15 */4 * * *",
        "0 9 * * 1-5",
        "59 23 31 * *",
        "0 0 29 2 *",
    ]
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana"]
)
MOMENTS = st.integers(1_700_000_000, 1_900_000_000)


def us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return round(moment.timestamp()) * SECOND_US


def times(cron: str, begin: datetime, count: int, zone: str = "Europe/Paris") -> list[str]:
    """The next times after a moment, on the zone's clocks, with the offset from UTC."""
    found, at_us = [], us(begin)
    for _ in range(count):
        after = next_after(timetable(cron, zone), at_us)
        assert after is not None
        at_us = after
        found.append(f"{datetime.fromtimestamp(at_us / 1e6, ZoneInfo(zone)):%m-%d %H:%M %z}")
    return found


def test_a_time_that_the_clocks_leave_out_is_due_when_they_go_on() -> None:
    """On 29 March 2026 it is never half past two in Paris."""
    begin = datetime(2026, 3, 28, 12, tzinfo=PARIS)
    assert times("30 2 * * *", begin, 2) == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_a_time_that_the_clocks_show_twice_is_due_once() -> None:
    """On 25 October 2026 it is half past two in Paris twice; the first one counts."""
    begin = datetime(2026, 10, 24, 12, tzinfo=PARIS)
    assert times("30 2 * * *", begin, 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_between_the_two_showings_the_next_time_is_tomorrow() -> None:
    """Whoever asks in the repeated hour is not given a moment that is over."""
    begin = datetime(2026, 10, 25, 2, 10, tzinfo=PARIS, fold=1)
    assert times("30 2 * * *", begin, 1) == ["10-26 02:30 +0100"]


def test_what_is_due_every_half_hour_keeps_its_distance_when_the_clocks_change() -> None:
    """Neither a hole nor a time that is seen to twice."""
    spring = times("*/30 * * * *", datetime(2026, 3, 29, 1, 20, tzinfo=PARIS), 3)
    assert spring == ["03-29 01:30 +0100", "03-29 03:00 +0200", "03-29 03:30 +0200"]
    autumn = times("*/30 * * * *", datetime(2026, 10, 25, 1, 50, tzinfo=PARIS), 5)
    assert autumn == [
        "10-25 02:00 +0200", "10-25 02:30 +0200", "10-25 02:00 +0100", "10-25 02:30 +0100", "10-25 03:00 +0100",
    ]  # fmt: skip


def test_monday_is_the_first_day_and_a_day_of_month_or_week_is_enough() -> None:
    """As cron has it, not as APScheduler reads the same text."""
    assert times("0 9 * * 1", datetime(2026, 11, 26, tzinfo=UTC), 1, "UTC") == ["11-30 09:00 +0000"]
    fridays = times("0 0 13 * 5", datetime(2026, 11, 26, tzinfo=UTC), 4, "UTC")
    assert [one[:5] for one in fridays] == ["11-27", "12-04", "12-11", "12-13"]


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("", "UTC", "five fields"),
        ("* * * *", "UTC", "five fields"),
        ("0 0 0 * * *", "UTC", "five fields"),
        ("@reboot", "UTC", "five fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("* * * * xyz", "UTC", "bad day-of-week"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("* * * * *", "Europe/Pariss", "no time zone"),
        ("* * * * *", "../../etc/passwd", "no time zone"),
        ("* * * * *", "", "no time zone"),
        ("\0 * * * *", "UTC", "bad minute"),
    ],
)
def test_a_wrong_timetable_is_refused_in_words(cron: str, zone: str, said: str) -> None:
    """With what would be right."""
    with pytest.raises(InvalidUsage, match=said) as caught:
        timetable(cron, zone)
    assert caught.value.hint


def test_nicknames_are_known() -> None:
    """In any case of letters."""
    assert timetable("@Daily", "UTC") == Timetable("0 0 * * *", "UTC")


@given(EXPRESSIONS, ZONES, MOMENTS)
def test_due_times_ascend_and_the_next_one_is_the_same_from_wherever_it_is_asked(cron: str, zone: str, at: int) -> None:
    """Asking from any moment between two due times gives the later of them."""
    table = timetable(cron, zone)
    first = next_after(table, at * SECOND_US)
    assert first is not None
    second = next_after(table, first)
    assert second is not None
    assert at * SECOND_US < first < second
    assert next_after(table, (first + second) // 2) == second
    assert next_after(table, second - 1) == second


@given(EXPRESSIONS, ZONES, MOMENTS, st.integers(0, 400_000))
def test_what_is_due_is_the_latest_time_and_no_missed_one_is_lost(cron: str, zone: str, seen: int, later: int) -> None:
    """Against a count one by one."""
    table, seen_us, now_us = timetable(cron, zone), seen * SECOND_US, (seen + later) * SECOND_US
    naive, at_us = [], seen_us
    while (found := next_after(table, at_us)) is not None and found <= now_us and len(naive) < 400:
        naive.append(found)
        at_us = found
    got = due(table, seen_us, now_us)
    if not naive:
        assert got is None
    elif len(naive) < 400:
        assert got == (naive[-1], len(naive) - 1)


def test_a_year_away_is_looked_through_quickly_and_told_as_a_thousand() -> None:
    """The latest time is exact all the same."""
    now = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
    found = due(timetable("* * * * *", "UTC"), us(now - timedelta(days=365)), us(now))
    assert found == (us(now.replace(second=0)), MOST_COUNTED)


def test_a_clock_that_is_set_back_makes_nothing_due_again() -> None:
    """What was seen to stays seen to."""
    table, now_us = timetable("0 * * * *", "UTC"), us(datetime(2026, 11, 26, 12, tzinfo=UTC))
    assert due(table, now_us, now_us - 5 * HOUR_US) is None
    assert due(table, now_us, now_us + HOUR_US) == (now_us + HOUR_US, 0)


def test_leap_days_are_found() -> None:
    """The next 29 February may be years away."""
    days = islice(times("0 0 29 2 *", datetime(2026, 1, 1, tzinfo=UTC), 2, "UTC"), 2)
    assert list(days) == ["02-29 00:00 +0000", "02-29 00:00 +0000"]
