"""Events and rows: what is written can be read, for ever and by nobody who does not know it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError, UnknownEventType
from parallel_agents.eventstore.record import (
    UPCASTERS,
    Row,
    as_json,
    decode,
    decode_validated,
    encode,
    from_rfc3339,
    new_id,
    rfc3339,
)

MICROSECONDS = st.integers(min_value=0, max_value=253_402_300_799_999_999)  # Up to the end of the year 9999.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TIME = "2026-03-01T12:00:00.000000Z"
SAMPLES: dict[Any, Any] = {
    str: "x", int: 3, float: 1.5, bool: True, dict[str, str]: {"A": "b"}, dict[str, int]: {"completed": 2},
    dict[str, Any]: {"pid": 1}, list[str]: ["a"], Any: {"made": [1, 2.5, None]},
    ev.Rfc3339: TIME, ev.Count: 3, ev.Count | None: 3, str | None: "x", int | None: 3, float | None: 1.5,
}  # fmt: skip


def row_of(type_: str, body: str) -> Row:
    """A row that holds a body; its hashes play no part."""
    return Row(7, "alpha", 2, type_, 1_000_000, "ana", body, b"", b"", b"\1" * 32)


def example_of(cls: type[ev.Event], *, full: bool) -> ev.Event:
    """An event of a class with every field set, or only those that have to be."""
    values = {}
    for name, field in cls.model_fields.items():
        if full or field.is_required():
            values[name] = SAMPLES[cls.__annotations__[name]]
    return cls(**values)


@pytest.fixture
def newer_note() -> Iterator[type[ev.Event]]:
    """An event class in its third version, with the way there from its first two."""

    class NoteTaken(ev.Event):
        """A note."""

        schema_version: ClassVar[int] = 3
        words: list[str]
        by: str = "nobody"

    def split(body: dict[str, Any]) -> dict[str, Any]:
        return {"words": body["text"].split()}

    def name(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "by": "ana"}

    UPCASTERS["NoteTaken", 1], UPCASTERS["NoteTaken", 2] = split, name
    yield NoteTaken
    del ev.EVENT_TYPES["NoteTaken"], UPCASTERS["NoteTaken", 1], UPCASTERS["NoteTaken", 2]


@pytest.mark.parametrize("full", [True, False], ids=["all fields", "required fields"])
@pytest.mark.parametrize("cls", list(ev.EVENT_TYPES.values()), ids=lambda cls: cls.__name__)
def test_every_event_is_read_back_as_it_was_written(cls: type[ev.Event], full: bool) -> None:
    """With and without validation, the class and every field."""
    event = example_of(cls, full=full)
    row = row_of(cls.__name__, encode(event).decode())
    for read in (decode, decode_validated):
        record = read(row)
        assert (type(record.event), record.event.model_dump()) == (cls, event.model_dump())
        assert record[:5] == (7, "alpha", 2, 1_000_000, "ana")


@pytest.mark.parametrize("cls", list(ev.EVENT_TYPES.values()), ids=lambda cls: cls.__name__)
def test_a_body_without_its_later_fields_reads_with_their_defaults(cls: type[ev.Event]) -> None:
    """A field that an older release did not write is the same, read with and without validation."""
    required = {name for name, field in cls.model_fields.items() if field.is_required()}
    body = orjson.dumps(example_of(cls, full=False).model_dump(include=required)).decode()
    row = row_of(cls.__name__, body)
    assert decode(row).event.model_dump() == decode_validated(row).event.model_dump()


@given(JSON)
def test_any_json_that_a_task_returns_is_kept_exactly(output: object) -> None:
    """Nesting, empty values and every character."""
    event = ev.TaskCompleted(task_id="a", attempt_id="b", duration_s=0.5, output=output)
    assert decode(row_of("TaskCompleted", encode(event).decode())).event == event


def test_an_event_cannot_be_changed() -> None:
    """A fact is frozen."""
    with pytest.raises(ValidationError, match="frozen"):
        ev.RunPaused(reason="x").reason = "y"


@pytest.mark.parametrize("values", [{"reason": 3}, {"raeson": "x"}, {"reason": None}])
def test_a_field_that_does_not_fit_is_refused_before_it_is_stored(values: dict[str, Any]) -> None:
    """No other type, no other name."""
    with pytest.raises(ValidationError):
        ev.RunPaused(**values)


def test_an_unknown_type_is_refused_by_type_and_version() -> None:
    """It is never skipped, and the hint says which release can read it."""
    with pytest.raises(UnknownEventType, match=r"'TaskTeleported' version 4") as caught:
        decode(row_of("TaskTeleported", '{"schema_version": 4, "task_id": "a"}'))
    assert "release" in caught.value.hint
    with pytest.raises(UnknownEventType, match=r"'TaskTeleported' version 1"):
        decode(row_of("TaskTeleported", "{}"))


def test_a_later_version_of_a_known_type_is_refused_by_both_versions() -> None:
    """What is stored, and what this release reads up to."""
    with pytest.raises(UnknownEventType, match=r"RunPaused version 2; .* up to version 1"):
        decode(row_of("RunPaused", '{"schema_version": 2, "reason": "x"}'))


@pytest.mark.parametrize(
    ("body", "words", "by"),
    [
        ('{"text": "buy milk"}', ["buy", "milk"], "ana"),
        ('{"schema_version": 2, "words": ["buy"]}', ["buy"], "ana"),
        ('{"schema_version": 3, "words": ["buy"], "by": "bo"}', ["buy"], "bo"),
        ('{"schema_version": 3, "words": []}', [], "nobody"),
    ],
)
def test_an_old_body_is_read_through_every_upcaster_on_its_way(
    newer_note: Any, body: str, words: list[str], by: str
) -> None:
    """From any version on; the present one passes unchanged."""
    for read in (decode, decode_validated):
        event = read(row_of("NoteTaken", body)).event
        assert isinstance(event, newer_note)
        assert event.model_dump() == {"words": words, "by": by}


def test_a_body_says_its_version_from_the_second_on(newer_note: Any) -> None:
    """So that a body of the first version, which says none, can be told apart."""
    event = newer_note(words=["a"])
    body = encode(event)
    assert orjson.loads(body)["schema_version"] == 3
    assert decode(row_of("NoteTaken", body)).event == event
    assert "schema_version" not in orjson.loads(encode(ev.RunPaused()))


@pytest.mark.parametrize("body", ['{"reason": "x', "", "\udc80", '"text"', "[]", "null"])
def test_a_body_that_is_no_body_any_more_is_refused_by_its_number(body: str) -> None:
    """A damaged row is the store's error, with where to look, and no riddle."""
    with pytest.raises(StoreError, match="event 7") as caught:
        decode(row_of("RunPaused", body))
    assert "verify" in caught.value.hint


