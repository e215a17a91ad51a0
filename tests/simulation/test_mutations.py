"""Bugs planted in the core are found: a list of them, each with the cheapest check that has to fail (see ``mutations``)."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, Mutation, mutated, planted

TIME_S = 600.0  # For one of them on a slow machine; most take two seconds.


def test_each_bug_is_one_place_of_the_source_and_can_be_compiled() -> None:
    """So that the list never says anything of code that is not there any more."""
    assert len({one.name for one in MUTATIONS}) == len(MUTATIONS)
    for one in MUTATIONS:
        assert one.old != one.new
        compile(mutated(one), one.file, "exec")


@pytest.mark.timeout(2 * TIME_S)
@pytest.mark.parametrize(
    "mutation",
    [pytest.param(one, id=one.name, marks=[] if one.quick else [pytest.mark.slow]) for one in MUTATIONS],
)
def test_a_planted_bug_is_found(mutation: Mutation) -> None:
    """In a process of its own; the test prints where it was found, and after how many stories."""
    found, how = planted(mutation.name, TIME_S)
    print(f"{mutation.name}: {how}")
    assert found, how
