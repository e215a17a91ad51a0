"""What follows from each pass of the sampler: limits are enforced, and what was used is kept as a series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from parallel_agents.eventstore import usage_samples
from parallel_agents.eventstore.errors import StoreError
from parallel_agents.eventstore.usage_samples import Point
from parallel_agents.scheduler.enforcing import Ender, Enforcer
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.runners.control_groups import control_group_home, sweep
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.trees import Row
from parallel_agents.scheduler.usage_series import SeriesKeeper


class Watch:
    """Called from the sampler's thread.

    Args:
        launches: of the attempts that live, by id.
        check: raises where the store's files were removed or replaced. A connection that is opened then would make a new
            write-ahead log, and the log's own be lost.
    """

    def __init__(
        self, store: Path, launches: Callable[[], Mapping[str, Launch]], end: Ender, check: Callable[[], None]
    ) -> None:
        self._store = store
        self._check = check
        self._launches: Mapping[str, Launch] = {}
        self._ask = launches
        self._enforcer = Enforcer(lambda: {name: one.limits for name, one in self._launches.items() if one.limits}, end)
        self._keeper = SeriesKeeper(
            self._write,
            lambda: {name: one.run_id for name, one in self._launches.items()},
        )
        if (home := control_group_home().path) is not None:
            sweep(home)  # Of attempts whose supervisor was killed.

    def _write(self, points: Sequence[tuple[str, str, Point]]) -> None:
        self._check()
        usage_samples.write(self._store, points)

    def look(self, attempts: Mapping[str, Usage], members: Mapping[str, list[Row]]) -> None:
        """Limits come first: what uses too much may be using more."""
        self._launches = self._ask()
        self._enforcer.look(attempts, members)
        self._keeper.look(attempts)

    def earlier(self, attempt_id: str) -> Usage | None:
        """The peaks of an adopted attempt, as its last dispatcher has kept them."""
        launch = self._ask().get(attempt_id)
        try:
            found = None if launch is None else usage_samples.peaks(self._store, launch.run_id, attempt_id)
        except StoreError:
            return None
        if found is None:
            return None
        return Usage(
            peak_cpu_percent=found.cpu_percent,
            peak_memory_bytes=found.memory_bytes,
            peak_open_files=found.open_files,
            disk_written_bytes=found.disk_written_bytes,
        )

    def close(self) -> None:
        """Keep what has not been written yet. The sampler has ended."""
        self._keeper.close()
