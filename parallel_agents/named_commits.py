"""The commits that a run's events name as kept, and the names that refs of it may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern

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
        names: of refs that some event names.
        attempts: those that were started; refs may be called after them, too.
        branch: where the branch of the run has been, by its events.
    """

    kept: dict[str, int] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    attempts: list[str] = field(default_factory=list)
    branch: set[str] = field(default_factory=set)
    _derived: set[str] | None = None  # Names after attempts: made where one is looked for, as there may be very many.

    def accounts_for(self, ref: str, commit: str) -> bool:
        """Whether some event accounts for a ref of the run that holds a commit."""
        if commit in self.kept or commit in self.branch:
            return True
        name = ref.rpartition("/")[2]
        if name in self.names:
            return True
        if self._derived is None:
            self._derived = {derived_id(kind, one) for one in self.attempts for kind in ("before", "after")}
        return name in self._derived

    def learn(self, record: Recorded) -> None:
        """Take note of one more event."""
        commit: str | None = None
        match record.event:
            case ev.RunSubmitted(base_commit=commit) | ev.RunForked(commit=commit) | ev.RunRolledBack(commit=commit):
                self.branch.add(commit or "")
            case ev.TaskCompleted(commit=commit) | ev.CheckpointRestored(commit=commit):
                self.branch.add(commit or "")
            case ev.TaskStarted(attempt_id=attempt_id, task_id=task_id):
                self.names |= {task_id, attempt_id}
                self.attempts.append(attempt_id)
            case ev.CheckpointCreated(commit=commit, folder=""):
                self.names.add(record.event.checkpoint_id)
                if commit is not None:
                    self.checkpoints[record.event.checkpoint_id] = intern(commit)  # Many hold the same one.
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
            named.attempts += found[record.event.parent].attempts
        named.learn(record)
    found.setdefault(STORE_RUN, Named())
    return found


def _records(log: Log, upto: int | None) -> Iterator[Recorded]:
    return map(decode, log.rows(0, upto, where=_OF_COMMITS))
