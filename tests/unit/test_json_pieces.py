"""Long JSON is printed piece by piece, and is the JSON that it would be in one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.cli.harmless import json_pieces, json_text
from parallel_agents.projections.passing import Passing

OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def refuse(value: Any) -> Any:
    """Nothing else is expected."""
    raise AssertionError(value)


def printed(value: Any) -> str:
    """All pieces."""
    return "".join(json_pieces(value, refuse))


@given(VALUES)
def test_a_value_is_what_was_given(value: Any) -> None:
    """And nothing in it makes a terminal do anything."""
    text = printed(value)
    assert json.loads(text) == value
    assert not OBEYED.search(text)


@given(st.lists(VALUES, max_size=5), st.dictionaries(st.text(max_size=4), VALUES, max_size=3))
def test_what_passes_by_is_printed_as_a_list_is(values: list[Any], beside: dict[str, Any]) -> None:
    """By itself, and as a part of a document."""
    assert json.loads(printed(Passing(lambda: iter(values)))) == values
    assert json.loads(printed(iter(values))) == values
    whole = {"before": beside, "values": values, "after": 1}
    assert json.loads(printed({**whole, "values": Passing(lambda: iter(values))})) == whole


@given(st.lists(st.dictionaries(st.text(max_size=4), st.lists(st.text(), max_size=2), max_size=2), max_size=4))
def test_it_is_laid_out_as_a_list_is(values: list[Any]) -> None:
    """To the last space."""
    whole = {"values": values, "after": {"one": []}}
    assert printed(Passing(lambda: iter(values))) == printed(values) == json_text(values, indent=2)
    assert printed({**whole, "values": Passing(lambda: iter(values))}) == json_text(whole, indent=2)


def test_pieces_come_as_they_are_made() -> None:
    """The first of them before the last value is made."""
    made: list[int] = []

    def values() -> Any:
        for number in range(3):
            made.append(number)
            yield number

    pieces = json_pieces({"name": "x", "values": Passing(values)}, refuse)
    seen = next(piece for piece in pieces if "0" in piece)
    assert (seen.strip("[\n "), made) == ("0", [0])


@pytest.mark.parametrize("value", [2**70, {"half": "\ud800"}])
def test_what_few_can_read_is_printed_all_the_same(value: Any) -> None:
    """As far as JSON can hold it."""
    assert json.loads(printed([value])) == [value]


@pytest.mark.parametrize("char", ["\x7f", "\x9b", "\u202e", "\u2066", "\x1b", "\u2028"])
def test_signs_that_a_terminal_obeys_are_escaped(char: str) -> None:
    """In names and in texts."""
    text = printed({f"a{char}": [f"b{char}c"], "more": Passing(lambda: iter([char]))})
    assert char not in text
    assert json.loads(text) == {f"a{char}": [f"b{char}c"], "more": [char]}
