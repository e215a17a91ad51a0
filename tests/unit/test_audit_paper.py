"""The paper on asking says what is so: the options of ``history``, and every view with its columns."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import click
import pytest

from parallel_agents.cli.history import history
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.views import VIEWS

PAPER = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
OF_EVERY_READING_VERB = {"--json", "--at", "--store", "--help"}


def cells(head: str) -> list[list[str]]:
    """The rows of the table with that head."""
    table = PAPER.split(f"| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in table]


def test_the_table_of_options_is_the_programs() -> None:
    """Each is there, and none is missing."""
    named = {name for row in cells("option | which events") for name in re.findall(r"--[a-z-]+", row[0])}
    known = {
        one for option in history.params if isinstance(option, click.Option) for one in option.opts if one[:2] == "--"
    }
    assert named == known - OF_EVERY_READING_VERB


def test_the_table_of_views_is_the_stores(tmp_path: Path) -> None:
    """Every view, with its columns in their order."""
    Log(tmp_path / "events.db", environ={}).close()
    with closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        told = {
            row[0].strip("`"): re.findall(r"`(\w+)`", row[3])
            for row in cells("view | a row is | which history | columns")
        }
        assert told == {
            name: [str(column[1]) for column in connection.execute(f"PRAGMA table_info({name})")] for name in VIEWS
        }


@pytest.mark.parametrize("query", re.findall(r"^SELECT .*?;$", PAPER, re.DOTALL | re.MULTILINE))
def test_the_queries_that_are_shown_can_be_asked(query: str, tmp_path: Path) -> None:
    """Of an empty store, too."""
    Log(tmp_path / "events.db", environ={}).close()
    with closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        assert connection.execute(query).fetchall() == []
