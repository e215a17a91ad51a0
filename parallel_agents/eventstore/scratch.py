"""A store in memory, for runs that only are imagined: it is nobody's channel, and gone with the process.

The same tables and the same code as of a store on disk, without a file, a lock or a bell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from parallel_agents.eventstore.log import Log


def scratch_log(place: Path, clock: Callable[[], int]) -> Log:
    """An empty store.

    Args:
        place: the path that it goes by; nothing is made there.
        clock: the time of its events, in microseconds since the epoch.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.deserialize(_empty())
    connection.execute("PRAGMA journal_mode = MEMORY")  # Also of what is in memory only, a failed commit is taken back.
    log = Log(place, clock=clock, environ={}, opened=(connection, connection))
    log.doorbell.folder = None
    return log


@lru_cache(maxsize=1)
def _empty() -> bytes:
    """A database with the tables and nothing in them. Made once: to have SQLAlchemy make one takes longer than many a run."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    from parallel_agents.eventstore.schema import metadata

    made = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        engine = create_engine("sqlite://", creator=lambda: made, poolclass=StaticPool)
        metadata.create_all(engine)
        return made.serialize()
    finally:
        made.close()
