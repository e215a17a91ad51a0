"""Marks of texts: they may say too much of a block, and never leave out a text that is there."""

from __future__ import annotations

import random

import orjson
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.selecting import holds
from parallel_agents.eventstore.text_marks import Texts, asked, may_hold, tells

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40) | st.from_regex(r"[0-9a-f]{40}|[0-9]{4}-[01][0-9]T[0-2][0-9]:[0-5][0-9]Z", fullmatch=True)
    | st.sampled_from(["Grüße", "İstanbul", "a\"b\\c\n", "task-7", "\u2028", "ΣΑΣ"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BODIES = st.dictionaries(st.sampled_from(["error", "output", "usd_micros", "facts"]), VALUES, min_size=1)


def marks_of(*bodies: dict[str, object]) -> bytes:
    """Of a block of such events."""
    texts = Texts()
    for body in bodies:
        assert texts.add(orjson.dumps(body).decode())
    return texts.marks()


@given(body=BODIES, other=BODIES, seed=st.integers(0, 2**16), length=st.integers(1, 9))
def test_what_is_there_is_never_left_out(
    body: dict[str, object], other: dict[str, object], seed: int, length: int
) -> None:
    """Any stretch of what an event holds, in any case of its letters."""
    chance = random.Random(seed)
    stored = orjson.dumps(body).decode()
    begin = chance.randrange(len(stored))
    for text in (stored[begin : begin + length], stored[begin : begin + length].upper()):
        if holds(body, text.lower()) and (wanted := asked(text)) is not None:
            assert may_hold(marks_of(body, other), wanted)


def test_what_is_not_there_is_mostly_known_not_to_be() -> None:
    """Words, in whichever case, and parts of them; but for what may be a part of a number, a time or a digest."""
    marks = marks_of({"error": "the provider is overloaded", "commit": "79d53ce1ede3035069a149934d488654ec99a6ce"})
    assert all(may_hold(marks, asked(text) or 0) for text in ("Overloaded", "PROVIDER is", "e prov", "ded"))
    absent = ("underloaded", "Provider_", "nothing of the kind", "xyz")
    assert not any(may_hold(marks, wanted) for text in absent if (wanted := asked(text)) is not None)
    assert [asked(text) for text in ("d53ce1", "0.39", "2026-03-01T12", "ab", "")] == [None] * 5


def test_marks_tell_all_that_fewer_events_tell() -> None:
    """So what is known of a block before a body is moved away stays right."""
    few, more = marks_of({"error": "overloaded"}), marks_of({"error": "overloaded"}, {"error": "out of memory"})
    assert tells(more, few)
    assert not tells(few, more)
