"""The prompt of an attempt, as markdown: the task, what others have left, what went wrong before. Pure, and bounded.

Whatever an agent or a command has printed stands in a fence that nothing inside of it can close, so that it is read as a
quotation and not as part of the task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parallel_agents.eventstore.submission import Task

MAX_BYTES = 500_000  # Of UTF-8, the whole prompt. What a part may have below adds up to less.
DESCRIPTION_BYTES = (
    400_000  # Some 100,000 tokens. A plan with a longer one is refused, so nothing is cut of what was asked.
)
ARGUMENT_DESCRIPTION_BYTES = (
    60_000  # Where the prompt is an argument: Linux takes 128 KiB for one, the other parts included.
)
SIDE_BYTES = 7_500  # Of the description of one side of a conflict.
CONTEXT_BYTES = 40_000  # As JSON; where there is more of it, a warning says so.
DEPENDENCIES_BYTES = 20_000  # Of all outputs and descriptions of dependencies together.
OUTPUT_BYTES = 6_000  # Of one output at most.
ERROR_BYTES = 2_000
PATHS_BYTES = 2_000  # Of one list of paths.
PATHS_SHOWN = 40
DEPENDENCY_PATHS_BYTES = 400
DEPENDENCIES_SHOWN = 20  # The rest is named by number: their files are in the checkout all the same.

LONGEST_FENCE = 40

_RUNS_OF_TICKS = re.compile(r"`+")


@dataclass(frozen=True, slots=True)
class Left:
    """What a task that this one depends on has left."""

    task_id: str
    agent_type: str = ""
    description: str = ""
    output: Any = None  # Its own summary, or the last line that its command printed.
    changed: Sequence[str] = ()  # Paths.
    status: str = "completed"  # Otherwise it failed and was allowed to, and its changes are not here.


@dataclass(frozen=True, slots=True)
class Before:
    """The attempt before this one, which failed."""

    error: str
    output: Any = None
    changed: Sequence[str] | None = None  # Paths; None where nobody knows.
    work_is_here: bool = False  # Whether its changes are in the checkout of this attempt.


@dataclass(frozen=True, slots=True)
class Conflict:
    """Work of the attempt before that did not merge."""

    paths: Sequence[str]
    kinds: Sequence[str] = ()  # git's word for each: contents, add/add, modify/delete; or a gate's outcome.
    other_task_id: str = ""
    other_description: str = ""
    other_output: Any = None


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """All that a prompt says."""

    task: Task
    run_name: str = ""
    workspace: str = "worktree"
    dependencies: Sequence[Left] = ()
    before: Before | None = None
    conflict: Conflict | None = None


def build_prompt(facts: PromptFacts) -> str:
    """What an agent is asked to do in a fresh session.

    Returns:
        Markdown, at most ``MAX_BYTES`` long. Equal facts give equal text.
    """
    parts = [
        _task(facts.task, facts.run_name),
        _context(facts.task.context),
        _dependencies(facts.dependencies, facts.workspace),
        _conflict_before(facts.conflict) if facts.conflict else "",
        _failure(facts.before) if facts.before else "",
        _manners(facts.workspace, facts.task.timeout_s),
    ]
    return _joined(parts)


def resume_prompt(task: Task, why: str, workspace: str = "worktree") -> str:
    """How an agent is asked to go on in a session that was cut off, in the files that it left.

    Args:
        why: in a few words, such as "its process was killed".
    """
    opening = (
        f"Your session was cut off ({_cut(why, 300)}). The files in the current directory are as you left them; a command or an "
        f"edit that was under way may have happened in part or not at all.\n\nLook at them first, then go on with the task "
        f"`{task.task_id}` from where you were. What is done already need not be done again."
    )
    return _joined(["# Go on", opening, _manners(workspace, task.timeout_s)])


def resolve_prompt(
    task: Task, conflict: Conflict, *, summary: Any = None, run_name: str = "", checks: Sequence[str] = ()
) -> str:
    """How an agent is asked to resolve a merge that has been begun in this checkout.

    Args:
        task: whose work does not merge.
        summary: what its agent said it had done.
        checks: commands that the result must pass.
    """
    other = f"`{conflict.other_task_id}`" if conflict.other_task_id else "work that was merged before"
    run = f"In the run **{_inline(run_name)}**, the" if run_name else "The"
    opening = (
        f"{run} work of the task `{task.task_id}` does not merge with that of {other}. Both are meant to stay. The current "
        "directory holds the merge as far as it went: where both sides changed the same lines, the file holds both between "
        "markers (`<<<<<<<`, `=======`, `>>>>>>>`)."
    )
    was_first = ""
    if conflict.other_task_id:
        was_first = _side(f"What came first: {other}", conflict.other_description, conflict.other_output)
    comes = _side(f"What comes now: `{task.task_id}`", task.description, summary)
    rules = [
        "Keep what both sides meant to do. Where that cannot be, keep the older one working and say so at the end.",
        "Leave no marker in any file, and nothing half merged.",
        "Change nothing else.",
        *([f"These must succeed: {_listed(checks)}."] if checks else ["Run the tests that touch these files."]),
        "Do not commit, switch branches or stash: what you leave in the files is committed and merged for you.",
        "End with a few lines on how each file was resolved.",
    ]
    parts = [
        "# Resolve a merge conflict",
        opening,
        "## Paths\n\n" + _clashes(conflict),
        was_first,
        comes,
        _rules("How to go about it", rules),
    ]
    return _joined(parts)


def _task(task: Task, run_name: str) -> str:
    description = (
        _cut(task.description.strip(), DESCRIPTION_BYTES) or "(It has no description; go by its name and context.)"
    )
    lines = [f"# Task `{task.task_id}`", description]
    if run_name:
        lines.append(
            f"This is one task of the run **{_inline(run_name)}**. Others are done by other agents; do only this one."
        )
    if task.files:
        lines.append(f"Change only files that match: {_listed(task.files)}.")
    if task.outputs:
        lines.append(f"These must exist afterwards, or the task has failed: {_listed(task.outputs)}.")
    return "\n\n".join(lines)


def _context(context: Mapping[str, Any]) -> str:
    if not context:
        return ""
    return "## Context\n\n" + _fenced(_cut(context_text(context), CONTEXT_BYTES), "json")


def context_text(context: Mapping[str, Any]) -> str:
    """A task's context as it is told; of a longer one than ``CONTEXT_BYTES`` the middle is left out."""
    return json.dumps(context, indent=2, ensure_ascii=False, default=str)


