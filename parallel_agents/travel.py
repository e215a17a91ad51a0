"""Going back in a run, and branching off: what would change, then all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_agents import moments
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.snapshot import ChangedMeanwhile
from parallel_agents.checkpoint_restoring import Return, restore, returning
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import NotAllowed, UnknownEvent
from parallel_agents.eventstore.log import Draft, Log, digest_of
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import Plan
from parallel_agents.follow import is_dispatched
from parallel_agents.foreground import settle_undone, undone_attempts
from parallel_agents.overrides import overridden
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.scheduler.decide_past import (
    changes,
    check_changes_something,
    decide_fork,
    decide_rollback,
    is_over,
)
from parallel_agents.scheduler.environment import recorded_environment

STOP_S = 15.0  # How long attempts that were undone are waited for; whoever dispatches next goes on with it.
PATHS = 200  # Of changed files that an outlook names.


@dataclass(frozen=True, slots=True)
class Target:
    """A moment of a run: its last event at or before what was named, and the state there, which nothing changes any more."""

    state: RunState
    reading: str  # How the words were understood.
    checkpoint_id: str | None = None

    @property
    def seq(self) -> int:
        """The event's number."""
        return self.state.seq


def target_of(log: Log, run_id: str, text: str) -> Target:
    """The moment that a text means: an event's number, a checkpoint, a time, or words such as "before bug fix".

    Raises:
        UnknownRun: there is no such run, or it had not begun by then.
        UnknownEvent: the number lies past the end of the log, or of the run.
        UnknownCheckpoint: nothing fits the words.
        Ambiguous: several checkpoints fit them equally well.
    """
    projector = Projector(log)
    meant = moments.in_run(log, lambda: run_id, text, by_hand=False)
    there = projector.state(run_id, meant.seq)
    past_its_end = there.seq < meant.seq and next(log.briefs(run_id, there.version), None) is None
    if past_its_end and text.strip().isdecimal():
        raise UnknownEvent(f"event {meant.seq} is of another run", hint=f"the last one of run {run_id} is {there.seq}")
    return Target(there, meant.reading, meant.checkpoint_id)


def preview(log: Log, run_id: str, target: Target) -> dict[str, Any]:
    """What a rollback would change, and what it cannot take back.

    Raises:
        NotAllowed: it would change nothing, or cannot be done now.
    """
    projector = Projector(log)
    now, there = projector.state(run_id), target.state
    decide_rollback(now, there, target.seq)
    if _directory(now, there) is None:
        check_changes_something(now, there)
    spent = projector.cost(run_id).usd_micros - projector.cost(run_id, target.seq).usd_micros
    files = changed_files(now, now.integration, there.integration)
    return {
        "run_id": run_id,
        "to_seq": target.seq,
        "checkpoint_id": target.checkpoint_id,
        "understood": target.reading,
        "workspace": now.plan.workspace,
        "status": {"now": now.status, "then": there.status if there.ended else st.PAUSED},
        "tasks": [{"task_id": one.task_id, "now": one.now, "then": one.then} for one in changes(now, there)],
        "files": files[:PATHS],
        "files_changed": len(files),
        "commit": {"now": now.integration, "then": there.integration},
        "stops": sorted(now.running.values()),
        "cannot_undo": {"cost_usd": spent / 1e6, "merged_into": now.merged_into},
    }


def changed_files(state: RunState, a: str | None, b: str | None) -> list[dict[str, str]]:
    """The paths that differ between two commits of a run, with git's letter for how (A, M, D, T)."""
    if a is None or b is None or a == b or state.repository is None:
        return []
    from parallel_agents.checkpoint.snapshot import changed_paths

    repository = open_repository(state.repository, Path(state.workdir))
    return [{"path": one.path, "change": one.status} for one in changed_paths(repository, a, b)]


