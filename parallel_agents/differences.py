"""What lies between two moments, of one run or of two: tasks, cost, configuration and files.

Two runs may lie in two stores: an imported one and the fork that somebody made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parallel_agents import look
from parallel_agents.eventstore.errors import InvalidUsage, UnknownRun
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.passing import Passing
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState, TaskState
from parallel_agents.run_standing import places_of
from parallel_agents.scheduler.checkouts import open_repository
from parallel_agents.travel import Target, target_of

_TASK = ("status", "attempts", "attempt_id", "output", "error", "model", "checkpoint_id")
_BEGINNING = re.compile(r"[a-z][a-z2-7]{3,9}")  # Of a run's id, long enough not to be met by chance.


Elsewhere = Callable[[str], Log | None]
"""The log of the run that a text names, where that is another one than the project's own, as that of an imported run is."""


class Moment(NamedTuple):
    """A moment, and the log that tells of it."""

    log: Log
    target: Target


class _Side(NamedTuple):
    """One side as it was typed."""

    log: Log
    run_id: str | None  # None: nothing was said of a run.
    moment: str | None  # None: where the run stands now.


def sides(log: Log, words: Sequence[str], elsewhere: Elsewhere = lambda _: None) -> tuple[Moment, Moment]:
    """The two moments that some words mean: ``[RUN] A B``, ``RUN RUN`` or ``RUN@A RUN@B``.

    Of a run without a moment it is where it stands now; a moment without a run is one of the other side's, else of the
    latest run.

    Args:
        log: the project's own.
    Raises:
        UnknownRun: there is no such run, or it had not begun by then.
        UnknownEvent, UnknownCheckpoint, Ambiguous: see ``travel.target_of``.
        InvalidUsage: there are too many words, or too few.
    """
    if len(words) == 3:
        there = elsewhere(words[0]) or log
        run_id = look.resolve_run(there, words[0])
        a, b = (_Side(there, run_id, word) for word in words[1:])
    elif len(words) == 2:
        a, b = (_side(log, word, elsewhere) for word in words)
    else:
        raise InvalidUsage(
            f"{len(words)} words where [RUN] A B belongs", hint="two runs are compared by RUN RUN, or RUN@A RUN@B"
        )
    return _moment_of(a, b), _moment_of(b, a)


def _side(log: Log, word: str, elsewhere: Elsewhere) -> _Side:
    """What one of two words means: a run, a run at a moment, or a moment."""
    named, at, moment = word.partition("@")
    if (there := elsewhere(named)) is not None:
        return _Side(there, look.resolve_run(there, named), moment or None)
    if not at:
        return _Side(log, run_id, None) if (run_id := _run_named(log, word)) is not None else _Side(log, None, word)
    run_id = look.resolve_run(log, None) if named == look.LATEST else _run_named(log, named)
    return _Side(log, None, word) if run_id is None else _Side(log, run_id, moment or None)


def _run_named(log: Log, word: str) -> str | None:
    """The run of that id, or whose id begins so and which could not be a checkpoint as well.

    Raises:
        UnknownRun: it is the parent of a run that is here, and is not here itself.
    """
    runs = Projector(log).runs()
    if word in runs:
        return word
    fork = next((run_id for run_id, run in runs.items() if run.parent == word), None)
    if fork is not None:  # Else the label of the checkpoint that the fork began with would be meant.
        raise UnknownRun(
            f"run {word} is not here; run {fork} was forked from it",
            hint="`parallel-agents import FILE` brings it in from an export",
        )
    if _BEGINNING.fullmatch(word) is None or not any(run_id.startswith(word) for run_id in runs):
        return None
    from parallel_agents import checkpoints
    from parallel_agents.rewind_phrases import find_by_name

    latest = look.resolve_run(log, None)
    return None if find_by_name(word, checkpoints.passing(log, latest)) else look.resolve_run(log, word)


def _moment_of(side: _Side, other: _Side) -> Moment:
    log = side.log if side.run_id is not None else other.log
    run_id = side.run_id or other.run_id or look.resolve_run(log, None)
    if side.moment is None:
        return Moment(log, Target(Projector(log).state(run_id), "where it stands now"))
    try:
        return Moment(log, target_of(log, run_id, side.moment))
    except UnknownRun as error:
        raise UnknownRun(error.message, hint=error.hint or f"`parallel-agents history {run_id}` shows it") from None


def differences(a: Moment, b: Moment) -> dict[str, Any]:
    """The difference between two moments, as data. Its tasks pass by (see ``passing``): there may be very many.

    Returns:
        ``{"run_id", "a", "b", "status", "tasks", "cost_usd", "configuration", "files", "files_unknown"}``: of whatever differs
        the value at each side. ``run_id`` is that of b. Money is that of all history of a run up to there, undone work
        included; what the parent of a fork has spent is none of the fork's. ``files_unknown`` says why files cannot be
        compared, where that is so.
    """
    left, right = a.target.state, b.target.state
    spent = [Projector(log).cost(there.state.run_id, there.seq).usd_micros / 1e6 for log, there in (a, b)]
    unknown = _cannot_compare(b.log, left, right)
    return {
        "run_id": right.run_id,
        "a": _moment(a.target),
        "b": _moment(b.target),
        "status": [left.status, right.status],
        "tasks": Passing(lambda: _tasks(left, right)),
        "cost_usd": {"a": spent[0], "b": spent[1], "difference": spent[1] - spent[0]},
        "configuration": _configuration(left, right),
        "files": [] if unknown else _files(b.log, left, right),
        "files_unknown": unknown,
    }


