"""The tables of a new store are those that the schema describes."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.schema import metadata
from parallel_agents.eventstore.tables import STATEMENTS


def test_the_statements_are_what_the_schema_compiles_to() -> None:
    """Word by word; whitespace does not count."""
    dialect = sqlite.dialect()
    compiled = [
        str(statement.compile(dialect=dialect))
        for table in metadata.sorted_tables
        for statement in (
            CreateTable(table),
            *map(CreateIndex, sorted(table.indexes, key=lambda index: index.name or "")),
        )
    ]
    assert [" ".join(text.split()) for text in compiled] == [" ".join(text.split()) for text in STATEMENTS]


def test_a_new_store_has_the_columns_and_keys_of_the_schema(tmp_path: Path) -> None:
    """As SQLAlchemy reads them back."""
    path = tmp_path / "events.db"
    Log(path).close()
    engine = create_engine(f"sqlite:///{path}")
    found = inspect(engine)
    assert set(found.get_table_names()) == set(metadata.tables)
    for name, table in metadata.tables.items():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        assert found.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]
    assert [one["column_names"] for one in found.get_unique_constraints("events")] == [["run_id", "version"]]
    assert [one["name"] for one in found.get_indexes("events")] == ["events_run_level"]
    engine.dispose()
