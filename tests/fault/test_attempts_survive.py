"""Attempts outlive what started them: kill -9 of dispatcher and supervisor, daemons, deaf and sleeping processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_S, next_line, wait_until

from parallel_agents.scheduler.process import ProcessIdentity, carriers, is_alive, process_row, send_signal
from parallel_agents.scheduler.runners.protocol import Ended, Launch
from parallel_agents.scheduler.runners.shell import ShellRunner

NEEDS_SUBREAPER = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a supervisor")
ENVIRONMENT = {"PATH": os.environ["PATH"]}

# A dispatcher: starts what its standard input says, says so, then says how each ended, until it is killed.
DISPATCHER = """
import dataclasses, json, sys, threading
from pathlib import Path
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
orders = json.loads(sys.stdin.readline())
rung = threading.Event()
runner = ShellRunner(rung.set, doorbell_dir=orders["doorbell"], doorbell_prefix="bell-")
for order in orders["launches"]:
    order["folder"], order["workdir"] = Path(order["folder"]), Path(order["workdir"])
    runner.start(Launch(**order))
print("started", flush=True)
while rung.wait():
    rung.clear()
    for ended in runner.poll():
        print(json.dumps(dataclasses.asdict(ended)), flush=True)
"""

# Forks twice with a session of its own in between, and then holds out, deaf to SIGTERM. It keeps our marker, or only
# the output, or neither.
DAEMON = """
import os, sys
pid_file, kind = sys.argv[1:]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(pid_file + ".tmp", "w") as file:
            file.write(str(os.getpid()))
        if kind != "writing":
            for fd in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        script = 'trap "" TERM; mv "$0.tmp" "$0"; while :; do sleep 0.1; done'
        path = {"PATH": os.environ["PATH"]}
        os.execve("/bin/sh", ["sh", "-c", script, pid_file], dict(os.environ) if kind == "marked" else path)
    os._exit(0)
