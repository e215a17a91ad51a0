"""What a recorded run began with, and what other runs held and had spent: what it needs to be executed again."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from parallel_agents.around import Before, before_of
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import STORE_RUN, Event
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import Recorded, decode
from parallel_agents.eventstore.submission import Plan, load_plan
from parallel_agents.otherwise.recording import Recording, record_run
from parallel_agents.otherwise.virtual_run import Place, VirtualRun, without_world
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections import occupancy as occupancy_fold
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.circuits import Circuits
from parallel_agents.projections.projector import Projector, unknown_run
from parallel_agents.projections.spend import Spend
from parallel_agents.replaying import agent_types
from parallel_agents.scheduler.agents.granting import is_agent


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


def begin_again(
    world: VirtualRun,
    log: Log,
    first: Recorded,
    plan: Plan,
    budget_usd_micros: int | None,
    around: Surroundings | None = None,
    place: Place | None = None,
) -> None:
    """Let a run begin as it began, with what there was around it.

    Args:
        log: the store that it was recorded in.
        first: its first event.
        plan: that it is to follow now.
        budget_usd_micros: of the plan that it followed.
        around: of the same store, where somebody asks for many runs.
        place: of its files; None: it has none here.
    """
    _surround(world, log, first, plan, around or Surroundings(log))
    match first.event:
        case ev.RunSubmitted() as submitted:
            changes: dict[str, Any] = {"base_commit": None, "repository": None, "environment": {}}
            if place is not None:
                changes = {"repository": place.repository, "workdir": place.workdir, "environment": {}}
            world.submit(plan, submitted.model_copy(update=changes))
        case ev.RunForked() as forked:
            _fork(world, log, forked, plan, place)
        case _:
            raise AssertionError(f"a run begins with {type(first.event).__name__}")
    if plan.budget_usd_micros != budget_usd_micros:
        world.append([(world.run_id, ev.BudgetChanged(scope="run", budget_usd_micros=plan.budget_usd_micros))])


def _fork(world: VirtualRun, log: Log, forked: ev.RunForked, plan: Plan, place: Place | None) -> None:
    """A run that begins with the state of another one: the same state, with its files in another place or without."""
    state = orjson.loads(log.blob(forked.state_digest))
    parent = without_world(load_plan(log.blob(state["plan_digest"])), files=place is not None).to_bytes()
    state["plan_digest"] = digest_of(parent)
    if place is None:
        state["integration"] = state["base_commit"] = None
    else:
        state["repository"], state["workdir"] = place.repository, place.workdir
    snapshot, content = orjson.dumps(state), plan.to_bytes()
    commit = None if place is None else forked.commit
    changes = {"state_digest": digest_of(snapshot), "plan_digest": digest_of(content), "commit": commit}
    event = forked.model_copy(update=changes)
    blobs = {digest_of(parent): parent, digest_of(snapshot): snapshot, digest_of(content): content}
    world.append([(world.run_id, event)], blobs)


def _surround(world: VirtualRun, log: Log, first: Recorded, plan: Plan, around: Surroundings) -> None:
    """What other runs held and had spent, and how providers and runners stood, before the run began."""
    if log.carried is not None:
        _surround_carried(world, log)
        return
    before = around.before(first.seq)
    world.append(list(_held(before.occupancy)))
    world.dispatcher.breakers.circuits = before.circuits
    if has_agents(plan):
        accounts = world.dispatcher.accounts
        accounts.spend = before.spend
        accounts.elsewhere = agent_types(Projector(log), log.last_seq(), {})


_TYPES: Final = (*occupancy_fold.TYPES, *circuits_fold.FOLDED, *spend_fold.OF_MONEY, "RunArchived")
_COUNTS: Final = f"type IN {tuple(dict.fromkeys(_TYPES))}"


class Surroundings:
    """What all runs of a store held and had spent before an event. Asked in the order of the log, it reads that once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begin()

    def _begin(self) -> None:
        self._seq = 0
        self._occupancy, self._circuits, self._spend = occupancy_fold.Occupancy(), Circuits(), Spend()

    def before(self, seq: int) -> Before:
        """As of the event before that one, without what single runs have cost."""
        if seq - 1 < self._seq:
            self._begin()
        for row in self._log.rows(self._seq, seq - 1, where=_COUNTS):
            if row.type in occupancy_fold.TYPES or row.type == "RunArchived":
                occupancy_fold.fold_row(self._occupancy, row)
            if row.run_id == STORE_RUN and row.type in circuits_fold.FOLDED:
                circuits_fold.fold(self._circuits, decode(row))
            if row.type in spend_fold.OF_MONEY + spend_fold.OF_SLOTS:
                spend_fold.fold_row(self._spend, row)
        self._seq = max(self._seq, seq - 1)
        occupancy, spend = occupancy_fold.Occupancy(), self._spend
        for attempt_id, run_id in self._occupancy.slots.items():
            runner = occupancy_fold.CALLABLE if attempt_id in self._occupancy.calls else "shell"
            occupancy_fold.take(occupancy, attempt_id, run_id, runner, {})
        stripped = Spend(
            by_day=Counter(spend.by_day), running=dict(spend.running), resumed={}, waits=dict(spend.waits),
            rest={name: left for name, left in spend.rest.items() if name in spend.running},
            told={key: most for key, most in spend.told.items() if not key[0]}, calls=Counter(spend.calls),
            working_s=defaultdict(float, spend.working_s), attempts=Counter(spend.attempts), at_once=dict(spend.at_once),
            recent=deque(spend.recent),
        )  # fmt: skip
        return Before(occupancy, {name: replace(one) for name, one in self._circuits.items()}, stripped, {})


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
