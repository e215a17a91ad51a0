"""Agent types: files of markdown with a front matter, as Claude Code has them; the project's, the user's, and ours.

A type is looked for in ``.claude/agents`` of the project, then of the user, then among those that come with the package.
Files that people have for their client are read as that client reads them: what YAML would refuse on one line is a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from parallel_agents.documents import Refusal, read_text
from parallel_agents.eventstore.errors import InvalidConfiguration, ParallelAgentsError
from parallel_agents.eventstore.submission import AgentRole
from parallel_agents.findings import Finding
from parallel_agents.plan_secrets import text_misfit
from parallel_agents.wording import escaped, nearest_name, shown
from parallel_agents.yaml_reading import parse_yaml

MAX_PROMPT_BYTES = 100_000  # A client may get it as an argument, and those end at 128 KiB.

_USED = ("name", "description", "tools", "model")
_FOR_PEOPLE = frozenset({"color"})  # Changes nothing about what an agent does.
_KEY = re.compile(r"([A-Za-z][\w-]*)[ \t]*:(.*)")
_COMMA = re.compile(r",(?![^(]*\))")  # Not one inside of `Bash(git add:*, git commit:*)`.


@dataclass(frozen=True, slots=True)
class AgentFile:
    """One file that holds, or should hold, an agent type."""

    path: str  # As messages name it.
    names: frozenset[str]  # That a plan may mean it by; of a broken file also that of the file.
    role: AgentRole | None = None
    error: ParallelAgentsError | None = None
    unused: tuple[str, ...] = ()  # Keys of its front matter that are another client's, and nothing here.


def find_roles(
    names: Iterable[str],
    project_root: Path,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, AgentRole]:
    """The agent types of these names.

    A name that no file holds gets a role without a prompt, and a warning that names the nearest known one.

    Args:
        environ: where HOME and CLAUDE_CONFIG_DIR are looked up; None is this process's own.
        warn: is told what is odd and no error.
    Raises:
        InvalidConfiguration: the file of a type that is asked for is broken; the message says which, where and why.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    known = agent_files(project_root, environ)
    roles = {}
    for name in wanted:
        fitting = [file for file in known if name in file.names]
        if not fitting:
            every = {one for file in known if file.role for one in file.names}
            warn(
                f"no agent type is called {escaped(name)!r}: its tasks get no role. {nearest_name(name, sorted(every))}"
            )
            roles[name] = AgentRole(name=name, source="none")
            continue
        first = fitting[0]
        if first.error is not None or first.role is None:
            raise first.error or AssertionError("a file is read or refused")
        same = [file.path for file in fitting[1:] if file.role and file.role.source == first.role.source]
        if same:
            warn(f"{first.path} and {', '.join(same)} hold the same agent type {name!r}; the first is used")
        if first.unused:
            warn(f"{first.path}: {', '.join(first.unused)} changes nothing here")
        roles[name] = first.role
    return roles


