"""Whether a store is what was written to it: its chain, and the documents that its events name."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import orjson

from parallel_agents.archived import Announced
from parallel_agents.eventstore import carried, segments
from parallel_agents.eventstore.carried import Carried
from parallel_agents.eventstore.chain import Verdict, missing_blobs, scrubs, verdict_of
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.links import Followed, judge_of
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.run_level import RUN_LEVEL

REPORT_EVERY = 20_000  # Events between two reports of progress.
EVENTS_EACH = 100_000  # A process needs a tenth of a second to come; these take it three times as long.
MOST_PROCESSES = 8
_NAMING = ("RunSubmitted", "RunForked")  # Events about a run that name documents.

T = TypeVar("T")
Told = Callable[[int, int], None]


def verify(log: Log, progress: Told | None = None) -> dict[str, Any]:
    """Follow the chain of the whole log and look at every plan.

    Args:
        progress: called now and then with (events checked, events in all).
    Returns:
        ``{"ok", "events", "head", "broken": {"seq", "what"} | None, "missing_plans": [digest],
        "changed_archives": [file], "missing_archives": [file], "scrubbed": [seq]}``. An archive that was taken away is no
        damage: the chain proves the digests of what it holds. ``scrubbed`` are the events whose bodies were changed to
        remove a secret, as the log says.
    """
    if log.carried is not None:
        return _verify_carried(log, log.carried, progress)
    scrubbed = scrubs(log.rows(run_id=STORE_RUN, where="type = 'SecretScrubbed'"))
    archives = Announced(log)
    verdict = follow_chain(log, scrubbed, archives, progress)
    missing = missing_blobs(dict.fromkeys(_documents(log)), log.blob) if verdict.broken is None else []
    broken = None if verdict.broken is None else {"seq": verdict.broken.seq, "what": verdict.broken.what}
    return {
        "ok": broken is None and not missing and not archives.changed,
        "events": verdict.events,
        "head": verdict.head,
        "broken": broken,
        "missing_plans": missing,
        "changed_archives": archives.changed,
        "missing_archives": archives.missing,
        "scrubbed": sorted(scrubbed),
    }


def _verify_carried(log: Log, about: Carried, progress: Told | None) -> dict[str, Any]:
    """The same of an imported run. ``carried`` says which part of the other store's chain was followed, and of how many
    bodies only the envelope is proved, because something of them was left out."""
    announced = scrubs(log.rows(where="type = 'SecretScrubbed'"))
    links = _counted(carried.stored_links(log.path), about.head_seq - about.first + 1, progress)
    followed = carried.follow(links, about, announced)
    missing = missing_blobs(dict.fromkeys(_documents(log)), log.blob) if followed.broken is None else []
    broken = None if followed.broken is None else {"seq": followed.broken[0], "what": followed.broken[1]}
    return {
        "ok": broken is None and not missing,
        "events": followed.links,
        "head": followed.head,
        "broken": broken,
        "missing_plans": missing,
        "changed_archives": [],
        "missing_archives": [],
        "scrubbed": sorted(announced),
        "carried": {
            "run_id": about.run_id, "first": about.first, "last": about.last, "head_seq": about.head_seq,
            "reduced": followed.reduced,
        },
    }  # fmt: skip


def _counted(rows: Iterable[T], total: int, progress: Told | None) -> Iterator[T]:
    for number, row in enumerate(rows, start=1):
        if progress is not None and number % REPORT_EVERY == 0:
            progress(number, total)
        yield row


def _documents(log: Log) -> Iterator[str]:
    """The digests of the plans and states that events name."""
    for rows in (
        log.rows(where=f"{RUN_LEVEL} AND type IN {_NAMING}"),
        log.rows(run_id=STORE_RUN, where="type = 'PlanScheduled'"),
    ):
        for row in rows:
            body = orjson.loads(row.body)
            yield from filter(None, (body.get("plan_digest"), body.get("state_digest")))


def follow_chain(
    log: Log, scrubbed: dict[int, tuple[str, str]], archives: Announced, progress: Told | None = None
) -> Verdict:
    """The chain of the log as it is now; a long one is followed by several processes at the same time."""
    total = log.last_seq()
    judge = judge_of(scrubbed, archives.moved.body)
    count = max(1, min(_processors(), total // EVENTS_EACH, MOST_PROCESSES))
    ends = [total * number // count for number in range(1, count + 1)]
    followed = Followed()

    def go_on(upto: int) -> None:
        for chunk in log.chunks(followed.seq, upto):
            followed.go_on(chunk, judge)
            if followed.broken is not None:
                return
            if progress is not None and followed.seq % REPORT_EVERY < len(chunk):
                progress(min(total, followed.seq * count), total)

    with contextlib.ExitStack() as stack:
        parts = [
            segments.Part(log.path, begin, end, scrubbed, archives.moved) for begin, end in itertools.pairwise(ends)
        ]
        for part in parts:
            stack.callback(part.end)
        go_on(ends[0])
        for part, (begin, end) in zip(parts, itertools.pairwise(ends), strict=True):
            if followed.broken is not None:
                break
            found = part.wait() if followed.seq == begin else None
            if found is None:
                go_on(end)  # It could not be had by itself, or what comes before it does not reach it.
            else:
                followed.join(found)
    return verdict_of(followed)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
