"""The circuit of a runner: what opens it, what tries it, what closes it, and what it costs a task."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper import SECOND_US, ended

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.record import Recorded, from_rfc3339
from parallel_agents.projections import circuits as circuits_fold
from parallel_agents.projections.circuits import Circuits
from parallel_agents.scheduler.breaker import (
    DECAY_US,
    FREE_TRIALS,
    LONGEST,
    TOGETHER_US,
    WINDOW_US,
    CircuitFacts,
    Policy,
    Said,
    blamed,
    decide_failure,
    decide_success,
    standing,
    wait_us,
    worked,
)
from parallel_agents.scheduler.runners.protocol import Ended

POLICY = Policy(failures=3, reset_us=30 * SECOND_US)


class Paper:
    """The circuit of one runner, moved on by attempts on a clock of its own."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.now_us = 1_700_000_000 * SECOND_US
        self.circuits: Circuits = {}
        self.events: list[ev.Event] = []
        self.number = 0

    def fold(self, event: ev.Event | None) -> None:
        """Append it."""
        if event is not None:
            self.events.append(event)
            circuits_fold.fold(self.circuits, Recorded(1, "store", 1, self.now_us, "test", event))

    def start(self) -> tuple[str, int] | None:
        """An attempt and when it began; None where the circuit holds it back."""
        facts = CircuitFacts(self.circuits, frozenset(), self.now_us, set())
        if facts.holds("claude") is not None:
            return None
        self.number += 1
        name = f"a{self.number}"
        if facts.is_trial("claude"):
            self.fold(ev.CircuitHalfOpened(runner="claude", attempt_id=name))
        return name, self.now_us

    def fail(self, attempt: tuple[str, int] | None = None, **fields: Any) -> Said:
        """An attempt fails by its runner's fault; one that begins now unless another one is meant."""
        name, started_us = attempt or self.start() or ("", 0)
        assert name, "the circuit holds it back"
        end = ended(name, "its client crashed", fault="runner", **fields)
        said = decide_failure(self.circuits.get("claude"), "claude", end, started_us, self.now_us, self.policy)
        self.fold(said.event)
        return said

    def succeed(self, attempt: tuple[str, int] | None = None) -> None:
        """An attempt comes to its end."""
        name, started_us = attempt or self.start() or ("", 0)
        assert name, "the circuit holds it back"
        circuit = self.circuits.get("claude")
        self.fold(decide_success(circuit, "claude", name, started_us, self.now_us, "came to its end"))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_us += round(seconds * SECOND_US)

    @property
    def standing(self) -> str:
        """Of the circuit now."""
        return standing(self.circuits.get("claude"), self.now_us)

    @property
    def types(self) -> list[str]:
        """What was said, as types."""
        return [type(one).__name__ for one in self.events]


def test_so_many_failures_in_a_row_open_a_circuit() -> None:
    """The first two cost their tasks a retry each; the one that opens it costs none."""
    paper = Paper()
    assert [paper.fail().free, paper.fail().free, paper.fail().free] == [False, False, True]
    assert paper.types == ["RunnerFailed", "RunnerFailed", "CircuitOpened"]
    assert paper.standing == "open"
    assert paper.start() is None
    paper.wait(29.9)
    assert paper.start() is None


def test_after_its_time_one_attempt_is_tried_and_closes_it() -> None:
    """Then all may start again, and what was before is forgotten."""
    paper = Paper()
    for _ in range(3):
        paper.fail()
    paper.wait(30)
    trial = paper.start()
    facts = CircuitFacts(paper.circuits, frozenset({trial[0]} if trial else ()), paper.now_us, set())
    assert "is tried by one attempt first" in (facts.holds("claude") or "")
    paper.succeed(trial)
    assert paper.types[-2:] == ["CircuitHalfOpened", "CircuitClosed"]
    assert paper.circuits == {}
    assert [paper.fail().free, paper.fail().free] == [False, False]


