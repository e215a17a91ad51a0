"""What a person does about blocked work: let it start, let it be merged, or say how a conflict is resolved.

Everything is done on objects and held by a ref before the log is told; the run's branch follows the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from parallel_agents import gates_here
from parallel_agents.bringing_home import merge as merge
from parallel_agents.checkpoint import merging, refs, snapshot
from parallel_agents.checkpoint.merging import Merge, Take
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.conflicts import SIDES as SIDES
from parallel_agents.conflicts import conflicts as conflicts
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed, StaleRun, nearest
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import Recorded
from parallel_agents.follow import is_dispatched
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.scheduler.checkouts import open_repository, other_task, trailers
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.scheduler.decide_settling import (
    clashes_of,
    decide_approve_result,
    decide_approve_start,
    decide_settled,
    decide_widened,
    is_conflict,
    settling_command,
    waiting,
)
from parallel_agents.scheduler.work import Clash, Gated, Work, found_out

_TRIES = 3  # Before everybody else is locked out.
_SHOWN = 5  # Paths that an error names.


def approve(
    log: Log, run_id: str, task_id: str, commit: str | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Let the next attempt of a task start, or the work of its last one be merged, if the merge passes the run's gates.

    Args:
        commit: the work that was looked at; another one is refused.
        say: told what takes time, before it does.
    Returns:
        ``{"run_id", "task_id", "approved", "status", "attempt_id", "commit", ...}``: ``approved`` is start or result, and
        ``status`` that of the task afterwards, which is blocked where its work turned out not to merge.
    Raises:
        UnknownTask, NotAllowed: it does not wait for an approval, or its work is not the one that was looked at.
        GitFailed: the merge cannot be made.
    """
    task = waiting(Projector(log).state(run_id), task_id, commit)
    seen, attempt_id = task.work_commit, task.attempt_id
    if seen is None:
        records = _decided(log, run_id, lambda state: decide_approve_start(state, task_id))
        return _answer(log, run_id, task_id, records, approved="start")

    gates = _Gates(log, say)

    def merged(state: RunState) -> list[Event]:
        now = waiting(state, task_id, seen)
        if now.attempt_id != attempt_id:  # The same files, but nobody has looked at what else it did.
            raise NotAllowed(f"task {task_id!r} was run again meanwhile", hint="look at its work and say it again")
        work = Work("", commit=seen) if is_conflict(now) else merged_work(state, now)
        if work.merged not in (None, seen):  # Else it is what the gates have seen already.
            work = replace(work, gates=gates.on(state, now, str(work.merged)))
        return decide_approve_result(state, task_id, work, wall_clock_us())

    records = _decided(log, run_id, merged, gates)
    return _answer(log, run_id, task_id, records, approved="result")


class _Gates:
    """The gates on the merge that one answer leads to: run once for each line that it is made on."""

    def __init__(self, log: Log, say: Callable[[str], None], *, wanted: bool = True) -> None:
        self.locked = False  # Everybody else waits for us, so nothing that takes time is begun.
        self._log, self._say, self._wanted = log, say, wanted
        self._seen: dict[str | None, tuple[Gated, ...]] = {}

    def on(self, state: RunState, task: TaskState, commit: str) -> tuple[Gated, ...]:
        """What came of them.

        Raises:
            NotAllowed: the line moved each time that they were run.
        """
        if not self._wanted or not gates_here.task_gates(state):
            return ()
        if state.integration not in self._seen:
            if self.locked:
                raise NotAllowed("other work was merged each time that the gates were run", hint="say it again")
            self._seen[state.integration] = gates_here.run_gates(
                self._log, _repository(state), state, task, commit, self._say
            )
        return self._seen[state.integration]


def merged_work(state: RunState, task: TaskState) -> Work:
    """The approved work of a task with the integration line as it is; a merge of it is held by a ref."""
    repository, name = _repository(state), task.task.task_id
    assert task.work_commit is not None
    assert state.integration is not None
    ref = refs.checkpoint_ref(state.run_id, task.attempt_id or name)
    if state.plan.workspace == "shared":  # Its files are where they belong; what lies there now is what is recorded.
        made = snapshot.snapshot(
            repository, repository.top, message=message_of(state, task), parents=(state.integration,),
            at_us=wall_clock_us(),
        )  # fmt: skip
        refs.hold(repository, {ref: made.commit})
        return Work("", commit=task.work_commit, onto=state.integration, merged=made.commit)
    first = merged_with_line(repository, state, task)
    clashes = tuple(Clash(storable_text(one.path), one.kind) for one in first.conflicts)
    how, last = state.plan.files.conflicts, first
    if clashes and how in ("ours", "theirs"):
        last = merged_with_line(repository, state, task, take=cast("Take", how))
    if last.commit is not None:
        refs.hold(repository, {ref: last.commit})
    return Work(
        "", commit=task.work_commit, onto=state.integration, merged=last.commit, clashes=clashes,
        other_task_id=_other(repository, state, task, clashes),
    )  # fmt: skip


