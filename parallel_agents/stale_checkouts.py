"""Checkouts that nobody works in any more: those of runs that have ended, or that no log knows.

A checkout goes only when its files, and the commit that it stands on, are reached by a ref; else they become a checkpoint
of its run before. Ignored files are in no checkpoint, and go with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from parallel_agents.checkpoint import refs, worktrees
from parallel_agents.checkpoint.entries import Entry, entries, head_of, is_half_made
from parallel_agents.checkpoint.git import GitFailed, decoded
from parallel_agents.checkpoint.reaching import kept_trees, unreached
from parallel_agents.checkpoint.repository import Repository, find_repository, linked_git_dir
from parallel_agents.checkpoint.snapshot import changed_paths, snapshot, tree_of
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.events import CheckpointCreated
from parallel_agents.eventstore.location import attempts_folder, files_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import derived_id
from parallel_agents.leftovers import Item, Stays, folders_in, size_of
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.run_standing import KnownRuns, needed

RUN_ID = re.compile(r"[a-z][a-z2-7]{9}")
RESOLVE = ".resolve-"
"""How the checkout of a conflict begins that is resolved with an editor; the name of its task follows."""
TRASH = ".removed-"


@dataclass(frozen=True, slots=True)
class Found:
    """A checkout below the store's folder: a folder, an entry in a repository, or both."""

    path: Path
    run_id: str
    name: str
    repository: Repository | None  # None: it belongs to none any more.
    entry: Entry | None


def checkouts(store: Path, repositories: Mapping[str, Repository]) -> list[Found]:
    """The checkouts that lie below a store's folder, or are on record there, in the order of their paths.

    Args:
        repositories: those that are looked into, by git directory.
    """
    root = Path(os.path.realpath(files_home(store) / "worktrees"))
    on_record: dict[Path, tuple[Repository, Entry]] = {}
    for repository in repositories.values():
        for entry in entries(repository):
            if entry.path is not None and root in entry.path.parents:
                on_record[entry.path] = (repository, entry)
    lying = [path for run in folders_in(root) for path in folders_in(run) if not path.name.startswith(TRASH)]
    found = []
    for path in sorted({*on_record, *lying}):
        repository_of, entry_of = on_record.get(path, (None, None))
        run_id = path.relative_to(root).parts[0]
        found.append(Found(path, run_id, path.name, repository_of or _repository_at(path, repositories), entry_of))
    return found


def _repository_at(path: Path, repositories: Mapping[str, Repository]) -> Repository | None:
    admin = linked_git_dir(path)
    if admin is not None:
        return repositories.get(os.path.realpath(admin.parent.parent))
    try:
        found = find_repository(path)
    except GitFailed:
        return None
    return None if found is None else repositories.get(os.path.realpath(found.git_dir))


def judge(
    log: Log | None, store: Path, found: Found, known: KnownRuns, dropping: Collection[str]
) -> Item | Stays | None:
    """Whether a checkout may go; None where it is in use and nothing has to be said.

    Args:
        dropping: refs that go as well, and hold nothing any more.
    """
    reason = why_idle(log, store, found, known)
    if reason is None:
        return None
    why, stays = reason
    path = str(found.path)
    if not stays:
        stays = _untouchable(found)
    if stays:
        return Stays(path, stays)
    repository = found.repository
    if repository is None:
        if found.path.is_dir() and not any(found.path.iterdir()):
            return Item("checkout", path, f"{why}, and it is empty", size_of(found.path), found.run_id)
        return Stays(path, f"{why}, but its repository is not there any more", f"look into it, then `rm -r {path}`")
    try:
        unkept = _unkept(repository, found, dropping)
    except (ParallelAgentsError, OSError) as error:
        return Stays(path, f"{why}, but what it holds cannot be kept: {error}", f"look into it, then `rm -r {path}`")
    if unkept is not None and found.run_id not in known.summaries:
        return Stays(
            path,
            f"{why}, but it holds what no ref reaches",
            f"`git -C {repository.top} branch kept-{found.name} {unkept}` keeps it",
        )
    size = size_of(found.path) if os.path.lexists(found.path) else 0
    return Item("checkout", path, why, size, found.run_id, kept_first=unkept is not None, repository=repository)


