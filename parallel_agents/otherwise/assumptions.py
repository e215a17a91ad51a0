"""What is not recorded and has to be assumed: attempts that were never made, and what another model would have taken.

A figure is assumed at a level: 0 is the middle of what is expected, minus and plus ``Z`` are the ends of the range that holds
80 % of it. What is assumed is kept, so that it can be told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from parallel_agents.eventstore.errors import InvalidUsage, nearest
from parallel_agents.eventstore.submission import AgentSettings, Task
from parallel_agents.expectations import AGAIN_SD, NOBODY_KNOWS, SECONDS, USD, Expected, Z, expect_task
from parallel_agents.otherwise.recording import COMPLETED, FAILED, LOST, TIMED_OUT, Attempt
from parallel_agents.past_attempts import Past, Sample
from parallel_agents.scheduler.agents.granting import is_agent
from parallel_agents.scheduler.plan import EXPECTED_S
from parallel_agents.scheduler.runners.protocol import Charge, Ended
from parallel_agents.scheduler.runners.recorded import Part

ENDED_BY_ITSELF: Final = frozenset({COMPLETED, FAILED, TIMED_OUT, LOST})


@dataclass(frozen=True, slots=True)
class Assumed:
    """One thing that was not known."""

    task_id: str
    attempt: int  # Of the task, from 1.
    what: str  # In words.


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much more one model takes than another, of the same kind of work: a factor, and the spread of its logarithm."""

    value: float
    sd: float
    samples: tuple[int, int]  # Of the one, and of the other.

    def at(self, level: float) -> float:
        """The factor at a level."""
        return self.value * math.exp(level * self.sd)


@dataclass(slots=True)
class Known:
    """What a store knows of attempts, and what was assumed beyond that.

    Attributes:
        level: at which everything is assumed.
    """

    past: Past
    agents: AgentSettings
    level: float = 0.0
    assumed: dict[tuple[str, int], Assumed] = field(default_factory=dict)

    def unheard_of(self, task: Task, number: int, before: Attempt | None, why: str, *, cut_off: bool = False) -> Part:
        """What an attempt does of which nothing is recorded: it succeeds, or at the upper end fails as the one before it.

        Args:
            number: of the attempt, from 1.
            before: the attempt before it.
            why: nothing is recorded, in words.
            cut_off: whether ``before`` is this very attempt, which did not come to its end.
        Source for what was cut off: of what has gone on for a time, the median of what is still to come is as long (Gott 1993).
        """
        found = expect_task(task, self.agents, self.past)
        seconds = found.seconds
        least_s = before.took_us / 1e6 if before is not None and before.took_us else 0.0
        if cut_off and (seconds.value is None or seconds.value < least_s):
            seconds = Expected(2 * least_s, source="twice as long as it had run by then", basis="task", own_sd=AGAIN_SD)
        elif seconds.value is None and least_s:
            seconds = Expected(least_s, source="as long as its last attempt", basis="task", own_sd=AGAIN_SD)
        took_s = EXPECTED_S if seconds.value is None else _at(seconds, self.level)
        whence = (
            f"nobody knows how long it takes; counted as {EXPECTED_S:g} s"
            if seconds is NOBODY_KNOWS
            else seconds.source
        )
        fails = self.level > 0 and before is not None and before.ended is not None and before.outcome == FAILED
        charges: tuple[Charge, ...] = ()
        if found.usd is not None and found.usd.value is not None:
            charges = (Charge(None, round(_at(found.usd, self.level) * 1e6), "estimated", partial=True),)
        ended = Ended(task.task_id, "exited", exit_code=0, charges=charges)
        if fails and before is not None and before.ended is not None:
            ended = replace(before.ended, charges=charges, ended_at_us=0)
        self.assume(task.task_id, number, f"{why}; assumed to succeed, {whence}")
        return Part(round(took_s * 1e6), ended)

    def on_another_model(self, attempt: Attempt, part: Part, number: int, agent_type: str, model: str | None) -> Part:
        """A recorded attempt as another model would have made it: with the same end, but other times and costs."""
        before = attempt.start.model
        took = model_ratio(self.past, agent_type, before, model, "seconds")
        paid = model_ratio(self.past, agent_type, before, model, "usd")
        factor = 1.0 if took is None else took.at(self.level)
        price = 1.0 if paid is None else paid.at(self.level)
        told = (
            "unknown"
            if took is None
            else f"{took.value:.2f} times as long by {took.samples[0]} and {took.samples[1]} attempts"
        )
        self.assume(
            attempt.task_id, number, f"{model or 'its own model'} in place of {before or 'its own model'}: {told}"
        )
        charges = tuple(
            replace(one, model=model, usd_micros=None if one.usd_micros is None else round(one.usd_micros * price))
            for one in part.ended.charges
        )
        ended = replace(part.ended, charges=charges)
        span_us = max(0, ended.ended_at_us - ended.started_at_us)
        if span_us:
            ended.ended_at_us = ended.started_at_us + round(span_us * factor)
        return replace(part, takes_us=None if part.takes_us is None else round(part.takes_us * factor), ended=ended)

    def goes_on(self, task: Task, number: int, attempt: Attempt) -> Part:
        """An attempt that was stopped when its time was up, where it has more now: it ends well when it is expected to."""
        expected = expect_task(task, self.agents, self.past).seconds
        least_us = attempt.took_us or 0
        took_us = least_us if expected.value is None else max(least_us, round(_at(expected, self.level) * 1e6))
        if took_us > task.timeout_s * 1e6:
            return timed_out(task)
        self.assume(task.task_id, number, f"its time was up after {least_us / 1e6:g} s; assumed to end well later")
        ended = Ended(
            task.task_id, "exited", exit_code=0, charges=() if attempt.ended is None else attempt.ended.charges
        )
        return Part(took_us, ended)

    def assume(self, task_id: str, number: int, what: str) -> None:
        self.assumed.setdefault((task_id, number), Assumed(task_id, number, what))


