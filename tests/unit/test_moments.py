"""Which moment a text means, and that no text ever means the nearest one instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from dispatching import Scene
from paper import SECOND_US, plan_of, task

from parallel_agents import look, moments
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, UnknownCheckpoint, UnknownEvent, UnknownRun
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.record import from_rfc3339, rfc3339
from parallel_agents.submit import submit

HOUR_US = 3600 * SECOND_US
NOON_US = from_rfc3339("2026-03-04T12:00:00Z")


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Sets the zone of this process, until the test is over."""
    with pytest.MonkeyPatch.context() as patch:

        def live_in(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        live_in("UTC")
        yield live_in
    time.tzset()


@pytest.fixture
def past(scene: Scene, zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, str, str]:
    """Two runs, three days: each has a checkpoint, and one was made by hand. It is noon in Greenwich, and we are there."""
    monkeypatch.setattr(moments, "wall_clock_us", lambda: NOON_US)
    scene.now_us = NOON_US - 48 * HOUR_US
    first = submit(scene.log, plan_of(task("a")), workdir=scene.folder, environ={})
    scene.now_us += HOUR_US
    scene.append(first, ev.CheckpointCreated(checkpoint_id="one2345672", kind="manual", label="bug fix"))
    scene.now_us = NOON_US - 2 * HOUR_US
    second = submit(scene.log, plan_of(task("a")), workdir=scene.folder, environ={})
    scene.append(second, ev.CheckpointCreated(checkpoint_id="two2345672", kind="before_run", label="before the run"))
    scene.now_us = NOON_US - HOUR_US
    by_hand = ev.CheckpointCreated(checkpoint_id="own2345672", kind="manual", label="by hand")
    scene.log.append(STORE_RUN, 0, [by_hand])
    return scene, first, second


@pytest.mark.parametrize(
    ("text", "seq"),
    [
        ("3", 3), (" 5 ", 5), ("now", 5), ("2 hours ago", 4), ("an hour ago", 5), ("90 minutes ago", 4), ("2 days ago", 1),
        ("yesterday at 11:00", 2), ("yesterday", 2), ("2026-03-02", 2), ("today", 5), ("10:00", 4), ("at 10:59:59", 4),
        ("2026-03-04 10:00", 4), ("2026-03-04T09:59:59.999999Z", 2), ("2026-03-04T11:00:00+00:00", 5),
        ("bug fix", 2), ("one2345672", 2), ("before the run", 4), ("by hand", 5), ("own2", 5),
    ],
)  # fmt: skip
def test_numbers_times_words_and_checkpoints_name_moments(past: tuple[Scene, str, str], text: str, seq: int) -> None:
    """A time of day is that instant, a day is its end; a name may be of any run where none is meant."""
    assert moments.in_store(past[0].log, text).seq == seq


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("6", UnknownEvent, "no event 6"), ("0", UnknownEvent, "no event 0"), ("-1", UnknownEvent, "no event -1"),
        ("9" * 5000, UnknownEvent, "no event 999"), ("2026-03-04T12:00:00.000001Z", UnknownEvent, "not come yet"),
        ("2026-03-05", UnknownEvent, "not come yet"), ("3 days ago", UnknownEvent, "at or before"),
        ("2026-03-01", UnknownEvent, "at or before"), ("999999999 weeks ago", UnknownEvent, "calendar"),
        ("  ", InvalidUsage, "no moment"), ("rewriting of the parser", UnknownCheckpoint, "no checkpoint"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(past: tuple[Scene, str, str], text: str, error: type, said: str) -> None:
    """Past the end, before the beginning, to come, or nothing at all."""
    with pytest.raises(error, match=said):
        moments.in_store(past[0].log, text)


def test_a_checkpoint_of_another_run_is_refused_where_a_run_is_meant(past: tuple[Scene, str, str]) -> None:
    """The error says whose it is; one that was made by hand is of no run, and may be named where that is looked at."""
    scene, first, second = past
    assert moments.in_run(scene.log, lambda: first, "one2345672").seq == 2
    with pytest.raises(UnknownCheckpoint, match=f"one2345672 is of run {first}, not of run {second}"):
        moments.in_run(scene.log, lambda: second, "one2345672")
    assert moments.in_run(scene.log, lambda: second, "by hand").seq == 5
    with pytest.raises(UnknownCheckpoint, match="own2345672 was made by hand"):
        moments.in_run(scene.log, lambda: second, "by hand", by_hand=False)


def test_the_run_is_asked_for_only_where_a_checkpoint_is_named(past: tuple[Scene, str, str]) -> None:
    """A number names a moment of the whole store, before the run is looked for at that moment."""

    def nobody() -> str:
        raise AssertionError

    assert moments.in_run(past[0].log, nobody, "1").seq == 1
    assert look.moment_of_run(past[0].log, "2 hours ago", "no such run") == 4


def test_a_run_that_had_not_begun_by_then_is_said_to_begin_later(past: tuple[Scene, str, str]) -> None:
    """By its first event, and by whatever of its id was typed."""
    scene, first, second = past
    for named in (second, second[:9]):
        with pytest.raises(UnknownRun, match=f"run {second} had not begun at event 2") as error:
            look.resolve_run(scene.log, named, 2)
        assert error.value.hint == "its first event is 3"
    assert look.resolve_run(scene.log, None, 2) == first
    with pytest.raises(UnknownRun, match="there is no run 'nobody' at event 2"):
        look.resolve_run(scene.log, "nobody", 2)


def test_a_log_that_is_ahead_of_the_clock_can_be_asked_up_to_its_last_event(past: tuple[Scene, str, str]) -> None:
    """Somebody has set the clock back since."""
    scene, first, _ = past
    scene.now_us = NOON_US + HOUR_US
    scene.append(first, ev.RunPaused())
    assert moments.in_store(scene.log, rfc3339(NOON_US + HOUR_US)).seq == 6
    with pytest.raises(UnknownEvent, match="not come yet"):
        moments.in_store(scene.log, rfc3339(NOON_US + HOUR_US + 1))


def test_a_time_without_a_zone_is_local(past: tuple[Scene, str, str], zone: Callable[[str], None]) -> None:
    """In words too."""
    zone("Asia/Kolkata")
    assert moments.in_store(past[0].log, "15:30").seq == 4
    assert moments.in_store(past[0].log, "2026-03-04T15:29:59").seq == 2
