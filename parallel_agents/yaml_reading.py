"""YAML into plain values, from the parser's events.

libyaml's composer recurses in C: a hundred thousand opening brackets end the process with a segmentation fault. Its
events do not recurse and are eight times faster than its nodes, so the values are put together here, and depth, aliases
and duplicate keys are judged on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from parallel_agents.wording import escaped, shown

if TYPE_CHECKING:
    from parallel_agents.documents import Refusal, Where

MAX_DEPTH = 100  # Levels of nesting; a plan needs about four.
MAX_EXPANDED = 2_000_000  # Values after every alias was written out; a plan of 100,000 tasks has about 1,500,000.
MAX_EXPANDED_CHARACTERS = 64 * 1024 * 1024

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = object()
_UNFINISHED = object()
# A date, `=` or `<<` as a value is a text to us: no field takes anything else that looks like one.
_TEXTS = frozenset(_TAG + name for name in ("str", "timestamp", "value", "merge")) | {"!"}
_SCALARS = frozenset(_TAG + name for name in ("int", "float", "bool", "null"))


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read."""

    value: Any
    lines: Any  # Of the items or keys: the same keys, line numbers as values.
    anchor: str | None
    line: int
    weight: int = 1  # Values in it, aliases written out.
    characters: int = 0
    key: Any = None
    key_line: int = 0
    merged: list[Any] = field(default_factory=list)


def parse_yaml(text: str, refuse: Refusal) -> tuple[Any, Callable[[Where], int | None]]:
    """The value of a YAML text, and a function that tells the line of a part of it.

    Raises:
        ParallelAgentsError: of the refusal's class: no YAML, several documents, a key given twice or that is no text,
            a tag that stands for an object, an alias inside of what it stands for, nesting or aliases without end.
    """
    builder = _Builder(refuse)
    loader = None
    try:
        loader = _Loader(text)
        builder.loader = loader
        while loader.check_event():
            builder.take(loader.get_event())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        if "nesting depth" in (error.problem or ""):  # libyaml's own limit, in its newer releases.
            refuse(f"is nested deeper than {MAX_DEPTH} levels", line=line)
        refuse(f"is no YAML: {escaped(error.problem or 'cannot be read')}", line=line, hint=_yaml_hint(text, line))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        refuse(f"is no YAML: it holds the control character {chr(error.character)!a}", line=line)
    except (yaml.YAMLError, UnicodeError) as error:
        refuse(f"is no YAML: {escaped(str(error))}")
    finally:
        if loader is not None:
            loader.dispose()
    return builder.root, builder.line_of


