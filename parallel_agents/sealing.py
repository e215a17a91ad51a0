"""A seal: a signed statement of what the head of the chain was. Kept elsewhere, it finds a history rewritten as a whole.

The chain proves that the log fits together. Whoever can write to the log can make it fit together anew from any event on;
they cannot make it end in the hash that a seal states without the events that led there. A seal is JSON; what is signed is
``SIGNED`` and the same JSON without the signature, its keys sorted, no blanks, ASCII only (docs/adr/0033).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parallel_agents.eventstore import carried
from parallel_agents.eventstore.chain import scrubbed_by
from parallel_agents.eventstore.errors import ChainBroken, InvalidUsage, NotAllowed
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.seal_keys import fingerprint, public_bytes, public_text
from parallel_agents.verification import Told, verify
from parallel_agents.version import RELEASE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT: Final = 1
MARK: Final = "parallel_agents_seal"  # The key that says that a document is a seal, and of which format.
SIGNED: Final = b"parallel-agents seal\n"  # So that no other document that the key signs can be taken for one.
MOST_BYTES: Final = 65_536
_FIELDS: Final = {"store": str, "seq": int, "head": str, "events": int, "at": str, "release": str, "public_key": str}


@dataclass(frozen=True, slots=True)
class Seal:
    """What was signed, as it was read.

    Attributes:
        name: of the file that it came from.
        store: the hash of the first event, in hex: what a store, its copies and what grows from them have in common.
        head: the hash of event ``seq``, in hex.
        at: when, by the clock of whoever signed.
        key: the public key.
        genuine: whether the signature is of that key and of these words.
    """

    name: str
    store: str
    seq: int
    head: str
    at: str
    release: str
    key: bytes
    genuine: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """What a seal proves of a log. ``code`` is empty where it fits, else one of those in ``check``."""

    file: str
    ok: bool
    code: str
    what: str
    hint: str
    store: str
    seq: int
    head: str
    at: str
    release: str
    fingerprint: str
    trusted_by: str | None  # The file or the fingerprint that the user trusts.
    scrubbed_since: list[
        int
    ]  # Events that it covers and whose bodies were changed since: it proves their digests alone.

    def as_data(self) -> dict[str, Any]:
        """As scripts read it."""
        return asdict(self)


def seal(log: Log, key: Ed25519PrivateKey, progress: Told | None = None) -> dict[str, Any]:
    """Sign what the log is now, once it was seen to be what was written.

    Raises:
        ChainBroken: it is not.
        NotAllowed: it holds no event.
    """
    found = verify(log, progress)
    if not found["ok"]:
        raise ChainBroken("what is not as it was written is not sealed", hint="`parallel-agents verify` says where")
    first = _hash_of(log, 1)
    if first is None:
        raise NotAllowed("the log holds no event, so there is nothing to seal")
    statement = {
        MARK: FORMAT,
        "store": first,
        "seq": found["events"],
        "head": found["head"],
        "events": found["events"],
        "at": rfc3339(wall_clock_us()),
        "release": RELEASE,
        "public_key": public_text(key.public_key().public_bytes_raw()),
    }
    return {**statement, "signature": base64.b64encode(key.sign(_signed(statement))).decode()}


def _signed(statement: Mapping[str, Any]) -> bytes:
    """The bytes under the signature."""
    words = {name: value for name, value in statement.items() if name != "signature"}
    return SIGNED + json.dumps(words, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def read(name: str, content: bytes) -> Seal:
    """A seal from what stands in a file.

    Raises:
        InvalidUsage: it is none, or one of a later release.
    """
    try:
        raw = json.loads(content) if len(content) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict) or type(raw.get(MARK)) is not int:
        raise InvalidUsage(f"{name} is no seal", hint="`parallel-agents seal` makes one")
    if raw[MARK] != FORMAT:
        raise InvalidUsage(
            f"{name} is a seal of format {raw[MARK]}; this release knows format {FORMAT}",
            hint="use the release that made it, or a later one",
        )
    try:
        for field, kind in _FIELDS.items():
            if type(raw[field]) is not kind:
                raise ValueError(field)
        key, signature = public_bytes(raw["public_key"]), base64.b64decode(raw["signature"], validate=True)
        genuine = _is_signature(key, signature, _signed(raw))
        bytes.fromhex(raw["store"] + raw["head"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidUsage(
            f"{name} is no whole seal: {error}", hint="copy it again from where it was written"
        ) from None
    values = {field: raw[field] for field in ("store", "seq", "head", "at", "release")}
    return Seal(name=name, key=key, genuine=genuine, **values)


def read_file(path: Path) -> Seal:
    """The same from a file.

    Raises:
        InvalidUsage: it cannot be read, or is no seal.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidUsage(f"{path} cannot be read: {error.strerror}") from None
    return read(str(path), content)


