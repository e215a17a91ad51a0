"""The result of a run brought to a branch of the user's: the one thing that touches their branch, index and files.

Decided on objects first, so that it is refused before anything has changed; then git's own fast-forward does all of it or
nothing. Nothing is ever forced, and the reflog of the branch says how to take it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parallel_agents.checkpoint import merging, users_branch
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import OURS, Repository, current_branch, find_repository
from parallel_agents.checkpoint.snapshot import changed_paths, ignored_in_the_way, tree_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import NotAllowed, nearest
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.scheduler.decide_settling import settling_command

_SHOWN = 5  # Paths that an error names.


class MergeRefused(NotAllowed):
    """The user's branch or files are not such that the result of a run can be brought to them; nothing was changed."""

    code = "merge_refused"


@dataclass(frozen=True, slots=True)
class Homecoming:
    """What a merge would do. Nothing is changed yet but objects."""

    run_id: str
    repository: Repository  # Its top is the working tree that stands on the branch, where one does.
    branch: str
    tip: str  # Of the branch, before.
    result: str  # The integration line of the run.
    tree: str  # That the branch will have.
    how: str  # forward, merge, squash; already where there is nothing to bring; in_place where there is no branch to.
    checked_out: bool
    commits: int
    paths: tuple[str, ...]  # That will change.


def look_ahead(
    log: Log, project: Project, run_id: str, into: str | None = None, *, squash: bool = False
) -> Homecoming | None:
    """What a merge would do; None where the files of the run are in its directory already.

    Args:
        into: a branch; None is the one that the user stands on.
        squash: make one commit of all.
    Raises:
        MergeRefused: it cannot be done as things are; the hint says what can be.
        GitFailed: the repository cannot be used.
    """
    state = Projector(log).state(run_id)
    if state.plan.workspace != "worktree" or state.integration is None:
        return None
    _refuse_unfinished(state)
    repository = _users_tree(state, project)
    branch = _branch(repository, into)
    tip = users_branch.branch_tip(repository, branch)
    if tip is None:
        _refuse_no_branch(repository, branch, state.integration)
    assert tip is not None
    place = users_branch.checked_out_at(repository, branch)
    if place is not None:
        repository = replace(repository, top=place)
    planned = _planned(repository, run_id, branch, tip, state.integration, squash=squash, checked_out=place is not None)
    if planned.how != "already" and planned.checked_out:
        _refuse_unfit_tree(planned)
    return planned


def merge(log: Log, project: Project, run_id: str, into: str | None = None, squash: bool = False) -> dict[str, Any]:
    """Bring the result of a completed run to a branch of the user's.

    A fast-forward where the branch has not moved, else a merge by the user's own name; a branch that is checked out takes
    its index and its files with it.

    Args:
        into: a branch; None is the one that the user stands on.
        squash: make one commit of all.
    Returns:
        ``{"run_id", "merged", "how", "into", "commit", "before", "commits", "paths"}``: ``how`` is forward, merge, squash,
        already (there was nothing to bring) or in_place (the files are in the run's directory as they are).
    Raises:
        MergeRefused, GitFailed: see ``look_ahead``.
    """
    planned = look_ahead(log, project, run_id, into, squash=squash)
    return carry_out(log, run_id, planned)


def carry_out(log: Log, run_id: str, planned: Homecoming | None) -> dict[str, Any]:
    """Do what was looked at: the files and the branch first, then the log."""
    if planned is None:
        return {"run_id": run_id, "merged": False, "how": "in_place", "into": None, "commit": None, "before": None,
                "commits": 0, "paths": []}  # fmt: skip
    commit = planned.tip
    if planned.how != "already":
        commit = _commit(log, planned)
        reach("home.made")
        _move(planned, commit)
        reach("home.moved")
    state = Projector(log).state(run_id)
    if planned.how != "already" or state.merged_into != planned.branch:
        _record(log, run_id, ev.RunMerged(into=planned.branch, commit=commit, squash=planned.how == "squash"))
        reach("home.recorded")
    return {
        "run_id": run_id,
        "merged": planned.how != "already",
        "how": planned.how,
        "into": planned.branch,
        "commit": commit,
        "before": planned.tip,
        "commits": planned.commits,
        "paths": list(planned.paths),
    }


def _refuse_unfinished(state: RunState) -> None:
    blocked = [task for task in state.tasks.values() if task.status == st.BLOCKED]
    if blocked:
        names = ", ".join(task.task.task_id for task in blocked[:_SHOWN])
        raise MergeRefused(
            f"work of run {state.run_id} waits for a person: {names}",
            hint=f"`{settling_command(state.run_id, blocked[0])}`",
        )
    if state.status == st.COMPLETED:
        return
    if state.ended:
        how = "has failed" if state.status == st.FAILED else "was cancelled"
        raise MergeRefused(
            f"run {state.run_id} {how}, so not everything is in its result",
            hint=f"`parallel-agents retry {state.run_id}` opens what is missing; `git merge {OURS}/{state.run_id}` "
            "takes what there is",
        )
    goes_on = "wait" if state.status == st.RUNNING else "resume"
    raise MergeRefused(
        f"run {state.run_id} has not been completed: it is {state.status}",
        hint=f"`parallel-agents {goes_on} {state.run_id}`, then merge",
    )


