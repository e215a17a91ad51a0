"""The links of the chain, and the loop that follows them: the one place where each event's hash is worked out again.

Imports next to nothing, because processes that share the work of ``verify`` begin with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from parallel_agents.eventstore.archive import ELSEWHERE

GENESIS = bytes(32)  # prev_hash of the first event.

Stored = tuple[Any, ...]
"""A row of the table ``events`` as it is stored, in the order of ``record.Row``."""

Judge = Callable[[Stored], str | None]
"""Says what is wrong with a row whose body is not the one that was recorded, or not here; None where that is accounted for."""


class Break(NamedTuple):
    """The first place where the log is not what was written."""

    seq: int
    what: str


class First(NamedTuple):
    """The first event of a run in a part of the log."""

    seq: int
    version: int
    prev_hash: bytes


@dataclass(slots=True)
class Followed:
    """How far the chain was followed, from any event on.

    Attributes:
        seq, head, last_at: of the last event that was as it should be; before the first one, of what it has to follow.
        versions: run -> the version of its last event.
        firsts: of runs whose events before this part nobody has looked at.
    """

    seq: int = 0
    head: bytes = GENESIS
    last_at: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, First] = field(default_factory=dict)
    broken: Break | None = None

    def go_on(self, rows: Iterable[Stored], judge: Judge, *, from_start: bool = True) -> None:
        """Follow the chain over the next rows, up to the first that is not what was written.

        Args:
            from_start: all that came before was looked at as well; else first versions are noted, for ``join``.
        """
        seq, head, last_at, versions = self.seq, self.head, self.last_at, self.versions
        known, nothing = versions.get, 0 if from_start else None
        for row in rows:
            number, run_id, version, type_, at_us, actor, body, digest, prev_hash, link = row
            before = known(run_id, nothing)
            try:  # As ``event_hash`` has it; a call costs a twentieth of the whole.
                envelope = f"{number}\x1f{run_id}\x1f{version}\x1f{type_}\x1f{at_us}\x1f{actor}\x1f".encode()
                good = (
                    sha256(body.encode()).digest() == digest
                    and sha256(head + envelope + digest).digest() == link
                    and prev_hash == head
                    and number == seq + 1
                    and version - 1 == before
                    and at_us >= last_at
                )
            except (AttributeError, TypeError, ValueError):  # Not even of the kind that was written.
                good = False
            if not good:
                what = _wrong(row, seq + 1, head, last_at, before, judge)
                if what is not None:
                    self.broken = Break(number if number <= seq + 1 else seq + 1, what)
                    break
                if before is None:
                    self.firsts[run_id] = First(number, version, head)
            seq, head, last_at = number, link, at_us
            versions[run_id] = version
        self.seq, self.head, self.last_at = seq, head, last_at

    def join(self, after: Followed) -> None:
        """Take what was found of the part that begins where this one ends."""
        assert self.broken is None
        broken = after.broken
        self.seq, self.head, self.last_at = after.seq, after.head, after.last_at
        for run_id, first in after.firsts.items():
            before = self.versions.get(run_id, 0)
            if first.version != before + 1 and (broken is None or first.seq < broken.seq):
                broken = Break(first.seq, _miscounted(run_id, first.version, before))
                self.seq, self.head = first.seq - 1, first.prev_hash
        self.versions.update(after.versions)
        self.broken = broken


def event_hash(
    prev_hash: bytes, seq: int, run_id: str, version: int, type_: str, at_us: int, actor: str, body_digest: bytes
) -> bytes:
    """The chain's link: SHA-256 over the previous hash, the envelope and the digest of the body.

    The envelope is joined by the unit separator, which no id, type or actor can hold, so no two envelopes join alike.
    """
    envelope = f"{seq}\x1f{run_id}\x1f{version}\x1f{type_}\x1f{at_us}\x1f{actor}\x1f".encode("utf-8", "surrogateescape")
    return sha256(prev_hash + envelope + body_digest).digest()


def body_bytes(text: Any) -> bytes:
    """A body as it is stored, whatever the database holds in its place."""
    # Bytes that were no UTF-8 any more come as lone surrogates (see Log.rows) and go back to what they were.
    return text.encode(errors="surrogateescape") if isinstance(text, str) else bytes(text or b"")


def judge_of(scrubbed: Mapping[int, tuple[str, str]], moved: Callable[[str, int], str | None]) -> Judge:
    """Who accounts for scrubbed bodies, and for those that lie in archives.

    Args:
        scrubbed: seq -> (old digest, new digest), in hex, as ``SecretScrubbed`` events name them.
        moved: gives the body of an event of a run that is in an archive; None where that archive is not there, so that only
            the digest is proved; an empty text where no archive is known.
    """

    def judge(row: Stored) -> str | None:
        seq, run_id, _, _, _, _, body, recorded, _, _ = row
        text = moved(run_id, seq) if body == ELSEWHERE else body
        if text is None:
            return None
        found = sha256(body_bytes(text)).digest()
        if found == recorded or scrubbed.get(seq) == (recorded.hex(), found.hex()):
            return None
        return "its body is not the one that was recorded"

    return judge


def _wrong(
    row: Stored, expected_seq: int, prev_hash: bytes, last_at: int, before: int | None, judge: Judge
) -> str | None:
    """What is wrong with a row, in words; None where nothing is."""
    seq, run_id, version, type_, at_us, actor, body, digest, stored_prev_hash, stored_hash = row
    if seq < expected_seq:
        return "it stands before the first event"
    if seq != expected_seq:
        return f"event {expected_seq} is missing; the next one is {seq}"
    if not isinstance(digest, bytes):
        return "its digest is not the one that was recorded"
    if stored_hash == prev_hash:
        return "it is a copy of the event before it"
    if (found := sha256(body_bytes(body)).digest()) != digest and (what := judge(row)) is not None:
        if event_hash(stored_prev_hash, seq, run_id, version, type_, at_us, actor, found) == stored_hash:
            return "its digest is not the one that was recorded"
        return what
    if stored_prev_hash != prev_hash:
        return "it does not follow the event before it: events were moved, taken out or put in here"
    if event_hash(prev_hash, seq, run_id, version, type_, at_us, actor, digest) != stored_hash:
        return "its envelope (run, version, type, time or actor), or its body with its digest, is not the one that was recorded"
    if before is not None and version != before + 1:
        return _miscounted(run_id, version, before)
    if at_us < last_at:
        return "its time is before that of the event before it"
    return None


def _miscounted(run_id: str, version: int, before: int) -> str:
    return f"it is version {version} of run {run_id}, after version {before}"
