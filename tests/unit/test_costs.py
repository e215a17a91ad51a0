"""What was spent, as data, as a page and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from dispatching import Scene
from paper import plan_of, task

from parallel_agents import costs, look
from parallel_agents.cli.cost_page import cost_page, count, fates_bar, write_csv
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import UnknownRun
from parallel_agents.eventstore.submission import BudgetSettings


def charge(task_id: str, attempt_id: str, micros: int | None, **fields: Any) -> ev.CostCharged:
    """A charge, estimated or reported."""
    return ev.CostCharged(task_id=task_id, attempt_id=attempt_id, usd_micros=micros, **fields)


def story(scene: Scene) -> str:
    """Two tasks; the first was done twice, the second is done, and a third runs."""
    run_id = scene.submit(
        plan=plan_of(
            task("a", max_retries=1, budget_usd_micros=3_000_000), task("b"), task("c")
        ).model_copy(update={"budgets": BudgetSettings(day_usd_micros=9_000_000)})
    )  # fmt: skip
    scene.tick()
    first, second, third = (scene.runner.launched[index].attempt_id for index in range(3))
    scene.append(run_id, charge("a", first, 500_000, model="haiku", agent_type="tester", input_tokens=1200, calls=2))
    scene.runner.end("a", error="exit code 1")
    scene.append(run_id, charge("b", second, 1_000_000, model="opus", agent_type="architect", source="estimated",
                                output_tokens=5, cache_read_tokens=2_500_000, calls=3, runner="codex", prices="0.2"))  # fmt: skip
    scene.runner.end("b")
    scene.append(run_id, charge("c", third, None, source="unknown", partial=True, calls=1))
    scene.tick()
    return run_id


def test_the_cost_of_a_run_is_told_with_what_it_went_to(scene: Scene) -> None:
    """What nobody knows is counted, and in no sum."""
    run_id = story(scene)
    found = costs.cost(scene.log, run_id)
    assert (found["run_id"], found["cost_usd"], found["unknown_attempts"], found["attempts"]) == (run_id, 1.5, 1, 3)
    assert (found["reported_usd"], found["estimated_usd"], found["partial"], found["partial_attempts"]) == (
        0.5,
        1.0,
        True,
        1,
    )
    fates = {name: found[f"{name}_usd"] for name in costs.FATES}
    assert fates == {"useful": 1.0, "failed": 0.5, "undone": 0.0, "discarded": 0.0, "unsettled": 0.0}
    assert found["wasted_usd"] == 0.5
    assert (found["input_tokens"], found["output_tokens"], found["calls"]) == (1200, 5, 6)
    assert (found["cache_read_tokens"], found["cache_write_tokens"]) == (2_500_000, 0)
    assert (look.status(scene.log, run_id)["cost_usd"], look.status(scene.log, run_id)["unknown_attempts"]) == (1.5, 1)


def test_a_rollback_takes_back_work_and_no_money(scene: Scene) -> None:
    """Then more of it is waste; a past moment is told as it was."""
    run_id = story(scene)
    before = scene.log.last_seq()
    scene.append(run_id, ev.RunRolledBack(to_seq=1), ev.RunPaused())
    found = costs.cost(scene.log, run_id)
    assert (found["cost_usd"], found["undone_usd"], found["useful_usd"]) == (1.5, 1.5, 0.0)
    assert costs.cost(scene.log, run_id, upto=before)["useful_usd"] == 1.0
    assert costs.cost(scene.log, run_id, upto=2)["cost_usd"] == 0.0
    with pytest.raises(UnknownRun):
        costs.cost(scene.log, "nobody")
    with pytest.raises(UnknownRun):
        costs.lines(scene.log, "nobody")


def test_budgets_are_told_with_what_is_left_of_them(scene: Scene) -> None:
    """As the scheduler sees them; those of the calendar count all runs."""
    run_id = story(scene)
    scene.append(run_id, ev.BudgetChanged(scope="run", budget_usd_micros=2_000_000))
    found = costs.cost(scene.log, run_id, upto=scene.log.last_seq())  # Then it is the day of the history.
    assert (found["budget_usd"], found["left_usd"]) == (2.0, 0.5)
    assert [(one["scope"][:4], one["budget_usd"], one["spent_usd"], one["left_usd"]) for one in found["budgets"]] == [
        ("task", 3.0, 0.5, 2.5), ("run", 2.0, 1.5, 0.5), ("day:", 9.0, 1.5, 7.5),
    ]  # fmt: skip
    scene.append(run_id, ev.BudgetChanged(scope="run", budget_usd_micros=1_000_000))
    assert costs.cost(scene.log, run_id)["left_usd"] == 0.0
    assert costs.cost(scene.log, run_id)["budgets"][2]["spent_usd"] == 0.0  # Today nothing was spent.


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("agent", {"architect": 1.0, "tester": 0.5, "unknown": 0.0}),
        ("model", {"opus": 1.0, "haiku": 0.5, "unknown": 0.0}),
        ("task", {"b": 1.0, "a": 0.5, "c": 0.0}),
        ("day", {"2023-11-14": 1.5}),
    ],
)
def test_a_cost_is_split_up(scene: Scene, by: str, groups: dict[str, float]) -> None:
    """The dearest first."""
    found = costs.cost(scene.log, story(scene), by)
    assert found["by"] == by
    assert [(group[by], group["cost_usd"]) for group in found["groups"]] == list(groups.items())
    assert sum(group["unknown_attempts"] for group in found["groups"]) == 1


def test_the_whole_store_is_split_up_by_run(scene: Scene) -> None:
    """With the names of the runs that have cost anything."""
    first = story(scene)
    second = scene.submit(task("z"))
    scene.submit(task("free"))
    scene.append(second, charge("z", "z1", 250_000))
    found = costs.cost(scene.log, None, "run")
    assert (found["run_id"], found["cost_usd"], found["budget_usd"], found["budgets"]) == (None, 1.75, None, [])
    assert [(group["run"], group["cost_usd"]) for group in found["groups"]] == [(first, 1.5), (second, 0.25)]
    assert [group["status"] for group in found["groups"]] == ["running", "submitted"]
    assert costs.cost(scene.log, first, "run")["groups"][0]["cost_usd"] == 1.5
    assert {line["run_id"] for line in costs.lines(scene.log, None)} == {first, second}


def test_every_charge_is_a_line(scene: Scene) -> None:
    """Of an unknown one the price is none, and not nothing."""
    lines = costs.lines(scene.log, story(scene))
    assert [tuple(line) for line in lines] == [costs.LINE_FIELDS] * 3
    assert [(line["task_id"], line["usd"], line["source"], line["fate"]) for line in lines] == [
        ("a", 0.5, "agent", "failed"), ("b", 1.0, "estimated", "useful"), ("c", None, "unknown", "unsettled"),
    ]  # fmt: skip
    assert lines[1]["prices"] == "0.2"


def page(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed where nobody looks."""
    cost_page(found, "run x")
    return capsys.readouterr().out


