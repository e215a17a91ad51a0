"""The paper on resources says what is so: its keys, their defaults and its numbers are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

from parallel_agents.configuration_keys import BY_PATH
from parallel_agents.overrides import _RUN
from parallel_agents.projections.needs import KEPT, SHARE
from parallel_agents.projections.projector import NEEDS_LOOK_BACK
from parallel_agents.scheduler import governing, scaling, throttle

PAPER = (Path(__file__).resolve().parents[2] / "docs" / "resources.md").read_text(encoding="utf-8")
FLAT = " ".join(PAPER.split())


def test_the_keys_are_in_force_and_have_the_defaults_that_are_told() -> None:
    """Every row of the table."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([\w.]+) \|", PAPER, re.MULTILINE)
    assert len(rows) >= 8
    for path, default in rows:
        assert (str(BY_PATH[path].default).lower(), BY_PATH[path].force) == (default, "in force")


def test_what_a_fork_may_set_is_what_it_can() -> None:
    """By these names."""
    (named,) = re.findall(r"changes them in a fork \((.*?)\)", FLAT)
    assert set(re.findall(r"`(\w+)`", named)) <= _RUN


def test_the_numbers_are_those_that_are_in_force() -> None:
    """In words or in figures."""
    assert (KEPT, SHARE, NEEDS_LOOK_BACK, governing.LEFT_BYTES, governing.EASE_PERCENT) == (50, 90, 4000, 10**8, 90)
    for said in ("nine in ten of the last fifty", "newest 4,000 events", "100 MB are left", "90 % of the threshold"):
        assert said in FLAT
    assert (throttle.TOLD_AFTER_S, scaling.FORGOTTEN_S) == (10, 600)
    for said in ("have waited for ten seconds", "ten minutes after the last change"):
        assert said in FLAT
    assert f"above the threshold for {scaling.PRESSED_S:.0f} s" in FLAT
    assert f"at or below the threshold for {scaling.CALM_S:.0f} s" in FLAT
    assert f"doubles, up to {scaling.LONGEST_S:.0f} s" in FLAT
