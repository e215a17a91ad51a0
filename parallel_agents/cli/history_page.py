"""The history of a store as people read it: an event a line, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text

from parallel_agents.cli.drawing import SIGNS, console, local_time, one_line
from parallel_agents.cli.sentences import sentence
from parallel_agents.held_back import GOES_ON, OWN

_AFTER = {
    "TaskStarted": "running", "TaskCompleted": "completed", "TaskFailed": "failed", "TaskTimedOut": "failed",
    "AttemptLost": "failed", "TaskCancelled": "cancelled", "TaskSkipped": "skipped", "TaskQueued": "queued",
    "TaskRetryScheduled": "queued", "TaskBlocked": "blocked", "RunCompleted": "completed", "RunFailed": "failed",
    "RunCancelled": "cancelled", "RunPaused": "paused", "RunSubmitted": "submitted",
}  # fmt: skip


def style_of(type_: str) -> str:
    """The style in which an event's type is shown: that of the state after it."""
    return SIGNS[_AFTER[type_]][1] if type_ in _AFTER else ""


class HistoryPage:
    """Prints events as they come.

    Args:
        undone: whether an event, told by its run and its seq, is undone.
        with_run: say of which run each is.
    """

    def __init__(self, *, undone: Callable[[str, int], bool], with_run: bool) -> None:
        self._undone = undone
        self._with_run = with_run
        self._console = console()
        self.lines = 0
        self._failed: dict[str, dict[str, Any]] = {}  # By attempt: what was said of an agent's failure.

    def print(self, event: dict[str, Any]) -> None:
        """One line."""
        if not self.lines:
            run = f"{'RUN':<11} " if self._with_run else ""
            self._console.print(Text(f"{'SEQ':>6}  {'TIME':<12}  {run}{'EVENT':<20} {'TASK':<16} WHAT", style="bold"))
        self.lines += 1
        undone = self._undone(event["run_id"], event["seq"])
        line = Text(f"{event['seq']:>6}  {local_time(event['at'], precise=True):<12}  ")
        if self._with_run:
            line.append(f"{event['run_id']:<11} ")
        line.append(f"{event['type']:<20} ", style=style_of(event["type"]))
        line.append(f"{event['data'].get('task_id') or '':<16} ")
        line.append(one_line(sentence(event) + self._how_again(event)) + (" (undone)" if undone else ""))
        if undone:
            line.stylize("dim strike")
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _how_again(self, event: dict[str, Any]) -> str:
        """How an agent that failed is tried again: as it was, where it was, or with what went wrong in its prompt."""
        data = event["data"]
        if event["type"] in ("TaskFailed", "AttemptLost"):
            self._failed[data["attempt_id"]] = data
        failed = self._failed.get(data.get("attempt_id", "")) if event["type"] == "TaskRetryScheduled" else None
        if failed is None or not (failed.get("kind") or failed.get("resumable")):
            return ""
        kind = failed.get("kind", "infrastructure")
        if kind in OWN:
            return ", with the error in its prompt"
        return ", going on with its session" if failed.get("resumable") and kind in GOES_ON else ", unchanged"
