"""What may be spent: whether an attempt may start, what it holds back, what is due to be told, and who has to stop. Pure.

Every attempt reserves before it starts, so attempts that start together cannot overspend together: what is spent and what
is held back is never more than a budget. One that costs more than was expected is stopped as soon as what it is seen to
have spent reaches a budget; since a client is looked at between two calls of its model, a budget can be overshot by at most
one call of each agent that runs in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import BudgetSettings
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.spend import SPENT, Held, Period, Spend
from parallel_agents.projections.status import RunState

PERIOD_SHARES: Final = (0.50, 0.75, 0.90)
"""Of the budget of a day, week or month, where it is told; so the framework's users know it (API.md, Models)."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The limits that one run keeps to, in micro-dollars. Made anew when one of them changes."""

    run_id: str
    settings: BudgetSettings
    run_usd_micros: int | None = None
    tasks: Mapping[str, int] = field(default_factory=dict)  # Of the tasks that have one.

    @property
    def limited(self) -> bool:
        """Whether there is any limit at all."""
        own = self.run_usd_micros is not None or bool(self.tasks)
        return self.settings.enabled and (own or self.limited_by_time)

    @property
    def limited_by_time(self) -> bool:
        """Whether a day, week or month has a limit, which what other runs spend counts against."""
        return any(_limit(self.settings, period) is not None for period in _PERIODS)


class Candidate(NamedTuple):
    """An attempt that could start. What it costs is expected, in micro-dollars."""

    task_id: str
    priority: str
    expected_usd_micros: int | None  # On the model that was chosen; 0: it is no agent; None: nobody knows.
    cheapest_usd_micros: int | None = None  # On the cheapest model that it may be given; None: there is no choice.


Answer = Literal["start", "cheaper", "wait", "put_off", "spent"]


class Verdict(NamedTuple):
    """Whether a candidate may start.

    ``start``: with the reservation and the limit given. ``cheaper``: on a model that is expected to cost at most
    ``limit_usd_micros``, or else on the cheapest; ask again with that one. ``wait``: what runs holds back what it would need.
    ``put_off``: so near the end of a budget the priority of its task lets it not start. ``spent``: nothing is left.
    """

    answer: Answer
    scope: str = ""  # The budget that keeps it from starting.
    why: str = ""
    reserve_usd_micros: int | None = None
    limit_usd_micros: int | None = None  # What it can spend before a budget is reached; None: as much as it likes.
    running: int = 0  # Attempts in that budget whose ends may change the answer; at 0 only a person can.


class Stop(NamedTuple):
    """A running attempt that has to stop, since a budget is spent."""

    attempt_id: str
    task_id: str
    scope: str
    why: str


@dataclass(slots=True)
class Use:
    """One budget and what became of it, in micro-dollars."""

    scope: str
    budget_usd_micros: int
    spent_usd_micros: int  # What attempts that still run are seen to have spent included.
    held_usd_micros: int  # What they hold back beyond that.
    running: list[str]  # Their ids. One that has reserved nothing and is not seen to spend is none: it costs nothing.

    @property
    def rest_usd_micros(self) -> int:
        """What nobody has spent or holds back; negative where there is less than nothing."""
        return self.budget_usd_micros - self.spent_usd_micros - self.held_usd_micros

    @property
    def spent(self) -> bool:
        """Whether nothing is left, whatever comes of what is held back."""
        return self.spent_usd_micros >= self.budget_usd_micros

    @property
    def share(self) -> float:
        """The part of it that is spent or held back. Of a budget of nothing all of it."""
        if self.budget_usd_micros == 0:
            return SPENT
        return (self.spent_usd_micros + self.held_usd_micros) / self.budget_usd_micros

    @property
    def spent_share(self) -> float:
        """The part of it that is spent. Of a budget of nothing all of it."""
        return self.spent_usd_micros / self.budget_usd_micros if self.budget_usd_micros else SPENT


