"""What every runner keeps: the same tests on commands, callables and agents, then what is special to the first two."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from stages import Callables, Shell
from waiting import DEADLINE_S, wait_until

from parallel_agents.eventstore.sqlite import _file_system_of
from parallel_agents.scheduler.process import MARKER, identity_of, is_alive
from parallel_agents.scheduler.runners.callables import TaskContext
from parallel_agents.scheduler.runners.protocol import Ended


@pytest.fixture(params=["shell", "callables", "agents"])
def stage(request: pytest.FixtureRequest) -> Any:
    """Each runner."""
    return request.getfixturevalue(request.param)


def test_work_that_succeeds_ends_once_with_its_output(stage: Any) -> None:
    """Exit code 0, no error, the last line or the returned value, times in order."""
    before_us = time.time_ns() // 1000
    ended = stage.run(stage.saying("forty-two"))
    assert (ended.outcome, ended.exit_code, ended.error, ended.output) == ("exited", 0, None, "forty-two")
    assert before_us <= ended.started_at_us <= ended.ended_at_us <= time.time_ns() // 1000
    assert stage.rings >= 1


def test_work_that_fails_says_why_in_one_line(stage: Any) -> None:
    """An exit code that is not 0, a line for a person, and what was written to stderr in the log."""
    launch = stage.failing()
    ended = stage.run(launch)
    assert ended.outcome == "exited"
    assert ended.exit_code in (1, 3)
    assert ended.error == stage.failure
    assert ended.retryable
    assert "trouble" in (launch.folder / "stderr.log").read_text()


def test_every_end_is_polled_exactly_once(stage: Any) -> None:
    """Many at once: as many ends, each with its own output, and then nothing more."""
    launches = [stage.saying(f"piece {number}") for number in range(stage.many)]
    for launch in launches:
        stage.start(launch)
    outputs = [stage.end_of(launch.attempt_id).output for launch in launches]
    assert outputs == [f"piece {number}" for number in range(stage.many)]
    assert [stage.count(launch.attempt_id) for launch in launches] == [1] * stage.many
    assert stage.runner.poll() == []
    assert stage.runner.running() == 0


@pytest.mark.parametrize("timed_out", [False, True])
def test_stopped_work_says_whether_its_time_was_up(stage: Any, tmp_path: Path, timed_out: bool) -> None:
    """The outcome is ``stopped`` or ``timed_out``, with an error that says so; at most an agent's last word is kept."""
    launch = stage.endless(tmp_path / "begun")
    stage.start(launch)
    wait_until((tmp_path / "begun").exists, "the work to begin")
    stage.runner.stop(launch.attempt_id, timed_out=timed_out)
    ended = stage.end_of(launch.attempt_id)
    assert ended.outcome == ("timed_out" if timed_out else "stopped")
    assert ended.error == ("timed out after 600 s" if timed_out else "stopped")
    assert ended.exit_code != 0
    assert ended.output == stage.last_word


def test_stopping_twice_is_stopping_once(stage: Any, tmp_path: Path) -> None:
    """The first word stands: a stop does not become a timeout, and there is one end."""
    launch = stage.endless(tmp_path / "begun")
    stage.start(launch)
    wait_until((tmp_path / "begun").exists, "the work to begin")
    stage.runner.stop(launch.attempt_id)
    stage.runner.stop(launch.attempt_id, timed_out=True)
    assert stage.end_of(launch.attempt_id).outcome == "stopped"
    stage.runner.stop(launch.attempt_id)
    stage.run(stage.saying("after it"))
    assert stage.count(launch.attempt_id) == 1


def test_stopping_what_is_not_there_is_no_error(stage: Any) -> None:
    """An unknown id changes nothing for the others."""
    stage.runner.stop("never-heard-of")
    assert stage.run(stage.saying("unharmed")).output == "unharmed"


def test_a_stop_right_behind_the_start_is_not_lost(stage: Any, tmp_path: Path) -> None:
    """However far the start has come, the work ends as stopped."""
    launches = [stage.endless(tmp_path / f"begun-{number}") for number in range(10)]
    for launch in launches:
        stage.start(launch)
        stage.runner.stop(launch.attempt_id)
    assert {stage.end_of(launch.attempt_id).outcome for launch in launches} == {"stopped"}


