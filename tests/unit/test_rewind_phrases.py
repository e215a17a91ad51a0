"""Which checkpoint a phrase means, and when it means none by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.errors import Ambiguous, ParallelAgentsError, UnknownCheckpoint
from parallel_agents.rewind_phrases import find_by_name, fitting, standing_at, understand

START = datetime(2026, 3, 10, 8, tzinfo=UTC)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that shows UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def made(place: int, label: str, kind: str = "manual", **fields: Any) -> dict[str, Any]:
    """A checkpoint, ten minutes after the one before; its id tells its place: ``a``, ``b`` ... and nine letters."""
    at = START + timedelta(minutes=10 * place)
    letter = "abcdefghijklmnopqrstuvwxyz"[place]
    return {
        "checkpoint_id": letter * 10,
        "seq": place + 1,
        "label": label,
        "kind": kind,
        "at": at.isoformat(),
        **fields,
    }


STORY = [
    made(0, "start"),
    made(1, "architecture"),
    made(2, "Bugfixes in parser"),
    made(3, "login page", description="the form and its errors"),
    made(4, "", "before_attempt", attempt_id="x", task_id="plan-api", agent_type="software-architect"),
    made(5, "", "after_attempt", attempt_id="x", task_id="plan-api", agent_type="software-architect"),
    made(6, "release", tags=["v2"]),
]


@pytest.mark.parametrize(
    ("phrase", "letter"),
    [
        ("rewind to before bug fix", "b"),
        ("rewind to 'before bug fix'", "b"),
        ("go back to just before the bug fixes", "b"),
        ("bugfix", "c"),
        ("after the bug fix", "c"),
        ("Roll back to the architecure checkpoint", "b"),
        ("rewind 3 steps", "e"),
        ("rewind three steps back", "e"),
        ("undo the last 2 steps", "f"),
        ("back 7 steps", "a"),
        ("step back", "g"),
        ("last checkpoint", "g"),
        ("before the last checkpoint", "f"),
        ("the beginning", "a"),
        ("first checkpoint", "a"),
        ("rewind to 2 hours ago", "g"),
        ("rewind to 3 hours and 25 minutes ago", "d"),
        ("the state of 3.5 hours ago", "d"),
        ("at 08:20", "c"),
        ("before 08:20", "b"),
        ("after 08:20", "d"),
        ("today at 08:59", "f"),
        ("rewind to last software-architect checkpoint", "f"),
        ("rewind to the last checkpoint of software architect", "f"),
        ("first software-architect checkpoint", "f"),  # What became of it.
        ("before the last software-architect checkpoint", "e"),
        ("software-architect", "f"),
        ("before plan-api", "e"),
        ("after plan api", "f"),
        ("errors of the form", "d"),
        ("v2", "g"),
        ("dddddddddd", "d"),
        ("rewind to dddddddddd", "d"),
        ("dddd", "d"),
        ("LOGIN PAGE", "d"),
    ],
)
def test_a_phrase_means_a_checkpoint(phrase: str, letter: str) -> None:
    """And what it was understood as names that checkpoint."""
    found = understand(phrase, STORY, NOW)
    assert found.checkpoint["checkpoint_id"] == letter * 10
    assert letter * 10 in found.reading


@pytest.mark.parametrize(
    ("phrase", "says"),
    [
        ("rewind to before bug fix", "the one before the checkpoint that fits 'bug fix'"),
        ("3 steps", "the 3rd last checkpoint"),
        ("2 hours ago", "the last checkpoint at or before 2026-03-10 10:00:00"),
        ("last software-architect checkpoint", "the last checkpoint of software-architect"),
        ("login page", "the checkpoint of that label"),
    ],
)
def test_it_says_how_it_understood(phrase: str, says: str) -> None:
    """In words that differ for each way of reading."""
    assert says in understand(phrase, STORY, NOW).reading


@pytest.mark.parametrize(
    ("phrase", "complaint"),
    [
        ("rewind to before the flood", "no checkpoint fits"),
        ("rewind 99 steps", "there are no 99 checkpoints to go back by"),
        ("0 steps", "there are no 0 checkpoints"),
        ("5 days ago", "no checkpoint was made at or before 2026-03-05 12:00:00"),
        ("yesterday", "no checkpoint was made at or before 2026-03-09"),
        ("today at 13:00", "has not come yet"),
        ("after 11:00", "no checkpoint was made after"),
        ("999999999 weeks ago", "outside of the calendar"),
        ("before start", "there is no checkpoint before aaaaaaaaaa"),
        ("rewind to", "names no checkpoint"),
        ("", "names no checkpoint"),
        ("the checkpoint", "no checkpoint fits"),
        ("parser lexer compiler", "no checkpoint fits"),  # One word of three.
    ],
)
def test_where_nothing_fits_it_says_so(phrase: str, complaint: str) -> None:
    """With exit code 3, and a hint what there is."""
    with pytest.raises(UnknownCheckpoint, match=complaint) as refused:
        understand(phrase, STORY, NOW)
    assert refused.value.exit_code == 3
    assert refused.value.hint


def test_there_is_nothing_to_go_back_to_in_the_beginning() -> None:
    """Whatever is said."""
    with pytest.raises(UnknownCheckpoint, match="no checkpoint yet"):
        understand("3 steps", [], NOW)


def test_two_that_fit_equally_well_are_both_named() -> None:
    """With what each would lead to, and how to say it exactly; saying first or last decides."""
    known = [made(0, "start"), made(1, "login page"), made(2, "menu"), made(3, "login form")]
    with pytest.raises(Ambiguous, match="fits 2 checkpoints equally well") as refused:
        understand("rewind to before login", known, NOW)
    assert "aaaaaaaaaa" in refused.value.message
    assert "cccccccccc" in refused.value.message
    assert "such as cccccccccc" in refused.value.hint
    assert understand("before the first login", known, NOW).checkpoint["label"] == "start"
    assert understand("before the last login", known, NOW).checkpoint["label"] == "menu"


def test_a_label_that_is_all_of_what_was_said_fits_better_than_one_that_says_more() -> None:
    """Whichever came first."""
    known = [made(0, "start"), made(1, "the bug fix"), made(2, "bug fix of the login page")]
    assert understand("before bug fix", known, NOW).checkpoint["label"] == "start"


def test_a_label_fits_better_than_a_description() -> None:
    """Which speaks of many things."""
    known = [made(0, "menu", description="needed for the login"), made(1, "login of guests")]
    assert understand("login", known, NOW).checkpoint["label"] == "login of guests"


def test_the_same_label_twice_is_ambiguous() -> None:
    """Unless one of them was undone."""
    known = [made(0, "draft"), made(1, "draft")]
    with pytest.raises(Ambiguous):
        understand("draft", known, NOW)
    known[0]["undone"] = True
    assert understand("draft", known, NOW).checkpoint["checkpoint_id"] == "bbbbbbbbbb"


def test_the_beginning_of_two_ids_is_ambiguous() -> None:
    """And is no word of a label either."""
    known = [{**made(0, "x"), "checkpoint_id": "abcdaaaaaa"}, {**made(1, "y"), "checkpoint_id": "abcdbbbbbb"}]
    with pytest.raises(Ambiguous):
        understand("abcd", known, NOW)
    assert understand("abcda", known, NOW).checkpoint["label"] == "x"


def test_several_attempts_at_one_task_are_told_apart_by_first_and_last() -> None:
    """Before each of them there is another state."""
    known = [
        made(0, "", "before_attempt", attempt_id="1", task_id="parser"),
        made(1, "", "before_attempt", attempt_id="2", task_id="parser"),
        made(2, "", "after_attempt", attempt_id="2", task_id="parser"),
    ]
    with pytest.raises(Ambiguous):
        understand("before parser", known, NOW)
    assert understand("before the last parser", known, NOW).checkpoint["checkpoint_id"] == "bbbbbbbbbb"
    assert understand("before the first parser", known, NOW).checkpoint["checkpoint_id"] == "aaaaaaaaaa"


def test_before_goes_along_the_line_where_it_is_known() -> None:
    """Not to what was made meanwhile on another one."""
    known = [made(0, "start"), made(1, "elsewhere"), made(2, "bug fix", parent="aaaaaaaaaa")]
    assert understand("before bug fix", known, NOW).checkpoint["label"] == "start"


def test_a_checkpoint_that_says_it_lies_before_something_is_that_one() -> None:
    """Not the one before it."""
    known = [made(0, "start"), made(1, "before the big bug fix"), made(2, "more")]
    assert understand("rewind to before bug fix", known, NOW).checkpoint["checkpoint_id"] == "bbbbbbbbbb"


def test_steps_do_not_count_what_was_undone() -> None:
    """But an id reaches it still."""
    known = [made(0, "one"), made(1, "two", undone=True), made(2, "three", undone=True), made(3, "four")]
    assert understand("2 steps", known, NOW).checkpoint["label"] == "one"
    found = understand("cccccccccc", known, NOW)
    assert found.checkpoint["label"] == "three"
    assert "undone" in found.reading


def test_a_time_leads_to_what_was_not_undone_by_then() -> None:
    """What was undone afterwards is what the files were."""
    since = (START + timedelta(minutes=25)).isoformat()
    known = [made(0, "one"), made(1, "two", undone=True, undone_at=since), made(3, "three")]
    assert understand("at 08:20", known, NOW).checkpoint["label"] == "two"
    assert understand("at 08:26", known, NOW).checkpoint["label"] == "one"
    at = START + timedelta(minutes=20)
    assert standing_at(known, at) == known[1]
    assert standing_at(known, START - timedelta(seconds=1)) is None


def test_a_name_is_nothing_but_a_name() -> None:
    """An id, the beginning of one, or a label; never words or steps."""
    assert find_by_name("3 steps", STORY) is None
    assert find_by_name("bug", STORY) is None
    found = find_by_name("Architecture", STORY)
    assert found is not None
    assert found.checkpoint["checkpoint_id"] == "bbbbbbbbbb"


def test_those_that_fit_best_are_all_given() -> None:
    """And none where there is nothing to compare."""
    known = [made(0, "login page"), made(1, "menu"), made(2, "login form")]
    assert [one["label"] for one in fitting("login", known)] == ["login page", "login form"]
    assert fitting("the checkpoint", known) == []


LABELS = ["", "start", "bug fix", "fixing bugs", "login page", "before deploy", "after_qa", "2 steps", "yesterday"]
KINDS = ["manual", "before_run", "before_attempt", "after_attempt", "after_run", "stage", "before_restore"]
CHECKPOINTS = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.sampled_from(LABELS),
            "kind": st.sampled_from(KINDS),
            "undone": st.booleans(),
            "attempt_id": st.sampled_from([None, "x", "y"]),
            "agent_type": st.sampled_from([None, "qa-engineer", "reviewer"]),
            "tags": st.sampled_from([[], ["bug"]]),
        }
    ),
    max_size=8,
).map(lambda found: [{**made(place, fields["label"]), **fields} for place, fields in enumerate(found)])
SAID = st.sampled_from(
    ["rewind", "to", "before", "after", "the", "last", "first", "bug", "fix", "login", "page", "qa-engineer", "checkpoint",
     "2", "3", "steps", "hours", "ago", "at", "08:20", "yesterday", "deploy", "run", "stage", "back"]
)  # fmt: skip
PHRASES = st.one_of(st.text(max_size=25), st.lists(SAID, max_size=6).map(" ".join))


@given(PHRASES, CHECKPOINTS)
def test_any_phrase_means_one_of_the_checkpoints_or_is_refused(phrase: str, known: list[dict[str, Any]]) -> None:
    """Whatever the order that they come in; and an answer says its id."""

    def answer(given: list[dict[str, Any]]) -> str:
        try:
            found = understand(phrase, given, NOW)
        except ParallelAgentsError as error:
            return f"{type(error).__name__}: {error.message}"
        assert found.checkpoint in known
        assert found.checkpoint["checkpoint_id"] in found.reading
        return found.reading

    assert answer(known) == answer(known[::-1])


@given(CHECKPOINTS.filter(bool), st.data())
def test_every_checkpoint_can_be_said_by_its_id(known: list[dict[str, Any]], data: st.DataObject) -> None:
    """Which is what a refusal offers."""
    wanted = data.draw(st.sampled_from(known))
    assert understand(f"rewind to {wanted['checkpoint_id']}", known, NOW).checkpoint == wanted
