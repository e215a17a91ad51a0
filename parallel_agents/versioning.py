"""How a run's files begin: which workspace its tasks get, in which repository, and the commit that they start from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    asked = draft.workspace
    if shutil.which("git") is None:
        if asked is None:
            return Start("none")
        raise InvalidPlan(f"workspace is {asked!r}, and there is no git on PATH", hint="install git, or say none")
    from parallel_agents.checkpoint.repository import find_repository, head_commit

    repository = find_repository(project.workdir)
    if repository is None:
        return _without_git(asked, project)
    head = head_commit(repository)
    if asked == "worktree" and head is None:
        raise InvalidPlan(
            "workspace is 'worktree', and the git repository has no commit yet",
            hint="make the first one, or say workspace: shared",
        )
    workspace = asked or ("worktree" if head is not None else "shared")
    return _in_git(workspace, repository, include_uncommitted=draft.include_uncommitted)


def _without_git(asked: str | None, project: Project) -> Start:
    if asked == "worktree":
        raise InvalidPlan(
            f"workspace is 'worktree', and {project.workdir} is in no git repository",
            hint="git init and make a commit, or say workspace: shared",
        )
    if asked is None and _is_vast(project.root):
        warning = f"{project.root} is in no git repository and too large to be versioned unasked: workspace is none"
        return Start("none", warnings=(warning,))
    return Start("shared", shadow=(project.root, files_home(project.store)))


def _in_git(workspace: Workspace, repository: Repository, *, include_uncommitted: bool) -> Start:
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
        commit = snapshot(
            repository, repository.top, message=message, parents=parents, at_us=at_us, as_committed=as_committed
        ).commit
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
