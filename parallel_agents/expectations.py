"""What a task is expected to take and to cost: from its own history, else from that of its agent type, else from a prior.

Durations and costs of agents spread over orders of magnitude and never go below nothing, so everything here is a median
with a spread of its logarithm. Two spreads are kept apart. One is each attempt's own, which evens out over many tasks;
the other is of the level that all tasks share which rest on the same source, and does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from parallel_agents.eventstore.submission import AgentSettings, Plan, Task
from parallel_agents.past_attempts import NOTHING, Past, Sample
from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.agents.granting import is_agent, runner_name
from parallel_agents.scheduler.agents.models import MODELS, Choice, choose_model, price_weight

SHARE = 0.8
"""Of what comes, so much is expected between low and high."""
Z = 1.2816  # The normal distribution's quantile at 0.9.

AGAIN_SD = 0.33
"""Spread (of the logarithm) of the same task done again by the same agent: 0.26 to 0.74, middle 0.33, of seven agents on
Terminal-Bench. Measured on durations; used for costs too, of which no repetitions are recorded."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed before anything was seen: a median, the spread of the level, and that of attempts around it."""

    median: float
    level_sd: float
    own_sd: float


SECONDS = Prior(265.0, 0.41, 0.77)
"""Of one attempt of an agent. Nine sets of recorded runs have medians of 102 to 455 s, geometric mean 265 s, spread of their
logarithms 0.41; within a set the spread is 0.52 to 1.32, middle 0.77. Sources: laude-institute/terminal-bench-leaderboard
(seven agents, about 400 trials each; cut off by a limit of time in 13 to 38 % of them) and SWE-bench Verified
(backspacevenkat/polydev-swe-bench, Vexp-ai/vexp-swe-bench: 500 and 100 tasks)."""

USD = Prior(0.80, 1.31, 0.65)
"""Of one attempt of a model that costs as much as ``sonnet``. A task of SWE-bench Verified cost a median of $0.37 on Opus 4.5
(100 tasks), one of SWE-bench Pro $10.75 on Sonnet 4.5 and $1.74 on GPT-5 (616 tasks each; nilenso/swe-bench-pro-cost-token-
time-analysis). At the prices of ``PRICE_WEIGHTS`` that is $0.15 for Verified and $4.2 (geometric mean of two) for Pro: the
median is the geometric middle of these two, and the level's spread such that 80 % lie between them. Within a set the spread
is 0.44 to 0.91. (Costs recorded for Haiku 4.5 are left out: they were taken without input tokens.)"""

_USD_OF_THAT = (
    0.012  # What 1000 tokens in and 1000 out cost at the prices that ``USD`` is of: 2 and 10 dollars a million.
)
UNKNOWN_MODEL_SD = 1.0  # More, where the client chooses the model: prices differ by a factor of 20 to 100.
PSEUDO_SAMPLES = 3  # The weight of the spread that is believed before, against the one that few samples show.


@dataclass(frozen=True, slots=True)
class Expected:
    """A figure that is not known yet."""

    value: float | None  # The median; None where nobody can say.
    low: float | None = None
    high: float | None = None
    source: str = "unknown"  # In words, for people.
    basis: str = "unknown"  # task, type, plan, prior or unknown.
    samples: int = 0
    level_sd: float = 0.0
    own_sd: float = 0.0
    group: str = ""  # What rests on the same source errs together.

    def __post_init__(self) -> None:
        if self.value is not None and self.low is None:
            reach = math.exp(Z * math.hypot(self.level_sd, self.own_sd))
            object.__setattr__(self, "low", self.value / reach)
            object.__setattr__(self, "high", self.value * reach)


NOBODY_KNOWS = Expected(None)


@dataclass(frozen=True, slots=True)
class TaskExpectation:
    """One attempt of a task, as it is expected."""

    runner: str
    choice: Choice | None  # None: no agent's.
    seconds: Expected
    usd: Expected | None  # None: it costs nothing.


def expect_plan(plan: Plan, past: Past = NOTHING) -> dict[str, TaskExpectation]:
    """Every task of a plan, with the model of its first attempt."""
    return {task.task_id: expect_task(task, plan.agents, past) for task in plan.tasks}


def expect_task(
    task: Task, settings: AgentSettings, past: Past = NOTHING, choice: Choice | None = None
) -> TaskExpectation:
    """One attempt of a task.

    Args:
        choice: its model, where that is decided already; else the one of its first attempt.
    """
    runner = runner_name(task)
    own = past.by_task.get(task.task_id, [])
    if not is_agent(task):
        seconds = [one.seconds for one in own if one.seconds is not None and not one.agent_type]
        found = _from(seconds, "task", task.task_id, AGAIN_SD, "of this task") or _stated(task) or NOBODY_KNOWS
        return TaskExpectation(runner, None, found, None)
    choice = choice or choose_model(task, settings)
    own = [one for one in own if one.agent_type]
    same_type = past.by_type.get(task.agent_type, [])
    return TaskExpectation(runner, choice, _seconds(task, own, same_type), _usd(task, choice, runner, own, same_type))