def test_a_page_says_loudly_what_it_does_not_know(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """In its first words; waste stands apart."""
    run_id = story(scene)
    text = page(costs.cost(scene.log, run_id, "model", scene.log.last_seq()), capsys)
    assert text.startswith("at least $1.50  run x\n")
    assert "1 attempt of unknown cost: in no sum of money here; budgets count it as what was reserved\n" in text
    assert "1 attempt cut off" in text
    assert "useful $1.00  failed $0.5000\n" in text
    assert "1.2k tokens in, 5 out, 2.50M from cache, 0 to cache; 6 calls, 3 attempts" in text
    assert "$1.00 of it estimated" in text
    rows = [
        line.split()
        for line in text.splitlines()
        if line.startswith(("opus", "haiku", "unknown", "MODEL", "task:", "day:"))
    ]
    assert rows == [
        ["task:a", "$3.00", "$0.5000", "$0.00", "$2.50"],
        ["day:2023-11-14", "$9.00", "$1.50", "$0.00", "$7.50"],
        ["MODEL", "COST", "WASTED", "TRIES", "CALLS", "IN", "OUT", "CACHED"],
        ["opus", "$1.00", "–", "1", "3", "0", "5", "2.50M"],
        ["haiku", "$0.5000", "$0.5000", "1", "2", "1.2k", "0", "0"],
        ["unknown", "unknown", "–", "1", "1", "0", "0", "0"],
    ]  # fmt: skip
    assert "█" not in text


def test_calls_that_no_client_tells_are_not_none(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Codex tells tokens, and not in how many calls."""
    run_id = scene.submit(task("a"))
    scene.append(run_id, charge("a", "x", 5, model="gpt", input_tokens=7))
    assert "7 tokens in, 0 out; calls that nobody counts, 1 attempt" in page(costs.cost(scene.log, run_id), capsys)
    assert [line["calls"] for line in costs.lines(scene.log, run_id)] == [None]
    scene.append(run_id, charge("a", "y", 5, model="opus", input_tokens=7, calls=2))
    found = costs.cost(scene.log, run_id, "model")
    assert (found["calls"], found["uncounted_attempts"]) == (2, 1)
    text = page(found, capsys)
    assert "; at least 2 calls, 2 attempts" in text
    rows = {line.split()[0]: line.split()[4] for line in text.splitlines() if line.startswith(("gpt", "opus"))}
    assert rows == {"gpt": "–", "opus": "2"}


def test_a_page_says_how_much_is_left(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Or how far it went over."""
    run_id = story(scene)
    scene.append(run_id, ev.BudgetChanged(scope="run", budget_usd_micros=6_000_000))
    assert page(costs.cost(scene.log, run_id), capsys).startswith("at least $1.50 of $6.00, $4.50 left")
    scene.append(run_id, ev.BudgetChanged(scope="run", budget_usd_micros=1_250_000))
    assert page(costs.cost(scene.log, run_id), capsys).startswith("at least $1.50 of $1.25, $0.2500 over it")


@pytest.mark.parametrize(
    ("usefully", "wasted", "full", "bar"),
    [
        (5.0, 0.0, 10.0, "█████░░░░░"),
        (4.0, 2.0, 10.0, "██████░░░░"),
        (9.0, 3.0, 10.0, "██████████"),
        (0.0, 0.0, 0.0, "░" * 10),
    ],
)
def test_a_bar_shows_what_the_money_went_to(usefully: float, wasted: float, full: float, bar: str) -> None:
    """As a part of the budget; of what went over it, all of its width."""
    found = {f"{fate}_usd": 0.0 for fate in costs.FATES} | {"useful_usd": usefully, "failed_usd": wasted}
    text = fates_bar({**found, "cost_usd": usefully + wasted}, full, 10)
    assert text.plain == bar
    if usefully + wasted:
        green = next(span for span in text.spans if span.style == "green")
        assert green.end - green.start == round(10 * usefully / max(full, usefully + wasted))


def test_nothing_spent_is_a_short_page(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert page(costs.cost(scene.log, scene.submit(task("a")), "agent"), capsys) == "$0.00  run x\n"


def test_csv_leaves_empty_what_nobody_knows(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """And takes whatever stands in a name."""
    run_id = scene.submit(task("a"))
    scene.append(run_id, charge("a", "x", None, agent_type='odd, "name"', source="unknown"), charge("a", "x", 1))
    write_csv(costs.LINE_FIELDS, costs.lines(scene.log, run_id))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["agent_type"], row["usd"], row["partial"]) for row in rows] == [
        ('odd, "name"', "", "false"), ("", "0.000001", "false"),
    ]  # fmt: skip
    write_csv(("task", *costs.AMOUNT_FIELDS), costs.cost(scene.log, run_id, "task")["groups"])
    (group,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (group["task"], group["cost_usd"], group["unknown_attempts"]) == ("a", "0.000001", "1")


def test_numbers_of_tokens_are_said_as_people_read_them() -> None:
    """Rounded to three digits or so."""
    assert [count(number) for number in (0, 999, 1000, 12_345, 999_949, 999_951, 4_500_000)] == [
        "0", "999", "1.0k", "12.3k", "999.9k", "1.00M", "4.50M",
    ]  # fmt: skip
