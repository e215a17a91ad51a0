"""A conflict settled from the debugger: a side is asked for, what it changes is shown, and it is merged once somebody agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from parallel_agents import InvalidUsage, NotAllowed, ParallelAgentsError, daemons, settling, settling_preview
from parallel_agents.cli.debug_changes import PATCH_LINES, beside, is_only_looked_at, patch_line
from parallel_agents.cli.debug_dialogs import Ask, Confirm
from parallel_agents.cli.drawing import one_line
from parallel_agents.cli.settling import after_words

if TYPE_CHECKING:
    from parallel_agents.cli.debug_app import Debugger

_WORDS = {"ours": "as it was merged before", "theirs": "as the task left it", "both": "the lines of both"}
_NO_GATES = "no-gates"


def settle(app: Debugger) -> None:
    """Settle the conflict of the chosen task, or the only one that waits, as the run is now."""
    session = app.session
    if is_only_looked_at(app):
        return
    try:
        _check_is_now(app)
        state = session.frame.state
        task_id = settling_preview.to_settle(state, app.task_id)
    except ParallelAgentsError as error:
        app.complain(error)
        return
    there = settling_preview.sides(state, task_id)
    log, run_id = session.log, session.run_id
    said: list[str] = []

    def take(text: str) -> None:
        said[:] = words_of(text, there)

    def look() -> None:
        made = settling.resolution(log, run_id, task_id, said[0], gates=_NO_GATES not in said)
        lines = preview_lines(settling_preview.preview(log, made))
        app.call_from_thread(
            app.push_screen, Confirm(lines, "Settle it?"), lambda yes: beside(app, lambda: go(made)) if yes else None
        )

    def go(made: settling.Resolution) -> None:
        done = settling.carry_out(log, made, lambda text: app.call_from_thread(app.say, text))
        told = [f"the conflict of task {task_id} is resolved by {done['how']}"]
        told += [done["warning"]] if done["warning"] else []
        daemon = app.project is not None and daemons.is_there(app.project.store)
        app.call_from_thread(app.arrived, "; ".join([*told, *after_words(done, daemon=daemon)]))

    meaning = "; ".join(f"{side}: {_WORDS[side]}" for side in there)
    by_hand = f"parallel-agents resolve {run_id} {task_id} --edit"
    such_as = f"{meaning}. {_NO_GATES} behind it: whether or not it passes them. By hand: {by_hand}"
    title = one_line(f"Settle task {task_id}, {state.tasks[task_id].reason}, by taking")
    app.push_screen(Ask(title, such_as, take), lambda taken: beside(app, look) if taken else None)


def _check_is_now(app: Debugger) -> None:
    """Refuse where the cursor stands in the past: what is settled is what waits now. One that is at the end goes along with it.

    Raises:
        NotAllowed: it does.
    """
    session = app.session
    was_last = session.position == session.last
    if session.catch_up() and was_last:
        session.move_to(session.last)
        app.show_all()
    if not was_last:
        raise NotAllowed(
            f"event {session.seq} is not the last one, and what is settled is what waits now",
            hint="End goes to the last event, f goes along with it; R takes the run back to this one",
        )


def words_of(text: str, there: list[str]) -> list[str]:
    """The side that a text takes, and ``no-gates`` where it says so.

    Args:
        there: the sides that can be taken.
    Raises:
        InvalidUsage: it takes none of them.
    """
    words = text.split()
    if not words or words[0] not in there or words[1:] not in ([], [_NO_GATES]):
        raise InvalidUsage(
            f"{one_line(text)!r} takes no side" if words else "which side?",
            hint=f"{', '.join(there)}; {_NO_GATES} may stand behind it",
        )
    return words


def preview_lines(seen: dict[str, Any]) -> list[str | Text]:
    """What a person has to know before they agree.

    Args:
        seen: as ``settling_preview.preview`` gives it.
    """
    task_id, status, files = seen["task_id"], seen["run_status"], seen["files"]
    lines: list[str | Text] = [f"task {task_id}: blocked -> completed, by {seen['how']} of {', '.join(seen['paths'])}"]
    lines.append(
        f"run {seen['run_id']}: {status['now']}" + (f" -> {status['then']}" if status["then"] != status["now"] else "")
    )
    lines += [f"  task {name} may start then" for name in seen["may_start"]]
    lines += [f"  first this has to pass: {command}" for command in seen["gates"]]
    lines.append(
        "of the run's files change:" if files else "no file of the run changes: the work of the task is left out"
    )
    lines += [f"  {one['change']} {one['path']}" for one in files]
    if seen["patch"]:
        patch = seen["patch"].decode("utf-8", "replace").split("\n")
        lines += ["", *map(patch_line, patch[:PATCH_LINES])]
        lines += [f"… {len(patch) - PATCH_LINES:,} more lines"] if len(patch) > PATCH_LINES else []
    return lines
