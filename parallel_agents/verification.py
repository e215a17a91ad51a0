"""Whether a store is what was written to it: its chain, and the documents that its events name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from parallel_agents.archived import Announced
from parallel_agents.eventstore.chain import missing_blobs, scrubs, verify_rows
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row

REPORT_EVERY = 20_000  # Rows between two reports of progress.


def verify(log: Log, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Follow the chain of the whole log and look at every plan.

    Args:
        progress: called now and then with (events checked, events in all).
    Returns:
        ``{"ok", "events", "head", "broken": {"seq", "what"} | None, "missing_plans": [digest],
        "changed_archives": [file], "missing_archives": [file]}``. An archive that was taken away is no damage: the chain
        proves the digests of what it holds.
    """
    total = log.last_seq()
    announced = scrubs(log.rows(where="type = 'SecretScrubbed'"))
    archives = Announced(log)
    verdict = verify_rows(_counted(log.rows(stored=True), total, progress), announced, archives.body)
    missing: list[str] = []
    if verdict.broken is None:
        bodies = (
            orjson.loads(row.body) for row in log.rows(where="type IN ('RunSubmitted', 'RunForked', 'PlanScheduled')")
        )
        named = (body.get(name) for body in bodies for name in ("plan_digest", "state_digest"))
        missing = missing_blobs(dict.fromkeys(digest for digest in named if digest), log.blob)
    broken = None if verdict.broken is None else {"seq": verdict.broken.seq, "what": verdict.broken.what}
    return {
        "ok": broken is None and not missing and not archives.changed,
        "events": verdict.events,
        "head": verdict.head,
        "broken": broken,
        "missing_plans": missing,
        "changed_archives": archives.changed,
        "missing_archives": archives.missing,
    }


def _counted(rows: Iterable[Row], total: int, progress: Callable[[int, int], None] | None) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        if progress is not None and number % REPORT_EVERY == 0:
            progress(number, total)
        yield row
