"""Restarts after what machines do: a reboot, pids given out again, torn files, clocks that are set, and sleep."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import DAEMON, Process, Store, gone, task, wait_until

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.submission import Plan, RetryPolicy, RunSettings
from parallel_agents.scheduler.daemon import find_daemon, find_holder, lock_file
from parallel_agents.scheduler.process import ProcessIdentity, carriers, identity_of, is_alive, send_signal
from parallel_agents.submit import submit

DAY_S = 86_400

# A daemon whose clock is set by as many seconds as a file says, as all of its process sees it, from before its imports on.
CLOCKED = """
import datetime, sys, time
from pathlib import Path
shift = Path(sys.argv[2])
real_ns, real_s, real_datetime = time.time_ns, time.time, datetime.datetime
def by_s():
    try:
        return int(shift.read_text())
    except (OSError, ValueError):
        return 0
class Shifted(real_datetime):
    @classmethod
    def now(cls, tz=None):
        return real_datetime.now(tz) + datetime.timedelta(seconds=by_s())
time.time_ns = lambda: real_ns() + by_s() * 10**9
time.time = lambda: real_s() + by_s()
import apscheduler.schedulers.base, apscheduler.schedulers.blocking, apscheduler.triggers.date, apscheduler.triggers.interval
import apscheduler.executors.base
import parallel_agents.scheduler.loop
for module in list(sys.modules.values()):
    if module.__name__.startswith(("apscheduler.", "parallel_agents.")) and getattr(module, "datetime", None) is real_datetime:
        if module.__name__ != "apscheduler.util":
            module.datetime = Shifted
from parallel_agents.scheduler.daemon import run_daemon
run_daemon(Path(sys.argv[1]), started_at="today")
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, without a daemon."""
    made = Store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def bystander() -> Iterator[ProcessIdentity]:
    """A living process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    who = identity_of(process.pid)
    assert who is not None
    yield who
    process.kill()
    process.wait()


def folder_of(store: Store, run_id: str, name: str) -> Path:
    """Of a task's last attempt."""
    attempt_id = store.state(run_id).tasks[name].attempt_id
    assert attempt_id is not None
    return store.path.parent / "runs" / run_id / name / attempt_id


