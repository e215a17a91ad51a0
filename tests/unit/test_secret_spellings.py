"""A secret is found however it is spelled, what is put in its place holds nothing of it, and nothing else is touched."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.redaction import REDACTED
from parallel_agents.eventstore.secret_spellings import LEAST, Secret, mark

LETTERS = st.text(alphabet='abcXYZ019"\\/\n\t\r é€😀_-{}[]:,', min_size=LEAST, max_size=24).filter(
    lambda text: len(text.strip()) >= LEAST
)


def in_json(text: str, depth: int, *, ascii_only: bool) -> str:
    """A text as a value of JSON in a value of JSON, so often."""
    for _ in range(depth):
        text = json.dumps({"said": text}, ensure_ascii=ascii_only)
    return text


@given(text=LETTERS, depth=st.integers(0, 4), ascii_only=st.booleans())
@example(text='hunter2"hunter2', depth=3, ascii_only=False)
@example(text="\\\\\\\\\\\\", depth=3, ascii_only=True)
@example(text="-----BEGIN KEY-----\nabc\ndef==\n-----END KEY-----", depth=2, ascii_only=True)
def test_it_is_found_at_every_depth_of_json_and_taken_out(text: str, depth: int, ascii_only: bool) -> None:
    """As text and as bytes; what is left is found no more."""
    secret = Secret(text)
    said = in_json(f"before {text} after", depth, ascii_only=ascii_only)
    assert secret.is_in(said)
    assert secret.is_in_bytes(said.encode())
    left = secret.without(said)
    assert not secret.is_in(left)
    assert REDACTED in left
    if depth < 3:
        assert any(needle in said.encode() for needle in secret.needles)


@given(text=LETTERS, depth=st.integers(0, 3), ascii_only=st.booleans())
def test_a_value_stays_json_and_the_rest_of_it_stays_as_it_is(text: str, depth: int, ascii_only: bool) -> None:
    """Keys included, at any depth."""
    said = in_json(f"before {text} after", depth, ascii_only=ascii_only)
    value = {"a": [said, 7, None, 1.5, True], "b": {said: "kept"}, "c": "other"}
    secret = Secret(text)
    assume(not secret.is_in_value(["kept", "other", "a", "b", "c", "said", "before ", " after"]))
    left = secret.without_in(value)
    assert not secret.is_in_value(left)
    assert (left["a"][1:], left["c"], list(left["b"].values())) == ([7, None, 1.5, True], "other", ["kept"])


@given(text=LETTERS, before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_looked_through_too(text: str, before: bytes, after: bytes) -> None:
    """And something of the same length can be put there."""
    secret = Secret(text)
    content = before + text.encode() + after
    spans = list(secret.spans(content))
    assert spans
    for start, stop in spans:
        content = content[:start] + mark(stop - start) + content[stop:]
    assert len(content) == len(before) + len(text.encode()) + len(after)
    assert not any(needle in content for needle in secret.needles)


def test_numbers_of_characters_may_be_written_in_any_case() -> None:
    """Some programs escape every character, and some write small letters."""
    secret = Secret("hunter2é")
    for spelled in (r"\u0068\u0075nter2\u00E9", r"\\u0068unter2\\u00e9", r"hunter2\\\\u00e9"):
        assert secret.is_in(spelled), spelled


@pytest.mark.parametrize("text", ["", "short", "     ", "  abc\n "])
def test_what_is_too_short_to_be_told_from_other_text_is_refused(text: str) -> None:
    """It would be found everywhere."""
    with pytest.raises(InvalidUsage, match="characters"):
        Secret(text)


def test_it_is_never_shown_by_accident() -> None:
    """Not in a traceback, nor where something is logged."""
    assert "hunter2" not in repr(Secret("hunter2hunter2"))


def test_a_text_of_nothing_but_backslashes_takes_no_longer_than_another() -> None:
    """The time grows with its length, and not with its square."""

    def took(length: int) -> float:
        text, secret = "\\" * length + "\\u", Secret('"\\"\\"\\hunter')
        begun = time.process_time()
        assert not secret.is_in(text)
        return time.process_time() - begun

    took(1000)
    ratios = [took(400_000) / max(took(40_000), 1e-6) for _ in range(5)]
    assert min(ratios) < 40


def test_what_is_put_in_its_place_has_its_length() -> None:
    """Whether there is room for the word or not."""
    assert [mark(length) for length in (6, 9, 10, 14)] == [b"******", b"*********", b"[redacted]", b"[redacted]****"]


@pytest.mark.parametrize("other", ["hunter2 hunter2", "hunter", "HUNTER2HUNTER2", {"hunter2": "hunter2"}, None, 7])
def test_other_text_is_left_alone(other: Any) -> None:
    """The very value."""
    assert Secret("hunter2hunter2").without_in(other) == other
