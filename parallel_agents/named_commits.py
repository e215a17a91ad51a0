"""The commits that a run's events name as kept, and the names that refs of it may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded, decode, derived_id

_OF_COMMITS = (
    "type IN ('RunSubmitted', 'RunForked', 'RunRolledBack', 'TaskStarted', 'TaskCompleted', 'TaskBlocked',"
    " 'CheckpointCreated', 'CheckpointRestored', 'CheckpointsDropped', 'ConflictResolved', 'FilesRestoring')"
)


@dataclass(slots=True)
class Named:
    """What the events of one run say of commits, undone events included.

    Attributes:
        kept: commit -> the first event that names it as kept: its refs must reach it.
        checkpoints: checkpoint -> the commit that the ref of its name holds.
        names: of refs that some event accounts for.
        branch: where the branch of the run has been, by its events.
    """

    kept: dict[str, int] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    branch: set[str] = field(default_factory=set)

    def learn(self, record: Recorded) -> None:
        """Take note of one more event."""
        commit: str | None = None
        match record.event:
            case ev.RunSubmitted(base_commit=commit) | ev.RunForked(commit=commit) | ev.RunRolledBack(commit=commit):
                self.branch.add(commit or "")
            case ev.TaskCompleted(commit=commit) | ev.CheckpointRestored(commit=commit):
                self.branch.add(commit or "")
            case ev.TaskStarted(attempt_id=attempt_id, task_id=task_id):
                self.names |= {task_id, attempt_id, *(derived_id(kind, attempt_id) for kind in ("before", "after"))}
            case ev.CheckpointCreated(commit=commit, folder=""):
                self.names.add(record.event.checkpoint_id)
                if commit is not None:
                    self.checkpoints[record.event.checkpoint_id] = commit
            case ev.TaskBlocked(commit=commit) | ev.ConflictResolved(commit=commit) | ev.FilesRestoring(commit=commit):
                pass
            case ev.CheckpointsDropped():
                self.kept.clear()
                self.checkpoints.clear()
            case _:
                return  # Such as a checkpoint of a folder elsewhere, whose repository is not ours to look into.
        if commit is not None:
            self.kept.setdefault(commit, record.seq)


def named_commits(log: Log, upto: int | None = None) -> dict[str, Named]:
    """What each run says of commits; ``store`` is of checkpoints made by hand. Runs without files name none.

    A fork may have refs of its parent's attempts, whose work waits in it.
    """
    found: dict[str, Named] = {}
    plain: set[str] = set()  # Runs that keep no files: they may have very many attempts.
    for record in _records(log, upto):
        if isinstance(record.event, ev.RunSubmitted) and record.event.base_commit is None:
            plain.add(record.run_id)
        if record.run_id in plain:
            found.setdefault(record.run_id, Named())
            continue
        named = found.setdefault(record.run_id, Named())
        if isinstance(record.event, ev.RunForked) and record.event.parent in found:
            named.names |= found[record.event.parent].names
        named.learn(record)
    found.setdefault(STORE_RUN, Named())
    return found


def _records(log: Log, upto: int | None) -> Iterator[Recorded]:
    return map(decode, log.rows(0, upto, where=_OF_COMMITS))