def test_after_closing_nothing_is_polled_twice(tmp_path: Path) -> None:
    """Closing a runner keeps the ends that it has, for one more poll."""
    stage = Callables(tmp_path)
    stage.start(stage.saying("kept"))
    wait_until(lambda: stage.runner.running() == 0, "the call to return")
    stage.runner.close()
    wait_until(lambda: stage.count(f"attempt-{os.getpid()}-{tmp_path.name}-1") == 1, "the end")
    assert stage.runner.poll() == []


# Commands.


def test_a_command_runs_where_and_with_what_it_was_told(shell: Shell, tmp_path: Path) -> None:
    """Working directory, the whole environment plus the marker, an empty stdin, a session of its own."""
    workdir = tmp_path / "elsewhere"
    workdir.mkdir()
    program = (
        "import json, os, sys; print(json.dumps([os.getcwd(), dict(os.environ), sys.stdin.read(),"
        " os.getsid(0) == os.getpid()]))"
    )
    launch = shell.launch(command=(sys.executable, "-c", program), workdir=workdir, env={"COLOUR": "grün"})
    assert shell.run(launch).exit_code == 0
    cwd, environment, stdin, leads = json.loads((launch.folder / "stdout.log").read_text())
    environment.pop("LC_CTYPE", None)  # Python sets it in a C locale.
    environment.pop("__CF_USER_TEXT_ENCODING", None)  # And macOS this.
    assert Path(cwd) == workdir.resolve()
    assert environment == {"COLOUR": "grün", MARKER: launch.attempt_id}
    assert (stdin, leads) == ("", True)