def _yaml_hint(text: str, line: int | None) -> str:
    lines = text.split("\n")
    if line and line <= len(lines) and lines[line - 1].lstrip(" ").startswith("\t"):
        return "YAML is indented with spaces, never with tabs"
    return ""


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    def __init__(self, refuse: Refusal) -> None:
        self.refuse = refuse
        self.loader: Any = None
        self.root: Any = None
        self.frames: list[_Frame] = []
        self.lines: dict[int, Any] = {}  # By id of a list or mapping of the result, which keeps it alive.
        self.anchors: dict[str, Any] = {}  # Name to (value, weight, characters).
        self.scalars: dict[str, Any] = {}  # Plain ones as resolved before: most words of a plan come many times.
        self.documents = 0

    def take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._take_alias(event)
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    line = _line(event)
                    self.refuse(f"holds a second document; a {self.refuse.what} is one", line=line)
            case _:
                pass

    def _take_scalar(self, event: Any) -> None:
        line = _line(event)
        top = self.frames[-1] if self.frames else None
        as_key = top is not None and top.key is None and type(top.value) is dict
        plain = event.tag is None and event.implicit[0]
        if as_key and plain and event.value == "<<":
            value = _MERGE
        elif event.tag is None and not plain:
            value = event.value
        elif plain and event.value in self.scalars:
            value = self.scalars[event.value]
        else:
            value = self._resolve(event, line)
            if plain:
                self.scalars[event.value] = value
        if event.anchor:
            self.anchors[event.anchor] = (value, 1, len(event.value))
        self._add(value, 1, len(event.value), line)

    def _resolve(self, event: Any, line: int) -> Any:
        tag = event.tag
        if tag is None:
            tag = self.loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag in _TEXTS:
            return event.value
        if tag not in _SCALARS:
            self.refuse(f"the tag {escaped(tag, 60)} stands for nothing here", line=line, hint="leave the tag out")
        try:
            value = self.loader.construct_object(yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark))
        except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            self.refuse(f"{shown(event.value)} cannot be read as {tag.removeprefix(_TAG)}", line=line)
        if isinstance(value, float) and not math.isfinite(value):
            self.refuse(f"{escaped(event.value, 60)} is no finite number", line=line)
        return value

    def _take_alias(self, event: Any) -> None:
        line = _line(event)
        known = self.anchors.get(event.anchor)
        if known is None:
            name = escaped(event.anchor, 60)
            self.refuse(f"*{name} stands for nothing", line=line, hint=f"there is no &{name} before it")
        if known is _UNFINISHED:
            self.refuse(f"*{escaped(event.anchor, 60)} stands inside of what it stands for", line=line)
        value, weight, characters = known
        total = weight + sum(frame.weight for frame in self.frames)
        length = characters + sum(frame.characters for frame in self.frames)
        if total > MAX_EXPANDED or length > MAX_EXPANDED_CHARACTERS:
            self.refuse(f"its aliases stand for more than {MAX_EXPANDED:,} values or 64 MiB of text", line=line)
        self._add(value, weight, characters, line)

    def _open(self, event: Any) -> None:
        line = _line(event)
        kind, name = (dict, "map") if isinstance(event, yaml.MappingStartEvent) else (list, "seq")
        if event.tag not in (None, "!", _TAG + name):
            self.refuse(
                f"the tag {escaped(event.tag, 60)} stands for nothing here", line=line, hint="leave the tag out"
            )
        if len(self.frames) >= MAX_DEPTH:
            self.refuse(f"is nested deeper than {MAX_DEPTH} levels", line=line)
        if self.frames and self.frames[-1].key is None and type(self.frames[-1].value) is dict:
            self.refuse("a key is a list or a mapping; only a text can be one", line=line)
        if event.anchor:
            self.anchors[event.anchor] = _UNFINISHED
        self.frames.append(_Frame(kind(), kind(), event.anchor, line))

    def _close(self) -> None:
        frame = self.frames.pop()
        for source in frame.merged:
            for key, value in source.items():
                if key not in frame.value:  # What the mapping says itself, or an earlier merge, stands.
                    frame.value[key] = value
                    frame.lines[key] = self.lines[id(source)][key]
        self.lines[id(frame.value)] = frame.lines
        if frame.anchor:
            self.anchors[frame.anchor] = (frame.value, frame.weight, frame.characters)
        self._add(frame.value, frame.weight, frame.characters, frame.line)

    def _add(self, value: Any, weight: int, characters: int, line: int) -> None:
        if not self.frames:
            self.root = value
            return
        frame = self.frames[-1]
        frame.weight += weight
        frame.characters += characters
        if type(frame.value) is list:
            frame.value.append(value)
            frame.lines.append(line)
        elif frame.key is None:
            self._take_key(frame, value, line)
        elif frame.key is _MERGE:
            frame.key = None
            sources = value if type(value) is list else [value]
            if not all(type(source) is dict for source in sources):
                self.refuse("<< takes a mapping or a list of mappings", line=frame.key_line)
            frame.merged.extend(sources)
        else:
            frame.value[frame.key] = value
            frame.lines[frame.key] = frame.key_line
            frame.key = None

    def _take_key(self, frame: _Frame, key: Any, line: int) -> None:
        if key is _MERGE:
            if frame.merged:
                self.refuse("the key << is given twice", line=line, hint="write one list: <<: [*one, *other]")
        elif type(key) is not str:
            # YAML reads yes, no, on, off, null and numbers as something else than texts.
            self.refuse(f"the key {shown(key)} is no text", line=line, hint="write the key in quotes")
        elif key in frame.value:
            self.refuse(f"the key {shown(key)} is given twice", line=line, hint="keep one of the two")
        frame.key, frame.key_line = key, line

    def line_of(self, path: Where) -> int | None:
        value, line = self.root, None
        for part in path:
            try:
                line = self.lines[id(value)][part]
                value = value[part]
            except (LookupError, TypeError):
                break
        return line
