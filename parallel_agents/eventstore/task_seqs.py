"""Which events of any runs name a task, by the index that finds those of one run: the rows between them are not read."""

from __future__ import annotations

from typing import Final

import orjson

from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.of_task import OF_TASK

_RUNS: Final = """
WITH RECURSIVE runs(run_id) AS (
  SELECT min(run_id) FROM events
  UNION ALL
  SELECT (SELECT min(run_id) FROM events WHERE run_id > runs.run_id) FROM runs WHERE runs.run_id IS NOT NULL LIMIT ?
)
SELECT run_id FROM runs WHERE run_id IS NOT NULL
"""  # One step in the index a run; SQLite's own DISTINCT walks along all of it.
_OF_RUNS: Final = "SELECT seq FROM events WHERE run_id IN (SELECT value FROM json_each(?))"
_BETWEEN: Final = "seq >= ? AND seq <= ?"
_NAMING: Final = f"{_OF_RUNS} AND {OF_TASK} = ? AND {_BETWEEN}"
_MOVED: Final = f"{_OF_RUNS} AND {OF_TASK} IS NULL AND length(body) = 0 AND {_BETWEEN}"
_ARCHIVED: Final = (
    "SELECT DISTINCT json_extract(body, '$.run_id') FROM events WHERE run_id = ? AND type = 'RunArchived'"
)


def run_ids(log: Log, at_most: int) -> list[str] | None:
    """The runs that have events, some microseconds each; None where they are more."""
    found = [str(run_id) for (run_id,) in log.ask(_RUNS, (at_most + 2,))]  # The last step finds none.
    return found if len(found) <= at_most else None


def seqs_of_task(log: Log, task_id: str, runs: list[str], first: int, last: int) -> list[int]:
    """The events with ``first <= seq <= last`` that name a task, and those whose bodies are in an archive; ascending.

    The store has to have the index.
    """
    found = log.ask(_NAMING, (_json(runs), task_id, first, last))
    archived = {run_id for (run_id,) in log.ask(_ARCHIVED, (STORE_RUN,))}
    if moved_of := [run_id for run_id in runs if run_id in archived]:
        found += log.ask(_MOVED, (_json(moved_of), first, last))
    return sorted(seq for (seq,) in found)


def _json(values: list[str]) -> str:
    return orjson.dumps(values).decode()
