"""The table ``events`` read from one end to the other, bytes as stored, in pieces so that a long history needs no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from parallel_agents.eventstore.links import Stored

COLUMNS: Final = "seq, run_id, version, type, at, actor, body, body_digest, prev_hash, hash"
"""In the order of ``record.Row``."""
INSERT: Final = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
FIRST: Final = -(2**63)
"""The log starts at 1; whatever was put below it must be seen by ``verify``."""
_CHUNK: Final = 2000
_QUERY: Final = f"SELECT {COLUMNS} FROM events WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT {_CHUNK}"


def in_chunks(fetch: Callable[[str, Sequence[object]], list[Stored]], after: int, upto: int) -> Iterator[list[Stored]]:
    """Rows with ``after < seq <= upto``; after 0 those below the first one too.

    Args:
        fetch: gives the rows of a query with its values.
    """
    first = after + 1 if after else FIRST
    while first <= upto:
        chunk = fetch(_QUERY, (first, upto))
        if chunk:
            yield chunk
        if len(chunk) < _CHUNK:
            return
        first = chunk[-1][0] + 1
