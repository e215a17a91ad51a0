"""Keeps what commands print within bounds: of a file that grows too large the middle is given back to the disk.

The file stays what it is: nothing is renamed or moved, every offset stays valid, and a command that appends to it notices
nothing (fallocate(2), FALLOC_FL_PUNCH_HOLE; F_PUNCHHOLE on macOS). What has been cut stands in ``cut.json`` beside the file
before it is gone, so that a reader which looks there after it has read knows which zeros are none. Head and end are
kept. On a file system that cannot do that, a command that prints too much is ended.
Stdlib only and few modules, because the supervisor starts with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from parallel_agents.scheduler.runners.folder import STDERR, STDOUT, read_object

CUT: Final = "cut.json"
FIRST_LOOK_S: Final = 0.1
LONGEST_LOOK_S: Final = 0.25  # Between two looks: what a silent command can print before it is seen to.
SHORTEST_LOOK_S: Final = 0.01
_CUT_BYTES: Final = 500
_BLOCK: Final = 4096  # Only whole blocks can be given back.
_LINE_BYTES: Final = 1 << 16  # How far the end of a line is looked for.
_CHUNK_BYTES: Final = 1 << 20
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_F_PUNCHHOLE: Final = 99
_CANNOT: Final = frozenset((errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY))


class Cut(NamedTuple):
    """The part of a file that is gone: from ``begin`` up to ``end``, in bytes."""

    begin: int
    end: int
    bytes: int  # How much of what was printed that is.
    whole: bool  # Whether a line begins at ``end``.


def decide_cut(size: int, limit: int, before: Cut | None) -> tuple[int, int] | None:
    """What of a file is to go: where its head ends and where its tail begins. None while it fits.

    A quarter of the limit is kept of its beginning, half of it of its end; the last quarter is room until the next time.

    Args:
        size: of the file, holes included.
        limit: bytes that may be kept, >= 4.
        before: what has gone already.
    """
    gone = 0 if before is None else before.end - before.begin
    if size - gone <= limit:
        return None
    begin = limit // 4 if before is None else before.begin
    return begin, size - limit // 2


def next_look_s(grown: int, in_s: float, room: int) -> float:
    """When to look again at a file that has grown: at half the time that it needs to fill its room."""
    if grown <= 0 or in_s <= 0:
        return LONGEST_LOOK_S
    return min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, room * in_s / grown / 2))


def read_cut(folder: str, name: str) -> Cut | None:
    """What of an output is gone; None where nothing is."""
    said = read_object(folder, CUT)
    if said is None or not isinstance(said.get(name), dict):
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        one = said[name]
        return Cut(int(one["begin"]), int(one["end"]), int(one["bytes"]), bool(one["whole"]))
    return None


def write_cut(folder: str, name: str, cut: Cut | None) -> None:
    """Say what of an output is gone: over what was said before, in one short write that no reader sees by half.

    Not renamed into place, because that takes room on the disk, which may be what there is none of.

    Raises:
        OSError: it cannot be written.
    """
    said = read_object(folder, CUT) or {}
    said[name] = None if cut is None else cut._asdict()
    fd = os.open(f"{folder}/{CUT}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, json.dumps(said).encode().ljust(_CUT_BYTES) + b"\n", 0)
    finally:
        os.close(fd)


class Piece(NamedTuple):
    """A part of an output as it was read, or, with ``cut``, what is missing in its place."""

    data: bytes
    end: int  # Where the next one begins.
    cut: int = 0  # Bytes.
    whole: bool = True  # Whether a line begins after that.


def kept_pieces(path: str, position: int) -> Iterator[Piece]:
    """What can be read of an output from a position on: never the zeros of what is gone, however fast it goes.

    Raises:
        OSError: it cannot be opened or read.
    """
    folder, name = os.path.split(path)
    with open(path, "rb", buffering=0) as file:
        while True:
            file.seek(position)
            data = file.read(_CHUNK_BYTES)
            cut = read_cut(folder, name)  # After the reading: a hole is told before it is made.
            if cut is None or position >= cut.end or position + len(data) <= cut.begin:
                if not data:
                    return
                position += len(data)
                yield Piece(data, position)
                continue
            if position < cut.begin:
                yield Piece(data[: cut.begin - position], cut.begin)
            missed = cut.bytes if position <= cut.begin else cut.end - position
            position = cut.end
            yield Piece(b"", position, missed, cut.whole)


class TooMuch(Exception):
    """A file has grown over its limit, and nothing can be given back to the disk here."""


class Output:
    """What one command prints: two files with a limit each."""

    def __init__(self, folder: str, limit: int, now_s: float) -> None:
        self.look_at_s = now_s + FIRST_LOOK_S
        self._folder = folder
        self._limit = limit
        self._looked_s = now_s
        self._sizes = dict.fromkeys((STDOUT, STDERR), 0)

    def look(self, now_s: float) -> None:
        """See how large they are, and cut what is too large.

        Raises:
            TooMuch: that is not possible here.
        """
        next_s = LONGEST_LOOK_S
        for name, before in self._sizes.items():
            try:
                size = os.stat(f"{self._folder}/{name}").st_size
            except OSError:
                continue
            if size == before:
                continue
            self._sizes[name] = size
            try:
                kept = self._fit(name, size)
            except OSError:  # Whatever it is, it may be over at the next look.
                self._sizes[name], kept = -1, self._limit
            next_s = min(next_s, next_look_s(size - before, now_s - self._looked_s, self._limit - kept))
        self._looked_s = now_s
        self.look_at_s = now_s + next_s

    def _fit(self, name: str, size: int) -> int:
        """Cut a file where it is too large. Gives how much of it is kept."""
        cut = read_cut(self._folder, name)
        if cut is not None and size < cut.end:  # Its command has begun it anew.
            cut = None
            write_cut(self._folder, name, None)
        elif cut is None and size > self._limit // 2 and not os.path.lexists(f"{self._folder}/{CUT}"):
            write_cut(self._folder, name, None)  # While there is room on the disk.
        wanted = decide_cut(size, self._limit, cut)
        if wanted is None:
            return size - (0 if cut is None else cut.end - cut.begin)
        fd = os.open(f"{self._folder}/{name}", os.O_RDWR | os.O_CLOEXEC)
        try:
            cut = self._cut(fd, name, wanted, cut)
        finally:
            os.close(fd)
        return size - (cut.end - cut.begin)

    def _cut(self, fd: int, name: str, wanted: tuple[int, int], before: Cut | None) -> Cut:
        begin = _line_end_before(fd, wanted[0]) if before is None else before.begin
        end, whole = _line_end_after(fd, wanted[1])
        cut = Cut(begin, end, end - begin, whole)
        first = -(-begin // _BLOCK) * _BLOCK if before is None else before.end // _BLOCK * _BLOCK
        last = end // _BLOCK * _BLOCK
        write_cut(self._folder, name, cut)
        try:
            if last > first:
                punch_hole(fd, first, last - first)
        except OSError as error:
            write_cut(self._folder, name, before)
            if error.errno in _CANNOT:
                raise TooMuch(
                    f"it has printed more than {self._limit // 1_000_000:,} MB to {name}, and this file system cannot give "
                    "the middle of a file back (monitoring.maxOutputMB is the limit)"
                ) from None
            raise
        return cut


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give whole blocks of a file back to the disk; they read as zeros from then on.

    Raises:
        OSError: EOPNOTSUPP where the file system has no holes.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(fd, _F_PUNCHHOLE, struct.pack("=IIqq", 0, 0, offset, length))
        return
    libc = _libc()
    if libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _libc() -> Any:
    import ctypes  # Most supervisors never need it.

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return libc


def _line_end_before(fd: int, offset: int) -> int:
    """Where the last line before an offset ends; the offset where it is a very long one."""
    first = max(0, offset - _LINE_BYTES)
    found = os.pread(fd, offset - first, first).rfind(b"\n")
    return offset if found < 0 else first + found + 1


def _line_end_after(fd: int, offset: int) -> tuple[int, bool]:
    """Where the first line begins after an offset, and True; or the offset and False where that is far."""
    found = os.pread(fd, _LINE_BYTES, offset).find(b"\n")
    return (offset, False) if found < 0 else (offset + found + 1, True)