class Books:
    """One look at the money: what the log says, what running attempts are seen to spend, and the time.

    Made anew for each decision. A start that is decided but not yet folded is told to it by ``hold``.
    """

    def __init__(self, spend: Spend, now_us: int, live: Mapping[str, int] | None = None) -> None:
        """Open them.

        Args:
            now_us: microseconds since the epoch; says which day, week and month it is.
            live: what running attempts have spent so far by what they put out, in micro-dollars, by attempt id.
        """
        self.spend = spend
        self.now_us = now_us
        self.running: dict[str, Held] = dict(spend.running)
        self.rest: dict[str, int] = {attempt_id: spend.rest.get(attempt_id, 0) for attempt_id in spend.running}
        self.live: Mapping[str, int] = live or {}

    def hold(self, attempt_id: str, run_id: str, task_id: str, reserve_usd_micros: int | None) -> None:
        """Count in a start that this very decision brings about."""
        self.running[attempt_id] = Held(run_id, task_id, reserve_usd_micros)
        self.rest[attempt_id] = reserve_usd_micros or 0

    def held(self, attempt_id: str) -> int:
        """What a running attempt holds back: its reservation, or what it is seen to have spent where that is more."""
        return max(self.rest[attempt_id], self.live.get(attempt_id, 0))

    def use(self, budgets: Budgets, tasks: Iterable[str] | None = None) -> Iterator[Use]:
        """The budgets of some tasks (None: of all that have one), of their run, and of the day, week and month."""
        if not budgets.settings.enabled:
            return
        run_id, spend = budgets.run_id, self.spend
        for name in budgets.tasks if tasks is None else tasks:
            if name in budgets.tasks:
                mine = {
                    key: held for key, held in self.running.items() if (held.run_id, held.task_id) == (run_id, name)
                }
                yield self._use(f"task:{name}", budgets.tasks[name], spend.by_task[run_id, name], mine)
        if budgets.run_usd_micros is not None:
            mine = {key: held for key, held in self.running.items() if held.run_id == run_id}
            yield self._use("run", budgets.run_usd_micros, spend.by_run[run_id], mine)
        for period in _PERIODS:
            limit = _limit(budgets.settings, period)
            if limit is not None:
                scope = spend_fold.period_name(period, self.now_us)
                yield self._use(scope, limit, spend_fold.in_period(spend, period, self.now_us), self.running)

    def _use(self, scope: str, budget: int, charged: int, running: Mapping[str, Held]) -> Use:
        spending = [attempt_id for attempt_id in running if self.held(attempt_id)]
        seen = sum(self.live.get(attempt_id, 0) for attempt_id in spending)
        held = sum(map(self.held, spending))
        return Use(scope, budget, charged + seen, held - seen, spending)


_PERIODS: Final[tuple[Period, ...]] = get_args(Period)


def _limit(settings: BudgetSettings, period: Period) -> int | None:
    match period:
        case "day":
            return settings.day_usd_micros
        case "week":
            return settings.week_usd_micros
        case "month":
            return settings.month_usd_micros


def budgets_of(state: RunState) -> Budgets:
    """The limits of a run, those that somebody has changed since its submission included."""
    tasks = {task.task_id: task.budget_usd_micros for task in state.plan.tasks if task.budget_usd_micros is not None}
    changed = {**tasks, **state.task_budgets}
    limits = {task_id: micros for task_id, micros in changed.items() if micros is not None}
    return Budgets(state.run_id, state.plan.budgets, state.budget_usd_micros, limits)