def test_a_trial_that_fails_opens_it_for_twice_as_long() -> None:
    """Up to a longest wait; after a few that were free, trials cost their tasks what failures cost."""
    paper = Paper()
    for _ in range(3):
        paper.fail()
    waits, free = [], []
    for _ in range(7):
        paper.wait(LONGEST * 30)
        free.append(paper.fail().free)
        opened = paper.events[-1]
        assert isinstance(opened, ev.CircuitOpened)
        waits.append((from_rfc3339(opened.until) - paper.now_us) // SECOND_US)
    assert waits == [60, 120, 240, 480, 480, 480, 480]
    assert free == [True] * FREE_TRIALS + [False] * (7 - FREE_TRIALS)


def test_a_trial_that_ends_without_telling_anything_makes_room_for_another() -> None:
    """It was cancelled, or never began: it holds no slot any more."""
    paper = Paper()
    for _ in range(3):
        paper.fail()
    paper.wait(30)
    first, second = paper.start(), paper.start()
    assert first is not None
    assert second is not None
    assert first != second


def test_what_began_before_a_circuit_opened_neither_opens_nor_closes_it() -> None:
    """It fails at no cost; and that it ends well says nothing of what starts now."""
    paper = Paper()
    early = [paper.start() for _ in range(6)]
    paper.wait(1)
    for attempt in early[:3]:
        paper.fail(attempt)
    assert paper.fail(early[3]) == Said(free=True)
    paper.succeed(early[4])
    assert paper.standing == "open"
    paper.wait(30)
    trial = paper.start()
    assert paper.fail(early[5]) == Said(free=True)
    paper.succeed(trial)
    assert paper.standing == "closed"


def test_a_retry_that_starts_with_the_failure_before_it_shows_that_its_runner_works() -> None:
    """Both are in one commit, and ends come before starts."""
    paper = Paper()
    paper.fail()
    paper.succeed(paper.start())
    assert paper.circuits == {}


def test_one_that_works_between_failures_closes_what_was_counted() -> None:
    """Only failures in a row open a circuit."""
    paper = Paper()
    for _ in range(4):
        paper.fail()
        paper.wait(1)
        paper.fail()
        paper.wait(1)
        paper.succeed()
    assert "CircuitOpened" not in paper.types


def test_old_failures_are_forgotten() -> None:
    """Of a closed circuit after ten minutes; an open one that nobody tries is closed an hour after its time."""
    paper = Paper()
    for _ in range(5):
        paper.fail()
        paper.wait(WINDOW_US / SECOND_US / 2)
    assert "CircuitOpened" not in paper.types
    paper.fail()
    paper.fail()
    assert paper.standing == "open"
    paper.wait(30)
    assert paper.standing == "half_open"
    paper.wait(DECAY_US / SECOND_US)
    assert paper.standing == "closed"
    assert not paper.fail().free
    assert paper.types[-1] == "RunnerFailed"


def test_attempts_that_vanish_together_count_as_one_failure() -> None:
    """Their supervisor was killed, or the machine went down: that is one thing, however many they were."""
    paper = Paper()
    early = [paper.start() for _ in range(6)]
    for attempt in early:
        paper.fail(attempt, outcome="lost")
        paper.wait(0.1)
    assert paper.types == ["RunnerFailed"]
    paper.wait(TOGETHER_US / SECOND_US)
    paper.fail(outcome="lost")
    assert paper.types == ["RunnerFailed", "RunnerFailed"]


@pytest.mark.parametrize(
    ("fields", "has_worked", "expected"),
    [
        ({"fault": "runner"}, False, True),
        ({"fault": "installation"}, True, True),
        ({"fault": "installation"}, False, False),
        ({}, True, False),
    ],
)
def test_only_its_runner_is_blamed(fields: dict[str, Any], has_worked: bool, expected: bool) -> None:
    """What was never installed is no fault that waiting would mend."""
    assert blamed(ended("a1", "trouble", **fields), has_worked=has_worked) is expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (ended("a1"), True),
        (ended("a1", "exit code 1"), True),
        (ended("a1", "no good", kind="agent"), True),
        (ended("a1", "429", kind="rate_limit"), True),
        (ended("a1", "silence", kind="infrastructure"), False),
        (ended("a1", "no such model", kind="configuration"), False),
        (ended("a1", "no such command", outcome="not_started"), False),
        (ended("a1", "stopped", outcome="stopped"), False),
        (ended("a1", "crashed", fault="runner"), False),
    ],
)
def test_an_attempt_that_came_to_an_end_of_its_own_shows_that_its_runner_works(end: Ended, expected: bool) -> None:
    """Good or bad: what a task does wrong is none of its runner's business, nor is what a provider asks for."""
    assert worked(end) is expected


@given(st.integers(1, 60), st.integers(1, 600))
def test_waits_grow_and_are_bounded(openings: int, reset_s: int) -> None:
    """Each at least as long as the one before, at most the longest."""
    policy = Policy(3, reset_s * SECOND_US)
    assert wait_us(1, policy) == policy.reset_us
    assert wait_us(openings, policy) <= wait_us(openings + 1, policy) <= LONGEST * policy.reset_us


STEPS = st.lists(st.tuples(st.sampled_from(["fail", "lose", "succeed", "nothing"]), st.integers(0, 700)), max_size=80)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 6))
def test_whatever_happens_a_circuit_keeps_its_promises(steps: list[tuple[str, int]], threshold: int) -> None:
    """Never more failures in a row than the threshold without a wait; never a wait without that many; always a way back."""
    paper = Paper(Policy(threshold, 30 * SECOND_US))
    failed: list[int] = []  # When it failed in a row, what was lost together counted once.
    for step, seconds in steps:
        paper.wait(seconds)
        closed, attempt = paper.standing == "closed", paper.start()
        if attempt is None:
            circuit = paper.circuits["claude"]
            assert circuit.until_us is not None
            assert paper.now_us < circuit.until_us <= paper.now_us + LONGEST * paper.policy.reset_us
        elif step == "succeed":
            paper.wait(0.001)  # It takes a moment, in which nothing fails.
            paper.succeed(attempt)
            assert "claude" not in paper.circuits
            failed = []
        elif step in ("fail", "lose"):
            said = paper.fail(attempt, outcome="lost" if step == "lose" else "exited")
            opened = isinstance(said.event, ev.CircuitOpened)
            assert said.free <= opened
            if closed and said.event is not None:
                failed.append(paper.now_us)
                assert opened == (sum(at_us > paper.now_us - WINDOW_US for at_us in failed) >= threshold)
            if opened:
                failed = []
                assert paper.start() is None
    paper.wait((LONGEST * paper.policy.reset_us) / SECOND_US)
    last = paper.start()
    assert last is not None
    paper.wait(0.001)
    paper.succeed(last)
    assert paper.standing == "closed"


def test_a_circuit_is_the_same_however_often_it_is_read() -> None:
    """A fold of events alone: two readers of one log agree at every prefix."""
    paper = Paper()
    for number in range(40):
        paper.wait(7 * number)
        attempt = paper.start()
        if attempt is not None:
            paper.succeed(attempt) if number % 11 == 10 else paper.fail(attempt)
    again: Circuits = {}
    for event in paper.events:
        circuits_fold.fold(again, Recorded(1, "store", 1, 0, "test", event))
    assert {name: (one.count, one.openings, one.reason, one.trial) for name, one in again.items()} == {
        name: (one.count, one.openings, one.reason, one.trial) for name, one in paper.circuits.items()
    }
