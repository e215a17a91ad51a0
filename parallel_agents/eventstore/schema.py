"""The tables of a store. Nothing here is particular to SQLite but the literal conditions of the partial index."""

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

STORE_FORMAT = 1  # Grows when an older release could no longer write to the store.

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

RUN_LEVEL = "type >= 'Run' AND type < 'Ruo'"
"""Events about a run as a whole, a handful each: what the list of runs is folded from."""

Index("events_run_level", events.c.seq, sqlite_where=text(RUN_LEVEL), postgresql_where=text(RUN_LEVEL))

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
