"""A conflict resolved with an editor: a checkout of the merge with its conflicts marked, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_agents.checkpoint import merging, refs, worktrees
from parallel_agents.checkpoint.git import encoded
from parallel_agents.checkpoint.merging import Merge
from parallel_agents.checkpoint.repository import Repository, linked_git_dir
from parallel_agents.checkpoint.snapshot import changed_paths, commit_tree, snapshot, tree_of
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.events import CheckpointCreated
from parallel_agents.eventstore.location import files_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import new_id
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.settling import conflicted, leftovers, message_of, paths_named, refuse_widened, settle


@dataclass(frozen=True, slots=True)
class Editing:
    """A conflict laid out for an editor."""

    run_id: str
    task_id: str
    folder: Path  # The whole merge; files in conflict hold marks.
    files: tuple[Path, ...]  # Those in conflict, as far as they are there as files.
    paths: tuple[str, ...]  # In conflict, as git names them.
    onto: str
    work: str
    begun: bool  # Somebody has worked in it before.


def begin(log: Log, run_id: str, task_id: str) -> Editing:
    """Lay a conflict out; what was begun before of the same conflict is gone on with.

    Raises:
        UnknownTask, NotAllowed: see ``settling.resolve``.
        GitFailed: there can be no checkout.
    """
    state, task = conflicted(log, run_id, task_id)
    assert state.repository is not None
    assert state.integration is not None
    assert task.work_commit is not None
    repository = open_repository(state.repository, Path(state.workdir))
    onto, work = state.integration, task.work_commit
    merged = merging.merge(repository, onto, work, message=message_of(state, task), at_us=wall_clock_us())
    refuse_widened(log, repository, state, task, merged)
    folder = files_home(Path(log.path)) / "worktrees" / run_id / f".resolve-{task_id}"  # No task id begins like that.
    begun = _stands_on(repository, folder, onto, work)
    if not begun:
        _keep(log, run_id, task_id, repository, folder)
        tree = _with_sides_named(repository, merged, onto, work)
        marked = commit_tree(
            repository, tree, message=message_of(state, task), parents=(onto, work), at_us=wall_clock_us()
        )
        worktrees.add(repository, folder, marked)
    files = tuple(file for one in merged.conflicts for file in _files(folder, one.path, onto, work))
    paths = tuple(one.path for one in merged.conflicts)
    return Editing(run_id, task_id, folder, files, paths, onto, work, begun)


def finish(
    log: Log, editing: Editing, *, gates: bool = True, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Merge what was made of a conflict, and take its checkout away.

    Args:
        gates, say: see ``settling.resolve``.
    Raises:
        NotAllowed: nothing was changed, marks of the conflict are left, or a gate does not pass; the checkout stays to be
            gone on with.
        GitFailed: a file cannot be kept.
    """
    state, task = conflicted(log, editing.run_id, editing.task_id)
    assert state.repository is not None
    repository, folder = open_repository(state.repository, Path(state.workdir)), editing.folder
    parents = (editing.onto, editing.work)
    made = snapshot(repository, folder, message=message_of(state, task), parents=parents, at_us=wall_clock_us())
    again = f"`parallel-agents resolve {editing.run_id} {editing.task_id} --edit` goes on in {folder}"
    changed = [change.path for change in changed_paths(repository, editing.onto, made.commit)]
    left = leftovers(repository, made.tree, sorted({*changed, *editing.paths}), parents)
    left += [path for path in changed if re.search(rf"~(?:{'|'.join(parents)})(?:_\d+)?\Z", path)]
    if left:
        raise NotAllowed(f"still in conflict: {paths_named(left)}", hint=again)
    if made.tree == tree_of(repository, _head(repository, folder)) and editing.paths:
        raise NotAllowed("nothing was changed, so nothing says how it is resolved", hint=f"{again}, or take a side")
    paths = list(map(storable_text, editing.paths))
    answer = settle(
        log, editing.run_id, editing.task_id, made.commit, editing.onto, "files", paths, gates=gates, say=say
    )
    worktrees.remove(repository, folder)
    return answer


def _files(folder: Path, path: str, onto: str, work: str) -> list[Path]:
    """A path in conflict as it lies in a checkout: under its name, or under one beside it where a file is in its way."""
    beside = [folder / f"{path}~{side}" for side in (onto, work)]
    return [file for file in (folder / path, *beside) if file.is_file() and not file.is_symlink()]


def _with_sides_named(repository: Repository, merged: Merge, onto: str, work: str) -> str:
    """The tree of a merge whose marks say whose side is whose, instead of two commits."""
    named: dict[str, bytes | None] = {}
    for one in merged.conflicts:
        said = repository.git().run("cat-file", "blob", f"{merged.tree}:{one.path}", ok=(0, 128))
        text = re.sub(rb"(?m)^(<{7}) %s" % encoded(onto), rb"\1 ours, merged before", said.out)
        text = re.sub(rb"(?m)^(>{7}) %s" % encoded(work), rb"\1 theirs, the work of the task", text)
        if said.code == 0 and text != said.out:
            named[one.path] = text
    if not named:
        return merged.tree
    return merging.merge(repository, onto, work, message="marked", at_us=wall_clock_us(), files=named).tree


def _stands_on(repository: Repository, folder: Path, onto: str, work: str) -> bool:
    """Whether a checkout holds this very conflict, from an editor that was left."""
    if not folder.is_dir() or linked_git_dir(folder) is None:
        return False
    said = repository.git(folder).text("rev-list", "--parents", "--max-count=1", "HEAD")
    return said.split()[1:] == [onto, work]


def _head(repository: Repository, folder: Path) -> str:
    return repository.git(folder).text("rev-parse", "--verify", "HEAD")


def _keep(log: Log, run_id: str, task_id: str, repository: Repository, folder: Path) -> None:
    """Hold what somebody has made of an earlier conflict, before its checkout makes way."""
    if not folder.is_dir() or linked_git_dir(folder) is None:
        return
    head = _head(repository, folder)
    label = f"a resolution of {task_id} that was left"
    made = snapshot(repository, folder, message=label, parents=(head,), at_us=wall_clock_us())
    if made.tree == tree_of(repository, head):
        return
    event = CheckpointCreated(checkpoint_id=new_id(), kind="manual", label=label, commit=made.commit)
    refs.hold(repository, {refs.checkpoint_ref(run_id, event.checkpoint_id): made.commit})

    def add(draft: Draft) -> None:
        draft.add(run_id, event)

    log.transact(add)
