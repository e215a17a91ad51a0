"""Proof that the log is what was written: one SHA-256 chain over every stored byte of it.

Tampering is found, not prevented. The chain covers bytes as stored; nothing is serialised again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import orjson

from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.links import Break, Followed, Stored, judge_of
from parallel_agents.eventstore.record import Row


class Verdict(NamedTuple):
    """What ``verify_rows`` found. ``head`` is the hash of the last event, in hex."""

    events: int
    head: str
    broken: Break | None


def verify_rows(
    rows: Iterable[Stored],
    scrubbed: Mapping[int, tuple[str, str]] | None = None,
    moved: Callable[[str, int], str | None] = lambda run_id, seq: ELSEWHERE,
) -> Verdict:
    """Follow the chain from its first event.

    Args:
        rows: all rows of a store, oldest first, as they are stored.
        scrubbed, moved: as in ``links.judge_of``.
    """
    followed = Followed()
    followed.go_on(rows, judge_of(scrubbed or {}, moved))
    return verdict_of(followed)


def verdict_of(followed: Followed) -> Verdict:
    """What following the chain has shown."""
    return Verdict(followed.seq, followed.head.hex(), followed.broken)


def scrubs(rows: Iterable[Row]) -> dict[int, tuple[str, str]]:
    """The mismatches that ``SecretScrubbed`` events announce: seq -> (old digest, new digest).

    An announcement that cannot be read announces nothing; the chain says that it was changed.
    """
    found = {}
    for row in rows:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            body = orjson.loads(row.body)
            found[int(body["seq"])] = (str(body["old_digest"]), str(body["new_digest"]))
    return found


def scrubbed_by(rows: Iterable[Row]) -> dict[int, int]:
    """Which ``SecretScrubbed`` is the last one that names an event: seq of that event -> its own seq."""
    found = {}
    for row in rows:
        for seq in scrubs([row]):
            found[seq] = row.seq
    return found


def missing_blobs(digests: Iterable[str], blob: Callable[[str], bytes]) -> list[str]:
    """The digests whose blob is not there, or holds other bytes."""
    wrong = []
    for digest in digests:
        try:
            content = blob(digest)
        except Exception:
            wrong.append(digest)
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            wrong.append(digest)
    return wrong
