"""Events by what they are about, read from the log with as few rows as it takes.

The events of a task are found by the index of tasks. A run is read by its own index. Of the whole store, and of a run that is
very long, only those blocks are read that may hold what is wanted (see ``blocks``), and what lies behind them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from parallel_agents.eventstore import blocks, text_marks
from parallel_agents.eventstore.blocks import KEEP_EVERY, Part
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row, damaged
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.task_seqs import run_ids, seqs_of_task

LONG_RUN: Final = 50_000
"""Events of a run from which on the blocks are asked: before, its own index leads to them faster."""
_CHUNK: Final = 2000
_ROWS_A_RUN: Final = 16  # Are read in the time in which a run is asked for its events of a task.
_NAMES_AT_ONCE: Final = 500  # Attempts; more are looked for in every block.
_PLAIN: Final = re.compile(
    r"[^\x00-\x1f\"\\\x7f-\U0010ffff]+"
)  # What JSON has as it is, and of which SQLite knows the case.
_LONGEST_PATTERN: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are meant. What is left empty leaves none out; what is given has to fit all at once.

    Attributes:
        run_id: of this run; None: of all.
        task_id: that name this task as theirs.
        attempts: that name one of these attempts as theirs; None: of any or none.
        text: that hold this in one of their values, whatever the case of its letters.
        first, last: ``first <= seq <= last``.
        until_us: not appended after this time, in microseconds since the epoch.
    """

    run_id: str | None = None
    types: tuple[str, ...] = ()
    task_id: str | None = None
    attempts: frozenset[str] | None = None
    actor: str | None = None
    text: str | None = None
    first: int = 1
    last: int | None = None
    until_us: int | None = None

    def fits(self, row: Row) -> bool:
        """Whether an event is among them, by all that the conditions of a query cannot tell."""
        if self.task_id is None and self.attempts is None and self.text is None:
            return True
        try:
            data = orjson.loads(row.body)
        except ValueError:
            raise damaged(row.seq) from None
        if self.task_id is not None and data.get("task_id") != self.task_id:
            return False
        if self.attempts is not None and data.get("attempt_id") not in self.attempts:
            return False
        return self.text is None or holds(data, self.text.lower())


def holds(data: dict[str, Any], text: str) -> bool:
    """Whether one of an event's values holds a text, which is in lower case."""
    return any(_holds(value, text) for value in data.values())


def _holds(value: Any, text: str) -> bool:
    match value:
        case str():
            return text in value.lower()
        case dict():
            return any(text in name.lower() or _holds(inner, text) for name, inner in value.items())
        case list():
            return any(_holds(inner, text) for inner in value)
        case bool() | None:
            return False
        case _:
            return text in orjson.dumps(value).decode()


def select(log: Log, wanted: Wanted, upto: int, *, newest: int | None = None) -> Iterator[Row]:
    """The events that are wanted, oldest first.

    Args:
        upto: nothing behind this seq.
        newest: only so many, the newest of them.
    """
    way = _way_to(log, wanted, upto)
    read: _Read
    if (seqs := _seqs_of_task(log, wanted, way, newest)) is not None:
        read = partial(_of_seqs, seqs)
    else:
        read = _of_run if way.by_run else _of_parts
    if newest is None:
        yield from filter(wanted.fits, read(log, wanted, way, "ASC", _CHUNK))
    else:  # What is asked for in small numbers is mostly near the end.
        found = filter(wanted.fits, read(log, wanted, way, "DESC", min(newest, _CHUNK)))
        yield from reversed(list(islice(found, newest)))


def worth_blocks(log: Log, wanted: Wanted, upto: int) -> bool:
    """Whether blocks would have helped, had they been caught up."""
    if wanted.task_id is not None and log.has_task_index:
        return False
    named = wanted.types or wanted.task_id or wanted.attempts or wanted.actor or wanted.text
    return bool(named) and _is_far(log, wanted, upto, blocks.covered(log))


def worth_texts(log: Log, wanted: Wanted, upto: int) -> bool:
    """Whether it would have helped had the blocks told of their texts as far as they told of names."""
    if wanted.text is None or not text_marks.can_tell(wanted.text):
        return False
    return _is_far(log, wanted, upto, blocks.texts_covered(log))


def _is_far(log: Log, wanted: Wanted, upto: int, done: int) -> bool:
    way = _way_to(log, wanted, upto)
    return not way.by_run and way.last - max(way.first, done) > KEEP_EVERY


class _Way(NamedTuple):
    """How the events are read: between two seqs, by the run's index or past it, and by which condition."""

    by_run: bool
    first: int
    last: int
    condition: str
    values: list[object]


_Read = Callable[[Log, Wanted, _Way, str, int], Iterator[Row]]


def _way_to(log: Log, wanted: Wanted, upto: int) -> _Way:
    first, last = wanted.first, upto if wanted.last is None else min(upto, wanted.last)
    condition, values = _condition(wanted)
    if wanted.run_id is None:
        return _Way(False, first, last, condition, values)
    length = log.version(wanted.run_id)
    if length <= min(LONG_RUN, last - first + 1):
        return _Way(True, first, last, condition, values)
    edges = log.ask("SELECT seq FROM events WHERE run_id = ? AND version IN (1, ?)", (wanted.run_id, length))
    first, last = max(first, min(edges)[0]), min(last, max(edges)[0])
    return _Way(False, first, last, f" AND +run_id = ?{condition}", [wanted.run_id, *values])


