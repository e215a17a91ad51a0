"""How long a plan will take on its slots, and what it will cost: the scheduler's own order, played with expected figures."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from parallel_agents.eventstore.submission import PRIORITIES, Plan
from parallel_agents.expectations import Expected, TaskExpectation, Z
from parallel_agents.scheduler.graph import tails
from parallel_agents.scheduler.plan import EXPECTED_S
from parallel_agents.scheduler.scopes import meet

DRAWS = 200
DRAWN_TASKS = 500
"""Plans of more tasks are played three times instead, with every level low, middling and high: what is each attempt's own
evens out over so many."""


@dataclass(frozen=True, slots=True)
class Range:
    """A figure of a whole plan: the median of what was played, and 80 % between low and high."""

    value: float
    low: float
    high: float
    unknown: int = 0  # Tasks of which nobody can say anything; counted as ``EXPECTED_S`` seconds, or as no money.


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan's end. Each task counts once: retries come on top, and so do waits for people and providers."""

    makespan_s: Range
    usd: Range | None  # None: the plan costs nothing.


def forecast(plan: Plan, expectations: Mapping[str, TaskExpectation]) -> Forecast:
    """What a plan takes and costs, played many times with figures drawn from what is expected. The same for the same plan."""
    seconds = [expectations[task.task_id].seconds for task in plan.tasks]
    costs = [usd for task in plan.tasks if (usd := expectations[task.task_id].usd) is not None]
    play = _player(plan)
    takes, sums = [], []
    for draw in _draws(len(plan.tasks)):
        takes.append(play([draw(one, EXPECTED_S) for one in seconds]))
        sums.append(math.fsum(draw(one, 0.0) for one in costs))
    return Forecast(
        _range(takes, sum(one.value is None for one in seconds)),
        _range(sums, sum(one.value is None for one in costs)) if costs else None,
    )


def _draws(tasks: int) -> list[Callable[[Expected, float], float]]:
    """Ways to draw a figure; in each, what rests on the same source errs together."""
    if tasks > DRAWN_TASKS:
        return [at_level(z) for z in (-Z, 0.0, Z)]
    return [at_random(Random(seed)) for seed in range(DRAWS)]


def at_level(z: float) -> Callable[[Expected, float], float]:
    """Gives every figure at the same level, its own spread evened out."""

    def draw(expected: Expected, otherwise: float) -> float:
        if expected.value is None:
            return otherwise
        return expected.value * math.exp(z * expected.level_sd + expected.own_sd**2 / 2)

    return draw


def at_random(random: Random) -> Callable[[Expected, float], float]:
    """Draws figures; what rests on the same source errs together."""
    levels: dict[str, float] = {}

    def draw(expected: Expected, otherwise: float) -> float:
        if expected.value is None:
            return otherwise
        if expected.group not in levels:
            levels[expected.group] = random.gauss(0.0, 1.0)
        off = levels[expected.group] * expected.level_sd + random.gauss(0.0, 1.0) * expected.own_sd
        return expected.value * math.exp(off)

    return draw


def _range(values: Sequence[float], unknown: int) -> Range:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Range(ordered[round(last / 2)], ordered[round(last * 0.1)], ordered[round(last * 0.9)], unknown)


def makespan_s(plan: Plan, durations_s: Sequence[float]) -> float:
    """How long a plan takes whose tasks take just that long, in the plan's order, if nothing fails and nobody is asked.

    Source: list scheduling, Graham 1966, with the scheduler's ranks, stages, limits and declared files.
    """
    return _player(plan)(durations_s)


def _player(plan: Plan) -> Callable[[Sequence[float]], float]:
    """What plays a plan: all that does not depend on durations is made once."""
    tasks = plan.tasks
    index_of = {task.task_id: index for index, task in enumerate(tasks)}
    needs = [[index_of[name] for name in task.dependencies if name in index_of] for task in tasks]
    dependents: list[list[int]] = [[] for _ in tasks]
    for index, needed in enumerate(needs):
        for below in needed:
            dependents[below].append(index)
    weights = {task.task_id: task.expected_s or EXPECTED_S for task in tasks}
    tail = tails({task.task_id: task.dependencies for task in tasks}, weights)
    ranks = [(PRIORITIES.index(task.priority), -tail[task.task_id], index) for index, task in enumerate(tasks)]
    slots = min(plan.settings.max_parallel_agents, plan.settings.store_limit)
    limits = [
        min(slots, 1 if not stage.parallel else slots, stage.limit or slots) for stage in plan.stages
    ]  # fmt: skip
    files = [task.files for task in tasks]
    stage_of = [task.stage for task in tasks]

    def play(durations_s: Sequence[float]) -> float:
        open_ = [len(needed) for needed in needs]
        left = [0] * len(limits)
        for stage in stage_of:
            left[stage] += 1
        stage = 0
        waiting: list[list[tuple[int, float, int]]] = [[] for _ in limits]
        for index, count in enumerate(open_):
            if not count:
                waiting[stage_of[index]].append(ranks[index])
        for heap in waiting:
            heapq.heapify(heap)
        running: list[tuple[float, int]] = []
        at = 0.0
        while True:
            while stage < len(limits) and not left[stage]:
                stage += 1
            if stage == len(limits):
                return at
            _start(waiting[stage], running, limits[stage], files, durations_s, at)
            at, ended = heapq.heappop(running)
            left[stage_of[ended]] -= 1
            for dependent in dependents[ended]:
                open_[dependent] -= 1
                if not open_[dependent]:
                    heapq.heappush(waiting[stage_of[dependent]], ranks[dependent])

    return play


def _start(
    ready: list[tuple[int, float, int]],
    running: list[tuple[float, int]],
    limit: int,
    files: Sequence[tuple[str, ...]],
    durations_s: Sequence[float],
    at: float,
) -> None:
    """Start what is ready, best rank first, up to the limit; what meets the files of what runs stands aside."""
    aside = []
    while ready and len(running) < limit:
        rank = heapq.heappop(ready)
        index = rank[2]
        if files[index] and any(files[other] and meet(files[index], files[other]) for _, other in running):
            aside.append(rank)
            continue
        heapq.heappush(running, (at + durations_s[index], index))
    for rank in aside:
        heapq.heappush(ready, rank)
