"""What can be wrong with a store's file or disk: each is said in words, and nothing is left half written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from disks import fill, mounted
from waiting import next_line

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.version import RELEASE

FAT = "x" * 3000


def make_store(path: Path, events: int = 3) -> None:
    """A healthy store with some events of one run, closed."""
    with Log(path) as log:
        log.append("alpha", 0, [ev.RunPaused(reason=f"{index} {FAT}") for index in range(events)])


def versions(log: Log) -> list[int]:
    """What a reader finds of the run."""
    return [row.version for row in log.run_rows("alpha")]


def test_the_file_and_what_lies_beside_it_are_private(tmp_path: Path) -> None:
    """Whatever the umask, and also where somebody had made an empty file."""
    (tmp_path / "empty.db").touch(mode=0o644)
    before = os.umask(0)
    try:
        with Log(tmp_path / "new.db") as new, Log(tmp_path / "empty.db") as empty:
            for log in (new, empty):
                log.append("alpha", 0, [ev.RunStarted()])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"new.db", "new.db-wal", "empty.db", "empty.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("name", ["events.db", "with space.db", "50%.db", "what?.db", "c#.db", "größe.db", "full.db"])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Also one that means something in a URL."""
    make_store(tmp_path / name)
    with Log(tmp_path / name, create=False) as log:
        assert versions(log) == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_store_is_not_made_where_nobody_asked_for_it(tmp_path: Path) -> None:
    """Reading verbs leave no file behind."""
    with pytest.raises(StoreError, match="no store at") as caught:
        Log(tmp_path / "events.db", create=False)
    assert "run PLAN" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not made: the path is more likely a slip."""
    with pytest.raises(StoreError, match=f"no folder {tmp_path / 'gone'}"):
        Log(tmp_path / "gone" / "events.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    """The message says what to name instead."""
    with pytest.raises(StoreError, match="is a folder"):
        Log(tmp_path)


def test_a_name_that_no_file_can_have_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    """Whatever words the path is made of."""
    with pytest.raises(StoreError, match="too long") as caught:
        Log(tmp_path / ("full disk " * 40))
    assert "is full" not in caught.value.message


def test_a_text_file_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    """Named as what it is."""
    path = tmp_path / "notes.txt"
    path.write_text("Buy milk.\n" * 500)
    with pytest.raises(StoreError, match="is not an SQLite file"):
        Log(path)
    assert path.read_text() == "Buy milk.\n" * 500


def test_somebody_elses_database_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    """Also where one of its tables is called as one of ours."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, title TEXT)")
        connection.execute("INSERT INTO events VALUES (1, 'Concert')")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of parallel-agents"):
        Log(path)
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM events").fetchall() == [(1, "Concert")]
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


@pytest.mark.parametrize("kept", [50, 100, 1000, 4096, 8000, 20_000])
def test_a_truncated_store_is_refused_or_says_so_when_read(tmp_path: Path, kept: int) -> None:
    """Nothing is made up for what is gone, and nothing is written over it."""
    path = tmp_path / "events.db"
    make_store(path, 20)
    whole = path.read_bytes()
    assert len(whole) > 50_000
    path.write_bytes(whole[:kept])
    with pytest.raises(StoreError, match=r"corrupt|not an SQLite file"), Log(path) as log:
        assert versions(log) != []


def test_an_overwritten_page_is_said_to_be_corrupt(tmp_path: Path) -> None:
    """With what may save the rest."""
    path = tmp_path / "events.db"
    make_store(path, 20)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="corrupt") as caught, Log(path) as log:
        list(log.read())
    assert "backup" in caught.value.hint


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """It is what a full disk leaves of a store that could not be made."""
    path = tmp_path / "events.db"
    path.touch()
    make_store(path)
    with Log(path) as log:
        assert versions(log) == [1, 2, 3]


