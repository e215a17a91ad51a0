"""Histories of releases are drawn, and written for other tools, by every later one."""

from __future__ import annotations

import gzip
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "simulation"))

from test_drawn import check_all
from test_waits import check

from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.sql.gz"))


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.name.removesuffix(".sql.gz"))
def test_a_frozen_history_is_drawn(file: Path, tmp_path: Path) -> None:
    """Each run of it, and every moment of its tasks has one answer."""
    store = tmp_path / "events.db"
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(gzip.decompress(file.read_bytes()).decode())
    store.chmod(0o600)
    with Log(store, create=False, environ={}) as log:
        for run_id in Projector(log).runs():
            check(log, run_id)
            check_all(log, run_id)
