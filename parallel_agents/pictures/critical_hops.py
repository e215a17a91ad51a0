"""The critical path of what happened: from the last end back to the submission, by what let each thing begin. Pure.

Not the longest path of the plan (``graph.critical_path``) but the chain of attempts and waits that the run's length is made
of: an attempt that ended a moment sooner would have let the next one on it start a moment sooner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from parallel_agents.pictures.stretches import ATTEMPT, OVER, WAIT, Stretch, Waits
from parallel_agents.scheduler.scopes import meet

SUBMITTED, DEPENDENCY, SLOT, STAGE, FILES, RETRY, ITSELF = (
    "submitted", "dependency", "slot", "stage", "files", "retry", "itself",
)  # fmt: skip
_BY_SLOT: Final = frozenset({"no_slot", "lower_rank", "one_by_one", "queue_full", "workers", "memory", "requests"})
_FOR_OTHERS: Final = frozenset({"dependencies", "stage"})
_STOPS: Final = frozenset({"paused", "blocked", "approval", "no_dispatcher"})
"""Waits in which the run, or what the path is at, stood still for a person or for want of a process."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A part of the path. Times are microseconds since the epoch; a hop begins where the one before it ends.

    Attributes:
        kind, code, why: as of a ``Stretch``.
        link: what leads to it from the hop before: the end of a dependency, a slot that was freed, a stage that was over, files
            that were let go of, a retry; ``itself``: the same task did something else before; submitted: nothing is before it.
    """

    task_id: str
    kind: str
    code: str
    why: str
    start_us: int
    end_us: int
    attempt_id: str
    link: str

    @property
    def length_us(self) -> int:
        """How long it was."""
        return self.end_us - self.start_us


def critical_hops(found: Waits) -> list[Hop]:
    """The path, oldest hop first: without a gap from the submission to the last end. Empty where nothing took any time.

    A task that waited was let start by the last end of what it waited for, where its wait has such an end: of a dependency, of
    an earlier stage, of the attempt that freed a slot or let its files go. Every other wait is a hop of its own.
    """
    walk = _Walk(found)
    last = _last(found)
    return [] if last is None else walk.back(*last)


def stood_still_us(hops: Iterable[Hop]) -> int:
    """How much of the path was pauses, waits for a person and times in which no process dispatched."""
    return sum(hop.length_us for hop in hops if hop.kind == WAIT and hop.code in _STOPS)


def shares(hops: Iterable[Hop]) -> Counter[str]:
    """Microseconds of the path: of attempts, and of each kind of wait by its code."""
    found: Counter[str] = Counter()
    for hop in hops:
        found[ATTEMPT if hop.kind == ATTEMPT else hop.code] += hop.length_us
    return found


def _last(found: Waits) -> tuple[str, int] | None:
    """The stretch that ended last. Of several an attempt, of these one that goes on, of these the one that began first.

    Where all of them are waits, one that waits for others is told by what the others wait for.
    """
    ends = [
        (of[-1].kind != ATTEMPT, not of[-1].open, of[-1].code in _FOR_OTHERS, of[-1].start_us, number, name)
        for number, (name, of) in enumerate(found.by_task.items())
        if of and of[-1].end_us == found.end_us
    ]
    if not ends:
        return None
    name = min(ends)[-1]
    return name, len(found.by_task[name]) - 1


class _Walk:
    """From one stretch to what let it begin. Whatever is jumped to is jumped to once, so that the walk comes to an end."""

    def __init__(self, found: Waits) -> None:
        self._found = found
        self._seen: set[tuple[str, int]] = set()
        tasks = found.state.tasks
        self._attempts = sorted(
            (one.end_us, tasks[name].index, number, name)
            for name, of in found.by_task.items()
            for number, one in enumerate(of)
            if one.kind == ATTEMPT and not one.open
        )

    def back(self, name: str, number: int) -> list[Hop]:
        hops: list[Hop] = []
        at_us, by_task = self._found.end_us, self._found.by_task
        while True:
            self._seen.add((name, number))
            one = by_task[name][number]
            link, begin_us, goes_to = self._before(one, name, number, at_us)
            if one.kind != ATTEMPT and begin_us == at_us and hops and hops[-1].task_id == name:
                hops[-1] = replace(
                    hops[-1], link=link
                )  # It waited no longer: what it waited for leads to what it did then.
            else:
                hops.append(_hop(one, begin_us, at_us, link))
            at_us = begin_us
            if goes_to is None:
                break
            name, number = goes_to
        if at_us > self._found.begin_us:  # It had ended in the run that this one was forked from.
            hops.append(Hop(name, OVER, "", "", self._found.begin_us, at_us, "", SUBMITTED))
        hops.reverse()
        return hops

    def _before(self, one: Stretch, name: str, number: int, at_us: int) -> tuple[str, int, tuple[str, int] | None]:
        """What led to a stretch, from where on it counts, and the stretch before it on the path."""
        if one.kind == WAIT and (freed := self._freed_by(one, at_us)) is not None:
            link, other, place = freed
            return link, self._found.by_task[other][place].end_us, (other, place)
        if number == 0:
            return SUBMITTED, one.start_us, None
        before = self._found.by_task[name][number - 1]
        retried = before.kind == ATTEMPT and one.kind == WAIT
        return RETRY if retried else ITSELF, one.start_us, (name, number - 1)

    def _freed_by(self, one: Stretch, at_us: int) -> tuple[str, str, int] | None:
        """The last end, in a wait, of what it was a wait for: how, whose, and which of its stretches."""
        tasks = self._found.state.tasks
        spec = tasks[one.task_id].task
        if one.code == "dependencies":
            other = self._last_over(spec.dependencies, one, at_us)
            return None if other is None else (DEPENDENCY, *other)
        if one.code in ("stage", "barrier"):
            earlier = [name for name, task in tasks.items() if task.task.stage < spec.stage]
            other = self._last_over(earlier, one, at_us)
            return None if other is None else (STAGE, *other)
        if one.code == "scope":
            other = self._last_attempt(one, at_us, files=spec.files)
            return None if other is None else (FILES, *other)
        if one.code in _BY_SLOT:
            other = self._last_attempt(one, at_us)
            return None if other is None else (SLOT, *other)
        return None

    def _last_over(self, names: Sequence[str], one: Stretch, at_us: int) -> tuple[str, int] | None:
        best: tuple[int, int, str, int] | None = None
        for order, name in enumerate(names):
            of = self._found.by_task[name]
            for number in range(len(of) - 1, -1, -1):
                end_us = of[number].end_us
                if end_us <= one.start_us:
                    break
                ended = not of[number].open and (number + 1 == len(of) or of[number + 1].kind == OVER)
                if ended and of[number].kind != OVER and end_us <= at_us and (name, number) not in self._seen:
                    best = max(best or (end_us, -order, name, number), (end_us, -order, name, number))
                    break
        return None if best is None else best[2:]

    def _last_attempt(self, one: Stretch, at_us: int, files: Sequence[str] = ()) -> tuple[str, int] | None:
        """Of the attempts that ended in a wait the last one, of several at one time that of the first task."""
        place = bisect_right(self._attempts, at_us, key=lambda known: known[0]) - 1
        found: tuple[str, int] | None = None
        found_us = one.start_us
        while place >= 0 and self._attempts[place][0] >= max(found_us, one.start_us + 1):
            end_us, _, number, name = self._attempts[place]
            place -= 1
            if (name, number) in self._seen or (files and not meet(files, self._found.state.tasks[name].task.files)):
                continue
            found, found_us = (name, number), end_us
        return found


def _hop(one: Stretch, begin_us: int, end_us: int, link: str) -> Hop:
    return Hop(one.task_id, one.kind, one.code, one.why, begin_us, end_us, one.attempt_id, link)
