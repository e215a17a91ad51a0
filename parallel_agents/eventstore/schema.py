"""The tables of a store. Nothing here is particular to SQLite but the literal texts of indexes.

Imported only to make a store: SQLAlchemy takes a quarter of a second to come, and a reader of a store needs none of it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from parallel_agents.eventstore.of_attempt import VIEW_INDEXES
from parallel_agents.eventstore.of_task import OF_TASK, TASK_INDEX
from parallel_agents.eventstore.run_level import RUN_LEVEL

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("run_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", String, nullable=False),
    Column("at", BigInteger, nullable=False),  # Microseconds since the epoch, UTC.
    Column("actor", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("body_digest", LargeBinary(32), nullable=False),
    Column("prev_hash", LargeBinary(32), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    UniqueConstraint("run_id", "version"),
)

Index("events_run_level", events.c.seq, sqlite_where=text(RUN_LEVEL))
Index(TASK_INDEX, events.c.run_id, text(OF_TASK), events.c.version)
for _name, (_terms, _condition) in VIEW_INDEXES.items():
    _of_columns = (events.c[one] if one in events.c else text(one) for one in _terms)
    events.append_constraint(Index(_name, *_of_columns, sqlite_where=text(_condition)))

blobs = Table(
    "blobs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("projection", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

store = Table(
    "store",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)
