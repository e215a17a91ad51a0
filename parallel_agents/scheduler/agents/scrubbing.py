"""Takes secrets out of the files that an agent has left, once it has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Scrub = Callable[[str], str]

_CHUNK_BYTES = 4 * 1024 * 1024


def scrub(redact: Scrub, texts: Iterable[Path], *, by_line: Iterable[Path] = ()) -> None:
    """Rewrite files that hold a secret, each in one step. What cannot be rewritten is left as it is.

    Args:
        texts: files in which a secret may go over several lines.
        by_line: files in which every line is whole in itself, and stays that.
    """
    for path in texts:
        with contextlib.suppress(OSError):
            _scrub_file(redact, redact, path)
    for path in by_line:
        with contextlib.suppress(OSError):
            _scrub_file(redact, lambda text: "".join(map(redact, text.splitlines(keepends=True))), path)


def _scrub_file(find: Scrub, redact: Scrub, path: Path) -> None:
    if all(find(text) == text for text in _texts(path)):
        return
    temporary = path.with_name(f"{path.name}.scrubbed")
    with temporary.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        for text in _texts(path):
            target.write(redact(text).encode("utf-8", "surrogateescape"))
    temporary.replace(path)


def _texts(path: Path) -> Iterator[str]:
    """Whole lines, some megabytes at a time; bytes that are no UTF-8 stay what they are."""
    with path.open("rb") as source:
        while lines := source.readlines(_CHUNK_BYTES):
            yield b"".join(lines).decode("utf-8", "surrogateescape")