def why_idle(log: Log | None, store: Path, found: Found, known: KnownRuns) -> tuple[str, str] | None:
    """Why nobody needs a checkout any more, and what speaks against that all the same; None where it is in use."""
    run_id = found.run_id
    if not RUN_ID.fullmatch(run_id):
        return f"no run is called {run_id}", f"no run is called {run_id}: somebody else has put it here"
    summary = known.summaries.get(run_id)
    if summary is None:
        return "no log knows its run", known.stranger(run_id) or needed(log, run_id, _attempts(store, run_id))
    if found.name.startswith(RESOLVE) and summary.status not in st.ENDED:
        assert log is not None
        task = Projector(log).state(run_id).tasks.get(found.name.removeprefix(RESOLVE))
        in_conflict = task is not None and task.status == st.BLOCKED
        return None if in_conflict else ("its conflict is settled", "")
    if needed(log, run_id, _attempts(store, run_id)):
        return None
    return f"its run has ended: {summary.status}", ""


def _attempts(store: Path, run_id: str) -> Path:
    return attempts_folder(store) / run_id


def _untouchable(found: Found) -> str:
    """What in the checkout itself says that it must stay."""
    if found.entry is not None and found.entry.foreign:
        return f"somebody has locked it: {found.entry.reason or 'git worktree lock, without a reason'}"
    if (found.path / ".git").is_dir():
        return "it holds a repository of its own"
    return ""


def _unkept(repository: Repository, found: Found, dropping: Collection[str]) -> str | None:
    """A commit of what a checkout holds, where no ref reaches that yet; None where everything is kept."""
    entry = found.entry
    head = None if entry is None else head_of(repository, entry)
    head_lost = head is not None and bool(unreached(repository, [head], dropping))
    if not found.path.is_dir() or not any(found.path.iterdir()):
        return head if head_lost else None
    label = f"what the checkout of {found.name} held when it was cleared away"
    made = snapshot(
        repository, found.path, message=label, parents=[] if head is None else [head], at_us=wall_clock_us()
    )
    _refuse_repositories(repository, made.commit, found.path)
    if head_lost:
        return made.commit
    if made.tree in kept_trees(repository, dropping) or (head is not None and made.tree == tree_of(repository, head)):
        return None
    half_made = head is not None and entry is not None and is_half_made(entry)
    if half_made and head is not None and all(one.status == "D" for one in changed_paths(repository, head, made.tree)):
        return None
    return made.commit


def _refuse_repositories(repository: Repository, commit: str, folder: Path) -> None:
    """Of a repository in a checkout a commit keeps a number; its own commits are nowhere else."""
    listed = repository.git().run("ls-tree", "-r", "-z", commit).out
    named = map(decoded, re.findall(rb"(?:\A|\0)160000 commit [0-9a-f]+\t([^\0]*)", listed))
    inner = [name for name in named if (folder / name / ".git").exists()]
    if inner:
        raise GitFailed(f"it holds repositories of their own: {', '.join(inner[:5])}", hint="move them out")


def clear(log: Log | None, store: Path, found: Found, dropping: Collection[str]) -> str:
    """Remove a checkout, unless it is needed after all.

    Returns:
        Why it stays; an empty text where it is gone.
    Raises:
        GitFailed, OSError: it cannot be removed.
    """
    stays = ""

    def may_go() -> bool:
        nonlocal stays
        stays = _still_needed(log, store, found, dropping)
        return not stays

    if found.repository is None:
        os.rmdir(found.path)
    else:
        worktrees.remove(found.repository, found.path, if_still=may_go)
    return stays


def _still_needed(log: Log | None, store: Path, found: Found, dropping: Collection[str]) -> str:
    """The same questions once more, while no checkout can be made; what is held by no ref yet becomes a checkpoint."""
    repository = found.repository
    assert repository is not None
    now = next((entry for entry in entries(repository) if entry.path == found.path), None)
    found = Found(found.path, found.run_id, found.name, repository, now)
    summaries = {} if log is None else Projector(log).runs()
    reason = why_idle(log, store, found, KnownRuns(summaries))
    if reason is None:
        return "it is in use again"
    stays = reason[1] or _untouchable(found)
    if stays:
        return stays
    unkept = _unkept(repository, found, dropping)
    if unkept is None:
        return ""
    if log is None or found.run_id not in summaries:
        return "it holds what no ref reaches"
    _keep(log, found, unkept)
    return ""


def _keep(log: Log, found: Found, commit: str) -> None:
    """Hold what a checkout has by a ref, then by an event that names it."""
    assert found.repository is not None
    label = f"what the checkout of {found.name} held when it was cleared away"
    tree = tree_of(found.repository, commit)
    checkpoint_id = derived_id("cleared", f"{found.run_id}/{found.name}:{tree}")  # Once more after a crash.
    event = CheckpointCreated(checkpoint_id=checkpoint_id, kind="manual", label=label, commit=commit)
    refs.hold(found.repository, {refs.checkpoint_ref(found.run_id, event.checkpoint_id): commit})
    reach("gc.kept")

    def add(draft: Draft) -> None:
        draft.add(found.run_id, event)

    log.transact(add)
