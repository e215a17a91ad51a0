"""When a runner that fails by its own fault is left alone for a while, and when it is trusted again. Pure.

A circuit is closed while its runner works. So many failures in a row open it: nothing of that runner starts before a time.
Then it is half open: one attempt is started. If that works, the circuit closes; if not, it opens for twice as long. Only
what a runner is to blame for counts (it cannot start, its client crashes or cannot reach its provider, its processes
vanish); never what a task has done wrong, and never what a provider has asked us to wait for (see ``accounts``).

Source: Michael T. Nygard, "Release It!" (Pragmatic Bookshelf, 2007), the stability pattern "Circuit Breaker".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import rfc3339
from parallel_agents.projections.circuits import Circuit, Circuits
from parallel_agents.scheduler.runners.protocol import Ended

Standing = Literal["closed", "open", "half_open"]

WINDOW_US: Final = 600_000_000
"""Failures that are further back than ten minutes are forgotten: what comes once in a while is what retries are for."""
DECAY_US: Final = 3_600_000_000
"""An open circuit that nobody has tried for an hour after its time is closed: what was wrong then says nothing now."""
LONGEST: Final = 16
"""The longest wait, in first waits: with half a minute it is eight, so that a mended client is found within those."""
FREE_TRIALS: Final = 3
"""So many trials in a row cost their tasks no retry. More do, or a task that brings its client down would never end."""
TOGETHER_US: Final = 5_000_000
"""What vanishes within so long vanishes together: one supervisor, one machine that went down."""
PROOF_US: Final = 30_000_000
"""A trial that has run for so long works, before its end: a client that is broken does not live that long."""

CIRCUIT_OPEN: Final = "circuit_open"
"""The code of the reason why a task of such a runner does not start."""

_FROM_ELSEWHERE: Final = frozenset({"infrastructure", "configuration"})  # Kinds that say nothing good of a client.


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of one run."""

    failures: int  # In a row, that open a circuit; >= 1.
    reset_us: int  # How long it is open the first time.


@dataclass(frozen=True, slots=True)
class Said:
    """What an end says of its runner: the event, and whether the attempt is made again without a retry less."""

    event: Event | None = None
    free: bool = False


NOTHING: Final = Said()


def standing(circuit: Circuit | None, now_us: int) -> Standing:
    """How a runner's circuit stands at a moment."""
    if circuit is None or circuit.until_us is None or now_us >= circuit.until_us + DECAY_US:
        return "closed"
    return "open" if now_us < circuit.until_us else "half_open"


def wait_us(openings: int, policy: Policy) -> int:
    """How long a circuit is open.

    Args:
        openings: in a row, >= 1.
    Returns:
        The first wait, doubled each time, at most ``LONGEST`` first waits.
    """
    return policy.reset_us * min(LONGEST, 1 << min(openings - 1, 10))


def recent(circuit: Circuit | None, now_us: int) -> int:
    """How often a runner with a closed circuit has failed in a row, as far as it counts."""
    return 0 if circuit is None else sum(at_us > now_us - WINDOW_US for at_us in circuit.failures)


def blamed(ended: Ended, *, has_worked: bool) -> bool:
    """Whether an attempt failed by its runner's fault.

    Args:
        has_worked: whether the runner was seen to work for this run, or is in question already. Where it was not, what
            is not installed is the plan's or the machine's mistake, which waiting does not mend.
    """
    return ended.fault == "runner" or (ended.fault == "installation" and has_worked)


def worked(ended: Ended) -> bool:
    """Whether an end shows that its runner works: a process began and came to an end of its own, good or bad."""
    return ended.outcome == "exited" and ended.began and not ended.fault and ended.kind not in _FROM_ELSEWHERE


def decide_failure(
    circuit: Circuit | None, runner: str, ended: Ended, started_us: int, now_us: int, policy: Policy
) -> Said:
    """What an attempt that failed by its runner's fault means for its circuit, and for its own retries.

    Args:
        started_us: when it was decided to start it.
    """
    lost, reason = ended.outcome == "lost", ended.error or ended.outcome
    found = standing(circuit, now_us)
    if circuit is not None and found != "closed":
        if found == "open" or circuit.trial != ended.attempt_id:
            return Said(free=True)  # It began before that was known.
        openings = circuit.openings + 1
        count = circuit.count + 1
        return Said(
            _opened(runner, ended, reason, lost, count, openings, now_us, policy), free=circuit.openings <= FREE_TRIALS
        )
    if lost and circuit is not None and circuit.lost_us is not None and 0 <= now_us - circuit.lost_us < TOGETHER_US:
        return NOTHING
    count = recent(circuit, now_us) + 1
    if count >= policy.failures:
        return Said(_opened(runner, ended, reason, lost, count, 1, now_us, policy), free=True)
    return Said(ev.RunnerFailed(runner=runner, attempt_id=ended.attempt_id, reason=reason, lost=lost))


