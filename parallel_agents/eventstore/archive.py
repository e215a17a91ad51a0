"""Files into which the bulk of old runs was moved, and how it is read from there.

One ZIP file for each time that a run was archived, ``archive/<run>-<version>.zip`` beside the store, readable by any unzip:
``manifest.json`` (what is in it, by SHA-256, and which files had holes), ``bodies.jsonl`` (``[seq, body]`` a line, each body
the very text whose digest the log holds) and what the attempts wrote, under the names that it had. In the log the body of
such an event is the empty text, which no body is; envelope, digest and hash stay.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import orjson

from parallel_agents.eventstore.errors import ArchiveMissing

MANIFEST: Final = "manifest.json"
BODIES: Final = "bodies.jsonl"
ELSEWHERE: Final = ""  # The body of an event whose body lies in an archive.
BULKY_TYPES: Final = (
    "TaskCompleted", "TaskFailed", "TaskBlocked", "CheckpointCreated", "GateChecked", "ConflictDetected",
)  # fmt: skip
"""Whose bodies may hold outputs or lists of paths. No condition of a query looks into them, and no budget follows from them."""
BULKY_CHARACTERS: Final = 256
BULKY: Final = f"type IN {BULKY_TYPES} AND length(body) > {BULKY_CHARACTERS}"
"""The condition on a row whose body moves."""
_RUNS_AT_HAND: Final = 4
_CHUNK_BYTES: Final = 1 << 20


def archive_folder(store: Path) -> Path:
    """Where the archives of a store lie."""
    return Path(os.path.abspath(store.parent)) / "archive"


def archives_of(store: Path, run_id: str) -> list[Path]:
    """The archives of a run, oldest first; mostly none or one."""
    found = archive_folder(store).glob(f"{glob.escape(run_id)}-*.zip")
    numbered = [(path.stem.rpartition("-")[2], path) for path in found]
    return [path for number, path in sorted((int(number), path) for number, path in numbered if number.isdecimal())]


def bodies_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every event of an archive, with its body.

    Raises:
        ArchiveMissing: it cannot be read.
    """
    try:
        with _opened(path) as archive, archive.open(BODIES) as lines:
            for line in lines:
                seq, body = orjson.loads(line)
                yield int(seq), str(body)
    except Exception as error:  # Of zipfile, zlib, the system, or of what stands there.
        raise _unreadable(path, error) from error


def holds(store: Path, path: Path) -> bool:
    """Whether an archive holds a file of an attempt.

    Raises:
        ArchiveMissing: an archive of its run cannot be read.
    """
    name = _name_in(store, path)
    return name is not None and any(name in names_in(one) for one in archives_of(store, name.split("/")[1]))


def names_in(path: Path) -> list[str]:
    """What an archive holds.

    Raises:
        ArchiveMissing: it cannot be read.
    """
    try:
        with _opened(path) as archive:
            return list(archive.namelist())
    except Exception as error:
        raise _unreadable(path, error) from error


def extract(store: Path, folder: Path, into: Path, only: Collection[str] = ()) -> int:
    """Copy what archives hold of a folder of an attempt, holes included.

    Args:
        only: names of files; empty means all.
    Returns:
        How many files that were.
    Raises:
        ArchiveMissing: an archive of its run cannot be read.
    """
    name = _name_in(store, folder)
    if name is None:
        return 0
    done = 0
    for path in archives_of(store, name.split("/")[1]):
        try:
            with _opened(path) as archive:
                holes = orjson.loads(archive.read(MANIFEST))["holes"]
                for member in archive.namelist():
                    below = member.removeprefix(f"{name}/")
                    if below == member or (only and below not in only) or ".." in below.split("/"):
                        continue
                    (into / below).parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source:
                        _fill(into / below, source, holes.get(member))
                    done += 1
        except Exception as error:
            raise _unreadable(path, error) from error
    return done


