"""What the rest of a store was before a run's first event, as far as decisions about the run depend on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from parallel_agents.eventstore.log import Log
from parallel_agents.projections.circuits import FOLDED as OF_CIRCUITS
from parallel_agents.projections.circuits import Circuit, Circuits
from parallel_agents.projections.occupancy import TYPES as OF_SLOTS
from parallel_agents.projections.occupancy import Occupancy
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import OF_MONEY, Spend
from parallel_agents.projections.store_wide import OCCUPANCY, SPEND
from parallel_agents.scheduler.circuits import read_circuits


@dataclass(frozen=True, slots=True)
class Before:
    """One such moment.

    Attributes:
        spend: None where the run has no agents, so that nothing of it is decided by money.
        agent_types: by run and task, of the agents of other runs that work meanwhile.
    """

    occupancy: Occupancy
    circuits: Circuits
    spend: Spend | None
    agent_types: dict[str, dict[str, str]]


def types_around(*, agents: bool) -> frozenset[str]:
    """The types of events of other runs, and of none, that decisions about a run depend on."""
    return frozenset((*OF_SLOTS, *OF_CIRCUITS, *(OF_MONEY if agents else ())))


def dumped(log: Log, seq: int, *, agents: bool, working: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """What there was at an event, as JSON holds it: without any words, and without what other runs have cost each.

    Args:
        working: the tasks of other runs whose agent types are wanted, by run.
    """
    projector = Projector(log)
    circuits = {runner: asdict(replace(one, reason="")) for runner, one in read_circuits(log, seq).items()}
    spend = orjson.loads(SPEND.dump(_without_others(projector.spend(seq)))) if agents else None
    return {
        "occupancy": orjson.loads(OCCUPANCY.dump(projector.occupancy(seq))),
        "circuits": circuits,
        "spend": spend,
        "agent_types": _agent_types(projector, working) if agents else {},
    }


def _without_others(spend: Spend) -> Spend:
    """Before its first event a run has spent nothing: what is left counts for all runs together."""
    for of in (spend.by_task, spend.by_run, spend.assumed_by_run, spend.unknown_by_run):
        of.clear()
    spend.rest = {name: left for name, left in spend.rest.items() if name in spend.running}
    spend.told = {key: most for key, most in spend.told.items() if not key[0]}
    spend.waits = {provider: replace(wait, reason="") for provider, wait in spend.waits.items()}
    return spend


def _agent_types(projector: Projector, working: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
    found = {}
    for run_id, names in working.items():
        tasks = projector.state(run_id).tasks
        found[run_id] = {name: tasks[name].task.agent_type for name in names if name in tasks}
    return found


def before_of(told: Mapping[str, Any]) -> Before:
    """Read what ``dumped`` gave."""
    spend = told["spend"]
    return Before(
        occupancy=OCCUPANCY.load(orjson.dumps(told["occupancy"])),
        circuits={runner: Circuit(**values) for runner, values in told["circuits"].items()},
        spend=None if spend is None else SPEND.load(orjson.dumps(spend)),
        agent_types={run_id: dict(of) for run_id, of in told["agent_types"].items()},
    )
