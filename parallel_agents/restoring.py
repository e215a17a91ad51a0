"""Bringing a backup back: all of it is looked at first, in a folder of its own, and only a whole one is put in place.

Nothing that is there is overwritten: a store is put aside, refs and folders of attempts are added. Whoever made the backup
may live on, here or elsewhere; so what was not over in it is paused, and an attempt of it is lost unless it ran in this very
place. Only a person lets such a run go on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_agents.backup import ARCHIVES, DATABASE, KIND, OUTPUTS, BackupFailed
from parallel_agents.bundling import cloned, fetch_refs, put_refs
from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.reaching import OUR_REFS
from parallel_agents.checkpoint.repository import Repository, find_repository, shadow_repository
from parallel_agents.deep_verification import unheld
from parallel_agents.eventstore import audit
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import archive_folder, digest_of_file
from parallel_agents.eventstore.errors import InvalidUsage, LeaseHeld, NotAllowed, StoreError
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.location import attempts_folder, files_home, make_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.named_commits import Named, named_commits
from parallel_agents.packing import Told, flush_folder, unpack
from parallel_agents.project import Project
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.run_standing import living_attempt, places_of, slots_of
from parallel_agents.scheduler import decide
from parallel_agents.scheduler.checkouts import SHADOW
from parallel_agents.scheduler.daemon import only_daemon
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.scheduler.runners.protocol import Ended
from parallel_agents.schedules import schedules
from parallel_agents.verification import verify

_BESIDE = ("", "-wal", "-shm")  # What a store of SQLite consists of.


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A backup that was found whole, in a folder of its own."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def database(self) -> Path:
        """Its store."""
        return self.folder / DATABASE


def restore(file: Path, project: Project, *, overwrite: bool = False, progress: Told | None = None) -> dict[str, Any]:
    """Put a backup in the place of a project's store.

    Args:
        overwrite: a store that is there may be put aside.
    Returns:
        ``{"store", "made_at", "events", "runs", "refs", "aside", "left_out", "paused", "lost", "schedules"}``: ``aside`` is
        where the store went that was there, ``paused`` the runs that wait for a ``resume``, ``lost`` the attempts that count
        as lost, and ``schedules`` what does not run by its timetable any more: ``{"schedule_id", "name", "cron"}``.
    Raises:
        BackupFailed: the file is not a whole backup, or was changed.
        NotAllowed: there is a store, or something of it lives.
        LeaseHeld: a daemon dispatches it.
        StoreError, GitFailed: what is there cannot be written.
    """
    told = progress or (lambda what, done, total: None)
    store = project.store
    if not file.is_file():
        raise InvalidUsage(
            f"there is no file {file}",
            hint="`parallel-agents backup FILE` makes one; `checkpoint restore` takes files back to a checkpoint",
        )
    if store.exists() and not overwrite:
        raise NotAllowed(f"there is a store at {store}", hint="say --yes to put it aside")
    make_home(store)
    with only_daemon(store), _staging(store) as folder:
        _refuse_living_holders(store)
        with _in_words(file):
            unpacked = Unpacked(folder, unpack(file, folder, KIND, told))
        clones = _checked(unpacked, told)
        manifest = unpacked.manifest
        homes = {entry["file"]: _home_of(project, manifest, entry) for entry in manifest["repositories"]}
        settled = _settled(unpacked, project)
        with _in_words(store):
            return _put(unpacked, project, clones, homes, told) | settled


@contextmanager
def _staging(store: Path) -> Iterator[Path]:
    folder = store.parent / f".restoring.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except FileExistsError:
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _in_words(place: Path) -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except OSError as error:
        said = f"{error.filename or place}: {error.strerror or error}"
        raise StoreError(said, hint="nothing was restored; say it again once that is mended") from error


def _refuse_living_holders(store: Path) -> None:
    """A store that some process dispatches is not taken away from under it. One that cannot be read is dispatched by nobody."""
    if not store.exists():
        return
    try:
        found = runs_fold.fold_all(audit.run_level(store))  # A log that is opened on it would change it.
    except StoreError:
        return
    for run_id, holder in ((run_id, run.holder) for run_id, run in found.items()):
        if holder is not None and holder_alive(holder):
            raise LeaseHeld(
                f"process {holder.get('pid')} dispatches run {run_id} of the store at {store}",
                hint="end it first; its attempts go on, and what the backup knows of them is adopted",
            )


def _checked(unpacked: Unpacked, told: Told) -> dict[str, Repository]:
    """Whether the store is what was written, and each bundle holds what its log names; gives the bundles as repositories."""
    manifest = unpacked.manifest
    if said := audit.damage(unpacked.database):
        raise BackupFailed(f"the store in the backup is damaged: {said[0]}", hint="use another backup")
    clones = {}
    with Log(unpacked.database, create=False) as log:
        found = verify(log, lambda done, total: told("events", done, total))
        if not found["ok"] or (found["events"], found["head"]) != (manifest["events"], manifest["head"]):
            raise BackupFailed("the store in the backup is not what was written to it", hint="use another backup")
        named, places = named_commits(log), places_of(log)
        for number, entry in enumerate(manifest["repositories"]):
            told("repositories", number, len(manifest["repositories"]))
            clone = clones[entry["file"]] = cloned(unpacked.folder, number, entry, KIND.noun, BackupFailed)
            held = {ref.split("/")[2] for ref in entry["refs"] if ref.startswith(OUR_REFS)}
            here = {run_id for run_id, place in places.items() if place.repository in (entry["path"], entry["git_dir"])}
            for run_id in here | held:
                lost = unheld(clone, run_id, named.get(run_id, Named())) - set(entry["lacking"])
                if lost:
                    raise BackupFailed(
                        f"the backup lacks commit {min(lost)} of run {run_id}, which its log names",
                        hint="use another backup",
                    )
    return clones


def _home_of(project: Project, manifest: dict[str, Any], entry: dict[str, Any]) -> Repository:
    """Where the refs of one of a backup's repositories go.

    Raises:
        NotAllowed: there is no repository.
    """
    if entry["shadow"]:
        return shadow_repository(project.root, files_home(project.store))
    folder = Path(_here(manifest, project, entry["path"]))
    if folder.is_dir() and (found := find_repository(folder)) is not None and found.top == folder:
        return found
    raise NotAllowed(
        f"runs of the backup have their files in a git repository, and {folder} is none",
        hint="clone it there first, or `git init` there to have only what runs have made",
    )


def _settled(unpacked: Unpacked, project: Project) -> dict[str, Any]:
    """Say in the store that was unpacked what the restoring means for runs that are not over, and for timetables.

    A time that has come since the backup was made may have led to a run already, which this store does not know.
    """
    here = attempts_folder(project.store)
    reason = f"restored from the backup of {unpacked.manifest['made_at']}"
    paused: list[str] = []
    lost: list[str] = []
    with Log(unpacked.database, create=False, actor="restore") as log:
        projector, runs = Projector(log), Projector(log).runs()
        timed = schedules(log)
        slots = {run_id: slots_of(log, run_id) for run_id in runs}
        _refuse_living_attempts(here, {attempt_id for of in slots.values() for attempt_id in of})

        def settle(draft: Draft) -> None:
            for run_id, summary in runs.items():
                state = projector.state(run_id)
                if (place := _moved(unpacked, project, state)) is not None:
                    _add(draft, log, state, [place])
                if summary.status in st.ENDED and not slots[run_id] and summary.holder is None:
                    continue
                gone = [one for one in sorted(slots[run_id]) if not _was_here(log, here, run_id, one)]
                for attempt_id in gone:
                    lost.append(attempt_id)
                    _add(draft, log, state, _losing(log, state, attempt_id, reason, draft.at_us))
                if state.status in (st.RUNNING, st.SUBMITTED) and not state.cancel_requested:
                    paused.append(run_id)
                    _add(draft, log, state, [ev.RunPaused(reason=reason)])
                if summary.holder is not None:  # Of the store that the backup was made of.
                    _add(draft, log, state, [ev.RunReleased(epoch=summary.epoch)])
            draft.add_all(STORE_RUN, [ev.ScheduleRemoved(schedule_id=one, reason=reason) for one in timed])

        log.transact(settle)
    removed = [{"schedule_id": name, "name": one.made.name, "cron": one.made.cron} for name, one in timed.items()]
    return {"paused": paused, "lost": lost, "schedules": removed}


def _moved(unpacked: Unpacked, project: Project, state: RunState) -> ev.RunMoved | None:
    """Where the files of a run are here, if that is another place than in the project that the backup was made of."""
    workdir, repository = _here(unpacked.manifest, project, state.workdir), state.repository
    if repository is not None and Path(repository).name == SHADOW:
        repository = str(files_home(project.store) / SHADOW)
    elif repository is not None:
        repository = _here(unpacked.manifest, project, repository)
    if (workdir, repository) == (state.workdir, state.repository):
        return None
    return ev.RunMoved(workdir=workdir, repository=repository)


def _here(manifest: dict[str, Any], project: Project, path: str) -> str:
    """A path of the project that the backup was made of, or above it, in this one; any other stays as it is."""
    there, root = Path(path), Path(manifest["root"])
    if there == root or root in there.parents:
        return str(project.root / there.relative_to(root))
    if there in root.parents:
        below = root.relative_to(there).parts
        if project.root.parts[-len(below) :] == below:
            return str(project.root.parents[len(below) - 1])
    return path


def _add(draft: Draft, log: Log, state: RunState, events: list[Event]) -> None:
    for event in events:
        st.fold(state, draft.add(state.run_id, event), log.blob)


def _was_here(log: Log, attempts: Path, run_id: str, attempt_id: str) -> bool:
    """Whether an attempt ran in this very place, so that whoever dispatches its run finds it, or sees that it is gone."""
    return (attempts / run_id / _task_of(log, run_id, attempt_id) / attempt_id).is_dir()


def _task_of(log: Log, run_id: str, attempt_id: str) -> str:
    for record in log.read_run(run_id):
        if isinstance(record.event, ev.TaskStarted) and record.event.attempt_id == attempt_id:
            return record.event.task_id
    raise AssertionError(f"attempt {attempt_id} holds a slot but was never started")


def _losing(log: Log, state: RunState, attempt_id: str, reason: str, at_us: int) -> list[Event]:
    """The end of an attempt that is somebody else's, if anybody's."""
    if attempt_id not in state.running:
        task_id = _task_of(log, state.run_id, attempt_id)
        return [ev.ResultDiscarded(task_id=task_id, attempt_id=attempt_id, reason=reason)]
    ended = Ended(
        attempt_id, "lost", error=f"{reason}, and it did not run here", started_at_us=at_us, ended_at_us=at_us
    )
    return decide.decide_end(state, ended, at_us, 0.0)


def _refuse_living_attempts(attempts: Path, known: set[str]) -> None:
    """An attempt that lives here and that the backup does not know would have nobody to answer for it."""
    for run in attempts.iterdir() if attempts.is_dir() else ():
        for task in run.iterdir() if run.is_dir() else ():
            for attempt in task.iterdir() if task.is_dir() else ():
                if attempt.name not in known and (alive := living_attempt(attempt)):
                    raise NotAllowed(
                        f"attempt {alive} of run {run.name} lives, and the backup does not know it",
                        hint="wait for its end, or `parallel-agents stop --now`; then say it again",
                    )


def _put(
    unpacked: Unpacked, project: Project, clones: dict[str, Repository], homes: dict[str, Repository], told: Told
) -> dict[str, Any]:
    """Put it in place. The store comes last: until then nothing of the project is another one."""
    manifest, store = unpacked.manifest, project.store
    for number, entry in enumerate(manifest["repositories"]):
        told("repositories", number, len(manifest["repositories"]))
        put_refs(homes[entry["file"]], clones[entry["file"]], entry["refs"])
    _put_outputs(unpacked.folder / OUTPUTS, attempts_folder(store))
    _put_archives(unpacked.folder / ARCHIVES, archive_folder(store))
    aside = _put_store(unpacked.database, store)
    with Log(store, create=False) as log:
        runs = Projector(log).runs()
        named = named_commits(log)
        for entry in manifest["repositories"]:
            _put_branches(log, homes[entry["file"]], clones[entry["file"]], entry["refs"], named)
    return {
        "store": str(store),
        "made_at": manifest["made_at"],
        "events": manifest["events"],
        "runs": len(runs),
        "refs": sum(len(entry["refs"]) for entry in manifest["repositories"]),
        "aside": None if aside is None else str(aside),
        "left_out": manifest["left_out"],
    }


def _put_branches(
    log: Log, repository: Repository, clone: Repository, wanted: dict[str, str], named: dict[str, Named]
) -> None:
    """Let the branch of a run stand where its log says. What somebody has put on it is theirs, here and in the backup."""
    for run_id in {ref.split("/")[2] for ref in wanted if ref.startswith(OUR_REFS)} - {STORE_RUN}:
        ref, stands, known = refs.branch_ref(run_id), refs.branch_commit(repository, run_id), named[run_id].branch
        state = Projector(log).state(run_id)
        if stands is None and ref in wanted:
            fetch_refs(repository, clone.git_dir, {ref: wanted[ref]})
        elif state.plan.workspace == "worktree" and state.integration and (stands is None or stands in known):
            with suppress(refs.BranchInUse):  # It stays, and `verify --deep` says where it belongs.
                refs.move_branch(repository, run_id, state.integration, stands)


def _put_outputs(staged: Path, attempts: Path) -> None:
    """Move the folders of attempts in that are not there."""
    for place, _, _ in os.walk(staged, topdown=True):
        inside = Path(place).relative_to(staged)
        target = attempts / inside
        if len(inside.parts) == 3 and not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(place, target)


def _put_archives(staged: Path, archives: Path) -> None:
    """Move archives in; another one of that name is kept beside it."""
    for made in staged.iterdir() if staged.is_dir() else ():
        archives.mkdir(mode=0o700, exist_ok=True)
        there = archives / made.name
        if there.exists() and digest_of_file(there) != digest_of_file(made):
            os.rename(there, there.with_name(f"{made.name}.before-{rfc3339(wall_clock_us())[:19].replace(':', '-')}"))
        os.rename(made, there)
        flush_folder(archives)


def _put_store(made: Path, store: Path) -> Path | None:
    """Put a store in the place of another one, which is kept beside it. Gives the other one's new name."""
    moved: list[tuple[Path, Path]] = []
    aside = store.with_name(f"{store.stem}.before-{rfc3339(wall_clock_us())[:19].replace(':', '-')}{store.suffix}")
    try:
        for suffix in _BESIDE:
            old = store.with_name(store.name + suffix)
            if old.exists():
                new = aside.with_name(aside.name + suffix)
                os.rename(old, new)
                moved.append((old, new))
        os.rename(made, store)
    except OSError:
        for old, new in reversed(moved):
            os.rename(new, old)
        raise
    flush_folder(store.parent)
    return aside if moved else None