def _users_tree(state: RunState, project: Project) -> Repository:
    """The working tree that the user is in, if it is one of the run's repository; else that of the submission."""
    assert state.repository is not None
    own = open_repository(state.repository, Path(state.workdir))
    here = find_repository(project.workdir)
    return here if here is not None and here.git_dir == own.git_dir else own


def _branch(repository: Repository, into: str | None) -> str:
    branch = into.removeprefix("refs/heads/") if into is not None else current_branch(repository)
    if branch is None:
        raise MergeRefused(
            f"{repository.top} stands on no branch (HEAD is detached)", hint="git switch BRANCH, or say --into BRANCH"
        )
    if branch.startswith(f"{OURS}/"):
        raise MergeRefused(f"{branch} is the branch of a run, which follows its log", hint="name a branch of your own")
    return branch


def _refuse_no_branch(repository: Repository, branch: str, commit: str) -> None:
    known = [name for name in users_branch.branches(repository) if not name.startswith(f"{OURS}/")]
    if current_branch(repository) == branch:
        raise MergeRefused(
            f"the branch {branch} has no commit yet", hint=f"git reset --hard {commit[:12]} makes it the result"
        )
    near = nearest(branch, known)
    raise MergeRefused(
        f"there is no branch {branch!r}",
        hint=f"{near + '; ' if near else ''}`git branch {branch} {commit[:12]}` makes it",
    )


def _planned(
    repository: Repository, run_id: str, branch: str, tip: str, result: str, *, squash: bool, checked_out: bool
) -> Homecoming:
    plan = Homecoming(run_id, repository, branch, tip, result, "", "already", checked_out, 0, ())
    if users_branch.is_ancestor(repository, result, tip):
        return plan
    made = merging.merge(repository, tip, result, message="look ahead", at_us=wall_clock_us())
    if made.conflicts:
        shown = [f"{one.path} ({one.kind})" for one in made.conflicts]
        raise MergeRefused(
            f"{branch} has moved since the run began, and does not merge with its result: {_named(shown)}",
            hint=f"`git merge {OURS}/{run_id}` on {branch} lets you resolve it; after that the run counts as merged",
        )
    changes = changed_paths(repository, tree_of(repository, tip), made.tree)
    if not changes and squash:
        return plan
    forward = made.commit == result
    how = "squash" if squash else "forward" if forward else "merge"
    commits = users_branch.count_new(repository, result, tip)
    return replace(plan, tree=made.tree, how=how, commits=commits, paths=tuple(change.path for change in changes))


def _refuse_unfit_tree(planned: Homecoming) -> None:
    """Refuse to change a working tree in which something of the user's could be lost or mixed up with the result."""
    repository, top = planned.repository, planned.repository.top
    begun = users_branch.under_way(repository)
    if begun is not None:
        raise MergeRefused(f"{begun[0]} is under way in {top}", hint=f"end it first: {begun[1]}")
    dirty = users_branch.dirty_tracked(repository)
    if dirty:
        raise MergeRefused(
            f"uncommitted changes in {top}: {_named(dirty)}", hint="commit them, or git stash, then merge again"
        )
    changes = changed_paths(repository, tree_of(repository, planned.tip), planned.tree)
    covered = ignored_in_the_way(repository, planned.tip, top, changes)
    if covered:
        raise MergeRefused(
            f"files in {top} that git does not know would be overwritten: {_named(covered)}",
            hint="move them away, or commit them, then merge again",
        )


def _commit(log: Log, planned: Homecoming) -> str:
    if planned.how == "forward":
        return planned.result
    name = Projector(log).state(planned.run_id).name
    subject = name if planned.how == "squash" else f"Merge run {planned.run_id} ({name})"
    message = f"{subject}\n\n{_tasks(log, planned.run_id)}\nParallel-Agents-Run: {planned.run_id}\n"
    parents = [planned.tip] if planned.how == "squash" else [planned.tip, planned.result]
    return users_branch.commit_as_user(planned.repository, planned.tree, message=message, parents=parents)


def _tasks(log: Log, run_id: str) -> str:
    """What was done, a line for each completed task."""
    lines = []
    for task in Projector(log).state(run_id).tasks.values():
        if task.status == st.COMPLETED:
            said = task.task.description.strip().splitlines()
            lines.append(f"- {task.task.task_id}" + (f": {said[0][:100]}" if said else "") + "\n")
    return "".join(lines)


def _move(planned: Homecoming, commit: str) -> None:
    why = f"parallel-agents merge {planned.run_id}"
    if not planned.checked_out:
        try:
            users_branch.move_branch_of_user(planned.repository, planned.branch, commit, planned.tip, why=why)
        except GitFailed as error:
            raise MergeRefused(
                f"the branch {planned.branch} did not move: {error.message}", hint="say it again"
            ) from None
        return
    try:
        users_branch.fast_forward(planned.repository, commit, why=why)
    except GitFailed as error:
        raise MergeRefused(error.message, hint="nothing was changed; mend it and merge again") from None


def _record(log: Log, run_id: str, event: ev.Event) -> None:
    def add(draft: Draft) -> None:
        draft.add(run_id, event)

    log.transact(add)


def _named(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
