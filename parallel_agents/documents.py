"""Reading JSON, YAML and TOML that people wrote, without hanging, crashing or guessing.

Whatever the bytes are, the outcome is a value or one error that names the file and, where it can be known, the line.
Line numbers cost nothing until somebody asks for one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import orjson

from parallel_agents.eventstore.errors import ParallelAgentsError
from parallel_agents.wording import escaped, nearest_name

MAX_BYTES = 32 * 1024 * 1024

Form = Literal["json", "yaml", "toml"]
Where = Sequence[str | int]  # A path into a document, such as ("tasks", 3, "priority").

_FORMS: dict[str, Form] = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a document holds, and where its parts stand."""

    value: Any
    line_of: Callable[[Where], int | None]  # The line (from 1) of a part, or of the nearest part around it.


@dataclass(frozen=True, slots=True)
class Refusal:
    """Raises the one error that a reader of this kind of document gives."""

    what: str  # "plan" or "configuration", as messages call it.
    source: str
    error: type[ParallelAgentsError]

    def __call__(self, message: str, *, hint: str = "", line: int | None = None) -> NoReturn:
        at = f", line {line}" if line else ""
        raise self.error(f"{escaped(self.source)}{at}: {message}", hint=hint)


def form_of(path: Path) -> Form | None:
    """The form that a file's ending names, or None."""
    return _FORMS.get(path.suffix.lower())


def unlocated(value: Any) -> Loaded:
    """A value that came from no text, so that nothing in it has a line."""
    return Loaded(value, lambda _path: None)