def rollback(log: Log, project: Project, run_id: str, target: Target, reason: str = "") -> dict[str, Any]:
    """Take a run back: queue, files and all. One commit to the log is the moment that it has happened.

    Attempts that were undone are stopped afterwards, what they had done kept; a shared directory is made what it was.

    Returns:
        ``{"run_id", "seq", "to_seq", "stopped", "left", "restored", "warnings"}``; ``left`` still run after 15 seconds.
    Raises:
        NotAllowed: see ``preview``; or files in the shared directory stand in the way. Nothing was changed.
    """
    projector, end = Projector(log), log.last_seq()
    now, there = projector.state(run_id, end), target.state
    decide_rollback(now, there, target.seq)
    commit = _directory(now, there)
    wanted = None if commit is None else _as_checkpoint(run_id, commit)
    if wanted is None:
        check_changes_something(now, there)

    def decide(draft: Draft) -> None:
        latest = now if draft.seq == end else projector.state(run_id)
        for event in decide_rollback(latest, there, target.seq, reason):
            draft.add(run_id, event)
        if wanted is not None:
            draft.add(run_id, ev.FilesRestoring(commit=wanted["commit"], checkpoint_id=target.checkpoint_id or ""))
        reach("rollback.drafted")

    restored = False
    with nullcontext() if wanted is None else returning(log, project, wanted) as way:
        if way is not None:
            if not way.outlook.changes:  # Else the files at least are made what they were.
                check_changes_something(now, there)
            _check(way, run_id)
        made = log.transact(decide)
        reach("rollback.appended")
        if way is not None and not way.outlook.in_use and not undone_attempts(log, run_id):
            restored = _go(log, run_id, way)
    left = [] if restored else settle_undone(log, run_id, timeout_s=STOP_S)
    if wanted is not None and not restored and not left:
        restored = finish_restoring(log, project, run_id)
    warning = _follow(log, there if log.last_seq() == made[-1].seq else projector.state(run_id))
    return {
        "run_id": run_id, "seq": made[0].seq, "to_seq": target.seq, "stopped": sorted(now.running.values()), "left": left,
        "restored": restored, "warnings": [warning] if warning else [],
    }  # fmt: skip


def _directory(now: RunState, there: RunState) -> str | None:
    """The commit that a rollback makes the user's own directory equal to; None where the run does not work in it."""
    return there.integration if now.plan.workspace == "shared" else None


def _check(way: Return, run_id: str) -> None:
    """Refuse what cannot be taken back. Attempts of the run itself are stopped by its rollback."""
    others = [name for name in way.outlook.in_use if not name.startswith(f"{run_id}/")]
    if others:
        raise NotAllowed(
            f"attempts of another run work in the same directory: {', '.join(others[:5])}",
            hint="wait for them, or `parallel-agents cancel RUN`",
        )
    if way.outlook.in_the_way:
        raise NotAllowed(
            f"ignored files would be overwritten: {', '.join(way.outlook.in_the_way[:5])}",
            hint="move them away, then say it again",
        )


def _go(log: Log, run_id: str, way: Return) -> bool:
    """Go a way back that was looked at before. False where somebody wrote there meanwhile."""
    try:
        way.go()
    except ChangedMeanwhile:
        return False
    reach("rollback.replaced")
    _append_restored(log, run_id)
    return True


def _as_checkpoint(run_id: str, commit: str) -> dict[str, Any]:
    """The files of an integration line, as those of a checkpoint are named."""
    return {
        "checkpoint_id": commit[:10],
        "commit": commit,
        "run_id": run_id,
        "folder": None,
        "label": "",
        "kind": "rollback",
    }


def finish_restoring(log: Log, project: Project, run_id: str) -> bool:
    """Make a shared directory what the log says that it is being made. Said again after a crash, it ends the same.

    Returns:
        Whether there was anything to do.
    """
    state = Projector(log).state(run_id)
    if state.restoring is None:
        return False
    wanted = _as_checkpoint(run_id, state.restoring)
    restore(log, project, wanted, in_place=True)
    _append_restored(log, run_id)
    return True


def _append_restored(log: Log, run_id: str) -> None:
    def add(draft: Draft) -> None:
        state = Projector(log).state(run_id)
        if state.restoring is not None:
            name = _as_checkpoint(run_id, state.restoring)["checkpoint_id"]
            draft.add(run_id, ev.CheckpointRestored(checkpoint_id=name, reason="rollback", into=state.workdir))

    log.transact(add)


def follow_branch(log: Log, run_id: str) -> str | None:
    """Move the branch of a run to where the log says, where no living process does so.

    Returns:
        Why it stays where it is, if it does; whoever dispatches the run tries again.
    """
    return _follow(log, Projector(log).state(run_id))


def _follow(log: Log, state: RunState) -> str | None:
    run_id = state.run_id
    if state.plan.workspace != "worktree" or state.integration is None or is_dispatched(log, run_id):
        return None
    assert state.repository is not None
    from parallel_agents.checkpoint import refs
    from parallel_agents.scheduler.run_files import known_commits

    try:
        repository = open_repository(state.repository, Path(state.workdir))
        stands = refs.branch_commit(repository, run_id)
        if stands is not None and stands not in known_commits(log, run_id):
            return f"somebody put {stands[:12]} on the branch parallel-agents/{run_id}, which is kept"
        refs.move_branch(repository, run_id, state.integration, stands)
    except GitFailed as error:
        return error.message
    return None