def examine_agent_types(project_root: Path, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """How many types there are, and which files are broken; for ``doctor``."""
    known = agent_files(project_root, environ)
    broken = [file for file in known if file.error is not None]
    for file in broken:
        assert file.error is not None
        yield Finding("agent types", "warning", file.error.message, file.error.hint or "a plan that uses it is refused")
    counts = [
        f"{sum(1 for file in known if file.role and file.role.source == source)} {told}"
        for source, told in (("project", "of the project"), ("user", "of the user"), ("built-in", "built in"))
    ]
    yield Finding("agent types", "ok", ", ".join(counts))


def agent_files(project_root: Path, environ: Mapping[str, str] | None = None) -> list[AgentFile]:
    """Every file that may hold an agent type: those of the project, of the user, ours; in each by path."""
    environ = os.environ if environ is None else environ
    found = []
    folders = [("project", project_root / ".claude" / "agents")]
    if home := _clients_home(environ):
        folders.append(("user", home / "agents"))
    for source, folder in folders:
        if source == "user" and folder.absolute() == folders[0][1].absolute():
            continue  # The project is the user's home.
        found += [_read(path, source, _path_shown(path, project_root)) for path in _markdown_below(folder)]
    for resource in sorted(files("parallel_agents").joinpath("agents").iterdir(), key=lambda one: one.name):
        if resource.name.endswith(".md"):
            shown_as = f"parallel_agents/agents/{resource.name}"
            found.append(_taken(resource.read_text(encoding="utf-8"), resource.name[:-3], "built-in", shown_as))
    return found


def _clients_home(environ: Mapping[str, str]) -> Path | None:
    """The folder of the user's that Claude Code keeps such files in; None where there is no HOME."""
    if named := environ.get("CLAUDE_CONFIG_DIR"):
        return Path(named)
    home = environ.get("HOME")
    return Path(home) / ".claude" if home else None


def _markdown_below(folder: Path) -> list[Path]:
    found = []
    for where, _, names in os.walk(folder):  # A folder that is missing or closed holds nothing.
        found += [Path(where, name) for name in names if name.endswith(".md")]
    return sorted(found)


def _path_shown(path: Path, project_root: Path) -> str:
    return str(path.relative_to(project_root)) if path.is_relative_to(project_root) else str(path)


def _read(path: Path, source: str, shown_as: str) -> AgentFile:
    try:
        text = read_text(path, Refusal("agent type", shown_as, InvalidConfiguration))
    except ParallelAgentsError as error:
        return AgentFile(shown_as, frozenset({path.stem}), error=error)
    return _taken(text, path.stem, source, shown_as)


def _taken(text: str, stem: str, source: str, shown_as: str) -> AgentFile:
    try:
        role, unused = parse_agent_type(text, stem, source, shown_as)
    except ParallelAgentsError as error:
        said = re.search(r"^name[ \t]*:[ \t]*(\S+)[ \t]*$", text, re.MULTILINE)
        return AgentFile(shown_as, frozenset({stem, *((said[1].strip("\"'"),) if said else ())}), error=error)
    return AgentFile(shown_as, frozenset({role.name}), role=role, unused=unused)


def parse_agent_type(text: str, stem: str, source: str, shown_as: str) -> tuple[AgentRole, tuple[str, ...]]:
    """The agent type that a file's text holds, and the keys of it that are for others.

    Args:
        stem: the file's name without its ending, which is the type's name where the text gives none.
    Raises:
        InvalidConfiguration: it holds none; the message names the file and the line.
    """
    refuse = Refusal("agent type", shown_as, InvalidConfiguration)
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        refuse(
            "does not begin with a front matter",
            line=1,
            hint="between two lines of ---: name, description, tools, model",
        )
    end = next((index for index, line in enumerate(lines) if index and line.rstrip() == "---"), None)
    if end is None:
        refuse("its front matter has no end", line=1, hint="a line of --- ends it")
    fields, line_of = _front_matter(lines[1:end], refuse)
    prompt = "\n".join(lines[end + 1 :]).strip()
    if (size := len(prompt.encode())) > MAX_PROMPT_BYTES:
        refuse(f"its prompt has {size:,} bytes; at most {MAX_PROMPT_BYTES:,} can be told to a client")
    for name in ("name", "description", "model"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            refuse(f"{name} is {shown(value)}, not a text", line=line_of[name], hint="write it in quotes")
    name = fields.get("name") or stem
    tools = _tools(fields.get("tools"), refuse, line_of.get("tools"))
    for part in (prompt, fields.get("description") or "", name, *(tools or ())):
        if misfit := text_misfit((), part):
            refuse(misfit.message, hint="the store keeps it for ever; name a variable instead")
    role = AgentRole(
        name=name, description=fields.get("description") or "", prompt=prompt, tools=tools,
        model=fields.get("model") or None, source=source,
    )  # fmt: skip
    return role, tuple(key for key in fields if key not in _USED and key not in _FOR_PEOPLE)


def _front_matter(block: list[str], refuse: Refusal) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a front matter by key, and their lines in the file.

    Each key is read by itself, so that a description with a colon in it does not keep the rest from being read.
    """
    fields: dict[str, Any] = {}
    line_of: dict[str, int] = {}
    for line, chunk in _chunks(block):
        matched = _KEY.fullmatch(chunk[0].rstrip())
        if matched is None:
            refuse(f"{shown(chunk[0])} is no `key: value`", line=line)
        key, rest = matched[1], matched[2].strip()
        if key in fields:
            refuse(f"{key} is given twice", line=line, hint="keep one of the two")
        try:
            value = parse_yaml("\n".join(chunk), Refusal("value", key, InvalidConfiguration))[0]
            fields[key] = value.get(key, rest) if isinstance(value, dict) else rest  # ``a::`` is another key to YAML.
        except ParallelAgentsError as error:
            if len(chunk) > 1 or not rest or rest[0] in "[{\"'":  # More than a text on one line was meant.
                refuse(f"{key} {error.message.partition(': ')[2]}", line=line)
            fields[key] = rest
        line_of[key] = line
    return fields, line_of


def _chunks(block: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The keys of a front matter, each with its line in the file and the lines that belong to it, comments taken out."""
    chunk: list[str] = []
    first = 0
    for line, text in enumerate(block, start=2):  # The line of --- is the first.
        begins = bool(text.strip()) and text[0] not in " \t-"
        if text.startswith("#") or (not chunk and not begins):
            if text.strip() and not text.startswith("#"):
                first, chunk = line, [text]
            continue
        if begins and chunk:
            yield first, _without_end(chunk)
            chunk = []
        if begins:
            first = line
        chunk.append(text)
    if chunk:
        yield first, _without_end(chunk)


def _without_end(chunk: list[str]) -> list[str]:
    while not chunk[-1].strip():
        chunk.pop()
    return chunk


def _tools(value: Any, refuse: Refusal, line: int | None) -> tuple[str, ...] | None:
    """The tools of a list, or of a text with commas; None where the configuration's are meant."""
    if value is None or value == "*":
        return None
    if isinstance(value, str):
        return tuple(name.strip() for name in _COMMA.split(value) if name.strip()) or None
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        refuse(
            f"tools is {shown(value)}, not a list of names", line=line, hint="such as tools: Read, Grep, Bash(git *)"
        )
    return tuple(name.strip() for name in value)
