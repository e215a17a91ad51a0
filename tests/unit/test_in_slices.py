"""Many small parts, done by several processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from parallel_agents.otherwise.in_slices import in_slices


def test_every_part_is_done_once() -> None:
    """By more than one process, where there may be more."""
    found = dict(in_slices(list(range(50)), lambda: lambda part: [part * part, os.getpid()], processes=2))
    assert {number: square for number, (square, _) in found.items()} == {number: number**2 for number in range(50)}


def test_what_a_copy_leaves_undone_is_done_here() -> None:
    """Where it dies in the middle of it."""
    here = os.getpid()

    def work() -> Callable[[int], int]:
        def do(part: int) -> int:
            if os.getpid() != here and part == 3:
                os._exit(1)
            return part

        return do

    assert dict(in_slices(list(range(9)), work, processes=2)) == {number: number for number in range(9)}


def test_an_error_is_met_here() -> None:
    """And not lost with the copy."""

    def work() -> Callable[[int], int]:
        return lambda part: 1 // part

    with pytest.raises(ZeroDivisionError):
        list(in_slices([1, 0, 1], work, processes=2))


def test_who_stops_listening_leaves_no_copy_behind() -> None:
    """They are waited for."""
    before = {child.pid for child in psutil.Process().children()}
    results = in_slices(list(range(1000)), lambda: lambda part: part, processes=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert {child.pid for child in psutil.Process().children()} <= before
