"""What a task is expected to take and to cost: where that comes from, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.record import new_id
from parallel_agents.eventstore.submission import AgentSettings, Task
from parallel_agents.expectations import (
    NOBODY_KNOWS,
    SECONDS,
    USD,
    TaskExpectation,
    _from,
    expect_task,
    usd_micros,
)
from parallel_agents.past_attempts import Past, Sample, read_past
from parallel_agents.scheduler.agents.models import Choice

API = Task(task_id="api", agent_type="api-engineer", runner="claude")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An empty store."""
    with Log(tmp_path / "events.db", environ={}) as opened:
        yield opened


def attempt(
    task_id: str, seconds: float, usd: float | None = 1.0, *, agent_type: str = "api-engineer", model: str = "sonnet",
    end: str = "", partial: bool = False, role: str = "",
) -> list[Event]:  # fmt: skip
    """The events of one attempt of an agent."""
    names = {"task_id": task_id, "attempt_id": new_id()}
    micros = None if usd is None else round(usd * 1e6)
    return [
        ev.TaskStarted(**names, attempt=1, runner="claude", model=model, role=role),
        ev.TaskFailed(**names, duration_s=seconds, error="x", kind=end)
        if end
        else ev.TaskCompleted(**names, duration_s=seconds),
        ev.CostCharged(**names, usd_micros=micros, agent_type=agent_type, partial=partial),
    ]


def ran(log: Log, *events: list[Event], name: str = "checkout") -> str:
    """A run of that plan with these attempts."""
    run_id = new_id()
    submitted = ev.RunSubmitted(
        name=name, plan_digest="x", task_count=1, strategy="concurrent", workspace="none", workdir="/"
    )  # fmt: skip
    log.append(run_id, 0, [submitted, *(event for few in events for event in few)])
    return run_id


def expected(log: Log, task: Task = API, **settings: Any) -> TaskExpectation:
    return expect_task(task, AgentSettings(**settings), read_past(log, "checkout"))


def test_the_tasks_own_history_comes_first(log: Log) -> None:
    """Of runs of the same plan: the geometric mean of what it took and cost."""
    ran(log, attempt("api", 100, 1.0), attempt("api", 400, 4.0), attempt("web", 9, 9))
    ran(log, attempt("api", 7, 7), name="another plan")
    found = expected(log)
    assert found.seconds.value == pytest.approx(200)
    assert found.usd is not None
    assert found.usd.value == pytest.approx(2)
    assert (found.seconds.source, found.seconds.samples) == ("2 attempts of this task", 2)
    assert found.usd.basis == "task"
    assert usd_micros(found.usd) == 2_000_000


def test_then_comes_that_of_its_type_then_the_prior(log: Log) -> None:
    """What the plan says of a duration is believed before what others of its type took."""
    found = expected(log)
    assert found.usd is not None
    assert (found.seconds.basis, found.usd.basis) == ("prior", "prior")
    assert found.seconds.value == SECONDS.median
    ran(log, attempt("other", 50, 3.0), name="another plan")
    found = expected(log)
    assert found.seconds.value == pytest.approx(50)
    assert found.seconds.source == "1 attempt of api-engineer"
    stated = expected(log, API.model_copy(update={"expected_s": 5.0}))
    assert (stated.seconds.value, stated.seconds.basis) == (5.0, "plan")
    assert stated.usd == found.usd


def test_what_another_model_cost_is_converted_at_their_prices(log: Log) -> None:
    """Where the model has no history of its own, and only where both prices are known."""
    ran(log, attempt("api", 10, 4.0, model="opus"))
    found = expected(log)
    assert found.usd is not None
    assert (found.usd.value, found.usd.source) == (pytest.approx(2.0), "1 attempt of this task at another price")
    ran(log, attempt("api", 10, 5.0))
    found = expected(log)
    assert found.usd is not None
    assert found.usd.value == pytest.approx(5.0)
    named = expected(log, API.model_copy(update={"model": "claude-sonnet-4-6"}))  # 3 and 15 dollars, sonnet 2 and 10.
    assert named.usd is not None
    assert named.usd.value == pytest.approx(math.sqrt(3 * 7.5))  # Of 4.0 by opus and 5.0 by sonnet, as above.
    other = expected(log, API.model_copy(update={"model": "of-its-own"}))
    assert other.usd is not None
    assert (other.usd.basis, other.usd.value) == ("prior", USD.median)
    assert other.usd.level_sd > USD.level_sd


def test_an_alias_that_leads_elsewhere_has_the_price_of_where_it_leads(log: Log) -> None:
    """The configuration extends the table; claude-opus-4-8 costs 5 and 25 dollars."""
    found = expected(log, models={"sonnet": {"claude": "claude-opus-4-8"}})
    assert found.usd is not None
    assert found.usd.value == pytest.approx(USD.median * 2.5)


