"""Where to stop in a run: at events of a type, at changes of a task, at conflicts, and where an expression comes to hold.

Whether a breakpoint is met at a position depends on that position and the one before it alone, so it is met at the same ones on
the way there and on the way back.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from parallel_agents.debugger.expressions import Expression, ExpressionError, Here, condition
from parallel_agents.debugger.frames import Frame, Frames
from parallel_agents.debugger.tape import Tape
from parallel_agents.eventstore.errors import InvalidUsage, UnknownTask, nearest
from parallel_agents.eventstore.events import EVENT_TYPES
from parallel_agents.projections.status import task_values

CONFLICT: Final = "ConflictDetected"
_AT_ONCE: Final = 1000  # Positions that are looked at on the way back before those before them.
_BETWEEN: Final = 200  # Positions between two words on how far a search is.
_SUCH_AS: Final = "such as TaskFailed, task NAME, conflict, cost > 1.5, or status('NAME') == 'running'"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """One condition on the events of a run. Exactly one of the three is there."""

    text: str
    types: frozenset[str] = frozenset()
    task_id: str = ""
    holds: Expression | None = None  # Met where it holds and did not before.


def breakpoint_of(text: str, task_ids: Collection[str]) -> Breakpoint:
    """Read a breakpoint: types of events, ``task NAME``, ``conflict``, or an expression that is true or not.

    Args:
        task_ids: the tasks that there are.
    Raises:
        UnknownTask: there is no such task.
        ExpressionError, InvalidUsage: the text makes no sense; the hint says what would.
    """
    said = " ".join(text.split())
    first, _, rest = said.partition(" ")
    if not said:
        raise InvalidUsage("a breakpoint is empty", hint=_SUCH_AS)
    if said == "conflict":
        return Breakpoint(said, frozenset({CONFLICT}))
    if first == "task" and rest and rest[0] not in "=!<>" and rest.split()[0] not in ("in", "not", "is", "and", "or"):
        if rest not in task_ids:
            raise UnknownTask(f"the run has no task {rest!r}", hint=nearest(rest, task_ids))
        return Breakpoint(said, task_id=rest)
    names = said.replace(",", " ").split()
    if all(name in EVENT_TYPES for name in names):
        return Breakpoint(", ".join(names), frozenset(names))
    if len(names) == 1 and names[0].isidentifier() and names[0][0].isupper():
        raise InvalidUsage(f"there is no event type {names[0]!r}", hint=nearest(names[0], EVENT_TYPES))
    try:
        return Breakpoint(said, holds=condition(text, task_ids))
    except ExpressionError as error:
        raise ExpressionError(error.message, hint=error.hint or _SUCH_AS) from None


def here_at(tape: Tape, frame: Frame) -> Here:
    """What expressions are evaluated on at a frame of position >= 0."""
    return Here(frame.state, frame.cost, tape, frame.position)


class Search:
    """Looks for the next position, or the last one before, at which any of some breakpoints is met.

    ``steps`` does it a little at a time, so that a screen can be drawn meanwhile; afterwards ``found`` is the position, or None.
    """

    def __init__(self, tape: Tape, frames: Frames, breakpoints: Sequence[Breakpoint]) -> None:
        self._tape, self._frames = tape, frames
        self._listed = [one for one in breakpoints if one.holds is None]
        self._holding = [one.holds for one in breakpoints if one.holds is not None]
        self.found: int | None = None

    def steps(self, position: int, *, forward: bool) -> Iterator[int]:
        """Search from a position, itself not included. Gives the position that is looked at, now and then."""
        bound = self._nearest_listed(position, forward=forward)
        self.found = bound
        if not self._holding:
            return
        if forward:
            last = len(self._tape) - 1 if bound is None else bound
            found = yield from self._first_in(position, last)
            self.found = bound if found is None else found
            return
        first = 0 if bound is None else bound
        end = position - 1
        while end >= first:
            begin = max(first, end - _AT_ONCE + 1)
            found = yield from self._last_in(begin - 1, end)
            if found is not None:
                self.found = found
                return
            end = begin - 1

    def _nearest_listed(self, position: int, *, forward: bool) -> int | None:
        found = [self._of_listed(one, position, forward=forward) for one in self._listed]
        met = [at for at in found if at is not None]
        if not met:
            return None
        return min(met) if forward else max(met)

    def _of_listed(self, one: Breakpoint, position: int, *, forward: bool) -> int | None:
        tape = self._tape
        if one.types:
            return tape.next_of(one.types, position) if forward else tape.previous_of(one.types, position)
        places = changes_of(tape, self._frames, one.task_id)
        if forward:
            return next((at for at in places if at > position), None)
        return next((at for at in reversed(places) if at < position), None)

    def _held(self, frame: Frame) -> list[bool]:
        if frame.position < 0:
            return [False] * len(self._holding)
        here = here_at(self._tape, frame)
        return [bool(one.value(here)) for one in self._holding]

    def _first_in(self, after: int, upto: int) -> Generator[int, None, int | None]:
        """The first position in ``after < position <= upto`` at which an expression comes to hold."""
        held = self._held(self._frames.at(after))
        for frame in self._frames.walk(after, upto):
            now = self._held(frame)
            if any(new and not old for new, old in zip(now, held, strict=True)):
                return frame.position
            held = now
            if frame.position % _BETWEEN == 0:
                yield frame.position
        return None

    def _last_in(self, after: int, upto: int) -> Generator[int, None, int | None]:
        """The last such position."""
        found, held = None, self._held(self._frames.at(after))
        for frame in self._frames.walk(after, upto):
            now = self._held(frame)
            if any(new and not old for new, old in zip(now, held, strict=True)):
                found = frame.position
            held = now
            if frame.position % _BETWEEN == 0:
                yield frame.position
        return found


def changes_of(tape: Tape, frames: Frames, task_id: str) -> list[int]:
    """Where the events of a task stand, and the rollbacks after which it is another than before; ascending."""
    moved = []
    for position in tape.rollbacks:
        before, now = (frames.at(at).state.tasks.get(task_id) for at in (position - 1, position))
        if (None if before is None else task_values(before)) != (None if now is None else task_values(now)):
            moved.append(position)
    return sorted({*tape.of_task(task_id), *moved})
