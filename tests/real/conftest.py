"""What tests of real clients begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clients import end_all
from modelserver import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server with nothing to say yet; clients that a test has started itself end with it."""
    with ModelServer() as served:
        yield served
        end_all()
