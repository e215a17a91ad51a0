"""What a recorded run began with, and what other runs held and had spent: what it needs to be executed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from parallel_agents.around import before_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, load_plan
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.recording import Recording, record_run
from parallel_agents.replaying import agent_types
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.circuits import read_circuits
from parallel_agents.virtual_run import VirtualRun, without_world


def recording_of(log: Log, run_id: str, upto: int | None = None) -> Recording:
    """A run of a store, with what other runs held and spent meanwhile.

    Raises:
        UnknownRun: there is no such run.
    """
    records = log.read_run(run_id, 0, upto)
    if not records:
        raise unknown_run(log, run_id, upto)
    first, last = records[0].seq, records[-1].seq
    if last - first + 1 == len(records):
        return record_run(run_id, records)
    return record_run(run_id, (one for one in log.read(first - 1, last) if one.run_id == run_id or _counts(one)))


def _counts(record: Recorded) -> bool:
    """Whether an event of another run, or of none, makes a difference to a run."""
    return type(record.event).__name__ in _AROUND


_AROUND: Final = frozenset(
    {
        *occupancy_fold.TYPES, "CostCharged", "ProviderLimited", "ProviderFreed", "RunnerFailed", "CircuitOpened",
        "CircuitHalfOpened", "CircuitClosed", "BudgetThresholdReached", "BudgetExceeded", "BudgetChanged",
    }
)  # fmt: skip


def begin_again(world: VirtualRun, log: Log, first: Recorded, plan: Plan, budget_usd_micros: int | None) -> None:
    """Let a run begin as it began, with what there was around it, but without its files.

    Args:
        log: the store that it was recorded in.
        first: its first event.
        plan: that it is to follow now.
        budget_usd_micros: of the plan that it followed.
    """
    _surround(world, log, first, plan)
    match first.event:
        case ev.RunSubmitted() as submitted:
            changes: dict[str, Any] = {"base_commit": None, "repository": None, "environment": {}}
            world.submit(plan, submitted.model_copy(update=changes))
        case ev.RunForked() as forked:
            _fork(world, log, forked, plan)
        case _:
            raise AssertionError(f"a run begins with {type(first.event).__name__}")
    if plan.budget_usd_micros != budget_usd_micros:
        world.append([(world.run_id, ev.BudgetChanged(scope="run", budget_usd_micros=plan.budget_usd_micros))])


def _fork(world: VirtualRun, log: Log, forked: ev.RunForked, plan: Plan) -> None:
    """A run that begins with the state of another one: the same state, without files."""
    state = orjson.loads(log.blob(forked.state_digest))
    parent = without_world(load_plan(log.blob(state["plan_digest"]))).to_bytes()
    state["plan_digest"] = digest_of(parent)
    state["integration"] = state["base_commit"] = None
    snapshot, content = orjson.dumps(state), plan.to_bytes()
    event = forked.model_copy(
        update={"state_digest": digest_of(snapshot), "plan_digest": digest_of(content), "commit": None}
    )
    blobs = {digest_of(parent): parent, digest_of(snapshot): snapshot, digest_of(content): content}
    world.append([(world.run_id, event)], blobs)


def _surround(world: VirtualRun, log: Log, first: Recorded, plan: Plan) -> None:
    """What other runs held and had spent, and how providers and runners stood, before the run began."""
    if log.carried is not None:
        return _surround_carried(world, log)
    projector = Projector(log)
    occupancy = projector.occupancy(first.seq - 1)
    world.append(list(_held(occupancy)))
    world.dispatcher.breakers.circuits = read_circuits(log, first.seq - 1)
    if has_agents(plan):
        accounts = world.dispatcher.accounts
        accounts.spend, accounts.elsewhere = (
            projector.spend(first.seq - 1),
            agent_types(projector, log.last_seq(), {}),
        )
    return None


def _surround_carried(world: VirtualRun, log: Log) -> None:
    assert log.carried is not None
    before = before_of(log.carried.around)
    world.append(list(_held(before.occupancy)))
    world.dispatcher.breakers.circuits = before.circuits
    accounts = world.dispatcher.accounts
    if before.spend is not None:
        accounts.spend = before.spend
        accounts.elsewhere = lambda run_id, task_id: before.agent_types.get(run_id, {}).get(task_id, "")


def _held(occupancy: occupancy_fold.Occupancy) -> Iterator[tuple[str, Event]]:
    """Starts that hold the slots which were held."""
    for attempt_id, run_id in occupancy.slots.items():
        runner = occupancy_fold.CALLABLE if attempt_id in occupancy.calls else "shell"
        yield run_id, ev.TaskStarted(task_id="held", attempt_id=attempt_id, attempt=1, runner=runner)


def has_agents(plan: Plan) -> bool:
    """Whether anything of a plan may be done by an agent."""
    return plan.files.conflicts == "agent" or any(map(is_agent, plan.tasks))