def usd_micros(expected: Expected | None) -> int | None:
    """A cost in micro-dollars, as plans and events have it; None where there is none, or nobody knows."""
    return None if expected is None or expected.value is None else round(expected.value * 1e6)


def _seconds(task: Task, own: Sequence[Sample], same_type: Sequence[Sample]) -> Expected:
    def known(samples: Sequence[Sample]) -> list[float]:
        return [one.seconds for one in samples if one.seconds is not None]

    return (
        _from(known(own), "task", task.task_id, AGAIN_SD, "of this task")
        or _stated(task)
        or _from(known(same_type), "type", task.agent_type, SECONDS.own_sd, f"of {task.agent_type}")
        or _believed(SECONDS, 1.0, 0.0, "prior: recorded runs of agents")
    )


def _usd(task: Task, choice: Choice, runner: str, own: Sequence[Sample], same_type: Sequence[Sample]) -> Expected:
    weight = _weight(choice.model, choice.name, runner)
    for samples, basis, group, own_sd, of_what in (
        (own, "task", task.task_id, AGAIN_SD, "of this task"),
        (same_type, "type", task.agent_type, USD.own_sd, f"of {task.agent_type}"),
    ):
        same = [one.usd for one in samples if one.usd is not None and (one.model, one.runner) == (choice.model, runner)]
        if found := _from(same, basis, f"{group} {choice.model}", own_sd, of_what):
            return found
        if found := _from(_repriced(samples, weight, runner), basis, group, own_sd, f"{of_what} at another price"):
            return found
    if weight is not None:
        return _believed(USD, weight, 0.0, "prior: recorded runs of agents")
    return _believed(USD, 1.0, UNKNOWN_MODEL_SD, "prior: recorded runs of agents, of an unknown price")


def _repriced(samples: Sequence[Sample], weight: float | None, runner: str) -> list[float]:
    """What samples of other models would have cost, were all else the same."""
    if weight is None:
        return []
    found = []
    for one in samples:
        before = _weight(one.model, None, one.runner)
        if one.usd is not None and before is not None and one.runner == runner:
            found.append(one.usd * weight / before)
    return found


def _weight(model: str | None, name: str | None, runner: str) -> float | None:
    """The price of a token, relative to what ``USD`` is of; None where nobody knows.

    An alias has the weight of the table, unless the configuration leads it to another model, or it is none.
    """
    if model is None:
        return None
    if model in MODELS and name in (None, MODELS[model].get(runner)):
        return price_weight(model, runner)
    return _list_weight(name or model, runner)


@lru_cache(maxsize=256)
def _list_weight(name: str, runner: str) -> float | None:
    import genai_prices  # Only a plan that names models itself needs it, and it takes a while.

    provider = BUILT_IN[runner].provider if runner in BUILT_IN else ""
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=1000)
    try:
        price = genai_prices.calc_price(usage, model_ref=name, provider_id=provider or None)
    except LookupError:
        return None
    return float(price.total_price) / _USD_OF_THAT


def _stated(task: Task) -> Expected | None:
    if task.expected_s is None:
        return None
    return Expected(
        task.expected_s, source="the plan says so", basis="plan", own_sd=AGAIN_SD, group=f"plan {task.task_id}"
    )


def _believed(prior: Prior, times: float, more_sd: float, source: str) -> Expected:
    level_sd = math.hypot(prior.level_sd, more_sd)
    return Expected(
        prior.median * times, source=source, basis="prior", level_sd=level_sd, own_sd=prior.own_sd, group="prior"
    )  # fmt: skip


def _from(values: Sequence[float], basis: str, group: str, own_sd: float, of_what: str) -> Expected | None:
    """What samples let expect: their geometric mean, and a spread between theirs and the one that is believed before.

    Source: the predictive distribution of a normal variable, its variance with a scaled inverse chi-squared prior
    (Gelman et al., Bayesian Data Analysis, 3.3), its quantiles taken as those of the normal distribution.
    """
    logs = [math.log(max(value, 1e-6)) for value in values]
    if not logs:
        return None
    count = len(logs)
    mean = math.fsum(logs) / count
    squares = math.fsum((one - mean) ** 2 for one in logs)
    spread = math.sqrt((PSEUDO_SAMPLES * own_sd**2 + squares) / (PSEUDO_SAMPLES + count - 1))
    return Expected(
        math.exp(mean), source=f"{count} attempt{'s' if count > 1 else ''} {of_what}", basis=basis, samples=count,
        level_sd=spread / math.sqrt(count), own_sd=spread, group=f"{basis} {group}",
    )  # fmt: skip
