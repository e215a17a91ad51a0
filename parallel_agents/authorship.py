"""Which attempt made which commit, by the events of a store: what lines of files are attributed by.

An event names the work of an attempt and its merge. What an agent has committed itself on the way to that work is found by
walking back from it, up to whatever another event names or was there before the attempt. All history counts, undone work
too: a commit is made once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import Final

from parallel_agents.checkpoint.blaming import Written, between, is_acyclic, is_uncommitted, written
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.scheduler.work import CONFLICT

_TYPES: Final = (
    "type IN ('RunSubmitted', 'RunForked', 'RunMoved', 'RunRolledBack', 'RunMerged', 'TaskStarted', 'TaskCompleted',"
    " 'TaskBlocked', 'CheckpointCreated', 'CheckpointRestored', 'ConflictDetected', 'ConflictResolved', 'CostCharged')"
    """ AND NOT (type = 'CheckpointCreated' AND instr(body, '"kind":"before_attempt"'))"""
)
_CLOCK_S: Final = 2  # Git counts whole seconds.


@dataclass(slots=True)
class Attempt:
    """An attempt as far as its commits and its money go."""

    run_id: str
    task_id: str
    attempt_id: str
    number: int
    runner: str
    model: str | None
    model_reason: str
    role: str
    started_at_us: int
    base: str | None
    before: str | None  # The commit whose files it began with.
    work: str | None = None
    checkpoint_id: str | None = None
    usd_micros: int = 0
    unknown: bool = False  # Whether part of its cost is known to nobody.
    models: tuple[str, ...] = ()  # As its agent names them.
    clashed: bool = False  # Its work met a conflict when it was to be merged.


@dataclass(frozen=True, slots=True)
class Claim:
    """What a commit is: the work of an attempt, or the files that a run began with."""

    run_id: str
    attempt_id: str | None = None  # None: what was in the folder, uncommitted, when the run began; or see ``joined``.
    joined: str = (
        "events"  # Or trailers: an attempt's commit made anew, such as by a rebase. Or run: all of a run in one.
    )
    settled_by: str | None = None  # Who resolved the conflict that this merge ends, where that was a person.


@dataclass(slots=True)
class Source:
    """A run as far as its files go."""

    run_id: str
    name: str = ""
    repository: str | None = None
    workdir: str = ""
    workspace: str = ""
    base: str | None = None
    line: str | None = None  # Its integration line.
    parent: str | None = None  # The run that it was forked from.


class Authorship:
    """What the events of a store say of commits, up to a moment.

    Attributes:
        attempts: by their ids, in the order of their starts.
        claims: of commits.
        runs: by their ids, oldest first.
    """

    def __init__(self, log: Log, upto: int | None = None) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.claims: dict[str, Claim] = {}
        self.runs: dict[str, Source] = {}
        self._extra: dict[str, str] = {}  # Commit -> what lay in the shared directory before it.
        self._squashed: dict[str, str] = {}  # Commit of the user's -> the line of the run that is all in it.
        self._snapshots: dict[
            str, list[tuple[int, str]]
        ] = {}  # Repository -> when its directory was kept, and as what.
        self._places: dict[str, Path | None] = {}
        self._walked: set[Path] = set()
        self._asked: set[str] = set()  # Attempts whose conflict waits for a person.
        begun = _with_files(log, upto)  # Whatever else a store holds need not be decoded.
        for row in log.rows(min(begun.values(), default=0) - 1, upto, where=_TYPES) if begun else ():
            if row.run_id in begun:
                self._learn(decode(row))

    def _learn(self, record: Recorded) -> None:
        match record.event:
            case ev.CheckpointCreated() as made:
                self._kept(record, made)
            case ev.TaskStarted() as started:
                self._started(record, started)
            case ev.CostCharged(attempt_id=attempt_id, usd_micros=micros, model=model):
                one = self.attempts.get(attempt_id)
                if one is not None:
                    one.usd_micros += micros or 0
                    one.unknown = one.unknown or micros is None
                    if model and model not in one.models:
                        one.models += (model,)
            case ev.TaskCompleted(attempt_id=attempt_id, commit=commit):
                self._move(record.run_id, commit)
                self._claim(commit, Claim(record.run_id, attempt_id))
            case ev.TaskBlocked(attempt_id=str() as attempt_id, commit=commit, reason=reason):
                self._claim(commit, Claim(record.run_id, attempt_id))
                if reason.startswith(CONFLICT):
                    self._asked.add(attempt_id)
            case ev.ConflictDetected(early=False, attempt_id=str() as attempt_id) if attempt_id in self.attempts:
                self.attempts[attempt_id].clashed = True
            case ev.ConflictResolved(attempt_id=str() as attempt_id, commit=commit):
                by = record.actor if attempt_id in self._asked else None
                self._claim(commit, Claim(record.run_id, attempt_id, settled_by=by))
            case _:
                self._learn_of_run(record)

    def _learn_of_run(self, record: Recorded) -> None:
        run_id = record.run_id
        match record.event:
            case ev.RunSubmitted() as event:
                self.runs[run_id] = Source(
                    run_id, event.name, event.repository, event.workdir, event.workspace, event.base_commit, event.base_commit
                )  # fmt: skip
                self._begun(record, event.base_commit)
            case ev.RunForked(parent=parent, commit=commit, name=name):
                source = self.runs.get(parent, Source(parent))
                self.runs[run_id] = Source(
                    run_id, name, source.repository, source.workdir, source.workspace, commit, commit, parent
                )  # fmt: skip
            case ev.RunMoved(workdir=workdir, repository=repository) if run_id in self.runs:
                self.runs[run_id].workdir = workdir
                self.runs[run_id].repository = repository or self.runs[run_id].repository
            case ev.RunRolledBack(commit=commit) | ev.CheckpointRestored(commit=commit):
                self._move(run_id, commit)
            case ev.RunMerged(commit=commit, squash=True) if run_id in self.runs:
                line = self.runs[run_id].line
                if line is not None:
                    self._squashed[commit] = line
            case _:
                pass

    def _begun(self, record: Recorded, base: str | None) -> None:
        """A run begins with the files of its directory, which may be a commit of the user's, or one that was made of them."""
        source = self.runs[record.run_id]
        if base is None or source.repository is None:
            return
        source.base = base
        if source.workspace == "shared":
            self._snapshot(source.repository, record.at_us, base)

    def _started(self, record: Recorded, event: ev.TaskStarted) -> None:
        before = event.begin_commit or event.base_commit
        self.attempts[event.attempt_id] = Attempt(  # Of very many attempts few texts differ.
            record.run_id, event.task_id, event.attempt_id, event.attempt, intern(event.runner), _one(event.model),
            intern(event.model_reason), intern(event.role), record.at_us, _one(event.base_commit), _one(before),
        )  # fmt: skip

    def _kept(self, record: Recorded, event: ev.CheckpointCreated) -> None:
        if event.kind != "after_attempt" or event.commit is None or event.attempt_id not in self.attempts:
            return
        attempt, source = self.attempts[event.attempt_id], self.runs.get(record.run_id)
        attempt.checkpoint_id = event.checkpoint_id
        if event.commit in (attempt.base, attempt.before):
            return  # It changed nothing.
        attempt.work = event.commit
        if source is not None and source.workspace == "shared" and source.repository is not None:
            attempt.before = self._last(source.repository) or attempt.before
            self._snapshot(source.repository, record.at_us, event.commit)
        self._claim(event.commit, Claim(record.run_id, event.attempt_id))

    def _claim(self, commit: str | None, claim: Claim) -> None:
        attempt = self.attempts.get(claim.attempt_id or "")
        if commit is not None and (attempt is None or commit not in (attempt.base, attempt.before)):
            self.claims.setdefault(commit, claim)

    def _move(self, run_id: str, commit: str | None) -> None:
        if commit is not None and run_id in self.runs:
            self.runs[run_id].line = commit

    def _last(self, repository: str) -> str | None:
        kept = self._snapshots.get(repository)
        return kept[-1][1] if kept else None

    def _snapshot(self, repository: str, at_us: int, commit: str) -> None:
        """A shared directory was kept: what it held at the time before was not made since."""
        last = self._last(repository)
        if last is not None and last != commit:
            self._extra.setdefault(commit, last)
        self._snapshots.setdefault(repository, []).append((at_us, commit))

    def _is_in(self, named: str, workdir: str, repository: Repository) -> bool:
        if named not in self._places:
            try:
                self._places[named] = open_repository(named, Path(workdir)).git_dir.resolve()
            except GitFailed:
                self._places[named] = None
        return self._places[named] == repository.git_dir.resolve()

    def sources(self, repository: Repository) -> list[Source]:
        """The runs whose commits are in a repository, oldest first."""
        return [
            one for one in self.runs.values() if one.repository and self._is_in(one.repository, one.workdir, repository)
        ]

    def shared_files(self, repository: Repository, before_us: int | None = None) -> str | None:
        """What a shared directory was kept as last, by the runs that worked in it; None where none did.

        Args:
            before_us: at that time, in microseconds.
        """
        places = {source.repository for source in self.sources(repository)}
        found: tuple[int, str] | None = None
        for kept in (self._snapshots.get(place or "", []) for place in places):
            at = len(kept) if before_us is None else bisect_right(kept, before_us, key=itemgetter(0))
            if at and (found is None or kept[at - 1] > found):
                found = kept[at - 1]
        return None if found is None else found[1]

    def grafts(self, repository: Repository, more: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        """Parents of commits that hold lines which were made before them, though git does not know it.

        These are commits that squash a run, and those of a shared directory, of which each holds what was in it before.

        Args:
            more: commits, and what else they come from.
        """
        surely = {**self._extra, **self._squashed}
        for extra in ({**surely, **(more or {})}, surely):
            if not extra:
                break
            graph = between(repository, [*extra, *extra.values()], self._before_all(repository))
            there = written(repository, extra.values())
            found = {
                commit: [*graph[commit].parents, source]
                for commit, source in extra.items()
                if commit in graph and source in there and source not in graph[commit].parents
            }
            if is_acyclic({**{commit: one.parents for commit, one in graph.items()}, **found}):
                return found
        return {}  # Dates of commits can be anything, and git would go round for ever.

    def _before_all(self, repository: Repository) -> list[str]:
        """The commit that the first run of a repository began with: nothing that led to it is of any run."""
        return [run.base for run in self.sources(repository) if run.base is not None][:1]

    def identify(self, repository: Repository, commits: Iterable[str]) -> dict[str, Written]:
        """See to it that ``claims`` holds whatever of these commits a run has made; gives what they say of themselves."""
        found = written(repository, (commit for commit in commits if not is_uncommitted(commit)))
        if any(commit not in self.claims for commit in found) and repository.git_dir not in self._walked:
            self._walked.add(repository.git_dir)
            self._claim_own_commits(repository)
        for commit, said in found.items():
            if commit in self.claims:
                continue
            attempt = self.attempts.get(said.attempt_id)
            base_of = next((run.run_id for run in self.runs.values() if run.base == commit and said.run_id), None)
            if base_of is not None:
                self.claims[commit] = Claim(base_of)
            elif attempt is not None and (attempt.run_id, attempt.task_id) == (said.run_id, said.task_id):
                self.claims[commit] = Claim(said.run_id, said.attempt_id, "trailers")
            elif said.run_id in self.runs:
                self.claims[commit] = Claim(said.run_id, None, "run")
        return found

    def _claim_own_commits(self, repository: Repository) -> None:
        """Claim what agents have committed themselves, by one list of the commits between the first run and all work."""
        runs = self.sources(repository)
        names = {run.run_id for run in runs}
        works = [one for one in self.attempts.values() if one.work is not None and one.run_id in names]
        graph = between(repository, (one.work or "" for one in works), self._before_all(repository))
        bases = {run.base for run in runs}
        for attempt in works:
            claim = self.claims.get(attempt.work or "")
            if claim is None or claim.attempt_id != attempt.attempt_id:
                continue
            own = Claim(attempt.run_id, attempt.attempt_id)
            left = [attempt.work or ""]
            while left:
                for parent in graph[at].parents if (at := left.pop()) in graph else ():
                    known = parent in self.claims or parent in bases or parent == attempt.base or parent not in graph
                    # What is older than the attempt came by a merge of something else.
                    if not known and graph[parent].at_s + _CLOCK_S >= attempt.started_at_us // 1_000_000:
                        self.claims[parent] = own
                        left.append(parent)

    def late_grafts(self, repository: Repository, said: Mapping[str, Written]) -> dict[str, str]:
        """Commits of the user's that may hold lines of a run: a squash that was made anew, or the files of a shared run.

        Args:
            said: as ``identify`` gave it.
        """
        known = self._squashed.keys() | self._extra.keys()
        known |= {commit for snapshots in self._snapshots.values() for _, commit in snapshots}
        asked: dict[str, list[str | None]] = {}
        for commit, one in said.items():
            claim = self.claims.get(commit)
            if len(one.parents) > 1 or commit in known or (claim is not None and claim.attempt_id is not None):
                continue
            if claim is not None and claim.joined == "run":
                asked[commit] = [self.runs[claim.run_id].line]
            else:  # Git counts whole seconds, so what was kept in the same one may be older or younger.
                asked[commit] = [self.shared_files(repository, one.at_s * 1_000_000 + more) for more in (999_999, 0)]
        lines = {line for one in asked.values() for line in one if line is not None}
        if not lines:
            return {}
        graph = between(repository, [*asked, *lines], self._before_all(repository))
        before = {line: self._ancestors(graph, line) for line in lines}
        found = {}
        for commit, choice in asked.items():
            line = next((line for line in choice if line is not None and commit not in before[line]), None)
            if line is not None and commit in graph:
                found[commit] = line
        return found

    def _ancestors(self, graph: Mapping[str, Written], commit: str) -> set[str]:
        """A commit and what leads to it, by what was in a shared directory too."""
        seen, left = {commit}, [commit]
        while left:
            at = left.pop()
            more = (self._extra.get(at), self._squashed.get(at))
            for parent in (*(graph[at].parents if at in graph else ()), *filter(None, more)):
                if parent not in seen:
                    seen.add(parent)
                    left.append(parent)
        return seen


def _one(text: str | None) -> str | None:
    return None if text is None else intern(text)


def _with_files(log: Log, upto: int | None) -> dict[str, int]:
    """The runs whose files are kept, with the seqs of their first events."""
    found: dict[str, int] = {}
    for record in log.run_level(upto):
        match record.event:
            case ev.RunSubmitted(base_commit=str()):
                found[record.run_id] = record.seq
            case ev.RunForked(parent=parent) if parent in found:
                found[record.run_id] = record.seq
            case _:
                pass
    return found
