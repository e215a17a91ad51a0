"""Takes a secret out of files: of attempts, of agents' clients, of the daemon; and of archives, which are written anew.

A plain file is overwritten where the secret stands, by as many bytes: nothing behind them moves (a reader may have noted a
position), holes stay holes, it can be done by half and again, and it needs no room on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import orjson

from parallel_agents.eventstore.archive import BODIES, MANIFEST, parts_of
from parallel_agents.eventstore.location import attempts_folder, files_home
from parallel_agents.eventstore.secret_spellings import Secret, mark
from parallel_agents.scheduler.agents.clients import CLIENTS
from parallel_agents.scheduler.agents.scrubbing import PIECE, words_of
from parallel_agents.scheduler.daemon import log_file
from parallel_agents.scheduler.daemon_log import KEPT as LOGS_KEPT
from parallel_agents.scheduler.runners.folder import STDOUT

PENDING: Final = ".scrubbed"
"""What an archive is called that has been written anew and has not replaced the other one."""
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_SQLITE: Final = b"SQLite format 3\0"
_BESIDE: Final = ("-wal", "-shm", "-journal")
_PIECE: Final = PIECE.encode()
_WORDS_IN_PIECE: Final = re.compile(rb'"(?:text|partial_json|thinking)":"((?:[^"\\]|\\.)*)"')

Find = tuple[int, bytes]
"""A position in a file, and the bytes there, or those that are to be put there."""


@dataclass(slots=True)
class Looked:
    """What was found in files.

    Attributes:
        found: path -> how often.
        left: path -> why it stays there.
    """

    found: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def files_of(store: Path) -> Iterator[Path]:
    """The files beside a store in which what attempts have said may stand; what is no plain file is not among them."""
    home = attempts_folder(store).parent
    for root in dict.fromkeys((attempts_folder(store), home / CLIENTS, files_home(store) / CLIENTS)):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(path.lstat().st_mode):
                        yield path
    log = log_file(store)
    for path in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, LOGS_KEPT + 1))):
        if path.is_file() and not path.is_symlink():
            yield path


def look(store: Path, secret: Secret, *, change: bool, told: Callable[[int], None] = lambda done: None) -> Looked:
    """Find the secret in all of these files, and take it out where it may be changed."""
    looked = Looked()
    for number, path in enumerate(files_of(store)):
        told(number)
        if secret.is_in(path.name) or secret.is_in(path.parent.name):
            looked.left[str(path)] = "its name holds it"
        try:
            _look_at(path, secret, looked, change=change)
        except FileNotFoundError:
            continue
        except (OSError, sqlite3.Error) as error:
            looked.left[str(path)] = str(getattr(error, "strerror", None) or error)
    return looked


def _look_at(path: Path, secret: Secret, looked: Looked, *, change: bool) -> None:
    if path.name.endswith(_BESIDE) and path.with_name(path.name.rpartition("-")[0]).exists():
        return  # Of a database, with which it is looked at.
    with open(path, "rb") as file:
        is_database = file.read(len(_SQLITE)) == _SQLITE
        finds = [] if is_database else list(_finds(file, parts_of(file), secret, pieces=path.name == STDOUT))
    if is_database:
        count = _in_database(path, secret, change=change)
    else:
        count = len(finds)
        if finds and change and os.stat(path).st_nlink > 1:
            looked.left[str(path)] = "it has another name elsewhere, and would be changed there too"
            return
        if finds and change:
            _overwrite(path, finds)
    if count:
        looked.found[str(path)] = count


def _finds(file: IO[bytes], parts: Sequence[tuple[int, int]], secret: Secret, *, pieces: bool) -> Iterator[Find]:
    """Where a file is to be overwritten, and with what.

    Args:
        parts: offset and length of those that are no holes.
        pieces: it may be a transcript, in which words are spread over lines.
    """
    for begin, length in parts:
        yield from _finds_in_part(file, begin, begin + length, secret)
        if pieces:
            yield from _finds_in_pieces(file, begin, begin + length, secret)


def _finds_in_part(file: IO[bytes], position: int, end: int, secret: Secret) -> Iterator[Find]:
    done, rest = 0, b""
    while position < end:
        file.seek(position)
        data = file.read(min(_CHUNK_BYTES, end - position))
        if not data:
            return
        window, first = rest + data, position - len(rest)
        for start, stop in secret.spans(window):
            if first + start >= done:
                done = first + stop
                yield first + start, mark(stop - start)
        position += len(data)
        rest = window[-secret.longest :]


def _finds_in_pieces(file: IO[bytes], position: int, end: int, secret: Secret) -> Iterator[Find]:
    """The words of the pieces in which a model's answer came, where it is spread over them: other lines repeat the words."""
    pieces, size = list[Find](), 0
    while position < end:
        file.seek(position)
        line = file.readline(min(_CHUNK_BYTES, end - position))
        if not line:
            break
        if line.startswith(_PIECE):
            pieces.append((position, line))
            size += len(line)
        if size > _CHUNK_BYTES:
            yield from _masked(pieces, secret)
            pieces, size = pieces[-1:], 0
        position += len(line)
    yield from _masked(pieces, secret)


