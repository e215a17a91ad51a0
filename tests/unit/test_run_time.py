"""Time that counts: awake, by a clock that nobody sets, while somebody dispatches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as strategies_of
from paper import SECOND_US, PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.scheduler.awake import LONGEST_S, AwakeClock
from parallel_agents.scheduler.run_time import RestClock, RunTime

seconds = strategies_of.floats(0.0, 1e5)


@given(strategies_of.lists(seconds, max_size=20))
def test_a_clock_of_who_is_awake_counts_no_long_gap(gaps: list[float]) -> None:
    """Every short one wholly, of a long one five seconds; it never goes back."""
    now_s = [1000.0]
    clock = AwakeClock(lambda: now_s[0])
    before_s = clock.now_s()
    for gap_s in gaps:
        now_s[0] += gap_s
        after_s = clock.now_s()
        assert abs(after_s - before_s - min(gap_s, LONGEST_S)) < 1e-6
        before_s = after_s


def test_a_run_uses_time_only_while_it_goes_on() -> None:
    """Not while it is paused, waits for a provider or for a person; a resume begins anew."""
    run = PaperRun(plan_of(task("a"), task("b", "a")))
    run.tick()
    time = RunTime.of(run.state, 0)
    assert time.look(run.state, 10, waits=False) == 10
    assert time.look(run.state, 20, waits=True) == 10
    assert time.look(run.state, 30, waits=False) == 20
    run.add(ev.RunPaused())
    assert time.look(run.state, 40, waits=False) == 20
    run.now_us += SECOND_US
    run.add(ev.RunResumed())
    assert time.look(run.state, 50, waits=False) == 0
    assert time.look(run.state, 60, waits=False) == 10


def test_what_a_run_has_used_is_gone_on_with_by_who_takes_it_over() -> None:
    """As far as its last start, or who let go of it, has said."""
    run = PaperRun(plan_of(task("a")))
    run.add(ev.RunReleased(epoch=1, used_s=2.5))
    assert RunTime.of(run.state, 100).look(run.state, 100 + SECOND_US, waits=False) == 3_500_000


set_by_us = strategies_of.just(0) | strategies_of.integers(-(10**7), 10**7) | strategies_of.integers(-(10**12), 10**12)
looks = strategies_of.tuples(strategies_of.integers(0, 10**7), set_by_us, strategies_of.booleans())


@given(strategies_of.lists(looks, min_size=1))
def test_rests_go_on_whatever_is_done_to_the_clock(steps: list[tuple[int, int, bool]]) -> None:
    """Their time is never behind that of the events, nor behind what has passed since one that tells of it.

    Nor before either, but for what has passed: a time that no event tells of is forgotten.
    """
    wall_us, steady_us, last_at_us = 2 * 10**15, 0, 2 * 10**15
    clock = RestClock()
    before_us = told_us = clock.look(last_at_us, last_at_us, steady_us)
    since_us = 0
    for passed_us, set_us, appends in steps:
        steady_us += passed_us
        since_us += passed_us
        wall_us += passed_us + set_us
        at_us = max(last_at_us, wall_us)  # As the log has it.
        now_us = clock.look(at_us, last_at_us, steady_us)
        assert max(at_us, told_us) <= now_us <= max(at_us, told_us + since_us)
        if at_us == last_at_us or at_us < before_us:
            assert now_us >= told_us + since_us
        before_us = now_us
        if appends or at_us == last_at_us:
            last_at_us, told_us, since_us = at_us, now_us, 0


def test_rests_follow_the_time_of_events_where_nobody_set_the_clock() -> None:
    """To the microsecond, so that a replay can tell."""
    clock = RestClock()
    assert [clock.look(at_us, at_us - 10, 7 * at_us) for at_us in (10, 20, 30)] == [10, 20, 30]


def test_a_time_of_rests_that_no_event_tells_of_is_forgotten_when_the_clock_is_set_back() -> None:
    """Two looks saw the clock a day ahead, and nothing was appended."""
    clock = RestClock()
    looks = [(1000, 990, 0), (1010, 1000, 10), (9000, 1000, 20), (9010, 1000, 30), (1000, 1000, 40), (1050, 1000, 50)]
    assert [clock.look(*look) for look in looks] == [1000, 1010, 9000, 9010, 1040, 1050]
