"""Freezes histories: what dispatchers of this release decided in simulated worlds, and what every projection says of it.

``python tests/compat/freeze_histories.py NAME WORLD SEED`` makes ``histories/NAME.sql.gz`` and ``NAME.json``. Run for a new
release, under new names; a file that is there is never made again: every later release has to read it as it is.

The worlds have no machine in them: their processes, clocks and git are made up, and so is the folder that they lie in.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "simulation"), str(TESTS / "compat")]

from frozen_views import digests, plain, run_view, store_view  # noqa: E402
from stories import story, tell  # noqa: E402
from test_histories import generated  # noqa: E402

from parallel_agents.eventstore.chain import verify_rows  # noqa: E402
from parallel_agents.eventstore.log import Draft, Log, digest_of  # noqa: E402
from parallel_agents.eventstore.record import decode_body  # noqa: E402

FOLDER = "/srv/project"
GENERATED = (
    "generated"  # No world: a history made up event by event, with types that no dispatcher writes in those worlds.
)


def moved(source: Log, target: Path) -> None:
    """Append what a log holds to a new one, as it would have been in another folder; times, ids and actors stay."""
    folder = str(source.path.parent)
    blobs = {digest: bytes(source.blob(digest)) for (digest,) in source._reader.execute("SELECT digest FROM blobs")}
    renamed = {digest: content.replace(folder.encode(), FOLDER.encode()) for digest, content in blobs.items()}
    names = {digest: digest_of(content) for digest, content in renamed.items()}
    now = [0]
    with Log(target, clock=lambda: now[0], environ={}) as log:
        rows = list(source.rows())
        while rows:
            commit = [row for row in rows if (row.at_us, row.actor) == (rows[0].at_us, rows[0].actor)]
            commit = commit if commit == rows[: len(commit)] else rows[:1]
            rows = rows[len(commit) :]
            now[0] = commit[0].at_us

            def decide(draft: Draft, commit: list[Any] = commit) -> None:
                for digest, content in renamed.items():
                    draft.add_blob(names[digest], content)
                for row in commit:
                    body = row.body.replace(folder, FOLDER)
                    for old, new in names.items():
                        body = body.replace(old, new)
                    cls, values = decode_body(row.type, body)
                    draft.add(row.run_id, cls.model_validate(values))

            log.transact(decide, actor=commit[0].actor)


def freeze(name: str, world: str, seed: int) -> None:
    """Make the two files."""
    target = Path(__file__).parent / "histories" / name
    if target.with_suffix(".sql.gz").exists():
        raise SystemExit(f"{name} is frozen already")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "events.db"
        if world == GENERATED:
            with generated(Random(seed), 150) as (_, made):
                moved(made, store)
        else:
            tell(story(world, seed), lambda told: moved(told.log, store))
        with Log(store, create=False, environ={}) as log:
            end = log.last_seq()
            final = {run_id: run_view(log, run_id, end) for run_id in store_view(log, end)["runs"]}
            for view in final.values():
                del view["plan"], view["effective"]  # Long, and in the digests.
            expected = {
                "world": world, "seed": seed, "events": end, "head": verify_rows(log.rows()).head,
                "types": sorted({row.type for row in log.rows()}), "store": store_view(log, end), "runs": final,
                "digests": digests(log),
            }  # fmt: skip
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("DELETE FROM snapshots")
            connection.commit()
            sql = "\n".join(connection.iterdump()) + "\n"
    with gzip.GzipFile(target.with_suffix(".sql.gz"), "wb", mtime=0) as file:
        file.write(sql.encode())
    target.with_suffix(".json").write_text(json.dumps(plain(expected), ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    freeze(sys.argv[1], sys.argv[2], int(sys.argv[3]))
