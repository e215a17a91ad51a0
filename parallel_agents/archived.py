"""What the log says of archives, against the files that are there; and the files of attempts, wherever they lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_agents.eventstore.archive import Moved, archive_folder, digest_of_file, extract, holds
from parallel_agents.eventstore.events import RunArchived
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode
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
        moved: the bodies in them.
    """

    def __init__(self, log: Log) -> None:
        self.changed: list[str] = []
        self.missing: list[str] = []
        runs: set[str] = set()
        away: set[str] = set()
        for event in announced(log):
            runs.add(event.run_id)
            path = archive_folder(log.path) / event.file
            try:
                same = digest_of_file(path) == event.sha256
            except FileNotFoundError:
                self.missing.append(event.file)
                away.add(event.run_id)
                continue
            except OSError:
                same = False
            if not same:
                self.changed.append(event.file)
                away.add(event.run_id)
        self.moved = Moved(log.path, runs, away)


@contextlib.contextmanager
def at_hand(store: Path, folder: Path, *only: str) -> Iterator[Path]:
    """The folder of an attempt, or a copy out of an archive that goes again; the folder itself where there is neither.

    Args:
        only: the files that are wanted, by name; none means all.
    Raises:
        ArchiveMissing: an archive of its run cannot be read.
    """
    if folder.exists() or not archive_folder(store).is_dir():
        yield folder
        return
    with TemporaryDirectory(prefix="parallel-agents-") as scratch:
        yield Path(scratch) if extract(store, folder, Path(scratch), only) else folder


def is_kept(store: Path, path: Path) -> bool:
    """Whether there is such a file of an attempt, in its place or in an archive."""
    return path.is_file() or (not path.parent.exists() and holds(store, path))
