"""What every verb begins with: its options, the project, its store, the run and the moment that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from parallel_agents import InvalidUsage, NotAllowed, UnknownRun
from parallel_agents.cli.harmless import json_pieces
from parallel_agents.project import Project

F = TypeVar("F", bound=Callable[..., Any])
_PIECES = 200  # Of a long document, that are written at once.


def _remember_store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().obj["store"] = value


def store_option(command: F) -> F:
    """``--store`` behind the verb, for those who think of it late."""
    return click.option(
        "--store", metavar="PATH|URL", expose_value=False, callback=_remember_store, hidden=True, is_eager=True
    )(command)


def json_option(command: F) -> F:
    """``--json``: data for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def reading(command: F) -> F:
    """The options of a verb that only looks: ``--json`` and ``--at``."""
    at = click.option(
        "--at",
        metavar="MOMENT",
        help="As it was then: at an event (412), a time (local without zone, or as '2 hours ago'), or a checkpoint.",
    )
    return store_option(json_option(at(command)))


def run_argument(command: F) -> F:
    """``[RUN]``: an id, the beginning of one, ``latest``, or nothing for the latest."""
    return click.argument("run", required=False, shell_complete=complete_run)(command)


def task_arguments(command: F) -> F:
    """``[RUN] TASK``, taken apart by ``run_and_task``."""
    return click.argument("words", nargs=-1, required=True, metavar="[RUN] TASK", shell_complete=complete_task)(command)


def run_and_task(words: Sequence[str]) -> tuple[str | None, str]:
    """The run and the task that two words, or one, mean."""
    if len(words) > 2:
        raise click.UsageError(f"{len(words)} words where [RUN] TASK belongs: {' '.join(words[:5])}")
    return (None, words[0]) if len(words) == 1 else (words[0], words[1])


def project_of(ctx: click.Context) -> Project:
    """The project of the working directory, with the store that was named."""
    store = ctx.find_root().obj["store"]
    if store is not None and not store.strip():  # A variable that is not set, more likely than the project's own store.
        raise InvalidUsage("--store is empty", hint="name a file, or leave the option out")
    return Project.find(store=store)


def store_is_named(ctx: click.Context) -> bool:
    """Whether the user named a store, rather than leaving it to the project."""
    return ctx.find_root().obj["store"] is not None


@contextmanager
def opened(ctx: click.Context, *, actor: str = "cli") -> Iterator[Any]:
    """The store's log, to read runs that are there or to steer them.

    Raises:
        UnknownRun: there is no store, hence no run.
    """
    project = project_of(ctx)
    if (found := _imported(ctx, project)) is not None:
        with found as log:
            yield log
        return
    with _own(project, actor) as log:
        yield log


def _own(project: Project, actor: str) -> Any:
    """The project's own log."""
    if not project.store.exists():
        raise UnknownRun(
            f"there is no store at {project.store}, hence no run", hint="`parallel-agents run PLAN` makes one"
        )
    return project.open(actor=actor)


@contextmanager
def opened_with_imported(ctx: click.Context) -> Iterator[tuple[Any, Callable[[str], Any]]]:
    """The store's own log, and what gives the log of the imported run that a text names; None where it names none.

    Raises:
        UnknownRun: there is no store, hence no run.
    """
    project = project_of(ctx)
    logs: dict[Any, Any] = {}

    def elsewhere(named: str) -> Any:
        if not (project.store.parent / "imported").is_dir():
            return None
        from parallel_agents import imported

        store = imported.meant(project.store, named)
        if store is not None and store not in logs:
            logs[store] = log = opened_logs.enter_context(imported.open_store(store))
            assert log.carried is not None
            if not ctx.params.get("as_json"):
                click.echo(imported.in_words(log.carried), err=True)
        return logs.get(store)

    with ExitStack() as opened_logs:
        yield opened_logs.enter_context(_own(project, "cli")), elsewhere


_OF_IMPORTED = frozenset(
    {
        "status", "queue", "history", "logs", "show", "timeline", "graph", "cost", "why", "replay", "checkpoints", "conflicts",
        "files", "lineage", "fork", "verify", "export", "debug",
    }
)  # fmt: skip
"""Verbs that an imported run can be named to."""


def _imported(ctx: click.Context, project: Project) -> Any:
    """The log of the imported run that the command names; None where it names none.

    Raises:
        NotAllowed: the command is one that changes runs.
    """
    words: Sequence[str] = ctx.params.get("words") or ()
    run = ctx.params.get("run") or (words[0] if words else None)
    if not isinstance(run, str) or not (project.store.parent / "imported").is_dir():
        return None
    from parallel_agents import imported

    # Of one word among several that may as well be a task or a moment, only all of an id means a run.
    store = imported.meant(project.store, run, whole=len(words) == 1)
    if store is None:
        return None
    log = imported.open_store(store)
    assert log.carried is not None
    run_id = log.carried.run_id
    if ctx.info_name not in _OF_IMPORTED:
        log.close()
        raise NotAllowed(
            f"run {run_id} was imported, and is only looked at",
            hint=f"`parallel-agents fork {run_id}` makes a run of your own that goes on from it",
        )
    if not ctx.params.get("as_json"):
        click.echo(imported.in_words(log.carried), err=True)
    return log


def print_json(value: Any) -> None:
    """One JSON document on stdout. What can be gone through and is no list is gone through as it is printed."""
    pieces = json_pieces(value, _as_text)
    while some := list(islice(pieces, _PIECES)):
        click.echo("".join(some), nl=False)
    click.echo()


def _as_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise AssertionError(f"no JSON is known for {type(value).__name__}")


def _take_root_options(ctx: click.Context) -> None:
    """A shell that completes a word parses the options, but calls nothing that would keep them."""
    root = ctx.find_root()
    root.obj = {"store": root.params.get("store"), **(root.obj or {})}


def complete_run(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
    """Ids of runs for the shell, the latest first."""
    from click.shell_completion import CompletionItem

    from parallel_agents import look

    _take_root_options(ctx)
    try:
        with opened(ctx) as log:
            lines = look.runs(log)
    except Exception:  # Whatever is wrong, a shell that completes a word is no place to say it.
        return []
    return [
        CompletionItem(line["run_id"], help=f"{line['status']} {line['name']}")
        for line in reversed(lines)
        if line["run_id"].startswith(incomplete)
    ]


def complete_task(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Ids of runs and of the latest run's tasks, or of the tasks of the run that stands there already."""
    from click.shell_completion import CompletionItem

    from parallel_agents import look

    _take_root_options(ctx)
    words = tuple(ctx.params.get("words") or ())
    found = complete_run(ctx, parameter, incomplete) if not words else []
    try:
        with opened(ctx) as log:
            state = look.status(log, look.resolve_run(log, words[0] if words else None))
    except Exception:
        return found
    tasks = [
        CompletionItem(task["task_id"], help=task["status"])
        for task in state["tasks"]
        if task["task_id"].startswith(incomplete)
    ]
    return tasks + found


def complete_provider(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
    """The providers that let nobody work, and the runners that are left alone."""
    from click.shell_completion import CompletionItem

    from parallel_agents import held_back

    _take_root_options(ctx)
    try:
        with opened(ctx) as log:
            lines = held_back.limits(log)
    except Exception:
        return []
    names = [line["provider"] or line["runner"] for line in lines]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
