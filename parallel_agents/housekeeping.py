"""What runs and crashes have left and nobody needs any more: found first, then removed, each thing asked about once more.

Nothing is removed whose content no kept ref reaches, and nothing of a run that goes on. Every removal can be killed at any
moment: what is left then is found by the next look.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from parallel_agents import imported, stale_checkouts, stale_refs
from parallel_agents.checkpoint.repository import OURS, Repository, find_repository
from parallel_agents.eventstore import usage_samples
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import NotAllowed, ParallelAgentsError
from parallel_agents.eventstore.location import FILE, FOLDER, attempts_folder, files_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.leftovers import UNDER_WAY_S, Item, Stays, age_s, delete, folders_in, size_of
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.run_standing import KnownRuns, Place, known_runs, living_attempt, needed, places_of
from parallel_agents.scheduler.checkouts import GATES, SHADOW, open_repository
from parallel_agents.scheduler.runners.control_groups import control_group_home, empty_groups, remove_group
from parallel_agents.scheduler.runners.folder import LockHeld, take_lock
from parallel_agents.stale_checkouts import RUN_ID, TRASH, Found
from parallel_agents.stale_sessions import remove_sessions, sessions_of

WEEK_S = 604_800.0


@dataclass(slots=True)
class Survey:
    """What was found."""

    older_than_s: float
    items: list[Item] = field(default_factory=list)  # In the order in which they go: a checkout before a ref.
    stays: list[Stays] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)  # What is kept to go back to: refs, and their bytes.
    checkouts: dict[str, Found] = field(default_factory=dict)  # By path.
    unnamed: set[str] = field(default_factory=set)  # Refs that no event names: nobody would find what they hold.

    @property
    def bytes(self) -> int:
        """What there is to be had."""
        return sum(item.bytes for item in self.items)

    @property
    def dropping(self) -> set[str]:
        """Refs that hold nothing any more once they are gone."""
        return self.unnamed | {ref for item in self.items if item.kind == "ref" for ref in item.parts}


def survey(
    log: Log | None,
    project: Project,
    *,
    older_than_s: float = WEEK_S,
    checkpoints: bool = False,
    lost_refs: bool = False,
) -> Survey:
    """Look for what may be removed. Nothing is changed; of files that are in no commit yet, git learns the content.

    Args:
        log: None where there is no store any more.
        older_than_s: what attempts wrote is kept for that long after the end of their run.
        checkpoints: give up the checkpoints of runs that have ended that long ago, are merged, and are built on by nothing.
        lost_refs: also refs of runs that no log knows, or that no event names, where nothing else reaches their commits.
    """
    found = Survey(older_than_s)
    store = project.store
    unusable: list[tuple[str, str, str]] = []
    repositories = repositories_of(project, places_of(log), unusable)
    found.stays += [Stays(name, message, hint) for name, message, hint in unusable]
    lying = stale_checkouts.checkouts(store, repositories)
    folders = folders_in(attempts_folder(store))
    leftovers = [*_groups(), *_in_home(store), *(one for each in repositories.values() for one in _in_git(each))]
    # The log is read after the folders: whatever lay there then, its run was in the log before.
    known = known_runs(log, stores_near(store, repositories), store)
    for repository in repositories.values():
        _refs(log, found, repository, known, store, checkpoints=checkpoints, lost=lost_refs)
    judged: list[Item | Stays | None] = []
    for one in lying:
        found.checkouts[str(one.path)] = one
        judge = partial(stale_checkouts.judge, log, store, one, known, found.dropping)
        judged.append(_judged(one.path, judge))
    for folder in folders:
        judged.append(_judged(folder, partial(_attempts, log, folder, known, store, older_than_s)))
    found.items[:0] = [*(one for one in judged if isinstance(one, Item)), *leftovers]
    found.stays[:0] = [one for one in judged if isinstance(one, Stays)]
    return found


def _judged(path: Path, judge: Callable[[], Item | Stays | None]) -> Item | Stays | None:
    """What is said of a folder; nothing where it goes while it is looked into, for somebody else may clean here too."""
    try:
        return judge()
    except OSError as error:
        return Stays(str(path), f"it cannot be looked into: {error.strerror}") if os.path.lexists(path) else None


def repositories_of(
    project: Project, places: dict[str, Place], unusable: list[tuple[str, str, str]]
) -> dict[str, Repository]:
    """The repositories of all runs and that of the project, by git directory; one that is gone is none.

    Args:
        unusable: is given the name, the trouble and the hint of each that cannot be used.
    """
    repositories: dict[str, Repository] = {}
    named = {place.repository: place for place in places.values() if place.repository is not None}
    for name, place in named.items():
        assert name is not None
        try:
            repository = open_repository(name, Path(place.workdir)) if Path(name).exists() else None
        except ParallelAgentsError as error:
            unusable.append((name, f"the repository of a run cannot be used: {error.message}", error.hint))
            continue
        if repository is not None:
            repositories[os.path.realpath(repository.git_dir)] = repository
    with contextlib.suppress(ParallelAgentsError):
        own = find_repository(project.root)
        if own is not None:
            repositories.setdefault(os.path.realpath(own.git_dir), own)
    shadow = files_home(project.store) / SHADOW
    if (shadow / "HEAD").exists():
        of_project = Repository(top=project.root, git_dir=shadow, shadow=True)
        repositories.setdefault(os.path.realpath(shadow), of_project)
    return repositories


def stores_near(store: Path, repositories: dict[str, Repository]) -> Iterator[Path]:
    """Files that may be stores whose runs lie in the same folders, or work in the same repositories."""
    home = files_home(store)
    for folder in {store.parent, home, home.parent}:
        with contextlib.suppress(OSError):
            yield from (path for path in folder.iterdir() if path.is_file())
    for repository in repositories.values():
        yield repository.top / FOLDER / FILE
    yield from imported.stores(store)  # Refs of imported runs lie among ours.


def _refs(
    log: Log | None,
    found: Survey,
    repository: Repository,
    known: KnownRuns,
    store: Path,
    *,
    checkpoints: bool,
    lost: bool,
) -> None:
    """Judge the refs of one repository, and count what is held."""
    judged: list[Item | Stays] = []
    home, attempts = Path(os.path.realpath(files_home(store))), attempts_folder(store)
    try:
        judged += stale_refs.strangers(repository, known, home, found.older_than_s, lost=lost)
        if log is not None:
            unnamed = stale_refs.unnamed(log, repository, known, attempts)
            found.unnamed.update(ref for of in unnamed.values() for ref in of)
            judged += stale_refs.forgotten(repository, unnamed, found.older_than_s, lost=lost)
        if checkpoints and log is not None:
            judged += stale_refs.given_up(log, repository, known.summaries, attempts, found.older_than_s)
        held = stale_refs.usage(repository)
        found.checkpoints = {name: found.checkpoints.get(name, 0) + count for name, count in held.items()}
    except ParallelAgentsError as error:
        found.stays.append(Stays(str(repository.git_dir), f"its refs cannot be read: {error.message}", error.hint))
    found.items += [one for one in judged if isinstance(one, Item)]
    found.stays += [one for one in judged if isinstance(one, Stays)]


def _attempts(log: Log | None, folder: Path, known: KnownRuns, store: Path, older_than_s: float) -> Item | Stays | None:
    """What the attempts of one run wrote: evidence for a while, then only files."""
    run_id, summary = folder.name, known.summaries.get(folder.name)
    if summary is None:
        # Beside a store of somebody's own choice a folder named `runs` may be theirs.
        if store.parent.name != FOLDER or not RUN_ID.fullmatch(run_id):
            return None
        stays = known.stranger(run_id) or needed(log, run_id, folder)
        if stays:
            return Stays(str(folder), stays)
        why, young = "no log knows its run", _newest_age_s(folder) < max(older_than_s, UNDER_WAY_S)
    else:
        if summary.status not in st.ENDED or (log is not None and needed(log, run_id, folder)):
            return None
        why = f"its run has ended: {summary.status}"
        young = wall_clock_us() - (summary.ended_at_us or 0) < older_than_s * 1e6
    parts = tuple(map(str, attempt_folders(folder)))
    if young or not parts:
        return None
    return Item("attempts", str(folder), why, size_of(folder), run_id, parts=parts)


def _newest_age_s(folder: Path) -> float:
    return min([age_s(folder), *(age_s(one) for one in attempt_folders(folder))])


def attempt_folders(run: Path) -> list[Path]:
    """The folders of attempts of a run, and those of checks at the end of a stage, which lie one level deeper."""
    attempts = [attempt for task in folders_in(run) if task.name != GATES for attempt in folders_in(task)]
    return attempts + [check for stage in folders_in(run / GATES) for check in folders_in(stage)]


def _groups() -> list[Item]:
    """Control groups of attempts whose supervisor was killed; nobody is in them any more."""
    home = control_group_home().path
    why = "the control group of an attempt that is over"
    return [] if home is None else [Item("group", folder, why) for folder in empty_groups(home)]


def _in_home(store: Path) -> list[Item]:
    """Half-made and half-removed things in the store's folder."""
    home = files_home(store)
    found = [
        Item("leftover", str(path), "a checkout that was being removed", size_of(path))
        for run in folders_in(home / "worktrees")
        for path in folders_in(run)
        if path.name.startswith(TRASH)
    ]
    half_made = [path for path in folders_in(home) if path.name.startswith("shadow.") and path.name != SHADOW]
    return found + [
        Item("leftover", str(path), "a shadow repository that was being made", size_of(path))
        for path in half_made
        if age_s(path) > UNDER_WAY_S
    ]


