"""The stores that the contract of the log is tested on; one more database is one more entry in ``BACKENDS``.

A module of its own: every ``conftest.py`` is called ``conftest``, so what stands in one cannot be named to another process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
