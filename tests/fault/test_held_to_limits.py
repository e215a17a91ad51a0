"""Attempts that take more of the machine than they may: ended or slowed down for real, by whoever dispatches them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemons import Store, gone, task, wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.scheduler.enforcing import OOM_SCORE, STEPS
from parallel_agents.scheduler.process import descendants, process_row
from parallel_agents.scheduler.runners.control_groups import control_group_home
from parallel_agents.scheduler.runners.launcher import NICE

GROUPS = control_group_home().path
WITHOUT_GROUPS = pytest.mark.skipif(GROUPS is not None, reason="the kernel holds attempts to their limits here")
WITH_GROUPS = pytest.mark.skipif(GROUPS is None, reason=f"no control groups here: {control_group_home().reason}")

# A grandchild with a session of its own, whose parent has gone, holds so many megabytes once there is a file ``go``.
GROWS = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("grower.tmp", "w") as file:
            file.write(str(os.getpid()))
        os.rename("grower.tmp", "grower")
        while not os.path.exists("go"):
            time.sleep(0.01)
        held = [bytearray(10_000_000) for _ in range(int(sys.argv[1]) // 10)]
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""
REASON = (
    r"used (\d+ MB of memory, more|more memory) than the 150 MB that resourceManagement\.memory\.perAgentLimitMB allows"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, with the program that grows, and without a daemon."""
    made = Store(tmp_path)
    (tmp_path / "grows.py").write_text(GROWS)
    yield made
    made.close()


def gone_or(condition: Callable[[], bool]) -> bool:
    """A condition on processes that come and go while it is looked at."""
    try:
        return condition()
    except OSError:
        return False


def grows(megabytes: int) -> str:
    """The script of a task that holds so much."""
    return f"exec '{sys.executable}' grows.py {megabytes}"


def grower(store: Store) -> int:
    """The process that grows."""
    path = store.folder / "grower"
    wait_until(path.exists, "the process that grows")
    return int(path.read_text())


def ended_for_memory(store: Store, run_id: str) -> ev.TaskFailed:
    """The one end of the run's one attempt, which was not tried again."""
    assert store.ended(run_id) == "failed"
    assert len(store.events(run_id, ev.TaskStarted)) == 1
    [end] = store.events(run_id, ev.TaskFailed)
    assert isinstance(end, ev.TaskFailed)
    return end


def test_an_attempt_that_takes_too_much_memory_ends_with_the_reason(store: Store) -> None:
    """Though what holds it has left the attempt's session and lost its parent; nothing of it stays."""
    run_id = store.submit(task("a", grows(300)), agent_memory_mb=150)
    store.daemon()
    pid = grower(store)
    (store.folder / "go").touch()
    end = ended_for_memory(store, run_id)
    assert re.fullmatch(REASON, end.error)
    assert (end.kind, end.retryable) == ("memory", False)
    assert end.peak_memory_bytes > 150_000_000 or GROUPS
    wait_until(lambda: gone(pid), "the end of what has grown")


def test_an_adopted_attempt_is_held_to_its_limit(store: Store) -> None:
    """Its first dispatcher was killed; its supervisor, which has none, is told why it ends."""
    run_id = store.submit(task("a", grows(300)), agent_memory_mb=150)
    first = store.daemon()
    pid = grower(store)
    store.kill(first)
    store.daemon()
    wait_until(lambda: len(store.events(run_id, ev.RunClaimed)) == 2, "the second daemon to hold the run")
    (store.folder / "go").touch()
    end = ended_for_memory(store, run_id)
    assert re.fullmatch(REASON, end.error)
    assert (end.kind, end.retryable) == ("memory", False)
    wait_until(lambda: gone(pid), "the end of what has grown")


@WITHOUT_GROUPS
def test_an_attempt_whose_supervisor_dies_while_it_is_ended_has_the_reason_too(store: Store) -> None:
    """It is deaf to SIGTERM; nobody but the dispatcher knows why it was to end."""
    deaf = f"trap '' TERM; '{sys.executable}' grows.py 200 & wait"
    run_id = store.submit(task("a", deaf), agent_memory_mb=150)
    store.daemon()
    grower(store)
    command = store.command_of(run_id, "a")
    row = process_row(command)
    assert row is not None
    (store.folder / "go").touch()
    wait_until(lambda: gone(int((store.folder / "grower").read_text())), "the first signal")
    os.kill(row.parent, signal.SIGKILL)
    assert re.fullmatch(REASON, ended_for_memory(store, run_id).error)


def test_an_attempt_within_its_limit_goes_on(store: Store) -> None:
    """And what many of its processes share counts once: each of these has the pages of the one before it."""
    program = (
        "import os, time\n"
        "held = bytearray(100_000_000)\n"
        "for _ in range(4):\n"
        "    if os.fork():\n"
        "        os.wait()\n"
        "        os._exit(0)\n"
        "while not os.path.exists('go'):\n"
        "    time.sleep(0.01)\n"
    )
    (store.folder / "shares.py").write_text(program)
    run_id = store.submit(task("a", f"exec '{sys.executable}' shares.py"), agent_memory_mb=200)
    store.daemon()
    wait_until(lambda: any(one.memory_bytes > 400_000_000 for one in store.points(run_id)), "a sample", every_s=0.1)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    [end] = store.events(run_id, ev.TaskCompleted)
    assert end.peak_memory_bytes > 400_000_000, "all that is resident, as a sample sees it"