os.wait()
"""


class Scene:
    """A folder of attempts, the runners that a test makes, and everybody who must be gone at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.doorbell = Path(tempfile.mkdtemp(prefix="bell"))  # Short: the path of a socket must be.
        self.runners: list[ShellRunner] = []
        self.launches: list[Launch] = []
        self.dispatchers: list[subprocess.Popen[str]] = []

    def launch(self, script: str, *, timeout_s: float = 600.0) -> Launch:
        """An attempt that runs a shell script."""
        number = len(self.launches)
        attempt_id = f"survivor-{os.getpid()}-{self.folder.name}-{number}"
        folder = self.folder / "runs" / "run" / f"task-{number}" / attempt_id
        launch = Launch(
            "run",
            f"task-{number}",
            attempt_id,
            folder,
            self.folder,
            command=("sh", "-c", script),
            env=ENVIRONMENT,
            timeout_s=timeout_s,
        )
        self.launches.append(launch)
        return launch

    def daemon(self, pid_file: Path, kind: str = "marked") -> str:
        """Words of a shell script that start a daemon and come back once it runs."""
        words = [sys.executable, "-c", DAEMON, str(pid_file), kind]
        return f"{shlex.join(words)}; while ! test -s '{pid_file}'; do sleep 0.01; done"

    def runner(self) -> ShellRunner:
        """A dispatcher's runner in this process."""
        self.rung = threading.Event()
        runner = ShellRunner(self.rung.set)
        self.runners.append(runner)
        return runner

    def dispatcher(self, *launches: Launch, setup: str = "") -> subprocess.Popen[str]:
        """Another process that has started these attempts; ``setup`` is what its shell does before."""
        orders = [
            {
                "run_id": one.run_id,
                "task_id": one.task_id,
                "attempt_id": one.attempt_id,
                "folder": str(one.folder),
                "workdir": str(one.workdir),
                "command": one.command,
                "env": dict(one.env),
                "timeout_s": one.timeout_s,
            }
            for one in launches
        ]
        words = ["sh", "-c", f"{setup}\nexec {shlex.join([sys.executable, '-c', DISPATCHER])}"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.dispatchers.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"launches": orders, "doorbell": str(self.doorbell)}) + "\n")
        process.stdin.flush()
        assert next_line(process.stdout) == "started\n"
        return process

    def kill(self, dispatcher: subprocess.Popen[str]) -> None:
        """kill -9, and wait until it is gone."""
        dispatcher.kill()
        dispatcher.communicate()

    def adopt(self, *launches: Launch) -> ShellRunner:
        """A new dispatcher that takes over."""
        runner = self.runner()
        runner.adopt(launches)
        return runner

    def end(self, runner: ShellRunner, launch: Launch) -> Ended:
        """The one end of an attempt; there must be no other in the meantime."""
        ended: Ended
        [ended] = wait_until(runner.poll, f"{launch.attempt_id} to end")
        assert ended.attempt_id == launch.attempt_id
        assert runner.poll() == []
        return ended

    def supervisor_of(self, launch: Launch) -> ProcessIdentity:
        """Who watches over a running attempt."""
        return ProcessIdentity.from_dict(self.written(launch)["supervisor"])

    def written(self, launch: Launch) -> dict[str, Any]:
        """What ``process.json`` says once the command runs."""

        def running() -> dict[str, Any] | None:
            with contextlib.suppress(OSError, ValueError):
                data: dict[str, Any] = json.loads((launch.folder / "process.json").read_text())
                return data if data["state"] == "running" else None
            return None

        found: dict[str, Any] = wait_until(running, "the command to be on record")
        return found

    def nothing_left(self, launch: Launch) -> bool:
        """Whether no process of an attempt lives."""
        return not carriers({launch.attempt_id})

    def close(self) -> None:
        """End all that a failed test may have left."""
        for dispatcher in self.dispatchers:
            if dispatcher.returncode is None:
                self.kill(dispatcher)
        for runner in self.runners:
            for launch in self.launches:
                runner.stop(launch.attempt_id, grace_s=0.0)
            runner.close()
        for pid in carriers({one.attempt_id for one in self.launches}):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self.doorbell.iterdir():
            path.unlink()
        self.doorbell.rmdir()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene, cleared at its end."""
    made = Scene(tmp_path)
    yield made
    made.close()


def is_gone(pid: int) -> bool:
    """Whether a pid names no living process."""
    row = process_row(pid)
    return row is None or row.zombie


def test_a_killed_dispatcher_loses_no_work(scene: Scene, tmp_path: Path) -> None:
    """The command goes on, is adopted while it runs, ran once, and its output is whole."""
    script = "echo begun; echo x >> count; while ! test -e go; do sleep 0.01; done; seq 2000"
    launch = scene.launch(script)
    dispatcher = scene.dispatcher(launch)
    wait_until((tmp_path / "count").exists, "the command to begin")
    scene.kill(dispatcher)
    runner = scene.adopt(launch)
    pid = scene.written(launch)["pid"]
    wait_until(lambda: runner.live() == {launch.attempt_id: pid}, "the adopted attempt to be seen alive")
    assert runner.running() == 1
    (tmp_path / "go").touch()
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.exit_code, ended.output) == ("exited", 0, "2000")
    assert (tmp_path / "count").read_text() == "x\n"
    expected = "begun\n" + "".join(f"{number}\n" for number in range(1, 2001))
    assert (launch.folder / "stdout.log").read_text() == expected
    assert scene.rung.is_set()
    assert runner.running() == 0


def test_what_ended_while_nobody_watched_is_completed_from_its_exit_file(scene: Scene, tmp_path: Path) -> None:
    """No dispatcher lives when the command ends; the next one tells how it ended, failures too."""
    good = scene.launch("while ! test -e go; do sleep 0.01; done; echo done")
    bad = scene.launch("while ! test -e go; do sleep 0.01; done; exit 7")
    dispatcher = scene.dispatcher(good, bad)
    supervisor = scene.supervisor_of(good)
    scene.written(bad)
    scene.kill(dispatcher)
    (tmp_path / "go").touch()
    wait_until(lambda: not is_alive(supervisor), "the supervisor to end after its last attempt")
    runner = scene.adopt(good, bad)
    ends: list[Ended] = []
    while len(ends) < 2:
        ends += wait_until(runner.poll, "both ends")
    found = {ended.attempt_id: (ended.outcome, ended.exit_code, ended.output) for ended in ends}
    assert found == {good.attempt_id: ("exited", 0, "done"), bad.attempt_id: ("exited", 7, None)}


def test_an_end_without_dispatcher_rings_the_doorbell(scene: Scene, tmp_path: Path) -> None:
    """Whoever listens on the store is woken, and only they."""
    launch = scene.launch("while ! test -e go; do sleep 0.01; done")
    dispatcher = scene.dispatcher(launch)
    scene.written(launch)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        ours.bind(str(scene.doorbell / "bell-1.sock"))
        other.bind(str(scene.doorbell / "other-1.sock"))
        ours.settimeout(DEADLINE_S)
        scene.kill(dispatcher)
        (tmp_path / "go").touch()
        assert ours.recv(64)
        assert (launch.folder / "exit.json").exists()
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(64)


def test_a_timeout_is_kept_while_no_dispatcher_lives(scene: Scene) -> None:
    """The supervisor itself ends what takes too long."""
    launch = scene.launch("sleep 600", timeout_s=1.5)
    dispatcher = scene.dispatcher(launch)
    scene.written(launch)
    scene.kill(dispatcher)
    wait_until((launch.folder / "exit.json").exists, "the attempt to be timed out")
    ended = scene.end(scene.adopt(launch), launch)
    assert (ended.outcome, ended.error) == ("timed_out", "timed out after 1.5 s")
    assert scene.nothing_left(launch)


@pytest.mark.parametrize("timed_out", [False, True])
def test_an_adopted_attempt_can_be_stopped(scene: Scene, timed_out: bool) -> None:
    """Its supervisor has no dispatcher any more and ends it all the same."""
    launch = scene.launch("sleep 600 & sleep 600")
    dispatcher = scene.dispatcher(launch)
    scene.written(launch)
    scene.kill(dispatcher)
    runner = scene.adopt(launch)
    runner.stop(launch.attempt_id, timed_out=timed_out, grace_s=20.0)
    ended = scene.end(runner, launch)
    assert ended.outcome == ("timed_out" if timed_out else "stopped")
    assert ended.exit_code == -signal.SIGTERM
    assert scene.nothing_left(launch)


def test_a_killed_supervisor_leaves_nothing_running(scene: Scene, tmp_path: Path) -> None:
    """Its attempts are lost, their processes are ended, daemons too, and later attempts get a new supervisor."""
    runner = scene.runner()
    launch = scene.launch(f"{scene.daemon(tmp_path / 'daemon')}; sleep 600 & sleep 600")
    runner.start(launch)
    pid = scene.written(launch)["pid"]
    wait_until((tmp_path / "daemon").exists, "the daemon")
    supervisor = scene.supervisor_of(launch)
    assert send_signal(supervisor, signal.SIGKILL)
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.retryable) == ("lost", True)
    assert ended.error is not None
    assert ended.error.startswith("the attempt vanished: ")
    assert scene.nothing_left(launch)
    assert is_gone(pid)
    assert is_gone(int((tmp_path / "daemon").read_text()))
    again = scene.launch("echo again")
    runner.start(again)
    assert scene.end(runner, again).output == "again"
    assert scene.supervisor_of(again) != supervisor


def test_dispatcher_and_supervisor_killed_together_are_recovered_from(scene: Scene) -> None:
    """The next dispatcher finds the lock free, ends what is left and reports it as lost."""
    launch = scene.launch("sleep 600 & sleep 600")
    dispatcher = scene.dispatcher(launch)
    supervisor = scene.supervisor_of(launch)
    scene.kill(dispatcher)
    assert send_signal(supervisor, signal.SIGKILL)
    ended = scene.end(scene.adopt(launch), launch)
    assert (ended.outcome, ended.began) == ("lost", True)
    assert scene.nothing_left(launch)
    assert (launch.folder / "revoked").exists()


def test_an_attempt_that_never_began_is_lost_and_a_late_start_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Between the log's word and the start lies a kill -9: whoever recovers makes sure that it never starts."""
    launch = scene.launch("touch ran")
    lost = scene.end(scene.adopt(launch), launch)
    assert (lost.outcome, lost.began, lost.error) == ("lost", False, "it never began: its dispatcher died first")
    late = scene.runner()
    late.start(launch)
    ended = scene.end(late, launch)
    assert (ended.outcome, ended.retryable) == ("not_started", False)
    assert not (tmp_path / "ran").exists()
    assert not (launch.folder / "exit.json").exists()


