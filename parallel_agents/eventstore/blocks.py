"""Which blocks of a long log hold events of a type, a task, an attempt, an actor or a text: so a question reads few of its rows.

A cache, kept beside the events and never needed: losing it changes no answer. Nothing of it is written when events are
appended; whoever has the time makes it go on from where it ends. Texts take most of what it costs, and are looked at only
for those who ask for one: how far they reach is marked by itself. An index of SQLite's own would cost a seventh more of
every append (see docs/adr/0028). A block is 256 events that follow each other in the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from parallel_agents.eventstore import text_marks
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.text_marks import Texts

BITS: Final = 8
BLOCK: Final = 1 << BITS
KEEP_EVERY: Final = 25_000
"""So many events may lie behind what is covered: a question reads them one by one, in some hundredths of a second."""
_BLOCKS_AT_ONCE: Final = 100

TYPE, TASK, ATTEMPT, ACTOR = "type", "task", "attempt", "actor"
_ELSEWHERE: Final = (
    "elsewhere"  # Holds bodies that are in an archive, or that are no JSON: who looks for a name reads it.
)
_COVERED: Final = "covered/2"  # How many blocks, and the hash of the last event of them. Another number: made anew.
_TEXTS_COVERED: Final = "texts/1"  # The same of the texts; never more of them.
_MARK: Final = "SELECT block, name FROM event_blocks WHERE kind = "
_UNMARK: Final = "DELETE FROM event_blocks WHERE kind = ?"

_TABLES: Final = (
    (
        "CREATE TABLE IF NOT EXISTS event_blocks (kind TEXT NOT NULL, name TEXT NOT NULL, block INTEGER NOT NULL,"
        " usd_micros INTEGER, PRIMARY KEY (kind, name, block)) WITHOUT ROWID"
    ),
    "CREATE TABLE IF NOT EXISTS event_block_texts (block INTEGER PRIMARY KEY, marks BLOB NOT NULL)",
)
_INSERT: Final = "INSERT OR REPLACE INTO event_blocks (kind, name, block, usd_micros) VALUES (?, ?, ?, ?)"
_INSERT_TEXTS: Final = "INSERT OR REPLACE INTO event_block_texts (block, marks) VALUES (?, ?)"
_TEXTS_BETWEEN: Final = "SELECT block, marks FROM event_block_texts WHERE block >= ? AND block < ?"
_THERE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'event_blocks'"


class Part(NamedTuple):
    """A stretch of the log: ``first <= seq <= last``."""

    first: int
    last: int


def covered(log: Log) -> int:
    """The last seq that the blocks tell of; 0 where there are none, or the log is not the one that they were made of."""
    return _last_of(log, _mark(log, _COVERED))


def texts_covered(log: Log) -> int:
    """The last seq of whose texts the blocks tell; never more than ``covered``."""
    return min(_last_of(log, _mark(log, _TEXTS_COVERED)), covered(log))


def _last_of(log: Log, mark: list[tuple[int, str]]) -> int:
    if not mark:
        return 0
    last, digest = mark[0][0] << BITS, mark[0][1]
    there = log.ask("SELECT hash FROM events WHERE seq = ?", (last,))
    return last if there and there[0][0].hex() == digest else 0


def _mark(log: Log, kind: str) -> list[tuple[int, str]]:
    """How many blocks are covered, and the hash of the last event of them."""
    return [(int(block), str(name)) for block, name in log.ask(f"{_MARK}'{kind}'")] if log.ask(_THERE) else []


def catch_up(log: Log, *, at_most: int | None = None) -> int:
    """Go on with the names in the blocks up to the end of the log. Gives the last seq that is covered then.

    Some of them a commit. Whoever has the store for itself at a moment hinders it: what could not be written is left to the
    next.

    Args:
        at_most: blocks.
    """
    done, end = covered(log), log.last_seq() >> BITS << BITS
    if at_most is not None:
        end = min(end, done + (at_most << BITS))
    forget = [] if done else [(f"DELETE FROM {table}", [()]) for table in ("event_blocks", "event_block_texts")]

    def summaries(after: int, upto: int) -> tuple[str, list[Any]]:
        return _INSERT, _names(log, after, upto)

    return _go_on(log, _COVERED, done, end, summaries, forget)


def catch_up_texts(log: Log, *, goes_on: Callable[[int, int], bool] = lambda _done, _end: True) -> int:
    """Go on with the texts of the blocks as far as their names reach. Gives the last seq that is covered then.

    Args:
        goes_on: asked before each commit with the last seq that is covered and the last that will be: whether to go on.
    """
    done, end = texts_covered(log), covered(log)
    forget = [] if done else [("DELETE FROM event_block_texts", [()])]

    def summaries(after: int, upto: int) -> tuple[str, list[Any]]:
        found = _texts(log, after, upto)
        return _INSERT_TEXTS, [(one.block, one.marks if one.known else text_marks.ANYTHING) for one in found]

    while done < end and goes_on(done, end):
        upto = min(end, done + (_BLOCKS_AT_ONCE << BITS))
        if (now := _go_on(log, _TEXTS_COVERED, done, upto, summaries, forget)) == done:
            break
        done, forget = now, []
    return done


def _go_on(
    log: Log,
    kind: str,
    done: int,
    end: int,
    summaries: Callable[[int, int], tuple[str, list[Any]]],
    forget: Sequence[tuple[str, Sequence[object]]],
) -> int:
    """Write what blocks hold, some of them a commit, each with how far it reaches then.

    Args:
        kind: of the mark that says so.
        summaries: gives a statement and its rows for a stretch.
        forget: what is to be done before the first of them.
    """
    stands: list[tuple[Any, ...]] = list(_mark(log, kind))
    while done < end:
        upto = min(end, done + (_BLOCKS_AT_ONCE << BITS))
        statement, rows = summaries(done, upto)
        last = log.ask("SELECT hash FROM events WHERE seq = ?", (upto,))
        digest = last[0][0].hex() if last else ""
        mark = (_INSERT, [(kind, digest, upto >> BITS, None)])
        if not log.keep(
            _TABLES, (f"{_MARK}'{kind}'", stands), [*forget, (_UNMARK, [(kind,)]), (statement, rows), mark]
        ):
            break
        done, stands, forget = upto, [(upto >> BITS, digest)], []
    return done


def _names(log: Log, after: int, upto: int) -> list[tuple[str, str, int, int | None]]:
    """What the events of a stretch name, as it is stored of their blocks."""
    found: dict[tuple[str, str, int], int | None] = {}
    query = "SELECT seq, type, actor, body FROM events WHERE seq > ? AND seq <= ?"
    for seq, type_, actor, body in log.ask(query, (after, upto)):
        block = (seq - 1) >> BITS
        found[TYPE, type_, block] = found[ACTOR, actor, block] = None
        data = text_marks.parsed(body)
        if data is None:
            found[_ELSEWHERE, "", block] = None
            continue
        task_id, attempt_id = data.get("task_id"), data.get("attempt_id")
        if isinstance(task_id, str):
            found[TASK, task_id, block] = None
        if isinstance(attempt_id, str):
            usd_micros = data.get("usd_micros") if type_ == "CostCharged" else None
            before = found.get((ATTEMPT, attempt_id, block))
            found[ATTEMPT, attempt_id, block] = before if usd_micros is None else (before or 0) + usd_micros
    return [(*key, value) for key, value in found.items()]


class _TextsOfBlock(NamedTuple):
    """The marks of the texts of a block, and whether they are all: not where bodies are in an archive, or damaged."""

    block: int
    marks: bytes
    known: bool


def _texts(log: Log, after: int, upto: int) -> list[_TextsOfBlock]:
    texts: dict[int, Texts] = defaultdict(Texts)
    elsewhere: set[int] = set()
    for seq, body in log.ask("SELECT seq, body FROM events WHERE seq > ? AND seq <= ?", (after, upto)):
        block = (seq - 1) >> BITS
        if not texts[block].add(body):
            elsewhere.add(block)
    return [_TextsOfBlock(block, seen.marks(), block not in elsewhere) for block, seen in texts.items()]


def left_out(log: Log) -> Part | None:
    """A stretch of the log of which the blocks do not tell all, though they say so; None where there is none.

    What they tell besides does no harm: it was known before the bodies of a run were moved to an archive.
    """
    done, last, last_text = 0, covered(log), texts_covered(log)
    while done < last:
        upto = min(last, done + (_BLOCKS_AT_ONCE << BITS))
        query = "SELECT kind, name, block, usd_micros FROM event_blocks WHERE block >= ? AND block < ?"
        known = set(log.ask(query, (done >> BITS, upto >> BITS)))
        marks = dict(log.ask(_TEXTS_BETWEEN, (done >> BITS, upto >> BITS)))
        if any(row not in known for row in _names(log, done, upto) if row[0] != _ELSEWHERE) or not all(
            one.block in marks and text_marks.tells(marks[one.block], one.marks)
            for one in _texts(log, done, min(upto, last_text))
        ):
            return Part(done + 1, upto)
        done = upto
    return None


def blocks_of(log: Log, kind: str, names: Collection[str], *, elsewhere: bool = True) -> set[int]:
    """The blocks that hold events of one of these names, and those of which nobody can tell without an archive.

    Args:
        elsewhere: whether the name stands in the body, which may be in an archive.
    """
    marks = ", ".join("?" * len(names))
    query = f"SELECT DISTINCT block FROM event_blocks WHERE kind = ? AND name IN ({marks})"
    found = {int(block) for (block,) in log.ask(query, (kind, *names))}
    if elsewhere:
        found.update(int(block) for (block,) in log.ask(query, (_ELSEWHERE, *[""] * len(names))))
    return found


def parts_with(log: Log, text: str, part: Part, done: int, *, newest_first: bool) -> Iterator[Part]:
    """What of a stretch of the log may hold a text in a value of an event, in an order; looked up as it is asked for.

    Args:
        done: of what lies behind this seq the texts are not covered.
    """
    wanted = text_marks.asked(text)
    if wanted is None or part.first > done:
        yield part
        return
    covered_part = Part(part.first, min(part.last, done))
    stretches = [*_stretches(covered_part)]
    behind = [Part(done + 1, part.last)] if part.last > done else []
    if newest_first:
        yield from behind
    for stretch in reversed(stretches) if newest_first else stretches:
        first, last = (stretch.first - 1) >> BITS, (stretch.last - 1) >> BITS
        marks = log.ask(_TEXTS_BETWEEN, (first, last + 1))
        found = {int(block) for block, held in marks if text_marks.may_hold(held, wanted)}
        parts = parts_of(found, stretch.first, stretch.last)
        yield from reversed(parts) if newest_first else parts
    if not newest_first:
        yield from behind


def _stretches(part: Part) -> Iterator[Part]:
    """A stretch of the log in pieces of some blocks."""
    first = part.first
    while first <= part.last:
        last = min(part.last, (((first - 1) >> BITS) + _BLOCKS_AT_ONCE) << BITS)
        yield Part(first, last)
        first = last + 1


def names_of(log: Log, kind: str) -> list[str]:
    """The names of a kind that are in the blocks. Of tasks and attempts they may be very many."""
    if not covered(log):
        return []
    return [str(name) for (name,) in log.ask("SELECT DISTINCT name FROM event_blocks WHERE kind = ?", (kind,))]


def spent_by_attempt(log: Log, over_usd_micros: int) -> dict[str, int]:
    """What attempts were charged in the blocks, of those that more than this was charged. Micro-dollars."""
    query = (
        "SELECT name, sum(usd_micros) FROM event_blocks WHERE kind = ? AND usd_micros IS NOT NULL GROUP BY name"
        " HAVING sum(usd_micros) > ?"
    )
    return {str(name): int(micros) for name, micros in log.ask(query, (ATTEMPT, over_usd_micros))}


def parts_of(blocks: Iterable[int], first: int, last: int) -> list[Part]:
    """Blocks as stretches of the log, oldest first, those side by side as one, cut at both ends."""
    parts: list[Part] = []
    for block in sorted(blocks):
        begin, end = max(first, (block << BITS) + 1), min(last, (block + 1) << BITS)
        if begin > end:
            continue
        if parts and parts[-1].last + 1 == begin:
            parts[-1] = Part(parts[-1].first, end)
        else:
            parts.append(Part(begin, end))
    return parts
