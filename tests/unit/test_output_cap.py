"""What is cut out of an output that grows too large, and that no reader ever takes it for something that was printed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_agents.attempt_files import cut_bytes
from parallel_agents.cli.reading import _text
from parallel_agents.scheduler.agents.scrubbing import scrub
from parallel_agents.scheduler.agents.tail import Tail
from parallel_agents.scheduler.runners import output_cap
from parallel_agents.scheduler.runners.folder import STDOUT, last_line
from parallel_agents.scheduler.runners.output_cap import (
    LONGEST_LOOK_S,
    SHORTEST_LOOK_S,
    Cut,
    Output,
    TooMuch,
    decide_cut,
    kept_pieces,
    next_look_s,
    read_cut,
    write_cut,
)

LIMIT = 400_000
SLACK = 65_536  # Blocks at both ends, and what the file system itself writes down.


class Printer:
    """A command that prints numbered lines of a hundred bytes, and the eye that is kept on it."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.path = folder / STDOUT
        self.number = 0
        self.now_s = 0.0
        self.output = Output(str(folder), limit, 0.0)

    def print(self, lines: int) -> None:
        """So many more lines."""
        with self.path.open("ab") as file:
            for _ in range(lines):
                file.write(f"{self.number:099}\n".encode())
                self.number += 1

    def look(self) -> None:
        """A look, a second later."""
        self.now_s += 1
        self.output.look(self.now_s)

    @property
    def on_disk(self) -> int:
        """Bytes that it takes there."""
        return self.path.stat().st_blocks * 512


def numbers(lines: list[bytes]) -> list[int]:
    """What was printed, as it was read."""
    return [int(line) for line in lines]


