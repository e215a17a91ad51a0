"""What the money of a run went to: every charge with what became of the work that it paid for."""

from __future__ import annotations

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import cost as cost_fold
from parallel_agents.projections.bill import FATES, bill, fates_of, grouped, total
from parallel_agents.projections.cost import Cost

HOUR_US = 3_600_000_000


def history(*events: ev.Event, run_id: str = "alpha") -> list[Recorded]:
    """Events with the seqs 1, 2, 3, an hour apart."""
    return [Recorded(n, run_id, n, n * HOUR_US, "ana", event) for n, event in enumerate(events, 1)]


def start(task_id: str, number: int = 1) -> ev.TaskStarted:
    """The start of ``a1``, the first attempt of ``a``."""
    return ev.TaskStarted(task_id=task_id, attempt_id=f"{task_id}{number}", attempt=number, runner="claude")


def done(task_id: str, number: int = 1) -> ev.TaskCompleted:
    """Its good end."""
    return ev.TaskCompleted(task_id=task_id, attempt_id=f"{task_id}{number}", duration_s=1.0)


def failed(task_id: str, number: int = 1) -> ev.TaskFailed:
    """Its bad end."""
    return ev.TaskFailed(task_id=task_id, attempt_id=f"{task_id}{number}", duration_s=1.0, error="no")


def charge(task_id: str, micros: int | None, number: int = 1, **fields: object) -> ev.CostCharged:
    """What it has cost."""
    given = {"source": "unknown" if micros is None else "agent", "agent_type": "tester", "model": "haiku", **fields}
    return ev.CostCharged.model_validate(
        {"task_id": task_id, "attempt_id": f"{task_id}{number}", "usd_micros": micros, **given}
    )


BLOCKED = ev.TaskBlocked(task_id="a", attempt_id="a1", reason="conflict", commit="c")
REQUEUED = ev.TaskQueued(task_id="a", reason="rolled_back")
DISCARDED = ev.ResultDiscarded(task_id="a", attempt_id="a1", reason="undone")


@pytest.mark.parametrize(
    ("events", "fate"),
    [
        ([start("a")], "unsettled"),
        ([start("a"), done("a")], "useful"),
        ([start("a"), failed("a")], "failed"),
        ([start("a"), ev.TaskTimedOut(task_id="a", attempt_id="a1", duration_s=1, timeout_s=1, error="x")], "failed"),
        ([start("a"), ev.TaskCancelled(task_id="a", attempt_id="a1")], "failed"),
        ([start("a"), ev.AttemptLost(task_id="a", attempt_id="a1", error="x")], "failed"),
        ([start("a"), failed("a"), start("a", 2), done("a", 2)], "failed"),
        ([start("a"), BLOCKED], "unsettled"),
        ([start("a"), BLOCKED, done("a")], "useful"),
        ([start("a"), BLOCKED, ev.TaskUnblocked(task_id="a"), start("a", 2)], "failed"),
        ([start("a"), BLOCKED, ev.TaskCancelled(task_id="a")], "failed"),
        ([start("a"), done("a"), ev.TaskReopened(task_id="a"), start("a", 2), done("a", 2)], "failed"),
        ([ev.RunStarted(), start("a"), done("a"), ev.RunRolledBack(to_seq=1)], "undone"),
        ([start("a"), done("a"), ev.RunRolledBack(to_seq=1), REQUEUED], "undone"),
        ([start("a"), ev.RunRolledBack(to_seq=1), REQUEUED], "undone"),
        ([start("a"), ev.RunRolledBack(to_seq=1), REQUEUED, DISCARDED], "discarded"),
        ([start("a"), ev.RunRolledBack(to_seq=1), REQUEUED, start("a", 2), DISCARDED], "discarded"),
        ([ev.RunStarted(), start("a"), ev.RunRolledBack(to_seq=1), DISCARDED], "discarded"),
        ([start("a"), done("a"), ev.RunRolledBack(to_seq=1), REQUEUED, ev.RunRolledBack(to_seq=2)], "useful"),
    ],
)
def test_what_became_of_the_work_of_an_attempt(events: list[ev.Event], fate: str) -> None:
    """Going back to what was undone makes it count again."""
    assert fates_of(history(*events))["a1"] == fate
    (line,) = bill(history(*events, charge("a", 5)))
    assert (line.fate, line.charge.usd_micros) == (fate, 5)