def test_an_attempt_that_somebody_recovers_does_not_start(scene: Scene, tmp_path: Path) -> None:
    """Who holds the lock decides, even before there is a mark."""
    launch = scene.launch("touch ran")
    launch.folder.mkdir(parents=True)
    with open(launch.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runner = scene.runner()
        runner.start(launch)
        ended = scene.end(runner, launch)
    assert (ended.outcome, ended.error) == ("not_started", "another process holds the attempt")
    assert not (tmp_path / "ran").exists()


def test_a_recovery_spares_whoever_has_the_pid_now(scene: Scene) -> None:
    """A process file from before names a pid that belongs to somebody else today."""
    launch = scene.launch("true")
    launch.folder.mkdir(parents=True)
    bystander = subprocess.Popen(["sleep", "600"])
    row = process_row(bystander.pid)
    assert row is not None
    stale = {"pid": bystander.pid, "start_time": row.start_time - 1, "boot_id": "an earlier boot", "state": "running"}
    (launch.folder / "process.json").write_text(json.dumps(stale))
    try:
        assert scene.end(scene.adopt(launch), launch).outcome == "lost"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    "kind",
    ["marked", pytest.param("writing", marks=NEEDS_SUBREAPER), pytest.param("bare", marks=NEEDS_SUBREAPER)],
)
@pytest.mark.parametrize("end", ["of its own", "stopped"])
def test_a_daemon_does_not_outlive_its_attempt(scene: Scene, tmp_path: Path, kind: str, end: str) -> None:
    """Double fork, a session of its own, deaf to SIGTERM, even without our marker: it ends with the attempt.

    Another attempt runs beside it. What bears no trace at all ends at the latest when that one does.
    """
    pid_file = tmp_path / "daemon"
    runner = scene.runner()
    other = scene.launch("sleep 600")
    runner.start(other)  # Not mistaken for it.
    scene.written(other)
    after = "sleep 600" if end == "stopped" else "echo over"
    launch = scene.launch(f"{scene.daemon(pid_file, kind)}; {after}")
    runner.start(launch)
    wait_until(pid_file.exists, "the daemon")
    daemon = int(pid_file.read_text())
    if end == "stopped":
        runner.stop(launch.attempt_id, grace_s=0.2)
    ended = scene.end(runner, launch)
    assert ended.outcome == ("stopped" if end == "stopped" else "exited")
    if kind == "bare":
        runner.stop(other.attempt_id, grace_s=0.2)
        assert scene.end(runner, other).outcome == "stopped"
    assert is_gone(daemon)
    assert scene.nothing_left(launch)
    if kind != "bare":
        assert runner.live().keys() == {other.attempt_id}


