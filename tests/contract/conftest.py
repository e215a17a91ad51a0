"""The stores that the contract of the log is tested on; one more database is one more entry in ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_agents.eventstore.log import Log


class SqliteBackend:
    """A store in a file of its own."""

    def __init__(self, folder: Path, name: str = "events") -> None:
        self.path = folder / f"{name}.db"

    def another(self, name: str) -> SqliteBackend:
        """A second empty place beside this one."""
        return SqliteBackend(self.path.parent, name)

    def open(self, **options: Any) -> Log:
        """One more connection to the store."""
        return Log(self.path, **options)

    @staticmethod
    def opened_elsewhere(address: str) -> Log:
        """The same store in another process, from its ``address``."""
        return Log(Path(address))

    @property
    def address(self) -> str:
        """What another process needs to open the store."""
        return str(self.path)


BACKENDS: dict[str, type[SqliteBackend]] = {"sqlite": SqliteBackend}


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteBackend:
    """An empty place for a store of each kind."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def log(backend: SqliteBackend) -> Iterator[Log]:
    """An empty log whose redactor knows no environment."""
    with backend.open(environ={}) as opened:
        yield opened
