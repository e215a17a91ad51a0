"""What is wrong with a project's files as we keep them: checkouts, locks, refs, checkpoints. Nothing is changed."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from parallel_agents import stale_checkouts
from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.entries import Entry, entries
from parallel_agents.checkpoint.git import last_words
from parallel_agents.checkpoint.reaching import all_refs, missing
from parallel_agents.checkpoint.repository import OURS, Repository, find_repository, obstacles
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode
from parallel_agents.findings import Finding
from parallel_agents.housekeeping import repositories_of, stale_locks, stores_near
from parallel_agents.leftovers import UNDER_WAY_S, age_s
from parallel_agents.project import Project
from parallel_agents.run_standing import KnownRuns, known_runs, places_of
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.stale_refs import by_run

SHOWN = 5
_GC = "`parallel-agents gc` removes what can go"
_LOCKS_OF_GIT = ("index.lock", "HEAD.lock", "packed-refs.lock", "config.lock", "shallow.lock")


def examine_files(project: Project, *, thorough: bool = False) -> Iterator[Finding]:
    """Look at the files of a project and of all its runs.

    Args:
        thorough: read every object that checkpoints need.
    """
    if shutil.which("git") is None:
        return
    yield from _own_repository(project)
    try:
        with project.open() if project.store.exists() else nullcontext() as log:
            yield from _everything(log, project, thorough)
    except ParallelAgentsError as error:
        yield Finding("files", "warning", f"they cannot be looked at: {error.message}", error.hint)


def _own_repository(project: Project) -> Iterator[Finding]:
    try:
        repository = find_repository(project.root)
        found = [] if repository is None else obstacles(repository)
    except ParallelAgentsError as error:
        yield Finding("repository", "error", error.message, error.hint)
        return
    if repository is None:
        yield Finding("repository", "ok", f"none; files are kept in {files_home(project.store) / 'shadow.git'}")
    elif not found:
        yield Finding("repository", "ok", str(repository.top))
    for obstacle in found:
        yield Finding("repository", "warning", obstacle.message, obstacle.hint)


def _everything(log: Log | None, project: Project, thorough: bool) -> Iterator[Finding]:
    unusable: list[tuple[str, str, str]] = []
    repositories = repositories_of(project, places_of(log), unusable)
    for name, message, hint in unusable:
        yield Finding("repository", "warning", f"{name}: {message}", hint)
    lying = stale_checkouts.checkouts(project.store, repositories)
    known = known_runs(log, stores_near(project.store, repositories), project.store)
    yield _checkouts(log, project, lying, known)
    wrong: list[Finding] = []
    for repository in repositories.values():
        wrong += [*_entries(repository, files_home(project.store)), *_locks(repository)]
        wrong += [*_strangers(repository, known), *_whole(repository, thorough=thorough)]
    if log is not None:
        wrong += _checkpoints(log, project, repositories, known)
    yield from wrong
    if not wrong:
        held = sum(len(refs.held(repository)) for repository in repositories.values())
        looked = ", every object read" if thorough else ""
        refs_held = "1 ref" if held == 1 else f"{held} refs"
        yield Finding("checkpoints", "ok", f"{refs_held}, and each checkpoint of the log has its commit{looked}")


def _checkouts(log: Log | None, project: Project, lying: list[stale_checkouts.Found], known: KnownRuns) -> Finding:
    idle = [one for one in lying if stale_checkouts.why_idle(log, project.store, one, known) is not None]
    if not idle:
        return Finding("checkouts", "ok", f"{len(lying)} in use" if lying else "none")
    gone = [one for one in idle if not one.path.exists()]
    shown = ", ".join(f"{one.run_id}/{one.name}" for one in idle[:SHOWN]) + (", ..." if len(idle) > SHOWN else "")
    missing_ones = f", {len(gone)} of them only on git's record" if gone else ""
    return Finding("checkouts", "warning", f"nobody needs {shown}{missing_ones}", _GC)


def _entries(repository: Repository, home: Path) -> Iterator[Finding]:
    """Worktrees on git's record that no gc of this store will take away."""
    for entry in entries(repository):
        if entry.path is None and entry.ours:
            detail = f"{entry.admin} is half of a worktree, from a git that was killed"
            yield Finding("worktrees", "warning", detail, f"rm -r {shlex.quote(str(entry.admin))}")
        elif entry.path is not None and _is_gone(entry) and not _is_below(entry.path, home):
            path = shlex.quote(str(entry.path))
            detail = f"{entry.path} is a worktree of parallel-agents by git's record, and is not there"
            git = _command(repository)
            yield Finding("worktrees", "warning", detail, f"{git} worktree unlock {path}; {git} worktree prune")


def _is_gone(entry: Entry) -> bool:
    return entry.ours and entry.path is not None and not entry.path.exists()


def _is_below(path: Path, home: Path) -> bool:
    return home.resolve() in path.parents


def _command(repository: Repository) -> str:
    """How a person calls git on a repository."""
    if repository.shadow:
        return f"git --git-dir {shlex.quote(str(repository.git_dir))}"
    return f"git -C {shlex.quote(str(repository.top))}"


