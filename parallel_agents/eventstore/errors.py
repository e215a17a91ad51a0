"""Errors that are the caller's, each with what is wrong and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ParallelAgentsError(Exception):
    """Something the caller can mend. The message says what and where, the hint says what next.

    Attributes:
        code: a stable name for scripts, such as ``unknown_task``.
        exit_code: what the command line exits with (the table is in the README).
    """

    code = "error"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest right spelling, or all of them where none is near."""
    names = sorted(set(known))
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"there are: {shown}" if names else ""


class InvalidPlan(ParallelAgentsError):
    """A plan that cannot be run as it stands; nothing was appended."""

    code = "invalid_plan"


class InvalidConfiguration(ParallelAgentsError):
    """A configuration with an unknown key or a value that cannot be."""

    code = "invalid_configuration"


class InvalidUsage(ParallelAgentsError):
    """A call whose arguments do not fit together."""

    code = "invalid_usage"


class NotAllowed(ParallelAgentsError):
    """A command that the present state refuses, such as pausing a run that has ended."""

    code = "not_allowed"


class UnknownRun(ParallelAgentsError):
    """The store holds no such run."""

    code = "unknown_run"
    exit_code = 3


class UnknownTask(ParallelAgentsError):
    """The run holds no task of that name."""

    code = "unknown_task"
    exit_code = 3


class UnknownEvent(ParallelAgentsError):
    """No event has that number, or none stands at or before that time."""

    code = "unknown_event"
    exit_code = 3


class UnknownCheckpoint(ParallelAgentsError):
    """No checkpoint is called that, or none fits the words."""

    code = "unknown_checkpoint"
    exit_code = 3


class Ambiguous(ParallelAgentsError):
    """Words that fit several checkpoints equally well; the message names them all."""

    code = "ambiguous"


class StaleRun(ParallelAgentsError):
    """Another process appended to the run first; reload it and decide again."""

    code = "stale_run"
    exit_code = 1


class StoreError(ParallelAgentsError):
    """The store cannot be read or written: full disk, read-only, corrupt, or not ours."""

    code = "store"


class EventTooLarge(ParallelAgentsError):
    """An event says more than the log takes; nothing was appended."""

    code = "event_too_large"


class ArchiveMissing(StoreError):
    """What is asked for was moved to an archive that is gone, or cannot be read."""

    code = "archive_missing"


class UnknownEventType(StoreError):
    """The log holds an event that this release cannot read; it is never skipped."""

    code = "unknown_event_type"


class ChainBroken(ParallelAgentsError):
    """The log is not what was written: an event's bytes and its hash do not match."""

    code = "chain_broken"
    exit_code = 8


class ReplayDiffers(ParallelAgentsError):
    """A past run is not what its record says, or would be decided otherwise now."""

    code = "replay_differs"
    exit_code = 8


class LeaseHeld(ParallelAgentsError):
    """A living process dispatches this run, or this store, already."""

    code = "lease_held"
