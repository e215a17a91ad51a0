"""Folds over a whole store, each from its newest snapshot and the events since: what a start costs must not grow with the log.

A snapshot holds what a fold makes of all events of all runs, whatever has ended since, so that fold(all) is
fold(snapshot + tail). Only the newest one of a fold is kept: whoever asks for an older moment folds from the start.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import orjson

from parallel_agents.eventstore.events import STORE_RUN, RunArchived
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Row, decode
from parallel_agents.eventstore.run_level import RUN_LEVEL
from parallel_agents.eventstore.submission import uncollected
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import runs as runs_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.runs import RunSummary, Standing
from parallel_agents.projections.spend import Held, Spend, Wait

State = TypeVar("State")
KEEP_EVERY: Final = 25_000
"""Events between two snapshots: to fold so many takes a tenth of a second, and so does the snapshot of a million events."""


@dataclass(frozen=True)
class StoreWide(Generic[State]):
    """One such fold.

    Attributes:
        version: of what ``dump`` gives and of what the fold makes of it; another one makes old snapshots void.
        where: the rows that it folds, as a condition on a row.
    """

    name: str
    version: int
    where: str
    initial: Callable[[], State]
    fold_row: Callable[[State, Row], State]
    dump: Callable[[State], bytes]
    load: Callable[[bytes], State]

    def newest(self, log: Log, upto: int) -> tuple[int, State] | None:
        """The newest snapshot at or before a seq, with its seq; None where there is none."""
        found = log.load_snapshot(STORE_RUN, self.name, self.version, upto)
        if found is None:
            return None
        with uncollected():
            return found[0], self.load(found[1])

    def newest_seq(self, log: Log) -> int:
        """The seq of the newest snapshot; 0 where there is none."""
        return log.snapshot_seq(STORE_RUN, self.name, self.version)

    def state(self, log: Log, upto: int, base: tuple[int, State] | None = None) -> State:
        """What the events up to a seq make, unfiltered. Consumes the base that it is given."""
        seq, state = base or (0, self.initial())
        for row in log.rows(seq, upto, where=self.where, stored=True):  # No archive is needed to start.
            state = self.fold_row(state, row)
        return state

    def is_whole(self, log: Log) -> bool:
        """Whether the newest snapshot, if there is one, is what a fold from the first event gives."""
        found = self.newest(log, log.last_seq())
        return found is None or found[1] == self.state(log, found[0])

    def keep(self, log: Log, seq: int, state: State) -> None:
        """Make a state the snapshot of its fold, unless somebody else writes just then: the next reader will do it."""
        log.keep_snapshot(self.name, self.version, seq, self.dump(state))


def _fold_run(runs: dict[str, RunSummary], row: Row) -> dict[str, RunSummary]:
    return runs_fold.fold(runs, decode(row))


def _dump_runs(runs: dict[str, RunSummary]) -> bytes:
    """Values in the order of the fields; the history, which is the last of them, as lists."""
    plain = _RUN_FIELDS[:-1]
    return orjson.dumps(
        [[*(getattr(run, name) for name in plain), list(map(list, run.history))] for run in runs.values()]
    )


def _load_runs(stored: bytes) -> dict[str, RunSummary]:
    runs = {}
    for values in orjson.loads(stored):
        run = RunSummary(*values)
        run.history = list(map(Standing._make, run.history))
        runs[run.run_id] = run
    return runs


_RUN_FIELDS: Final = tuple(RunSummary.__dataclass_fields__)


def _dump_occupancy(state: Occupancy) -> bytes:
    return orjson.dumps({"slots": state.slots, "calls": sorted(state.calls), "memory": state.memory})


def _load_occupancy(stored: bytes) -> Occupancy:
    raw = orjson.loads(stored)
    state = Occupancy(raw["slots"], calls=set(raw["calls"]), memory=raw["memory"])
    for attempt_id, run_id in state.slots.items():
        state.by_run.setdefault(run_id, set()).add(attempt_id)
    return state


_PLAIN_COUNTERS: Final = ("by_run", "assumed_by_run", "unknown_by_run", "calls", "attempts")
_PLAIN_DICTS: Final = ("rest", "resumed", "working_s", "at_once")


def _dump_spend(state: Spend) -> bytes:
    by_task: dict[str, dict[str, int]] = defaultdict(dict)
    for (run_id, task_id), micros in state.by_task.items():
        by_task[run_id][task_id] = micros
    waits = {
        provider: [[getattr(wait, name) for name in _WAIT_FIELDS], list(wait.refused)]
        for provider, wait in state.waits.items()
    }
    return orjson.dumps(
        {
            **{name: getattr(state, name) for name in _PLAIN_COUNTERS + _PLAIN_DICTS},
            "by_task": by_task,
            "by_day": list(state.by_day.items()),
            "running": {
                attempt_id: [held.run_id, held.task_id, held.reserved_usd_micros, held.agent]
                for attempt_id, held in state.running.items()
            },
            "told": [[*key, micros] for key, micros in state.told.items()],
            "waits": waits,
            "recent": list(state.recent),
        }
    )


def _load_spend(stored: bytes) -> Spend:
    raw = orjson.loads(stored)
    state = Spend(
        by_task=Counter(
            {(run_id, name): micros for run_id, of in raw["by_task"].items() for name, micros in of.items()}
        ),
        by_day=Counter(dict(raw["by_day"])),
        running={attempt_id: Held(*held) for attempt_id, held in raw["running"].items()},
        told={(owner, scope, share): micros for owner, scope, share, micros in raw["told"]},
        recent=deque((at_us, calls) for at_us, calls in raw["recent"]),
    )
    for name in _PLAIN_COUNTERS:
        setattr(state, name, Counter(raw[name]))
    state.rest, state.resumed, state.at_once = raw["rest"], raw["resumed"], raw["at_once"]
    state.working_s.update(raw["working_s"])
    for provider, (values, refused) in raw["waits"].items():
        wait = Wait(**dict(zip(_WAIT_FIELDS, values, strict=True)), refused=frozenset(refused))
        state.waits[provider] = wait
    return state


_WAIT_FIELDS: Final = tuple(name for name in Wait.__dataclass_fields__ if name != "refused")

_ARCHIVED: Final = RunArchived.__name__

RUNS: Final = StoreWide("runs", 1, RUN_LEVEL, lambda: dict[str, RunSummary](), _fold_run, _dump_runs, _load_runs)
OCCUPANCY: Final = StoreWide(
    "occupancy", 1, f"type IN {(*occupancy_fold.TYPES, _ARCHIVED)}", Occupancy, occupancy_fold.fold_row, _dump_occupancy,
    _load_occupancy,
)  # fmt: skip
SPEND: Final = StoreWide(
    "spend", 1, f"type IN {(*spend_fold.OF_MONEY, *spend_fold.OF_SLOTS, _ARCHIVED)}", Spend, spend_fold.fold_row, _dump_spend,
    _load_spend,
)  # fmt: skip
