"""How a run's files begin: which workspace its tasks get, in which repository, and the commit that they start from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidPlan
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.location import files_home, make_home
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import Plan, Workspace

if TYPE_CHECKING:
    from parallel_agents.checkpoint.repository import Repository
    from parallel_agents.planfile import PlanDraft
    from parallel_agents.project import Project

SHADOW_FILES = 50_000  # Of a directory without git that is versioned unasked; a home directory has more.
SHADOW_BYTES = 1 << 30
PATHS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run's files are, before the run is there."""

    workspace: Workspace
    repository: Repository | None = None
    shadow: tuple[Path, Path] | None = None  # Instead: a directory without git, and where its shadow repository lies.
    include_uncommitted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def named(self) -> str | None:
        """The repository as ``RunSubmitted`` names it."""
        if self.shadow is not None:
            return str(self.shadow[1] / "shadow.git")
        return None if self.repository is None else str(self.repository.top)


def look_at_files(draft: PlanDraft, project: Project) -> Start:
    """Which workspace a plan gets: its own, else worktrees in a git repository with a commit, else the shared directory.

    Raises:
        InvalidPlan: the workspace that the plan asks for is not to be had here.
        GitFailed: the repository cannot be used.
    """
    if draft.workspace == "none":
        return Start("none")
    if shutil.which("git") is None:
        lack = _Lack("there is no git on PATH", "install git")
        if draft.workspace is not None:
            raise InvalidPlan(f"workspace is {draft.workspace!r}, and {lack.why}", hint=f"{lack.mend}, or say none")
        _check_needs(draft, "none", lack)
        return Start("none", warnings=(f"{lack.why}, so no files are kept: workspace is none",))
    from parallel_agents.checkpoint.repository import find_repository, head_commit

    repository = find_repository(project.workdir)
    if repository is None:
        return _without_git(draft, project)
    if head_commit(repository) is None:
        lack = _Lack("the git repository has no commit yet", "make the first one")
        _check_needs(draft, "shared", lack)
        return _in_git("shared", repository)
    return _in_git(draft.workspace or "worktree", repository, include_uncommitted=draft.include_uncommitted)


def look_again(workspace: Workspace, project: Project, *, include_uncommitted: bool) -> Start:
    """The files of a plan whose workspace was settled when it was scheduled, as they are at this moment.

    Raises:
        InvalidPlan: that workspace is not to be had here any more.
        GitFailed: the repository cannot be used.
    """
    if workspace == "none":
        return Start("none")
    if shutil.which("git") is None:
        raise InvalidPlan(f"workspace is {workspace!r}, and there is no git on PATH", hint="install git")
    from parallel_agents.checkpoint.repository import find_repository, head_commit

    repository = find_repository(project.workdir)
    if workspace == "worktree" and (repository is None or head_commit(repository) is None):
        raise InvalidPlan(
            f"workspace is 'worktree', and {project.workdir} is in no git repository with a commit",
            hint="schedule the plan anew",
        )
    if repository is None:
        return Start(workspace, shadow=(project.root, files_home(project.store)))
    return _in_git(workspace, repository, include_uncommitted=include_uncommitted)


class _Lack(NamedTuple):
    """Why there can be no checkouts, and what to do about it."""

    why: str
    mend: str


def _check_needs(draft: PlanDraft, workspace: Workspace, lack: _Lack) -> None:
    """Refuse what a plan says about files that cannot be in the workspace which it gets instead of checkouts."""
    if draft.workspace == "worktree":
        what, instead = "workspace is 'worktree'", "say workspace: shared"
    elif draft.sparse:
        what, instead = "sparse is about checkouts", "leave sparse out"
    elif draft.include_uncommitted and workspace == "none":
        what, instead = "include_uncommitted is true", "leave it out"
    elif workspace == "none" and (ids := [task.task_id for task in draft.tasks if task.approval == "result"]):
        what, instead = f"approval is result (task {ids[0]!r})", "write approval: required"
    else:
        return
    raise InvalidPlan(f"{what}, and {lack.why}", hint=f"{lack.mend}, or {instead}")


