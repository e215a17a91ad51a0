"""A plan that never ran, played many times by the real scheduler: with times, costs and failures drawn from what is expected.

Every play is a run on a clock of its own (see ``virtual_run``), so retries, limits, budgets, stages and declared files count as
they would. Large plans are played three times instead, with every level low, middling and high: what is each attempt's own
evens out over so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import fmean, median
from typing import Any, Final

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan, Task
from parallel_agents.expectations import SHARE, Expected, TaskExpectation, Z, expect_plan
from parallel_agents.forecast import DRAWN_TASKS, at_level, at_random
from parallel_agents.foreseen import expecting
from parallel_agents.otherwise.in_slices import in_slices
from parallel_agents.otherwise.otherwise_settings import differently
from parallel_agents.otherwise.run_figures import figures_of
from parallel_agents.otherwise.virtual_run import VirtualRun, runners_of, without_world
from parallel_agents.past_attempts import NOTHING, Past, Sample
from parallel_agents.projections import status as st
from parallel_agents.scheduler.plan import EXPECTED_S
from parallel_agents.scheduler.runners.protocol import Charge, Ended, Launch
from parallel_agents.scheduler.runners.recorded import Part
from parallel_agents.scheduler.strategies import StrategyOptions

MOST_DRAWS: Final = 200
LEAST_DRAWS: Final = 20
TASKS_DRAWN: Final = 4000
"""So many tasks are played in all, within these bounds: a play costs half a millisecond for each of its tasks."""
BEGIN_US: Final = (
    1_767_225_600_000_000  # Of every play: the first of January 2026, so that the same plan gives the same.
)
RUN: Final = "simulated"
MIDDLE: Final = -1
CRITICAL_SHOWN: Final = 20
_SUBMITTED: Final = ev.RunSubmitted(
    name="", plan_digest="", task_count=0, strategy="concurrent", workspace="none", workdir="/"
)


def draws_of(tasks: int) -> int:
    """How often a plan of so many tasks is played."""
    return 3 if tasks > DRAWN_TASKS else max(LEAST_DRAWS, min(MOST_DRAWS, TASKS_DRAWN // max(1, tasks)))


def simulate(
    plan: Plan, past: Past = NOTHING, told: Callable[[int, int], None] = lambda done, total: None, *,
    processes: int | None = None, draws: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Play a plan many times. The same for the same plan and the same past.

    Args:
        past: attempts that expectations, failures and what is done around attempts are taken from.
        told: told of progress: plays that are over, and how many there are.
        processes: at most so many.
        draws: how often it is played; left out: as often as its size allows.
    Returns:
        ``{"name", "tasks", "slots", "draws", "share", "makespan_s": {"value", "low", "high"}, "cost_usd": the same | None,
        "utilisation": the same, "completes", "retries", "critical": [{"task_id", "share"}], "unknown_tasks", "basis":
        {basis: tasks}, "around_s", "failing": {task: share}, "at_middle_s"}``. ``at_middle_s`` is the makespan where every
        attempt succeeds and takes the middle of what is expected of it; chance makes the end wait for whatever is late, so
        the middle of the plays is mostly more. ``utilisation`` is the share of the slots that is at work;
        ``completes`` the share of the plays in which every task does; ``critical`` in which share of them a task lay on the
        chain of attempts that the end waited for.
    Source of the last: the criticality index of Van Slyke, Monte Carlo methods and the PERT problem, 1963.
    """
    plan, playable = _ready(plan, past)
    expectations = expect_plan(plan, past)
    chances = {task.task_id: failure_share(task, past) for task in plan.tasks}
    around_s = _around_s(past)
    count = draws or draws_of(len(plan.tasks))

    def work() -> Callable[[int], dict[str, Any]]:
        return lambda number: _play(playable, expectations, chances, around_s, number, count)

    plays: dict[int, dict[str, Any]] = {}
    for number, play in in_slices(range(count), work, processes=processes):
        plays[number] = play
        told(len(plays), count)
    found = _told(plan, expectations, chances, around_s, [plays[number] for number in range(count)])
    return {**found, "at_middle_s": at_middle_s(plan, past)}


