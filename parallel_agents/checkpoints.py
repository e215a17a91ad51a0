"""Checkpoints as plain data: which there are, which one is meant, what is in it; and the making of new ones.

A checkpoint is an event and a commit that a ref holds. One made by hand is of the project's files as they lie there, and
its event belongs to no run (``store``); one of a run is of the run's files, and its number names the queue as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parallel_agents.checkpoint.contents import File, files_of, first_parent, has_commit, is_left_out, patch
from parallel_agents.checkpoint.refs import checkpoint_ref, hold
from parallel_agents.checkpoint.repository import (
    Repository,
    current_branch,
    find_repository,
    head_commit,
    shadow_repository,
)
from parallel_agents.checkpoint.snapshot import Change, changed_paths, commit_tree, snapshot
from parallel_agents.checkpoint_metadata import level_of
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import NotAllowed, StaleRun, UnknownCheckpoint, nearest
from parallel_agents.eventstore.events import STORE_RUN, CheckpointCreated, RunForked, RunSubmitted
from parallel_agents.eventstore.known_plans import known_plan
from parallel_agents.eventstore.location import FOLDER, files_home, make_home
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import Recorded, decode, decode_brief, new_id, rfc3339
from parallel_agents.project import Project
from parallel_agents.projections import checkpoints as line_fold
from parallel_agents.projections.checkpoints import Checkpoint, Line
from parallel_agents.projections.passing import Passing as Passing
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.projections.status import RunState
from parallel_agents.rewind_phrases import Understood, find_by_name, understand
from parallel_agents.run_standing import places_of

MANUAL, BEFORE_RESTORE = "manual", "before_restore"
_TRIES = 3  # Before everybody else is locked out.


def list_of(log: Log, run_id: str | None, upto: int | None = None) -> list[dict[str, Any]]:
    """The checkpoints of a run, oldest first, undone ones too.

    Args:
        run_id: ``store`` for those made by hand, None for those of all runs too.
        upto: the moment of the past to look at.
    Raises:
        UnknownRun: there is no such run.
    """
    return list(passing(log, run_id, upto))


def passing(log: Log, run_id: str | None, upto: int | None = None) -> Passing[dict[str, Any]]:
    """The same, each made as it is gone to.

    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq() if upto is None else upto
    if run_id is not None and run_id != STORE_RUN and not log.has_begun(run_id, end):
        raise unknown_run(log, run_id, upto)
    agents: dict[str, Callable[[str], str | None]] = {}
    if run_id is not None and run_id != STORE_RUN:
        agents[run_id] = _agent_types(log, run_id)  # First, as it takes most memory for a moment.
    lines: dict[str, Line] = {}
    for record in _records(log, run_id, end, line_fold.TYPES):
        line_fold.fold(lines.setdefault(record.run_id, Line()), record)

    def made() -> Iterator[dict[str, Any]]:
        for record in _records(log, run_id, end, line_fold.CREATED):
            event = record.event
            if isinstance(event, CheckpointCreated):
                one = lines[record.run_id].checkpoints[event.checkpoint_id]
                if one.seq == record.seq:
                    yield _as_data(log, record, event, one, agents)

    return Passing(made)


def _records(log: Log, run_id: str | None, end: int, where: str) -> Iterator[Recorded]:
    if run_id is None:
        return map(decode, log.rows(0, end, where=where))
    return (decode_brief(run_id, brief) for brief in log.briefs(run_id, 0, end, where=where))


def _as_data(
    log: Log,
    record: Recorded,
    event: CheckpointCreated,
    one: Checkpoint,
    agents: dict[str, Callable[[str], str | None]],
) -> dict[str, Any]:
    agent_type = event.agent_type
    if agent_type is None and event.task_id is not None:
        if record.run_id not in agents:
            agents[record.run_id] = _agent_types(log, record.run_id)
        agent_type = agents[record.run_id](event.task_id)
    return {
        "checkpoint_id": event.checkpoint_id,
        "seq": record.seq,
        "kind": event.kind,
        "label": event.label,
        "commit": event.commit,
        "at": rfc3339(record.at_us),
        "run_id": record.run_id,
        "task_id": event.task_id,
        "attempt_id": event.attempt_id,
        "stage": event.stage,
        "changed": event.changed,
        "undone": one.undone_at_us is not None,
        "undone_at": None if one.undone_at_us is None else rfc3339(one.undone_at_us),
        "parent": None if one.parent is None else one.parent.checkpoint_id,
        "description": event.description,
        "agent_type": agent_type,
        "level": str(level_of(event.kind, event.level)),
        "tags": list(event.tags),
        "branch": event.branch,
        "folder": event.folder,
    }


def _agent_types(log: Log, run_id: str) -> Callable[[str], str | None]:
    """Gives that of a task of a run; None of one that the run does not have."""
    begun = _begun(log, run_id).event
    assert isinstance(begun, RunSubmitted | RunForked)
    digest = begun.plan_digest
    known_plan(digest, log.blob)

    def agent_type(task_id: str) -> str | None:
        known = known_plan(digest, log.blob)  # Those of very many runs are not all held.
        place = known.positions.get(task_id)
        return None if place is None else known.plan.tasks[place].agent_type

    return agent_type


