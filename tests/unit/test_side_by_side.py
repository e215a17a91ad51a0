"""Two versions of a file beside each other, read from the text that a merge leaves."""

from __future__ import annotations

import pytest

from parallel_agents.cli.side_by_side import clashes, side_by_side

TEXT = """one
two
three
four
<<<<<<< ours
  five
=======
FIVE
SIX
>>>>>>> theirs
seven
=======
eight
"""


def lines(text: str, width: int = 43) -> list[str]:
    """What is drawn, without colours."""
    return [line.plain.rstrip() for line in side_by_side(text, width, "ours: a", "theirs: b")]


def test_both_sides_stand_beside_each_other_between_what_they_share() -> None:
    """The longer side leaves room on the other."""
    assert lines(TEXT) == [
        "ours: a              │ theirs: b",
        "@ line 5",
        "two                  │ two",
        "three                │ three",
        "four                 │ four",
        "  five               │ FIVE",
        "                     │ SIX",
        "seven                │ seven",
        "=======              │ =======",
        "eight                │ eight",
    ]


def test_a_long_line_is_cut_where_its_column_ends() -> None:
    """And what would move the cursor is not printed."""
    text = f"<<<<<<< ours\n{'x' * 50}\n=======\n\tb\x1b[2J\n>>>>>>> theirs\n"
    (row,) = lines(text)[2:]
    left, right = row.split(" │ ")
    assert (len(left), left[-1]) == (20, "…")
    assert right == "    b [2J"


@pytest.mark.parametrize("text", ["no conflict\nat all\n", "<<<<<<< ours\nnever ended\n"])
def test_a_text_without_a_whole_conflict_is_shown_as_it_is(text: str) -> None:
    """Such as that of a file which one side has removed."""
    assert clashes(text) == []
    assert lines(text) == text.splitlines()


def test_where_there_is_no_room_for_two_columns_the_marks_are_shown() -> None:
    """Nobody reads ten characters a line."""
    assert lines(TEXT, 30) == TEXT.splitlines()
