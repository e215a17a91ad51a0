"""Setup, command, gates and teardown, run for real: what the outside sees, and what is written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_S, wait_until

from parallel_agents.scheduler.process import MARKER, carriers, process_row
from parallel_agents.scheduler.runners.protocol import Launch
from parallel_agents.scheduler.runners.shell import ShellRunner
from parallel_agents.scheduler.runners.steps import LAST_S, SETUP_FAILED, STEPS, wrap

ENVIRONMENT = {"PATH": os.environ["PATH"]}
LONG_S = 600.0


def shell(text: str) -> tuple[str, ...]:
    """A command of the shell."""
    return ("sh", "-c", text)


class Desk:
    """A directory to work in, a folder for what is written down, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.workdir = folder / "work"
        self.folder = folder / "attempt"
        self.workdir.mkdir()
        self.folder.mkdir()
        self.started: list[subprocess.Popen[bytes]] = []

    def words(
        self,
        command: Sequence[str] = ("true",),
        *,
        setup: Sequence[str] | None = None,
        teardown: Sequence[str] | None = None,
        timeout_s: float = LONG_S,
        gates: Sequence[Sequence[str]] = (),
        gate_timeout_s: float = LONG_S,
        last_s: float = LONG_S,
    ) -> tuple[str, ...]:
        """What is run in place of the command."""
        given = [{"command": one, "timeout_s": gate_timeout_s, "name": f"gate {one[0]}"} for one in gates]
        return wrap(
            command, setup=setup, teardown=teardown, timeout_s=timeout_s, gates=given, folder=self.folder, last_s=last_s
        )

    def run(
        self, command: Sequence[str] = ("true",), env: Mapping[str, str] = ENVIRONMENT, **given: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        words = self.words(command, **given)
        return subprocess.run(
            words,
            cwd=self.workdir,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def start(self, command: Sequence[str] = ("true",), **given: Any) -> subprocess.Popen[bytes]:
        """Start it as a supervisor does: in a session of its own."""
        process = subprocess.Popen(
            self.words(command, **given),
            cwd=self.workdir,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Wait for the end: return code and what it said on stderr."""
        _, said = process.communicate(timeout=DEADLINE_S)
        return process.returncode, said.decode()

    @property
    def told(self) -> dict[str, Any]:
        """What was written down."""
        found: dict[str, Any] = json.loads((self.folder / STEPS).read_text())
        return found

    def begun(self) -> int:
        """Wait until a step has left its pid in a file."""
        path = self.workdir / "begun"
        return int(wait_until(lambda: path.exists() and path.read_text().strip(), "a step to begin"))


BEGIN = "echo $$ > begun.tmp; mv begun.tmp begun; "
SLEEP = BEGIN + "exec sleep 600"
STUBBORN = "trap '' TERM; " + BEGIN + "while :; do sleep 600; done"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two empty folders; whatever a failed test has left running is ended."""
    desk = Desk(tmp_path)
    yield desk
    for process in desk.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=DEADLINE_S)


def test_a_command_with_nothing_around_it_stays_as_it_is() -> None:
    """It costs no interpreter."""
    assert wrap(["make"], setup=None, teardown=None, timeout_s=1, gates=[], folder="/nowhere") == ("make",)


def test_setup_command_and_teardown_follow_each_other_on_the_same_streams(desk: Desk) -> None:
    """All of them in the directory that it was started in."""
    said = desk.run(
        shell("echo command; pwd; echo trouble >&2"),
        setup=shell("echo setup; pwd"),
        teardown=shell("echo teardown; pwd"),
    )
    here = os.path.realpath(desk.workdir)
    assert said.stdout.decode().split("\n") == ["setup", here, "command", here, "teardown", here, ""]
    assert said.stderr == b"trouble\n"
    assert said.returncode == 0
    assert [(name, step["exit_code"], step["error"]) for name, step in desk.told.items()] == [
        ("setup", 0, None), ("command", 0, None), ("teardown", 0, None),
    ]  # fmt: skip


def test_the_command_finds_the_environment_that_it_would_find_without_us(desk: Desk) -> None:
    """A Python program that is started without a locale adds one, which is not meant for others."""
    found = desk.run(("env",), setup=("true",)).stdout.decode().splitlines()
    expected = [f"PATH={ENVIRONMENT['PATH']}"]
    assert [line for line in found if sys.platform.startswith("linux") or not line.startswith("LC_CTYPE")] == expected
    kept = {**ENVIRONMENT, "LC_CTYPE": "C.UTF-8", "A": "ü"}
    assert (
        dict(line.split("=", 1) for line in desk.run(("env",), kept, setup=("true",)).stdout.decode().splitlines())
        == kept
    )


@pytest.mark.parametrize("word", ["", "a b", "ü\n'\"$x", os.fsdecode(b"\xff")])
def test_words_arrive_as_they_were_written(desk: Desk, word: str) -> None:
    """Those of the command, and those of the setup too."""
    printing = (sys.executable, "-c", "import os, sys; os.write(1, os.fsencode(sys.argv[1]) + b'|')", word)
    said = desk.run(printing, setup=printing, env={**ENVIRONMENT, "LC_ALL": "C.UTF-8"})
    assert said.stdout == (os.fsencode(word) + b"|") * 2


def test_a_command_of_many_words_is_no_longer_than_without_us(desk: Desk) -> None:
    """One argument of a program holds 128 KiB at most, all of them together far more."""
    words = ["x" * 100_000] * 5
    said = desk.run((sys.executable, "-c", "import sys; print(sum(map(len, sys.argv[1:])))", *words), setup=("true",))
    assert said.stdout == b"500000\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 125", 125),
        ("exit 255", 255),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -PIPE $$; exit 3", -signal.SIGPIPE),  # Which an interpreter ignores, and children inherit that.
        ("kill -ABRT $$", -signal.SIGABRT),
    ],
)
def test_the_end_of_the_command_is_the_end_that_is_seen(desk: Desk, command: str, code: int) -> None:
    """Exit code or signal, whatever the teardown comes to."""
    assert desk.run(shell(command), setup=("true",), teardown=shell("exit 4")).returncode == code
    assert desk.told["command"]["exit_code"] == code
    assert desk.told["teardown"]["error"] == "exit 4"