def fork(log: Log, run_id: str, seq: int, settings: Mapping[str, str], *, into: Log | None = None) -> dict[str, Any]:
    """A new run that goes on from the state of another one at an event; completed work is kept, the old run untouched.

    Args:
        settings: overrides as texts, such as ``{"max_parallel_agents": "8", "build.timeout_s": "60"}``.
        into: the store that the new run is of, where the old one was imported.
    Returns:
        ``{"run_id", "parent", "seq", "status"}``.
    Raises:
        UnknownEvent: the run had no event by then, or the log has none of that number.
        InvalidUsage: an override names nothing, or has a value that cannot be.
    """
    there, plan, overrides = _to_fork(log, run_id, seq, settings)
    content, snapshot = plan.to_bytes(), st.dump(there)
    plan_digest, state_digest = digest_of(content), digest_of(snapshot)
    child = new_id()
    events = decide_fork(there, seq, plan, plan_digest, state_digest, overrides)
    if log.carried is not None:  # No run of this store says where its files are.
        events.append(ev.RunMoved(workdir=there.workdir, repository=there.repository))
    checkpoint_id = _hold_for_fork(there, child)
    if checkpoint_id is not None:
        label = f"fork of {run_id} at event {seq}"
        events.append(
            ev.CheckpointCreated(checkpoint_id=checkpoint_id, kind="before_run", label=label, commit=there.integration)
        )
    reach("fork.held")
    home = log if into is None else into
    blobs = {plan_digest: content, state_digest: snapshot}
    if into is not None:  # The state names the plan that it is of.
        blobs[there.plan_digest] = log.blob(there.plan_digest)
    home.append(child, 0, events, blobs=blobs)
    reach("fork.appended")
    follow_branch(home, child)
    return {"run_id": child, "parent": run_id, "seq": there.seq, "status": Projector(home).state(child).status}


def _to_fork(log: Log, run_id: str, seq: int, settings: Mapping[str, str]) -> tuple[RunState, Plan, dict[str, Any]]:
    """What a fork begins with: the state there, the plan with the overrides in it, and these as they were understood."""
    projector = Projector(log)
    if seq > log.last_seq():
        raise UnknownEvent(f"there is no event {seq}", hint=f"the log holds events 1 to {log.last_seq()}")
    there, now = projector.state(run_id, seq), projector.state(run_id)
    there.workdir, there.repository = now.workdir, now.repository  # It may have been moved since.
    if log.carried is not None:
        _make_at_home(there, redacted=log.carried.redacted)
    if there.callables:
        raise NotAllowed(f"run {run_id} calls functions of a Python program, which no fork of it has")
    plan, overrides = overridden(there, settings)
    if plan.workspace == "shared" and there.integration is not None:
        plan = plan.model_copy(update={"workspace": "worktree"})  # The directory is the parent's, and stays as it is.
    return there, plan, overrides


def fork_preview(log: Log, run_id: str, seq: int, settings: Mapping[str, str]) -> dict[str, Any]:
    """What a fork would begin with.

    Returns:
        ``{"run_id", "seq", "status", "counts", "again", "overrides", "workspace", "commit"}``: ``again`` names the tasks that run
        there and are started anew.
    Raises:
        UnknownEvent, InvalidUsage, NotAllowed: see ``fork``.
    """
    there, plan, overrides = _to_fork(log, run_id, seq, settings)
    return {
        "run_id": run_id,
        "seq": there.seq,
        "status": there.status if is_over(there) else st.PAUSED,
        "counts": {name: there.counts[name] for name in st.TASK_STATUSES if there.counts[name]},
        "again": sorted(there.running.values()),
        "overrides": overrides,
        "workspace": plan.workspace,
        "commit": there.integration,
    }


def _make_at_home(there: RunState, *, redacted: bool) -> None:
    """Let a state of another machine be one of this.

    Raises:
        NotAllowed: what its tasks were to do did not come along.
    """
    if redacted:
        raise NotAllowed(
            f"run {there.run_id} was exported without commands, prompts and files, so nothing can go on from it",
            hint="ask for an export without --redact",
        )
    there.environment = recorded_environment(os.environ)


def _hold_for_fork(there: RunState, child: str) -> str | None:
    """Refs of the fork's own on the commits that it goes on from."""
    if there.integration is None or there.repository is None:
        return None
    from parallel_agents.checkpoint import refs
    from parallel_agents.checkpoint.contents import has_commit

    repository = open_repository(there.repository, Path(there.workdir))
    if not has_commit(repository, there.integration):
        raise NotAllowed(
            f"run {there.run_id} cannot go on from event {there.seq}: commit {there.integration[:12]}, which holds its files "
            f"there, is not in {repository.git_dir}",
            hint="was the repository replaced? `parallel-agents verify --deep` says what else is missing",
        )
    checkpoint_id = new_id()
    held = {refs.checkpoint_ref(child, checkpoint_id): there.integration}
    for task in there.tasks.values():
        if task.work_commit is not None and task.attempt_id is not None:
            held[refs.checkpoint_ref(child, task.attempt_id)] = task.work_commit
    refs.hold(repository, held)
    return checkpoint_id