@pytest.mark.slow
@WITHOUT_GROUPS
def test_a_hog_of_the_processors_comes_after_others(store: Store) -> None:
    """With all that it starts, sessions of their own included; it is not ended. The share is one that any hog exceeds."""
    hog = "setsid sh -c 'while ! test -e go; do :; done' &"
    run_id = store.submit(task("a", f"{hog} {hog} {hog} wait"), agent_cpu_percent=0.01)
    store.daemon()
    command = store.command_of(run_id, "a")

    def lowered() -> bool:
        nices = {os.getpriority(os.PRIO_PROCESS, pid) for pid in (command, *descendants([command]))}
        return min(nices) >= STEPS[0]

    wait_until(lambda: gone_or(lowered), "a lower priority", every_s=0.1)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    [end] = store.events(run_id, ev.TaskCompleted)
    assert end.peak_cpu_percent > 0.01


def test_attempts_come_after_what_a_person_does(store: Store) -> None:
    """A lower priority within a moment, though a child was faster; the first to go where memory runs out; no core files."""
    waits = "while ! test -e go; do sleep 0.01; done"
    run_id = store.submit(task("a", f"sh -c '{waits}' & setsid sh -c '{waits}' & ulimit -c > said; wait"))
    store.daemon()
    command = store.command_of(run_id, "a")
    lowered = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)

    def tree() -> list[int]:
        return sorted({command, *descendants([command])})

    def all_lowered() -> bool:
        found = [pid for pid in tree() if process_row(pid) is not None]
        nices = {os.getpriority(os.PRIO_PROCESS, pid) for pid in found}
        groups = {Path(f"/proc/{pid}/autogroup") for pid in found}
        shares = {path.read_text().split()[-1] for path in groups if path.exists()}
        return len(found) > 2 and nices == {lowered} and shares <= {str(lowered)}

    wait_until(lambda: gone_or(all_lowered), "their priority", every_s=0.05)
    if Path("/proc/self/oom_score_adj").exists():

        def all_first_to_go() -> bool:
            return {int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in tree()} == {OOM_SCORE}

        wait_until(lambda: gone_or(all_first_to_go), "their scores", every_s=0.05)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    assert (store.folder / "said").read_text() == "0\n"


def test_open_files_are_told_at_the_end(store: Store) -> None:
    """Those that a sample saw."""
    program = (
        "import os, time; files = [open(os.devnull) for _ in range(60)]\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
    )
    (store.folder / "opens.py").write_text(program)
    run_id = store.submit(task("a", f"exec '{sys.executable}' opens.py"))
    store.daemon()
    wait_until(lambda: any(one.open_files > 60 for one in store.points(run_id)), "a sample", every_s=0.1)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    [end] = store.events(run_id, ev.TaskCompleted)
    assert 60 < end.peak_open_files < 200


def test_the_peaks_of_an_attempt_outlive_its_dispatcher(store: Store) -> None:
    """It had its files open before the first daemon was killed, and has closed them when the second one looks."""
    program = (
        "import os, time; files = [open(os.devnull) for _ in range(60)]\n"
        "while not os.path.exists('close'): time.sleep(0.01)\n"
        "files.clear(); open('closed', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
    )
    (store.folder / "opens.py").write_text(program)
    run_id = store.submit(task("a", f"exec '{sys.executable}' opens.py"))
    first = store.daemon()
    wait_until(lambda: any(one.open_files > 60 for one in store.points(run_id)), "a sample", every_s=0.1)
    store.kill(first)
    seen = len(store.points(run_id))
    (store.folder / "close").touch()
    wait_until((store.folder / "closed").exists, "its files to be closed")
    store.daemon()
    wait_until(lambda: len(store.points(run_id)) > seen, "a sample by the second daemon", every_s=0.1)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    [end] = store.events(run_id, ev.TaskCompleted)
    assert end.peak_open_files > 60


@WITH_GROUPS
def test_the_kernel_holds_an_attempt_to_its_share_and_nothing_stays_of_its_group(store: Store) -> None:
    """The group is gone with the attempt, also where its daemon and its supervisor were killed."""
    assert GROUPS is not None
    before = set(os.listdir(GROUPS))
    script = "cat /proc/self/cgroup > group; while ! test -e go; do sleep 0.01; done"
    run_id = store.submit(task("a", script), agent_cpu_percent=50.0, agent_memory_mb=150)
    daemon = store.daemon()
    wait_until(lambda: store.lines("group"), "the command")
    [name] = {*os.listdir(GROUPS)} - before
    assert store.lines("group")[-1].endswith(f"/{name}")
    quota, period = (Path(GROUPS, name) / "cpu.max").read_text().split()
    assert int(quota) / int(period) == pytest.approx(0.5 * (os.cpu_count() or 1))
    row = process_row(store.command_of(run_id, "a"))
    assert row is not None
    store.kill(daemon)
    os.kill(row.parent, signal.SIGKILL)
    store.daemon()
    wait_until(lambda: store.events(run_id, ev.AttemptLost), "the loss of the attempt")
    assert not Path(GROUPS, name).exists()
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    wait_until(lambda: set(os.listdir(GROUPS)) <= before, "the end of the second attempt's group")