def test_a_failed_setup_is_said_and_the_command_does_not_run(desk: Desk) -> None:
    """The teardown does: half of a setup may have to be taken down."""
    said = desk.run(
        ("touch", "ran"), setup=shell("echo why; exit 3"), teardown=("touch", "down"), gates=[("touch", "gate")]
    )
    assert (said.returncode, said.stdout, said.stderr) == (SETUP_FAILED, b"why\n", b"setup failed: exit 3\n")
    assert sorted(path.name for path in desk.workdir.iterdir()) == ["down"]
    assert desk.told.keys() == {"setup", "teardown"}
    assert (desk.told["setup"]["started"], desk.told["setup"]["exit_code"]) == (True, 3)


def test_a_setup_that_a_signal_killed_says_which(desk: Desk) -> None:
    """By its name."""
    assert desk.run(setup=shell("kill -KILL $$")).stderr == b"setup failed: killed by signal SIGKILL\n"


def test_a_setup_that_takes_too_long_is_ended_with_all_that_it_started(desk: Desk) -> None:
    """Also where it does not want to."""
    attempt_id = f"late-{os.getpid()}"
    text = "trap '' TERM; sleep 600 & wait; wait"
    said = desk.run(setup=shell(text), timeout_s=0.5, env={**ENVIRONMENT, MARKER: attempt_id})
    assert (said.returncode, said.stderr) == (SETUP_FAILED, b"setup failed: timed out after 0.5 s\n")
    wait_until(lambda: not carriers({attempt_id}), "what the setup started to go")


def lives(pid: int) -> bool:
    """Whether a process is more than a zombie that nobody has reaped."""
    row = process_row(pid)
    return row is not None and not row.zombie