@NEEDS_SUBREAPER
def test_two_that_end_together_leave_no_daemon_between_them(scene: Scene, tmp_path: Path) -> None:
    """Nothing tells whose it is, and none of them goes on: it ends all the same."""
    runner = scene.runner()
    other = scene.launch("sleep 600")
    launch = scene.launch(f"{scene.daemon(tmp_path / 'daemon', 'bare')}; sleep 600")
    runner.start(other)
    runner.start(launch)
    wait_until((tmp_path / "daemon").exists, "the daemon")
    supervisor = scene.supervisor_of(launch)
    send_signal(supervisor, signal.SIGSTOP)  # So that it sees both ends at once.
    for one in (other, launch):
        os.kill(scene.written(one)["pid"], signal.SIGKILL)
    send_signal(supervisor, signal.SIGCONT)
    ends: list[Ended] = []
    while len(ends) < 2:
        ends += wait_until(runner.poll, "both ends")
    assert is_gone(int((tmp_path / "daemon").read_text()))


@NEEDS_SUBREAPER
def test_a_traceless_child_that_was_seen_is_remembered(scene: Scene, tmp_path: Path) -> None:
    """It is below the command when that is stopped: its own session, bare environment and deafness do not save it."""
    program = """
import os, subprocess, sys
script = 'trap "" TERM; echo $$ > "$0.tmp"; mv "$0.tmp" "$0"; while :; do sleep 0.1; done'
quiet = {"stdin": -3, "stdout": -3, "stderr": -3}
subprocess.run(["sh", "-c", script, sys.argv[1]], env={"PATH": os.environ["PATH"]}, start_new_session=True, **quiet)
"""
    runner = scene.runner()
    other = scene.launch("sleep 600")
    launch = scene.launch(shlex.join([sys.executable, "-c", program, str(tmp_path / "child")]))
    runner.start(other)
    runner.start(launch)
    wait_until((tmp_path / "child").exists, "the child")
    runner.stop(launch.attempt_id, grace_s=0.1)
    assert scene.end(runner, launch).outcome == "stopped"
    assert is_gone(int((tmp_path / "child").read_text()))
    assert runner.live().keys() == {other.attempt_id}