def _is_signature(key: bytes, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def check(log: Log, found: Mapping[str, Any], seals: Sequence[Seal], trusted: Mapping[str, str]) -> list[Checked]:
    """What seals prove of a log.

    Args:
        found: what ``verify`` has found in it: a seal says nothing of a part that does not hold together.
        trusted: fingerprint -> who says that its seals count.
    Returns:
        In the order of the seals. A code is ``signature`` (it was changed, or made up), ``unknown_key`` (whoever rewrote the
        log may have made it), ``other_store``, ``shorter`` (events were cut off), ``before`` (an imported run
        begins later), ``chain`` (the log does not hold together up to there) or ``rewritten``.
    """
    held = [one for one in seals if _code(log, found, one, trusted)[0] == ""]
    return [_checked(log, found, one, trusted, held) for one in seals]


def _checked(
    log: Log, found: Mapping[str, Any], one: Seal, trusted: Mapping[str, str], held: Sequence[Seal]
) -> Checked:
    code, what, hint = _code(log, found, one, trusted)
    if code == "rewritten":
        before = max((other.seq for other in held if other.seq < one.seq), default=0)
        what += f"; what was changed lies between events {before + 1} and {one.seq}"
    mark = fingerprint(one.key)
    since = (
        []
        if code
        else sorted(
            seq
            for seq, by in scrubbed_by(log.rows(run_id=STORE_RUN, where="type = 'SecretScrubbed'")).items()
            if seq <= one.seq < by
        )
    )
    return Checked(
        file=one.name, ok=not code, code=code, what=what, hint=hint, store=one.store, seq=one.seq, head=one.head,
        at=one.at, release=one.release, fingerprint=mark, trusted_by=trusted.get(mark),
        scrubbed_since=since,
    )  # fmt: skip


def _code(log: Log, found: Mapping[str, Any], one: Seal, trusted: Mapping[str, str]) -> tuple[str, str, str]:
    """The code, what is wrong in words, and what to do next; three empty texts where nothing is."""
    mark, copy = fingerprint(one.key), "a backup from before then may tell what was changed"
    if not one.genuine:
        return (
            "signature",
            f"the seal {one.name} was changed: its signature does not fit",
            "take the copy that you kept",
        )
    if mark not in trusted:
        whose = f"the seal {one.name} is signed with a key that nobody has vouched for: {mark}"
        return "unknown_key", whose, f"if you know that key to be the right one: --trust-key {mark}"
    if log.carried is not None and one.seq < log.carried.first - 1:
        begins = f"run {log.carried.run_id} begins with event {log.carried.first}, and its chain with it"
        return "before", f"the seal {one.name} of event {one.seq} says nothing of it: {begins}", "take one of later on"
    first = _hash_of(log, 1) if log.carried is None else one.store  # Its head tells well enough of which store it is.
    if first != one.store:
        begins = f"the seal {one.name} is of another store, or this one was rewritten from its first event on"
        return (
            "other_store",
            f"{begins}: that begins with {one.store[:12]}, this with {(first or 'nothing')[:12]}",
            copy,
        )
    broken, last = found["broken"], log.last_seq() if log.carried is None else log.carried.head_seq
    if broken is not None and broken["seq"] <= one.seq:
        return "chain", f"the seal {one.name} of event {one.seq} says nothing: event {broken['seq']} was changed", copy
    if last < one.seq:
        gone = f"the log ends with event {last}, and at {one.at} it had {one.seq}"
        return "shorter", f"events {last + 1} to {one.seq} of the seal {one.name} are gone: {gone}", copy
    if _hash_of(log, one.seq) != one.head:
        return "rewritten", f"the history up to event {one.seq} is not the one of the seal {one.name} of {one.at}", copy
    return "", "", ""


def _hash_of(log: Log, seq: int) -> str | None:
    """The hash of an event, in hex; None where there is none."""
    if log.carried is not None:
        link = carried.hash_at(log.path, log.carried, seq)
        return None if link is None else link.hex()
    row = next((row for chunk in log.chunks(seq - 1, seq) for row in chunk if row[0] == seq), None)
    return row[9].hex() if row is not None and isinstance(row[9], bytes) else None
