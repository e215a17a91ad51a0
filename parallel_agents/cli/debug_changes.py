"""From the cursor to what other verbs do: go back, branch off, compare. What would change is shown, and confirmed, first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from parallel_agents import InvalidUsage, NotAllowed, ParallelAgentsError, differences, travel
from parallel_agents.cli.debug_dialogs import Ask, Confirm, Page, one_line_kept
from parallel_agents.cli.travelling import diff_lines, preview_lines, settings_of

if TYPE_CHECKING:
    from parallel_agents.cli.debug_app import Debugger

PATCH_LINES: Final = 3000
"""Of a patch that somebody reads on a screen."""


def roll_back(app: Debugger) -> None:
    """Take the run back to the event at the cursor, once somebody has seen what that changes and agrees."""
    session = app.session
    log, run_id = session.log, session.run_id
    if is_only_looked_at(app):
        return
    seq = session.seq

    def look() -> None:
        target = travel.target_of(log, run_id, str(seq))
        lines = preview_lines(travel.preview(log, run_id, target))
        app.call_from_thread(
            app.push_screen, Confirm(lines, "Go back?"), lambda yes: beside(app, lambda: go(target)) if yes else None
        )

    def go(target: Any) -> None:
        done = travel.rollback(log, app.project, run_id, target, "from the debugger")
        told = [
            f"run {run_id} stands where it stood at event {done['to_seq']}; `parallel-agents resume {run_id}` goes on"
        ]
        told += done["warnings"]
        told += [f"still being stopped: {', '.join(done['left'])}"] if done["left"] else []
        app.call_from_thread(app.arrived, "; ".join(told))

    beside(app, look)


def is_only_looked_at(app: Debugger) -> bool:
    """Whether nothing of the run can be changed, which is said then."""
    run_id = app.session.run_id
    if app.session.log.carried is None:
        return False
    hint = f"F, or `parallel-agents fork {run_id}`, makes a run of your own that goes on from it"
    app.complain(NotAllowed(f"run {run_id} was imported, and is only looked at", hint=hint))
    return True


def ask_fork(app: Debugger) -> None:
    """Start a new run from the cursor, once somebody has said what is to be different and agrees."""
    session = app.session
    log, run_id, seq = session.log, session.run_id, session.seq
    settings: dict[str, str] = {}
    lines: list[str] = []

    def take(text: str) -> None:
        said = settings_of(text.split())
        lines[:] = _fork_lines(travel.fork_preview(log, run_id, seq, said))
        settings.update(said)

    def confirm(taken: bool | None) -> None:
        if taken:
            app.push_screen(Confirm(lines, "Make the new run?"), lambda yes: beside(app, go) if yes else None)

    def go() -> None:
        with nullcontext(None) if app.own_log is None else app.own_log() as own:
            new = travel.fork(log, run_id, seq, settings, into=own)["run_id"]
        told = f"run {new} begins as event {seq} stood; `parallel-agents resume {new}` goes on, `debug {new}` shows it"
        app.call_from_thread(app.say, told)

    such_as = "nothing, or NAME=VALUE NAME=VALUE, such as max_parallel_agents=2 TASK.timeout_s=60"
    app.push_screen(Ask(f"Fork from event {seq}, with", such_as, take), confirm)


def _fork_lines(seen: dict[str, Any]) -> list[str]:
    lines = [f"a new run begins as run {seen['run_id']} stood at event {seen['seq']}", f"  it will be {seen['status']}"]
    lines += [f"  {count} tasks {status}" for status, count in seen["counts"].items() if status != "running"]
    if seen["again"]:
        lines.append(f"  started anew, because they ran there: {', '.join(seen['again'])}")
    lines += [f"  {name} = {value}" for name, value in seen["overrides"].items()]
    if seen["commit"]:
        lines.append(f"  its files begin as commit {seen['commit'][:10]}")
    return [*lines, f"run {seen['run_id']} stays as it is, and what it has spent stays its own"]


def ask_diff(app: Debugger) -> None:
    """Compare two marks, or a mark and the cursor."""
    marks = ", ".join(app.session.marks)
    such_as = f"two of {marks}, or one of them and . for here" if marks else "m sets a mark; . is here"
    first = f"{next(reversed(app.session.marks), '')} ."
    app.push_screen(Ask("Compare", such_as, lambda text: _compare(app, text.split()), first.strip()))


def _compare(app: Debugger, words: Sequence[str]) -> None:
    session = app.session
    if len(words) != 2:
        raise InvalidUsage(f"{len(words)} words where two marks belong", hint="such as a b, or a .")
    seqs = [session.tape.seqs[session.marked(word)] for word in words]

    def look() -> None:
        log, run_id = session.log, session.run_id
        a, b = (differences.Moment(log, travel.target_of(log, run_id, str(seq))) for seq in seqs)
        found = differences.differences(a, b)
        lines = [Text(one_line_kept(line)) for line in diff_lines(found)]
        if len(lines) == 1:
            lines.append(Text("nothing differs", style="dim"))
        if found["files_unknown"]:
            lines.append(Text(f"files: {found['files_unknown']}", style="dim"))
        if found["files"]:
            patch = differences.patch(a, b).decode("utf-8", "replace").split("\n")
            lines += [Text(), *map(patch_line, patch[:PATCH_LINES])]
        app.call_from_thread(app.push_screen, Page(lines, f"event {seqs[0]} to event {seqs[1]}"))

    beside(app, look)


def patch_line(line: str) -> Text:
    """A line of a patch, in its colour."""
    return Text(one_line_kept(line), style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))


def beside(app: Debugger, work: Callable[[], None]) -> None:
    """Do something that may take a while in a thread; an error of ours is shown."""

    def guarded() -> None:
        try:
            work()
        except ParallelAgentsError as error:
            app.call_from_thread(app.complain, error)

    app.run_worker(guarded, thread=True, group="changes")
