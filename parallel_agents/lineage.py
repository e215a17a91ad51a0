"""Who made a file or a line: its commits, as `git blame` names them, joined with the attempts of a store."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from parallel_agents.authorship import Authorship
from parallel_agents.checkpoint import blaming
from parallel_agents.checkpoint.blaming import UNCOMMITTED, Written, is_uncommitted
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository, find_repository
from parallel_agents.costs import usd
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed, ParallelAgentsError
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.project import Project
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.projections.timeline import timeline
from parallel_agents.scheduler.checkouts import SHADOW, open_repository
from parallel_agents.scheduler.work import RESULT_APPROVAL

_LINES: Final = re.compile(r"(?P<path>.+?):(?P<first>\d{1,9})(?:-(?P<last>\d{1,9}))?", re.DOTALL)


class UnknownFile(ParallelAgentsError):
    """There is no such file, or no such line of it, at the moment that is looked at."""

    code = "unknown_file"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Place:
    """The file that is asked for, and where it is looked at."""

    repository: Repository
    path: str  # Below the top of the repository.
    commit: str | None = None  # None: the file as it lies in the working tree.
    run_id: str | None = None  # Whose line that commit is of.


@dataclass(frozen=True, slots=True)
class Seen:
    """The lines of a file and the commits that made them."""

    commits: Sequence[str]
    said: dict[str, Written]
    kept: str = "tracked"  # tracked; or added, untracked, ignored: then no commit of the user's has the file.


def lineage(
    log: Log, project: Project, word: str, run_id: str | None = None, upto: int | None = None
) -> dict[str, Any]:
    """Which attempts made the lines of a file, as data.

    Args:
        word: a path relative to the working directory, with ``:LINE`` or ``:FROM-TO`` behind it where not all is meant.
        run_id: look at the integration line of this run; None looks at the user's working tree.
        upto: the moment of the past; goes with a run.
    Raises:
        InvalidUsage: the path lies outside of the repository, is a folder, or there is no repository.
        UnknownFile: there is no such file or line there.
        NotAllowed: the run keeps no files.
    """
    named, first, last = _wanted(project.workdir, word)
    known = Authorship(log, upto)
    place = _place(log, known, project, named, run_id, upto)
    seen = _seen(known, place)
    count = len(seen.commits)
    if first is not None and last is not None and last > count:
        asked = f"line {first}" if last == first else f"lines {first}-{last}"
        raise UnknownFile(f"{place.path} has no {asked}", hint=f"it has {count} line{'s' * (count != 1)}")
    begin, end = (1, count) if first is None or last is None else (first, last)
    tasks = _Tasks(log, upto)
    parts = [
        {"first": numbers[0], "last": numbers[-1], "lines": len(numbers), **_who(known, tasks, seen, commit)}
        for commit, numbers in _stretches(known, seen, begin, end)
    ]
    answer: dict[str, Any] = {
        "path": place.path,
        "first": begin,
        "last": end,
        "lines": count,
        "kept": seen.kept,
        "run_id": place.run_id,
        "commit": place.commit,
        "parts": parts,
    }
    if first is not None and begin == end and parts[0]["attempt_id"] is not None:
        answer["story"] = _story(log, tasks, parts[0], upto, place.repository)
    return answer


def _wanted(workdir: Path, word: str) -> tuple[str, int | None, int | None]:
    """The path and the lines that a word means. What is a file as it stands is one, whatever its name ends in."""
    found = _LINES.fullmatch(word)
    if found is None or os.path.lexists(workdir / word):
        return word, None, None
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if first < 1 or last < first:
        raise InvalidUsage(f"{word!r} names no lines", hint="lines count from 1: FILE:12, or FILE:12-20")
    return found["path"], first, last


def _place(log: Log, known: Authorship, project: Project, named: str, run_id: str | None, upto: int | None) -> Place:
    if run_id is not None:
        state = Projector(log).state(run_id, upto)
        repository = standing_in(repository_of(state), project.workdir)
        return Place(repository, _below(repository, project.workdir, named), state.integration, run_id)
    repository = find_repository(project.workdir) or _shadow(known, project)
    return Place(repository, _below(repository, project.workdir, named))


def repository_of(state: RunState) -> Repository:
    """The repository that keeps the files of a run.

    Raises:
        NotAllowed: they are not kept.
        GitFailed: it is not there any more.
    """
    if state.repository is None or state.integration is None:
        raise NotAllowed(
            f"run {state.run_id} keeps no files (workspace {state.plan.workspace}), so no line of any is its",
            hint="runs with workspace worktree or shared do",
        )
    return open_repository(state.repository, Path(state.workdir))


def standing_in(repository: Repository, workdir: Path) -> Repository:
    """The same repository with the working tree that the user stands in, where they stand in another one of it."""
    try:
        here = None if repository.shadow else find_repository(workdir)
    except GitFailed:
        here = None
    same = here is not None and here.git_dir.resolve() == repository.git_dir.resolve()
    return here if here is not None and same else repository


def _shadow(known: Authorship, project: Project) -> Repository:
    """The repository beside the store that keeps the files of a project without git."""
    for source in reversed(known.runs.values()):
        if source.repository is not None and Path(source.repository).name == SHADOW:
            return open_repository(source.repository, Path(source.workdir))
    raise InvalidUsage(
        f"{project.workdir} is in no git repository, and no run has kept files of it",
        hint="say --run RUN for the files of a run elsewhere",
    )


def _below(repository: Repository, workdir: Path, named: str) -> str:
    """A path as commits have it. Links on the way to it are followed, the file itself may be one."""
    path = Path(os.path.normpath(workdir / named))
    top, place = os.path.realpath(repository.top), os.path.join(os.path.realpath(path.parent), path.name)
    if "\0" in named or os.path.commonpath((top, place)) != top:
        raise InvalidUsage(f"{named!r} lies outside of {repository.top}", hint="name a file of the project")
    if place == top:
        raise InvalidUsage(f"{named!r} is a folder", hint="name a file in it")
    return os.path.relpath(place, top)


def _seen(known: Authorship, place: Place) -> Seen:
    """The lines of a file, each as far back as it can be followed."""
    seen = _looked_at(known, place, {})
    more = known.late_grafts(place.repository, seen.said)
    return _looked_at(known, place, more) if more else seen


def _looked_at(known: Authorship, place: Place, more: Mapping[str, str]) -> Seen:
    repository, grafts = place.repository, known.grafts(place.repository, more)
    if place.commit is None:
        commits, kept = _in_working_tree(known, place, grafts)
    else:
        found, kept = blaming.blame(repository, place.path, place.commit, grafts=grafts), "tracked"
        if found is None:
            raise UnknownFile(
                f"there is no file {place.path!r} in run {place.run_id} at that moment",
                hint=f"its files stand at commit {place.commit[:12]}; folders have no lines",
            )
        commits = found
    return Seen(commits, known.identify(repository, dict.fromkeys(commits)), kept)


def _in_working_tree(known: Authorship, place: Place, grafts: Mapping[str, Sequence[str]]) -> tuple[list[str], str]:
    """The commits of the lines of a file as it lies there, and whether the user's branch has it.

    What is not committed may be what a run in this directory left: then its lines stand in what was kept of it.
    """
    repository, path = place.repository, place.repository.top / place.path
    if path.is_dir() and not path.is_symlink():
        raise InvalidUsage(f"{place.path!r} is a folder", hint="name a file in it")
    if not os.path.lexists(path):
        raise UnknownFile(f"there is no file {place.path!r}", hint="say --run RUN for a file of a run's result")
    commits = None if repository.shadow else blaming.blame(repository, place.path, grafts=grafts)
    kept = "tracked"
    if commits is None:
        kept = blaming.untracked(repository, Path(place.path))
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        commits = [UNCOMMITTED] * (content.count(b"\n") + (not content.endswith(b"\n") and bool(content)))
    shared = known.shared_files(repository) if any(map(is_uncommitted, commits)) else None
    if shared is not None and kept != "ignored":
        made = blaming.blame(repository, place.path, shared, grafts=grafts)
        same = {} if made is None else blaming.unchanged_lines(repository, shared, place.path, len(commits))
        for number, there in same.items():
            if made is not None and is_uncommitted(commits[number - 1]):
                commits[number - 1] = made[there - 1]
        kept = "tracked" if repository.shadow and made is not None else kept
    return commits, kept


def _stretches(known: Authorship, seen: Seen, begin: int, end: int) -> Iterator[tuple[str, list[int]]]:
    """Lines in a row that one attempt made, or one commit, with the first commit of them."""

    def maker(number: int) -> object:
        commit = seen.commits[number - 1]
        claim = known.claims.get(commit)
        return commit if claim is None else (claim.run_id, claim.attempt_id, claim.settled_by)

    for _, numbers in groupby(range(begin, end + 1), key=maker):
        found = list(numbers)
        yield seen.commits[found[0] - 1], found


class _Tasks:
    """Tasks of runs, looked up in the states of the runs as they are asked for."""

    def __init__(self, log: Log, upto: int | None) -> None:
        self._log, self._upto = log, upto
        self._states: dict[str, RunState] = {}

    def state(self, run_id: str) -> RunState:
        """The state of a run."""
        if run_id not in self._states:
            self._states[run_id] = Projector(self._log).state(run_id, self._upto)
        return self._states[run_id]


_NOBODY: Final[dict[str, Any]] = dict.fromkeys(
    ("run_id", "run_name", "task_id", "attempt_id", "attempt", "agent_type", "runner", "model", "models", "cost_usd",
     "unknown_cost", "joined", "settled_by", "commit", "author", "summary", "at")
)  # fmt: skip


def _who(known: Authorship, tasks: _Tasks, seen: Seen, commit: str) -> dict[str, Any]:
    """Who made the lines of a commit. ``by`` is attempt, settled, run, before, commit or uncommitted."""
    if is_uncommitted(commit):
        return {"by": "uncommitted", **_NOBODY}
    said, claim = seen.said.get(commit), known.claims.get(commit)
    found = {**_NOBODY, "commit": commit}
    if said is not None:
        found |= {"author": said.author, "summary": said.summary, "at": rfc3339(said.at_s * 1_000_000)}
    if claim is None:
        return {"by": "commit", **found}
    source = known.runs.get(claim.run_id)
    found |= {"run_id": claim.run_id, "run_name": source.name if source else None, "joined": claim.joined}
    attempt = known.attempts.get(claim.attempt_id or "")
    if attempt is None:
        return {"by": "run" if claim.joined == "run" else "before", **found}
    task = tasks.state(attempt.run_id).tasks.get(attempt.task_id)
    return {
        "by": "attempt" if claim.settled_by is None else "settled",
        **found,
        "task_id": attempt.task_id,
        "attempt_id": attempt.attempt_id,
        "attempt": attempt.number,
        "agent_type": attempt.role or (task.task.agent_type if task is not None else None),
        "runner": attempt.runner,
        "model": attempt.model,
        "models": list(attempt.models),
        "cost_usd": usd(attempt.usd_micros),
        "unknown_cost": attempt.unknown,
        "settled_by": claim.settled_by,
    }


def _story(log: Log, tasks: _Tasks, part: dict[str, Any], upto: int | None, repository: Repository) -> dict[str, Any]:
    """What else the log says of the attempt that made a line: what it was asked, why this model, who let it in."""
    run_id, task_id, attempt_id = part["run_id"], part["task_id"], part["attempt_id"]
    records = Projector(log).task_records(run_id, task_id, upto)
    spans = timeline(records)
    found: dict[str, Any] = {"outcome": None, "undone": False, "model_reason": None, "checkpoint_id": None,
                             "work_commit": None, "approved_by": None, "gates": [], "events": []}  # fmt: skip
    asked = False  # Whether its result waits for somebody's approval.
    for record in records:
        event = record.event
        match event:
            case ev.TaskUnblocked(attempt=number) if event.task_id == task_id and number == part["attempt"]:
                found["approved_by"] = record.actor
            case _ if getattr(event, "attempt_id", None) != attempt_id:
                continue
            case ev.TaskStarted(model_reason=reason):
                found["model_reason"] = reason or None
            case ev.TaskBlocked(reason=reason):
                asked = reason == RESULT_APPROVAL
            case ev.TaskCompleted() if asked:
                found["approved_by"] = record.actor
            case ev.GateChecked(command=command, passed=passed):
                found["gates"].append({"command": command, "passed": passed})
            case ev.CheckpointCreated(kind="after_attempt"):
                found["checkpoint_id"], found["work_commit"] = event.checkpoint_id, event.commit
            case _:
                pass
        found["events"].append({"seq": record.seq, "type": type(event).__name__})
    for span in spans:
        if span.attempt_id == attempt_id:
            found["outcome"], found["undone"] = span.outcome, span.undone
    state = tasks.state(run_id)
    task = state.tasks.get(task_id)
    git = f"git --git-dir={shlex.quote(str(repository.git_dir))}" if repository.shadow else "git"
    reviewers = [state.tasks[name] for name in state.dependents.get(task_id, ()) if name in state.tasks]
    return {
        **found,
        "description": None if task is None else task.task.description,
        "attempts": len(spans),
        "reviewed_by": [
            one.task.task_id for one in reviewers if "review" in one.task.agent_type and one.status == st.COMPLETED
        ],
        "commands": [
            f"parallel-agents show {run_id} {task_id}",
            f"parallel-agents why {run_id} {task_id}",
            f"{git} show {part['commit'][:12]}",
        ],
    }