@pytest.mark.parametrize(("make", "code", "words"), [(False, 127, "no such command"), (True, 126, "not executable")])
def test_what_cannot_be_started_is_told_as_a_shell_tells_it(desk: Desk, make: bool, code: int, words: str) -> None:
    """As command, as setup, as gate and as teardown."""
    if make:
        (desk.workdir / "nothing").write_text("")
    said = desk.run(("./nothing",), teardown=("./nothing",))
    lines = [f"{words}: './nothing'", f"teardown failed: {words}: './nothing'", ""]
    assert (said.returncode, said.stderr.decode().split("\n")) == (code, lines)
    assert [desk.told["command"][name] for name in ("started", "exit_code", "error")] == [False, code, lines[0]]
    said = desk.run(setup=("./nothing",))
    assert (said.returncode, said.stderr.decode()) == (SETUP_FAILED, f"setup failed: {lines[0]}\n")
    assert desk.run(gates=[("./nothing",)]).returncode == 0
    assert desk.told["gates"][0]["error"] == lines[0]


def test_every_gate_runs_after_a_command_that_did_well(desk: Desk) -> None:
    """Into logs of their own, with the end of each in what is told; the exit code stays the command's."""
    gates = [shell("echo bad >&2; exit 2"), shell("echo begin; seq 5000; echo 'the ünd'"), ("cat", "made")]
    said = desk.run(shell("echo made > made; echo done"), gates=gates, teardown=("rm", "made"))
    assert (said.returncode, said.stdout, said.stderr) == (0, b"done\n", b"")
    first, second, third = desk.told["gates"]
    assert (first["name"], first["command"], first["exit_code"], first["error"]) == (
        "gate sh",
        list(gates[0]),
        2,
        "exit 2",
    )
    assert (first["output"], third["output"], third["error"]) == ("bad\n", "made\n", None)
    assert len(second["output"]) == 2000
    assert second["output"].endswith("\n5000\nthe ünd\n")
    whole = (desk.folder / second["log"]).read_text()
    assert whole.startswith("begin\n1\n2\n")
    assert whole.endswith(second["output"])
    assert [one["log"] for one in desk.told["gates"]] == ["gate-1.log", "gate-2.log", "gate-3.log"]


def test_no_gate_runs_after_a_command_that_failed(desk: Desk) -> None:
    """There is nothing to be let through."""
    assert desk.run(shell("exit 1"), gates=[("touch", "gate")]).returncode == 1
    assert not (desk.workdir / "gate").exists()
    assert "gates" not in desk.told


def test_a_gate_that_takes_too_long_has_failed_and_the_next_one_runs(desk: Desk) -> None:
    """Its time is its own."""
    desk.run(gates=[("sleep", "600"), ("true",)], gate_timeout_s=0.5)
    first, second = desk.told["gates"]
    assert (first["exit_code"], first["error"]) == (-signal.SIGTERM, "timed out after 0.5 s")
    assert first["duration_s"] >= 0.5
    assert second["started"]


def test_a_teardown_that_takes_too_long_is_ended(desk: Desk) -> None:
    """Without a word about the command."""
    said = desk.run(shell("exit 6"), teardown=("sleep", "600"), timeout_s=0.5)
    assert (said.returncode, said.stderr) == (6, b"teardown failed: timed out after 0.5 s\n")


def test_which_part_of_the_output_is_the_commands_own_is_told(desk: Desk) -> None:
    """Where the output is a file, as it is under a supervisor."""
    out = desk.folder / "stdout.log"
    with out.open("ab") as file:
        words = desk.words(shell("echo the result"), setup=shell("echo before"), teardown=shell("echo after"))
        subprocess.run(words, cwd=desk.workdir, stdout=file, check=True, timeout=DEADLINE_S)
    begin, end = desk.told["command"]["stdout_bytes"]
    assert out.read_bytes()[begin:end] == b"the result\n"
    desk.run(setup=("true",))
    assert desk.told["command"]["stdout_bytes"] is None


def test_a_process_that_the_setup_leaves_is_there_for_the_command(desk: Desk) -> None:
    """A server, for instance; the teardown takes it down."""
    setup = shell("sleep 600 >/dev/null 2>&1 & echo $! > server")
    said = desk.run(shell("kill -0 $(cat server)"), setup=setup, teardown=shell("kill $(cat server)"))
    assert said.returncode == 0
    assert desk.told["teardown"]["error"] is None


