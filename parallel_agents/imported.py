"""Runs that came from other stores: where they lie beside a project's own store, and which one a text means.

Each has a store of its own, ``imported/<run>/events.db``, which is only read. None of them is ever the latest run, and nobody
dispatches one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from parallel_agents import look
from parallel_agents.eventstore import carried
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.location import FILE
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.sqlite import explained
from parallel_agents.projections.projector import Projector

FOLDER = "imported"
STAGING = ".importing"
LEAST = 4  # Characters of an id that mean an imported run.


def folder_of(store: Path) -> Path:
    """Where the imported runs of a project lie."""
    return store.parent / FOLDER


def stores(store: Path) -> Iterator[Path]:
    """The stores of imported runs."""
    yield from sorted(folder_of(store).glob(f"[a-z]*/{FILE}"))


def store_of(store: Path, run_id: str) -> Path:
    """Where an imported run lies, or would."""
    return folder_of(store) / run_id / FILE


def meant(store: Path, named: str, *, whole: bool = False) -> Path | None:
    """The store of the imported run that a text means: its id, or at least four characters that it begins with.

    Args:
        whole: nothing but an id counts.
    Raises:
        InvalidUsage: it fits several runs.
    """
    if len(named) < LEAST:
        return None
    found = [one for one in stores(store) if one.parent.name.startswith(named)]
    if whole or not found or store_of(store, named) in found:
        return store_of(store, named) if store_of(store, named) in found else None
    own = _own(store, named)
    if len(found) + len(own) > 1:
        ids = sorted([*own, *(one.parent.name for one in found)])
        raise InvalidUsage(f"{named!r} fits {len(ids)} runs", hint=f"type more of it: {', '.join(ids[:5])}")
    return found[0]


def _own(store: Path, named: str) -> list[str]:
    if not store.exists():
        return []
    with Log(store, create=False) as log:
        return [run_id for run_id in Projector(log).runs() if run_id.startswith(named)]


def about(store: Path) -> Carried | None:
    """What the store of an imported run says of it.

    Raises:
        StoreError: it cannot be read.
    """
    with explained(store), closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return carried.read(connection.execute("SELECT value FROM store WHERE key = ?", (carried.KEY,)))


def open_store(store: Path) -> Log:
    """The log of an imported run, to be read.

    Raises:
        StoreError: it cannot be.
    """
    return Log(store, create=False)


def lines(store: Path) -> list[dict[str, Any]]:
    """The imported runs of a project, as ``runs`` lists runs, each with where it is from."""
    found = []
    for one in stores(store):
        with open_store(one) as log:
            if log.carried is not None:
                found += [{**line, "imported": as_json(log.carried)} for line in look.runs(log)]
    return found


def as_json(of: Carried) -> dict[str, Any]:
    """Where an imported run is from, as the command line prints it."""
    return {
        "from": of.store, "exported_at": of.made_at, "imported_at": of.imported_at, "release": of.release,
        "redacted": of.redacted,
    }  # fmt: skip


def in_words(of: Carried) -> str:
    """The same for a person."""
    where = f" from {of.store}" if of.store else ""
    what = ", without what people and agents wrote" if of.redacted else ""
    return f"run {of.run_id} was imported{where} at {of.imported_at[:19]}Z, as it was at {of.made_at[:19]}Z{what}"
