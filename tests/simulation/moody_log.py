"""A log that refuses, or whose user dies or is overtaken, at the moments that a story says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from processes import Killed

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Draft, Log
from parallel_agents.eventstore.record import Recorded

Mood = Literal["", "refuses", "is unsure", "dies before", "dies after", "is overtaken"]

_ENDS = ev.TaskCompleted | ev.TaskFailed | ev.TaskTimedOut | ev.AttemptLost


class MoodyLog(Log):
    """Does at the next commit of a dispatcher what its mood says, once.

    ``refuses``: nothing is committed. ``is unsure``: it is, but who asked for it is told that it was refused. ``dies
    before``, ``dies after``: that process ends there. ``is overtaken``: it sleeps after the commit while others go on.
    """

    mood: Mood = ""
    reads_left: int | None = None  # So many reads go well before one is refused.
    meanwhile: Callable[[], None] = staticmethod(lambda: None)  # What others do then.

    def transact(self, decide: Callable[[Draft], None], *, actor: str | None = None) -> list[Recorded]:
        """As a log does, or not at all. In what a dispatcher commits, ends come before starts."""
        mood: Mood = ""
        if actor is not None:
            mood, self.mood = self.mood, ""

        def then_fail(draft: Draft) -> None:
            decide(draft)
            raise StoreError("the disk is full") if mood == "refuses" else Killed

        made = super().transact(then_fail if mood in ("refuses", "dies before") else decide, actor=actor)
        _check_order(made)
        match mood:
            case "is unsure":
                self._seen_version = -1  # As after any error.
                raise StoreError("the disk failed")
            case "dies after":
                raise Killed
            case "is overtaken":
                self.meanwhile()
            case _:
                pass
        return made

    def _fetch(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        if self.reads_left is not None:
            self.reads_left -= 1
            if self.reads_left < 0:
                self.reads_left = None
                raise StoreError("the disk cannot be read")
        return super()._fetch(query, values)


def _check_order(made: list[Recorded]) -> None:
    started = False
    for record in made:
        started |= isinstance(record.event, ev.TaskStarted)
        assert not (started and isinstance(record.event, _ENDS)), "ends precede starts in a commit"


_empty: list[bytes] = []


def new_log(folder: Path, clock: Callable[[], int]) -> MoodyLog:
    """A store of its own, copied from an empty one: making tables takes longer than many a story."""
    if not _empty:
        with TemporaryDirectory() as made:
            Log(Path(made) / "events.db", environ={}).close()
            _empty.append((Path(made) / "events.db").read_bytes())
    path = folder / "events.db"
    if not path.exists():
        path.write_bytes(_empty[0])
        path.chmod(0o600)
    log = MoodyLog(path, clock=clock, environ={})
    for connection in (log._writer, log._reader):  # The last one to be closed folds the write-ahead log.
        connection.execute("PRAGMA synchronous = OFF")
    return log
