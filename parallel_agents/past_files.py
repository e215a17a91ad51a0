"""The files of a run as they were at a moment: what they are, who changed each of them last, and how to have them again.

They are those of the integration line there, as after a rollback to that moment: of checkouts what was merged by then, of a
directory that attempts share what was in it when the last of them ended well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from parallel_agents.checkpoint.contents import File, changes_between, files_of, has_commit, patch
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import changed_paths
from parallel_agents.checkpoint.snapshot import restore as write_files
from parallel_agents.checkpoints import repository_of_run
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode_brief, rfc3339
from parallel_agents.project import Project
from parallel_agents.projections.effective import kept_positions
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.checkouts import open_repository

Told = Callable[[str, int, int], None]
_NAMES_FILES = "type IN ('RunSubmitted', 'RunForked', 'TaskCompleted', 'CheckpointRestored', 'RunRolledBack')"
_AT_ONCE = 1000  # Merges that one git process compares, a thousandth of a second each.


class Step(NamedTuple):
    """One commit of an integration line, and whose work it brought; of where a run began nobody's."""

    commit: str
    run_id: str
    seq: int
    task_id: str | None = None
    attempt_id: str | None = None


def files(log: Log, project: Project, run_id: str, upto: int | None, told: Told) -> dict[str, Any]:
    """The files of a moment.

    Args:
        upto: the event that is looked at; None: now.
    Returns:
        ``{"run_id", "seq", "at", "commit", "workspace", "files_count", "total_size_bytes", "files"}``; of each file ``path``,
        ``mode`` (git's), ``size`` and whose work changed it last: ``run_id``, ``task_id``, ``attempt_id`` and the ``seq`` of
        the event that says so. Those are None of what was there before any run changed it.
    Raises:
        UnknownRun: the run had not begun by then.
        NotAllowed: its files are not versioned, or are not in the repository any more.
    """
    state = Projector(log).state(run_id, upto)
    repository, commit = _where(log, project, run_id, state.integration, state.seq)
    told("files", 0, 0)
    found = files_of(repository, commit)
    who = _last_changes(repository, _steps(log, run_id, state.seq), found, told)
    row = log.row(state.seq)
    return {
        "run_id": run_id,
        "seq": state.seq,
        "at": None if row is None else rfc3339(row.at_us),
        "commit": commit,
        "workspace": state.plan.workspace,
        "files_count": len(found),
        "total_size_bytes": sum(file.size for file in found),
        "files": [_line(file, who.get(file.path)) for file in found],
    }


def lay_out(log: Log, project: Project, run_id: str, upto: int | None, folder: Path, told: Told) -> dict[str, Any]:
    """Write the files of a moment into a new folder, links and modes as they were.

    Returns:
        ``{"run_id", "seq", "commit", "folder", "files_count"}``.
    Raises:
        NotAllowed: see ``files``.
        GitFailed: the folder is not empty, or cannot be written.
    """
    state = Projector(log).state(run_id, upto)
    repository, commit = _where(log, project, run_id, state.integration, state.seq)
    place = folder.absolute()
    count = write_files(repository, commit, place, told_of=lambda done, total: told("files", done, total))
    return {"run_id": run_id, "seq": state.seq, "commit": commit, "folder": str(place), "files_count": count}


def patch_between(state: RunState, a: str | None, b: str | None) -> bytes:
    """The difference between two commits of a run, as git shows it; empty where one of them is none.

    Raises:
        GitFailed: one of them is not in the repository any more.
    """
    if a is None or b is None or a == b or state.repository is None:
        return b""
    return patch(open_repository(state.repository, Path(state.workdir)), a, b)


def _where(log: Log, project: Project, run_id: str, commit: str | None, seq: int) -> tuple[Repository, str]:
    if commit is None:
        raise NotAllowed(
            f"the files of run {run_id} are not versioned, so none can be had again",
            hint="those of a plan with `workspace: worktree` or `shared` are",
        )
    repository = repository_of_run(log, project, run_id)
    if not has_commit(repository, commit):
        raise NotAllowed(
            f"the files of run {run_id} at event {seq} are not in {repository.git_dir}: commit {commit[:12]} is gone",
            hint="was the repository replaced? `parallel-agents verify --deep` says what else is missing",
        )
    return repository, commit


def _line(file: File, step: Step | None) -> dict[str, Any]:
    known = step is not None and step.task_id is not None
    return {
        **file._asdict(),
        "run_id": step.run_id if step is not None and known else None,
        "task_id": step.task_id if step is not None and known else None,
        "attempt_id": step.attempt_id if step is not None and known else None,
        "seq": step.seq if step is not None and known else None,
    }


def _steps(log: Log, run_id: str, upto: int) -> list[Step]:
    """The integration line that leads to a moment, oldest first; that of a fork begins with its parent's."""
    moves: list[Step] = []  # Of every event that leads to a commit; of a rollback without one.
    inherited: list[Step] = []
    targets: dict[int, int] = {}
    for brief in log.briefs(run_id, 0, upto, where=_NAMES_FILES):  # Not as a list: their bodies are large.
        seq, event = brief[0], decode_brief(run_id, brief).event
        match event:
            case ev.TaskCompleted(commit=str(commit)):
                moves.append(Step(commit, run_id, seq, event.task_id, event.attempt_id))
            case ev.RunSubmitted(base_commit=str(commit)) | ev.CheckpointRestored(commit=str(commit)):
                moves.append(Step(commit, run_id, seq))
            case ev.RunForked(parent=parent, commit=str(commit)):
                moves.append(Step(commit, run_id, seq))
                inherited = _steps(log, parent, event.seq)
            case ev.RunRolledBack(to_seq=to_seq):
                targets[len(moves)] = to_seq
                moves.append(Step("", run_id, seq))
            case _:
                pass
    kept, _ = kept_positions([step.seq for step in moves], targets)
    steps = list(inherited)
    for step in (moves[position] for position in kept):
        # Files were restored to there, or a fork begins there.
        known = -1 if step.task_id is not None else _last_place(steps, step.commit)
        if known >= 0:
            del steps[known + 1 :]
        else:
            steps.append(step)
    return steps


def _last_place(steps: Sequence[Step], commit: str) -> int:
    return next((at for at in range(len(steps) - 1, -1, -1) if steps[at].commit == commit), -1)


def _last_changes(repository: Repository, steps: Sequence[Step], found: Iterable[File], told: Told) -> dict[str, Step]:
    """By path the step that changed it last; without those that no step has changed, or that git cannot tell any more.

    After very many merges a file that was changed and later made what it had been is taken for one that nobody changed.
    """
    who: dict[str, Step] = {}
    moves = [(old.commit, new) for old, new in pairwise(steps) if old.commit != new.commit]
    left = {file.path for file in found}
    with suppress(GitFailed):  # A commit between is gone; the files themselves are not.
        if len(moves) > _AT_ONCE:
            left &= {one.path for one in changed_paths(repository, steps[0].commit, steps[-1].commit)}
        for end in range(len(moves), 0, -_AT_ONCE):
            if not left:
                break
            told("merges", len(moves) - end, len(moves))
            some = moves[max(0, end - _AT_ONCE) : end]
            changes = changes_between(repository, [(old, new.commit) for old, new in some])
            for (_, step), paths in zip(reversed(some), reversed(changes), strict=True):
                who.update(dict.fromkeys(left.intersection(paths), step))
                left.difference_update(paths)
    return who
