"""What does not merge, as plain data: whose work, over which paths, how to see each side and how to settle it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.events import ConflictDetected, RunForked
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode_brief, rfc3339
from parallel_agents.projections import conflicts as conflicts_fold
from parallel_agents.projections.conflicts import WAITING, Attempt, Conflict
from parallel_agents.projections.effective import effective
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.decide import storable_text
from parallel_agents.scheduler.decide_settling import is_conflict

SIDES = ("ours", "theirs", "both")
"""What was merged before, the work that does not merge with it, and the lines of both."""
_SHORT = 12  # Digits of a commit that people read.


def conflicts(log: Log, run_id: str | None, upto: int | None = None, *, hunks: bool = False) -> list[dict[str, Any]]:
    """The conflicts of a run, or of all runs, oldest first, as they stood at a seq.

    Args:
        hunks: read of every path from git what the two sides made of it: as ``hunks``, text with markers, and as ``base``,
            ``ours`` and ``theirs``, the mode and blob that each has there, or None.
    Returns:
        Of each ``run_id``, ``seq``, ``at``, ``task_id`` and ``other_task_id``, ``status`` (early, waiting, resolved or
        dropped), ``how`` it was resolved, ``paths`` with their ``kind``, the commits ``commit`` and ``other_commit`` with the
        commands that ``show`` them, and the commands that ``settle`` it.
    Raises:
        UnknownRun: there is no such run.
    """
    end = log.last_seq() if upto is None else upto
    if run_id is not None:
        Projector(log).state(run_id, upto)
        found = list(_of_run(log, run_id, end))
    else:
        found = [one for name in Projector(log).runs(upto) for one in _of_run(log, name, end)]
        found.sort(key=lambda one: int(one["seq"]))
    return [_with_hunks(log, one) for one in found] if hunks else found


def _of_run(log: Log, run_id: str, end: int) -> Iterator[dict[str, Any]]:
    begun = decode_brief(run_id, next(iter(log.briefs(run_id, 0, end))))
    if isinstance(begun.event, RunForked) and begun.event.state_digest:
        yield from _inherited(log, run_id, begun, begun.event, end)
    if next(log.briefs(run_id, 0, end, where="type = 'ConflictDetected'"), None) is None:
        return  # Nearly always; the history of a long run need not be read for it.
    rows = log.briefs(run_id, 0, end, where=conflicts_fold.TYPES)
    kept, _ = effective([decode_brief(run_id, row) for row in rows])
    for one in conflicts_fold.conflicts(kept):
        yield _as_data(run_id, one)


def _inherited(log: Log, run_id: str, begun: Recorded, fork: RunForked, end: int) -> Iterator[dict[str, Any]]:
    """What was in conflict in the run that this one was forked from, and still is here."""
    tasks = Projector(log).state(run_id, end).tasks
    there = _of_run(log, fork.parent, fork.seq) if log.version(fork.parent) else _begun_with(log, run_id, begun)
    for one in there:
        task = tasks.get(one["task_id"])
        same = task is not None and is_conflict(task) and task.attempt_id == one["attempt_id"]
        if same and one["status"] == WAITING:
            yield {**one, "run_id": run_id, "settle": _settling(run_id, one["task_id"], one["paths"])}


def _begun_with(log: Log, run_id: str, begun: Recorded) -> Iterator[dict[str, Any]]:
    """The same by the state that the fork began with, where the events of the other run lie in another store."""
    for task_id, task in Projector(log).state(run_id, begun.seq).tasks.items():
        if is_conflict(task) and task.conflict is not None:
            event = ConflictDetected(
                task_id=task_id, attempt_id=task.attempt_id, round=max(1, task.conflicts),
                **{"onto": None, **task.conflict, "commit": task.work_commit},
            )  # fmt: skip
            yield _as_data(run_id, Conflict(begun, event, Attempt(task_id, task.base_commit, task.work_commit), None))


def _as_data(run_id: str, one: Conflict) -> dict[str, Any]:
    event = one.event
    paths = [{"path": path, "kind": kind} for path, kind in zip(event.paths, event.kinds, strict=False)]
    paths += [{"path": path, "kind": ""} for path in event.paths[len(event.kinds) :]]
    if one.gate is not None:
        paths[0]["output"] = one.gate.output
    other = one.other.work if one.other is not None and not event.early else None
    return {
        "run_id": run_id,
        "seq": one.record.seq,
        "at": rfc3339(one.record.at_us),
        "task_id": event.task_id,
        "other_task_id": event.other_task_id,
        "status": one.status,
        "how": one.how,
        "paths": paths,
        "attempt_id": event.attempt_id,
        "round": event.round,
        "commit": event.commit,
        "onto": event.onto,
        "other_commit": other or event.onto,
        "show": {
            "theirs": _showing(one.attempt, event.commit),
            "ours": _showing(one.other or one.attempt, other or event.onto),
        },
        "settle": _settling(run_id, event.task_id, paths) if one.status == WAITING else [],
    }


def _showing(attempt: Attempt | None, commit: str | None) -> str | None:
    """The command that shows what one side has changed."""
    if commit is None:
        return None
    if attempt is None or attempt.base is None:
        return f"git show {commit[:_SHORT]}"
    return f"git diff {attempt.base[:_SHORT]} {commit[:_SHORT]}"


def _settling(run_id: str, task_id: str, paths: list[dict[str, str]]) -> list[str]:
    """The commands that settle a conflict, each a line for a shell."""
    resolve = f"parallel-agents resolve {run_id} {task_id}"
    sides = fitting({one["kind"] for one in paths})
    by_hand = [f"{resolve} --file PATH=FILE", f"{resolve} --edit"]
    return [*(f"{resolve} --take {side}" for side in sides), *by_hand, f"parallel-agents cancel {run_id} {task_id}"]


def fitting(kinds: Set[str]) -> list[str]:
    """The sides that can be taken of conflicts of these kinds."""
    return [side for side in SIDES if _fits(side, kinds)]


def _fits(side: str, kinds: Set[str]) -> bool:
    """Whether conflicts of these kinds can be settled by taking a side."""
    if any(kind.startswith("gate ") for kind in kinds):
        return side != "theirs"  # The files do not clash, so there is no side of the task's alone.
    return side != "both" or kinds <= {"content", "contents", "add/add"}


def _with_hunks(log: Log, one: dict[str, Any]) -> dict[str, Any]:
    from parallel_agents.checkpoint import merging
    from parallel_agents.checkpoint.contents import has_commit
    from parallel_agents.scheduler.checkouts import open_repository

    state = Projector(log).state(one["run_id"])
    if state.repository is None or one["onto"] is None or one["commit"] is None:
        return one
    try:
        repository = open_repository(state.repository, Path(state.workdir))
        if not all(has_commit(repository, commit) for commit in (one["onto"], one["commit"])):
            return one  # Unfinished work that was warned of is held by nobody.
        sides = {
            storable_text(path.path): path  # As the log has it, where it is no UTF-8.
            for path in merging.merge(repository, one["onto"], one["commit"], message="look", at_us=0).conflicts
        }
        for path in one["paths"]:
            conflict, text = sides.get(path["path"]), path.get("output", "")
            if conflict is not None:
                for side in ("base", "ours", "theirs"):
                    entry = getattr(conflict, side)
                    path[side] = None if entry is None else {"mode": entry[0], "blob": entry[1]}
                if path["kind"] != "binary":
                    text = merging.hunks(repository, one["onto"], one["commit"], conflict.path)
            path["hunks"] = text
    except ParallelAgentsError:
        pass  # The list is no worse without what git cannot tell any more.
    return one
