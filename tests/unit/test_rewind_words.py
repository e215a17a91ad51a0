"""Words compared as people mean them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.rewind_words import FILLERS, NEAR, SAME, fit, likeness, slips, stem, words

FORMS = [
    ("fix", "fixes", "fixed", "fixing"),
    ("bug", "bugs"),
    ("test", "tests", "tested", "testing"),
    ("refactor", "refactors", "refactored", "refactoring"),
    ("merge", "merges", "merged", "merging"),
    ("authenticate", "authentication"),
    ("migrate", "migration", "migrations"),
    ("deploy", "deploys", "deployed", "deployment"),
    ("dependency", "dependencies"),
    ("run", "runs", "running"),
    ("class", "classes"),
]
LETTERS = st.text("abcdefgh", min_size=1, max_size=12)


@pytest.mark.parametrize("forms", FORMS, ids=lambda forms: forms[0])
def test_the_forms_of_a_word_have_one_stem(forms: tuple[str, ...]) -> None:
    """However it is conjugated."""
    assert {stem(form) for form in forms} == {stem(forms[0])}


@pytest.mark.parametrize(
    ("one", "other"), [("bug", "bag"), ("login", "logout"), ("test", "text"), ("12345", "12346"), ("fix", "fit")]
)
def test_other_words_are_other_words(one: str, other: str) -> None:
    """Short ones and numbers are never taken for a slip of the hand."""
    assert likeness(one, other) == 0.0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("architecure", "architecture"),
        ("paresr", "parser"),
        ("authetnicaton", "authentication"),
        ("chekout", "checkout"),
    ],
)
def test_a_slip_of_the_hand_is_near(typed: str, meant: str) -> None:
    """A letter too few, too many or swapped."""
    assert likeness(typed, meant) == NEAR < SAME


def test_words_are_found_in_whatever_they_are_written_with() -> None:
    """Underscores, dashes, capitals, accents."""
    assert words("Fix_bug in API-client, né?") == ["fix", "bug", "in", "api", "client", "né"]


@pytest.mark.parametrize(
    ("asked", "text", "share"),
    [
        ("bug fix", "Bugfixes in parser", 1.0),
        ("bugfix", "a bug fix", 1.0),
        ("bug fix", "fix of a bug", 1.0),
        ("bug fix", "fix typo", 0.5),
        ("login page", "logout form", 0.0),
        ("parser", "", 0.0),
    ],
)
def test_the_share_of_words_that_a_text_holds(asked: str, text: str, share: float) -> None:
    """Written together or not."""
    assert fit(words(asked), words(text)) == share


def test_nothing_fits_nothing() -> None:
    """A question without words has no answer."""
    assert fit([], ["word"]) == 0.0


@given(LETTERS, LETTERS, st.integers(0, 3))
def test_slips_are_counted_both_ways_and_only_as_far_as_asked(one: str, other: str, most: int) -> None:
    """Symmetric, zero only for the same word, and never below the difference in length."""
    count = slips(one, other, most)
    assert count == slips(other, one, most)
    assert (count == 0) == (one == other)
    assert min(abs(len(one) - len(other)), most + 1) <= count <= most + 1


@given(LETTERS, st.data())
def test_one_slip_is_one_slip(word: str, data: st.DataObject) -> None:
    """A letter left out, added, mistaken or swapped with its neighbour."""
    place = data.draw(st.integers(0, len(word) - 1))
    left_out = word[:place] + word[place + 1 :]
    added = word[:place] + "x" + word[place:]
    mistaken = word[:place] + "x" + word[place + 1 :]
    swapped = word[:place] + word[place : place + 2][::-1] + word[place + 2 :]
    assert {slips(word, other, 2) for other in (left_out, added, mistaken)} == {1}
    assert slips(word, swapped, 2) == (swapped != word)


def test_fillers_are_what_is_said_around_a_name() -> None:
    """And none of the words that checkpoints are found by."""
    assert {"the", "checkpoint", "state"} <= FILLERS
    assert not FILLERS & {"bug", "fix", "test", "login", "feature"}
