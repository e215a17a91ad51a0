"""Files are overwritten where a secret stands, and nothing else of them changes: length, holes, age, mode, other names."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from parallel_agents.eventstore.secret_spellings import Secret
from parallel_agents.scheduler.agents.scrubbing import PIECE
from parallel_agents.scrub_files import Looked, holds, look

TEXT = 'hunter2"hunter2'
SECRET = Secret(TEXT)
MARK = b"[redacted]*****"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store's place, with the folder of an attempt."""
    attempt(tmp_path / "events.db").mkdir(parents=True)
    return tmp_path / "events.db"


def attempt(store: Path) -> Path:
    """The folder."""
    return store.parent / "runs/run/task/attempt"


def wrote(store: Path, name: str, content: bytes | str) -> Path:
    """A file of the attempt."""
    path = attempt(store) / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def scrubbed(store: Path) -> Looked:
    """What a look that changes nothing says is what is changed then."""
    seen = look(store, SECRET, change=False)
    done = look(store, SECRET, change=True)
    assert seen.found.keys() == done.found.keys() | done.left.keys()
    assert look(store, SECRET, change=True).found == {}
    return done


def test_every_find_is_overwritten_and_nothing_moves(store: Path) -> None:
    """Plain, and escaped in JSON; the file stays as old as it was."""
    nested = json.dumps({"text": json.dumps({"key": TEXT})})
    path = wrote(store, "stdout.log", f"a {TEXT} b\n{nested}\n{TEXT}")
    os.utime(path, ns=(10**18, 10**18))
    before, inode = path.stat(), path.stat().st_ino
    assert scrubbed(store).found == {str(path): 3}
    content, after = path.read_bytes(), path.stat()
    assert content.startswith(b"a " + MARK + b" b\n")
    assert content.endswith(b"\n" + MARK)
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, inode)
    assert json.loads(json.loads(content.splitlines()[1])["text"])["key"].startswith("[redacted]*")


def test_a_find_across_the_pieces_in_which_a_file_is_read_is_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every position."""
    monkeypatch.setattr("parallel_agents.scrub_files._CHUNK_BYTES", 64)
    for at in range(40, 80):
        path = wrote(store, f"{at}.log", b"x" * at + TEXT.encode() + b"y" * 200 + TEXT.encode())
    done = scrubbed(store)
    assert set(done.found.values()) == {2}
    assert path.read_bytes() == b"x" * 79 + MARK + b"y" * 200 + MARK


def test_holes_stay_holes(store: Path) -> None:
    """What was cut out of the middle of an output takes no room again."""
    path = wrote(store, "stdout.log", TEXT)
    with path.open("r+b") as file:
        file.seek(50_000_000)
        file.write(TEXT.encode())
    blocks = path.stat().st_blocks
    assert scrubbed(store).found == {str(path): 2}
    assert path.stat().st_blocks <= blocks
    assert path.read_bytes()[-15:] == MARK


def test_words_that_are_spread_over_pieces_of_an_answer_are_taken_out(store: Path) -> None:
    """Each line stays JSON; where the words hold no secret they stay."""

    def pieces(*words: str) -> str:
        lines = [f'{PIECE},"index":0,"delta":{{"type":"text_delta","text":{json.dumps(word)}}}}}}}' for word in words]
        return "\n".join([lines[0], '{"type":"other"}', *lines[1:]]) + "\n"

    path = wrote(store, "stdout.log", pieces("the key is hun", 'ter2"hun', "ter2 now"))
    other = wrote(store, "stderr.log", pieces("the key is hun", 'ter2"hun', "ter2 now"))  # No transcript.
    size = path.stat().st_size
    scrubbed(store)
    words = [json.loads(line)["event"]["delta"]["text"] for line in path.read_text().splitlines() if PIECE in line]
    assert ["".join(set(word)) for word in words] == ["*", "*", "*"]
    assert path.stat().st_size == size
    assert "ter2" in other.read_text()
    kept = wrote(store, "stdout.log", pieces("nothing ", "secret ", "here"))
    before = kept.read_bytes()
    scrubbed(store)
    assert kept.read_bytes() == before


def test_what_has_another_name_elsewhere_is_told_and_left(store: Path) -> None:
    """An agent may have linked a file of the user's into its folder."""
    mine = store.parent / "mine"
    mine.write_text(TEXT)
    os.link(mine, attempt(store) / "linked")
    os.symlink(mine, attempt(store) / "symlink")
    done = look(store, SECRET, change=True)
    assert (done.found, list(done.left)) == ({}, [str(attempt(store) / "linked")])
    assert mine.read_text() == TEXT


def test_a_file_that_may_only_be_read_is_overwritten_and_stays_so(store: Path) -> None:
    """Programs make such files."""
    path = wrote(store, "out", TEXT)
    path.chmod(0o400)
    assert scrubbed(store).left == {}
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (MARK, 0o400)


def test_a_name_that_holds_it_is_told(store: Path) -> None:
    """It would be found by nobody under another one."""
    path = wrote(store, f"log-{TEXT}", "x")
    assert look(store, SECRET, change=True).left == {str(path): "its name holds it"}


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_databases_of_clients_are_scrubbed_with_their_free_pages(store: Path, mode: str) -> None:
    """Text, blobs, and rows that were deleted; other rows stay."""
    folder = store.parent / "clients/one"
    folder.mkdir(parents=True)
    path = folder / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, said TEXT, raw BLOB)")
        database.executemany("INSERT INTO words (said, raw) VALUES (?, ?)", [(f"gone {TEXT}", b"")] * 500)
        database.execute("DELETE FROM words")
        rows = [("plain", b"x"), (f"a {TEXT} b", b"x"), ("c", TEXT.encode() + b"\0"), (None, None)]
        database.executemany("INSERT INTO words (said, raw) VALUES (?, ?)", rows)
    assert holds(path, SECRET)
    assert scrubbed(store).left == {}
    with closing(sqlite3.connect(path)) as database:
        left = database.execute("SELECT said, raw FROM words ORDER BY id").fetchall()
    assert left == [("plain", b"x"), ("a [redacted] b", b"x"), ("c", MARK + b"\0"), (None, None)]
    assert not any(holds(one, SECRET) for one in folder.iterdir())


def test_the_logs_of_the_daemon_are_looked_at_too(store: Path) -> None:
    """Older ones as well; what is not ours stays."""
    names = ["events.daemon.log", "events.daemon.log.1", "events.daemon.log.3"]
    for name in (*names, "mine.log"):
        (store.parent / name).write_text(TEXT)
    assert [Path(path).name for path in scrubbed(store).found] == names
    assert (store.parent / "mine.log").read_text() == TEXT
