"""Bugs planted in the core are found: a list of them, each with the cheapest check that has to fail (see ``mutations``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation, mutated

PROGRAM = Path(__file__).with_name("mutations.py")
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
def test_a_planted_bug_is_found(mutation: Mutation, record_property: pytest.FixtureRequest) -> None:
    """In a process of its own, which says how it was found and after how many stories."""
    words = [sys.executable, str(PROGRAM), mutation.name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIME_S, check=False)
    said = done.stdout.splitlines()[-1:] or ["{}"]
    assert done.returncode == 0, f"{said[0]}\n{done.stderr[-2000:]}"
    found = json.loads(said[0])
    assert found["stories"] >= 1
    print(f"{mutation.name}: {mutation.check}, after {found['stories']}: {found['how']}")
