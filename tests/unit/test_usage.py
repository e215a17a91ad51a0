"""What attempts used: sums of what their end events say, and the most that they can have held at once."""

from __future__ import annotations

from itertools import count

import pytest

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.events import Event
from parallel_agents.eventstore.record import Recorded
from parallel_agents.projections import usage as usage_fold
from parallel_agents.projections.usage import Usage, peak_memory_bytes


def fold(*events: tuple[int, Event]) -> Usage:
    """The usage after events, each with its time in microseconds."""
    state = Usage()
    numbers = count(1)
    for at_us, event in events:
        number = next(numbers)
        usage_fold.fold(state, Recorded(number, "run", number, at_us, "test", event))
    return state


def start(at_us: int, name: str, runner: str = "shell") -> tuple[int, Event]:
    return at_us, ev.TaskStarted(task_id=name, attempt_id=f"attempt-{name}", attempt=1, runner=runner)


def end(at_us: int, name: str, peak: int, cpu_s: float = 0.0) -> tuple[int, Event]:
    return at_us, ev.TaskCompleted(
        task_id=name, attempt_id=f"attempt-{name}", duration_s=1.0, cpu_s=cpu_s, peak_memory_bytes=peak
    )


def test_processor_time_counts_however_an_attempt_ended() -> None:
    """Retried, timed out and cancelled ones too; a lost one has left nothing to count."""
    ended = {"task_id": "a", "attempt_id": "x", "duration_s": 1.0, "peak_memory_bytes": 1}
    usage = fold(
        (1, ev.TaskCompleted(**ended, cpu_s=1.0)),
        (2, ev.TaskFailed(**ended, error="e", cpu_s=2.0)),
        (3, ev.TaskTimedOut(**ended, error="e", timeout_s=1.0, cpu_s=4.0)),
        (4, ev.TaskCancelled(**ended, cpu_s=8.0)),
        (5, ev.TaskCancelled(task_id="b")),
        (6, ev.AttemptLost(task_id="a", attempt_id="x", error="e")),
    )
    assert usage.cpu_s == 15.0


def test_memory_of_what_ran_together_adds_up() -> None:
    """What ran one after another does not."""
    usage = fold(
        start(0, "a"), start(10, "b"), end(20, "a", 100), start(30, "c"), end(40, "b", 50), end(50, "c", 70)
    )  # fmt: skip
    assert peak_memory_bytes(usage) == 150
    usage = fold(start(0, "a"), end(20, "a", 100), start(20, "b"), end(40, "b", 50))  # In the same commit.
    assert peak_memory_bytes(usage) == 100


def test_callables_share_one_process() -> None:
    """Together they count as the greatest of them; commands come on top."""
    usage = fold(
        start(0, "a", "python"), start(1, "b", "python"), start(2, "c"),
        end(3, "b", 300), end(4, "a", 310), end(5, "c", 7),
    )  # fmt: skip
    assert peak_memory_bytes(usage) == 317


@pytest.mark.parametrize("runner", ["shell", "python"])
def test_a_clock_that_stands_still_does_no_harm(runner: str) -> None:
    """An attempt of no length has held its memory all the same; one that goes on is not counted yet."""
    assert peak_memory_bytes(fold(start(5, "a", runner), end(5, "a", 100), start(5, "b", runner))) == 100
    assert peak_memory_bytes(fold()) == 0


def test_calls_of_an_api_are_counted_by_task() -> None:
    """Several charges of one attempt add up."""
    charge = {"attempt_id": "x", "usd_micros": 5, "calls": 2}
    usage = fold((1, ev.CostCharged(task_id="a", **charge)), (2, ev.CostCharged(task_id="a", **charge)))
    assert usage.calls["a"] == 4
    assert usage.calls["b"] == 0