def timed_out(task: Task) -> Part:
    """An attempt whose time is up."""
    return Part(
        round(task.timeout_s * 1e6), Ended(task.task_id, "timed_out", error=f"timed out after {task.timeout_s:g} s")
    )


def _at(expected: Expected, level: float) -> float:
    assert expected.value is not None
    return expected.value * math.exp(level * math.hypot(expected.level_sd, expected.own_sd))


def model_ratio(past: Past, agent_type: str, before: str | None, after: str | None, what: str) -> Ratio | None:
    """How much more a model takes, or costs, than another one; None where a store does not know both.

    By agents of the same type where both models have done such work, else by all.

    Args:
        what: ``seconds`` or ``usd``.
    Source: the difference of two means of logarithms, and its standard error with a common variance (Welch 1938 for the
        general case); the spread that is believed before counts as that of ``expectations`` does.
    """
    everything = [one for samples in past.by_type.values() for one in samples]
    for samples in (past.by_type.get(agent_type, []), everything):
        one, other = _logs(samples, before, what), _logs(samples, after, what)
        if one and other:
            own_sd = SECONDS.own_sd if what == "seconds" else USD.own_sd
            squares = math.fsum((x - _mean(logs)) ** 2 for logs in (one, other) for x in logs)
            spread = math.sqrt((3 * own_sd**2 + squares) / (3 + len(one) + len(other) - 2))
            sd = spread * math.sqrt(1 / len(one) + 1 / len(other))
            return Ratio(math.exp(_mean(other) - _mean(one)), sd, (len(one), len(other)))
    return None


def _logs(samples: list[Sample], model: str | None, what: str) -> list[float]:
    values = [getattr(one, what) for one in samples if one.model == model and one.agent_type]
    return [math.log(max(value, 1e-6)) for value in values if value is not None]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def check_models(past: Past, tasks: Mapping[str, Task], recorded: Mapping[str, str | None]) -> None:
    """Refuse a model of which the store knows nothing.

    Args:
        tasks: as they are to be now.
        recorded: the model of each task's last attempt.
    Raises:
        InvalidUsage: nothing of the store was done by a model that a task is to get.
    """
    known: dict[str, int] = defaultdict(int)
    for samples in past.by_type.values():
        for one in samples:
            known[one.model or ""] += one.seconds is not None
    for task_id, before in recorded.items():
        task = tasks[task_id]
        if is_agent(task) and task.model is not None and task.model != before and not known.get(task.model):
            raise InvalidUsage(
                f"nothing in this store was done by the model {task.model!r}, so nobody can say what {task_id} would take on it",
                hint=nearest(task.model, [name for name in known if name and known[name]]),
            )


LEVELS: Final = (0.0, -Z, Z)
