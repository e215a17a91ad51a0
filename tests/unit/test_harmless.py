"""What programs print cannot make a terminal do anything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.cli.harmless import Harmless, harmless

OBEYED = re.compile(r"(?!\x1b\[[0-9;:]*m)\x1b|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("plain, größe 日本 🎉", "plain, größe 日本 🎉"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),  # Would set the clipboard.
        ("\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("good\rbad ", "good\\rbad "),
        ("\x9b2J", "\\x9b2J"),  # The same introducer in one character.
        ("\x1b[6n", "\\x1b[6n"),  # Would be answered as if typed.
        ("a\u202etxt.exe", "a\\u202etxt.exe"),
        ("\x1b[?1049h", "\\x1b[?1049h"),
        ("\x1b[>4;2m", "\\x1b[>4;2m"),  # Ends like a colour and is none.
        ("\x1b]8;;http://x\x07link", "\\x1b]8;;http://x\\x07link"),
    ],
)
def test_only_colours_get_through(printed: str, expected: str) -> None:
    """The rest is shown."""
    assert harmless(printed) == expected


PRINTED = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b"\x1b[", b"\x1b[31m", b"\x1b]52;", b"\x07", b"\xc2\x9b", b"\r\n", b"abc"]),
    )
)


@given(PRINTED)
def test_however_it_is_cut_nothing_gets_through_that_a_terminal_obeys(parts: list[bytes]) -> None:
    """And the whole says the same as its pieces, but for a carriage return that was cut from its line's end."""
    filtered = Harmless()
    pieces = [filtered.feed(part) for part in parts] + [filtered.feed(b"", last=True)]
    text = b"".join(pieces).decode()
    assert not OBEYED.search(text)
    whole = Harmless().feed(b"".join(parts), last=True).decode()
    assert not OBEYED.search(whole)
    assert text.replace("\\r", "") == whole.replace("\\r", "")


def test_text_that_begins_like_a_colour_and_never_ends_is_not_held_back_for_ever() -> None:
    """Forty characters are more than any colour has."""
    filtered = Harmless()
    assert filtered.feed(b"\x1b[" + b"1" * 100) == b"\\x1b[" + b"1" * 100
    assert filtered.feed(b"\x1b[31") == b""
    assert filtered.feed(b"", last=True) == b"\\x1b[31"