def at_middle_s(plan: Plan, past: Past = NOTHING) -> float:
    """The makespan of a plan where every attempt succeeds and takes the middle of what is expected of it, in seconds."""
    plan, playable = _ready(plan, past)
    return float(_play(playable, expect_plan(plan, past), {}, _around_s(past), MIDDLE, 1)["makespan_s"])


def _ready(plan: Plan, past: Past) -> tuple[Plan, Plan]:
    """A plan with what its agents are expected to cost, and the same as it can be played, without world and people."""
    plan = plan.model_copy(update={"tasks": expecting(plan, past)})
    playable = without_world(plan)
    return plan, playable.model_copy(update={"tasks": tuple(map(_unasked, playable.tasks))})


def simulate_differently(
    plan: Plan, settings: Mapping[str, str], options: StrategyOptions | None = None
) -> tuple[Plan, dict[str, Any]]:
    """A plan with some of it said differently, and the values as they were understood.

    Raises:
        InvalidUsage: see ``otherwise_settings.differently``.
    """
    content = {"digest": plan.to_bytes()}
    first = Recorded(1, RUN, 1, BEGIN_US, "", _SUBMITTED.model_copy(update={"plan_digest": "digest"}))
    state = st.fold(st.initial(RUN), first, content.__getitem__)
    return differently(state, settings, options or StrategyOptions())


def failure_share(task: Task, past: Past) -> float:
    """How often an attempt of a task failed by itself: of its own attempts, else of those of its agent type; else never."""
    for samples in (past.by_task.get(task.task_id, []), past.by_type.get(task.agent_type, [])):
        known = [one for one in samples if one.seconds is not None]
        if known:
            return sum(one.failed for one in known) / len(known)
    return 0.0


def _around_s(past: Past) -> float:
    """For how long a slot is held beside what its attempt takes: the middle of what was seen of this plan, else of any."""
    samples: list[Sample] = [one for of in past.by_task.values() for one in of]
    samples = samples or [one for of in past.by_type.values() for one in of]
    seen = [one.around_s for one in samples if one.around_s is not None]
    return median(seen) if seen else 0.0


def _unasked(task: Task) -> Task:
    """Nobody is waited for: how long people take is not known."""
    return task if task.approval is None else task.model_copy(update={"approval": None})


def _play(
    plan: Plan, expectations: Mapping[str, TaskExpectation], chances: Mapping[str, float], around_s: float, number: int,
    count: int,
) -> dict[str, Any]:  # fmt: skip
    """One play.

    Args:
        number: of the play, from 0, and ``count`` of all of them; or ``MIDDLE``.
    """
    levels = count == 3 or number == MIDDLE
    draw = (
        _at_middle if number == MIDDLE else at_level((-Z, 0.0, Z)[number]) if levels else at_random(Random(f"{number}"))
    )
    takes = {name: draw(one.seconds, EXPECTED_S) for name, one in expectations.items()}
    costs = {name: draw(one.usd, 0.0) for name, one in expectations.items() if one.usd is not None}
    tried: Counter[str] = Counter()
    timeouts = {task.task_id: task.timeout_s for task in plan.tasks}

    def part_of(launch: Launch) -> Part:
        name = launch.task_id
        tried[name] += 1
        chance = Random(f"{number} {name} {tried[name]}")
        again = draw(expectations[name].seconds, EXPECTED_S) if tried[name] > 1 and not levels else takes[name]
        late = again > timeouts[name]
        fails = chance.random() < chances.get(name, 0.0)
        charges = (Charge(None, round(costs[name] * 1e6), "estimated"),) if name in costs else ()
        ended = Ended(
            launch.attempt_id, "timed_out" if late else "exited", exit_code=int(fails), charges=charges,
            error="its time would be up" if late else "it would fail" if fails else None,
        )  # fmt: skip
        return Part(round((min(again, timeouts[name]) + around_s) * 1e6), ended)

    world = VirtualRun(RUN, part_of, BEGIN_US, runners_of(plan))
    try:
        submitted = _SUBMITTED.model_copy(
            update={"name": plan.name, "strategy": plan.strategy, "budget_usd_micros": plan.budget_usd_micros}
        )
        world.submit(plan, submitted)
        world.look()
        world.go_on()
        figures = figures_of(world.records, RUN)
        return {
            "makespan_s": figures.makespan_s, "cost_usd": figures.usd_micros / 1e6, "busy_s": figures.busy_us / 1e6,
            "retries": figures.retries, "completes": figures.status == st.COMPLETED, "critical": chain(world.records),
        }  # fmt: skip
    finally:
        world.close()