def test_a_command_starts_with_signals_as_they_come_by_default(shell: Shell) -> None:
    """Nothing ignored, nothing blocked, no descriptor of ours, and the limit of open files that we have."""
    program = """
import os, resource, signal
python_ignores = {signal.SIGPIPE, signal.SIGXFSZ}
print([s.name for s in signal.Signals if s not in python_ignores and signal.getsignal(s) is signal.SIG_IGN])
print(list(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print([fd for fd in range(3, 60) if is_open(fd)])
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    launch = shell.launch(command=(sys.executable, "-c", program))
    assert shell.run(launch).error is None
    lines = (launch.folder / "stdout.log").read_text().splitlines()
    assert lines == ["[]", "[]", "[]", str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])]


def test_a_closed_pipe_ends_a_command(shell: Shell) -> None:
    """SIGPIPE, which Python ignores for itself, has its usual effect."""
    ended = shell.run(shell.launch(command=("sh", "-c", "kill -PIPE $$; echo deaf")))
    assert (ended.exit_code, ended.output) == (-signal.SIGPIPE, None)


def test_the_files_of_an_attempt_are_private(shell: Shell) -> None:
    """Folders 0700, files 0600, and an exit file that says what the end said."""
    launch = shell.saying("secret")
    ended = shell.run(launch)
    assert stat.S_IMODE(launch.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(launch.folder.parent.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in launch.folder.iterdir()}
    assert modes == dict.fromkeys(["lock", "process.json", "stdout.log", "stderr.log", "exit.json"], 0o600)
    assert Ended(**json.loads((launch.folder / "exit.json").read_text())) == ended


def test_a_running_command_is_known_by_its_identity(shell: Shell, tmp_path: Path) -> None:
    """``process.json`` and ``live`` name the same living process; after its end there is none."""
    launch = shell.endless(tmp_path / "begun")
    shell.start(launch)
    wait_until((tmp_path / "begun").exists, "the command to begin")
    live = wait_until(shell.runner.live, "its pid")
    written = json.loads((launch.folder / "process.json").read_text())
    identity = identity_of(written["pid"])
    assert identity is not None
    assert live == {launch.attempt_id: written["pid"]}
    assert identity.to_dict() == {key: written[key] for key in ("pid", "start_time", "boot_id")}
    shell.runner.stop(launch.attempt_id)
    shell.end_of(launch.attempt_id)
    assert shell.runner.live() == {}
    assert not is_alive(identity)


def test_the_output_is_the_last_line_without_control_characters(shell: Shell) -> None:
    """Colours, empty lines and what is no text are left out; a long line is cut."""
    cases = {
        r"printf 'first\n\033[31mlast\033[0m\n\n \n'": "last",
        r"printf 'half a line'": "half a line",
        r"printf 'progress 1\rprogress 2\r'": "progress 2",
        r"printf '\377 bytes\n'": "\ufffd bytes",
        "head -c 100000 /dev/zero | tr '\\0' x": "x" * 500,
        "true": None,
    }
    launches = {shell.start(shell.launch(command=("sh", "-c", script))): wanted for script, wanted in cases.items()}
    assert {one: shell.end_of(one).output for one in launches} == launches


def test_a_command_killed_by_a_signal_names_it(shell: Shell) -> None:
    """The exit code is the negative number, the error has the name."""
    ended = shell.run(shell.launch(command=("sh", "-c", "kill -KILL $$")))
    assert (ended.outcome, ended.exit_code, ended.error) == ("exited", -9, "killed by signal SIGKILL")


def test_what_a_command_used_is_measured(shell: Shell) -> None:
    """Processor time and memory of the command and of its children."""
    program = "x = bytearray(200_000_000); y = sum(range(3_000_000))"
    ended = shell.run(shell.launch(command=("sh", "-c", f"'{sys.executable}' -c '{program}'; true")))
    assert ended.cpu_s > 0.01
    assert 200_000_000 < ended.peak_memory_bytes < 2_000_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by Linux")
def test_what_a_short_command_wrote_to_the_disk_is_measured(shell: Shell, on_disk: Path) -> None:
    """By its children too, however soon they end."""
    if _file_system_of(on_disk) in ("", "tmpfs"):
        pytest.skip("what is written here goes to no disk")
    script = f"dd if=/dev/zero of={on_disk}/written bs=1000000 count=3 conv=fsync"
    ended = shell.run(shell.launch(command=("sh", "-c", f"({script}); true")))
    assert 3_000_000 <= ended.disk_written_bytes < 10_000_000


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("no-such-program-here",), "no such command: 'no-such-program-here'"),
        (("./not-there",), "no such command: './not-there'"),
        (("./plain.txt",), "not executable: './plain.txt'"),
        (("",), "no such command: ''"),
        (("echo", "a\0b"), "cannot be started: embedded null"),
        (("echo", "x" * 5_000_000), "cannot be started: argument list too long"),
    ],
)
def test_a_command_that_cannot_start_says_why(
    shell: Shell, tmp_path: Path, command: tuple[str, ...], error: str
) -> None:
    """It is not tried again, and others still start."""
    (tmp_path / "plain.txt").write_text("no program")
    ended = shell.run(shell.launch(command=command))
    assert (ended.outcome, ended.retryable) == ("not_started", False)
    assert ended.error is not None
    assert ended.error.startswith(error)
    assert shell.run(shell.saying("still here")).output == "still here"


def test_a_missing_directory_is_named(shell: Shell, tmp_path: Path) -> None:
    """The command does not start anywhere else instead."""
    ended = shell.run(shell.launch(command=("true",), workdir=tmp_path / "gone"))
    assert (ended.outcome, ended.error) == ("not_started", f"no such directory: '{tmp_path / 'gone'}'")


def test_an_attempt_without_room_for_its_files_is_not_started(shell: Shell, tmp_path: Path) -> None:
    """A file where the folder should be: the reason is told, and others still start."""
    (tmp_path / "runs").write_text("in the way")
    ended = shell.run(shell.launch(command=("true",)))
    assert ended.outcome == "not_started"
    assert ended.error is not None
    assert "not a directory" in ended.error
    (tmp_path / "runs").unlink()
    assert shell.run(shell.saying("room now")).output == "room now"


def test_a_command_that_takes_too_long_is_ended(shell: Shell) -> None:
    """Nobody called ``stop``: the limit counts from the start of the process."""
    launch = shell.launch(command=("sleep", "600"), timeout_s=0.2)
    ended = shell.run(launch)
    assert (ended.outcome, ended.error) == ("timed_out", "timed out after 0.2 s")
    assert 200_000 <= ended.ended_at_us - ended.started_at_us < 20_000_000


def test_no_attempt_id_runs_twice(shell: Shell, tmp_path: Path) -> None:
    """A second start with the same folder is refused; the first one's files stay as they are."""
    launch = shell.launch(command=("sh", "-c", f"echo ran >> '{tmp_path}/runs.log'"))
    first = shell.run(launch)
    shell.ends.clear()
    second = shell.run(launch)
    assert (first.outcome, second.outcome) == ("exited", "not_started")
    assert (tmp_path / "runs.log").read_text() == "ran\n"
    assert json.loads((launch.folder / "exit.json").read_text())["outcome"] == "exited"