def _in_git(repository: Repository) -> list[Item]:
    """What commands of ours that were killed have left in a git directory."""
    found = [
        Item("leftover", str(path), "files of a command that was killed", size_of(path), repository=repository)
        for path in folders_in(repository.git_dir / OURS)
        if age_s(path) > UNDER_WAY_S
    ]
    return found + [
        Item("leftover", str(path), "the lock of a git that was killed", size_of(path), repository=repository)
        for path in stale_locks(repository)
    ]


def stale_locks(repository: Repository) -> list[Path]:
    """Locks on refs of ours that no git has held for so long."""
    folders = (repository.git_dir / "refs" / OURS, repository.git_dir / "refs" / "heads" / OURS)
    return sorted(path for folder in folders for path in folder.rglob("*.lock") if age_s(path) > UNDER_WAY_S)


def clean(log: Log | None, project: Project, found: Survey) -> dict[str, Any]:
    """Remove what a survey found, unless it is needed again by now.

    Returns:
        ``{"removed": [...], "left": [{"path", "why", "failed"}], "freed_bytes"}``; what did not fail is needed again.
    Raises:
        NotAllowed: somebody else is cleaning here.
    """
    removed, left, size = [], [], 0
    with alone(project.store):
        for item in found.items:
            failed = False
            reach("gc.before-removal")
            try:
                stays = _remove(log, project.store, item, found)
            except (ParallelAgentsError, OSError) as error:
                stays, failed = str(error), True
            if stays:
                left.append({"path": item.path, "why": stays, "failed": failed})
                continue
            reach("gc.removed")
            removed.append(item.as_data())
            size += item.bytes
        remove_empty(log, project.store, [Path(item.path) for item in found.items if item.kind == "attempts"])
        _pack_shadow(project.store)
    return {"removed": removed, "left": left, "freed_bytes": size}


