"""Bars over time: where they begin and end, and that what is short is still seen."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from parallel_agents.cli.bars import bar
from parallel_agents.eventstore.record import rfc3339

WIDTH = 40


def span(queued_s: float | None, started_s: float, ended_s: float | None, **more: Any) -> dict[str, Any]:
    """An attempt, as ``look.timeline_of`` gives it."""
    stamps = {"queued_at": queued_s, "started_at": started_s, "ended_at": ended_s}
    texts = {name: None if at is None else rfc3339(round(at * 1e6)) for name, at in stamps.items()}
    return {"outcome": "completed", "undone": False, **texts, **more}


def drawn(*spans: dict[str, Any], length_s: float = 40.0) -> str:
    """The bar of one task in a run of that length, a character a second."""
    return bar(spans, 0.0, length_s, WIDTH / length_s, WIDTH).plain


def test_a_wait_is_light_and_an_attempt_dark() -> None:
    """From the moment it was queued."""
    assert drawn(span(2, 5, 10)) == "  " + "░" * 3 + "█" * 5 + "▏" + " " * 29


def test_two_attempts_stand_in_one_line_with_the_rest_between_them() -> None:
    """The second was queued when the first had ended."""
    assert drawn(span(0, 0, 4), span(4, 8, 12)).rstrip() == "█" * 4 + "░" * 4 + "█" * 4 + "▏"


def test_what_still_runs_reaches_to_the_end() -> None:
    """It has no end of its own."""
    assert drawn(span(None, 30, None, outcome="running")) == " " * 30 + "█" * 10


@given(some.floats(0, 1000), some.floats(0, 1000), some.floats(0.001, 1000))
def test_every_attempt_is_seen_and_no_bar_is_too_long(began: float, took: float, rest: float) -> None:
    """However short it is, and wherever it lies."""
    length_s = began + took + rest
    line = drawn(span(None, began, began + took), length_s=length_s)
    assert len(line) == WIDTH
    assert line.strip()
