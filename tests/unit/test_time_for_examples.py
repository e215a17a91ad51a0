"""How long tests may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from examples import LONGEST_S


@given(some.integers())
def drawn(number: int) -> None:
    """A test that draws."""


@pytest.mark.timeout(7)
@given(some.integers())
def hurried(number: int) -> None:
    """One that says itself how long it may take."""


def plain() -> None:
    """One that draws nothing."""


@pytest.mark.parametrize(("test_all", "times_s"), [("1", [LONGEST_S, 7, None]), (None, [None, 7, None])])
def test_where_many_more_examples_are_drawn_there_is_time_for_them(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, test_all: str | None, times_s: list[int | None]
) -> None:
    """On a busy machine too. All others are held to the usual time, so that one that hangs is seen soon."""
    monkeypatch.delenv("TEST_ALL", raising=False)
    if test_all is not None:
        monkeypatch.setenv("TEST_ALL", test_all)
    parent: Any = request.node.parent
    made = [pytest.Function.from_parent(parent, name=one.__name__, callobj=one) for one in (drawn, hurried, plain)]
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    conftest.pytest_collection_modifyitems(made)
    found = [item.get_closest_marker("timeout") for item in made]
    assert [None if mark is None else mark.args[0] for mark in found] == times_s
