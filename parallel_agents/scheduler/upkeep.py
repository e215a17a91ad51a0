"""What a dispatcher does for its store between two ticks, so that the next start finds a short way and a small file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import at_hand
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.store_wide import KEEP_EVERY
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.attempts import Held

LOOK_EVERY_US = 10_000_000
"""How often the write-ahead log is looked at: where somebody reads an old moment of the store, folding it helps little."""
SNAPSHOT_EVERY = 10_000
"""Events of a run between two whole snapshots: to fold so many takes as long as to make and to load one. Large runs have none:
it takes no longer to find all of their tasks by the index."""
LIGHT_EVERY = 500
"""Events of a large run between two light snapshots. `python -m bench past` shows what other spacings would cost."""
LIGHT_EVERY_OF_SMALL = 12
"""The same of a run that is not large, whose light snapshots are a kilobyte each. `python -m bench peers` reads such."""
LIGHT_AT_ONCE = 10
"""Light snapshots of a run that is not large that are written in one commit, which costs more than to make them."""


class Upkeep:
    """Called from the dispatcher's thread, outside of any transaction."""

    def __init__(self, log: Log, projector: Projector, steady: Callable[[], int]) -> None:
        self._log = log
        self._projector = projector
        self._steady = steady
        self._kept_seq = 0  # Where snapshots of the whole store were looked at last.
        self._looked_us: int | None = None

    def after_tick(self, seq: int, *, quiet: bool) -> None:
        """Leave snapshots, fold the write-ahead log, and give a store of an older release its index.

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
                if not self._log.has_task_index:
                    self._log.make_task_index()
        except StoreError as error:  # Nothing of it is needed to go on.
            trouble.warn("the store was not tidied: {}", error)

    def keep_snapshots(self, held: Held, fresh: Sequence[Recorded]) -> None:
        """Leave snapshots of a run, where the last ones are far behind.

        Args:
            fresh: what was appended since the last call, of any runs.
        """
        state = held.state
        own = [record for record in fresh if record.run_id == state.run_id]
        try:
            for record in own:
                held.single.learn(record.event)
                held.light.learn(record.event)
            if rows := held.single.take(state):
                self._log.save_snapshots(state.run_id, rows)
            large = at_hand.is_large(state)
            held.light_seq_count += len(own)
            if _is_light_due(held, large=large):
                held.light_seq_count, held.has_light = 0, True
                held.light_made.append((state.seq, held.light.dump()))
            if held.light_made and (large or state.ended or len(held.light_made) >= LIGHT_AT_ONCE):
                made, held.light_made = held.light_made, []
                self._projector.save_light_snapshots(state.run_id, made)
            if held.snapshot_seq_count >= SNAPSHOT_EVERY and not large:
                held.snapshot_seq_count = 0
                self._projector.save_snapshot(state)
        except StoreError as error:  # A cache; and what was just decided is still to be started.
            trouble.warn("no snapshot of run {}: {}", state.run_id, error)


def _is_light_due(held: Held, *, large: bool) -> bool:
    """Of a large run the first is made at once: nothing else is there that a reader could begin with."""
    if not large:
        return held.light_seq_count >= LIGHT_EVERY_OF_SMALL
    return held.light_seq_count >= LIGHT_EVERY or not held.has_light
