"""A growing file read line by line, each byte once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.runners import output_cap


def add(path: Path, more: bytes) -> None:
    """Write to the end of a file."""
    with path.open("ab") as file:
        file.write(more)


def test_a_line_is_given_out_once_it_is_whole(tmp_path: Path) -> None:
    """And never a second time."""
    path = tmp_path / "out"
    tail = Tail(path)
    assert list(tail.read()) == []  # There is no such file yet.
    add(path, b"one\ntw")
    assert list(tail.read()) == [b"one"]
    assert list(tail.read()) == []
    add(path, b"o\n\nthree")
    assert list(tail.read()) == [b"two", b""]
    assert list(tail.finish()) == [b"three"]
    assert list(tail.finish()) == []


def test_another_reader_goes_on_where_the_first_one_was(tmp_path: Path) -> None:
    """As after the death of the daemon: from the line that was not given out whole."""
    path = tmp_path / "out"
    add(path, b"one\ntwo\nthr")
    first = Tail(path)
    assert list(first.read()) == [b"one", b"two"]
    add(path, b"ee\n")
    assert list(Tail(path, first.offset).read()) == [b"three"]


def test_who_stops_in_the_middle_finds_the_next_line_there(tmp_path: Path) -> None:
    """Nothing is lost and nothing comes twice."""
    path = tmp_path / "out"
    add(path, b"one\ntwo\nthree\nfo")
    tail = Tail(path)
    assert next(tail.read()) == b"one"
    assert list(tail.finish()) == [b"two", b"three", b"fo"]


def test_a_file_begun_anew_is_read_from_its_begin(tmp_path: Path) -> None:
    """What was held back of the old one goes."""
    path = tmp_path / "out"
    add(path, b"one\ntwo and ha")
    tail = Tail(path)
    assert list(tail.read()) == [b"one"]
    path.write_bytes(b"new\n")
    assert list(tail.read()) == [b"new"]
    assert tail.offset == 4
    path.unlink()
    assert list(tail.finish()) == []


def test_a_look_at_a_file_without_news_does_not_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of agents are looked at several times a second."""
    path = tmp_path / "out"
    add(path, b"one\ntw")
    tail = Tail(path)
    assert list(tail.read()) == [b"one"]
    monkeypatch.setattr("builtins.open", None)
    assert list(tail.read()) == []


@given(
    st.lists(st.text(alphabet="ab\n", max_size=12).map(str.encode), max_size=8),
    st.integers(1, 7),
    st.sets(st.integers(0, 7)),
)
def test_lines_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], chunk_bytes: int, restarts: set[int]
) -> None:
    """However it came, however large the chunks it is read in, and whenever another reader takes over."""
    path = tmp_path_factory.mktemp("tail") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_cap, "_CHUNK_BYTES", chunk_bytes)
        tail, found = Tail(path), []
        for number, piece in enumerate(pieces):
            add(path, piece)
            found += tail.read()
            if number in restarts:
                tail = Tail(path, tail.offset)
        found += tail.finish()
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    assert found == (expected if expected[-1] else expected[:-1])
    assert tail.offset == len(whole)


def test_a_line_larger_than_any_chunk_is_one_line(tmp_path: Path) -> None:
    """Five megabytes, written in pieces, with one after it."""
    path = tmp_path / "out"
    tail = Tail(path)
    piece = b"x" * 700_000
    for _ in itertools.repeat(None, 7):
        add(path, piece)
        assert list(tail.read()) == []
    add(path, b"\ny\n")
    assert [len(line) for line in tail.read()] == [4_900_000, 1]
