"""What was spent, as plain data: the JSON and CSV that scripts read and the command line draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from parallel_agents.eventstore.log import Log, wall_clock_us
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.projections import bill
from parallel_agents.projections.bill import FATES as FATES
from parallel_agents.projections.bill import GROUPINGS as GROUPINGS
from parallel_agents.projections.bill import WASTED as WASTED
from parallel_agents.projections.bill import Amount, Line
from parallel_agents.projections.passing import Passing
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.budget import Books, Use, budgets_of

LINE_FIELDS: Final = (
    "at", "run_id", "task_id", "attempt_id", "agent_type", "runner", "model", "usd", "source", "prices", "partial", "calls",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "fate",
)  # fmt: skip
"""Of one charge, as ``lines`` gives it."""


AMOUNT_FIELDS: Final = (
    "cost_usd", "unknown_attempts", "partial_attempts", "reported_usd", "estimated_usd",
    "wasted_usd", *(f"{fate}_usd" for fate in FATES), "attempts", "calls",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "uncounted_attempts",
)  # fmt: skip
"""Of a sum of charges."""


def usd(micros: int) -> float:
    """Micro-dollars as dollars."""
    return micros / 1e6


def cost(log: Log, run_id: str | None, by: str | None = None, upto: int | None = None) -> dict[str, Any]:
    """What a run (None: the whole store) has cost, undone work included, and what became of that work. Days are UTC.

    Raises:
        UnknownRun: there is no such run.
    """
    projector = Projector(log)
    budgets: list[Use] = []
    budget: int | None = None
    if run_id is not None:
        state = projector.state(run_id, upto)  # An unknown run is an error, not free.
        limits, budget = budgets_of(state), state.budget_usd_micros
        if limits.limited:
            moment = None if upto is None else log.row(upto)
            now_us = wall_clock_us() if moment is None else moment.at_us
            budgets = list(Books(projector.spend(upto), now_us).use(limits))
    found = _lines(projector, run_id, upto)
    whole = bill.total(found)
    # Against a budget an unknown cost counts as what was expected: what is left is less than the sum of money says.
    spent = next((use.spent_usd_micros for use in budgets if use.scope == "run"), whole.usd_micros)
    answer: dict[str, Any] = {
        "run_id": run_id,
        **_amount(whole),
        "partial": bool(whole.cut_off),
        "budget_usd": None if budget is None else usd(budget),
        "left_usd": None if budget is None else usd(max(0, budget - spent)),
        "budgets": [budget_line(use) for use in budgets],
    }
    if by is not None:
        runs = projector.runs(upto) if by == "run" else {}
        answer["by"] = by
        answer["groups"] = [
            {by: name, **_amount(amount), **({"name": runs[name].name, "status": runs[name].status} if runs else {})}
            for name, amount in bill.grouped(found, by).items()
        ]
    return answer


def lines(log: Log, run_id: str | None, upto: int | None = None) -> list[dict[str, Any]]:
    """Every charge of a run (None: of the whole store) by itself; ``usd`` is None where nobody knows.

    Raises:
        UnknownRun: there is no such run.
    """
    return list(lines_passing(log, run_id, upto))


def lines_passing(log: Log, run_id: str | None, upto: int | None = None) -> Iterator[dict[str, Any]]:
    """The same, each made as it is gone to.

    Raises:
        UnknownRun: there is no such run.
    """
    projector = Projector(log)
    if run_id is not None:
        projector.state(run_id, upto)
    return map(_line, _lines(projector, run_id, upto))


def _lines(projector: Projector, run_id: str | None, upto: int | None) -> Iterable[Line]:
    if run_id is not None:
        return projector.bill(run_id, upto)
    return Passing(lambda: (line for name in projector.runs(upto) for line in projector.bill(name, upto)))


def _amount(amount: Amount) -> dict[str, Any]:
    return {
        "cost_usd": usd(amount.usd_micros),
        "input_tokens": amount.input_tokens,
        "output_tokens": amount.output_tokens,
        "cache_read_tokens": amount.cache_read_tokens,
        "cache_write_tokens": amount.cache_write_tokens,
        "calls": amount.calls,
        "attempts": len(amount.attempts),
        "uncounted_attempts": len(amount.uncounted),  # Their calls are not in calls: their client does not tell them.
        "unknown_attempts": len(amount.unknown),  # Not in cost_usd: it is at least that much.
        "partial_attempts": len(amount.cut_off),  # Each may have cost one call more than was counted.
        "reported_usd": usd(amount.usd_micros - amount.estimated_usd_micros),
        "estimated_usd": usd(amount.estimated_usd_micros),
        "wasted_usd": usd(amount.wasted_usd_micros),
        **{f"{fate}_usd": usd(amount.fates.get(fate, 0)) for fate in FATES},
    }


def budget_line(use: Use) -> dict[str, Any]:
    """One budget, and what became of it."""
    return {
        "scope": use.scope,
        "budget_usd": usd(use.budget_usd_micros),
        "spent_usd": usd(use.spent_usd_micros),
        "held_usd": usd(use.held_usd_micros),
        "left_usd": usd(max(0, use.rest_usd_micros)),
        "share": use.share,
    }


def _line(line: Line) -> dict[str, Any]:
    charge = line.charge
    values: dict[str, Any] = {name: getattr(charge, name) for name in LINE_FIELDS if name in type(charge).model_fields}
    values["at"], values["run_id"], values["fate"] = rfc3339(line.at_us), line.run_id, line.fate
    values["usd"] = None if charge.usd_micros is None else usd(charge.usd_micros)
    if not charge.calls and (charge.input_tokens or charge.output_tokens):
        values["calls"] = None  # Its client does not tell them.
    return {name: values[name] for name in LINE_FIELDS}
