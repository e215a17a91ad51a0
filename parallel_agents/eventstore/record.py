"""A recorded event: the envelope that the log keeps, and its way to and from a row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from parallel_agents.eventstore.errors import StoreError, UnknownEventType
from parallel_agents.eventstore.events import EVENT_TYPES, Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(type, schema_version of the stored body) -> the body at the next version. Old bodies are read for ever."""


class Recorded(NamedTuple):
    """One event as it stands in the log. ``at_us`` is microseconds since the epoch, UTC."""

    seq: int
    run_id: str
    version: int
    at_us: int
    actor: str
    event: Event


class Row(NamedTuple):
    """One row of the table ``events``, bytes as stored."""

    seq: int
    run_id: str
    version: int
    type: str
    at_us: int
    actor: str
    body: str
    body_digest: bytes
    prev_hash: bytes
    hash: bytes


Brief = tuple[int, int, str, int, str]
"""What a fold needs of a row: seq, version, type, at_us, body."""


def new_id() -> str:
    """An id for a run, a checkpoint or an attempt: 10 random characters a-z2-7, a letter first (49 bits)."""
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """Several such ids: asking the system for randomness costs more than all the rest of an id."""
    random = os.urandom(12 * count)
    ids = []
    for start in range(0, 12 * count, 12):
        number = int.from_bytes(random[start : start + 12], "little")
        first = _ALPHABET[(number >> 45) % 26]  # Of 51 bits, so that no letter comes more often than another.
        pairs = (
            _PAIRS[number & 1023],
            _PAIRS[number >> 10 & 1023],
            _PAIRS[number >> 20 & 1023],
            _PAIRS[number >> 30 & 1023],
        )
        ids.append(first + _ALPHABET[number >> 40 & 31] + "".join(pairs))
    return ids


def derived_id(kind: str, source: str) -> str:
    """An id of the same look that follows from another one, so that who begins again after a crash makes the same."""
    number = int.from_bytes(hashlib.sha256(f"{kind}:{source}".encode()).digest()[:7], "little")
    return _ALPHABET[(number >> 45) % 26] + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(0, 45, 5))


def rfc3339(at_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC, with six decimals."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_rfc3339(text: str) -> int:
    """RFC 3339 to microseconds since the epoch. A text without a zone is local time.

    Raises:
        ValueError: the text is no time.
    """
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside of the calendar") from None
    return (moment - _EPOCH) // timedelta(microseconds=1)


MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of one event: what is longer belongs in a file. Whatever writes events keeps far below this by bounds of its own."""


def encode(event: Event) -> bytes:
    """The body of an event as the log keeps it: JSON; the schema version stands in it from version 2 on."""
    version = event.schema_version
    try:  # The fields hold what JSON holds, and orjson writes them four times faster than the model does.
        return orjson.dumps(event.__dict__ if version == 1 else {**event.__dict__, "schema_version": version})
    except TypeError:  # Such as an integer beyond 64 bits.
        if version != 1:
            raise
        return event.model_dump_json().encode()


def decode_body(type_: str, body: str | bytes) -> tuple[type[Event], dict[str, Any]]:
    """The class and the present-day body of a stored event.

    Raises:
        UnknownEventType: this release knows no such type, or the body is of a later version of it.
        ValueError: the body is no JSON object; only damage makes it so.
    """
    cls = EVENT_TYPES.get(type_)
    values: dict[str, Any] = orjson.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a body is a JSON object")
    version = values.pop("schema_version", 1)
    if type(version) is not int or version < 1:
        raise ValueError("a version is a number from 1 on")
    if cls is None:
        raise UnknownEventType(
            f"the log holds an event of type {type_!r} version {version}, which this release does not know",
            hint="read the store with the release that wrote it, or a later one",
        )
    if version > cls.schema_version:
        raise UnknownEventType(
            f"the log holds {type_} version {version}; this release reads up to version {cls.schema_version}",
            hint="read the store with the release that wrote it, or a later one",
        )
    while version < cls.schema_version:
        values = UPCASTERS[type_, version](values)
        version += 1
    return cls, values


def decode(row: Any) -> Recorded:
    """A stored row (any tuple that begins like ``Row``) as a recorded event, without validating the body again."""
    seq, run_id, version, type_, at_us, actor, body = row[:7]
    try:
        cls, values = decode_body(type_, body)
    except ValueError:
        raise damaged(seq) from None
    return Recorded._make((seq, run_id, version, at_us, actor, cls.trusted(values)))


def decode_brief(run_id: str, brief: Brief) -> Recorded:
    """The same of a brief of that run, but for its actor, which no fold looks at."""
    seq, version, type_, at_us, body = brief
    return decode((seq, run_id, version, type_, at_us, "", body))


def damaged(seq: int) -> StoreError:
    """The error for an event whose stored bytes are no event any more."""
    return StoreError(f"event {seq} of the log is damaged", hint="`parallel-agents verify` shows what was changed")


def decode_validated(row: Any) -> Recorded:
    """As ``decode``, with every field of the body checked against its class (for tools that trust nothing)."""
    seq, run_id, version, type_, at_us, actor, body = row[:7]
    try:
        cls, values = decode_body(type_, body)
        return Recorded(seq, run_id, version, at_us, actor, cls.model_validate(values))
    except ValueError:
        raise damaged(seq) from None


def as_json(row: Row) -> dict[str, Any]:
    """An event as the command line prints it. Fields are only ever added."""
    return {
        "seq": row.seq,
        "run_id": row.run_id,
        "version": row.version,
        "type": row.type,
        "at": rfc3339(row.at_us),
        "actor": row.actor,
        "data": orjson.loads(row.body),
        "hash": row.hash.hex(),
    }
