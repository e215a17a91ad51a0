"""Time that counts: awake, by a clock that nobody sets, while somebody dispatches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as strategies_of
from paper import SECOND_US, PaperRun, plan_of, task

from parallel_agents.eventstore import events as ev
from parallel_agents.scheduler.awake import LONGEST_S, AwakeClock
from parallel_agents.scheduler.run_time import RunTime

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
