"""Whether all that a store stands for is there and is what its events say: file, chain, documents, folds, refs, commits.

Nothing is believed that can be worked out again: folds are compared with a fold of every event from the first one on, refs
and commits with what the events name. Nothing is changed. What is being dispatched meanwhile is judged as of the moment at
which this began, and of its refs only what must be there already.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.git import IDENTITY
from parallel_agents.checkpoint.reaching import missing
from parallel_agents.checkpoint.repository import OURS, Repository
from parallel_agents.eventstore import audit, blocks
from parallel_agents.eventstore.audit import Snapshot
from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.eventstore.events import STORE_RUN, RunForked, RunMoved, RunRolledBack, RunSubmitted
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Brief, decode_brief
from parallel_agents.findings import Finding
from parallel_agents.housekeeping import repositories_of
from parallel_agents.named_commits import Named, named_commits
from parallel_agents.project import Project
from parallel_agents.projections import at_hand, letting_go, task_snapshots
from parallel_agents.projections import status as st
from parallel_agents.projections.at_hand import Singles
from parallel_agents.projections.effective import kept_positions
from parallel_agents.projections.one_task import OneTask
from parallel_agents.projections.projector import Projector, placed
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.projections.store_wide import OCCUPANCY, RUNS, SPEND
from parallel_agents.run_standing import places_of
from parallel_agents.scheduler.process import holder_alive
from parallel_agents.stale_refs import by_run
from parallel_agents.verification import verify

SHOWN = 20  # Findings of one kind in one run.

Told = Callable[[str, int, int], None]
"""Told of progress: what is looked at, how much of it is done, and how much there is."""


def verify_deeply(log: Log, project: Project, progress: Told | None = None) -> dict[str, Any]:
    """Look at everything.

    Returns:
        What ``verify`` gives, with ``findings``: each ``{"check", "level", "detail", "hint"}``, where the level ``error`` is
        a mismatch; and ``looked_at``, how much there was of each kind. ``ok`` is whether there is no mismatch.
    """
    told = progress or (lambda what, done, total: None)
    end = log.last_seq()
    looked_at: dict[str, int] = {"events": end}
    findings = [_damaged(log, line) for line in audit.damage(log.path)]
    found = verify(log, lambda done, total: told("events", done, total))
    findings += _of_chain(found)
    for digest in audit.wrong_blobs(log.path):
        if digest not in found["missing_plans"]:
            findings.append(_changed_document(digest))
    if not findings:  # A fold of events that are not what was written, or not there, says nothing.
        findings += _store_wide(log)
        runs = Projector(log).runs(end)
        findings += _folds(log, runs, end, looked_at, told)
        findings += _files(log, project, runs, end, looked_at, told)
    wrong = [one for one in findings if one.level == "error"]
    return {
        **found,
        "ok": not wrong,
        "findings": [one._asdict() for one in findings],
        "looked_at": looked_at,
    }


def _damaged(log: Log, line: str) -> Finding:
    hint = "restore it from a backup; `sqlite3 FILE .recover` saves what can be read"
    return Finding("database", "error", f"{log.path} is damaged: {line}", hint)


def _of_chain(found: dict[str, Any]) -> Iterator[Finding]:
    if found["broken"] is not None:
        seq, what = found["broken"]["seq"], found["broken"]["what"]
        hint = f"the {found['events']} events before it are as they were written; restore a backup for the rest"
        yield Finding("chain", "error", f"event {seq} was changed: {what}", hint)
    for digest in found["missing_plans"]:
        yield Finding(
            "documents", "error", f"plan or state {digest[:12]} is gone or changed", "restore it from a backup"
        )
    for name in found["changed_archives"]:
        yield Finding("archives", "error", f"{name} is not what was written", "restore it from a backup")
    for name in found["missing_archives"]:
        hint = "put it back to have its run looked at closer: now only the digests of its events are proved"
        yield Finding("archives", "warning", f"{name} is not there", hint)


def _changed_document(digest: str) -> Finding:
    detail = f"document {digest[:12]} holds other bytes than those that it is named by"
    return Finding("documents", "error", detail, "restore it from a backup")


def _folds(log: Log, runs: dict[str, RunSummary], end: int, looked_at: dict[str, int], told: Told) -> Iterator[Finding]:
    """Compare what readers are given, and every stored snapshot, with a fold of every event from the first one on."""
    kept: dict[str, list[Snapshot]] = {}
    for one in _readable(log, end):
        kept.setdefault(one.run_id, []).append(one)
    looked_at["runs"], looked_at["snapshots"] = len(runs), sum(map(len, kept.values()))
    yield from _ahead(log)
    for run_id in kept.keys() - runs.keys():
        yield Finding("snapshots", "error", f"there are snapshots of run {run_id}, which the log does not know", _DROP)
    for number, (run_id, summary) in enumerate(runs.items()):
        told("runs", number, len(runs))
        yield from _folds_of(log, run_id, summary, kept.get(run_id, []), end)


def _ahead(log: Log) -> Iterator[Finding]:
    """A snapshot of what is in no log any more: one is made only of events that are committed."""
    newest, end = audit.newest_snapshot(log.path), log.last_seq()
    if newest is not None and newest[1] > end:
        run_id, seq = newest
        what = f"the log ends with event {end}, and there is a snapshot of event {seq} (of run {run_id})"
        hint = "restore a backup; `verify --against` a seal says from which event on"
        yield Finding("snapshots", "error", f"{what}: the end of the log is gone", hint)


def check_folds(log: Log, run_id: str, end: int) -> tuple[list[Finding], int]:
    """What does not match of one run's folds: as they are read, and as they are stored, against a fold of every event.

    Returns:
        The findings, and how many snapshots were looked at.
    """
    snapshots = [one for one in _readable(log, end) if one.run_id == run_id]
    summary = Projector(log).runs(end)[run_id]
    return list(_folds_of(log, run_id, summary, snapshots, end)), len(snapshots)


def _readable(log: Log, end: int) -> Iterator[Snapshot]:
    """The snapshots of runs that somebody may read."""
    for one in audit.snapshots(log.path):
        kind = (one.projection, one.version)
        if (kind in _READ or task_snapshots.is_one(*kind)) and one.seq <= end:
            yield one


def _folds_of(log: Log, run_id: str, summary: RunSummary, snapshots: list[Snapshot], end: int) -> Iterator[Finding]:
    witness = _Witness(log, run_id)
    wrong, now = _refolded(log, run_id, snapshots, end, witness)
    for one in wrong:
        detail = f"the snapshot of run {run_id} at event {one.seq} is not what its events say"
        yield Finding("snapshots", "error", detail, _DROP)
    read = Projector(log).state(run_id, end)
    differing = [*_differing(read, now), *sorted(witness.otherwise)]
    if differing and not wrong:
        detail = f"what is read of run {run_id} is not what its events say: {', '.join(differing[:SHOWN])}"
        yield Finding("folds", "error", detail, "this is a bug of ours; keep the store and report it")
    if summary.status != now.status:
        detail = f"the list of runs has {run_id} as {summary.status}, and by its events it is {now.status}"
        yield Finding("folds", "error", detail, "this is a bug of ours; keep the store and report it")


_DROP = """a snapshot is only a cache: `sqlite3 STORE "DELETE FROM snapshots"` loses nothing"""


def _store_wide(log: Log) -> Iterator[Finding]:
    """Compare the snapshots of folds over the whole store with a fold of every event."""
    for fold in (RUNS, OCCUPANCY, SPEND):
        try:
            same = fold.is_whole(log)
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            yield Finding("snapshots", "error", f"the snapshot of {fold.name} is not what the events say", _DROP)
    if (part := blocks.left_out(log)) is not None:
        detail = f"what is known of the blocks of events {part.first} to {part.last} is not what those events say"
        hint = """it is only a cache: `sqlite3 STORE "DROP TABLE event_blocks"` loses nothing"""
        yield Finding("blocks", "error", detail, hint)


_READ = {(st.NAME, st.VERSION), (at_hand.NAME, at_hand.VERSION)}


class _Witness:
    """Tasks of a large run that were let go while it was folded: what each was, in a few bytes.

    When it is needed again it is folded from its own events, by the code that readers use, and has to be the same.
    """

    def __init__(self, log: Log, run_id: str) -> None:
        self._log, self._run_id = log, run_id
        self._seen: dict[str, bytes] = {}
        self.otherwise: set[str] = set()  # Tasks that are read otherwise than they were folded.
        self._one: OneTask | None = None

    def behind(self, seq: int) -> Singles:
        """As of a seq."""
        self._one = OneTask(self._log, self._run_id, seq, use_snapshots=False)
        return self

    def told(self, task: TaskState) -> None:
        """A task is let go."""
        self._seen[task.task.task_id] = _digest(task)

    @property
    def has_all(self) -> bool:
        """See ``Singles``."""
        assert self._one is not None
        return self._one.has_all

    def some(self, task_ids: Sequence[str]) -> list[TaskState]:
        """See ``Singles``."""
        assert self._one is not None
        found = self._one.some(task_ids)
        for task in found:
            if self._seen.get(task.task.task_id) != _digest(task):
                self.otherwise.add(task.task.task_id)
        return found


def _digest(task: TaskState) -> bytes:
    return blake2b(orjson.dumps(st.task_values(task)), digest_size=16).digest()


def _refolded(
    log: Log, run_id: str, snapshots: list[Snapshot], end: int, witness: _Witness
) -> tuple[list[Snapshot], RunState]:
    """Fold a run by one event after the other and from nothing: which snapshots are not what it was then, and what it is now."""
    state, wrong, waiting = st.initial(run_id), list[Snapshot](), deque(sorted(snapshots, key=lambda one: one.seq))
    past: list[Brief] = []  # Where a rollback comes, it begins anew with what counts of these.
    rolled_back = log.rolled_back(run_id, 0, end)
    writer: at_hand.Writer | None = None  # Of the state, once there is a light snapshot to be compared.
    for number, brief in enumerate(log.briefs(run_id, 0, end)):
        while waiting and brief[0] > waiting[0].seq:
            writer = writer or at_hand.Writer(state)
            wrong += [one for one in (waiting.popleft(),) if not _same(log, one, state, writer)]
        if rolled_back:
            past.append(brief)
        if brief[2] == RunRolledBack.__name__:
            state, writer = _effective(log, run_id, past), None
            continue
        record = decode_brief(run_id, brief)
        if not number and not rolled_back and log.has_task_index:
            begun = letting_go.begin(record, log.blob, witness.behind, witness.told)
            state = st.fold(state, record, log.blob) if begun is None else begun
        else:
            st.fold(state, record, log.blob)
        if isinstance(record.event, RunSubmitted | RunForked):
            writer = None
        if writer is not None:
            writer.learn(record.event)
        if number % letting_go.EVERY == 0:
            if writer is not None:
                writer.values()
            letting_go.let_go(state)
            state.touched.clear()
    writer = writer or at_hand.Writer(state)
    wrong += [one for one in waiting if not _same(log, one, state, writer)]
    return wrong, placed(log, state)


def _effective(log: Log, run_id: str, briefs: list[Brief]) -> RunState:
    records = [decode_brief(run_id, brief) for brief in briefs]
    targets = {at: one.event.to_seq for at, one in enumerate(records) if isinstance(one.event, RunRolledBack)}
    kept, _ = kept_positions([one.seq for one in records], targets)
    state = st.initial(run_id)
    moved = [one for one in records if isinstance(one.event, RunMoved)]
    for record in [*(records[position] for position in kept), *moved]:
        st.fold(state, record, log.blob)
    if records:
        state.seq, state.version = records[-1].seq, records[-1].version
    return state


def _same(log: Log, one: Snapshot, state: RunState, writer: at_hand.Writer) -> bool:
    found = log.load_snapshot(one.run_id, one.projection, one.version, one.seq)
    if found is None or found[0] != one.seq:  # Somebody has dropped it meanwhile.
        return True
    try:
        if task_snapshots.is_one(one.projection, one.version):
            return task_snapshots.is_right(found[1], one.projection, state)
        if one.projection == at_hand.NAME:
            return not at_hand.differing(found[1], state, writer)
        return not _differing(st.load(one.run_id, found[1], log.blob), state)
    except (ParallelAgentsError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return False


def _differing(one: RunState, other: RunState) -> list[str]:
    """The names of what differs between two states of a run."""
    left, right = (orjson.loads(orjson.dumps(st.whole_values(state))) for state in (one, other))
    wrong = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    if list(one.tasks) != list(other.tasks):
        return [*wrong, "tasks"]
    pairs = zip(one.tasks.values(), other.tasks.values(), strict=True)
    return wrong + [now.task.task_id for was, now in pairs if _digest(was) != _digest(now)]


def _files(
    log: Log, project: Project, runs: dict[str, RunSummary], end: int, looked_at: dict[str, int], told: Told
) -> Iterator[Finding]:
    """Compare the refs and commits of every run with what its events name."""
    named = named_commits(log, end)
    places = places_of(log)
    repositories = repositories_of(project, places, [])  # One that cannot be used is named with each run that needs it.
    looked_at["commits"] = sum(len(one.kept) for one in named.values())
    looked_at["refs"] = sum(len(refs.held(one)) for one in repositories.values())
    by_repository: dict[Repository, list[str]] = {}
    for run_id, one in named.items():
        if not one.kept:
            continue
        place = places.get(run_id)
        repository = repository_of_run(project, repositories, run_id, None if place is None else place.repository)
        if repository is not None:
            by_repository.setdefault(repository, []).append(run_id)
        elif place is not None and place.repository is not None:
            detail = f"the repository of run {run_id} is not there: {place.repository}"
            yield Finding("refs", "error", detail, "put it back, or restore a backup there")
    done = 0
    for repository, run_ids in by_repository.items():
        gone = missing(repository, sorted({commit for run_id in run_ids for commit in named[run_id].kept}))
        for run_id in run_ids:
            told("runs with files", done, len(named))
            done += 1
            dispatched = run_id in runs and runs[run_id].holder is not None and holder_alive(runs[run_id].holder or {})
            yield from _refs_of_run(repository, run_id, named[run_id], gone, dispatched=dispatched)
            if run_id in runs and not dispatched and log.carried is None:  # An imported run has no branch here.
                yield from _branch(log, repository, run_id, named[run_id], end)


def repository_of_run(
    project: Project, repositories: dict[str, Repository], run_id: str, named: str | None
) -> Repository | None:
    """Where the refs of a run are: the repository that its events name, else one of the project that holds some of it."""
    for one in repositories.values():
        if named is not None and Path(named) in (one.top, one.git_dir):
            return one
    if named is None and run_id != STORE_RUN:
        return None
    return next((one for one in repositories.values() if refs.held(one, run_id)), None)


def _refs_of_run(
    repository: Repository, run_id: str, named: Named, gone: set[str], *, dispatched: bool
) -> Iterator[Finding]:
    held = by_run(repository).get(run_id, {})
    whose = "made by hand" if run_id == STORE_RUN else f"of run {run_id}"
    git = _spoken(repository)
    lost = [(commit, seq) for commit, seq in named.kept.items() if commit in gone]
    for commit, seq in lost[:SHOWN]:
        detail = f"commit {commit} {whose}, which event {seq} names, is not in {repository.git_dir}"
        yield Finding("commits", "error", detail, f"a clone or a backup may have it: {git} fetch CLONE {commit}")
    if dispatched:
        return  # Its refs are made by whoever dispatches it, some before and some a moment after their event.
    for name, commit in named.checkpoints.items():
        ref = refs.checkpoint_ref(run_id, name)
        if held.get(ref, commit) != commit:
            detail = f"{ref} holds {held[ref][:12]}, and by the log it is {commit[:12]}"
            yield Finding("refs", "error", detail, f"{git} update-ref {ref} {commit}")
    yield from _unheld(repository, run_id, named, gone, whose)
    strange = [ref for ref, commit in held.items() if not named.accounts_for(ref, commit)]
    for ref in strange[:SHOWN]:
        detail = f"no event names {ref}: whoever made it ended before saying so"
        yield Finding("refs", "warning", detail, f"look at it, then: {git} update-ref -d {ref}")


def _unheld(repository: Repository, run_id: str, named: Named, gone: set[str], whose: str) -> Iterator[Finding]:
    """Commits that no ref of their run reaches, so that git may delete them."""
    alone = unheld(repository, run_id, named) - gone
    for commit in [one for one in named.kept if one in alone][:SHOWN]:
        name = next((name for name, one in named.checkpoints.items() if one == commit), f"kept-{commit[:12]}")
        detail = f"no ref {whose} reaches commit {commit}, which event {named.kept[commit]} names: git may delete it"
        mend = f"{_spoken(repository)} update-ref {refs.checkpoint_ref(run_id, name)} {commit}"
        yield Finding("refs", "error", detail, mend)


def unheld(repository: Repository, run_id: str, named: Named) -> set[str]:
    """The commits that a run names as kept, and that are not there or that none of its refs reaches."""
    gone = missing(repository, sorted(named.kept))
    ours = {*refs.held(repository, run_id).values(), *filter(None, [refs.branch_commit(repository, run_id)])}
    return gone | _beyond(repository, [one for one in named.kept if one not in gone], ours)


def _beyond(repository: Repository, commits: list[str], reached_from: set[str]) -> set[str]:
    """Those of some commits that lie behind none of others."""
    left = set(commits) - reached_from
    if not left:
        return set()
    asked = "".join([*(f"{one}\n" for one in left), *(f"^{one}\n" for one in reached_from)])
    said = repository.git().run("rev-list", "--ignore-missing", "--stdin", stdin=asked.encode())
    return left & set(said.out.decode().split())


def _branch(log: Log, repository: Repository, run_id: str, named: Named, end: int) -> Iterator[Finding]:
    """Compare the branch of a run with its integration line."""
    state = Projector(log).state(run_id, end)
    line, stands = state.integration, refs.branch_commit(repository, run_id)
    if state.plan.workspace != "worktree" or line is None or stands == line:
        return
    name, git = f"{OURS}/{run_id}", _spoken(repository)
    if stands is None:
        detail = f"the branch {name} is gone; its run stands at {line[:12]}"
        yield Finding("branch", "warning", detail, f"{git} branch {name} {line}")
    elif stands in named.branch:
        follows = "" if state.ended else ", and follows once somebody dispatches it"
        level = "error" if state.ended else "warning"
        detail = f"the branch {name} stands at {stands[:12]}, and its run at {line[:12]}{follows}"
        mend = f"{git} branch -f {name} {line}" if state.ended else f"`parallel-agents resume {run_id}`"
        yield Finding("branch", "error" if level == "error" else "warning", detail, mend)
    else:
        mend = f"{git} branch YOURS {name}; {git} branch -f {name} {line}"
        if repository.git().text("log", "-1", "--format=%ce", stands) == IDENTITY[1]:
            what = (
                f"the branch {name} stands at {stands[:12]}, which we have made and no event names; its run stands at"
            )
            detail = f"{what} {line[:12]}: the end of the log is gone, or an older backup was brought back"
            yield Finding("branch", "error", detail, mend)
            return
        detail = f"somebody put {stands[:12]} on the branch {name}; its run stands at {line[:12]}"
        ours = not _beyond(repository, [line], {stands})
        yield Finding("branch", "warning" if ours else "error", detail, mend)


def _spoken(repository: Repository) -> str:
    return f"git --git-dir {repository.git_dir}" if repository.shadow else f"git -C {repository.top}"
