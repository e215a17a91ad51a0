"""How many random examples a test looks at: enough to notice a change of ours, and many more where time is no matter."""

from __future__ import annotations

import os

MORE = 8  # Times as many in `make test-all`.


def examples(quick: int) -> int:
    """The number for these tests, of the one that a quick run takes."""
    return quick * MORE if os.environ.get("TEST_ALL") else quick
