"""Proof that the log is what was written: one SHA-256 chain over every stored byte of it.

Tampering is found, not prevented. The chain covers bytes as stored; nothing is serialised again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.record import GENESIS, Row, event_hash


class Break(NamedTuple):
    """The first place where the log is not what was written."""

    seq: int
    what: str


class Verdict(NamedTuple):
    """What ``verify_rows`` found. ``head`` is the hash of the last event, in hex."""

    events: int
    head: str
    broken: Break | None


def verify_rows(
    rows: Iterable[Row],
    scrubbed: dict[int, tuple[str, str]] | None = None,
    moved: Callable[[Row], str | None] = lambda row: row.body,
) -> Verdict:
    """Follow the chain from its first event.

    Args:
        rows: all rows of a store, oldest first, as they are stored.
        scrubbed: seq -> (old digest, new digest), in hex, of the bodies that ``SecretScrubbed`` events name.
        moved: gives the body of a row in which none is stored; None where it is in an archive that is not there, so that
            only its digest is proved.
    """
    scrubbed = scrubbed or {}
    seq, prev_hash, last_at = 0, GENESIS, 0
    versions: dict[str, int] = {}
    for row in rows:
        what = _mismatch(row, seq + 1, prev_hash, last_at, versions, scrubbed, moved)
        if what is not None:
            return Verdict(seq, prev_hash.hex(), Break(row.seq if row.seq <= seq + 1 else seq + 1, what))
        seq, prev_hash, last_at = row.seq, row.hash, row.at_us
        versions[row.run_id] = row.version
    return Verdict(seq, prev_hash.hex(), None)


def _mismatch(
    row: Row,
    expected_seq: int,
    prev_hash: bytes,
    last_at: int,
    versions: dict[str, int],
    scrubbed: dict[int, tuple[str, str]],
    moved: Callable[[Row], str | None],
) -> str | None:
    if row.seq < expected_seq:
        return "it stands before the first event"
    if row.seq != expected_seq:
        return f"event {expected_seq} is missing; the next one is {row.seq}"
    # Bytes that were no UTF-8 any more come as lone surrogates (see Log.rows) and go back to what they were.
    text = moved(row) if row.body == ELSEWHERE else row.body
    body = text.encode(errors="surrogateescape") if isinstance(text, str) else bytes(text or b"")
    digest = hashlib.sha256(body).digest() if text is not None else row.body_digest
    if digest != row.body_digest:
        if not isinstance(row.body_digest, bytes):
            return "its digest is not the one that was recorded"
        if scrubbed.get(row.seq) != (row.body_digest.hex(), digest.hex()):
            return "its body is not the one that was recorded"
    if row.prev_hash != prev_hash:
        return "it does not follow the event before it"
    link = event_hash(prev_hash, row.seq, row.run_id, row.version, row.type, row.at_us, row.actor, row.body_digest)
    if link != row.hash:
        return "its envelope (run, version, type, time or actor) is not the one that was recorded"
    if row.version != versions.get(row.run_id, 0) + 1:
        return f"it is version {row.version} of run {row.run_id}, after version {versions.get(row.run_id, 0)}"
    if row.at_us < last_at:
        return "its time is before that of the event before it"
    return None


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
