"""Takes secrets out of the files that an agent has left, once it has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from parallel_agents.scheduler.agents.reading import as_object, decoded

Scrub = Callable[[str], str]

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_PIECE: Final = '{"type":"stream_event","event":{"type":"content_block_delta"'
_WORDS: Final = ("text", "partial_json", "thinking")


def scrub(redact: Scrub, texts: Iterable[Path], *, by_line: Iterable[Path] = ()) -> None:
    """Rewrite files that hold a secret, each in one step. What cannot be rewritten is left as it is.

    Args:
        texts: files in which a secret may go over several lines.
        by_line: files in which every line is whole in itself, and stays that. Where one holds a secret, the pieces in which
            a model's words came are left out: it may be spread over them, and other lines repeat the words.
    """
    for path in texts:
        with contextlib.suppress(OSError):
            _scrub_file(lambda text: redact(text) != text, redact, path)
    for path in by_line:
        with contextlib.suppress(OSError):
            _scrub_file(lambda text: _holds_one(redact, text), lambda text: _line_by_line(redact, text), path)


def _scrub_file(found: Callable[[str], bool], redact: Scrub, path: Path) -> None:
    if not any(map(found, _texts(path))):
        return
    temporary = path.with_name(f"{path.name}.scrubbed")
    with temporary.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        for text in _texts(path):
            target.write(redact(text).encode("utf-8", "surrogateescape"))
    temporary.replace(path)


def _holds_one(redact: Scrub, text: str) -> bool:
    if redact(text) != text:
        return True
    words = "".join(map(_words_of, filter(_is_piece, text.split("\n")))) if _PIECE in text else ""
    return redact(words) != words


def _line_by_line(redact: Scrub, text: str) -> str:
    return "\n".join(redact(line) for line in text.split("\n") if not _is_piece(line))


def _is_piece(line: str) -> bool:
    return line.startswith(_PIECE)


def _words_of(line: str) -> str:
    fields = decoded(line.encode("utf-8", "surrogateescape")) or {}
    delta = as_object(as_object(fields.get("event")).get("delta"))
    return "".join(word for kind in _WORDS if isinstance(word := delta.get(kind), str))


def _texts(path: Path) -> Iterator[str]:
    """Whole lines, some megabytes at a time; bytes that are no UTF-8 stay what they are."""
    with path.open("rb") as source:
        while lines := source.readlines(_CHUNK_BYTES):
            yield b"".join(lines).decode("utf-8", "surrogateescape")
