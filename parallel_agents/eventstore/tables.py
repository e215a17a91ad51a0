"""What SQLAlchemy makes of ``schema`` for SQLite, kept as text: to import it takes as long as to run a small plan.

``tests/unit/test_tables.py`` holds the two together, and shows what has to stand here where they differ.
"""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE blobs ( digest VARCHAR(64) NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (digest) )
    """,
    """
    CREATE TABLE events ( seq INTEGER NOT NULL, run_id VARCHAR NOT NULL, version INTEGER NOT NULL, type VARCHAR NOT NULL,
    at BIGINT NOT NULL, actor VARCHAR NOT NULL, body TEXT NOT NULL, body_digest BLOB NOT NULL, prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL, PRIMARY KEY (seq), UNIQUE (run_id, version) )
    """,
    """
    CREATE INDEX events_run_level ON events (seq) WHERE type >= 'Run' AND type < 'Ruo'
    """,
    """
    CREATE TABLE snapshots ( run_id VARCHAR NOT NULL, projection VARCHAR NOT NULL, version INTEGER NOT NULL,
    seq INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (run_id, projection, version, seq) )
    """,
    """
    CREATE TABLE store ( "key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key") )
    """,
)
"""Makes the tables and indexes of a new store, one after the other."""