def test_ids_are_ten_characters_with_a_letter_first_and_never_the_same() -> None:
    """They become folder and ref names."""
    made = [new_id() for _ in range(5_000)]
    assert all(re.fullmatch(r"[a-z][a-z2-7]{9}", name) for name in made)
    assert len(set(made)) == len(made)
    assert {name[0] for name in made} == set("abcdefghijklmnopqrstuvwxyz")


@given(MICROSECONDS)
def test_a_time_is_printed_and_read_back_exactly(at_us: int) -> None:
    """To the microsecond, for eight thousand years."""
    assert from_rfc3339(rfc3339(at_us)) == at_us


def test_times_are_rfc_3339_in_utc_with_six_decimals() -> None:
    """As scripts read them."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1_772_366_400_000_001) == "2026-03-01T12:00:00.000001Z"


@pytest.mark.parametrize(
    "text", ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01 07:00:00.000-05:00", "20260301T120000Z"]
)
def test_a_time_with_a_zone_is_the_same_moment_everywhere(text: str) -> None:
    """However it is written."""
    assert from_rfc3339(text) == 1_772_366_400_000_000


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noon in Auckland is the midnight before in Greenwich, near enough."""
    monkeypatch.setenv("TZ", "XXX-13")
    time.tzset()
    try:
        assert rfc3339(from_rfc3339("2026-03-01T12:00:00")) == "2026-02-28T23:00:00.000000Z"
        assert rfc3339(from_rfc3339("2026-03-01")) == "2026-02-28T11:00:00.000000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "noon", "2026-13-01", "2026-03-01T25:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    """Also where the calendar ends."""
    with pytest.raises(ValueError, match=r".+"):
        from_rfc3339(text)


def test_a_printed_event_has_the_documented_fields() -> None:
    """The shape that scripts rely on."""
    assert as_json(row_of("RunPaused", '{"reason":"lunch"}')) == {
        "seq": 7, "run_id": "alpha", "version": 2, "type": "RunPaused", "at": "1970-01-01T00:00:01.000000Z",
        "actor": "ana", "data": {"reason": "lunch"}, "hash": "01" * 32,
    }  # fmt: skip
