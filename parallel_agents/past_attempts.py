"""What attempts of the past took and cost, read from the newest runs of a store, quickly however much it holds."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from parallel_agents.eventstore.errors import ArchiveMissing
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.run_level import RUN_LEVEL

RUNS = 10
"""Newest runs of the same plan that are read, and as many newest ones of any plan."""
EVENTS = 4000
"""Events about attempts that are read of one run: some 1300 attempts. An older part of a store is not looked at for more."""
SEQS_LOOKED_BACK = 1_000_000  # In which no run of that plan may be.
_WINDOW = 50_000  # Seqs whose submissions are looked at in one go; an index holds only the events about runs.
_TYPES = "type IN ('TaskStarted','TaskCompleted','TaskFailed','TaskTimedOut','CostCharged')"
_BY_THE_AGENT = frozenset({"", "agent", "no_change"})
"""Kinds of failure that say what such an attempt takes; the others say how long a provider was away."""


@dataclass(slots=True)
class Sample:
    """One attempt that ended by itself."""

    task_id: str
    attempt_id: str = ""
    agent_type: str = ""  # Empty for a command's, which costs nothing.
    model: str | None = None  # The alias.
    runner: str = ""
    seconds: float | None = None
    usd: float | None = None  # None where nobody knows, or it is known in part.
    own_task: bool = True  # False where another agent type acted, such as one that resolves a conflict.
    failed: bool = False
    around_s: float | None = None  # For how long its slot was held beside that: its files made ready, kept and merged.


@dataclass(slots=True)
class Past:
    """Attempts of runs of the same plan by task, and of all runs by agent type."""

    by_task: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    by_type: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    runs: int = 0  # That were read.


NOTHING = Past()


def read_past(log: Log, plan_name: str, *, runs: int = RUNS, events: int = EVENTS) -> Past:
    """The attempts of the newest runs of a plan, and of the newest runs of any.

    What was undone by a rollback counts: it took its time and its money all the same.
    """
    same, others = _newest(log, plan_name, runs)
    past = Past(runs=len({*same, *others}))
    for run_id in dict.fromkeys([*same, *others]):
        samples: list[Sample] = []
        with contextlib.suppress(ArchiveMissing):  # It tells nothing then; nobody has to put it back for a guess.
            samples += _attempts(log, run_id, events)
        for sample in samples:
            if run_id in same and sample.own_task:
                past.by_task[sample.task_id].append(sample)
            if sample.agent_type:
                past.by_type[sample.agent_type].append(sample)
    return past


def _newest(log: Log, plan_name: str, count: int) -> tuple[list[str], list[str]]:
    """The newest runs of the plan, and of any, newest first."""
    same: list[str] = []
    every: list[str] = []
    last = log.last_seq()
    where = f"{RUN_LEVEL} AND type IN ('RunSubmitted','RunForked')"
    for end in range(last, max(0, last - SEQS_LOOKED_BACK), -_WINDOW):
        for row in reversed(list(log.rows(max(0, end - _WINDOW), end, where=where))):
            if len(every) < count:
                every.append(row.run_id)
            if len(same) < count and orjson.loads(row.body).get("name") == plan_name:
                same.append(row.run_id)
        if len(same) >= count and len(every) >= count:
            break
    return same, every


def _attempts(log: Log, run_id: str, events: int) -> Iterator[Sample]:
    """The attempts of a run that ended by themselves, as far as the first of its events tell."""
    open_: dict[str, Sample] = {}
    began_us: dict[str, int] = {}
    ended: list[Sample] = []
    dollars: dict[str, float | None] = defaultdict(float)
    for _, _, type_, at_us, body in islice(log.briefs(run_id, where=_TYPES), events):
        event: dict[str, Any] = orjson.loads(body)
        attempt_id = event["attempt_id"]
        if type_ == "TaskStarted":
            began_us[attempt_id] = at_us
            open_[attempt_id] = Sample(
                event["task_id"], attempt_id, model=event.get("model"), runner=event.get("runner", ""),
                own_task=not event.get("role"),
            )  # fmt: skip
            continue
        sample = open_.get(attempt_id)
        if sample is None:
            continue
        if type_ == "CostCharged":
            sample.agent_type = event.get("agent_type", "")
            known, before = event.get("usd_micros"), dollars[attempt_id]
            if known is None or before is None or event.get("partial"):
                dollars[attempt_id] = None
            else:
                dollars[attempt_id] = before + known / 1e6
        elif type_ != "TaskFailed" or event.get("kind", "") in _BY_THE_AGENT:
            sample.seconds, sample.failed = event["duration_s"], type_ != "TaskCompleted"
            sample.around_s = max(0.0, (at_us - began_us[attempt_id]) / 1e6 - event["duration_s"])
            ended.append(sample)
    for sample in ended:
        sample.usd = dollars.get(sample.attempt_id)
        yield sample