def _begun(log: Log, run_id: str) -> Recorded:
    """The first event of a run."""
    return decode_brief(run_id, next(iter(log.briefs(run_id))))


def find(log: Log, run_id: str | None, text: str, upto: int | None = None) -> dict[str, Any]:
    """The checkpoint that a text names: its id, its label, the beginning of its id, or its event's number.

    Args:
        run_id: look among those of this run only; None: of all.
    Raises:
        UnknownCheckpoint: there is none of that name.
        Ambiguous: the text fits several.
    """
    known = passing(log, run_id, upto)
    found = find_by_name(text, known)
    if found is not None:
        return dict(found.checkpoint)
    if text.isdecimal():
        for one in known:
            if str(one["seq"]) == text:
                return one
    of_run = f" of run {run_id}" if run_id not in (None, STORE_RUN) else ""
    if next(iter(known), None) is None:
        raise UnknownCheckpoint(
            f"there is no checkpoint{of_run} yet", hint="`parallel-agents checkpoint create` makes one"
        )
    names = {one["checkpoint_id"] for one in known} | {one["label"] for one in known if one["label"]}
    raise UnknownCheckpoint(f"there is no checkpoint {text!r}{of_run}", hint=nearest(text, names))


def meant(log: Log, run_id: str | None, text: str, upto: int | None = None) -> Understood:
    """The checkpoint that a text names or describes (see ``rewind_phrases``), and how it was understood.

    Raises:
        UnknownCheckpoint: none fits.
        Ambiguous: several fit equally well.
    """
    if text.isdecimal():
        found = find(log, run_id, text, upto)
        return Understood(found, f"the checkpoint of event {text}")
    row = None if upto is None else log.row(upto)
    now = datetime.now(UTC) if row is None else datetime.fromisoformat(rfc3339(row.at_us))
    known = passing(log, run_id, upto)
    return find_by_name(text, known) or understand(text, known, now)


def repository_of(project: Project) -> Repository:
    """The repository that holds the project's checkpoints: the user's own, else the shadow repository beside the store.

    Raises:
        GitFailed: the user's is bare or broken.
    """
    return find_repository(project.root) or _shadow(project)


def _shadow(project: Project) -> Repository:
    home = files_home(project.store)
    make_home(home / "store")
    return shadow_repository(project.root, home)


def repository_of_checkpoint(log: Log, project: Project, checkpoint: dict[str, Any]) -> Repository:
    """The repository that holds a checkpoint, with its commit in it.

    Raises:
        NotAllowed: the checkpoint has no files, or its commit is not there any more.
        GitFailed: the repository cannot be used.
    """
    name, commit = checkpoint["checkpoint_id"], checkpoint["commit"]
    if commit is None:
        raise NotAllowed(f"checkpoint {name} holds no files: those of its run are not versioned")
    run_id = checkpoint["run_id"]
    repository = repository_of(project) if run_id == STORE_RUN else repository_of_run(log, project, run_id)
    if not has_commit(repository, commit):
        raise NotAllowed(
            f"the files of checkpoint {name} are not in {repository.git_dir}",
            hint=f"it is of {checkpoint['folder']}: go there"
            if checkpoint["folder"]
            else "was the repository replaced?",
        )
    return repository


def repository_of_run(log: Log, project: Project, run_id: str) -> Repository:
    """The repository that holds the files of a run, wherever they lie now.

    Raises:
        NotAllowed: they are not versioned.
        GitFailed: the repository cannot be used.
    """
    place = places_of(log)[run_id]
    if place.repository is None:
        raise NotAllowed(f"the files of run {run_id} are not versioned")
    return _opened(Path(place.repository), Path(place.workdir), project)


def _opened(named: Path, workdir: Path, project: Project) -> Repository:
    if named == files_home(project.store) / "shadow.git":
        return _shadow(project)
    if named.name == "shadow.git":
        return Repository(workdir, named, shadow=True)
    return find_repository(named) or repository_of(project)


def create(
    log: Log,
    project: Project,
    run_id: str | None,
    label: str,
    *,
    description: str = "",
    agent_type: str | None = None,
    level: str = "",
    tags: Sequence[str] = (),
    kind: str = MANUAL,
) -> dict[str, Any]:
    """Make a checkpoint.

    Args:
        run_id: None: of the project's files as they lie there; else of the run's files, as its last merge left them.
    Raises:
        NotAllowed: the run's files are not versioned, or the store itself lies among the files.
        GitFailed: something cannot be kept exactly.
    """
    event = CheckpointCreated(
        checkpoint_id=new_id(), kind=kind, label=label, description=description, agent_type=agent_type, level=level,
        tags=list(tags),
    )  # fmt: skip
    if run_id is not None and run_id != STORE_RUN:
        made = _create_of_run(log, project, run_id, event)
    else:
        made = create_of_files(log, project, repository_of(project), event)
    return next(one for one in passing(log, made.run_id) if one["seq"] == made.seq)


