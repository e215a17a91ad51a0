"""The daemon as a real process: killed, refused, detached, locked out, put to sleep, and steered from outside."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import DAEMON, Process, Store, gone, task, wait_until
from waiting import line_with, next_line

from parallel_agents import steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.projections.projector import Projector
from parallel_agents.scheduler.daemon import find_daemon, lock_file
from parallel_agents.scheduler.engine import Engine
from parallel_agents.scheduler.process import carriers

SUBMITTER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[3], f"{sys.argv[3]}/.."]
from daemons import plan_of, task
from parallel_agents.eventstore.log import Log
from parallel_agents.submit import submit
with Log(Path(sys.argv[1])) as log:
    names = ["a", "b", "c"]
    tasks = [task(name, f"echo {sys.argv[2]}-{name} >> lines", *names[:at][-1:]) for at, name in enumerate(names)]
    for _ in range(5):
        print(submit(log, plan_of(tasks), workdir=Path.cwd()), flush=True)
"""
CLAIMER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], f"{sys.argv[2]}/.."]
from daemons import plan_of, task
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.process import own_identity
from parallel_agents.submit import submit
with Log(Path(sys.argv[1])) as log:
    me = {**own_identity().to_dict(), "kind": "run"}
    print(submit(log, plan_of([task("a", "echo a >> lines")]), workdir=Path.cwd(), claim=me), flush=True)
    sys.stdin.read()
"""
HERE = str(Path(__file__).parent)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, without a daemon."""
    made = Store(tmp_path)
    yield made
    made.close()


def test_a_second_daemon_is_refused_and_names_the_first(store: Store) -> None:
    """By its pid. When the first is killed, the next one may come."""
    first = store.daemon()
    second = store.start(DAEMON)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said.strip() == (
        f"error: a daemon dispatches this store already: pid {first.pid} (`parallel-agents daemon stop` ends it)"
    )
    assert oct(lock_file(store.path).stat().st_mode & 0o777) == "0o600"
    store.kill(first)
    assert find_daemon(store.path) is None
    store.daemon()


def test_twelve_tasks_run_exactly_once_although_the_daemon_is_killed_twice(store: Store) -> None:
    """Once while four run and end without it, once while four are ending. Nothing is lost, nothing runs twice."""
    tasks = []
    for level, before in enumerate([(), ("t0",), ("t4", "t5")]):
        for number in range(4):
            name = f"t{4 * level + number}"
            script = f"echo {name} >> lines; while ! test -e go{level}; do sleep 0.02; done"
            tasks.append(task(name, script, *before))
    run_id = store.submit(*tasks, max_parallel_agents=4, store_limit=4)
    first = store.daemon()
    wait_until(lambda: len(store.lines("lines")) == 4, "the first four tasks to run")
    store.kill(first)
    (store.folder / "go0").touch()
    second = store.daemon()
    wait_until(lambda: len(store.lines("lines")) == 8, "the next four tasks to run")
    (store.folder / "go1").touch()
    store.kill(second)
    (store.folder / "go2").touch()
    store.daemon()
    assert store.ended(run_id) == "completed"
    assert sorted(store.lines("lines")) == sorted(f"t{number}" for number in range(12))
    completed = store.events(run_id, ev.TaskCompleted)
    assert sorted(event.task_id for event in completed) == sorted(f"t{number}" for number in range(12))
    assert len({event.attempt_id for event in store.events(run_id, ev.TaskStarted)}) == len(completed) + len(
        store.events(run_id, ev.AttemptLost)
    )
    assert verify_rows(store.log.rows()).broken is None


def test_daemons_that_are_killed_at_any_moment_lose_nothing(store: Store) -> None:
    """Whatever each was about: appending, starting, recording. No task has a retry to spare for that."""
    run_id = store.submit(*(task(f"t{number}", f"echo t{number} >> lines", max_retries=0) for number in range(12)),
                          max_parallel_agents=2, store_limit=2)  # fmt: skip
    store.kill_daemons("lines", 1, 3, 6, 9)
    assert store.ended(run_id) == "completed"
    assert sorted(store.lines("lines")) == sorted(f"t{number}" for number in range(12))


def test_eight_submitters_at_once_and_a_daemon_get_along(store: Store) -> None:
    """Every acknowledged run is run, each task of it once."""
    store.daemon()
    submitters = [store.start(SUBMITTER, str(number), HERE) for number in range(8)]
    runs = []
    for one in submitters:
        said, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
        runs += said.split()
    assert len(set(runs)) == 40
    assert {store.ended(run_id) for run_id in runs} == {"completed"}
    expected = [f"{number}-{name}" for number in range(8) for name in "abc" for _ in range(5)]
    assert sorted(store.lines("lines")) == sorted(expected)
    assert verify_rows(store.log.rows()).broken is None


