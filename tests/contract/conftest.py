"""The fixtures that the contracts of the log and of the runners are tested with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import BACKENDS, SqliteBackend
from stages import Agents, Callables, Shell, close

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


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The runner of commands."""
    stage = Shell(tmp_path)
    yield stage
    close(stage)


@pytest.fixture
def callables(tmp_path: Path) -> Iterator[Callables]:
    """The runner of callables."""
    stage = Callables(tmp_path)
    yield stage
    close(stage)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    """The runner of agents, with the fake agent."""
    stage = Agents(tmp_path)
    yield stage
    close(stage)