def _at_middle(expected: Expected, otherwise: float) -> float:
    return otherwise if expected.value is None else expected.value


def chain(records: Sequence[Recorded]) -> list[str]:
    """The tasks that the end of a run waited for: from the last attempt that ended back to the first, each of them begun at the
    moment at which the one before it ended.

    The one before is an attempt of the task itself or of one that it needs, if such a one ended then; else it is one that gave
    its slot away.
    """
    spans: dict[str, tuple[int, int, str]] = {}
    began: dict[str, tuple[int, str]] = {}
    ends: dict[int, list[str]] = {}
    rests: dict[str, tuple[int, str]] = {}  # By task, when a retry of it was due, and the attempt before it.
    for record in records:
        event = record.event
        attempt_id = getattr(event, "attempt_id", None)
        if isinstance(event, ev.TaskStarted):
            began[event.attempt_id] = record.at_us, event.task_id
        elif isinstance(event, ev.TaskRetryScheduled):
            rests[event.task_id] = record.at_us, event.attempt_id
        elif attempt_id in began and attempt_id not in spans and not isinstance(event, ev.CostCharged):
            start_us, task_id = began[attempt_id]
            spans[attempt_id] = start_us, record.at_us, task_id
            ends.setdefault(record.at_us, []).append(attempt_id)
    found: list[str] = []
    at = max(spans, key=lambda one: spans[one][1], default=None)
    while at is not None and spans[at][2] not in found[-1:]:
        start_us, _, task_id = spans[at]
        found.append(task_id)
        before = [one for one in ends.get(start_us, []) if one != at]
        at = before[0] if before else None
        if at is None and task_id in rests and rests[task_id][1] in spans:
            at = next((one for one in ends.get(rests[task_id][0], []) if spans[one][2] != task_id), None)
    return list(dict.fromkeys(reversed(found)))


def _told(
    plan: Plan, expectations: Mapping[str, TaskExpectation], chances: Mapping[str, float], around_s: float,
    plays: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    slots = min(plan.settings.max_parallel_agents, plan.settings.store_limit)
    critical = Counter(name for play in plays for name in play["critical"])
    paid = any(one.usd is not None for one in expectations.values())
    used = [play["busy_s"] / (play["makespan_s"] * slots) if play["makespan_s"] else 0.0 for play in plays]
    return {
        "name": plan.name,
        "tasks": len(plan.tasks),
        "slots": slots,
        "draws": len(plays),
        "share": SHARE,
        "makespan_s": _range([play["makespan_s"] for play in plays]),
        "cost_usd": _range([play["cost_usd"] for play in plays]) if paid else None,
        "utilisation": _range(used),
        "completes": fmean(play["completes"] for play in plays),
        "retries": fmean(play["retries"] for play in plays),
        "critical": [
            {"task_id": name, "share": count / len(plays)} for name, count in critical.most_common(CRITICAL_SHOWN)
        ],
        "unknown_tasks": sum(one.seconds.value is None for one in expectations.values()),
        "basis": dict(Counter(one.seconds.basis for one in expectations.values())),
        "around_s": around_s,
        "failing": {name: chance for name, chance in chances.items() if chance},
    }


def _range(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {"value": ordered[round(last / 2)], "low": ordered[round(last * 0.1)], "high": ordered[round(last * 0.9)]}
