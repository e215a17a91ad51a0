"""Spoils real material as a broken disk, a hostile program or a careless editor would: in its bytes, or in its structure."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, "", " ", "\0", "\x1b[2J",
    "..", "../../etc/passwd", "/", "~", "$(true)", "a" * 5000, "\ud800", "\u202e", "é", "2026-03-01T12:00:00Z", "0" * 64,
    [], {}, [[]], {"": ""}, [None] * 3, {"a": {"b": {}}},
)  # fmt: skip


def spoiled_bytes(chance: Random, content: bytes) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    made = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        if not made:
            break
        at = chance.randrange(len(made))
        match chance.randrange(6):
            case 0:
                made[at] = chance.randrange(256)
            case 1:
                del made[at : at + chance.randint(1, 30)]
            case 2:
                made[at:at] = made[max(0, at - chance.randint(1, 200)) : at]
            case 3:
                del made[at:]
            case 4:
                made[at:at] = chance.choice(
                    [b"\0", b"\xff\xfe", b"\n", b'"', b"{", b"[" * 2000, b"&a *a", b"!!python/object:x "]
                )
            case _:
                made[at] ^= 1 << chance.randrange(8)
    return bytes(made)


def spoiled_value(chance: Random, value: Any) -> Any:
    """A copy of JSON in which a few places hold something else, are gone, are named otherwise or stand twice."""
    made = copy.deepcopy(value)
    for _ in range(chance.randint(1, 4)):
        holder, key = _place(chance, made)
        if holder is None:
            return chance.choice(ODD)
        match chance.randrange(4):
            case 0 | 1:
                holder[key] = copy.deepcopy(chance.choice(ODD))
            case 2:
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[chance.choice(["x", "", key.upper(), "type", "schema_version"])] = copy.deepcopy(holder[key])
            case _:
                holder.append(copy.deepcopy(holder[key]))
    return made


def _place(chance: Random, value: Any) -> tuple[Any, Any]:
    """A list or mapping somewhere in a value, and one of its keys."""
    holder: Any = None
    key: Any = None
    while isinstance(value, dict | list) and value:
        holder = value
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        value = holder[key]
        if chance.random() < 0.3:
            break
    return holder, key
