"""Pieces of pictures, and the files that they are written to."""

from __future__ import annotations

import os
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from parallel_agents.eventstore.errors import InvalidUsage, NotAllowed
from parallel_agents.pictures import svg
from parallel_agents.pictures.made_files import make_file
from parallel_agents.pictures.wait_words import FAMILIES, FAMILY_WORDS, PHRASES, family
from parallel_agents.scheduler import plan as scheduler_plan

KIND = ("picture in SVG", ("<svg",))


@settings(max_examples=examples(25), deadline=None)
@given(st.text())
def test_any_text_is_text_in_a_picture(text: str) -> None:
    """Whatever characters it has; what XML cannot hold is a blank."""
    picture = svg.document(
        10, 10, text, text, [svg.words(text, 1, 2), svg.box("ink", 0, 0, 1, 1, svg.title(text, text))]
    )
    root = ElementTree.fromstring(picture.encode("utf-8", "replace"))
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert (title.text or "") == svg.clean(text).encode("utf-8", "replace").decode()


@given(st.floats(1e-3, 1e9), st.integers(1, 30))
def test_an_axis_has_marks_at_round_distances(length_s: float, most: int) -> None:
    """No more than fit, none outside, and so many that the distance could not be halved twice."""
    marks = svg.ticks(length_s, most)
    assert marks[0] == 0
    assert marks[-1] <= length_s * (1 + 1e-9)
    assert len(marks) <= most + 1
    step = marks[1] if len(marks) > 1 else length_s
    assert all(svg.tick_text(mark, step) for mark in marks)


def test_times_are_said_as_people_say_them() -> None:
    """Marks of an axis, and durations."""
    assert [svg.tick_text(one, 0.5) for one in (0, 0.5, 2)] == ["0", "0.5 s", "2 s"]
    assert [svg.tick_text(one, 30) for one in (30, 60, 90, 3600)] == ["30 s", "1 min", "1:30", "1 h"]
    assert [svg.tick_text(one, 86400) for one in (86400, 172800)] == ["1 d", "2 d"]
    assert [svg.span_text(round(one * 1e6)) for one in (0, 59.94, 59.96, 3599, 3600, 200_000)] == [
        "0.0 s", "59.9 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "2 d 7 h",
    ]  # fmt: skip
    assert (svg.shortened("abcdefghij", 5), svg.shortened("abc", 3)) == ("ab…ij", "abc")


def test_every_reason_of_the_scheduler_has_a_colour_and_words() -> None:
    """Its codes are read from its source, so that a new one is missed."""
    source = Path(scheduler_plan.__file__).read_text()
    codes = {part.split('"')[1] for part in source.split("Reason(")[1:] if part.startswith('"')}
    ends = {"running", "skipped", "cancelled", "failed", "completed"}
    assert codes - ends <= PHRASES.keys()
    assert {code for of in FAMILIES.values() for code in of} == PHRASES.keys()
    assert FAMILIES.keys() == FAMILY_WORDS.keys()
    assert {f"w-{family(code)}" for code in PHRASES} <= svg.COLOURS.keys()


def test_a_picture_of_too_much_is_refused() -> None:
    """With what shows it instead."""
    svg.check_size(svg.MOST, "graph")
    with pytest.raises(NotAllowed, match="2,001 tasks") as refused:
        svg.check_size(svg.MOST + 1, "graph")
    assert "--chrome" in refused.value.hint


def test_a_file_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails in between, the earlier one stays, and nothing lies beside it."""
    target = tmp_path / "x.svg"
    assert make_file(str(target), "<svg>1</svg>", *KIND) == 12
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            make_file(str(target), "<svg>2</svg>", *KIND)
    assert (target.read_text(), os.listdir(tmp_path)) == ("<svg>1</svg>", ["x.svg"])
    make_file(str(target), "<svg>3</svg>", *KIND, private=True)
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("<svg>3</svg>", 0o600)
    link = tmp_path / "link.svg"
    link.symlink_to(target)
    make_file(str(link), "<svg>4</svg>", *KIND)
    assert (link.is_symlink(), target.read_text()) == (False, "<svg>3</svg>")


def test_nobody_s_file_is_replaced(tmp_path: Path) -> None:
    """One that is empty is nobody's."""
    notes, empty = tmp_path / "notes", tmp_path / "empty"
    notes.write_text("mine")
    empty.touch()
    with pytest.raises(InvalidUsage, match="is no picture in SVG"):
        make_file(str(notes), "<svg/>", *KIND)
    make_file(str(empty), "<svg/>", *KIND)
    assert (notes.read_text(), empty.read_text()) == ("mine", "<svg/>")
