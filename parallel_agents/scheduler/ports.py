"""Ranges of TCP ports for attempts that run at once, so that the servers of two agents do not meet."""

from __future__ import annotations

import socket
import threading
import zlib
from itertools import chain
from typing import Final

SIZE: Final = 10  # Ports of a range.
_FIRST: Final = 20_000
_LAST: Final = 32_000  # Below what Linux gives out by itself (net.ipv4.ip_local_port_range).


class Ports:
    """What one process has given out. Other dispatchers give out ports too, so each begins to look somewhere else."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}  # Attempt id -> the first of its range.
        self._lock = threading.Lock()

    def take(self, attempt_id: str) -> int:
        """The first of a range that nobody listens on now and no other attempt of ours was given.

        Raises:
            OSError: there is none.
        """
        ranges = range(_FIRST, _LAST, SIZE)
        begin = zlib.crc32(attempt_id.encode()) % len(ranges)
        with self._lock:
            taken = set(self._given.values())
            for first in chain(ranges[begin:], ranges[:begin]):
                if first not in taken and _is_free(first):
                    self._given[attempt_id] = first
                    return first
        raise OSError(f"no {SIZE} ports in a row are free between {_FIRST} and {_LAST}")

    def give_back(self, attempt_id: str) -> None:
        """An attempt has ended."""
        with self._lock:
            self._given.pop(attempt_id, None)


def _is_free(first: int) -> bool:
    for port in range(first, first + SIZE):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