def test_a_daemon_that_is_asked_to_end_detaches(store: Store) -> None:
    """Its attempts go on, it releases its runs, and the next daemon takes up both."""
    run_id = store.submit(task("a", "while ! test -e go; do sleep 0.02; done; echo over"), task("b", "true", "a"))
    first = store.daemon()
    command = store.command_of(run_id, "a")
    store.kill(first, signal.SIGTERM)
    assert first.returncode == 0
    assert find_daemon(store.path) is None
    assert Projector(store.log).runs()[run_id].holder is None
    assert not gone(command)
    second = store.daemon()
    (store.folder / "go").touch()
    assert store.ended(run_id) == "completed"
    assert store.state(run_id).tasks["a"].output == "over"
    assert len(store.events(run_id, ev.TaskStarted)) == 2
    assert store.events(run_id, ev.RunClaimed)[-1].holder["pid"] == second.pid


def test_a_daemon_detaches_in_time_although_the_store_is_locked(store: Store) -> None:
    """Somebody holds a transaction open all the while."""
    run_id = store.submit(task("a", "while :; do sleep 0.1; done"))
    daemon = store.daemon()
    command = store.command_of(run_id, "a")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        store.kill(daemon, signal.SIGTERM)
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert daemon.returncode == 0
    assert not gone(command)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit the files of another")
def test_a_daemon_whose_disk_is_full_loses_no_end_and_goes_on_when_there_is_room(store: Store) -> None:
    """It says so, again and again; what ended meanwhile is recorded then, once."""
    run_id = store.submit(task("a", "echo a >> lines; while ! test -e go; do sleep 0.02; done"),
                          task("b", "echo b >> lines", "a"))  # fmt: skip
    daemon = store.daemon()
    wait_until(lambda: store.lines("lines") == ["a"], "the first task")
    limit = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    (store.folder / "go").touch()
    for _ in range(2):
        line_with("the store refuses", daemon.stderr)
    assert store.state(run_id).tasks["a"].status == "running"
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limit)
    assert store.ended(run_id) == "completed"
    assert store.lines("lines") == ["a", "b"]
    assert len(store.events(run_id, ev.TaskStarted)) == len(store.events(run_id, ev.TaskCompleted)) == 2


def test_a_run_whose_holder_dies_is_taken_over(store: Store) -> None:
    """By the daemon that runs, as soon as the holder is gone, and not before."""
    store.daemon()
    claimer = store.start(CLAIMER, HERE)
    run_id = next_line(claimer.stdout).strip()
    marker = store.submit(task("other", "true"))
    store.ended(marker)
    assert store.state(run_id).status == "submitted"
    store.kill(claimer)
    assert store.ended(run_id) == "completed"
    assert [event.epoch for event in store.events(run_id, ev.RunClaimed)] == [1, 2]


DEAF = "trap '' TERM INT HUP; touch deaf; while :; do sleep 0.05; done"


@pytest.mark.parametrize("how", ["task", "run", "emergency", "max_execution_time"])
def test_an_attempt_that_is_deaf_to_signals_is_stopped_all_the_same(store: Store, how: str) -> None:
    """With all it has started; what needs it is skipped or cancelled, and the run comes to its end."""
    limits = {"max_execution_s": 2} if how == "max_execution_time" else {}
    run_id = store.submit(task("a", f"({DEAF}) & {DEAF}"), task("b", "true", "a"), **limits)
    store.daemon()
    wait_until((store.folder / "deaf").exists, "the deaf one")
    attempt_id = store.state(run_id).tasks["a"].attempt_id
    assert attempt_id is not None
    if how == "task":
        steer.cancel(store.log, run_id, "a", "enough")
    elif how == "run":
        steer.cancel(store.log, run_id, reason="enough", grace_s=0.3)
    elif how == "emergency":
        assert steer.stop_everything(store.log) == [run_id]
    expected = {"task": "failed", "run": "cancelled", "emergency": "cancelled", "max_execution_time": "failed"}
    assert store.ended(run_id) == expected[how]
    state = store.state(run_id)
    assert state.tasks["a"].status == "cancelled"
    assert state.tasks["b"].status == ("skipped" if how == "task" else "cancelled")
    assert state.tasks["a"].reason == {"emergency": steer.EMERGENCY, "max_execution_time": how}.get(how, "enough")
    assert carriers([attempt_id]) == {}
    if how == "emergency":
        assert store.events(run_id, ev.RunCancelRequested)[-1].grace_s == 0.0


