"""Secrets go out of the files that agents leave; all else stays as it was."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.redaction import REDACTED, Redactor
from parallel_agents.scheduler.agents.scrubbing import scrub, scrub_database

KEY = "-".join(("sk", "ant", "api03", "canary0123456789"))
PEM = "-----BEGIN {}-----".format(" ".join(("PRIVATE", "KEY")))


def piece(words: str, kind: str = "text") -> str:
    """A line of the stream."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", kind: words}}
    return json.dumps({"type": "stream_event", "event": event}, separators=(",", ":"))


def scrubbed(path: Path, content: str | bytes, *, by_line: bool = True, environ: dict[str, str] | None = None) -> str:
    """What is left of a file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    redact = Redactor(environ or {}).text
    scrub(redact, [] if by_line else [path], by_line=[path] if by_line else [])
    return path.read_bytes().decode("utf-8", "surrogateescape")


def test_a_file_without_secrets_is_not_touched(tmp_path: Path) -> None:
    """The same inode, byte for byte."""
    path = tmp_path / "out"
    content = b"\xff plain\n" + piece("words").encode() + b"\nand no break"
    path.write_bytes(content)
    before = path.stat()
    assert scrubbed(path, content).encode("utf-8", "surrogateescape") == content
    assert (path.stat().st_ino, list(tmp_path.iterdir())) == (before.st_ino, [path])


def test_a_secret_that_came_in_pieces_is_found(tmp_path: Path) -> None:
    """Whatever they are pieces of, and although no line holds more than a few of its characters."""
    for kind in ("text", "partial_json", "thinking"):
        lines = [piece(character, kind) for character in KEY]
        left = scrubbed(tmp_path / "out", "\n".join(['{"type":"system"}', *lines, '{"type":"result"}\n']))
        assert left == '{"type":"system"}\n{"type":"result"}\n'


def test_what_has_no_end_takes_no_other_line_along(tmp_path: Path) -> None:
    """A private key that was cut: in lines the rest of its line goes, in a text all that follows."""
    content = f'{{"a":"{PEM}\\nMII"}}\n{{"type":"result"}}\n'
    assert [line.rstrip() for line in scrubbed(tmp_path / "out", content).splitlines()] == [
        f'{{"a":"{REDACTED}',
        '{"type":"result"}',
    ]
    assert scrubbed(tmp_path / "out", content, by_line=False) == f'{{"a":"{REDACTED}'


def test_a_line_keeps_its_length(tmp_path: Path) -> None:
    """A client that has written down where a later line begins finds it there."""
    content = f'{{"a":"ä {KEY}"}}\n{{"b":1}}\n'
    left = scrubbed(tmp_path / "out", content)
    assert KEY not in left
    assert left.encode().index(b'{"b"') == content.encode().index(b'{"b"')
    assert json.loads(left.splitlines()[0]) == {"a": f"ä {REDACTED}"}


def test_what_a_database_holds_of_a_session_is_scrubbed(tmp_path: Path) -> None:
    """Text of its rows, also where nothing says whose a row is; not a byte of it stays in the file or the log ahead."""
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute('CREATE TABLE "the items" (thread_id TEXT, "item json" TEXT, n INTEGER, b BLOB)')
        other.execute("CREATE TABLE logs (line TEXT)")
        rows = [(name, f"It is {KEY}.", 7, b"x") for name in ("mine", "another")]
        other.executemany('INSERT INTO "the items" VALUES (?, ?, ?, ?)', rows)
        other.execute("INSERT INTO logs VALUES (?)", (KEY,))
        scrub_database(Redactor({}).text, path, "mine")
        found = other.execute('SELECT * FROM "the items" ORDER BY thread_id DESC').fetchall()
        assert found == [("mine", f"It is {REDACTED}.", 7, b"x"), rows[1]]
        assert other.execute("SELECT line FROM logs").fetchall() == [(REDACTED,)]
        scrub_database(Redactor({}).text, path, "another")
        for file in tmp_path.iterdir():
            assert KEY.encode() not in file.read_bytes(), file


def test_what_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    """And none is made where there is none."""
    (tmp_path / "odd.sqlite").write_text("odd")
    for name in ("odd.sqlite", "none.sqlite"):
        scrub_database(str.upper, tmp_path / name, "mine")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("odd.sqlite", "odd")]


def test_files_that_are_not_there_are_no_trouble(tmp_path: Path) -> None:
    """They were not made, or are gone."""
    scrub(str.upper, [tmp_path / "none"], by_line=[tmp_path / "nothing"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("scrubbing")


@given(
    st.text(min_size=8, max_size=40).filter(lambda text: text == text.strip() and "[redacted]" not in text), st.text()
)
def test_the_value_of_a_secret_variable_is_found_however_json_writes_it(folder: Path, secret: str, around: str) -> None:
    """Quotes, backslashes, breaks and signs of any script."""
    try:
        line = json.dumps({"type": "user", "text": f"{around}{secret}"}, ensure_ascii=False) + "\n"
        line.encode()
    except UnicodeEncodeError:
        return
    left = scrubbed(folder / "out", line, environ={"MY_TOKEN": secret})
    assert json.dumps(secret, ensure_ascii=False)[1:-1] not in left