def test_a_charge_of_an_attempt_that_nobody_knows_is_unsettled() -> None:
    """It is paid for all the same."""
    (line,) = bill(history(charge("a", 7)))
    assert line.fate == "unsettled"


def story() -> list[Recorded]:
    """Two tasks on two models; the second was tried twice, once at an unknown price."""
    return history(
        start("a"), charge("a", 100, input_tokens=10, output_tokens=5, calls=2, cache_read_tokens=7), done("a"),
        start("b"), charge("b", None, model=None, runner="custom", input_tokens=3, calls=1, partial=True), failed("b"),
        start("b", 2), charge("b", 40, 2, model="opus", source="estimated", calls=1, cache_write_tokens=2), done("b", 2),
    )  # fmt: skip


def test_the_sum_of_a_bill_counts_the_unknown_apart() -> None:
    """It is in no sum of money, and its tokens are in those of tokens."""
    amount = total(bill(story()))
    assert (amount.usd_micros, amount.estimated_usd_micros, amount.wasted_usd_micros) == (140, 40, 0)
    assert (amount.input_tokens, amount.output_tokens, amount.calls, amount.cut_off) == (13, 5, 4, {"b1"})
    assert (amount.cache_read_tokens, amount.cache_write_tokens) == (7, 2)
    assert (amount.attempts, amount.unknown) == ({"a1", "b1", "b2"}, {"b1"})
    assert amount.fates == {"useful": 140}


def test_an_attempt_of_which_only_a_part_is_known_is_of_unknown_cost() -> None:
    """Two charges, one attempt; what is known of it counts."""
    amount = total(bill(history(start("a"), charge("a", 60), charge("a", None, model="other"), failed("a"))))
    assert (amount.usd_micros, amount.unknown, amount.wasted_usd_micros) == (60, {"a1"}, 60)


@pytest.mark.parametrize(
    ("by", "sums"),
    [
        ("agent", {"tester": 140}),
        ("model", {"haiku": 100, "opus": 40, "unknown": 0}),
        ("task", {"a": 100, "b": 40}),
        ("day", {"1970-01-01": 140}),
        ("run", {"alpha": 140}),
    ],
)
def test_a_bill_is_split_up(by: str, sums: dict[str, int]) -> None:
    """The dearest first."""
    groups = grouped(bill(story()), by)
    assert list({name: amount.usd_micros for name, amount in groups.items()}.items()) == list(sums.items())


def test_days_come_in_their_order_and_are_utc() -> None:
    """Not the dearest first."""
    lines = bill(history(*[charge("a", micros) for micros in range(30)]))
    assert [(day, amount.usd_micros) for day, amount in grouped(lines, "day").items()] == [
        ("1970-01-01", sum(range(23))),
        ("1970-01-02", sum(range(23, 30))),
    ]


def test_runs_come_in_theirs() -> None:
    """Oldest first, as they are given."""
    lines = bill(history(charge("a", 1), run_id="old")) + bill(history(charge("a", 9), run_id="new"))
    assert {run: amount.usd_micros for run, amount in grouped(lines, "run").items()} == {"old": 1, "new": 9}


def test_whatever_becomes_of_the_work_all_of_the_money_is_told() -> None:
    """The fates of a sum add up to it."""
    amount = total(bill(story()))
    assert sum(amount.fates.values()) == amount.usd_micros == 140
    assert amount.fates.keys() <= FATES.keys()


def test_a_charge_of_an_older_release_is_counted_from_its_body() -> None:
    """It knew neither caches nor where a figure comes from, and was always sure."""
    cost = Cost()
    body = {"task_id": "a", "attempt_id": "x", "usd_micros": 7, "model": None, "agent_type": "", "input_tokens": 3,
            "output_tokens": 2, "calls": 1, "partial": True}  # fmt: skip
    cost_fold.charge(cost, body)
    assert (cost.usd_micros, cost.estimated_usd_micros, cost.input_tokens, cost.partial) == (7, 0, 3, True)
    assert (cost.by_task, cost.unknown) == ({"a": 7}, {})