def test_a_run_is_paused_resumed_and_retried_from_another_process(store: Store) -> None:
    """The daemon hears of each at once; a run that had ended is taken up again."""
    run_id = store.submit(
        task("a", "echo a >> lines; while ! test -e go; do sleep 0.02; done"),
        task("b", "echo b >> lines; test -e good", "a", max_retries=0), task("c", "echo c >> lines", "b"),
    )  # fmt: skip
    store.daemon()
    wait_until(lambda: store.lines("lines") == ["a"], "the first task")
    steer.pause(store.log, run_id, "lunch")
    (store.folder / "go").touch()
    wait_until(lambda: store.state(run_id).tasks["a"].status == "completed", "the first task to end")
    marker = store.submit(task("other", "true"))
    store.ended(marker)  # The daemon has had all the time it needs.
    assert store.lines("lines") == ["a"]
    steer.resume(store.log, run_id)
    assert store.ended(run_id) == "failed"
    (store.folder / "good").touch()
    assert steer.retry(store.log, run_id) == ["b", "c"]
    assert store.ended(run_id) == "completed"
    assert store.lines("lines") == ["a", "b", "b", "c"]


def put_to_sleep(store: Store, daemon: Process) -> None:
    """At a moment when it is not in the middle of a transaction, which would lock everybody out."""
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None, timeout=0.1)) as probe:
        while True:
            daemon.send_signal(signal.SIGSTOP)
            with contextlib.suppress(sqlite3.OperationalError):
                probe.execute("BEGIN IMMEDIATE")
                probe.execute("ROLLBACK")
                return
            daemon.send_signal(signal.SIGCONT)


def test_the_end_of_an_adopted_attempt_is_heard(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor rings; nobody has to wait until its files are looked at again."""
    run_id = store.submit(task("a", "while ! test -e go; do sleep 0.02; done; echo over"))
    daemon = store.daemon()
    store.command_of(run_id, "a")
    store.kill(daemon)
    monkeypatch.setattr("parallel_agents.scheduler.runners.shell.WATCH_S", 3600.0)
    engine = Engine(store.log, kind="run")
    try:
        engine.hold(run_id)
        engine.start()
        wait_until(lambda: run_id in engine.dispatcher.held, "the run to be ours")
        (store.folder / "go").touch()
        assert store.ended(run_id) == "completed"
    finally:
        engine.close()


def test_a_sleeping_daemon_is_not_dead_and_one_that_lost_its_run_leaves_it_alone(store: Store) -> None:
    """While it sleeps nobody takes the run by himself. Where somebody was told to, the woken one notices the lease."""
    run_id = store.submit(
        task("a", "while ! test -e go; do sleep 0.02; done; echo over"), task("b", "echo b >> lines", "a")
    )
    daemon = store.daemon()
    command = store.command_of(run_id, "a")
    put_to_sleep(store, daemon)
    engine = Engine(store.log, kind="run")
    try:
        engine.hold(run_id)
        engine.start()
        assert engine.wait(run_id, until=lambda progress: progress.status == "running", timeout_s=60.0)
        assert engine.dispatcher.held == {}
        state = store.state(run_id)
        store.log.append(run_id, state.version, [ev.RunClaimed(holder=engine.dispatcher._me, epoch=2)])
        engine.loop.wake()
        wait_until(lambda: run_id in engine.dispatcher.held, "the run to be ours")
        daemon.send_signal(signal.SIGCONT)
        marker = store.submit(task("other", "true"))
        assert store.ended(marker) == "completed"  # The daemon is awake, and has seen all there is.
        assert not gone(command)
        (store.folder / "go").touch()
        assert engine.wait(run_id, until=lambda progress: progress.status == "completed", timeout_s=60.0)
    finally:
        engine.close()
    assert store.lines("lines") == ["b"]
    after = [record for record in store.records(run_id) if record.version > state.version + 1]
    assert {record.actor for record in after} == {"run"}
    assert [type(record.event).__name__ for record in after] == [
        "TaskCompleted", "TaskQueued", "TaskStarted", "TaskCompleted", "RunCompleted",
    ]  # fmt: skip
    assert store.state(run_id).tasks["a"].output == "over"


def test_the_lock_file_of_a_daemon_may_hold_anything(store: Store) -> None:
    """What cannot be read names nobody."""
    for text in ("", "{", '{"pid": 1}', "[]", json.dumps({"pid": 1, "start_time": 0, "boot_id": "x"}), "\0"):
        lock_file(store.path).write_text(text)
        assert find_daemon(store.path) is None
    store.daemon()
