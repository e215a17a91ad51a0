"""Refs that hold checkpoints: of runs that no log knows, those that no event names, and those that somebody gives up.

A ref of a run that this store does not know may be of a store elsewhere. One that no event of its run names was made by a
command that was killed before it could append. Either goes only where its commit is reached by what stays, or where
somebody says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from parallel_agents.checkpoint import refs
from parallel_agents.checkpoint.entries import entries
from parallel_agents.checkpoint.reaching import OUR_REFS, bytes_of, unreached, written_at
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.crash_points import reach
from parallel_agents.eventstore.events import (
    STORE_RUN,
    CheckpointCreated,
    CheckpointsDropped,
    RunForked,
    RunSubmitted,
    TaskStarted,
)
from parallel_agents.eventstore.log import Draft, Log, wall_clock_us
from parallel_agents.eventstore.record import decode_brief
from parallel_agents.leftovers import UNDER_WAY_S, Item, Stays
from parallel_agents.projections import status as st
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.runs import RunSummary
from parallel_agents.projections.status import RunState
from parallel_agents.run_standing import KnownRuns, needed


def by_run(repository: Repository) -> dict[str, dict[str, str]]:
    """The refs of ours in a repository, by run."""
    found: dict[str, dict[str, str]] = {}
    for ref, commit in refs.held(repository).items():
        found.setdefault(ref.removeprefix(OUR_REFS).partition("/")[0], {})[ref] = commit
    return found


def at_work_elsewhere(repository: Repository, home: Path) -> dict[str, Path]:
    """Runs of other stores that have a checkout of this repository, with its place."""
    found = {}
    for entry in entries(repository):
        if entry.ours and entry.path is not None and home not in entry.path.parents:
            found[entry.path.parent.name] = entry.path
    return found


def strangers(
    repository: Repository, known: KnownRuns, home: Path, older_than_s: float, *, lost: bool
) -> list[Item | Stays]:
    """What becomes of refs of runs that no log knows.

    Args:
        home: the folder that our own checkouts lie below.
        older_than_s: younger ones stay; those of the last hour always, because a submission holds refs before its event.
        lost: also those whose commits nothing else reaches.
    """
    held = {run_id: of for run_id, of in by_run(repository).items() if run_id not in {*known.summaries, STORE_RUN}}
    candidates = {ref: commit for of in held.values() for ref, commit in of.items()}
    alone = unreached(repository, set(candidates.values()), candidates)
    others = at_work_elsewhere(repository, home)
    found: list[Item | Stays] = []
    for run_id, of in held.items():
        name = f"{OUR_REFS}{run_id}"
        stays = known.stranger(run_id) or (f"its run works in {others[run_id]}" if run_id in others else "")
        if stays:
            found.append(Stays(name, stays))
            continue
        old = [ref for ref in of if _age_s(repository, ref) >= max(older_than_s, UNDER_WAY_S)]
        reached = tuple(ref for ref in old if of[ref] not in alone)
        if reached:
            why = "no log knows its run, and other refs reach its commits"
            found.append(Item("ref", name, why, run_id=run_id, repository=repository, parts=reached))
        left = tuple(ref for ref in old if of[ref] in alone)
        if left and lost:
            size = bytes_of(repository, [of[ref] for ref in left], candidates)
            why = "no log knows its run, and nothing else reaches its commits"
            found.append(Item("ref", name, why, size, run_id, repository=repository, parts=left))
        elif left:
            why = "no log here knows its run, but nothing else reaches its commits, and another store may know it"
            found.append(Stays(name, why, "`parallel-agents gc --lost-refs` removes it if no such store is left"))
    return found


def unnamed(log: Log, repository: Repository, known: KnownRuns, attempts: Path) -> dict[str, dict[str, str]]:
    """Refs of this store's runs, and of checkpoints made by hand, that no event accounts for: by run, with their commits.

    Those of a run that goes on are of a dispatcher that has still to append, or will be.

    Args:
        attempts: the folder of all attempts.
    """
    found: dict[str, dict[str, str]] = {}
    for run_id, held in by_run(repository).items():
        if run_id == STORE_RUN:
            ours = not known.stranger(run_id)
        else:
            ours = run_id in known.summaries and not needed(log, run_id, attempts / run_id)
        if not ours:
            continue
        names, commits = _accounted(log, run_id)
        left = {ref: one for ref, one in held.items() if ref.rpartition("/")[2] not in names and one not in commits}
        if left:
            found[run_id] = left
    return found


def _accounted(log: Log, run_id: str) -> tuple[set[str], set[str]]:
    """The ids that refs of a run may be called after, and the commits that it began with."""
    names: set[str] = set()
    commits: set[str] = set()
    for brief in log.briefs(run_id, where=_ACCOUNTS):
        match decode_brief(run_id, brief).event:
            case CheckpointCreated(checkpoint_id=name):
                names.add(name)
            case TaskStarted(task_id=task_id, attempt_id=attempt_id):
                names |= {task_id, attempt_id}
            case RunSubmitted(base_commit=commit):
                commits.add(commit or "")
            case RunForked(parent=parent, commit=commit):
                commits.add(commit or "")
                names |= _accounted(log, parent)[0]
            case _:
                pass
    return names, commits


_ACCOUNTS = "type IN ('RunSubmitted', 'RunForked', 'TaskStarted', 'CheckpointCreated')"


def forgotten(
    repository: Repository, found: Mapping[str, Mapping[str, str]], older_than_s: float, *, lost: bool
) -> list[Item | Stays]:
    """What becomes of refs that no event names.

    Args:
        found: see ``unnamed``.
        older_than_s, lost: see ``strangers``.
    """
    candidates = {ref: commit for of in found.values() for ref, commit in of.items()}
    alone = unreached(repository, set(candidates.values()), candidates)
    made: list[Item | Stays] = []
    for run_id, held in found.items():
        name, why = f"{OUR_REFS}{run_id}", "no event names it, because a command was killed"
        of = {ref: one for ref, one in held.items() if _age_s(repository, ref) >= max(older_than_s, UNDER_WAY_S)}
        # Those made by hand have no run of their own: a store that we do not see may know them.
        going = tuple(ref for ref in of if lost or (run_id != STORE_RUN and of[ref] not in alone))
        if going:
            size = bytes_of(repository, [of[ref] for ref in going], candidates)
            made.append(Item("ref", name, why, size, run_id, repository=repository, parts=going))
        for ref in [one for one in of if one not in going]:
            hint = f"`git branch kept {of[ref][:12]}` keeps it, `parallel-agents gc --lost-refs` removes it"
            because = "nothing else reaches its commit" if of[ref] in alone else "another store may know it"
            made.append(Stays(ref, f"{why}, but {because}", hint))
    return made


def _age_s(repository: Repository, ref: str) -> float:
    written = written_at(repository, ref)
    return 0.0 if written is None else time.time() - written


def given_up(
    log: Log, repository: Repository, runs: Mapping[str, RunSummary], attempts: Path, older_than_s: float
) -> list[Item | Stays]:
    """Checkpoints of this store's runs that may go where somebody asks for it, and why the others stay.

    Args:
        runs: those whose files are in this repository; of the whole store, oldest first.
        attempts: the folder of all attempts.
    """
    parents = {run.parent for run in runs.values()}
    latest = next(reversed(list(runs)), None)
    found: list[Item | Stays] = []
    for run_id, held in by_run(repository).items():
        if run_id not in runs:
            continue
        name, run = f"{OUR_REFS}{run_id}", runs[run_id]
        stays = _indispensable(run, is_latest=run_id == latest, is_parent=run_id in parents)
        stays = stays or needed(log, run_id, attempts / run_id) or _too_young(run, older_than_s)
        if stays:
            found.append(Stays(name, stays))
            continue
        state = Projector(log).state(run_id)
        if not _is_home(log, repository, state):
            found.append(Stays(name, "its result is not merged", f"`parallel-agents merge {run_id}` brings it to you"))
            continue
        going = {ref: commit for ref, commit in held.items() if commit != state.integration}
        if going:
            size = bytes_of(repository, going.values(), going)
            why = f"its run has {run.status}, nothing builds on it, and you asked for it; there is no way back to them"
            found.append(
                Item("checkpoints", name, why, size, run_id, repository=repository, parts=tuple(sorted(going)))
            )
    return found


def _indispensable(run: RunSummary, *, is_latest: bool, is_parent: bool) -> str:
    if run.status not in st.ENDED:
        return f"its run is {run.status}"
    if is_latest:
        return "its run is the latest"
    return "its run has a fork" if is_parent else ""


def _too_young(run: RunSummary, older_than_s: float) -> str:
    ended_us = run.ended_at_us or 0
    young = wall_clock_us() - ended_us < older_than_s * 1e6
    return "its run has ended too short a time ago" if young else ""


def _is_home(log: Log, repository: Repository, state: RunState) -> bool:
    """Whether the result of a run is where the user has it: in the directory, or on a branch of theirs."""
    if state.plan.workspace != "worktree" or state.integration is None or state.integration == state.base_commit:
        return True
    if state.merged_into is not None:
        return True
    ours = {*refs.held(repository), refs.branch_ref(state.run_id)}
    return not unreached(repository, [state.integration], ours)


def drop(log: Log | None, item: Item, attempts: Path) -> str:
    """Remove refs. Those of a run of ours are said to be gone before they are.

    Returns:
        Why they stay; an empty text where they are gone.
    Raises:
        GitFailed: they cannot be removed; then none was.
    """
    assert item.repository is not None
    assert item.run_id is not None
    run_id, repository = item.run_id, item.repository
    summary = None if log is None else Projector(log).runs().get(run_id)
    stays = needed(log, run_id, attempts / run_id)
    if stays:
        return stays
    if log is not None and item.kind == "ref" and (summary is not None or run_id == STORE_RUN):
        still = unnamed(log, repository, KnownRuns(Projector(log).runs()), attempts).get(run_id, {})
        if not still.keys() >= set(item.parts):
            return "the log names it by now" if run_id == STORE_RUN else "its run has come into the log"
    if item.kind == "checkpoints":
        assert log is not None

        def add(draft: Draft) -> None:
            draft.add(run_id, CheckpointsDropped(refs=len(item.parts)))

        log.transact(add)
        reach("gc.dropping")
    refs.drop(repository, item.parts)
    return ""


def usage(repository: Repository) -> dict[str, int]:
    """How many refs of ours there are, and what of the disk nothing else reaches."""
    held = refs.held(repository)
    return {"refs": len(held), "bytes": bytes_of(repository, held.values(), held)}
