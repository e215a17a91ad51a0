"""Files taken back to a checkpoint: into a new folder, or in place, where nothing is lost by it.

In place, in this order: look at what would change and refuse what must not be; make a checkpoint of what is there; replace
exactly that; append the event. Whatever happens in between, what was there is held by the checkpoint.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import Change, ChangedMeanwhile, Comparison, compared
from parallel_agents.checkpoint.snapshot import restore as write_files
from parallel_agents.checkpoints import BEFORE_RESTORE, create_of_files, repository_of, repository_of_checkpoint
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import STORE_RUN, CheckpointCreated, CheckpointRestored
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import new_id
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector

_TRIES = 3  # While somebody writes in the folder.


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class InTheWay(NotAllowed):
    """Ignored files lie where files of a checkpoint belong; no checkpoint holds them, so nothing overwrites them."""

    code = "in_the_way"

    def __init__(self, paths: list[str], folder: Path) -> None:
        super().__init__(
            f"ignored files in {folder} would be overwritten: {_some(paths)}",
            hint="move them away, or restore into a new folder with --into DIR",
        )
        self.paths = paths


class InUse(NotAllowed):
    """Attempts of runs work in the folder."""

    code = "in_use"

    def __init__(self, attempts: list[str], folder: Path) -> None:
        super().__init__(
            f"attempts work in {folder}: {_some(attempts)}",
            hint="wait for them, or `parallel-agents cancel RUN`; --into DIR restores into a new folder",
        )


class Outlook(NamedTuple):
    """What a restoration in place would do."""

    changes: list[Change]
    in_the_way: list[str]  # Ignored files that it would overwrite.
    in_use: list[str]  # Attempts that work there, as run/task.


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restoration did."""

    checkpoint_id: str
    folder: Path
    files: int  # Written or removed.
    before_id: str | None = None  # The checkpoint of what was there; None in a new folder.


def outlook(log: Log, project: Project, checkpoint: dict[str, Any]) -> Outlook:
    """What restoring a checkpoint in place would do. Nothing is changed or recorded.

    Raises:
        NotAllowed: it cannot be restored here at all.
    """
    repository = _repository_in_place(log, project, checkpoint)
    with compared(repository, checkpoint["commit"], repository.top) as seen:
        return _outlook(log, seen)


def _outlook(log: Log, seen: Comparison) -> Outlook:
    return Outlook(seen.changes, seen.in_the_way, working_in(log, seen.folder))


def _repository_in_place(log: Log, project: Project, checkpoint: dict[str, Any]) -> Repository:
    """The repository of a checkpoint, where it is the project's own."""
    repository, ours = repository_of_checkpoint(log, project, checkpoint), repository_of(project)
    folder = checkpoint["folder"] or str(repository.top)
    if repository.git_dir != ours.git_dir or Path(folder) != ours.top:
        raise NotAllowed(
            f"checkpoint {checkpoint['checkpoint_id']} is of the files in {folder}, not of those in {ours.top}",
            hint="go there, or restore it into a new folder with --into DIR",
        )
    return repository


def working_in(log: Log, folder: Path) -> list[str]:
    """The running attempts, as run/task, of runs whose workspace is the folder itself or something in it."""
    projector = Projector(log)
    found = []
    for run_id, attempts in projector.occupancy().by_run.items():
        if not attempts:
            continue
        state = projector.state(run_id)
        if state.plan.workspace == "shared" and _meet(Path(state.workdir), folder):
            found += [f"{run_id}/{state.running[name]}" for name in sorted(attempts) if name in state.running]
    return found


def _meet(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def restore(
    log: Log, project: Project, checkpoint: dict[str, Any], into: Path | None = None, *, in_place: bool = False
) -> Restored:
    """Take files back to a checkpoint.

    Args:
        into: a new folder; None: ``restored/<checkpoint>`` beside the store.
        in_place: make the project's directory equal to the checkpoint instead.
    Raises:
        InTheWay: in place, ignored files would be overwritten; nothing was changed.
        InUse: in place, attempts work in the directory; nothing was changed.
        NotAllowed: the checkpoint has no files, or they are of another project.
        GitFailed: the folder is not empty, or what is there cannot be kept exactly.
    """
    if in_place:
        return _restore_in_place(log, project, checkpoint)
    repository = repository_of_checkpoint(log, project, checkpoint)
    folder = (into or files_home(project.store) / "restored" / checkpoint["checkpoint_id"]).absolute()
    files = write_files(repository, checkpoint["commit"], folder)
    _append(log, CheckpointRestored(checkpoint_id=checkpoint["checkpoint_id"], into=str(folder)))
    return Restored(checkpoint["checkpoint_id"], folder, files)


def _restore_in_place(log: Log, project: Project, checkpoint: dict[str, Any]) -> Restored:
    for tries in range(1, _TRIES + 1):
        with returning(log, project, checkpoint) as way:
            way.check()
            try:
                return way.go()
            except ChangedMeanwhile:  # What was written just now is in no checkpoint yet.
                if tries == _TRIES:
                    raise
    raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class Return:
    """The way back of the project's directory, looked at and not yet gone."""

    outlook: Outlook
    _log: Log
    _project: Project
    _repository: Repository
    _checkpoint: dict[str, Any]
    _seen: Comparison

    def check(self) -> None:
        """Refuse to lose anything.

        Raises:
            InUse, InTheWay: see ``restore``.
        """
        if self.outlook.in_use:
            raise InUse(self.outlook.in_use, self._seen.folder)
        if self.outlook.in_the_way:
            raise InTheWay(self.outlook.in_the_way, self._seen.folder)

    def go(self) -> Restored:
        """Keep what was seen as a checkpoint, then make the directory equal to the one that is wanted.

        Raises:
            ChangedMeanwhile: files are others by now; none was replaced.
        """
        name, label = self._checkpoint["checkpoint_id"], self._checkpoint["label"]
        before = CheckpointCreated(
            checkpoint_id=new_id(), kind=BEFORE_RESTORE, label=f"before going back to {name}",
            description=label or self._checkpoint["kind"].replace("_", " "),
        )  # fmt: skip
        create_of_files(self._log, self._project, self._repository, before, self._seen.tree)
        reach("restore.kept")
        files = self._seen.replace()
        reach("restore.replaced")
        _append(self._log, CheckpointRestored(checkpoint_id=name, into=str(self._seen.folder), in_place=True))
        return Restored(name, self._seen.folder, files, before.checkpoint_id)


@contextmanager
def returning(log: Log, project: Project, checkpoint: dict[str, Any]) -> Iterator[Return]:
    """Look at what restoring a checkpoint in place would do, and do it if that is wanted: the files are read only once.

    Raises:
        NotAllowed: it cannot be restored here at all.
        GitFailed: what is there cannot be kept exactly, or somebody else restores files just now.
    """
    repository = _repository_in_place(log, project, checkpoint)
    with _alone(repository), compared(repository, checkpoint["commit"], repository.top) as seen:
        yield Return(_outlook(log, seen), log, project, repository, checkpoint, seen)


@contextmanager
def _alone(repository: Repository) -> Iterator[None]:
    """One restoration in place at a time: two at once would leave some files of each."""
    with (repository.own_folder() / "restoring.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GitFailed(
                f"files are being restored in {repository.top} already", hint="wait until that is done"
            ) from None
        yield


def _append(log: Log, event: CheckpointRestored) -> None:
    def add(draft: Draft) -> None:
        draft.add(STORE_RUN, event)

    log.transact(add)