def test_the_middle_of_a_large_output_goes_and_its_size_stays(tmp_path: Path) -> None:
    """Ten times the limit, and never more than the limit on disk after a look; offsets are what they were."""
    printer = Printer(tmp_path)
    for _ in range(40):
        printer.print(1000)
        printer.look()
        assert printer.on_disk <= LIMIT + SLACK
    assert printer.path.stat().st_size == 4_000_000
    cut = read_cut(str(tmp_path), STDOUT)
    assert cut is not None
    assert cut.whole
    assert (cut.begin, cut.bytes) == (LIMIT // 4, cut.end - cut.begin)
    assert cut_bytes(tmp_path) == {"stdout": cut.bytes}
    with printer.path.open("rb") as file:
        assert file.read(cut.begin) == b"".join(f"{n:099}\n".encode() for n in range(cut.begin // 100))
        file.seek(cut.end)
        assert file.read() == b"".join(f"{n:099}\n".encode() for n in range(cut.end // 100, 40_000))


def test_an_output_that_fits_is_left_alone(tmp_path: Path) -> None:
    """To the byte."""
    printer = Printer(tmp_path)
    printer.print(LIMIT // 100)
    printer.look()
    assert read_cut(str(tmp_path), STDOUT) is None
    assert cut_bytes(tmp_path) == {}
    printer.print(1)
    printer.look()
    assert cut_bytes(tmp_path) != {}


def test_a_reader_passes_over_what_is_gone_and_loses_no_last_line(tmp_path: Path) -> None:
    """One that reads along, one that comes late, and one that was left behind."""
    printer = Printer(tmp_path)
    along, behind = Tail(printer.path), Tail(printer.path)
    seen: list[int] = []
    printer.print(10)
    assert len(list(behind.read())) == 10
    for _ in range(30):
        printer.print(1000)
        printer.look()
        seen += numbers(list(along.read()))
    printer.path.open("ab").write(b"7" * 99)
    seen += numbers(list(along.finish()))
    assert seen[-1] == int(b"7" * 99)
    assert seen == sorted(seen)
    cut = read_cut(str(tmp_path), STDOUT)
    assert cut is not None
    expected = [*range(cut.begin // 100), *range(cut.end // 100, 30_010), int(b"7" * 99)]
    assert numbers(list(Tail(printer.path).finish())) == expected
    assert numbers(list(behind.finish())) == expected[10:]
    first = next(kept_pieces(str(printer.path), cut.end - 700))
    assert (first.cut, first.end) == (700, cut.end)  # Of what this reader had still to read.


def test_a_line_that_is_cut_in_two_is_no_line(tmp_path: Path) -> None:
    """Its end is passed over: half a line of JSON is worse than none."""
    folder = str(tmp_path)
    printer = Printer(tmp_path)
    with printer.path.open("ab") as file:
        file.write(b"first\n" + b"x" * 3 * LIMIT)
    tail = Tail(printer.path)
    printer.look()
    cut = read_cut(folder, STDOUT)
    assert cut is not None
    assert not cut.whole
    with printer.path.open("ab") as file:
        file.write(b"x\nlast\n")
    assert list(tail.read()) == [b"first", b"last"]
    assert last_line(str(printer.path)) == "last"


def test_what_a_command_begins_anew_is_read_from_its_begin(tmp_path: Path) -> None:
    """It has emptied its own output; what was cut of the old one is no matter."""
    printer = Printer(tmp_path)
    printer.print(LIMIT // 50)
    printer.look()
    printer.path.write_bytes(b"new\n")
    printer.look()
    assert read_cut(str(tmp_path), STDOUT) is None
    assert list(Tail(printer.path).finish()) == [b"new"]


def test_what_is_cut_is_told_where_the_output_is_shown(tmp_path: Path) -> None:
    """In one line in its place, and no zeros."""
    printer = Printer(tmp_path)
    printer.print(10_000)
    printer.look()
    cut = read_cut(str(tmp_path), STDOUT)
    assert cut is not None
    text = _text(printer.path)
    assert f"[... {cut.bytes:,} bytes are cut here: monitoring.maxOutputMB" in text
    assert "\0" not in text
    assert text.endswith(f"{9_999:099}\n")


def test_a_cut_is_told_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a reader who meets zeros finds out what they are, whenever it reads."""
    told = []

    def punch(fd: int, offset: int, length: int) -> None:
        told.append((read_cut(str(tmp_path), STDOUT), offset, length))
        assert b"\0" not in b"".join(piece.data for piece in kept_pieces(str(tmp_path / STDOUT), 0))

    monkeypatch.setattr(output_cap, "punch_hole", punch)
    printer = Printer(tmp_path)
    printer.print(10_000)
    printer.look()
    ((cut, offset, length),) = told
    assert cut is not None
    assert cut.begin <= offset
    assert offset + length <= cut.end


def test_where_nothing_can_be_given_back_the_command_is_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; and what it has printed so far stays."""

    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")

    monkeypatch.setattr(output_cap, "punch_hole", refuse)
    printer = Printer(tmp_path, 2_000_000)
    printer.print(20_000)
    printer.look()
    printer.print(1)
    with pytest.raises(TooMuch, match=r"more than 2 MB to stdout.log.*maxOutputMB"):
        printer.look()
    assert read_cut(str(tmp_path), STDOUT) is None
    assert len(list(Tail(printer.path).finish())) == 20_001


def test_a_disk_that_fails_for_a_moment_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the output does not grow any more."""
    failing = [OSError(errno.EIO, "bad luck")]
    whole = output_cap.punch_hole

    def punch(fd: int, offset: int, length: int) -> None:
        if failing:
            raise failing.pop()
        whole(fd, offset, length)

    monkeypatch.setattr(output_cap, "punch_hole", punch)
    printer = Printer(tmp_path)
    printer.print(10_000)
    printer.look()
    assert cut_bytes(tmp_path) == {}
    printer.look()
    assert printer.on_disk <= LIMIT + SLACK


def test_an_agents_secrets_are_taken_out_of_what_is_left_and_the_hole_stays(tmp_path: Path) -> None:
    """Head and end are each rewritten; nothing of what was given back to the disk is taken again."""
    printer = Printer(tmp_path)
    with printer.path.open("ab") as file:
        file.write(b"hunter2hunter2\n")
    printer.print(40_000)
    printer.look()
    with printer.path.open("ab") as file:
        file.write(b"then hunter2hunter2 again\n")
    scrub(lambda text: text.replace("hunter2hunter2", "[redacted]"), [printer.path])
    text = _text(printer.path)
    assert "hunter2" not in text
    assert text.startswith("[redacted]\n")
    assert text.endswith("then [redacted] again\n")
    assert "\0" not in text
    assert printer.on_disk <= LIMIT + SLACK


@given(st.integers(0, 10**9), st.integers(4, 10**8), st.data())
def test_what_is_cut_leaves_no_more_than_the_limit(size: int, limit: int, data: st.DataObject) -> None:
    """And room for a quarter of it, and a head; and what is gone only ever grows."""
    before = None
    if data.draw(st.booleans()) and size > limit:
        first = decide_cut(data.draw(st.integers(limit + 1, size)), limit, None)
        assert first is not None
        before = Cut(first[0], first[1], first[1] - first[0], True)
    wanted = decide_cut(size, limit, before)
    gone = 0 if before is None else before.end - before.begin
    if wanted is None:
        assert size - gone <= limit
        return
    begin, end = wanted
    assert begin == limit // 4
    assert size - (end - begin) <= limit - limit // 4 + 1
    assert before is None or end > before.end


@given(st.integers(0, 10**12), st.floats(0, 100), st.integers(0, 10**8))
def test_looks_are_never_far_apart_nor_too_close(grown: int, in_s: float, room: int) -> None:
    """Fast growth is looked at often, no growth seldom."""
    assert SHORTEST_LOOK_S <= next_look_s(grown, in_s, room) <= LONGEST_LOOK_S
    assert next_look_s(0, in_s, room) == LONGEST_LOOK_S
    assert next_look_s(2 * grown + 1, 1.0, room) <= next_look_s(grown, 1.0, room)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.booleans()), max_size=30), st.integers(1, 5000))
def test_however_reader_and_writer_meet_every_line_is_whole_and_the_end_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, bool]], chunk_bytes: int
) -> None:
    """Printed, looked at and read in any order, in chunks of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_cap, "_CHUNK_BYTES", chunk_bytes)
        printer = Printer(tmp_path_factory.mktemp("output"), 8000)
        tail = Tail(printer.path)
        seen: list[int] = []
        for lines, looks, reads in steps:
            printer.print(lines)
            if looks:
                printer.look()
            if reads:
                seen += numbers(list(tail.read()))
        printer.print(1)
        seen += numbers(list(tail.finish()))
    assert seen == sorted(set(seen))
    assert seen[-1] == printer.number - 1
    assert tail.offset == os.path.getsize(printer.path)


def test_what_a_torn_or_foreign_file_says_of_cuts_is_nothing(tmp_path: Path) -> None:
    """Then the output is read as it stands."""
    (tmp_path / output_cap.CUT).write_text('{"stdout.log": {"begin": "x"}}')
    assert read_cut(str(tmp_path), STDOUT) is None
    (tmp_path / output_cap.CUT).write_text('{"stdout.log": ')
    assert read_cut(str(tmp_path), STDOUT) is None
    write_cut(str(tmp_path), STDOUT, Cut(1, 2, 1, True))
    assert read_cut(str(tmp_path), STDOUT) == Cut(1, 2, 1, True)
