"""Reads a growing file line by line, each byte once. Lines may have any length; what is cut out of the file is passed over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from parallel_agents.scheduler.runners.output_cap import Piece, kept_pieces


class Tail:
    """What has come to a file since it was last looked at. A line without its break is held back until ``finish``.

    Nothing is kept open between two looks, so that hundreds of them cost no descriptors; a look at a file to which nothing
    came is one ``stat``.
    """

    def __init__(self, path: str | Path, offset: int = 0) -> None:
        """Lines from ``offset`` on, in bytes; it is the ``offset`` of an earlier reader, or 0."""
        self.path = os.fspath(path)
        self.offset = offset  # Where the first line begins that has not been given out. Another reader can begin there.
        self._pieces: list[bytes] = []  # Of a line whose end has not come yet.
        self._held_bytes = 0
        self._in_a_line = False  # What comes next is the end of a line whose begin is gone.

    @property
    def position(self) -> int:
        """How much has been read, half a line at the end included."""
        return self.offset + self._held_bytes

    def read(self) -> Iterator[bytes]:
        """The whole lines that have come, without their breaks. A file that is not there (yet) has none."""
        try:
            size = os.stat(self.path).st_size
        except OSError:
            return
        position = self.offset + self._held_bytes
        if size < position:  # Somebody began the file anew.
            self.offset = position = 0
            self._let_go()
        if size == position:
            return
        # What cannot be read now is read at the next look: ``offset`` is right after every line.
        with contextlib.suppress(OSError):
            for piece in kept_pieces(self.path, position):
                if piece.cut:
                    self._jump(piece)
                else:
                    yield from self._lines_of(piece.data)

    def finish(self) -> Iterator[bytes]:
        """All that is left, a last line without its break included: nobody writes to the file any more."""
        yield from self.read()
        if self._held_bytes:
            line = b"".join(self._pieces)
            self.offset += self._held_bytes
            self._let_go()
            yield line

    def _jump(self, piece: Piece) -> None:
        """Go on behind what is gone of the file, with the first line that is whole."""
        self._let_go()
        self.offset = piece.end
        self._in_a_line = not piece.whole

    def _lines_of(self, chunk: bytes) -> Iterator[bytes]:
        if self._in_a_line:
            rest, found, chunk = chunk.partition(b"\n")
            self.offset += len(rest) + len(found)
            self._in_a_line = not found
        lines = chunk.split(b"\n")
        last = lines.pop()
        # ``offset`` moves before each line is given out, so that whoever stops in the middle finds the next line there.
        if lines:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
        else:
            self._pieces.append(last)
            self._held_bytes += len(last)
            return
        self._let_go()
        for line in lines:
            self.offset += len(line) + 1
            yield line
        self._pieces = [last] if last else []
        self._held_bytes = len(last)

    def _let_go(self) -> None:
        self._pieces = []
        self._held_bytes = 0