@contextlib.contextmanager
def alone(store: Path) -> Iterator[None]:
    """One at a time in a store's folder; a dead holder holds nothing."""
    home = files_home(store)
    if not home.is_dir():
        yield
        return
    with open(home / "gc.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotAllowed("somebody else is cleaning here", hint="wait until that is done") from None
        yield


def _remove(log: Log | None, store: Path, item: Item, found: Survey) -> str:
    """Remove one thing. Gives why it stays; an empty text where it is gone."""
    match item.kind:
        case "checkout":
            return stale_checkouts.clear(log, store, found.checkouts[item.path], found.dropping)
        case "attempts":
            return remove_attempts(log, item, attempts_folder(store).parent)
        case "leftover":
            path = Path(item.path)
            if not path.name.startswith(TRASH) and os.path.lexists(path) and age_s(path) <= UNDER_WAY_S:
                return "it is in use again"
            delete(path)
            return ""
        case "group":
            return "" if remove_group(item.path) else "it is in use again"
        case "ref" | "checkpoints":
            return stale_refs.drop(log, item, attempts_folder(store))


def remove_attempts(log: Log | None, item: Item, home: Path) -> str:
    """Remove folders of attempts one by one, each under its lock; those of a run that goes on again stay.

    The sessions of agents, which only their attempts could go on with, go first; what they used over time goes last.
    """
    assert item.run_id is not None
    stays = needed(log, item.run_id, Path(item.path))
    if stays:
        return stays
    remove_sessions(home, sessions_of(item.parts))
    for part in item.parts:
        if not os.path.isdir(part):
            continue
        if alive := living_attempt(Path(part)):
            return f"attempt {alive} lives"
        try:
            lock = take_lock(part)
        except LockHeld:
            return f"attempt {Path(part).name} lives"
        try:
            delete(Path(part))
        finally:
            os.close(lock)
    if log is not None:
        usage_samples.remove(log.path, item.run_id)
    return ""


def remove_empty(log: Log | None, store: Path, runs: list[Path]) -> None:
    """Remove folders that have become empty, while no attempt can be started that would make one below them."""

    def remove(draft: Draft | None = None) -> None:
        for run in runs:
            if needed(log, run.name, run):
                continue
            stages = folders_in(run / GATES)
            for path in (*stages, *folders_in(run), run):
                with contextlib.suppress(OSError):
                    path.rmdir()

    if log is None:
        remove()
    elif runs:
        log.transact(remove)
    for run in folders_in(files_home(store) / "worktrees"):
        with contextlib.suppress(OSError):
            run.rmdir()


def _pack_shadow(store: Path) -> None:
    """Let git pack the shadow repository where it has grown: nobody else ever does."""
    shadow = files_home(store) / SHADOW
    if (shadow / "HEAD").exists():
        with contextlib.suppress(ParallelAgentsError):
            git = Repository(top=store.parent, git_dir=shadow, shadow=True).git()
            git.run("-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")


def as_json(found: Survey) -> dict[str, Any]:
    """A survey as scripts read it."""
    return {
        "older_than_s": found.older_than_s,
        "items": [item.as_data() for item in found.items],
        "stays": [one._asdict() for one in found.stays],
        "bytes": found.bytes,
        "checkpoints": found.checkpoints,
    }