def test_a_store_of_a_newer_format_is_refused_by_both_releases(tmp_path: Path) -> None:
    """Nothing is read by rules that may have changed."""
    path = tmp_path / "events.db"
    make_store(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE store SET value = '2' WHERE key = 'format'")
        connection.execute("UPDATE store SET value = '7.4.1' WHERE key = 'release'")
    with pytest.raises(StoreError, match=rf"release 7\.4\.1 in format 2; this is release {RELEASE}"):
        Log(path)


@pytest.mark.parametrize("damage", ["DELETE FROM store", "UPDATE store SET value = 'soon'"])
def test_a_store_whose_description_is_damaged_is_refused_in_words(tmp_path: Path, damage: str) -> None:
    """Not with a traceback."""
    path = tmp_path / "events.db"
    make_store(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(StoreError, match=str(path)):
        Log(path)


def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    """On a disk that is mounted read-only, by any user."""
    with mounted(tmp_path / "disk", "4m") as disk:
        make_store(disk / "events.db")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Log(disk / "events.db") as log:
            assert versions(log) == [1, 2, 3]
            assert verify_rows(log.rows()).broken is None
            for write in (
                lambda: log.append("alpha", 3, [ev.RunResumed()]),
                lambda: log.save_snapshot("alpha", "status", 1, 3, b"{}"),
            ):
                with pytest.raises(StoreError, match="cannot be written") as caught:
                    write()
                assert "--store" in caught.value.hint
            assert versions(log) == [1, 2, 3]
        with pytest.raises(StoreError, match="cannot be written"):
            Log(disk / "new.db")


def test_a_store_that_was_left_open_can_be_read_from_a_read_only_disk(tmp_path: Path) -> None:
    """Its last events lie in the write-ahead log still."""
    with mounted(tmp_path / "disk", "4m") as disk:
        (disk / "copy").mkdir()
        with Log(disk / "events.db") as log:
            log.append("alpha", 0, [ev.RunStarted(), ev.RunPaused()])
            for path in disk.glob("events.db*"):
                shutil.copy(path, disk / "copy")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Log(disk / "copy" / "events.db") as log:
            assert versions(log) == [1, 2]


def test_a_store_without_the_right_to_write_can_be_read(tmp_path: Path) -> None:
    """By permission bits, which do not bind root."""
    path = tmp_path / "events.db"
    make_store(path)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("permission bits do not bind this user")
        with Log(path) as log:
            assert versions(log) == [1, 2, 3]
            with pytest.raises(StoreError, match="cannot be written"):
                log.append("alpha", 3, [ev.RunResumed()])
    finally:
        tmp_path.chmod(0o700)


def append_until_full(log: Log) -> tuple[int, StoreError]:
    """How many commits of two events were acknowledged until the disk was full, and what was said then."""
    for commits in range(10_000):
        try:

            def decide(draft: Draft) -> None:
                for run_id in ("alpha", "beta"):
                    draft.add(run_id, ev.RunPaused(reason=FAT))

            log.transact(decide)
        except StoreError as error:
            return commits, error
    raise AssertionError("the disk never became full")


def check_after_full(log: Log, commits: int, error: StoreError) -> None:
    """What was acknowledged is there, what was refused is not, and it was said what to do."""
    assert "full" in error.message
    assert "nothing was written" in error.message
    assert error.hint
    assert versions(log) == list(range(1, commits + 1))
    verdict = verify_rows(log.rows())
    assert (verdict.events, verdict.broken) == (2 * commits, None)


def test_on_a_full_disk_nothing_is_half_written_and_with_room_it_goes_on(tmp_path: Path) -> None:
    """A real disk, filled in the midst of appending; then other files make room."""
    with mounted(tmp_path / "disk", "2m") as disk, Log(disk / "events.db") as log:
        fill(disk / "other")
        with (disk / "other").open("rb+") as other:
            other.truncate((disk / "other").stat().st_size - 300_000)
        commits, error = append_until_full(log)
        assert commits > 5
        check_after_full(log, commits, error)
        with pytest.raises(StoreError, match="full"):
            log.save_snapshot("alpha", "status", 1, 1, b"x" * 300_000)
        (disk / "other").unlink()
        log.append("alpha", commits, [ev.RunResumed()])
        with Log(disk / "events.db") as reader:
            assert versions(reader) == list(range(1, commits + 2))
            assert verify_rows(reader.rows()).broken is None


def test_a_store_can_neither_be_made_nor_opened_on_a_full_disk_and_both_say_so(tmp_path: Path) -> None:
    """And both can be once there is room."""
    with mounted(tmp_path / "disk", "1m") as disk:
        make_store(disk / "events.db")
        fill(disk / "other")
        for name in ("events.db", "new.db"):
            with pytest.raises(StoreError, match="is full"), Log(disk / name):
                pass
        (disk / "other").unlink()
        make_store(disk / "new.db")
        with Log(disk / "events.db") as log:
            assert versions(log) == [1, 2, 3]


def test_a_store_that_may_not_grow_loses_nothing_and_goes_on_when_it_may(tmp_path: Path) -> None:
    """The same where no disk can be mounted: SQLite's own ceiling gives its own error for a full disk."""
    with Log(tmp_path / "events.db") as log:
        log._writer.execute("PRAGMA max_page_count = 60")
        commits, error = append_until_full(log)
        assert commits > 5
        check_after_full(log, commits, error)
        log._writer.execute("PRAGMA max_page_count = 100000")
        log.append("alpha", commits, [ev.RunResumed()])
        assert verify_rows(log.rows()).broken is None


LIMITED = """
import resource, sys
from pathlib import Path
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.events import RunPaused
from parallel_agents.eventstore.log import Log

with Log(Path(sys.argv[1])) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    version = 0
    try:
        while version < 1000:
            version = log.append("alpha", version, [RunPaused(reason="x" * 3000)])[0].version
    except StoreError as error:
        print(error.message)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append("alpha", version, [RunPaused(reason="last")])
    print(version)
"""


def test_a_write_that_fails_midway_is_taken_back_whole(tmp_path: Path) -> None:
    """A process whose files may not grow gets an error from the disk at some byte of a commit."""
    path = tmp_path / "events.db"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    message, version = done.stdout.splitlines()
    assert done.stderr == ""
    assert str(path) in message
    assert 5 < int(version) < 1000
    with Log(path) as log:
        assert versions(log) == list(range(1, int(version) + 2))
        assert verify_rows(log.rows()).broken is None


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    """A power cut cannot be tried here; SQLite promises it for these two settings."""
    with Log(tmp_path / "events.db") as log:
        settings = [log._writer.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous")]
    assert settings == [("wal",), (2,)]


KILLED = """
import sys
from pathlib import Path
from parallel_agents.eventstore.events import RunPaused
from parallel_agents.eventstore.log import Log

log = Log(Path(sys.argv[1]))
version = 0
while True:
    for record in log.append("alpha", version, [RunPaused(reason="x" * 500)] * 3):
        version = record.version
    print(version, flush=True)
"""


def test_what_was_acknowledged_survives_the_process_that_is_killed(tmp_path: Path) -> None:
    """And a commit is whole or not there at all."""
    path = tmp_path / "events.db"
    acknowledged = 0
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while acknowledged < 60:
            acknowledged = int(next_line(child.stdout))
        child.kill()
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
    with Log(path) as log:
        found = versions(log)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged
        assert len(found) % 3 == 0
        assert verify_rows(log.rows()).broken is None
        log.append("alpha", len(found), [ev.RunResumed()])