def decide_success(
    circuit: Circuit | None, runner: str, attempt_id: str, started_us: int, now_us: int, why: str
) -> ev.CircuitClosed | None:
    """What an attempt that shows that its runner works means for its circuit. What began before it failed shows nothing.

    Args:
        started_us: when it was decided to start it.
        why: the attempt's proof, in words.
    """
    if circuit is None:
        return None
    failed_us = max([circuit.opened_us or 0, *circuit.failures])
    if (
        attempt_id != circuit.trial and started_us < failed_us
    ):  # What starts in the commit that tells of it comes after it.
        return None
    return ev.CircuitClosed(runner=runner, reason=f"attempt {attempt_id} {why}", attempt_id=attempt_id)


ALIVE: Final = "alive_s"
"""Among the facts of a circuit that was closed: for how long its trial was seen to run, where it had not come to its end."""


def decide_proof(circuit: Circuit, runner: str, alive_us: int, now_us: int) -> ev.CircuitClosed | None:
    """That a runner works because its trial has run for long enough.

    Args:
        alive_us: for how long it was seen to run, by a clock that nobody sets.
    """
    if circuit.trial is None or standing(circuit, now_us) != "half_open" or alive_us < PROOF_US:
        return None
    closed = decide_success(circuit, runner, circuit.trial, 0, now_us, f"has run for {PROOF_US // 1_000_000} s")
    return None if closed is None else closed.model_copy(update={"facts": {ALIVE: alive_us / 1e6}})


def decide_trial(circuits: Circuits, start: ev.TaskStarted, now_us: int) -> ev.CircuitHalfOpened | None:
    """That a start is the trial of a runner whose circuit is half open."""
    if not circuits or standing(circuits.get(start.runner), now_us) != "half_open":
        return None
    return ev.CircuitHalfOpened(runner=start.runner, attempt_id=start.attempt_id)


def _opened(
    runner: str, ended: Ended, reason: str, lost: bool, count: int, openings: int, now_us: int, policy: Policy
) -> ev.CircuitOpened:
    return ev.CircuitOpened(
        runner=runner, until=rfc3339(now_us + wait_us(openings, policy)), reason=reason, failures=count,
        openings=openings, attempt_id=ended.attempt_id, lost=lost,
    )  # fmt: skip


@dataclass(slots=True)
class CircuitFacts:
    """What a decision knows of the runners of its store.

    Args:
        running: attempts that hold a slot; a trial that is not among them has ended without telling anything.
    """

    circuits: Circuits
    running: frozenset[str]
    now_us: int
    tried: set[str]  # Runners that the decision at hand gives their one attempt to.

    def copy(self) -> CircuitFacts:
        """The same, to count starts in that are only thought of."""
        return CircuitFacts(self.circuits, self.running, self.now_us, set(self.tried))

    def holds(self, runner: str) -> str | None:
        """Why no attempt of a runner may start now, or None where one may."""
        circuit = self.circuits.get(runner)
        found = standing(circuit, self.now_us)
        if circuit is None or found == "closed":
            return None
        why = f"it failed {circuit.count} times in a row, the last time with: {circuit.reason}"
        if found == "open":
            assert circuit.until_us is not None
            return f"the circuit of runner {runner} is open until {rfc3339(circuit.until_us)}: {why}"
        if runner in self.tried or circuit.trial in self.running:
            return f"runner {runner} is tried by one attempt first: {why}"
        return None

    def take(self, runner: str) -> None:
        """An attempt of a runner starts by the decision at hand."""
        if self.is_trial(runner):
            self.tried.add(runner)

    def is_trial(self, runner: str) -> bool:
        """Whether an attempt of a runner that starts now tries it."""
        return standing(self.circuits.get(runner), self.now_us) == "half_open"
