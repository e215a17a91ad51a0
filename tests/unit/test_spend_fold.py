"""What the whole store has spent, holds back and has told, and which providers let nobody work."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import spend as spend_fold
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.spend import DAY_US, Held, Period, Spend, days_of, in_period, period_name, waiting

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMATS: dict[Period, str] = {"day": "day:%Y-%m-%d", "week": "week:%G-W%V", "month": "month:%Y-%m"}


def spend(*events: ev.Event | tuple[str, ev.Event], at_us: int = 1_000_000) -> Spend:
    """After events of the run ``alpha``, or of the run that is named with one."""
    state = Spend()
    for n, given_ in enumerate(events, 1):
        run_id, event = given_ if isinstance(given_, tuple) else ("alpha", given_)
        spend_fold.fold(state, Recorded(n, run_id, n, at_us, "ana", event))
    return state


def start(attempt_id: str, reserved: int | None) -> ev.TaskStarted:
    """An attempt of the task ``a``."""
    return ev.TaskStarted(
        task_id="a", attempt_id=attempt_id, attempt=1, runner="claude", reserved_usd_micros=reserved
    )  # fmt: skip


def charge(attempt_id: str, micros: int | None) -> ev.CostCharged:
    """What it has cost."""
    return ev.CostCharged(task_id="a", attempt_id=attempt_id, usd_micros=micros)


def test_charges_are_summed_by_run_task_and_day() -> None:
    """Over all runs."""
    state = spend(charge("x", 5), ("beta", charge("y", 7)), charge("z", 1), at_us=3 * DAY_US + 5)
    assert (state.by_run, state.by_day) == (Counter(alpha=6, beta=7), Counter({3: 13}))
    assert state.by_task == Counter({("alpha", "a"): 6, ("beta", "a"): 7})


@pytest.mark.parametrize(
    "end",
    [
        ev.TaskCompleted(task_id="a", attempt_id="x", duration_s=1.0),
        ev.TaskFailed(task_id="a", attempt_id="x", duration_s=1.0, error="no"),
        ev.TaskTimedOut(task_id="a", attempt_id="x", duration_s=1.0, timeout_s=1.0, error="no"),
        ev.TaskCancelled(task_id="a", attempt_id="x"),
        ev.AttemptLost(task_id="a", attempt_id="x", error="gone"),
        ev.TaskBlocked(task_id="a", attempt_id="x", reason="conflict"),
        ev.ResultDiscarded(task_id="a", attempt_id="x", reason="undone"),
    ],
)
def test_a_reservation_is_held_from_the_start_of_an_attempt_to_its_end(end: ev.Event) -> None:
    """However it ends; a rollback between does not free it."""
    begun = [start("x", 500), start("other", None), ev.RunRolledBack(to_seq=1)]
    assert spend(*begun).running == {"x": Held("alpha", "a", 500), "other": Held("alpha", "a", None)}
    assert set(spend(*begun, charge("x", 400), end).running) == {"other"}


def test_an_end_without_an_attempt_frees_nothing() -> None:
    """A task that was never started can be cancelled and blocked too."""
    state = spend(start("x", 5), ev.TaskCancelled(task_id="b"), ev.TaskBlocked(task_id="b", reason="approval"))
    assert set(state.running) == {"x"}


def test_an_unknown_cost_is_bounded_by_the_reservation_of_its_attempt() -> None:
    """Once, and less what is known of it."""
    state = spend(start("x", 500), charge("x", 120), charge("x", None), charge("x", None))
    assert (state.by_run["alpha"], state.assumed_by_run["alpha"], state.unknown_by_run["alpha"]) == (500, 380, 2)
    assert state.rest == {}


def test_it_does_not_matter_whether_an_attempt_is_charged_before_or_after_its_end() -> None:
    """One commit holds both."""
    end = ev.TaskFailed(task_id="a", attempt_id="x", duration_s=1.0, error="no")
    assert spend(start("x", 500), charge("x", None), end) == spend(start("x", 500), end, charge("x", None))
    assert spend(start("x", 500), end, charge("x", None)).by_run["alpha"] == 500


def test_an_unknown_cost_that_nobody_expected_is_counted_and_not_made_up() -> None:
    """Without a reservation there is nothing to go by."""
    state = spend(start("x", None), charge("x", None))
    assert (state.by_run["alpha"], state.unknown_by_run["alpha"]) == (0, 1)


def test_what_was_told_is_remembered_until_the_budget_is_changed() -> None:
    """By run; of a day, week or month for all runs."""
    told = ev.BudgetThresholdReached(scope="run", share=0.75, spent_usd_micros=80)
    day = ev.BudgetThresholdReached(scope="day:2026-11-26", share=0.5, spent_usd_micros=50)
    spent = ev.BudgetExceeded(scope="task:a", spent_usd_micros=101, budget_usd_micros=100)
    state = spend(told, ("beta", told), day, spent)
    assert state.told == {
        ("alpha", "run", 0.75): 80, ("beta", "run", 0.75): 80, ("", "day:2026-11-26", 0.5): 50, ("alpha", "task:a", 1.0): 101,
    }  # fmt: skip
    state = spend(told, ("beta", told), day, spent, ev.BudgetChanged(scope="run", budget_usd_micros=200))
    assert ("alpha", "run", 0.75) not in state.told
    assert len(state.told) == 3


def test_a_provider_lets_nobody_work_until_its_time_or_until_it_is_freed() -> None:
    """Its count is kept while its time is over: the next guess grows with it."""
    limited = ev.ProviderLimited(
        provider="anthropic", kind="usage_limit", until="1970-01-01T00:01:00Z", stated=True, count=2, reason="weekly"
    )
    state = spend(("store", limited))
    assert [(name, wait.kind, wait.count) for name, wait in waiting(state, 59_999_999)] == [
        ("anthropic", "usage_limit", 2)
    ]
    assert list(waiting(state, 60_000_000)) == []
    assert state.waits["anthropic"].stated
    assert spend(("store", limited), ("store", ev.ProviderFreed(provider="anthropic"))).waits == {}


@given(st.integers(0, 40_000), st.integers(0, DAY_US - 1))
def test_days_weeks_and_months_are_those_of_the_calendar(day: int, of_day_us: int) -> None:
    """UTC; weeks are those of ISO 8601."""
    at_us = day * DAY_US + of_day_us
    moment = EPOCH + timedelta(days=day)
    for period, format_ in FORMATS.items():
        assert period_name(period, at_us) == moment.strftime(format_)
        days = days_of(period, at_us)
        around = range(day - 40, day + 40)
        named = {other: (EPOCH + timedelta(days=other)).strftime(format_) for other in around}
        same = [other for other in around if named[other] == named[day]]
        assert list(days) == same
        state = Spend(by_day=Counter({days[0] - 1: 1, days[0]: 10, days[-1] + 1: 100}))
        state.by_day[days[-1]] += 1000
        assert in_period(state, period, at_us) == 1010


SUBMITTED = ev.RunSubmitted(
    name="n", plan_digest="d" * 64, task_count=1, strategy="concurrent", workspace="none", workdir="/"
)


def test_the_spending_of_a_store_is_read_from_its_rows(tmp_path: Path) -> None:
    """An attempt of a run that has ended holds nothing back; what an unknown charge of it stands for counts all the same."""
    with Log(tmp_path / "events.db", clock=lambda: 5 * DAY_US, environ={}) as log:
        log.append("alpha", 0, [SUBMITTED, start("x", 9), charge("x", 4), start("y", None), charge("y", 2)])
        log.append("store", 0, [ev.ProviderLimited(provider="openai", kind="overload", until="2026-11-26T12:00:00Z")])
        ended = ev.TaskFailed(task_id="a", attempt_id="z", duration_s=1, error="no")
        log.append(
            "beta", 0, [SUBMITTED, start("z", 30), charge("z", None), ended, ev.RunFailed(counts={}, failed=["a"])]
        )
        state = Projector(log).spend()
        expected = Spend()
        for record in log.read():
            spend_fold.fold(expected, record)
        assert state == expected
        assert (set(state.running), state.by_run, set(state.waits)) == (
            {"x", "y"},
            Counter(alpha=6, beta=30),
            {"openai"},
        )
        assert state.rest == {"x": 5}
        assert set(Projector(log).spend(3).running) == {"x"}


def test_the_start_of_an_older_release_has_reserved_nothing(tmp_path: Path) -> None:
    """It did not know the field."""
    with Log(tmp_path / "events.db", environ={}) as log:
        log.append("alpha", 0, [start("x", 9)])
        older = '{"task_id":"a","attempt_id":"o","attempt":1,"runner":"shell"}'
        row = next(log.rows())._replace(body=older)
        assert spend_fold.fold_row(Spend(), row).running == {"o": Held("alpha", "a", None)}
