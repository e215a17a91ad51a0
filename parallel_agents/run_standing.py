"""Whether anything that a run has left may still be needed: what is asked before something of it is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode_brief
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.scheduler.process import ProcessIdentity, holder_alive, is_alive
from parallel_agents.scheduler.runners.folder import EXIT, LOCK, PROCESS, read_object

_SQLITE = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm", "-journal")  # What SQLite keeps beside a database, under its name.


class Place(NamedTuple):
    """Where a run's files are: the repository as its first event names it, and where it was submitted."""

    repository: str | None
    workdir: str


@dataclass(frozen=True, slots=True)
class KnownRuns:
    """The runs that a log knows, and those that other stores near it know."""

    summaries: dict[str, RunSummary] = field(default_factory=dict)
    elsewhere: dict[str, Path] = field(default_factory=dict)  # Run id -> the store that knows it.
    unreadable: tuple[Path, ...] = ()  # Stores of which nobody can tell what they know.

    def stranger(self, run_id: str) -> str:
        """Why what an unknown run has left stays all the same; an empty text where nothing speaks for it."""
        if run_id in self.elsewhere:
            return f"its run is in another store: {self.elsewhere[run_id]}"
        if self.unreadable:
            return f"its run may be in another store, which cannot be read: {self.unreadable[0]}"
        return ""


def places_of(log: Log | None) -> dict[str, Place]:
    """Where the files of each run are; those of a fork where its parent's are."""
    places: dict[str, Place] = {}
    for record in () if log is None else log.run_level():
        match record.event:
            case ev.RunSubmitted(repository=repository, workdir=workdir):
                places[record.run_id] = Place(repository, workdir)
            case ev.RunMoved(repository=repository, workdir=workdir):
                places[record.run_id] = Place(repository, workdir)
            case ev.RunForked(parent=parent) if parent in places:
                places[record.run_id] = places[parent]
            case _:
                pass
    if log is not None and log.carried is not None:  # Its events name places of another machine.
        return {log.carried.run_id: Place(log.carried.repository, log.carried.workdir)}
    return places


def known_runs(log: Log | None, near: Iterable[Path], own: Path) -> KnownRuns:
    """What is known of runs now.

    Args:
        near: files that may be stores, such as those beside our own.
        own: our own store, which is none of them.
    """
    elsewhere: dict[str, Path] = {}
    unreadable = []
    for store in sorted(set(near)):
        # Ours is told first, by its name and not by its content: whoever closes a file that SQLite has open in the same
        # process gives up SQLite's locks on it (POSIX), and another process would then remove the write-ahead log.
        if store.name.endswith(_BESIDE) or _same(store, own) or not _is_sqlite(store):
            continue
        found = _runs_in(store)
        if found is None:
            unreadable.append(store)
        else:
            elsewhere |= dict.fromkeys(found, store)
    summaries = {} if log is None else Projector(log).runs()
    return KnownRuns(summaries, elsewhere, tuple(unreadable))


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_sqlite(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return path.is_file() and file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _runs_in(store: Path) -> set[str] | None:
    """The runs of another store, without touching it; none where it is no store, None where it cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables >= {"events", "blobs"}:
                return set()
            return {run_id for (run_id,) in connection.execute("SELECT DISTINCT run_id FROM events")}
    except sqlite3.Error:
        return None


def needed(log: Log | None, run_id: str, attempts: Path) -> str:
    """Why what a run has left must stay, as of this moment; an empty text where nobody needs it.

    A run that the log does not know is needed only where a process of it lives.

    Args:
        attempts: the folder of its attempts.
    """
    summary = None if log is None else Projector(log).runs().get(run_id)
    if summary is not None:
        assert log is not None
        if summary.status not in st.ENDED:
            return f"its run is {summary.status}"
        if summary.holder is not None and holder_alive(summary.holder):
            return "a living process dispatches its run"
        if slots_of(log, run_id):
            return "an attempt of its run has not ended"
    alive = living_attempt(attempts)
    return f"attempt {alive} lives" if alive else ""


def slots_of(log: Log, run_id: str) -> set[str]:
    """The attempts of a run that were started and have not ended, those that a rollback has undone included."""
    state = Occupancy()
    for row in log.briefs(run_id, where="type NOT IN ('TaskQueued', 'CostCharged')"):
        occupancy_fold.fold(state, decode_brief(run_id, row))
    return state.by_run.get(run_id, set())


def living_attempt(folder: Path) -> str:
    """An attempt below a folder whose supervisor or process lives; an empty text where there is none."""
    for lock in folder.rglob(LOCK):
        attempt = lock.parent
        if not (attempt / EXIT).exists() and _is_locked(lock):
            return attempt.name
        written = read_object(str(attempt), PROCESS)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            # Before it runs, its supervisor's name stands there, which serves other attempts as well.
            if (
                written is not None
                and written.get("state") == "running"
                and is_alive(ProcessIdentity.from_dict(written))
            ):
                return attempt.name
    return ""


def _is_locked(lock: Path) -> bool:
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