def _dependencies(left: Sequence[Left], workspace: str) -> str:
    if not left:
        return ""
    shown = left[:DEPENDENCIES_SHOWN]
    each = min(OUTPUT_BYTES, DEPENDENCIES_BYTES // len(shown))
    parts = ["## What was done before"]
    if workspace != "none":
        parts.append("The changes of these tasks are in your files already.")
    parts += [_one_dependency(one, each) for one in shown]
    if len(left) > len(shown):
        parts.append(f"And {len(left) - len(shown)} more tasks, which are not shown here.")
    return "\n\n".join(parts)


def _one_dependency(one: Left, limit: int) -> str:
    who = f" ({_inline(one.agent_type, 60)})" if one.agent_type else ""
    parts = [f"### `{one.task_id}`{who}"]
    if one.status != "completed":
        parts.append(f"**It {_inline(one.status)}; its changes are not here.**")
    if one.description.strip():
        parts.append(_quoted(one.description, limit // 3))
    said = _said(one.output, limit * 2 // 3)
    parts.append(f"What it said at its end:\n\n{_fenced(said)}" if said else "It said nothing at its end.")
    if one.changed:
        parts.append(f"Changed: {_listed(one.changed, shown=15, limit=DEPENDENCY_PATHS_BYTES)}.")
    return "\n\n".join(parts)


def _failure(before: Before) -> str:
    parts = ["## The attempt before failed", _fenced(_cut(before.error.strip(), ERROR_BYTES))]
    if said := _said(before.output, OUTPUT_BYTES):
        parts.append(f"The last that it said:\n\n{_fenced(said)}")
    where = "is in your files" if before.work_is_here else "is not in your files"
    if before.changed is None:
        parts.append(f"What it had changed {where}.")
    elif before.changed:
        parts.append(f"It had changed {_listed(before.changed)}. That {where}.")
    else:
        parts.append("It had changed nothing.")
    parts.append("Find out why it failed before you start, and do not simply repeat it.")
    return "\n\n".join(parts)


def _conflict_before(conflict: Conflict) -> str:
    other = f"`{conflict.other_task_id}`" if conflict.other_task_id else "work that was merged before"
    parts = [
        "## The work of the attempt before did not merge",
        f"It met {other}, which is in your files; what that attempt had done is not.",
        "Do the task again on top of what is there, so that both stay.",
        _clashes(conflict),
    ]
    if conflict.other_description.strip():
        parts.append(f"The task of {other}:\n\n{_quoted(conflict.other_description, ERROR_BYTES)}")
    return "\n\n".join(parts)


def _manners(workspace: str, timeout_s: float) -> str:
    rules = []
    if workspace == "worktree":
        rules.append("Work only in the current directory. It is a checkout of your own.")
    elif workspace == "shared":
        rules.append(
            "Work only in the current directory. Others work in it too: leave alone what is not part of this task."
        )
    else:
        rules.append("Work only in the current directory.")
    if workspace != "none":
        rules.append("Do not commit, switch branches, stash or push: what you leave in the files is kept for you.")
    rules += [
        "Nobody can answer questions. Where something is open, choose what fits what is there, and say so at the end.",
        f"After {_minutes(timeout_s)} you are stopped.",
        "End with a few lines: what you did, what is open, and what whoever goes on from here must know.",
    ]
    return _rules("How to work here", rules)


def _rules(heading: str, rules: Iterable[str]) -> str:
    return f"## {heading}\n\n" + "\n".join(f"- {rule}" for rule in rules)


def _side(heading: str, description: str, output: Any) -> str:
    parts = [f"## {heading}"]
    if description.strip():
        parts.append(_quoted(description, SIDE_BYTES))
    if said := _said(output, OUTPUT_BYTES):
        parts.append(f"Its agent said at its end:\n\n{_fenced(said)}")
    return "\n\n".join(parts)


def _clashes(conflict: Conflict) -> str:
    kinds = [*conflict.kinds, *[""] * PATHS_SHOWN]
    names = [
        f"- {_code(path)}" + (f" ({_inline(kind)})" if kind else "")
        for path, kind in zip(conflict.paths[:PATHS_SHOWN], kinds, strict=False)
    ]
    return "\n".join(_and_more(_first(names, PATHS_BYTES), len(conflict.paths), "- "))


def _said(output: Any, limit: int) -> str:
    if output is None:
        return ""
    text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False, default=str)
    return _cut(text.strip(), limit)


def _listed(paths: Iterable[str], *, shown: int = PATHS_SHOWN, limit: int = PATHS_BYTES) -> str:
    every = list(paths)
    names = _first([_code(path) for path in every[:shown]], limit)
    return ", ".join(_and_more(names, len(every), ""))


def _first(names: Sequence[str], limit: int) -> list[str]:
    """The first of some names, as many as fit into so many bytes."""
    kept: list[str] = []
    size = 0
    for name in names:
        size += len(name.encode()) + 2
        if size > limit:
            break
        kept.append(name)
    return kept


def _and_more(names: list[str], total: int, sign: str) -> list[str]:
    more = total - len(names)
    return [*names, f"{sign}{'and ' if names else ''}{more:,} more"] if more else names


def _cut(text: str, limit: int) -> str:
    """The text in at most ``limit`` bytes of UTF-8; of a longer one the beginning and the end, saying what is missing."""
    stored = _clean(text).encode()
    if len(stored) <= limit:
        return stored.decode()
    room = max(0, limit - 60)
    head = stored[: room * 2 // 3].decode(errors="ignore")
    tail = stored[len(stored) - room // 3 :].decode(errors="ignore")
    missing = len(stored) - len(head.encode()) - len(tail.encode())
    return f"{head}\n[... {missing:,} bytes left out here ...]\n{tail}"


def _clean(text: str) -> str:
    """Without what no file or argument can carry: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _fenced(text: str, language: str = "text") -> str:
    """The text between fences that are longer than any in it; in it, none is longer than ``LONGEST_FENCE``."""
    text = _RUNS_OF_TICKS.sub(lambda run: run[0][:LONGEST_FENCE], text)
    fence = "`" * max(3, 1 + max(map(len, _RUNS_OF_TICKS.findall(text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _quoted(text: str, limit: int) -> str:
    text = _cut(text.strip(), limit)
    if len(text) + 2 * text.count("\n") > limit:  # Then it is a column of letters, and reads as well in one line.
        text = " ".join(text.split())
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _inline(text: str, limit: int = 200) -> str:
    """A name on one line, short enough to stand in a sentence."""
    plain = " ".join(_clean(text[: 4 * limit]).split())
    return plain if len(plain) <= limit and len(text) <= 4 * limit else plain[:limit] + "…"


def _code(text: str) -> str:
    """A path or pattern as code, whatever it holds."""
    plain = _inline(text)
    ticks = "`" * (1 + max(map(len, _RUNS_OF_TICKS.findall(plain)), default=0))
    pad = " " if "`" in plain else ""
    return f"{ticks}{pad}{plain}{pad}{ticks}"


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _joined(parts: Iterable[str]) -> str:
    """The parts that say something. Their own bounds keep the whole below ``MAX_BYTES``."""
    text = "\n\n".join(part for part in parts if part) + "\n"
    assert len(text.encode()) <= MAX_BYTES, "the bounds of the parts are too wide"
    return text