def patch(a: Moment, b: Moment) -> bytes:
    """The same of the files, as git shows it; empty where nothing differs.

    Raises:
        InvalidUsage: the files of the two cannot be compared.
    """
    left, right = a.target.state, b.target.state
    if (unknown := _cannot_compare(b.log, left, right)) is not None:
        raise InvalidUsage(f"there is no patch: {unknown}", hint="leave --patch out to compare all else")
    if left.integration == right.integration:
        return b""
    from parallel_agents.checkpoint import contents

    assert left.integration is not None
    assert right.integration is not None
    return contents.patch(_repository(b.log, right.run_id), left.integration, right.integration)


def _moment(side: Target) -> dict[str, Any]:
    return {
        "run_id": side.state.run_id,
        "seq": side.seq,
        "understood": side.reading,
        "commit": side.state.integration,
    }


def _cannot_compare(log: Log, left: RunState, right: RunState) -> str | None:
    """Why the files of two moments cannot be compared; None where they can."""
    for state in (left, right):
        if state.integration is None or state.repository is None:
            return f"the files of run {state.run_id} are not versioned"
    if left.run_id == right.run_id or left.integration == right.integration:
        return None
    from parallel_agents.checkpoint.contents import has_commit

    repository = _repository(log, right.run_id)
    assert left.integration is not None
    if has_commit(repository, left.integration):
        return None
    return f"the files of run {left.run_id} are not in {repository.git_dir}, where those of run {right.run_id} are"


def _repository(log: Log, run_id: str) -> Any:
    """The repository of a run, wherever it lies now."""
    place = places_of(log)[run_id]
    assert place.repository is not None
    return open_repository(place.repository, Path(place.workdir))


def _files(log: Log, left: RunState, right: RunState) -> list[dict[str, str]]:
    if left.integration is None or right.integration is None or left.integration == right.integration:
        return []
    from parallel_agents.checkpoint.snapshot import changed_paths

    found = changed_paths(_repository(log, right.run_id), left.integration, right.integration)
    return [{"path": one.path, "change": one.status} for one in found]


def _tasks(left: RunState, right: RunState) -> Iterator[dict[str, Any]]:
    """Task by task; one that only one side has is None on the other."""
    for name, before, now in _pairs(left, right):
        changed = {
            field: {"a": getattr(before, field, None), "b": getattr(now, field, None)}
            for field in _TASK
            if before is None or now is None or getattr(before, field) != getattr(now, field)
        }
        if changed:
            yield {"task_id": name, **changed}


def _pairs(left: RunState, right: RunState) -> Iterator[tuple[str, TaskState | None, TaskState | None]]:
    """The tasks of both sides, each with the one of the same name."""
    if list(left.tasks) == list(right.tasks):  # As of one run: those of a large one pass by side by side.
        for before, now in zip(left.tasks.values(), right.tasks.values(), strict=True):
            yield now.task.task_id, before, now
        return
    for name in [*right.tasks, *(name for name in left.tasks if name not in right.tasks)]:
        yield name, left.tasks.get(name), right.tasks.get(name)


def _configuration(left: RunState, right: RunState) -> dict[str, Any]:
    before, after = _settings(left), _settings(right)
    found = {
        name: {"a": before.get(name), "b": after.get(name)}
        for name in [*after, *(name for name in before if name not in after)]
        if before.get(name) != after.get(name)
    }
    if left.plan_digest == right.plan_digest:
        return found
    olds = {task.task_id: task for task in left.plan.tasks}
    for new in right.plan.tasks:
        old = olds.get(new.task_id)
        if old is None or old == new:
            continue
        for field in type(new).model_fields:
            if getattr(old, field) != getattr(new, field):
                found[f"{new.task_id}.{field}"] = {"a": getattr(old, field), "b": getattr(new, field)}
    return found


def _settings(state: RunState) -> dict[str, Any]:
    """All that a run was told but its tasks, by name; the budgets are those that count, whoever has set them."""
    plan = state.plan.model_dump(mode="json", exclude={"tasks", "settings", "budget_usd_micros"})
    settings = _flat(state.plan.settings.model_dump(mode="json"))
    budgets = {f"{task_id}.budget_usd_micros": micros for task_id, micros in state.task_budgets.items()}
    return {**settings, **_flat(plan), "budget_usd_micros": state.budget_usd_micros, **budgets}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": one for inner, one in value.items()})
        else:
            flat[name] = value
    return flat
