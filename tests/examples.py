"""How many random examples a test looks at: enough to notice a change of ours, and many more where time is no matter."""

from __future__ import annotations

import os
from random import SystemRandom

MORE = 8  # Times as many in `make test-all`.
LONGEST_S = 3600  # That a test which draws them may take there: enough on any machine, and what hangs still ends.


def examples(quick: int) -> int:
    """The number for these tests, of the one that a quick run takes."""
    return quick * MORE if os.environ.get("TEST_ALL") else quick


def stories(quick: int, all_of_them: int) -> int:
    """How many stories of a simulation are told."""
    return all_of_them if os.environ.get("TEST_ALL") else quick


def first_seed() -> int:
    """The seed of the first of them: `make test` tells the same ones each time, `make test-all` others."""
    return SystemRandom().randrange(2**32) if os.environ.get("TEST_ALL") else 0
