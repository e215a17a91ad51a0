"""Events of a log are altered, one by itself, and what is said of that when the scheduler decides again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row
from parallel_agents.projections.projector import Projector
from parallel_agents.replaying import redecide
from parallel_agents.scheduler.verdicts import Divergence

Body = dict[str, Any]
Change = Callable[[Body], Body | None]
"""The body that an event has instead; None: the event is taken out."""


def without_facts(body: Body) -> Body:
    """As an older release has recorded it."""
    return {name: value for name, value in body.items() if name != "facts"}


def gone(body: Body) -> None:
    """It is taken out."""


def with_facts(**facts: Any) -> Change:
    """Other facts."""
    return lambda body: {**body, "facts": {**body["facts"], **facts}}


def has_facts(body: Body) -> bool:
    """Whether any are recorded."""
    return bool(body.get("facts"))


def altered(log: Log, row: Row, change: Change) -> list[Divergence]:
    """What is said of the runs of a log in which one event is another one."""
    body = change(json.loads(row.body))
    with closing(sqlite3.connect(log.path)) as connection, connection:
        if body is None:
            kept = connection.execute("SELECT * FROM events WHERE seq = ?", (row.seq,)).fetchone()
            connection.execute("DELETE FROM events WHERE seq = ?", (row.seq,))
        else:
            connection.execute("UPDATE events SET body = ? WHERE seq = ?", (json.dumps(body), row.seq))
    try:
        said = (redecide(log, run_id).divergence for run_id in Projector(log).runs())
        return [one for one in said if one is not None]
    finally:
        with closing(sqlite3.connect(log.path)) as connection, connection:
            if body is None:
                connection.execute(f"INSERT INTO events VALUES ({','.join('?' * len(kept))})", kept)
            else:
                connection.execute("UPDATE events SET body = ? WHERE seq = ?", (row.body, row.seq))