def create_of_files(
    log: Log, project: Project, repository: Repository, event: CheckpointCreated, tree: str | None = None
) -> Recorded:
    """Make a checkpoint of the user's working tree as it is.

    Args:
        tree: what lies there, where somebody has looked already.
    Returns:
        Its event.
    """
    _refuse_store_among_files(project, repository)
    head, at_us = head_commit(repository), wall_clock_us()
    message, parents = f"checkpoint {event.checkpoint_id}: {event.label or event.kind}", [head] if head else []
    if tree is None:
        commit = snapshot(repository, repository.top, message=message, parents=parents, at_us=at_us).commit
    else:
        commit = commit_tree(repository, tree, message=message, parents=parents, at_us=at_us)
    hold(repository, {checkpoint_ref(STORE_RUN, event.checkpoint_id): commit})
    reach("checkpoint.held")
    own = project.store.parent == project.root / FOLDER
    whole = event.model_copy(
        update={
            "commit": commit,
            "branch": None if repository.shadow else current_branch(repository),
            "folder": "" if own else str(repository.top),
        }
    )

    def add(draft: Draft) -> None:
        draft.add(STORE_RUN, whole)

    return log.transact(add)[0]


def _refuse_store_among_files(project: Project, repository: Repository) -> None:
    """A log that a snapshot holds would be taken back with the files: the one thing that never goes back."""
    if not is_left_out(repository, project.store):
        raise NotAllowed(
            f"the store {project.store} lies among the files that a checkpoint would hold",
            hint=f"move it into {FOLDER}/, or add it and what lies beside it to .gitignore",
        )


def _create_of_run(log: Log, project: Project, run_id: str, event: CheckpointCreated) -> Recorded:
    for _ in range(_TRIES):
        state = Projector(log).state(run_id)
        whole = event.model_copy(update={"commit": _commit_of_run(project, state, event)})
        try:
            return log.append(run_id, state.version, [whole])[0]
        except StaleRun:
            continue  # The run went on, and its files with it.

    def add(draft: Draft) -> None:
        state = Projector(log).state(run_id)
        draft.add(run_id, event.model_copy(update={"commit": _commit_of_run(project, state, event)}))

    return log.transact(add)[0]


def _commit_of_run(project: Project, state: RunState, event: CheckpointCreated) -> str:
    """The commit of a run's files as they are now, held by the ref of a checkpoint."""
    if state.repository is None or state.integration is None or state.plan.workspace == "none":
        raise NotAllowed(
            f"the files of run {state.run_id} are not versioned",
            hint="leave the run out for a checkpoint of the project's files",
        )
    repository = _opened(Path(state.repository), Path(state.workdir), project)
    commit = state.integration
    if state.plan.workspace == "shared":
        _refuse_store_among_files(project, repository)
        message = f"checkpoint {event.checkpoint_id}: {event.label or event.kind}"
        commit = snapshot(
            repository, repository.top, message=message, parents=[commit], at_us=wall_clock_us()
        ).commit  # fmt: skip
    hold(repository, {checkpoint_ref(state.run_id, event.checkpoint_id): commit})
    return commit


def show(log: Log, project: Project, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with its files and what changed since the one before it.

    Raises:
        NotAllowed: it has no files, or they are gone.
    """
    repository = repository_of_checkpoint(log, project, checkpoint)
    files = files_of(repository, checkpoint["commit"])
    changes = changes_of(log, repository, checkpoint, files)
    return {
        **checkpoint,
        "files_count": len(files),
        "total_size_bytes": sum(file.size for file in files),
        "changed_files": [change._asdict() for change in changes],
        "files": [file._asdict() for file in files],
    }


def changes_of(log: Log, repository: Repository, checkpoint: dict[str, Any], files: Sequence[File]) -> list[Change]:
    """What a checkpoint changed of the one before it; without one, of the commit that the user stood on."""
    commit = checkpoint["commit"]
    earlier = (one for one in passing(log, checkpoint["run_id"]) if one["checkpoint_id"] == checkpoint["parent"])
    before = next((one["commit"] for one in earlier), None)
    if before is not None and has_commit(repository, before):
        return changed_paths(repository, before, commit)
    if checkpoint["run_id"] != STORE_RUN:
        return []
    parent = first_parent(repository, commit)
    return changed_paths(repository, parent, commit) if parent else [Change(file.path, "A") for file in files]


def diff(log: Log, project: Project, checkpoint: dict[str, Any], other: dict[str, Any] | None = None) -> bytes:
    """The unified difference from a checkpoint to another one, or to the files as they lie there.

    Raises:
        NotAllowed: one of them has no files, or they are of different repositories.
    """
    repository = repository_of_checkpoint(log, project, checkpoint)
    if other is not None:
        repository_of_checkpoint(log, project, other)
        if not has_commit(repository, other["commit"]):
            raise NotAllowed(f"checkpoint {other['checkpoint_id']} is of another repository than the first")
        return patch(repository, checkpoint["commit"], other["commit"])
    now = snapshot(repository, repository.top, message="as it is", parents=[], at_us=wall_clock_us())
    return patch(repository, checkpoint["commit"], now.tree)