def test_what_says_nothing_about_an_attempt_is_left_out(log: Log) -> None:
    """A provider that was away, a cost that is unknown or cut off; and who acted in its place counts for its own type."""
    ran(
        log, attempt("api", 1, end="infrastructure"), attempt("api", 2, end="overload"), attempt("api", 30, None),
        attempt("api", 30, 5.0, partial=True), attempt("api", 30, 2.0, end="agent"),
        attempt("api", 1, 9.0, agent_type="merge-engineer", role="merge-engineer"),
    )  # fmt: skip
    found = expected(log)
    assert (found.seconds.value, found.seconds.samples) == (pytest.approx(30), 3)
    assert found.usd is not None
    assert (found.usd.value, found.usd.samples) == (pytest.approx(2.0), 1)
    assert [one.usd for one in read_past(log, "x").by_type["merge-engineer"]] == [9.0]


def test_a_command_costs_nothing_and_nobody_knows_what_it_takes(log: Log) -> None:
    """Unless it ran before, or says so itself; what an agent of the same name took says nothing about it."""
    command = Task(task_id="api", command=("make",))
    ran(log, attempt("api", 77))
    found = expected(log, command)
    assert (found.runner, found.usd, found.choice, found.seconds) == ("shell", None, None, NOBODY_KNOWS)
    names = {"task_id": "api", "attempt_id": new_id()}
    started = ev.TaskStarted(**names, attempt=1, runner="shell")
    ran(log, [started, ev.TaskCompleted(**names, duration_s=0.5)])
    assert expected(log, command).seconds.value == pytest.approx(0.5)


def test_the_model_that_is_chosen_is_the_one_that_is_paid_for(log: Log) -> None:
    """A prior is moved by the price of the model; one that is decided already is taken as it is."""
    usual, cheap = expected(log), expected(log, profile="ultra-fast")
    assert usual.choice is not None
    assert usual.choice.model == "sonnet"
    assert cheap.usd is not None
    assert cheap.usd.value == pytest.approx(USD.median * 0.05)
    decided = expect_task(API, AgentSettings(), choice=Choice("opus", "opus", "decided"))
    assert decided.usd is not None
    assert decided.usd.value == pytest.approx(USD.median * 2)


def test_the_newest_runs_are_read_and_no_more(log: Log) -> None:
    """However many there are."""
    for number in range(6):
        ran(log, attempt("api", 10 + number))
    past = read_past(log, "checkout", runs=2)
    assert past.runs == 2
    assert [one.seconds for one in past.by_task["api"]] == [15, 14]
    assert len(read_past(log, "checkout", events=3).by_task["api"]) == 6
    assert read_past(log, "checkout", events=2).by_type == {}
    many = ran(log, *(attempt("api", 1) for _ in range(10)))
    assert many
    assert len(read_past(log, "checkout", runs=1, events=15).by_task["api"]) == 5


@given(some.lists(some.floats(0.01, 1e5), min_size=1, max_size=30), some.floats(0.1, 1.5))
def test_a_median_lies_among_its_samples_and_its_range_around_it(values: list[float], own_sd: float) -> None:
    """And more of the same makes it surer."""
    found = _from(values, "task", "x", own_sd, "")
    again = _from(values * 5, "task", "x", own_sd, "")
    assert found is not None
    assert again is not None
    assert found.value is not None
    assert min(values) * 0.999 <= found.value <= max(values) * 1.001
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert again.level_sd < found.level_sd
    assert again.value == pytest.approx(found.value)


def test_the_prior_says_what_its_sources_say() -> None:
    """Its docstring's figures, computed: 80 % of levels lie between the two benchmarks."""
    # GPT-5 cost 5/8 of today's sonnet for input and as much for output.
    verified, pro = 0.3666 / 2.5, math.sqrt((10.75 / 1.5) * (1.74 * 10 / 7))
    assert USD.median == pytest.approx(math.sqrt(verified * pro), rel=0.05)
    assert USD.level_sd == pytest.approx(math.log(pro / verified) / 2 / 1.2816, rel=0.05)
    medians = [340.25, 273.0, 299.45, 260.75, 222.1, 305.1, 280.05, 102.04, 455.3]
    logs = [math.log(one) for one in medians]
    mean = sum(logs) / 9
    assert SECONDS.median == pytest.approx(math.exp(mean), rel=0.01)
    assert SECONDS.level_sd == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in logs) / 8), rel=0.01)


def test_without_a_past_there_is_a_prior() -> None:
    """For an agent; a sample that knows nothing changes nothing."""
    nothing = Past(by_task={"api": [Sample("api", agent_type="api-engineer")]})
    assert expect_task(API, AgentSettings(), nothing) == expect_task(API, AgentSettings())