def _masked(pieces: Sequence[Find], secret: Secret) -> Iterator[Find]:
    if secret.is_in("".join(words_of(line.decode("utf-8", "surrogateescape")) for _, line in pieces)):
        for position, line in pieces:
            for words in _WORDS_IN_PIECE.finditer(line):
                yield position + words.start(1), b"*" * (words.end(1) - words.start(1))


def _overwrite(path: Path, finds: Sequence[Find]) -> None:
    """Write over parts of a file, which stays as old as it is."""
    found = os.stat(path)
    if not found.st_mode & stat.S_IWUSR:
        os.chmod(path, found.st_mode | stat.S_IWUSR)
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        for position, content in finds:
            os.pwrite(fd, content, position)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.chmod(path, stat.S_IMODE(found.st_mode))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _in_database(path: Path, secret: Secret, *, change: bool) -> int:
    """Find it in any column of any table of somebody's SQLite file, and put ``[redacted]`` in its place.

    Raises:
        sqlite3.Error: it cannot be read, or not be changed.
    """

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return secret.without(value)
        if isinstance(value, bytes):
            for start, stop in secret.spans(value):
                value = value[:start] + mark(stop - start) + value[stop:]
        return value

    count = 0
    left_in_pages = any(holds(each, secret) for each in (path, path.with_name(f"{path.name}-wal")))
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
        database.create_function("cleaned", 1, cleaned, deterministic=True)
        tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        for table in [_quoted(name) for (name,) in tables.fetchall()]:
            for _, name, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                column = _quoted(name)
                holding = f"WHERE cleaned({column}) IS NOT {column}"
                count += database.execute(f"SELECT count(*) FROM {table} {holding}").fetchone()[0]
                if change:
                    database.execute(f"UPDATE {table} SET {column} = cleaned({column}) {holding}")
        database.commit()
        if change and (count or left_in_pages):
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count or int(left_in_pages)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def holds(path: Path, secret: Secret) -> bool:
    """Whether the bytes of a file hold the secret as programs write it. False for a file that is not there."""
    keep = max(map(len, secret.needles))
    try:
        with open(path, "rb") as file:
            rest = b""
            while chunk := file.read(_CHUNK_BYTES):
                window = rest + chunk
                if any(needle in window for needle in secret.needles):
                    return True
                rest = window[-keep:]
    except OSError:
        return False
    return False


@dataclass(frozen=True, slots=True)
class NewArchive:
    """An archive that was written anew without the secret, and waits under another name.

    Attributes:
        bodies: seq -> the digests of the body as it was and as it is, in hex.
        files: how many of its files were changed.
    """

    path: Path
    pending: Path
    sha256: str
    bytes: int
    bodies: dict[int, tuple[str, str]]
    files: int
    left: tuple[str, ...] = ()


def archive_without(
    path: Path, secret: Secret, clean: Callable[[int, str], tuple[str, list[str]]], *, keep: bool
) -> NewArchive | None:
    """Write an archive anew, beside it; None where it holds no secret.

    Args:
        clean: gives the body of an event without the secret, and what stays in it.
        keep: False to learn only what would be changed.
    """
    from zipfile import ZIP_DEFLATED, ZipFile

    pending = path.with_name(path.name + PENDING)
    bodies, left, files = dict[int, tuple[str, str]](), list[str](), 0
    with ZipFile(path) as old, _to_write(pending if keep else None) as out:
        manifest = orjson.loads(old.read(MANIFEST))
        with ZipFile(out, "w", ZIP_DEFLATED) as new:
            for name in old.namelist():
                if name == MANIFEST:
                    continue
                with old.open(name) as source, new.open(name, "w", force_zip64=True) as copy:
                    if name == BODIES:
                        for line in source:
                            seq, body = orjson.loads(line)
                            cleaned, stays = clean(seq, body)
                            left += [f"event {seq}: {where}" for where in stays]
                            if cleaned != body:
                                bodies[seq] = _hex(body), _hex(cleaned)
                            copy.write(orjson.dumps((seq, cleaned)) + b"\n")
                        continue
                    content = source.read()
                    pieces = name.rpartition("/")[2] == STDOUT
                    finds = list(_finds(BytesIO(content), [(0, len(content))], secret, pieces=pieces))
                    files += bool(finds)
                    for position, words in finds:
                        content = content[:position] + words + content[position + len(words) :]
                    copy.write(content)
                    if finds:
                        manifest["files"][name] = hashlib.sha256(content).hexdigest()
            new.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        out.flush()
        os.fsync(out.fileno())
        size = out.seek(0, os.SEEK_END)
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256").hexdigest()  # type: ignore[arg-type]
    if not bodies and not files and not left:
        pending.unlink(missing_ok=True)
        return None
    return NewArchive(path, pending, digest, size, bodies, files, tuple(left))


def _to_write(path: Path | None) -> IO[bytes]:
    """A new file; one without a name where none is given."""
    if path is None:
        return tempfile.TemporaryFile()
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")


def _hex(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()
