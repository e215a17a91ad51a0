"""The pool of workers on a simulated machine: it does not oscillate, it comes back, and a run always goes on."""

from __future__ import annotations

import os
from random import Random

import pytest
from busy_machine import SPAN_S, BusyMachine
from hypothesis import example, given, settings
from hypothesis import strategies as some

from parallel_agents.scheduler import scaling

HOUR_S = 3600
MOST_TURNS = 16
"""In an hour of steady load. Waits of 20, 40, 80, 160, 320 and then 640 s allow for ten steps up, each taken back."""
SEED = some.integers(0, 2**32 - 1)
STORIES = settings(max_examples=300 if os.environ.get("TEST_ALL") else 20)


def steady(seed: int, **limits: float) -> BusyMachine:
    """A machine whose load is of one kind for good: attempts alike, in how they begin and whether they work in bursts, too."""
    random = Random(seed)
    share, foreign = random.uniform(2, 60), random.uniform(0, 70)
    life, begins, burst = random.choice([3, 20, 60, 300, 1200]), random.choice([0, 0, 5, 30]), random.choice([0, 0, 7])
    noise, uneven = random.choice([0, 0.2, 0.5, 1.0]), random.choice([0, 5, 15])

    def wants(age: int) -> float:
        if age < begins:
            return share / 10
        return 2 * share * ((age // burst) % 2) if burst else share

    return BusyMachine(
        random, wants=wants, lasts=lambda: max(1, round(random.expovariate(1 / life))), noise=noise,
        foreign=lambda second: random.gauss(foreign, uneven),
        **{"max_parallel_agents": random.choice([3, 5, 8, 16]), "max_cpu_percent": random.choice([80.0, 100.0]), **limits},
    )  # fmt: skip


@STORIES
@given(SEED)
@example(197)
def test_under_steady_load_the_pool_does_not_oscillate(seed: int) -> None:
    """However noisy the load is, and however late it shows what a step has done. It stays between its bounds, too."""
    machine = steady(seed)
    machine.run(HOUR_S)
    assert machine.turns <= MOST_TURNS
    assert set(machine.widths) <= set(range(2, machine.state.plan.settings.max_parallel_agents + 1))
    assert machine.started > 2


@pytest.mark.slow
@STORIES
@given(SEED)
@example(2212)  # From 3 workers to 16, each step after the longest wait that there is.
def test_when_load_falls_the_pool_comes_back_to_its_most(seed: int) -> None:
    """Each step takes a quarter of the longest wait at the most, whatever it had learned before."""
    machine = steady(seed)
    machine.run(HOUR_S)
    bounds = machine.state.plan.settings
    steps = bounds.max_parallel_agents - bounds.min_workers
    machine.wants, machine.foreign, machine.noise = (lambda age: 1.0), (lambda second: 0.0), 0.2
    machine.lasts = lambda: 30
    machine.run(int(scaling.PRESSED_S) + SPAN_S + steps * (int(scaling.LONGEST_S) // 4 + 1))
    assert machine.widths[-1] == bounds.max_parallel_agents


def test_the_pool_is_as_wide_as_the_machine_can_bear() -> None:
    """Four attempts of 22 % each are too much for 80 %, three are not. Nothing is tried again and again."""
    random = Random(1)
    machine = BusyMachine(random, wants=lambda age: 22.0, lasts=lambda: random.randint(20, 60), max_cpu_percent=100.0)
    machine.run(HOUR_S)
    assert machine.widths[0] == 5
    assert machine.widths[-HOUR_S // 2 :] == [3] * (HOUR_S // 2)
    assert machine.turns == 0


def test_a_foreign_program_that_takes_all_does_not_stop_a_run() -> None:
    """Two attempts go on all the time; when it ends the rest is there at once, because nobody was to blame."""
    machine = BusyMachine(Random(2), wants=lambda age: 5.0, lasts=lambda: 10, foreign=lambda second: 100.0)
    machine.run(5)
    begun = machine.started
    machine.run(HOUR_S)
    assert len(machine.running) == 2
    assert machine.started - begun >= 2 * (HOUR_S // 10) - 10
    assert set(machine.widths) == {5}
    machine.foreign = lambda second: 0.0
    machine.run(10)
    assert len(machine.running) == 5


def test_without_waits_the_same_loads_would_make_it_oscillate(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the properties above say something."""
    for name in ("PRESSED_S", "CALM_S", "LONGEST_S"):
        monkeypatch.setattr(scaling, name, 1.0)
    turns = []
    for seed in range(10):
        machine = steady(seed)
        machine.run(HOUR_S)
        turns.append(machine.turns)
    assert max(turns) > 4 * MOST_TURNS