def _locks(repository: Repository) -> Iterator[Finding]:
    """Locks that have been there for so long that the git which made them is dead."""
    for lock in stale_locks(repository):
        yield Finding("locks", "warning", f"{lock} is the lock of a git that was killed", _GC)
    folders = [repository.git_dir, *(entry.admin for entry in entries(repository) if entry.ours)]
    for lock in (folder / name for folder in folders for name in _LOCKS_OF_GIT):
        if lock.exists() and age_s(lock) > UNDER_WAY_S:
            detail = f"{lock} has been there for {age_s(lock) / 3600:.0f} h: the git that made it was killed"
            yield Finding("locks", "warning", detail, f"rm {shlex.quote(str(lock))}")


def _strangers(repository: Repository, known: KnownRuns) -> Iterator[Finding]:
    """Refs and branches of runs that no log here knows."""
    strange = sorted(by_run(repository).keys() - known.summaries.keys() - known.elsewhere.keys() - {STORE_RUN})
    if strange:
        shown = ", ".join(strange[:SHOWN]) + (", ..." if len(strange) > SHOWN else "")
        detail = f"{repository.git_dir} holds refs of runs that no log here knows: {shown}"
        yield Finding("refs", "warning", detail, "`parallel-agents gc --dry-run` says what may become of them")
    folder = f"refs/heads/{OURS}/"
    for ref in all_refs(repository):
        run_id = ref.removeprefix(folder)
        if ref.startswith(folder) and run_id not in known.summaries and run_id not in known.elsewhere:
            detail = f"the branch {OURS}/{run_id} is of a run that no log here knows"
            yield Finding("refs", "warning", detail, f"{_command(repository)} branch -D {OURS}/{run_id}")


def _whole(repository: Repository, *, thorough: bool) -> Iterator[Finding]:
    """Whether what refs of ours name can be read."""
    git = repository.git()
    name = "shadow repository" if repository.shadow else "repository"
    if thorough and repository.shadow:
        said = git.run("fsck", "--connectivity-only", "--no-dangling", "--no-progress", ok=range(256))
    elif thorough:
        said = git.run("rev-list", "--objects", "--quiet", f"--glob=refs/{OURS}/*", ok=range(256))
    else:
        said = git.run("for-each-ref", f"refs/{OURS}/", ok=range(256))
    if said.code:
        detail = f"{repository.git_dir} is damaged: {last_words(said)}"
        yield Finding(name, "error", detail, f"{_command(repository)} fsck --full")


def _checkpoints(
    log: Log, project: Project, repositories: dict[str, Repository], known: KnownRuns
) -> Iterator[Finding]:
    """Checkpoints of the log whose ref or commit is not there."""
    made: dict[str, dict[str, str]] = {}  # By run and checkpoint, its commit.
    for row in log.rows(where="type IN ('CheckpointCreated', 'CheckpointsDropped')"):
        record = decode(row)
        if isinstance(record.event, ev.CheckpointsDropped):
            made.pop(record.run_id, None)
        elif isinstance(record.event, ev.CheckpointCreated) and record.event.commit and not record.event.folder:
            made.setdefault(record.run_id, {})[record.event.checkpoint_id] = sys.intern(record.event.commit)
    places = places_of(log)
    for run_id, checkpoints in made.items():
        named = places[run_id].repository if run_id in places else None
        repository = _of(repositories, project, run_id, named)
        if repository is not None:
            holder = known.summaries[run_id].holder if run_id in known.summaries else None
            dispatched = holder is not None and holder_alive(holder)
            yield from _of_run(repository, run_id, checkpoints, dispatched=dispatched)


def _of(repositories: dict[str, Repository], project: Project, run_id: str, named: str | None) -> Repository | None:
    """The repository of a run's files; None where that is not there."""
    for repository in repositories.values():
        if named is not None and Path(named) in (repository.top, repository.git_dir):
            return repository
    if run_id != STORE_RUN:
        return None
    with contextlib.suppress(ParallelAgentsError):
        own = find_repository(project.root)
        if own is not None:
            return own
    return next((one for one in repositories.values() if one.shadow), None)


def _of_run(repository: Repository, run_id: str, checkpoints: dict[str, str], *, dispatched: bool) -> Iterator[Finding]:
    """Those of one run.

    Args:
        checkpoints: the commit of each.
    """
    held = refs.held(repository, run_id)
    gone = missing(repository, sorted(set(checkpoints.values())))
    whose = "made by hand" if run_id == STORE_RUN else f"of run {run_id}"
    lost = [name for name, commit in checkpoints.items() if commit in gone]
    for name in lost[:SHOWN]:
        commit = checkpoints[name]
        detail = f"the files of checkpoint {name} {whose} are gone: {repository.git_dir} has no {commit}"
        hint = f"a clone or a backup may have it: {_command(repository)} fetch CLONE {commit}"
        yield Finding("checkpoints", "error", detail, hint)
    if dispatched:
        return  # Its refs are made by whoever dispatches it, a moment after the event.
    unheld = [
        name
        for name, commit in checkpoints.items()
        if commit not in gone and refs.checkpoint_ref(run_id, name) not in held
    ]
    for name in unheld[:SHOWN]:
        ref = refs.checkpoint_ref(run_id, name)
        detail = f"checkpoint {name} {whose} has lost its ref, so git may delete its files"
        yield Finding("checkpoints", "warning", detail, f"{_command(repository)} update-ref {ref} {checkpoints[name]}")
    more = len(lost) + len(unheld) - min(len(lost), SHOWN) - min(len(unheld), SHOWN)
    if more:
        yield Finding("checkpoints", "warning", f"the same of {more} more checkpoints {whose}", "mend these first")