def _fill(path: Path, source: IO[bytes], parts: Sequence[Sequence[int]] | None) -> None:
    """Write a file as it was: all of the source, or its parts at their offsets (see ``parts_of``)."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy:
        if parts is None:
            while chunk := source.read(_CHUNK_BYTES):
                copy.write(chunk)
            return
        for offset, length in parts:
            copy.seek(offset)
            while length and (chunk := source.read(min(length, _CHUNK_BYTES))):
                copy.write(chunk)
                length -= len(chunk)
            copy.truncate()


def parts_of(file: IO[bytes]) -> list[tuple[int, int]]:
    """The parts of an open file that are no holes: offset and length of each. The last one ends where the file does."""
    size = os.fstat(file.fileno()).st_size
    parts, offset = [], 0
    while offset < size:
        try:
            begin = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # This file system knows no holes.
                return [(0, size)]
            break  # Nothing but a hole is left.
        parts.append((begin, end - begin))
        offset = end
    if not parts or sum(parts[-1]) < size:
        parts.append((size, 0))
    return parts


def contents(file: IO[bytes], parts: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """What stands in the parts of a file, one after the other."""
    for offset, length in parts:
        file.seek(offset)
        while length and (chunk := file.read(min(length, _CHUNK_BYTES))):
            yield chunk
            length -= len(chunk)


def digest_of_contents(path: Path) -> str:
    """SHA-256 in hex of what an archive holds of a file: all of it but its holes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in contents(file, parts_of(file)):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_in(store: Path, path: Path) -> str | None:
    """The name of a path below ``runs/<run>/`` in an archive."""
    try:
        name = path.relative_to(os.path.abspath(store.parent)).as_posix()
    except ValueError:
        return None
    return name if name.startswith("runs/") and name.count("/") >= 2 else None


def _opened(path: Path) -> Any:
    from zipfile import ZipFile  # Most commands read no archive.

    return ZipFile(path)


def _unreadable(path: Path, error: Exception) -> ArchiveMissing:
    hint = "restore it from a backup; the log itself is whole without it"
    return ArchiveMissing(f"the archive {path} cannot be read: {error}", hint=hint)


class Archives:
    """Gives rows their bodies back. Remembers those of the last few runs that were asked for."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._at_hand: OrderedDict[str, dict[int, str]] = OrderedDict()

    def bodies(self, run_id: str) -> dict[int, str]:
        """The bodies of a run that are in archives, by seq; empty where none is there.

        Raises:
            ArchiveMissing: an archive cannot be read.
        """
        found = self._at_hand.get(run_id)
        if found is None:
            found = {}
            for path in archives_of(self._store, run_id):
                found.update(bodies_in(path))
            self._at_hand[run_id] = found
            if len(self._at_hand) > _RUNS_AT_HAND:
                self._at_hand.popitem(last=False)
        self._at_hand.move_to_end(run_id)
        return found

    def whole(self, rows: Iterable[tuple[Any, ...]], body: int, run_id: str | None = None) -> list[tuple[Any, ...]]:
        """Rows with the bodies that were moved.

        Args:
            body: the position of the body in a row, whose first value is its seq.
            run_id: of all rows; None: their second value says it.
        Raises:
            ArchiveMissing: an archive is gone, or cannot be read.
        """
        return [row if row[body] else self._with_body(row, body, run_id or row[1]) for row in rows]

    def _with_body(self, row: tuple[Any, ...], body: int, run_id: str) -> tuple[Any, ...]:
        found = self.bodies(run_id).get(row[0])
        if found is None:
            self._at_hand.pop(run_id, None)  # It may have been archived again since.
            found = self.bodies(run_id).get(row[0])
        if found is None:
            raise ArchiveMissing(
                f"run {run_id} was archived, and event {row[0]} is in no archive in {archive_folder(self._store)}",
                hint=f"put {run_id}-*.zip back there; `parallel-agents verify` says which are gone",
            )
        return (*row[:body], found, *row[body + 1 :])


class Moved:
    """Bodies of archived runs, for who proves the chain.

    Attributes:
        runs: the runs of which the log names an archive.
        away: those of which an archive is not there, or cannot be trusted.
    """

    def __init__(self, store: Path, runs: Collection[str], away: Collection[str]) -> None:
        self.runs = frozenset(runs)
        self.away = frozenset(away)
        self._archives = Archives(store)

    def body(self, run_id: str, seq: int) -> str | None:
        """The body of an event in whose row none is stored; None where its archive is gone, empty where none was ever named."""
        if run_id not in self.runs:
            return ELSEWHERE
        found = None
        with contextlib.suppress(ArchiveMissing):
            found = self._archives.bodies(run_id).get(seq)
        return found if found is not None or run_id in self.away else ELSEWHERE
