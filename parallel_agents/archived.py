"""What the log says of archives, against the files that are there; and the files of attempts, wherever they lie."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

from parallel_agents.eventstore.archive import Archives, archive_folder, digest_of_file, file_in, holds_folder
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


def open_file(store: Path, path: Path) -> IO[bytes]:
    """A file that an attempt wrote, in its place or in an archive.

    Raises:
        FileNotFoundError: it is in neither.
        StoreError: an archive of its run cannot be read.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError:
        found = file_in(store, path)
        if found is None:
            raise
        return found


def is_kept(store: Path, path: Path) -> bool:
    """Whether there is such a file of an attempt, in its place or in an archive."""
    if path.is_file():
        return True
    found = file_in(store, path)
    if found is None:
        return False
    found.close()
    return True


def folder_is_kept(store: Path, folder: Path) -> bool:
    """Whether anything is left of what an attempt wrote."""
    return folder.exists() or holds_folder(store, folder)
