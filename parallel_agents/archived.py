"""What the log says of archives, against the files that are there; and the files of attempts, wherever they lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_agents.eventstore.archive import Archives, archive_folder, digest_of_file, extract, holds
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.events import RunArchived
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL


def announced(log: Log) -> list[RunArchived]:
    """The archives that the log names, oldest first."""
    rows = log.rows(where=f"{RUN_LEVEL} AND type = 'RunArchived'")
    return [event for row in rows if isinstance(event := decode(row).event, RunArchived)]


class Announced:
    """What ``verify`` needs of archives.

    Attributes:
        changed: files that hold other bytes than the log says.
        missing: files that are not there.
    """

    def __init__(self, log: Log) -> None:
        self.changed: list[str] = []
        self.missing: list[str] = []
        self._runs: set[str] = set()
        self._away: set[str] = set()  # Runs of which an archive is not there, or cannot be trusted.
        self._archives = Archives(log.path)
        for event in announced(log):
            self._runs.add(event.run_id)
            path = archive_folder(log.path) / event.file
            try:
                same = digest_of_file(path) == event.sha256
            except FileNotFoundError:
                self.missing.append(event.file)
                self._away.add(event.run_id)
                continue
            except OSError:
                same = False
            if not same:
                self.changed.append(event.file)
                self._away.add(event.run_id)

    def body(self, row: Row) -> str | None:
        """The body of a row in which none is stored; None where its archive is gone, empty where none was ever named."""
        if row.run_id not in self._runs:
            return row.body
        found = None
        with contextlib.suppress(StoreError):
            found = self._archives.bodies(row.run_id).get(row.seq)
        return found if found is not None or row.run_id in self._away else row.body


@contextlib.contextmanager
def at_hand(store: Path, folder: Path, *only: str) -> Iterator[Path]:
    """The folder of an attempt, or a copy out of an archive that goes again; the folder itself where there is neither.

    Args:
        only: the files that are wanted, by name; none means all.
    Raises:
        StoreError: an archive of its run cannot be read.
    """
    if folder.exists():
        yield folder
        return
    with TemporaryDirectory(prefix="parallel-agents-") as scratch:
        yield Path(scratch) if extract(store, folder, Path(scratch), only) else folder


def is_kept(store: Path, path: Path) -> bool:
    """Whether there is such a file of an attempt, in its place or in an archive."""
    return path.is_file() or (not path.parent.exists() and holds(store, path))
