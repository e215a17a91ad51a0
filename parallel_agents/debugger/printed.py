"""What a task's attempt had printed by an event of its run, as lines for people."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, NamedTuple

from parallel_agents.activity import words_of
from parallel_agents.archived import at_hand
from parallel_agents.attempt_files import check_printed_by_then, kept_pieces
from parallel_agents.eventstore.errors import NotAllowed
from parallel_agents.eventstore.location import attempts_folder
from parallel_agents.eventstore.log import Log
from parallel_agents.projections import status as st
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.agents.clients import clients
from parallel_agents.scheduler.runners.folder import STDERR, STDOUT

LINES: Final = 5000  # The last ones; who wants all of it has `logs`.


class Printed(NamedTuple):
    """What an attempt printed.

    Attributes:
        attempt_id: None where the task has not been started.
        lines: of stdout, of an agent in words; then of stderr. Nothing in them is harmless for a terminal.
        left_out: lines before them.
        unsure: why nobody knows how much of it was printed by then; an empty text where all of it was.
    """

    attempt_id: str | None
    lines: list[str]
    left_out: int = 0
    unsure: str = ""


def printed_by(log: Log, state: RunState, task_id: str, at_us: int, *, now: bool = False) -> Printed:
    """What the last attempt of a task had printed at a moment.

    Args:
        state: of the run at that moment, which was at ``at_us`` microseconds since the epoch.
        now: whether the moment is the present.
    Raises:
        ArchiveMissing: it lies in an archive that cannot be read.
    """
    task = state.tasks[task_id]
    if task.attempt_id is None:
        return Printed(None, [])
    client = clients(state.plan.agents.clients).get(task.runner or "")
    output = None if client is None or client.output == "text" else client.output
    with at_hand(log.path, attempts_folder(log.path) / state.run_id / task_id / task.attempt_id) as folder:
        unsure = ""
        if task.status == st.RUNNING and not now:
            attempt = {"attempt_id": task.attempt_id, "ended_at": None}
            try:
                check_printed_by_then(folder, attempt, state.seq, at_us)
            except NotAllowed as error:
                unsure = error.message
        lines = [*_lines(folder / STDOUT, output), *_lines(folder / STDERR, None)]
    return Printed(task.attempt_id, lines[-LINES:], max(0, len(lines) - LINES), unsure)


def _lines(path: Path, output: str | None) -> list[str]:
    """The lines of a file; of an agent's what they say in words."""
    parts: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):
        for piece in kept_pieces(str(path), 0):
            parts.append(f"\n[... {piece.cut:,} bytes are cut here ...]\n".encode() if piece.cut else piece.data)
    raw = b"".join(parts).split(b"\n")
    if raw and not raw[-1]:
        raw.pop()
    if output is None:
        return [line.decode("utf-8", "replace") for line in raw]
    return [words for line in raw for words in words_of(line, output)]