def read_text(path: Path, refuse: Refusal) -> str:
    """The text of a regular file of at most 32 MiB.

    A FIFO or a device is refused before it is read, so nothing here waits for a writer.

    Raises:
        ParallelAgentsError: of the refusal's class, whatever is wrong with the file.
    """
    try:
        # O_NONBLOCK: opening a FIFO nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        refuse(f"there is no such {refuse.what} file", hint=_near_file(path))
    except (OSError, ValueError) as error:
        _refuse_unreadable(error, refuse)
    try:
        facts = os.fstat(handle)
        if stat.S_ISDIR(facts.st_mode):
            refuse(f"is a directory, not a {refuse.what} file", hint=_near_file(path / "plan.yaml"))
        if not stat.S_ISREG(facts.st_mode):
            refuse(f"is a pipe, socket or device, not a {refuse.what} file", hint="write it to a file first")
        if facts.st_size > MAX_BYTES:
            _refuse_size(facts.st_size, refuse)
        with open(handle, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        _refuse_unreadable(error, refuse)
    finally:
        os.close(handle)
    if len(content) > MAX_BYTES:
        _refuse_size(len(content), refuse)
    if (at := content.find(b"\0")) >= 0:
        refuse(f"is binary (a NUL byte at offset {at}), not text", hint=f"a {refuse.what} is UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refuse("is not UTF-8 text", line=line, hint=f"a {refuse.what} is UTF-8 text; save it in that encoding")


def _refuse_size(size: int, refuse: Refusal) -> NoReturn:
    refuse(f"has {size / 1024**2:.0f} MiB; a {refuse.what} file may have {MAX_BYTES // 1024**2} MiB")


def _refuse_unreadable(error: OSError | ValueError, refuse: Refusal) -> NoReturn:
    if isinstance(error, OSError) and error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
        refuse(f"is a pipe, socket or device, not a {refuse.what} file", hint="write it to a file first")
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    refuse(f"cannot be read: {reason}")


def _near_file(path: Path) -> str:
    """The file beside a missing one that was probably meant."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if form_of(Path(entry.name)) and entry.is_file()]
    except (OSError, ValueError):
        return ""
    return escaped(nearest_name(path.name, sorted(names)[:1000])) if names else ""


def parse(text: str, form: Form, refuse: Refusal) -> Loaded:
    """The value of a text; duplicate keys, numbers without end and anything that is not the form are refused."""
    match form:
        case "json":
            return parse_json(text, refuse)
        case "yaml":
            # Most of a second is saved for a large plan that is JSON under another ending.
            if text.lstrip()[:1] == "{":
                try:
                    return parse_json(text, refuse)
                except ParallelAgentsError:
                    pass
            # Imported late: a command that reads no YAML need not pay for it.
            from parallel_agents.yaml_reading import parse_yaml

            return Loaded(*parse_yaml(text, refuse))
        case "toml":
            return parse_toml(text, refuse)
        case _:
            raise AssertionError(form)


def parse_toml(text: str, refuse: Refusal) -> Loaded:
    """The value of a TOML text; its parser tells no lines, except for what is no TOML."""
    try:
        return unlocated(tomllib.loads(text))
    except RecursionError:
        refuse("is nested too deep to be read")
    except ValueError as error:
        refuse(f"is no TOML: {escaped(str(error))}")


class _TwiceInObject(ValueError):
    """An object of a JSON text names a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _TwiceInObject
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON knows")


def parse_json(text: str, refuse: Refusal) -> Loaded:
    """The value of a JSON text. The standard library's parser, because orjson keeps the last of two equal keys."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
        if "\\u" in text:
            orjson.loads(text)  # Refuses half of a surrogate pair, which no file or database could hold.
    except RecursionError:
        refuse("is nested too deep to be read")
    except _TwiceInObject:
        path, line = _first_key_twice(text)
        refuse(f"{path} is given twice", line=line, hint="keep one of the two")
    except (json.JSONDecodeError, orjson.JSONDecodeError) as error:
        if not text.strip():
            refuse("is empty")
        refuse(f"is no JSON: {error.msg} (column {error.colno})", line=error.lineno)
    except ValueError as error:
        # Python reads no integer of more than 4300 digits, and says so in words about itself.
        reason = "a number has too many digits" if "digits" in str(error) else escaped(str(error))
        refuse(f"is no JSON: {reason}")
    return Loaded(value, lambda path: _json_line(text, path))


def _json_keys(text: str) -> Iterator[tuple[list[list[Any]], int]]:
    """Walk a JSON text; at every key and every item of a list give the path so far and the offset.

    The path is a list of [key or index, keys seen so far or None in a list], changed in place while walking.
    """
    frames: list[list[Any]] = []
    for token in _TOKEN.finditer(text):
        word = token[0]
        frame = frames[-1] if frames else None
        if word in "}]":
            if frames:
                frames.pop()
        elif word == ",":
            if frame is not None:
                frame[0] = None if frame[1] is not None else frame[0] + 1
        elif word != ":":
            if frame is not None and frame[1] is not None and frame[0] is None:
                frame[0] = json.loads(word) if "\\" in word else word[1:-1]
                yield frames, token.start()
                frame[1].add(frame[0])
                continue
            if frame is not None and frame[1] is None:
                yield frames, token.start()
            if word in "{[":
                frames.append([None, set()] if word == "{" else [0, None])


def _json_line(text: str, path: Where) -> int | None:
    offset = None
    for frames, at in _json_keys(text):
        depth = len(frames)
        if depth > len(path) or frames[-1][0] != path[depth - 1]:
            continue
        if all(frame[0] == part for frame, part in zip(frames, path, strict=False)):
            offset = at
            if depth == len(path):
                break
    return None if offset is None else text.count("\n", 0, offset) + 1


def _first_key_twice(text: str) -> tuple[str, int | None]:
    try:
        for frames, at in _json_keys(text):
            key, seen = frames[-1]
            if seen is not None and key in seen:
                return f"the key {escaped(json.dumps(key, ensure_ascii=False), 60)}", text.count("\n", 0, at) + 1
    except ValueError:  # The text is broken further down, before the key could be found again.
        pass
    return "a key", None