def test_asked_to_end_it_passes_that_on_and_takes_down(desk: Desk) -> None:
    """Also where the signal reached nobody but itself; until then it has told what was over."""
    process = desk.start(shell(SLEEP), setup=("true",), teardown=("touch", "down"), gates=[("touch", "gate")])
    desk.begun()
    assert desk.told.keys() == {"setup"}
    process.send_signal(signal.SIGTERM)
    assert desk.end(process) == (-signal.SIGTERM, "")
    assert (desk.workdir / "down").exists()
    assert not (desk.workdir / "gate").exists()
    assert desk.told["command"]["error"] == "stopped"


def test_a_command_that_ends_in_its_own_way_is_left_that_way(desk: Desk) -> None:
    """It saves what it has, and its exit code is what is seen; by whichever signal of the three."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        text = f"trap 'echo saved > saved; exit 5' {signum.name[3:]}; {BEGIN} while :; do sleep 0.05; done"
        process = desk.start(shell(text), teardown=("cp", "saved", "kept"))
        desk.begun()
        process.send_signal(signum)
        assert desk.end(process)[0] == 5
        for name in ("begun", "saved", "kept"):
            (desk.workdir / name).unlink()


def test_a_signal_during_the_setup_ends_it_before_the_command(desk: Desk) -> None:
    """That is no failure of the setup, however much it resists."""
    process = desk.start(("touch", "ran"), setup=shell(STUBBORN), teardown=("touch", "down"))
    stubborn = desk.begun()
    process.send_signal(signal.SIGTERM)
    assert desk.end(process) == (-signal.SIGTERM, "")
    assert sorted(path.name for path in desk.workdir.iterdir()) == ["begun", "down"]
    assert desk.told["setup"]["error"] == "stopped"
    assert not lives(stubborn)


@pytest.mark.parametrize("rest", [[], [("touch", "gate")]], ids=["last", "first"])
def test_a_signal_during_a_gate_leaves_the_others_undone(desk: Desk, rest: list[tuple[str, ...]]) -> None:
    """The attempt is not over, so its exit code must not say so."""
    process = desk.start(gates=[shell(SLEEP), *rest], teardown=("touch", "down"))
    desk.begun()
    process.send_signal(signal.SIGTERM)
    assert desk.end(process) == (-signal.SIGTERM, "")
    assert sorted(path.name for path in desk.workdir.iterdir()) == ["begun", "down"]
    assert [one["error"] for one in desk.told["gates"]] == ["stopped"]


def test_a_signal_during_the_teardown_only_shortens_it(desk: Desk) -> None:
    """What the command came to stays what is seen."""
    process = desk.start(shell("exit 9"), teardown=shell(STUBBORN), last_s=LAST_S)
    stubborn = desk.begun()
    process.send_signal(signal.SIGTERM)
    assert desk.end(process) == (9, "teardown failed: timed out after 1.5 s\n")
    assert desk.told["teardown"]["exit_code"] == -signal.SIGKILL
    assert not lives(stubborn)


def test_without_a_folder_to_write_to_the_command_runs_all_the_same(desk: Desk) -> None:
    """And what could not be written is said."""
    desk.folder.rmdir()
    said = desk.run(("echo", "done"), teardown=("true",), gates=[("true",)])
    assert (said.returncode, said.stdout) == (0, b"done\n")
    assert said.stderr.decode().splitlines() == [f"{STEPS} cannot be written: no such file or directory"] * 3


def test_a_supervisor_stops_all_of_it_and_the_teardown_still_runs(desk: Desk) -> None:
    """As it stops any attempt."""
    ended = threading.Event()
    runner = ShellRunner(ended.set)
    try:
        words = desk.words(shell(SLEEP), setup=("touch", "up"), teardown=("touch", "down"))
        attempt_id = f"steps-{os.getpid()}"
        folder = desk.folder / "runs"
        runner.start(Launch("run", "task", attempt_id, folder, command=words, env=ENVIRONMENT, workdir=desk.workdir))
        command = desk.begun()
        runner.stop(attempt_id, grace_s=DEADLINE_S)
        assert ended.wait(DEADLINE_S)
        (end,) = runner.poll()
        assert (end.outcome, end.exit_code, end.error) == ("stopped", -signal.SIGTERM, "stopped")
        assert (desk.workdir / "down").exists()
        assert not lives(command)
    finally:
        runner.close()
