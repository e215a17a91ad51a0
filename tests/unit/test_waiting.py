"""How tests read what a child says: line by line as it comes, and the rest at its end, without a word lost between the two."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import line_with, next_line

TESTS = Path(__file__).parents[1]
# There whoever reads a line reads the rest through the same buffer.
DIALOGUE = "simulation/objects.py"


@pytest.mark.parametrize("text", [True, False])
def test_what_follows_a_line_that_was_waited_for_is_left_to_communicate(text: bool) -> None:
    """Also where both came in one breath, and where other words came first."""
    says = "import sys; sys.stdout.write('one\\ntwo\\nthree\\nfour'); sys.stderr.write('so\\nit is\\n')"
    child = subprocess.Popen(
        [sys.executable, "-c", says], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text, bufsize=-1
    )
    assert next_line(child.stdout) == "one\n"
    assert line_with("hre", child.stdout) == "three\n"
    out, err = child.communicate(timeout=60)
    assert (out, err) == (("four", "so\nit is\n") if text else (b"four", b"so\nit is\n"))


def test_who_has_ended_without_the_words_is_waited_for_no_longer() -> None:
    """The last line counts without its end."""
    with subprocess.Popen(["printf", "one\\ntwo"], stdout=subprocess.PIPE) as child:
        assert next_line(child.stdout) == "one\n"
        assert line_with("two", child.stdout) == "two"
        assert next_line(child.stdout) == ""
        with pytest.raises(AssertionError, match="it ended without a word of 'three'"):
            line_with("three", child.stdout)


def test_no_test_takes_a_line_of_a_child_into_a_buffer() -> None:
    """``communicate`` would not see what lies there: `waiting.next_line` takes the line alone."""
    taking = re.compile(r"\bstd(out|err)\.readline\b")
    found = [
        path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py") if taking.search(path.read_text("utf-8"))
    ]
    assert found == [DIALOGUE]