def test_children_left_in_the_background_end_with_the_command(scene: Scene) -> None:
    """The command's own exit code stands, and what it left is asked before it is killed."""
    runner = scene.runner()
    child = "(trap 'echo asked; exit' TERM; touch ready; while :; do sleep 0.01; done) &"
    launch = scene.launch(f"{child} while ! test -e ready; do sleep 0.01; done; exit 4")
    runner.start(launch)
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.exit_code, ended.output) == ("exited", 4, "asked")
    assert scene.nothing_left(launch)


def test_a_process_that_does_not_listen_is_ended_all_the_same(scene: Scene, tmp_path: Path) -> None:
    """One that ignores SIGTERM does not outlive the grace."""
    runner = scene.runner()
    launch = scene.launch("trap '' TERM; touch begun; while :; do sleep 0.01; done")
    runner.start(launch)
    wait_until((tmp_path / "begun").exists, "the command to begin")
    runner.stop(launch.attempt_id, grace_s=0.3)
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.exit_code) == ("stopped", -signal.SIGKILL)
    assert scene.nothing_left(launch)


def test_a_sleeping_process_is_woken_to_end(scene: Scene) -> None:
    """SIGSTOP does not keep it from hearing SIGTERM: it ends in its own way, long before the grace is over."""
    runner = scene.runner()
    launch = scene.launch("trap 'exit 9' TERM; kill -STOP $$; sleep 600")
    runner.start(launch)
    pid = scene.written(launch)["pid"]
    state = ["ps", "-o", "stat=", "-p", str(pid)]
    wait_until(lambda: subprocess.run(state, capture_output=True).stdout.startswith(b"T"), "the command to sleep")
    runner.stop(launch.attempt_id, grace_s=600.0)
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.exit_code) == ("stopped", 9)
    assert scene.nothing_left(launch)


def test_a_command_that_cleans_up_has_time_for_it(scene: Scene, tmp_path: Path) -> None:
    """SIGTERM comes first, and the exit code of the cleaning is kept."""
    runner = scene.runner()
    launch = scene.launch("trap 'echo tidy > tidied; exit 9' TERM; touch begun; while :; do sleep 0.01; done")
    runner.start(launch)
    wait_until((tmp_path / "begun").exists, "the command to begin")
    runner.stop(launch.attempt_id, grace_s=20.0)
    ended = scene.end(runner, launch)
    assert (ended.outcome, ended.exit_code) == ("stopped", 9)
    assert (tmp_path / "tidied").read_text() == "tidy\n"


def test_closing_a_runner_leaves_its_attempts_to_the_supervisor(scene: Scene, tmp_path: Path) -> None:
    """A dispatcher that detaches loses nothing either."""
    launch = scene.launch("while ! test -e go; do sleep 0.01; done; echo finished")
    first = scene.runner()
    first.start(launch)
    scene.written(launch)
    first.close()
    second = scene.adopt(launch)
    (tmp_path / "go").touch()
    assert scene.end(second, launch).output == "finished"
    assert first.poll() == []


def test_a_full_table_of_open_files_fails_only_the_attempts_it_hits(scene: Scene, tmp_path: Path) -> None:
    """What a supervisor with few descriptors cannot hold is worth another try; what it holds comes to its end."""
    launches = [scene.launch("while ! test -e go; do sleep 0.01; done; echo held") for _ in range(30)]
    dispatcher = scene.dispatcher(*launches, setup="ulimit -n 24")
    ends = [json.loads(next_line(dispatcher.stdout))]
    assert (ends[0]["outcome"], ends[0]["retryable"]) == ("not_started", True)
    assert "too many open files" in ends[0]["error"]
    (tmp_path / "go").touch()
    ends += [json.loads(next_line(dispatcher.stdout)) for _ in launches[1:]]
    assert {ended["attempt_id"] for ended in ends} == {launch.attempt_id for launch in launches}
    assert {ended["output"] for ended in ends if ended["outcome"] == "exited"} == {"held"}
    assert {ended["outcome"] for ended in ends} == {"exited", "not_started"}
