"""Unfinished work that will not merge, found while it still runs: a warning, nothing is decided by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from parallel_agents.checkpoint import merging, snapshot
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.eventstore.errors import ParallelAgentsError

EVERY_S = 2.0
"""Between two looks; ten times as long as a look took, where that is more, so that it never takes a tenth of a core."""


class Unfinished(NamedTuple):
    """An attempt that runs, with its checkout."""

    task_id: str
    attempt_id: str
    folder: Path
    base: str


class Meeting(NamedTuple):
    """Two pieces of work that do not merge. Of merged work, ``other_attempt`` is empty."""

    task_id: str
    attempt_id: str
    other_task_id: str
    other_attempt: str
    paths: tuple[str, ...]
    kinds: tuple[str, ...]
    commit: str
    onto: str


class _Taken(NamedTuple):
    of: Unfinished
    commit: str
    paths: frozenset[str]


def probe(repository: Repository, running: Sequence[Unfinished], line: str) -> list[Meeting]:
    """Compare what attempts have changed so far with each other and with the integration line.

    Only work whose changed paths meet is merged, on objects alone. A checkout that changes while it is looked at is
    looked at again the next time.

    Args:
        line: the integration line as it is now.
    """
    taken = [one for one in (_take(repository, attempt) for attempt in running) if one is not None]
    found = []
    for earlier, later in combinations(taken, 2):
        if earlier.paths & later.paths:
            of, other = later.of, earlier.of
            found += _meeting(repository, of, later.commit, other.task_id, other.attempt_id, earlier.commit)
    for one in taken:
        if one.of.base != line and one.paths & _paths(repository, one.of.base, line):
            found += _meeting(repository, one.of, one.commit, "", "", line)
    return found


def _take(repository: Repository, attempt: Unfinished) -> _Taken | None:
    try:
        at_us = time.time_ns() // 1000
        made = snapshot.snapshot(
            repository, attempt.folder, message=f"{attempt.task_id}, unfinished", parents=(attempt.base,), at_us=at_us
        )
        return _Taken(attempt, made.commit, _paths(repository, attempt.base, made.commit))
    except (ParallelAgentsError, OSError):
        return None


def _paths(repository: Repository, a: str, b: str) -> frozenset[str]:
    return frozenset(change.path for change in snapshot.changed_paths(repository, a, b))


def _meeting(
    repository: Repository, of: Unfinished, commit: str, other_task: str, other_attempt: str, onto: str
) -> list[Meeting]:
    made = merging.merge(repository, onto, commit, message="probe", at_us=0)
    if not made.conflicts:
        return []
    paths, kinds = tuple(one.path for one in made.conflicts), tuple(one.kind for one in made.conflicts)
    return [Meeting(of.task_id, of.attempt_id, other_task, other_attempt, paths, kinds, commit, onto)]
