"""What the whole store has spent, holds back and has told of its budgets, and which providers let nobody work.

The dispatcher decides by it, inside its write transaction: what is spent is summed by run, by task and by day (UTC), and
every running attempt holds back what was reserved at its start, until one of the events that end it. Scope ALL: over all
runs, rollbacks or not.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date as Date
from typing import Final, Literal

import orjson

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.archive import ELSEWHERE
from parallel_agents.eventstore.record import Recorded, Row, decode, from_rfc3339
from parallel_agents.projections import occupancy

DAY_US: Final = 86_400_000_000
MINUTE_US: Final = 60_000_000
PERIODS: Final = ("day:", "week:", "month:")  # How the scopes begin that span all runs.
Period = Literal["day", "week", "month"]
SPENT: Final = 1.0  # The share that ``BudgetExceeded`` tells.


@dataclass(slots=True)
class Held:
    """A running attempt. Micro-dollars."""

    run_id: str
    task_id: str
    reserved_usd_micros: int | None  # None: nobody knew what it would cost.
    agent: bool = False  # Whether it is an agent's.


@dataclass(slots=True)
class Wait:
    """A provider that lets nobody work before a time, in microseconds since the epoch."""

    until_us: int
    kind: str
    count: int
    stated: bool
    reason: str = ""
    attempt_id: str = ""
    model: str | None = None  # That was asked for last,
    refused: frozenset[str | None] = frozenset()  # and all that were, in a row of waits without a gap.
    seen_us: int = 0  # When it was found out.


@dataclass(slots=True)
class Spend:
    """Micro-dollars. What a charge of unknown cost stands for is assumed to be the reservation of its attempt."""

    by_task: Counter[tuple[str, str]] = field(default_factory=Counter)  # By run and task.
    by_run: Counter[str] = field(default_factory=Counter)
    by_day: Counter[int] = field(default_factory=Counter)  # By days since the epoch.
    assumed_by_run: Counter[str] = field(default_factory=Counter)  # The part of it that nobody knows.
    unknown_by_run: Counter[str] = field(default_factory=Counter)  # Charges of unknown cost.
    running: dict[str, Held] = field(default_factory=dict)  # By attempt id.
    rest: dict[str, int] = field(default_factory=dict)
    """By attempt id, also of one that has ended: the part of its reservation that no charge has used up."""
    told: dict[tuple[str, str, float], int] = field(default_factory=dict)
    """By run (empty for a day, week or month), scope and share: the most that was spent when it was told."""
    waits: dict[str, Wait] = field(default_factory=dict)  # By provider; one whose time is over stays until it is freed.
    resumed: dict[str, str] = field(default_factory=dict)  # Attempts whose sessions others have gone on with, and who.
    calls: Counter[str] = field(default_factory=Counter)  # Answers of models that attempts have had, by agent type,
    working_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # and how long they have worked.
    attempts: Counter[str] = field(default_factory=Counter)  # How many of them there were.
    at_once: dict[str, int] = field(default_factory=dict)  # The most requests that one of them made at the same time.
    recent: deque[tuple[int, float]] = field(default_factory=deque)
    """When attempts were charged, in the last minute before the last of them, and how often they had asked in a minute."""


def fold(state: Spend, record: Recorded) -> Spend:
    """The spending after one more event of any run."""
    event, run_id = record.event, record.run_id
    if type(event) not in _FOLDED:
        return state
    match event:
        case ev.CostCharged():
            charge(state, run_id, record.at_us, event.task_id, event.attempt_id, event.usd_micros)
            pace(state, record.at_us, event.agent_type, event.calls, event.duration_s, event.at_once)
        case ev.TaskStarted(attempt_id=attempt_id):
            held = Held(run_id, event.task_id, event.reserved_usd_micros, bool(event.model_reason))
            start(state, attempt_id, held, event.resumes)
        case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskTimedOut() | ev.AttemptLost() | ev.ResultDiscarded():
            state.running.pop(event.attempt_id, None)
            if isinstance(event, ev.AttemptLost) and not event.began:  # Its session is as it was.
                state.resumed = {of: by for of, by in state.resumed.items() if by != event.attempt_id}
        case ev.TaskCancelled(attempt_id=attempt_id) | ev.TaskBlocked(attempt_id=attempt_id):
            state.running.pop(attempt_id or "", None)
        case ev.BudgetThresholdReached(scope=scope, share=share):
            tell(state, run_id, scope, share, event.spent_usd_micros)
        case ev.BudgetExceeded(scope=scope):
            tell(state, run_id, scope, SPENT, event.spent_usd_micros)
        case ev.BudgetChanged(scope=scope):  # Another budget is another matter: all of it is told anew.
            for key in [key for key in state.told if key[:2] == (run_id, scope)]:
                del state.told[key]
        case ev.ProviderLimited(provider=provider):
            before = state.waits.get(provider)
            refused = before.refused if before is not None and before.until_us > record.at_us else frozenset()
            state.waits[provider] = Wait(
                from_rfc3339(event.until), event.kind, event.count, event.stated, event.reason, event.attempt_id,
                event.model, refused | {event.model}, record.at_us,
            )  # fmt: skip
        case ev.ProviderFreed(provider=provider):
            state.waits.pop(provider, None)
        case ev.RunArchived(run_id=archived):  # None of it ran, but its ends may not be readable any more.
            state.running = {name: held for name, held in state.running.items() if held.run_id != archived}
        case _:
            raise AssertionError(f"spend does not fold {type(event).__name__}")
    return state


OF_SLOTS: Final = occupancy.TYPES
"""The types that begin and end a reservation."""
OF_MONEY: Final = (
    "CostCharged", "BudgetThresholdReached", "BudgetExceeded", "BudgetChanged", "ProviderLimited", "ProviderFreed",
)  # fmt: skip
_FOLDED = frozenset({*(ev.EVENT_TYPES[name] for name in OF_SLOTS + OF_MONEY), ev.RunArchived})


def fold_row(state: Spend, row: Row) -> Spend:
    """The same from a stored row. Most are charges and starts, of which a few fields say all."""
    if row.body == ELSEWHERE:
        return state
    try:
        data = orjson.loads(row.body)
        if "schema_version" not in data:
            match row.type:
                case "CostCharged":
                    agent_type, calls, duration_s = data["agent_type"], data["calls"], data["duration_s"]
                    at_once = data["at_once"]
                    charge(state, row.run_id, row.at_us, data["task_id"], data["attempt_id"], data["usd_micros"])
                    pace(state, row.at_us, agent_type, calls, duration_s, at_once)
                    return state
                case "TaskStarted":
                    reserved, agent = data["reserved_usd_micros"], bool(data["model_reason"])
                    held = Held(row.run_id, data["task_id"], reserved, agent)
                    start(state, data["attempt_id"], held, data["resumes"])
                    return state
                case _:
                    pass
    except (KeyError, TypeError, ValueError):  # A body of an older release, or a damaged one.
        pass
    return fold(state, decode(row))


def start(state: Spend, attempt_id: str, held: Held, resumes: str | None) -> None:
    """An attempt holds back what it has reserved, and has the session that it goes on with for itself."""
    if resumes is not None:
        state.resumed[resumes] = attempt_id
    state.running[attempt_id] = held
    if held.reserved_usd_micros:
        state.rest[attempt_id] = held.reserved_usd_micros


def charge(state: Spend, run_id: str, at_us: int, task_id: str, attempt_id: str, micros: int | None) -> None:
    """Count one charge; of an unknown one what is left of the reservation of its attempt."""
    rest = state.rest.get(attempt_id, 0)
    if micros is None:
        micros = rest
        state.unknown_by_run[run_id] += 1
        state.assumed_by_run[run_id] += micros
    if rest > micros:
        state.rest[attempt_id] = rest - micros
    elif rest:
        del state.rest[attempt_id]
    state.by_task[run_id, task_id] += micros
    state.by_run[run_id] += micros
    state.by_day[at_us // DAY_US] += micros


def pace(state: Spend, at_us: int, agent_type: str, calls: int, duration_s: float, at_once: int) -> None:
    """Count how often attempts of a type have asked their models, how long they have worked, and what they did at once."""
    if calls:
        state.recent.append((at_us, calls * min(1.0, MINUTE_US / 1e6 / duration_s) if duration_s else calls))
        while state.recent[0][0] <= at_us - MINUTE_US:
            state.recent.popleft()
    state.attempts[agent_type] += duration_s > 0.0
    if at_once > state.at_once.get(agent_type, 0):
        state.at_once[agent_type] = at_once
    if calls or duration_s:
        state.calls[agent_type] += calls
        state.working_s[agent_type] += duration_s


def tell(state: Spend, run_id: str, scope: str, share: float, spent_usd_micros: int) -> None:
    """Remember that a share of a budget was told."""
    key = (owner_of(run_id, scope), scope, share)
    state.told[key] = max(state.told.get(key, 0), spent_usd_micros)


def owner_of(run_id: str, scope: str) -> str:
    """The run that a scope belongs to; empty where it spans all runs, since each of its shares is told once."""
    return "" if scope.startswith(PERIODS) else run_id


def days_of(scope: Period, at_us: int) -> range:
    """The days since the epoch, in UTC, of the period that holds a moment. Weeks begin on Monday (ISO 8601)."""
    day = at_us // DAY_US
    match scope:
        case "day":
            return range(day, day + 1)
        case "week":
            monday = day - (day + 3) % 7  # The first of January 1970 was a Thursday.
            return range(monday, monday + 7)
        case "month":
            date = _date(day)
            after = date.replace(year=date.year + date.month // 12, month=date.month % 12 + 1, day=1)
            return range(day - date.day + 1, after.toordinal() - _EPOCH)


def period_name(scope: Period, at_us: int) -> str:
    """Such as ``day:2026-11-26``, ``week:2026-W48`` and ``month:2026-11``."""
    date = _date(at_us // DAY_US)
    match scope:
        case "day":
            return f"day:{date.isoformat()}"
        case "week":
            year, week, _ = date.isocalendar()
            return f"week:{year}-W{week:02}"
        case "month":
            return f"month:{date.year}-{date.month:02}"


def _date(day: int) -> Date:
    return Date.fromordinal(day + _EPOCH)


_EPOCH: Final = Date(1970, 1, 1).toordinal()


def in_period(state: Spend, scope: Period, at_us: int) -> int:
    """What was spent in the day, week or month that holds a moment."""
    by_day = state.by_day
    return sum(by_day[day] for day in days_of(scope, at_us) if day in by_day)


def waiting(state: Spend, now_us: int) -> Iterator[tuple[str, Wait]]:
    """The providers that let nobody work at a moment."""
    return ((provider, wait) for provider, wait in state.waits.items() if wait.until_us > now_us)
