"""Whether a store is what was written to it: its chain, and the documents that its events name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import orjson

from parallel_agents.archived import Announced
from parallel_agents.eventstore import carried
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.chain import missing_blobs, scrubs, verify_rows
from parallel_agents.eventstore.log import Log

T = TypeVar("T")
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
    if log.carried is not None:
        return _verify_carried(log, log.carried, progress)
    total = log.last_seq()
    announced = scrubs(log.rows(where="type = 'SecretScrubbed'"))
    archives = Announced(log)
    verdict = verify_rows(_counted(log.rows(stored=True), total, progress), announced, archives.body)
    missing = _missing_documents(log) if verdict.broken is None else []
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


def _missing_documents(log: Log) -> list[str]:
    bodies = (
        orjson.loads(row.body) for row in log.rows(where="type IN ('RunSubmitted', 'RunForked', 'PlanScheduled')")
    )
    named = (body.get(name) for body in bodies for name in ("plan_digest", "state_digest"))
    return missing_blobs(dict.fromkeys(digest for digest in named if digest), log.blob)


def _verify_carried(log: Log, about: Carried, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    """The same of an imported run. ``carried`` says which part of the other store's chain was followed, and of how many
    bodies only the envelope is proved, because something of them was left out."""
    announced = scrubs(log.rows(where="type = 'SecretScrubbed'"))
    links = _counted(carried.stored_links(log.path), about.head_seq - about.first + 1, progress)
    followed = carried.follow(links, about, announced)
    missing = _missing_documents(log) if followed.broken is None else []
    broken = None if followed.broken is None else {"seq": followed.broken[0], "what": followed.broken[1]}
    return {
        "ok": broken is None and not missing,
        "events": followed.links,
        "head": followed.head,
        "broken": broken,
        "missing_plans": missing,
        "changed_archives": [],
        "missing_archives": [],
        "carried": {
            "run_id": about.run_id, "first": about.first, "last": about.last, "head_seq": about.head_seq,
            "reduced": followed.reduced,
        },
    }  # fmt: skip


def _counted(rows: Iterable[T], total: int, progress: Callable[[int, int], None] | None) -> Iterator[T]:
    for number, row in enumerate(rows, start=1):
        if progress is not None and number % REPORT_EVERY == 0:
            progress(number, total)
        yield row
