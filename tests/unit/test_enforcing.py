"""Who has used more than its share, and what is done about it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from parallel_agents.scheduler.enforcing import SAMPLES_ABOVE, STEPS, Enforcer, Hogs, lower_priority
from parallel_agents.scheduler.machine_load import Usage
from parallel_agents.scheduler.runners.launcher import NICE
from parallel_agents.scheduler.runners.limits import Limits
from parallel_agents.scheduler.sampling import process_table
from parallel_agents.scheduler.trees import Row

QUARTER = {"a": Limits(cpu_percent=25.0)}
MB = 1_000_000


def busy(percent: float) -> dict[str, Usage]:
    return {"a": Usage(samples=1, cpu_percent=percent)}


def test_whoever_stays_above_its_share_goes_down_step_by_step() -> None:
    """After several samples, and again after as many more; never below the last step."""
    hogs = Hogs()
    found = [hogs.lower(QUARTER, busy(60)) for _ in range(SAMPLES_ABOVE * (len(STEPS) + 2))]
    assert found[SAMPLES_ABOVE - 2] == {}
    assert [found[SAMPLES_ABOVE * step - 1] for step in range(1, 6)] == [{"a": nice} for nice in (*STEPS, 19, 19)]


def test_whoever_is_above_its_share_for_a_moment_keeps_its_priority() -> None:
    """One sample below it, or nearly so, and the count begins anew. What was lowered stays so."""
    hogs = Hogs()
    for _ in range(5):
        for _ in range(SAMPLES_ABOVE - 1):
            assert hogs.lower(QUARTER, busy(60)) == {}
        assert hogs.lower(QUARTER, busy(26)) == {}
    for _ in range(SAMPLES_ABOVE):
        hogs.lower(QUARTER, busy(60))
    assert hogs.lower(QUARTER, busy(1)) == {"a": STEPS[0]}
    assert hogs.lower(QUARTER, {}) == {}
    assert hogs.lower(QUARTER, busy(60)) == {}


def test_without_a_limit_nobody_is_a_hog() -> None:
    """None for the run, or none of that kind."""
    hogs = Hogs()
    for limits in ({}, {"a": Limits(memory_bytes=1)}):
        for _ in range(SAMPLES_ABOVE + 1):
            assert hogs.lower(limits, busy(100)) == {}


class Watched:
    """An enforcer that ends nobody, with what it would have ended."""

    def __init__(self, limits: dict[str, Limits], exact: int | None) -> None:
        self.ended: list[tuple[str, str, str, float]] = []
        self.asked: list[list[int]] = []
        self.exact = exact
        self.enforcer = Enforcer(lambda: limits, self.end, exact=self.tell)

    def end(self, attempt_id: str, *, error: str, kind: str, grace_s: float) -> None:
        self.ended.append((attempt_id, error, kind, grace_s))

    def tell(self, pids: Sequence[int]) -> int | None:
        self.asked.append(list(pids))
        return self.exact

    def look(self, memory: int) -> list[tuple[str, str, str, float]]:
        self.enforcer.look({"a": Usage(samples=1, memory_bytes=memory)}, {"a": [ROW]})
        return self.ended


ROW = Row(2**22 + 1, 1, 1, 1, 0, 0.0, 0.0, 0)


def test_whoever_uses_too_much_memory_is_ended_with_the_reason() -> None:
    """With the configuration key that says how much is allowed."""
    watched = Watched({"a": Limits(memory_bytes=1024 * MB)}, exact=1240 * MB)
    error = "used 1,240 MB of memory, more than the 1,024 MB that resourceManagement.memory.perAgentLimitMB allows"
    assert watched.look(1500 * MB) == [("a", error, "memory", 1.0)]
    assert watched.asked == [[ROW.pid]]


def test_whoever_has_taken_twice_its_share_gets_no_time_to_take_more() -> None:
    """SIGKILL at once; where nobody can tell what is shared, all that is resident counts."""
    watched = Watched({"a": Limits(memory_bytes=100 * MB)}, exact=None)
    [(_, error, _, grace_s)] = watched.look(201 * MB)
    assert (grace_s, error.split(",")[0]) == (0.0, "used 201 MB of memory")


def test_what_processes_share_is_held_against_nobody() -> None:
    """A server whose fifty workers have the same pages uses these once."""
    watched = Watched({"a": Limits(memory_bytes=100 * MB)}, exact=99 * MB)
    assert watched.look(900 * MB) == []


def test_whoever_is_within_its_limit_costs_nothing() -> None:
    """The dear question is asked only where the cheap answer is too much."""
    watched = Watched({"a": Limits(memory_bytes=100 * MB)}, exact=900 * MB)
    assert watched.look(100 * MB) == []
    assert watched.asked == []
    watched = Watched({"a": Limits(cpu_percent=1.0)}, exact=900 * MB)
    assert watched.look(10**12) == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the priority of its session."""
    started = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield started
    started.kill()
    started.wait()


def nice(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_a_hog_gets_a_lower_priority(sleeper: subprocess.Popen[bytes]) -> None:
    """All its processes, by what a pass saw of them."""
    watched = Watched(QUARTER, exact=None)
    seen: Any = {"a": [process_table()[sleeper.pid]]}
    for _ in range(SAMPLES_ABOVE):
        assert nice(sleeper.pid) < STEPS[0]
        watched.enforcer.look(busy(60), seen)
    assert nice(sleeper.pid) == STEPS[0]


def test_whoever_was_faster_than_its_supervisor_is_lowered_by_the_first_pass(sleeper: subprocess.Popen[bytes]) -> None:
    """Itself and its session, whose share of the processors is what counts where the kernel shares them out by that."""
    watched = Watched({}, exact=None)
    lowered = min(19, nice(0) + NICE)
    shares = Path(f"/proc/{sleeper.pid}/autogroup")

    def is_lowered() -> bool:
        watched.enforcer.look(busy(1), {"a": [process_table()[sleeper.pid]]})
        return not shares.exists() or int(shares.read_text().split()[-1]) == lowered

    wait_until(is_lowered, "the share of the session")
    assert nice(sleeper.pid) == lowered


def test_another_process_of_that_pid_keeps_its_priority(sleeper: subprocess.Popen[bytes]) -> None:
    """It may be anybody's."""
    row, before = process_table()[sleeper.pid], nice(sleeper.pid)
    lower_priority(row._replace(start_time=row.start_time - 1), 19)
    assert nice(sleeper.pid) == before
    lower_priority(row, 19)
    assert nice(sleeper.pid) == 19
