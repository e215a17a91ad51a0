"""What agents have printed, in words: one line for each thing that they did or said, for people who watch or read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from parallel_agents.eventstore.events import TaskStarted
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import decode_brief
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.agents.reading import as_list, as_object, decoded

_LOOKED_AT = 256 * 1024  # Bytes at the end of an output in which the last thing is looked for.
_SAID_OF = (
    "file_path",
    "path",
    "notebook_path",
    "command",
    "pattern",
    "query",
    "url",
    "description",
    "prompt",
    "skill",
)
"""What says most of what a tool is used for, the most telling first."""


def printed_as(log: Log, run_id: str, attempt_id: str) -> str | None:
    """What an attempt's output is to be read as, where it is an agent's; None where it is for people as it stands."""
    plan = Projector(log).state(run_id).plan
    for brief in log.briefs(run_id, where="type = 'TaskStarted'"):
        event = decode_brief(run_id, brief).event
        if isinstance(event, TaskStarted) and event.attempt_id == attempt_id:
            client = clients(plan.agents.clients).get(event.runner)
            return None if client is None or client.output == "text" else client.output
    return None


def words_of(line: bytes, output: str) -> Iterator[str]:
    """What one line of an agent's output says, in lines that move no cursor; nothing where it is for programs only.

    Args:
        output: how the row of its client calls what it prints.
    """
    for words in _words_of(line, output):
        yield words if words.isprintable() else "".join(char if char.isprintable() else " " for char in words)


def _words_of(line: bytes, output: str) -> Iterator[str]:
    if output == "text":
        yield line.decode("utf-8", "replace").rstrip()
        return
    fields = decoded(line)
    if fields is None:
        return
    match output:
        case "claude":
            yield from _claude(fields)
        case "codex":
            yield from _codex(fields)
        case _:
            text = next(
                (fields[name] for name in ("text", "content", "message") if isinstance(fields.get(name), str)), ""
            )
            yield from text.splitlines()


def last_words(path: str | os.PathLike[str], output: str) -> str | None:
    """The last thing that an agent has done or said, by the end of its output; None where that cannot be told."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _LOOKED_AT))
            lines = file.read(_LOOKED_AT).split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        if output == "claude" and b'"type":"assistant"' not in line and b'"type":"result"' not in line:
            continue  # Hundreds of pieces of a message come before it.
        said = [words for words in words_of(line, output) if words.strip()]
        if said:
            return said[-1]
    return None


def _claude(fields: dict[str, Any]) -> Iterator[str]:
    match fields.get("type"):
        case "assistant":
            for block in map(as_object, as_list(as_object(fields.get("message")).get("content"))):
                if block.get("type") == "tool_use":
                    yield _used(str(block.get("name") or "a tool"), as_object(block.get("input")))
                elif isinstance(block.get("text"), str):
                    yield from block["text"].splitlines()
        case "system" if fields.get("subtype") == "api_retry":
            yield f"(asks again: {fields.get('error') or fields.get('error_status') or 'no answer'})"
        case "system" if fields.get("subtype") == "permission_denied":
            yield f"(not allowed: {fields.get('tool_name') or 'a tool'})"
        case _:
            return


def _codex(fields: dict[str, Any]) -> Iterator[str]:
    item = as_object(fields.get("item"))
    match fields.get("type"), item.get("type"):
        case "item.completed", "agent_message" | "reasoning":
            yield from str(item.get("text") or "").splitlines()
        case "item.started" | "item.completed", "command_execution":
            if fields["type"] == "item.started":
                yield f"▸ run  {item.get('command')}"
        case "item.completed", "file_change":
            for change in map(as_object, as_list(item.get("changes"))):
                yield f"▸ {change.get('kind') or 'change'}  {PurePath(str(change.get('path'))).name}"
        case "item.completed", "error":
            yield f"(warning: {item.get('message')})"
        case "turn.failed" | "error", _:
            yield f"(failed: {as_object(fields.get('error')).get('message') or fields.get('message')})"
        case _:
            return


def _used(tool: str, given: Any) -> str:
    about = next((given[name] for name in _SAID_OF if isinstance(given.get(name), str) and given[name].strip()), "")
    first = about.strip().splitlines()[0] if about.strip() else ""
    return f"▸ {tool}  {first}".rstrip()