def power_off(store: Store, run_id: str, daemon: Process, *names: str) -> None:
    """Everything of these tasks that lives is gone from one moment to the next, supervisor and daemon included."""
    supervisors = set()
    for name in names:
        said = json.loads((folder_of(store, run_id, name) / "process.json").read_text())
        supervisors.add(ProcessIdentity.from_dict(said["supervisor"]))
    store.kill(daemon)
    for supervisor in supervisors:
        send_signal(supervisor, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, supervisors)), "the supervisor to be gone")
    attempts = [folder_of(store, run_id, name).name for name in names]
    while living := carriers(attempts):
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def rewrite(path: Path, **values: Any) -> None:
    """Have a file of JSON say something else."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **values}).ljust(400) + "\n")


@pytest.mark.parametrize("how", ["another boot", "the pid is somebody else's"])
def test_after_a_reboot_what_ended_is_completed_and_what_vanished_runs_again(
    store: Store, bystander: ProcessIdentity, how: str
) -> None:
    """Although all that is written names a living process: that of somebody else, who is left alone."""
    until = "until test -e go; do sleep 0.02; done"
    run_id = store.submit(
        task("ended", "echo e >> lines; until test -e end; do sleep 0.02; done; echo over"),
        task("gone", f"echo g >> lines; {until}"),
        task("spent", f"echo s >> lines; {until}", max_retries=0),
        task("after", "echo a >> lines", "ended", "gone"),
        max_parallel_agents=3, store_limit=3,
    )  # fmt: skip
    daemon = store.daemon()
    wait_until(lambda: sorted(store.lines("lines")) == ["e", "g", "s"], "three tasks to run")
    ended, lost = folder_of(store, run_id, "ended"), folder_of(store, run_id, "gone")
    os.kill(daemon.pid, signal.SIGSTOP)  # It does not see the end of the first one.
    (store.folder / "end").touch()
    wait_until((ended / "exit.json").exists, "the first one's end")
    power_off(store, run_id, daemon, "gone", "spent")
    somebody = (
        bystander._replace(boot_id="a boot before") if how == "another boot" else bystander._replace(start_time=1)
    )
    for folder in (ended, lost, folder_of(store, run_id, "spent")):
        rewrite(folder / "process.json", **somebody.to_dict(), supervisor=somebody.to_dict())
    lock_file(store.path).write_text(json.dumps({**somebody.to_dict(), "started_at": "yesterday"}) + "\n")
    holder = {**somebody.to_dict(), "kind": "daemon"}
    store.log.append(run_id, store.state(run_id).version, [ev.RunClaimed(holder=holder, epoch=2)])
    assert find_holder(store.path) is None
    (store.folder / "go").touch()
    store.daemon()
    assert store.ended(run_id) == "failed"  # One of them had no retry to spare.
    state = store.state(run_id)
    assert {name: (one.status, one.attempts) for name, one in state.tasks.items()} == {
        "ended": ("completed", 1), "gone": ("completed", 2), "spent": ("failed", 1), "after": ("completed", 1),
    }  # fmt: skip
    assert state.tasks["ended"].output == "over"
    assert sorted(event.task_id for event in store.events(run_id, ev.AttemptLost)) == ["gone", "spent"]
    assert sorted(store.lines("lines")) == ["a", "e", "g", "g", "s"]
    assert is_alive(bystander)
    assert verify_rows(store.log.rows()).broken is None


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(401))


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40] if path.exists() else b'{"attempt_id": "x", "outc')


@pytest.mark.parametrize("tear", [_empty, _zeros, _half])
def test_files_that_the_reboot_has_torn_name_nobody_and_tell_of_no_end(
    store: Store, tear: Callable[[Path], None]
) -> None:
    """Neither who ran nor how it ended: it vanished, and runs again."""
    run_id = store.submit(task("a", "echo a >> lines; until test -e go; do sleep 0.02; done; echo over"))
    daemon = store.daemon()
    wait_until(lambda: store.lines("lines") == ["a"], "the task to run")
    folder = folder_of(store, run_id, "a")
    power_off(store, run_id, daemon, "a")
    tear(folder / "process.json")
    tear(folder / "exit.json")
    (folder / "lock").unlink()
    (store.folder / "go").touch()
    store.daemon()
    assert store.ended(run_id) == "completed"
    task_state = store.state(run_id).tasks["a"]
    assert (task_state.attempts, task_state.output) == (2, "over")
    assert len(store.events(run_id, ev.AttemptLost)) == 1


def clocked(store: Store, shift: Path) -> Process:
    """A daemon whose clock is set by what a file says."""
    process = store.start(CLOCKED, str(shift), whole=True)

    def dispatches() -> bool:
        assert process.poll() is None, process.communicate()[1]
        found = find_daemon(store.path)
        return found is not None and found.identity.pid == process.pid

    wait_until(dispatches, "the daemon")
    return process


@pytest.mark.parametrize("first_days", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_clock_that_is_set_by_days_ends_nothing_and_holds_nothing_up(store: Store, first_days: int) -> None:
    """While an attempt runs, while another one rests before its retry, and between two daemons, one of which is killed."""
    shift = store.folder / "shift"
    settings = RunSettings(max_execution_s=3600.0, retry=RetryPolicy(delay_s=0.5, exponential=False))
    plan = Plan(
        name="clocks",
        tasks=(
            task("slow", "echo slow >> lines; until test -e go; do sleep 0.02; done; echo over", timeout_s=600.0),
            task("flaky", "echo flaky >> lines; until test -e fail; do sleep 0.02; done; test -e good", max_retries=9),
            task("after", "true", "slow", "flaky"),
        ),
        settings=settings,
    )
    run_id = submit(store.log, plan, workdir=store.folder)
    daemon = clocked(store, shift)
    wait_until(lambda: len(store.lines("lines")) == 2, "both to run")
    shift.write_text(str(first_days * DAY_S))
    (store.folder / "fail").touch()
    wait_until(lambda: store.lines("lines").count("flaky") >= 3, "two retries after the clock was set")
    shift.write_text(str(-first_days * 2 * DAY_S))
    before = store.lines("lines").count("flaky")
    wait_until(lambda: store.lines("lines").count("flaky") > before, "one more, after it was set once again")
    store.kill(daemon)
    shift.write_text(str(-3 * DAY_S))
    clocked(store, shift)
    (store.folder / "good").touch()
    wait_until(lambda: store.state(run_id).tasks["flaky"].status == "completed", "the last retry")
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    slow = store.state(run_id).tasks["slow"]
    assert (slow.attempts, slow.output) == (1, "over")
    assert slow.duration_s is not None
    assert slow.duration_s < DAY_S / 2
    times = [record.at_us for record in store.log.read()]
    assert times == sorted(times)
    assert not store.events(run_id, ev.AttemptLost)
    assert not store.events(run_id, ev.RunCancelRequested)


@contextlib.contextmanager
def asleep(*pids: int, for_s: float) -> Iterator[None]:
    """Stop processes for so long at least, whatever else happens meanwhile."""
    until = time.monotonic() + for_s
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    time.sleep(max(0.0, until - time.monotonic()))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("allowed_s", [15.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_what_is_stopped_for_longer_than_its_timeouts_goes_on(store: Store, allowed_s: float) -> None:
    """Daemon, supervisor and attempt, as by a machine that sleeps: no timeout, no end of the run, nobody takes it over."""
    run_id = store.submit(
        task("a", "echo a >> lines; until test -e go; do sleep 0.02; done; echo over", timeout_s=allowed_s),
        task("b", "echo b >> lines", "a"),
        max_execution_s=allowed_s,
    )  # fmt: skip
    daemon = store.daemon()
    wait_until(lambda: store.lines("lines") == ["a"], "the task to run")
    command = store.command_of(run_id, "a")
    said = json.loads((folder_of(store, run_id, "a") / "process.json").read_text())
    with asleep(daemon.pid, int(said["supervisor"]["pid"]), command, for_s=1.1 * allowed_s):
        second = store.start(DAEMON)
        second.communicate(timeout=60)
        assert second.returncode == 1
    assert not gone(command)
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    assert store.lines("lines") == ["a", "b"]
    assert len(store.events(run_id, ev.RunClaimed)) == 1


def test_fifty_attempts_are_adopted_completed_and_declared_lost_by_one_restart(store: Store) -> None:
    """Each is one or the other; a second restart changes nothing."""
    names = [f"t{number:02}" for number in range(50)]
    run_id = store.submit(
        *(task(name, f"echo x >> lines; until test -e {name[-1]}; do sleep 0.1; done", max_retries=0) for name in names),
        max_parallel_agents=50, store_limit=50,
    )  # fmt: skip
    daemon = store.daemon()
    wait_until(lambda: len(store.lines("lines")) == 50, "all fifty to run")
    folders = {name: folder_of(store, run_id, name) for name in names}
    store.kill(daemon)
    for digit in "012":
        (store.folder / digit).touch()
    ended = [name for name in names if name[-1] in "012"]
    wait_until(lambda: all((folders[name] / "exit.json").exists() for name in ended), "fifteen of them to end")
    vanished = [name for name in names if name[-1] in "34"]
    for name in vanished:  # Nobody holds a lock that is there, and nothing says how it ended. What lives of it must go.
        (folders[name] / "lock").unlink()
    daemon = store.daemon()

    def counted() -> bool:
        counts = store.state(run_id).counts
        return (counts["completed"], counts["failed"], counts["running"]) == (15, 10, 25)

    wait_until(counted, "each of the fifty to be seen to")
    seq = store.log.last_seq()
    store.kill(daemon)
    daemon = store.daemon()
    wait_until(lambda: store.log.last_seq() > seq, "the next daemon's claim")
    for digit in "56789":
        (store.folder / digit).touch()
    assert store.ended(run_id) == "failed"
    between = [type(record.event) for record in store.log.read(seq)]
    assert between[0] is ev.RunClaimed
    assert between.count(ev.TaskCompleted) == 25
    assert not {ev.TaskStarted, ev.AttemptLost, ev.TaskFailed}.intersection(between)
    assert len(store.lines("lines")) == 50
    assert not carriers([folders[name].name for name in names])
