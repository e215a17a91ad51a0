"""What may be spent: reservations, what is told, who has to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from paper import plan_of, task

from examples import examples
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import BudgetSettings
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections import status as status_fold
from parallel_agents.projections.spend import DAY_US, Spend
from parallel_agents.scheduler.budget import (
    Books,
    Budgets,
    Candidate,
    Verdict,
    admit,
    budgets_of,
    crossings,
    overspent,
    percent,
    tightness,
    usd,
    words_of,
)  # fmt: skip

DOLLAR = 1_000_000
THURSDAY_US = 20_783 * DAY_US  # The 26th of November 2026.


class Till:
    """A store on paper: what was started, charged and ended, by the events that say so."""

    def __init__(self) -> None:
        self.spend = Spend()
        self.now_us = THURSDAY_US
        self.live: dict[str, int] = {}

    def add(self, *events: ev.Event, run_id: str = "alpha") -> None:
        """Append."""
        for event in events:
            spend_fold.fold(self.spend, Recorded(1, run_id, 1, self.now_us, "ana", event))

    def start(self, attempt_id: str, reserved: int | None, task_id: str = "a", run_id: str = "alpha") -> None:
        """An attempt begins."""
        started = ev.TaskStarted(
            task_id=task_id, attempt_id=attempt_id, attempt=1, runner="claude", reserved_usd_micros=reserved
        )
        self.add(started, run_id=run_id)

    def end(self, attempt_id: str, micros: int | None, run_id: str = "alpha") -> None:
        """An attempt is charged and ends."""
        task_id = self.spend.running[attempt_id].task_id
        self.add(
            ev.CostCharged(task_id=task_id, attempt_id=attempt_id, usd_micros=micros),
            ev.TaskCompleted(task_id=task_id, attempt_id=attempt_id, duration_s=1.0),
            run_id=run_id,
        )
        self.live.pop(attempt_id, None)

    def spent(self, micros: int, task_id: str = "a", run_id: str = "alpha") -> None:
        """Money that is gone."""
        self.start("gone", None, task_id, run_id)
        self.end("gone", micros, run_id)

    @property
    def books(self) -> Books:
        """As they stand."""
        return Books(self.spend, self.now_us, self.live)


def run_of(micros: int | None, tasks: Mapping[str, int] | None = None, **settings: Any) -> Budgets:
    """The budgets of the run alpha."""
    return Budgets("alpha", BudgetSettings(**settings), micros, tasks or {})


def medium(expected: int | None, cheapest: int | None = None, priority: str = "medium") -> Candidate:
    """The task ``a``."""
    return Candidate("a", priority, expected, cheapest)


def test_an_attempt_reserves_what_it_is_expected_to_cost() -> None:
    """And may spend all that is left, since others reserve theirs."""
    till = Till()
    till.start("x", 2 * DOLLAR, "b")
    verdict = admit(till.books, run_of(10 * DOLLAR), medium(DOLLAR))
    assert verdict == Verdict("start", reserve_usd_micros=DOLLAR, limit_usd_micros=8 * DOLLAR)


def test_without_a_budget_everything_starts() -> None:
    """It reserves all the same, for the budgets of other runs; so it does where budgets are switched off."""
    off = run_of(1, enabled=False)
    for budgets in (run_of(None), off):
        assert admit(Till().books, budgets, medium(DOLLAR)) == Verdict("start", reserve_usd_micros=DOLLAR)
        assert admit(Till().books, budgets, medium(None)) == Verdict("start")
        assert tightness(Till().books, budgets, "a") == 0.0


def test_a_budget_that_only_tells_keeps_nothing_from_starting() -> None:
    """Nor does it stop anything."""
    till = Till()
    till.start("x", 1)
    till.spent(20)
    budgets = run_of(10, pause=False)
    assert admit(till.books, budgets, medium(5)).answer == "start"
    assert overspent(till.books, budgets) == []
    assert [event.scope for event in crossings(till.books, budgets)] == ["run"] * 4


def test_one_attempt_starts_with_the_rest_where_it_is_expected_to_cost_more() -> None:
    """Or an estimate that is too high would keep it from ever starting; but only where nothing else of that budget runs."""
    till = Till()
    till.spent(7 * DOLLAR)
    budgets = run_of(10 * DOLLAR)
    verdict = admit(till.books, budgets, medium(4 * DOLLAR))
    assert verdict == Verdict("start", reserve_usd_micros=3 * DOLLAR, limit_usd_micros=3 * DOLLAR)
    till.start("x", DOLLAR, "b")
    verdict = admit(till.books, budgets, medium(4 * DOLLAR))
    assert (verdict.answer, verdict.scope, verdict.running) == ("wait", "run", 1)
    assert verdict.why == (
        "it is expected to cost $4.00; the budget of the run has $2.00 left beside what one running attempt holds back"
    )
    till.end("x", DOLLAR // 2)
    assert admit(till.books, budgets, medium(4 * DOLLAR)).reserve_usd_micros == 2_500_000


def test_an_attempt_of_which_nobody_knows_what_it_costs_holds_back_all_that_is_left() -> None:
    """So a run whose agents report no cost, and whose prices nobody knows, goes on one by one."""
    till = Till()
    budgets = run_of(10 * DOLLAR)
    assert admit(till.books, budgets, medium(None)).reserve_usd_micros == 10 * DOLLAR
    till.start("x", 10 * DOLLAR)
    assert admit(till.books, budgets, medium(None)).answer in ("wait", "put_off")
    till.end("x", None)
    assert admit(till.books, budgets, medium(None)).answer == "spent"


def test_a_cheaper_model_comes_before_a_wait() -> None:
    """Where it fits, or where it is to have the rest; not where cheaper ones are not wanted, or there is none."""
    till = Till()
    till.start("x", 5 * DOLLAR, "b")
    budgets = run_of(10 * DOLLAR)
    verdict = admit(till.books, budgets, medium(6 * DOLLAR, 2 * DOLLAR))
    assert (verdict.answer, verdict.scope, verdict.limit_usd_micros) == ("cheaper", "run", 5 * DOLLAR)
    assert verdict.why == (
        "it is expected to cost $6.00, and the budget of the run leaves $5.00: a cheaper model first"
    )  # fmt: skip
    assert admit(till.books, budgets, medium(7 * DOLLAR, 6 * DOLLAR)).answer == "wait"
    assert admit(till.books, budgets, medium(7 * DOLLAR, 7 * DOLLAR)).answer == "wait"
    assert admit(till.books, run_of(10 * DOLLAR, cheaper_first=False), medium(6 * DOLLAR, 1)).answer == "wait"
    till.end("x", 5 * DOLLAR)
    assert admit(till.books, budgets, medium(7 * DOLLAR, 6 * DOLLAR)).answer == "cheaper"
    assert admit(till.books, budgets, medium(6 * DOLLAR)).reserve_usd_micros == 5 * DOLLAR


@pytest.mark.parametrize(
    ("spent", "starts"),
    [
        (89, ["critical", "high", "medium", "low"]),
        (90, ["critical", "high"]),
        (94, ["critical", "high"]),
        (95, ["critical"]),
        (99, ["critical"]),
        (100, []),
    ],
)
def test_near_the_end_of_a_budget_what_is_left_is_for_what_matters_most(spent: int, starts: list[str]) -> None:
    """In hundredths of it."""
    till = Till()
    till.spent(spent, "b")
    for held in (run_of(100), run_of(None, day_usd_micros=100)):
        verdicts = {name: admit(till.books, held, medium(1, priority=name)) for name in status_priorities()}
        assert [name for name, verdict in verdicts.items() if verdict.answer == "start"] == starts
        others = {verdict.answer for name, verdict in verdicts.items() if name not in starts}
        assert others <= {"put_off" if spent < 100 else "spent"}
    everyone = run_of(100, by_priority=False)
    assert admit(till.books, everyone, medium(1, priority="low")).answer == ("start" if spent < 100 else "spent")


def status_priorities() -> list[str]:
    """From the most important one on."""
    return ["critical", "high", "medium", "low"]


def test_what_is_put_off_is_told_why() -> None:
    """And whether anything runs whose end may change it."""
    till = Till()
    till.spent(92, "b")
    verdict = admit(till.books, run_of(100), medium(1))
    assert (
        verdict.why
        == "the budget of the run is used to 92 %: only critical and high tasks start, and this one is medium"
    )
    assert verdict.running == 0


def test_the_end_of_a_task_s_own_budget_puts_nothing_off() -> None:
    """Nothing else could use what is left of it."""
    till = Till()
    till.spent(96)
    verdict = admit(till.books, run_of(None, {"a": 100}), medium(1, priority="low"))
    assert (verdict.answer, verdict.limit_usd_micros) == ("start", 4)
    till.spent(4)
    verdict = admit(till.books, run_of(None, {"a": 100}), medium(1))
    assert (verdict.answer, verdict.scope) == ("spent", "task:a")
    assert verdict.why == "the budget of task a is spent: $0.0001 of $0.0001"
    assert admit(till.books, run_of(None, {"a": 100}), Candidate("b", "low", 1)).answer == "start"


def test_what_costs_nothing_starts_whatever_is_left() -> None:
    """A shell task spends no money, and no spent budget stops it."""
    till = Till()
    till.start("free", 0)
    till.start("shell", None)
    verdict = admit(till.books, run_of(100), medium(200))
    assert (verdict.answer, verdict.reserve_usd_micros) == ("start", 100)  # None of them uses any of it.
    till.spent(200)
    assert admit(till.books, run_of(100), medium(0, priority="low")) == Verdict("start", reserve_usd_micros=0)
    assert overspent(till.books, run_of(100)) == []
    till.live["shell"] = 1
    assert [stop.attempt_id for stop in overspent(till.books, run_of(100))] == ["shell"]  # It is seen to spend.


def test_days_weeks_and_months_span_all_runs() -> None:
    """And begin anew with the next one."""
    till = Till()
    budgets = run_of(None, day_usd_micros=10, week_usd_micros=100, month_usd_micros=200)
    till.spent(10, run_id="beta")
    verdict = admit(till.books, budgets, medium(1))
    assert (verdict.answer, verdict.scope) == ("spent", "day:2026-11-26")
    assert verdict.why.startswith("the budget of day 2026-11-26 (UTC) is spent")
    till.now_us += DAY_US
    assert admit(till.books, budgets, medium(1)).limit_usd_micros == 10
    till.spent(9, run_id="beta")
    till.now_us += DAY_US
    till.start("other", 7, run_id="beta")
    assert [(use.scope, use.spent_usd_micros, use.held_usd_micros) for use in till.books.use(budgets)] == [
        ("day:2026-11-28", 0, 7), ("week:2026-W48", 19, 7), ("month:2026-11", 19, 7),
    ]  # fmt: skip
    till.now_us += 2 * DAY_US  # Monday.
    till.end("other", 7, run_id="beta")
    assert [use.spent_usd_micros for use in till.books.use(budgets)] == [7, 7, 26]
    till.now_us += DAY_US  # December.
    assert [use.spent_usd_micros for use in till.books.use(budgets)] == [0, 7, 0]


def test_starts_of_one_decision_see_each_other() -> None:
    """Though none of them is in the log yet."""
    books = Till().books
    budgets = run_of(10)
    for attempt_id, answer in (("x", "start"), ("y", "start"), ("z", "wait")):
        verdict = admit(books, budgets, medium(4))
        assert verdict.answer == answer
        if verdict.answer == "start":
            books.hold(attempt_id, "alpha", "a", verdict.reserve_usd_micros)
    assert tightness(books, budgets, "a") == 0.0  # Most of what is held back may come back.


def test_every_share_of_a_budget_is_told_once() -> None:
    """Those of the run and its tasks as configured, those of the calendar at 50, 75 and 90 %, and when it is spent."""
    till = Till()
    budgets = run_of(100, {"a": 50, "b": 1}, day_usd_micros=200, warning=0.6)
    told = []
    for _ in range(12):
        till.spent(10)
        due = crossings(till.books, budgets)
        till.add(*due)
        told += [(event.scope, getattr(event, "share", 1.0), event.spent_usd_micros) for event in due]
        assert crossings(till.books, budgets) == []
    assert told == [
        ("task:a", 0.6, 30), ("task:a", 0.9, 50), ("task:a", 0.95, 50), ("task:a", 1.0, 50), ("run", 0.6, 60),
        ("run", 0.9, 90), ("run", 0.95, 100), ("run", 1.0, 100), ("day:2026-11-26", 0.5, 100),
    ]  # fmt: skip


def test_only_the_tasks_that_are_named_are_looked_at() -> None:
    """A run of thousands of budgets is not gone through at each tick."""
    till = Till()
    till.spent(10, "a")
    till.spent(10, "b")
    budgets = run_of(None, {"a": 10, "b": 10})
    assert {event.scope for event in crossings(till.books, budgets, ["b", "c"])} == {"task:b"}
    assert {event.scope for event in crossings(till.books, budgets)} == {"task:a", "task:b"}


def test_a_new_day_is_told_anew_and_other_runs_are_not_told_twice() -> None:
    """But for one with a higher limit, which learns of its own."""
    till = Till()
    low, high = run_of(None, day_usd_micros=100), Budgets("beta", BudgetSettings(day_usd_micros=1000))
    till.spent(80)
    till.add(*crossings(till.books, low))
    same = Budgets("beta", BudgetSettings(day_usd_micros=100))
    assert crossings(till.books, same) == []
    assert crossings(till.books, high) == []
    till.spent(420)
    (event,) = crossings(till.books, high)
    assert (event.scope, event.spent_usd_micros) == ("day:2026-11-26", 500)
    till.now_us += DAY_US
    till.spent(60)
    assert [event.scope for event in crossings(till.books, low)] == ["day:2026-11-27"]


def test_another_budget_is_told_of_again() -> None:
    """Who raises it learns at once how far the new one is used."""
    till = Till()
    till.spent(100)
    till.add(*crossings(till.books, run_of(100)))
    till.add(ev.BudgetChanged(scope="run", budget_usd_micros=125))
    assert [getattr(event, "share", None) for event in crossings(till.books, run_of(125))] == [0.75]


def test_attempts_stop_when_what_they_are_seen_to_spend_reaches_a_budget() -> None:
    """All of that budget, and no other."""
    till = Till()
    for attempt_id, task_id, run_id in (("x", "a", "alpha"), ("y", "b", "alpha"), ("z", "a", "beta")):
        till.start(attempt_id, 10, task_id, run_id)
    budgets = run_of(100, {"a": 30})
    till.live = {"x": 29, "y": 70, "z": 1000}
    assert overspent(till.books, budgets) == []
    till.live["x"] = 30
    assert {stop.attempt_id: stop.scope for stop in overspent(till.books, budgets)} == {"x": "task:a", "y": "run"}
    till.live["y"] = 69
    (stop,) = overspent(till.books, budgets)
    assert (stop.attempt_id, stop.task_id, stop.scope) == ("x", "a", "task:a")
    assert stop.why.startswith("the budget of task a is spent")
    days = overspent(till.books, run_of(None, day_usd_micros=1000))
    assert [(stop.attempt_id, stop.scope) for stop in days] == [("x", "day:2026-11-26"), ("y", "day:2026-11-26")]


def test_the_budgets_of_a_run_are_those_of_its_plan_and_what_somebody_made_of_them() -> None:
    """A limit can be taken away, and set where there was none."""
    plan = plan_of(task("a", budget_usd_micros=5), task("b", budget_usd_micros=6), task("c"))
    state = status_fold.initial("alpha")
    state.plan, state.budget_usd_micros = plan, 9
    state.task_budgets = {"b": None, "c": 7}
    found = budgets_of(state)
    assert (found.run_usd_micros, found.tasks, found.settings) == (9, {"a": 5, "c": 7}, plan.budgets)
    assert found.limited
    assert not run_of(None).limited
    assert not run_of(5, enabled=False).limited
    assert run_of(None, month_usd_micros=1).limited


def test_money_and_shares_are_said_as_people_read_them() -> None:
    """Little of it to the hundredth of a cent; a share is never rounded up to all of it."""
    assert [usd(micros) for micros in (0, 123_450, 12_345_678)] == ["$0.00", "$0.1235", "$12.35"]
    assert [percent(share) for share in (0.9, 0.9999, 1.0)] == ["90 %", "99 %", "100 %"]
    assert words_of("week:2026-W48") == "the budget of week 2026-W48 (UTC)"


MICROS = st.integers(0, 300)
STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "start", "end", "live"]), st.integers(0, 2), st.integers(0, 1), MICROS),
    max_size=30,
)
QUICK = hypothesis_settings(max_examples=examples(100), deadline=None)


@QUICK
@given(STEPS, st.integers(0, 500), st.integers(1, 300), st.integers(1, 600))
def test_attempts_that_run_side_by_side_never_hold_more_than_any_budget(
    steps: list[tuple[str, int, int, int]], of_run: int, of_task: int, of_day: int
) -> None:
    """In any order of starts and ends of two runs, if none costs more than it reserved; and nobody has to be stopped."""
    till = Till()
    settings = BudgetSettings(day_usd_micros=of_day, by_priority=False)
    runs = {name: Budgets(name, settings, of_run, {"t1": of_task}) for name in ("alpha", "beta")}
    for number, (what, task_number, run_number, micros) in enumerate(steps):
        run_id = ("alpha", "beta")[run_number]
        running = list(till.spend.running)
        if what == "start":
            task_id, attempt_id = f"t{task_number}", f"x{number}"
            verdict = admit(till.books, runs[run_id], Candidate(task_id, "low", micros))
            if verdict.answer == "start":
                assert verdict.reserve_usd_micros is not None
                till.start(attempt_id, verdict.reserve_usd_micros, task_id, run_id)
            else:
                assert verdict.why
        elif running:
            attempt_id = running[task_number % len(running)]
            held = till.spend.running[attempt_id]
            cost = min(micros, held.reserved_usd_micros or 0)
            if what == "end":
                till.end(attempt_id, cost, held.run_id)
            elif cost < (held.reserved_usd_micros or 0):
                till.live[attempt_id] = max(cost, till.live.get(attempt_id, 0))
        for name, budgets in runs.items():
            for use in till.books.use(budgets):
                assert use.rest_usd_micros >= 0, (name, use)
            assert overspent(till.books, budgets) == []


@QUICK
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 400)), min_size=1, max_size=8),
    st.lists(st.integers(0, 25), max_size=60),
    st.integers(1, 300),
)
def test_a_budget_is_overshot_by_at_most_one_call_of_each_agent_that_runs(
    attempts: list[tuple[int, int]], calls: list[int], limit: int
) -> None:
    """However wrong the estimates were: after each call of a model it is looked who has to stop."""
    till, budgets, at_once, dearest = Till(), run_of(limit, by_priority=False), 0, max(calls, default=0)
    waiting = [Candidate(f"t{number}", "low", expected) for number, (expected, _) in enumerate(attempts)]
    needs = {f"t{number}": need for number, (_, need) in enumerate(attempts)}
    while waiting or till.spend.running:
        for candidate in list(waiting):
            verdict = admit(till.books, budgets, candidate)
            if verdict.answer == "start":
                till.start(candidate.task_id, verdict.reserve_usd_micros, candidate.task_id)
                waiting.remove(candidate)
        if not till.spend.running:
            assert {admit(till.books, budgets, candidate).answer for candidate in waiting} <= {"spent"}
            break
        at_once = max(at_once, len(till.spend.running))
        for name in till.spend.running:  # Each makes a call, and all of them are charged before anybody looks.
            till.live[name] = till.live.get(name, 0) + (calls.pop() if calls else 1)
        stops = {stop.attempt_id for stop in overspent(till.books, budgets)}
        for name in list(till.spend.running):
            if name in stops or till.live[name] >= needs[name]:
                till.end(name, till.live[name])
    assert till.spend.by_run["alpha"] < limit + max(dearest, 1) * max(at_once, 1)


@QUICK
@given(st.lists(st.tuples(MICROS, st.booleans()), max_size=20), st.integers(1, 500))
def test_a_share_is_told_once_and_nothing_is_stopped_below_its_budget(
    spends: list[tuple[int, bool]], limit: int
) -> None:
    """Whatever is charged, and seen to be spent by what runs."""
    till = Till()
    budgets = run_of(limit)
    told: list[float] = []
    till.start("x", 1)
    for micros, ends in spends:
        if ends:
            till.spent(micros)
        else:
            till.live["x"] = till.live.get("x", 0) + micros
        due = crossings(till.books, budgets)
        till.add(*due)
        told += [getattr(event, "share", 1.0) for event in due]
        spent = till.spend.by_run["alpha"] + till.live.get("x", 0)
        assert bool(overspent(till.books, budgets)) == (spent >= limit)
        assert sorted(told) == [share for share in (0.75, 0.9, 0.95, 1.0) if spent >= share * limit]


@QUICK
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000), st.booleans())
def test_a_higher_budget_lets_things_go_on(spent: int, limit: int, more: int, by_priority: bool) -> None:
    """Unless that one is nearly spent as well; and no budget is ever so high that something has to wait for nothing."""
    till = Till()
    till.spent(spent, "b")
    raised = run_of(max(spent, limit) * 2 + more, by_priority=by_priority)
    verdict = admit(till.books, raised, medium(5))
    assert verdict.answer == "start"
    before = admit(till.books, run_of(limit, by_priority=by_priority), medium(5))
    assert before.answer in ("start", "put_off", "spent")
    assert (before.answer == "spent") == (spent >= limit)
