"""The fixtures that the contract of the log is tested with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import BACKENDS, SqliteBackend

from parallel_agents.eventstore.log import Log


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteBackend:
    """An empty place for a store of each kind."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def log(backend: SqliteBackend) -> Iterator[Log]:
    """An empty log whose redactor knows no environment."""
    with backend.open(environ={}) as opened:
        yield opened