# Callables.


def test_a_callable_sees_its_task_and_directory(callables: Callables, tmp_path: Path) -> None:
    """The context holds what the launch said, and is not cancelled."""
    seen = []
    ended = callables.run(
        callables.launch(call=lambda context: seen.append((context.task, context.workdir, context.cancelled)), task="t")
    )
    assert ended.error is None
    assert seen == [("t", tmp_path, False)]


def test_a_parameter_with_a_default_is_the_authors_own(callables: Callables) -> None:
    """``lambda part=part: ...`` gets no context; ``context=None`` does."""

    def named(context: TaskContext | None = None) -> bool:
        return context is not None

    assert callables.run(callables.launch(call=lambda part=7: part)).output == 7
    assert callables.run(callables.launch(call=named)).output is True
    assert callables.run(callables.launch(call=dict)).output == {}


def test_what_json_cannot_say_becomes_text(callables: Callables) -> None:
    """Plain values come as they are, anything else as its ``repr``, cut."""

    class Odd:
        def __repr__(self) -> str:
            return "odd" * 1000

    cases: list[tuple[Any, Any]] = [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        ("grün", "grün"),
        (
            {
                1,
            },
            "{1}",
        ),
        (float("nan"), "nan"),
        (2**70, str(2**70)),
        ("\udc80", "'\\udc80'"),
        (Odd(), ("odd" * 1000)[:500]),
    ]
    for value, wanted in cases:
        assert callables.run(callables.launch(call=lambda value=value: value)).output == wanted


@pytest.mark.parametrize("problem", [SystemExit(0), KeyboardInterrupt()])
def test_a_callable_that_wants_to_exit_only_fails(callables: Callables, problem: BaseException) -> None:
    """The worker goes on to the next call."""

    def leave() -> None:
        raise problem

    ended = callables.run(callables.launch(call=leave))
    assert (ended.outcome, ended.exit_code) == ("exited", 1)
    assert ended.error is not None
    assert ended.error.startswith(type(problem).__name__)
    assert callables.run(callables.saying("next")).output == "next"


def test_calls_that_do_not_return_keep_nobody_waiting(callables: Callables, tmp_path: Path) -> None:
    """Twenty endless calls in a pool of five, and the next one still runs."""
    endless = [callables.endless(tmp_path / f"begun-{number}") for number in range(20)]
    for launch in endless:
        callables.start(launch)
    assert callables.run(callables.saying("through")).output == "through"
    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 20, "all calls to begin")
    for launch in endless:
        callables.runner.stop(launch.attempt_id)
    assert {callables.end_of(launch.attempt_id).outcome for launch in endless} == {"stopped"}


def test_calls_that_wait_for_each_other_are_all_under_way(callables: Callables) -> None:
    """A wake is not spent on every call, yet none sleeps on beside a free thread, mixed with short calls as they may be."""
    for _ in range(50):
        meeting = threading.Barrier(5)
        waiting = [
            callables.start(callables.launch(call=lambda meeting=meeting: meeting.wait(20) >= 0)) for _ in range(5)
        ]
        short = [callables.start(callables.launch(call=lambda: None)) for _ in range(5)]
        assert [callables.end_of(one).error for one in (*waiting, *short)] == [None] * 10


def test_a_stopped_call_counts_until_it_returns(callables: Callables) -> None:
    """There is no end before the thread is free, and then the result is dropped."""
    go_on = threading.Event()
    begun = threading.Event()

    def deaf() -> str:
        begun.set()
        go_on.wait()
        return "too late"

    launch = callables.launch(call=deaf)
    callables.start(launch)
    begun.wait(DEADLINE_S)
    callables.runner.stop(launch.attempt_id)
    callables.run(callables.saying("meanwhile"))
    assert callables.count(launch.attempt_id) == 0
    go_on.set()
    assert callables.end_of(launch.attempt_id).output is None


def test_a_callable_is_never_taken_over(callables: Callables) -> None:
    """Its process died: it is lost, and trying again would be the same."""
    launch = callables.saying("gone")
    callables.runner.adopt([launch])
    ended = callables.end_of(launch.attempt_id)
    assert (ended.outcome, ended.retryable) == ("lost", False)
    assert ended.error == "its Python process died; a callable cannot be taken over"