class BudgetsAtHand:
    """The same as ``budgets_of``, which goes through all tasks, so it is asked only where something has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Budgets]] = {}  # By run, with what they follow from.

    def of(self, state: RunState) -> Budgets:
        """The limits of a run."""
        key = (state.plan_digest, state.budget_usd_micros, tuple(state.task_budgets.items()))
        found = self._known.get(state.run_id)
        if found is None or found[0] != key:
            found = self._known[state.run_id] = key, budgets_of(state)
        return found[1]


def admit(books: Books, budgets: Budgets, candidate: Candidate) -> Verdict:
    """Whether an attempt may start now.

    What is spent and held back is more than no budget afterwards. Where an attempt is expected to cost more than is left,
    and nothing else runs in that budget, it starts all the same and holds back all of the rest: nothing that is waited for
    would ever leave it more. So does one of which nobody knows what it will cost.
    """
    expected = candidate.expected_usd_micros
    if expected == 0 or not budgets.settings.pause:  # It costs nothing, or budgets are told and nothing more.
        return Verdict("start", reserve_usd_micros=expected)
    uses = list(books.use(budgets, (candidate.task_id,)))
    if not uses:
        return Verdict("start", reserve_usd_micros=expected)
    spent = next((use for use in uses if use.spent), None)
    if spent is not None:
        why = f"{words_of(spent.scope)} is spent: {_of(spent)}"
        return Verdict("spent", spent.scope, why, running=len(spent.running))
    put_off = _put_off(budgets.settings, uses, candidate)
    if put_off is not None:
        return put_off
    rest = min(use.rest_usd_micros for use in uses)
    if expected is not None and expected <= rest:
        return Verdict("start", reserve_usd_micros=expected, limit_usd_micros=rest)
    # With what is left where nothing else runs it has to do. What more it may need than others have left over it can
    # wait for.
    alone = [use.rest_usd_micros for use in uses if not use.running]
    reserve = min([*alone, *([] if expected is None else [expected])], default=None)
    tight = min(uses, key=lambda use: use.rest_usd_micros)
    what = "nobody knows what it will cost" if expected is None else f"it is expected to cost {usd(expected)}"
    cheapest = candidate.cheapest_usd_micros
    cheaper = cheapest is not None and budgets.settings.cheaper_first and (expected is None or cheapest < expected)
    fits = reserve is not None and reserve <= rest
    if cheaper and (fits or (cheapest is not None and cheapest <= rest)):
        why = f"{what}, and {words_of(tight.scope)} leaves {usd(max(0, rest))}: a cheaper model first"
        return Verdict("cheaper", tight.scope, why, limit_usd_micros=rest, running=len(tight.running))
    if fits:
        return Verdict("start", reserve_usd_micros=reserve, limit_usd_micros=rest)
    others = "one running attempt holds" if len(tight.running) == 1 else f"{len(tight.running)} running attempts hold"
    why = f"{what}; {words_of(tight.scope)} has {usd(max(0, rest))} left beside what {others} back"
    return Verdict("wait", tight.scope, why, running=len(tight.running))


def _put_off(settings: BudgetSettings, uses: list[Use], candidate: Candidate) -> Verdict | None:
    """Near the end of a budget what is left is for what matters most."""
    if not settings.by_priority or candidate.priority == "critical":
        return None
    shared = [use for use in uses if not use.scope.startswith("task:")]  # Nothing else would use what is left of that.
    if not shared:
        return None
    tight = max(shared, key=lambda use: use.share)
    if tight.share >= settings.emergency:
        let = "only critical tasks start"
    elif tight.share >= settings.critical and candidate.priority != "high":
        let = "only critical and high tasks start"
    else:
        return None
    why = f"{words_of(tight.scope)} is used to {percent(tight.share)}: {let}, and this one is {candidate.priority}"
    return Verdict("put_off", tight.scope, why, running=len(tight.running))


def tightness(books: Books, budgets: Budgets, task_id: str) -> float:
    """The largest share, of the budgets that a task has to keep to, that is spent. 0: there is none.

    What is held back is none of it: most of that may come back, and who does not fit beside it is offered a cheaper model
    by ``admit``.
    """
    return max((use.spent_share for use in books.use(budgets, (task_id,))), default=0.0)


def crossings(
    books: Books, budgets: Budgets, tasks: Iterable[str] | None = None
) -> list[ev.BudgetThresholdReached | ev.BudgetExceeded]:
    """What is due to be told of a run's budgets: every share that spending has passed, each once.

    Once for a budget of the run or of one of its tasks until that is changed; once in a day, week or month over all runs,
    and again where a run has set itself a higher limit than the one it was told of.

    Args:
        tasks: whose own budgets are looked at; enough are those that run or were charged since. None: all.
    """
    due: list[ev.BudgetThresholdReached | ev.BudgetExceeded] = []
    settings = budgets.settings
    for use in books.use(budgets, tasks):
        owner = spend_fold.owner_of(budgets.run_id, use.scope)
        own = (settings.warning, settings.critical, settings.emergency)
        shares = PERIOD_SHARES if owner == "" else tuple(sorted({share for share in own if share < SPENT}))
        for share in (*shares, SPENT):
            mark = use.budget_usd_micros if share == SPENT else share * use.budget_usd_micros
            told = books.spend.told.get((owner, use.scope, share))
            if use.spent_usd_micros < mark or (told is not None and told >= mark):
                continue
            if share == SPENT:
                due.append(
                    ev.BudgetExceeded(
                        scope=use.scope, spent_usd_micros=use.spent_usd_micros, budget_usd_micros=use.budget_usd_micros
                    )
                )  # fmt: skip
            else:
                due.append(
                    ev.BudgetThresholdReached(scope=use.scope, share=share, spent_usd_micros=use.spent_usd_micros)
                )
    return due


def overspent(books: Books, budgets: Budgets) -> list[Stop]:
    """The attempts of a run that have to stop, since a budget that they spend of is spent. What costs nothing goes on.

    Attempts of other runs keep to the budgets of their own runs.
    """
    if not budgets.settings.pause:
        return []
    stops: dict[str, Stop] = {}
    tasks = {held.task_id for held in books.running.values() if held.run_id == budgets.run_id}
    for use in books.use(budgets, sorted(tasks)):
        if not use.spent:
            continue
        why = f"{words_of(use.scope)} is spent: {_of(use)}"
        for attempt_id in use.running:
            held = books.running[attempt_id]
            if held.run_id == budgets.run_id:
                stops.setdefault(attempt_id, Stop(attempt_id, held.task_id, use.scope, why))
    return list(stops.values())


def words_of(scope: str) -> str:
    """A scope as a sentence begins with it."""
    kind, _, name = scope.partition(":")
    if kind == "run":
        return "the budget of the run"
    return f"the budget of {kind} {name}" + ("" if kind == "task" else " (UTC)")


def usd(micros: int) -> str:
    """Micro-dollars for a sentence, to the hundredth of a cent where it is little."""
    return f"${micros / 1e6:.2f}" if micros == 0 or micros >= 1_000_000 else f"${micros / 1e6:.4f}"


def percent(share: float) -> str:
    """A share in hundredths, rounded down: 99.9 % of a budget is not all of it."""
    return f"{int(share * 100 + 1e-9)} %"


def _of(use: Use) -> str:
    return f"{usd(use.spent_usd_micros)} of {usd(use.budget_usd_micros)}"