def _condition(wanted: Wanted) -> tuple[str, list[object]]:
    """What a query can tell, which lets more through than is wanted but leaves nothing out; but for run and seq."""
    parts: list[str] = []
    values: list[object] = []
    if wanted.types:
        if all(name.startswith("Run") for name in wanted.types):
            parts.append(RUN_LEVEL)  # For its index.
        parts.append(f"+type IN ({', '.join('?' * len(wanted.types))})")
        values += wanted.types
    if wanted.actor is not None:
        parts.append("actor = ?")
        values.append(wanted.actor)
    if wanted.until_us is not None:
        parts.append("at <= ?")
        values.append(wanted.until_us)
    # LIKE's own signs in what is looked for let more through, no less.
    patterns = [] if wanted.task_id is None else [f"{wanted.task_id[:_LONGEST_PATTERN]}"]
    if wanted.attempts is not None and len(wanted.attempts) == 1:
        patterns.append(next(iter(wanted.attempts))[:_LONGEST_PATTERN])
    if wanted.text is not None:
        patterns.append(max(_PLAIN.findall(wanted.text), key=len, default="")[:_LONGEST_PATTERN])
    for pattern in filter(None, patterns):
        parts.append("(body = '' OR body LIKE ?)")
        values.append(f"%{pattern}%")
    return "".join(f" AND {part}" for part in parts), values


def _of_run(log: Log, wanted: Wanted, way: _Way, order: str, chunk: int) -> Iterator[Row]:
    sign, version = (">", 0) if order == "ASC" else ("<", 2**62)
    where = f"run_id = ? AND version {sign} ? AND seq >= ? AND seq <= ?{way.condition}"
    while True:
        values = (wanted.run_id, version, way.first, way.last, *way.values)
        rows = log.rows_where(where, values, order=f"version {order}", limit=chunk)
        yield from rows
        if len(rows) < chunk:
            return
        version, chunk = rows[-1].version, _CHUNK


def _seqs_of_task(log: Log, wanted: Wanted, way: _Way, newest: int | None) -> list[int] | None:
    """Where the events of the task that is wanted stand; None where that is not asked, or sooner found in another way.

    In a store of very many runs few of which have such a task, it takes longer to ask for each run than to read the blocks.
    """
    if wanted.task_id is None or not log.has_task_index:
        return None
    runs: list[str] | None
    if wanted.run_id is not None:
        runs = [wanted.run_id]
    else:
        parts, _ = _parts_of_names(log, wanted, way)
        read = sum(part.last - part.first + 1 for part in parts)
        if newest is not None:
            read = min(read, newest << blocks.BITS)  # The newest are mostly in the last blocks.
        runs = run_ids(log, read // _ROWS_A_RUN)
    return None if runs is None else seqs_of_task(log, wanted.task_id, runs, way.first, way.last)


def _of_seqs(seqs: list[int], log: Log, _: Wanted, way: _Way, order: str, chunk: int) -> Iterator[Row]:
    first, ordered = 0, seqs if order == "ASC" else seqs[::-1]
    where = f"seq IN (SELECT value FROM json_each(?)){way.condition}"
    while first < len(ordered):
        some = orjson.dumps(ordered[first : first + chunk]).decode()
        yield from log.rows_where(where, (some, *way.values), order=f"seq {order}")
        first, chunk = first + chunk, _CHUNK


def _of_parts(log: Log, wanted: Wanted, way: _Way, order: str, chunk: int) -> Iterator[Row]:
    where = f"seq >= ? AND seq <= ?{way.condition}"
    for first, last in _parts(log, wanted, way, newest_first=order == "DESC"):
        while first <= last:
            rows = log.rows_where(where, (first, last, *way.values), order=f"seq {order}", limit=chunk)
            yield from rows
            if len(rows) < chunk:
                break
            chunk = _CHUNK
            first, last = (rows[-1].seq + 1, last) if order == "ASC" else (first, rows[-1].seq - 1)


def _parts(log: Log, wanted: Wanted, way: _Way, *, newest_first: bool) -> Iterator[Part]:
    """The stretches of the log that may hold what is wanted, in an order."""
    parts, done = _parts_of_names(log, wanted, way)
    if wanted.text is not None:
        done = min(done, blocks.texts_covered(log))
    for part in reversed(parts) if newest_first else parts:
        if wanted.text is None or not done:
            yield part
        else:
            yield from blocks.parts_with(log, wanted.text, part, done, newest_first=newest_first)


def _parts_of_names(log: Log, wanted: Wanted, way: _Way) -> tuple[list[Part], int]:
    """The stretches that may hold the names that are wanted, oldest first, and the last seq that the blocks tell of."""
    first, last = way.first, way.last
    done = min(blocks.covered(log), last) if last - first > KEEP_EVERY else 0
    chosen: set[int] | None = None
    if done > first:
        for kind, names in (
            (blocks.TYPE, wanted.types),
            (blocks.ACTOR, () if wanted.actor is None else (wanted.actor,)),
            (blocks.TASK, () if wanted.task_id is None else (wanted.task_id,)),
            (blocks.ATTEMPT, tuple(wanted.attempts or ())),
        ):
            if names and len(names) <= _NAMES_AT_ONCE:
                in_body = kind in (blocks.TASK, blocks.ATTEMPT)
                of_names = blocks.blocks_of(log, kind, names, elsewhere=in_body)
                chosen = of_names if chosen is None else chosen & of_names
    if chosen is None:
        return ([Part(first, last)] if first <= last else []), done
    parts = blocks.parts_of(chosen, first, done)
    return ([*parts, Part(max(first, done + 1), last)] if done < last else parts), done
