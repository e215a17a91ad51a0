"""Which attempts look stuck: silent and idle for long, their process or their checkout gone. Pure.

Nothing is ended by that: it is said once, and again when they go on. What ends them is their timeout, or an agent's silence
(``agents.silenceTimeout``). Times are microseconds by a clock that nobody sets, so that no change of the time of day and no
sleep of the machine makes anybody look stuck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from parallel_agents.eventstore import events as ev
from parallel_agents.projections.status import TaskState

Problem = Literal["silent", "process", "checkout"]

IDLE_SHARE: Final = 0.02
"""Of one processor. A client that waits for an answer wakes now and then and takes half a percent; work takes far more."""
GONE_US: Final = 15_000_000
"""A supervisor needs up to eight seconds to end what a command left behind, and says then how it ended."""
LAST_OUTPUT_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at an attempt."""

    printed_bytes: int  # In all.
    cpu_s: float  # Of its process and all that descends from it; of what has ended as far as somebody waited for it.
    alive: bool = True  # Its process is there.
    checkout: bool = True  # The folder that it works in is there.


@dataclass(slots=True)
class Pulse:
    """What the looks at an attempt have shown so far."""

    last: Vitals
    looked_us: int
    sign_us: int  # When it was last seen to do something; the first look counts as that.
    gone_us: int | None = None  # Since when its process is not there.
    moved: bool = False  # Whether anything was seen of it but that it is there.


def beat(pulse: Pulse | None, seen: Vitals, now_us: int) -> Pulse:
    """What is known after one more look."""
    if pulse is None:
        return Pulse(seen, now_us, now_us, None if seen.alive else now_us)
    last = pulse.last
    used_s, passed_s = abs(seen.cpu_s - last.cpu_s), (now_us - pulse.looked_us) / 1e6  # Less: a part of it has ended.
    acts = seen.printed_bytes != last.printed_bytes or used_s > IDLE_SHARE * passed_s
    gone_us = None if seen.alive else now_us if pulse.gone_us is None else pulse.gone_us
    return Pulse(seen, now_us, now_us if acts else pulse.sign_us, gone_us, pulse.moved or acts)


def problem_of(pulse: Pulse, stuck_after_us: int) -> Problem | None:
    """What is wrong with an attempt; None where it seems well."""
    if pulse.gone_us is not None and pulse.looked_us - pulse.gone_us >= GONE_US:
        return "process"
    if not pulse.last.checkout:
        return "checkout"
    return "silent" if pulse.looked_us - pulse.sign_us >= stuck_after_us else None


def decide_health(
    task: TaskState, pulse: Pulse, stuck_after_us: int, last_output: str
) -> ev.AttemptStuck | ev.AttemptRevived | None:
    """What is to be said of a running attempt that has just been looked at: once that it looks stuck, once that it goes on.

    Args:
        last_output: the last that it has printed, in words.
    """
    assert task.attempt_id is not None
    problem, silent_s = problem_of(pulse, stuck_after_us), (pulse.looked_us - pulse.sign_us) / 1e6
    if task.stuck is not None:
        if problem is not None or not pulse.moved:  # Who has taken it over has seen nothing of it yet.
            return None
        return ev.AttemptRevived(task_id=task.task.task_id, attempt_id=task.attempt_id)
    if problem is None:
        return None
    return ev.AttemptStuck(
        task_id=task.task.task_id, attempt_id=task.attempt_id, kind=problem, silent_s=round(silent_s, 1),
        reason=_WORDS[problem].format(seconds=f"{silent_s:.0f}"), last_output=last_output[-LAST_OUTPUT_CHARS:],
        facts=_seen(pulse),
    )  # fmt: skip


SILENT, GONE = "silent_s", "gone_s"
"""Among the facts of what is said: since when an attempt was seen to do nothing, and since when its process is not there."""


def _seen(pulse: Pulse) -> dict[str, float]:
    since = {SILENT: pulse.sign_us, GONE: pulse.gone_us}
    return {name: (pulse.looked_us - at_us) / 1e6 for name, at_us in since.items() if at_us is not None}


def pulse_from(facts: Mapping[str, float], *, checkout: bool) -> Pulse:
    """What had been seen of an attempt when it was said to look stuck, by the facts of that.

    Args:
        checkout: whether its folder was there.
    """
    looked_us = round(max(facts.values()) * 1e6)
    gone_us = None if GONE not in facts else looked_us - round(facts[GONE] * 1e6)
    seen = Vitals(0, 0.0, alive=gone_us is None, checkout=checkout)
    return Pulse(seen, looked_us, looked_us - round(facts[SILENT] * 1e6), gone_us)


_WORDS: Final[dict[Problem, str]] = {
    "silent": "it has printed nothing and used no CPU for {seconds} s",
    "process": "its process is gone, and its supervisor does not say how it ended",
    "checkout": "the folder that it works in is gone",
}