def resolve(
    log: Log,
    run_id: str,
    task_id: str,
    take: str = "",
    files: Mapping[str, Path | bytes | None] | None = None,
    *,
    gates: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Settle the conflict that a task's work waits for, and merge it, if the merge passes the run's gates.

    Args:
        take: ``ours`` (what was merged before), ``theirs`` (the task's work) or ``both`` (the lines of both), for every
            path in conflict that ``files`` does not name.
        files: what single paths are to hold; None removes the path.
        gates: whether to run them. Where it is a gate that did not pass, to take a side means to merge it all the same.
        say: told what takes time, before it does.
    Returns:
        As ``approve``, with ``how`` and the ``paths`` that were in conflict.
    Raises:
        UnknownTask, NotAllowed: the task waits for no such thing; something is left in conflict, or there is more in
            conflict than was told; a file still holds the marks of a conflict; a gate does not pass.
        InvalidUsage: nothing says how; a path is none that the merge knows.
        GitFailed: a side cannot be taken of such files.
    """
    made = resolution(log, run_id, task_id, take, files, gates=gates)
    return carry_out(log, made, say)


class Resolution(NamedTuple):
    """What a conflict is resolved to: a merge that nothing holds and nobody was told of."""

    run_id: str
    task_id: str
    commit: str
    onto: str  # The integration line that it was made on.
    how: str  # See ``ConflictResolved``.
    paths: tuple[str, ...]  # That were in conflict.
    gates: bool  # Whether they are run on it.


def resolution(
    log: Log,
    run_id: str,
    task_id: str,
    take: str = "",
    files: Mapping[str, Path | bytes | None] | None = None,
    *,
    gates: bool = True,
) -> Resolution:
    """What ``resolve`` would merge. Takes and raises what that does; no gate is run."""
    if take not in ("", *SIDES):
        raise InvalidUsage(f"there is no side {take!r}", hint=f"take {', '.join(SIDES)}")
    if not take and not files:
        raise InvalidUsage("nothing says how to resolve it", hint="take ours, theirs or both, or name files")
    state, task = conflicted(log, run_id, task_id)
    assert state.integration is not None
    assert task.work_commit is not None
    repository = _repository(state)
    first = merged_with_line(repository, state, task)
    refuse_widened(log, repository, state, task, first)
    contents = {path: _content(content) for path, content in (files or {}).items()}
    _check_files(repository, first, contents)
    gated = any(clash.kind.startswith("gate ") for clash in clashes_of(task))
    if gated and first.commit is not None and take in ("ours", "theirs"):
        commit = _whole_side(repository, state, task, take)
    else:
        made = merged_with_line(repository, state, task, take=cast("Take", take), files=contents)
        if made.commit is None:
            raise NotAllowed(
                f"still in conflict: {paths_named([one.path for one in made.conflicts])}",
                hint="name a file for each, or a side to take for the rest",
            )
        commit = made.commit
    paths = tuple(clash.path for clash in clashes_of(task))
    how, checks = "files" if files else take, gates and not (gated and not files)
    return Resolution(run_id, task_id, commit, state.integration, how, paths, checks)


def carry_out(log: Log, made: Resolution, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Merge a resolution into the run. Gives and raises what ``resolve`` does."""
    return settle(
        log, made.run_id, made.task_id, made.commit, made.onto, made.how, made.paths, gates=made.gates, say=say
    )


def conflicted(log: Log, run_id: str, task_id: str) -> tuple[RunState, TaskState]:
    """A run and a task of it that waits because its work does not merge.

    Raises:
        UnknownTask, NotAllowed: it waits for something else, or for nothing.
    """
    state = Projector(log).state(run_id)
    task = waiting(state, task_id, None)
    if not is_conflict(task):
        raise NotAllowed(
            f"task {task_id!r} waits for {task.reason}, not for a conflict to be resolved",
            hint=f"`{settling_command(run_id, task)}`",
        )
    return state, task


def refuse_widened(log: Log, repository: Repository, state: RunState, task: TaskState, merged: Merge) -> None:
    """Refuse to resolve what nobody has been told of: other work may have been merged since. The log is told of it now.

    Raises:
        NotAllowed: there is more in conflict than was told.
    """
    told = {clash.path for clash in clashes_of(task)}
    clashes = tuple(Clash(storable_text(one.path), one.kind) for one in merged.conflicts)
    more = [clash.path for clash in clashes if clash.path not in told]
    if not more:
        return
    name = task.task.task_id
    work = Work(
        "", commit=task.work_commit, onto=state.integration, clashes=clashes,
        other_task_id=_other(repository, state, task, tuple(one for one in clashes if one.path in more)),
    )  # fmt: skip
    log.append(state.run_id, state.version, decide_widened(state, name, work))
    raise NotAllowed(
        f"other work was merged since, and now there is more in conflict: {paths_named(more)}",
        hint=f"look at it with `parallel-agents conflicts {state.run_id} --show`, then say it again",
    )


def settle(
    log: Log,
    run_id: str,
    task_id: str,
    commit: str,
    onto: str,
    how: str,
    paths: Sequence[str],
    *,
    gates: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Merge resolved work into the run, at whatever its integration line is by then.

    Args:
        commit: the resolution, held by nothing yet.
        onto: the integration line that it was made on.
        how: see ``ConflictResolved``.
        paths: that were in conflict.
        gates, say: see ``resolve``.
    Raises:
        NotAllowed: the task does not wait for it any more; what was merged meanwhile is in conflict with it; a gate does
            not pass.
    """
    before = conflicted(log, run_id, task_id)[1]
    work, attempt_id = before.work_commit, before.attempt_id
    checks = _Gates(log, say, wanted=gates)

    def settled(state: RunState) -> list[Event]:
        task = waiting(state, task_id, work)
        if task.attempt_id != attempt_id:
            raise NotAllowed(f"task {task_id!r} was run again meanwhile", hint="look at its work and say it again")
        repository, merged = _repository(state), commit
        assert state.integration is not None
        if state.integration != onto:
            again = merging.merge(
                repository, state.integration, commit, message=message_of(state, task), at_us=wall_clock_us()
            )
            if again.commit is None:
                raise NotAllowed(
                    f"what was merged meanwhile is in conflict with it: {paths_named([one.path for one in again.conflicts])}",
                    hint=f"say it again; what you made is commit {commit[:12]}",
                )
            merged = again.commit
        refs.hold(repository, {refs.checkpoint_ref(run_id, attempt_id or task_id): merged})
        reach("resolve.held")
        checked = checks.on(state, task, merged)
        found = Work("", commit=merged, gates=checked)
        if found.failed_gate is not None and state.plan.files.fail_on_gates:
            raise _DoesNotPass(found.failed_gate, found_out(task_id, str(attempt_id), found))
        return decide_settled(state, task_id, merged, how, paths, checked)

    try:
        records = _decided(log, run_id, settled, checks)
    except _DoesNotPass as refusal:
        _append(log, run_id, refusal.events)
        raise
    return {**_answer(log, run_id, task_id, records), "how": how, "paths": list(paths)}


def _append(log: Log, run_id: str, events: Sequence[Event]) -> None:
    """What was found out, whatever happened meanwhile."""

    def add(draft: Draft) -> None:
        for event in events:
            draft.add(run_id, event)

    log.transact(add)


class _DoesNotPass(NotAllowed):
    """A resolution was merged and checked, and is not good enough to be the run's."""

    def __init__(self, gate: Gated, events: Sequence[Event]) -> None:
        last = gate.output.strip().rpartition("\n")[2]
        super().__init__(
            f"gate `{gate.command}` does not pass on the merge {str(gate.commit)[:12]}" + (f": {last}" if last else ""),
            hint=f"mend it and say it again, or add --no-gates to merge it as it is; all of its output is in {gate.log}",
        )
        self.events = events


def message_of(state: RunState, task: TaskState) -> str:
    """The message of a merge that a person has let happen, told like those of the dispatcher."""
    name = task.task.task_id
    return f"Merge {name}\n\n{trailers(state.run_id, name, task.attempt_id)}"


def leftovers(repository: Repository, tree: str, paths: Sequence[str], sides: Sequence[str]) -> list[str]:
    """The paths that hold the marks of a conflict in a tree, and in none of the sides that it came from."""

    def marked(commit: str, path: str) -> bool:
        said = repository.git().run("cat-file", "blob", f"{commit}:{path}", ok=(0, 128))
        return said.code == 0 and merging.leftover_markers(said.out)

    return [path for path in paths if marked(tree, path) and not any(marked(side, path) for side in sides)]


def _check_files(repository: Repository, merged: Merge, contents: Mapping[str, bytes | None]) -> None:
    """Refuse paths that the merge does not have, and files that nobody has finished."""
    in_conflict = {one.path: one for one in merged.conflicts}
    for path, content in contents.items():
        if path not in in_conflict and not _is_in(repository, merged.tree, path):
            hint = nearest(path, in_conflict) if in_conflict else "write it as git does, from the top of the repository"
            raise InvalidUsage(f"{path!r} is no path of the merge", hint=hint)
        if content is None or not merging.leftover_markers(content):
            continue
        conflict = in_conflict.get(path)
        sides = (conflict.base, conflict.ours, conflict.theirs) if conflict else ()
        blobs = [repository.git().run("cat-file", "blob", side[1], ok=(0, 128)).out for side in sides if side]
        if not any(map(merging.leftover_markers, blobs)):
            raise NotAllowed(f"the file for {path} still holds marks of the conflict", hint="take them out of it")


def _is_in(repository: Repository, tree: str, path: str) -> bool:
    return repository.git().run("cat-file", "-e", f"{tree}:{path}", ok=(0, 1, 128)).code == 0


def _content(source: Path | bytes | None) -> bytes | None:
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InvalidUsage(f"{source} cannot be read: {error.strerror}") from None


def _whole_side(repository: Repository, state: RunState, task: TaskState, take: str) -> str:
    """What taking a side means where the files merge and a gate does not pass: all of the work, or nothing of it."""
    assert state.integration is not None
    assert task.work_commit is not None
    if take == "theirs":
        raise NotAllowed(
            "the files themselves do not clash, so there is no side to take",
            hint="take both to merge them as they are, ours to leave the work out, or name mended files",
        )
    return snapshot.commit_tree(
        repository, snapshot.tree_of(repository, state.integration), message=message_of(state, task),
        parents=(state.integration, task.work_commit), at_us=wall_clock_us(),
    )  # fmt: skip


def merged_with_line(
    repository: Repository,
    state: RunState,
    task: TaskState,
    *,
    take: Take = "",
    files: Mapping[str, bytes | None] | None = None,
    at_us: int | None = None,
) -> Merge:
    """The work that a task waits with, merged with the integration line as it is; see ``merging.merge``.

    Args:
        at_us: the date of the merge; None: now.
    """
    assert state.integration is not None
    assert task.work_commit is not None
    date_us = wall_clock_us() if at_us is None else at_us
    return merging.merge(
        repository, state.integration, task.work_commit, message=message_of(state, task), at_us=date_us,
        take=take, files=files or {},
    )  # fmt: skip


def _other(repository: Repository, state: RunState, task: TaskState, clashes: Sequence[Clash]) -> str:
    """The task that changed the first of some paths before."""
    if not clashes or task.base_commit is None or state.integration is None:
        return ""
    return other_task(repository, task.base_commit, state.integration, clashes[0].path)


def _repository(state: RunState) -> Repository:
    assert state.repository is not None, "only what is versioned waits to be merged"
    return open_repository(state.repository, Path(state.workdir))


def _decided(
    log: Log, run_id: str, decide: Callable[[RunState], Sequence[Event]], gates: _Gates | None = None
) -> list[Recorded]:
    """Decide on the run as it is, git included, and append; after some lost races with everybody else locked out."""
    for _ in range(_TRIES):
        state = Projector(log).state(run_id)
        try:
            return log.append(run_id, state.version, decide(state))
        except StaleRun:
            continue

    def decide_now(draft: Draft) -> None:
        if gates is not None:
            gates.locked = True
        for event in decide(Projector(log).state(run_id)):
            draft.add(run_id, event)

    return log.transact(decide_now)


def _answer(log: Log, run_id: str, task_id: str, records: Sequence[Recorded], **more: Any) -> dict[str, Any]:
    """How things stand afterwards. The run's branch is moved here, where no living process does so."""
    from parallel_agents.travel import follow_branch

    reach("answer.appended")
    warning = follow_branch(log, run_id) or ""  # The log is what counts.
    state = Projector(log).state(run_id)
    task = state.tasks[task_id]
    return {
        "run_id": run_id,
        "task_id": task_id,
        **more,
        "status": task.status,
        "reason": task.reason,
        "attempt_id": task.attempt_id,
        "commit": state.integration if task.status == st.COMPLETED else task.work_commit,
        "seq": records[-1].seq,
        "run_status": state.status,
        "dispatched": is_dispatched(log, run_id),
        "waiting": [name for name, one in state.tasks.items() if one.status == st.BLOCKED],
        "warning": warning,
    }


def paths_named(paths: Sequence[str]) -> str:
    """The first paths of a list, and how many more there are."""
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
