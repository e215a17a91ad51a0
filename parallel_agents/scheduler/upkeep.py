"""What a dispatcher does for its store between two ticks, so that the next start finds a short way and a small file."""

from __future__ import annotations

from collections.abc import Callable

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.store_wide import KEEP_EVERY
from parallel_agents.scheduler import trouble

LOOK_EVERY_US = 10_000_000
"""How often the write-ahead log is looked at: where somebody reads an old moment of the store, folding it helps little."""


class Upkeep:
    """Called from the dispatcher's thread, outside of any transaction."""

    def __init__(self, log: Log, projector: Projector, steady: Callable[[], int]) -> None:
        self._log = log
        self._projector = projector
        self._steady = steady
        self._kept_seq = 0  # Where snapshots of the whole store were looked at last.
        self._looked_us: int | None = None

    def after_tick(self, seq: int, *, quiet: bool) -> None:
        """Leave snapshots, and fold the write-ahead log.

        Args:
            seq: the last event that the dispatcher has folded.
            quiet: whether nothing was appended in that tick.
        """
        try:
            if seq - self._kept_seq >= KEEP_EVERY:
                self._kept_seq = seq
                self._projector.keep_up()
            now_us = self._steady()
            if quiet and (self._looked_us is None or now_us - self._looked_us >= LOOK_EVERY_US):
                self._looked_us = now_us
                self._log.fold_write_ahead_log()
        except StoreError as error:  # Nothing of it is needed to go on.
            trouble.warn("the store was not tidied: {}", error)
