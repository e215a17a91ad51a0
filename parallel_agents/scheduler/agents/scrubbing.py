"""Takes secrets out of the files that an agent has left, once it has ended."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from parallel_agents.scheduler.agents.reading import as_object, decoded
from parallel_agents.scheduler.runners.output_cap import read_cut, write_cut

Scrub = Callable[[str], str]

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_BUSY_S: Final = 2.0
PIECE: Final = '{"type":"stream_event","event":{"type":"content_block_delta"'
_WORDS: Final = ("text", "partial_json", "thinking")


def scrub(redact: Scrub, texts: Iterable[Path], *, by_line: Iterable[Path] = ()) -> None:
    """Rewrite files that hold a secret, each in one step. What cannot be rewritten is left as it is.

    Args:
        texts: files in which a secret may go over several lines.
        by_line: files in which every line is whole in itself, and stays that, of the same length where it can. Where one
            holds a secret, the pieces in which a model's words came are left out: it may be spread over them, and other
            lines repeat the words.
    """
    for path in texts:
        with contextlib.suppress(OSError):
            _scrub_file(lambda text: redact(text) != text, redact, path)
    for path in by_line:
        with contextlib.suppress(OSError):
            _scrub_file(lambda text: _holds_one(redact, text), lambda text: _line_by_line(redact, text), path)


def _scrub_file(found: Callable[[str], bool], redact: Scrub, path: Path) -> None:
    cut = read_cut(str(path.parent), path.name)
    kept = _texts(path) if cut is None else chain(_texts(path, upto=cut.begin), _texts(path, begin=cut.end))
    if not any(map(found, kept)):
        return
    temporary = path.with_name(f"{path.name}.scrubbed")
    with temporary.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        for text in _texts(path, upto=None if cut is None else cut.begin):
            target.write(redact(text).encode("utf-8", "surrogateescape"))
        if cut is not None:  # What is gone stays where it is, but for the part of it that the head has given up.
            write_cut(str(path.parent), path.name, cut._replace(begin=min(cut.begin, target.tell())))
            target.seek(cut.end)
            for text in _texts(path, begin=cut.end):
                target.write(redact(text).encode("utf-8", "surrogateescape"))
    temporary.replace(path)


def _holds_one(redact: Scrub, text: str) -> bool:
    if redact(text) != text:
        return True
    words = "".join(map(words_of, filter(_is_piece, text.split("\n")))) if PIECE in text else ""
    return redact(words) != words


def _line_by_line(redact: Scrub, text: str) -> str:
    return "\n".join(_same_length(line, redact(line)) for line in text.split("\n") if not _is_piece(line))


def _same_length(line: str, left: str) -> str:
    """With blanks at its end, which JSON allows: a client may have written down where in the file it was."""
    if left == line:
        return line
    return left + " " * (len(line.encode("utf-8", "surrogateescape")) - len(left.encode("utf-8", "surrogateescape")))


def scrub_database(redact: Scrub, path: Path, session: str) -> None:
    """Take secrets out of what an SQLite file holds of a session. Other processes may be using it.

    Where a table does not say of which session a row is, all of its rows are looked at.
    """
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_opened(path)) as database:
        database.create_function("redacted", 1, lambda text: redact(text) if isinstance(text, str) else text)
        tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        changed = 0
        for (table,) in tables:
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({_quoted(table)})")]
            of = "thread_id = ? AND " if "thread_id" in columns else ""
            for column in map(_quoted, columns):
                words = f"UPDATE {_quoted(table)} SET {column} = redacted({column}) WHERE {of}redacted({column}) != {column}"
                changed += database.execute(words, (session,) if of else ()).rowcount
        if changed:
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # What is there no more still stands in the log ahead.


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
    database.execute("PRAGMA secure_delete = ON")
    return database


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_piece(line: str) -> bool:
    return line.startswith(PIECE)


def words_of(line: str) -> str:
    """The words of a model in a line that begins with ``PIECE``."""
    fields = decoded(line.encode("utf-8", "surrogateescape")) or {}
    delta = as_object(as_object(fields.get("event")).get("delta"))
    return "".join(word for kind in _WORDS if isinstance(word := delta.get(kind), str))


def _texts(path: Path, *, begin: int = 0, upto: int | None = None) -> Iterator[str]:
    """Whole lines, some megabytes at a time; bytes that are no UTF-8 stay what they are."""
    with path.open("rb") as source:
        source.seek(begin)
        end = os.fstat(source.fileno()).st_size if upto is None else upto
        while begin < end:
            text = b""
            while begin < end and len(text) < _CHUNK_BYTES and (line := source.readline(end - begin)):
                text, begin = text + line, begin + len(line)
            if not text:
                return
            yield text.decode("utf-8", "surrogateescape")