def _without_git(draft: PlanDraft, project: Project) -> Start:
    lack = _Lack(f"{project.workdir} is in no git repository", "git init and make a commit")
    _check_needs(draft, "shared", lack)
    if draft.workspace is None and _is_vast(project.root):
        lack = _Lack(f"{project.root} is in no git repository and too large to be versioned unasked", lack.mend)
        _check_needs(draft, "none", lack)
        return Start("none", warnings=(f"{lack.why}: workspace is none",))
    return Start("shared", shadow=(project.root, files_home(project.store)))


def _in_git(workspace: Workspace, repository: Repository, *, include_uncommitted: bool = False) -> Start:
    from parallel_agents.checkpoint.repository import dirty_paths, obstacles

    for obstacle in obstacles(repository):
        raise InvalidPlan(obstacle.message, hint=obstacle.hint)
    warnings = []
    if workspace == "worktree" and not include_uncommitted:
        paths, count = dirty_paths(repository, PATHS_SHOWN)
        if count:
            more = f" and {count - len(paths)} more" if count > len(paths) else ""
            warnings.append(
                f"the run starts from HEAD, without uncommitted changes: {', '.join(paths)}{more}"
                " (include_uncommitted: true takes them along)"
            )
    return Start(workspace, repository, include_uncommitted=include_uncommitted, warnings=tuple(warnings))


def _is_vast(folder: Path) -> bool:
    """Whether a directory is too large to be copied without being asked."""
    files = size = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".parallel-agents"]
        files += len(names)
        if files > SHADOW_FILES:
            return True
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".parallel-agents"]
        for name in names:
            try:
                size += os.lstat(f"{place}/{name}").st_size
            except OSError:
                continue
            if size > SHADOW_BYTES:
                return True
    return False


def begin(start: Start, plan: Plan, run_id: str, at_us: int) -> tuple[str | None, Sequence[Event]]:
    """The commit that a run starts from, held by a ref, and the checkpoint that says so.

    Args:
        at_us: the date of a commit that has to be made.
    Raises:
        GitFailed: it cannot be had; then the run must not begin.
    """
    if start.workspace == "none" or (start.repository is None and start.shadow is None):
        return None, ()
    from parallel_agents.checkpoint import refs
    from parallel_agents.checkpoint.git import GitFailed
    from parallel_agents.checkpoint.repository import current_branch, head_commit, shadow_repository
    from parallel_agents.checkpoint.snapshot import snapshot

    repository = start.repository
    if repository is None:
        assert start.shadow is not None
        root, home = start.shadow
        make_home(home / "store")
        repository = shadow_repository(root, home)
    head = None if repository.shadow else head_commit(repository)
    commit = head
    if commit is None or start.workspace == "shared" or start.include_uncommitted:
        message = f"Files before run {run_id}\n\nParallel-Agents-Run: {run_id}\n"
        parents = () if head is None else (head,)
        as_committed = start.workspace == "worktree"  # A checkout is made from it, by the user's rules for line ends.
        try:
            commit = snapshot(
                repository, repository.top, message=message, parents=parents, at_us=at_us, as_committed=as_committed
            ).commit
        except GitFailed as error:
            instead = "leave include_uncommitted out" if start.workspace == "worktree" else "say workspace: none"
            raise GitFailed(error.message, hint=f"{error.hint}, or {instead}" if error.hint else instead) from error
    checkpoint_id = new_id()
    refs.hold(repository, {refs.checkpoint_ref(run_id, checkpoint_id): commit})
    if not plan.files.before_run:
        return commit, ()
    branch = None if repository.shadow else current_branch(repository)
    return commit, [
        ev.CheckpointCreated(
            checkpoint_id=checkpoint_id, kind="before_run", label="before the run", commit=commit, branch=branch
        )
    ]
