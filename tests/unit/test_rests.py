"""Rests before retries, by two clocks: of which one may be set back, and the other one is of who dispatches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as strategies_of
from paper import SECOND_US, PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import RetryPolicy
from parallel_agents.scheduler.plan import Agenda, Facts, plan, why_not
from parallel_agents.scheduler.rests import Rests

REST_US = 8 * SECOND_US
set_by_us = strategies_of.just(0) | strategies_of.integers(-(10**7), 10**7) | strategies_of.integers(-(10**12), 10**12)
looks = strategies_of.tuples(strategies_of.integers(0, 3 * 10**6), set_by_us, strategies_of.booleans())


def failed(*names: str) -> PaperRun:
    """Tasks that have just failed once, and rest for eight seconds."""
    policy = RetryPolicy(delay_s=REST_US / 1e6, exponential=False)
    run = PaperRun(plan_of(*(task(name) for name in names), retry=policy))
    run.tick()
    run.end(*names, error="exit code 1")
    return run


def started(run: PaperRun, at_us: int, rests: Rests, agenda: Agenda | None = None, *, taken: int = 0) -> list[str]:
    """What would start now."""
    facts = Facts(store_slots=taken, rests=rests)
    return [name for _, name in plan(run.state, agenda or Agenda(run.state), facts, at_us).steps]


@given(strategies_of.lists(looks, min_size=1))
def test_a_rest_is_over_by_the_first_of_two_clocks(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is done to the one, and never before; a time of it that no event tells of ends nothing for good."""
    run = failed("a")
    begin_us = last_at_us = clock_us = run.now_us
    steady_us, ends_us, agenda = 0, dict[str, int](), Agenda(run.state)
    assert started(run, begin_us, Rests(0, 0, ends_us), agenda) == []
    for passed_us, set_us, appends in steps:
        steady_us += passed_us
        clock_us += passed_us + set_us
        at_us = max(last_at_us, clock_us)  # As the log has it.
        last_at_us = at_us if appends else last_at_us
        rests = Rests(steady_us, steady_us, ends_us)
        left_us = min(begin_us + REST_US - at_us, REST_US - steady_us)
        assert started(run, at_us, rests, agenda, taken=10**6) == []
        assert agenda.next_rest_us(run.state) == (left_us if left_us > 0 else None)
        assert started(run, at_us, rests) == (["a"] if left_us <= 0 else []), "the state and the facts alone say it"
    assert started(run, at_us, rests, agenda) == (["a"] if left_us <= 0 else []), "and so does who has followed them"


def test_a_rest_ends_by_its_own_measure_though_a_later_one_ends_at_the_same_time_of_events() -> None:
    """The time of events stands still: two rests that began four seconds apart are told of with one end."""
    run = failed("a", "b")
    agenda, ends_us = Agenda(run.state), {"b1": 12 * SECOND_US}
    assert started(run, run.now_us, Rests(0, 0, ends_us), agenda) == []
    assert agenda.next_rest_us(run.state) == 8 * SECOND_US
    assert started(run, run.now_us, Rests(8 * SECOND_US, 8 * SECOND_US, ends_us), agenda) == ["a"]
    assert started(run, run.now_us, Rests(12 * SECOND_US, 12 * SECOND_US, ends_us)) == ["a", "b"]


def test_the_rest_of_a_task_that_waits_for_a_person_goes_on_by_either_clock() -> None:
    """From when who dispatches it has first seen it."""
    run = failed("a")
    run.add(ev.TaskBlocked(task_id="a", reason="approval"))
    ends_us: dict[str, int] = {}
    assert started(run, run.now_us, Rests(0, 0, ends_us)) == []
    run.add(ev.TaskUnblocked(task_id="a", attempt=2))
    assert started(run, run.now_us, Rests(REST_US - 1, REST_US - 1, ends_us)) == ["a"], "it is queued"
    assert started(run, run.now_us, Rests(REST_US, REST_US, ends_us)) == ["a", "a"], "and starts"


def test_of_two_clocks_that_nobody_sets_the_steady_one_is_never_the_first() -> None:
    """However long it takes to read them one after the other: no retry starts before the time that its event says."""
    run = failed("a")
    ends_us: dict[str, int] = {}
    assert started(run, run.now_us, Rests(0, 2, ends_us)) == []
    assert started(run, run.now_us + REST_US - 1, Rests(REST_US - 1, REST_US + 5, ends_us)) == []
    assert started(run, run.now_us + REST_US, Rests(REST_US, REST_US, ends_us)) == ["a"]


def test_why_a_task_rests_is_told_by_what_the_dispatcher_has_measured() -> None:
    """Where that is known; else by the time of events."""
    run = failed("a")
    run.elsewhere = 10**6
    known = Facts(store_slots=10**6, rests=Rests(REST_US, REST_US, {"a1": REST_US}))
    assert run.why("a") == "not_before"
    assert why_not(run.state, "a", known, run.now_us).code == "no_slot"
