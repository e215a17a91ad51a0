"""The table of docs/signals.md, held against the real programs at a real terminal: keys, closed windows, and kill."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from keyboard import Keyboard
from scratch import Scratch, line_with, shell, until_file, wait_until

PAPER = Path(__file__).parents[2] / "docs" / "signals.md"
KEYS = {"Ctrl-C": "\x03", "Ctrl-C twice": "\x03", "Ctrl-\\": "\x1c", "Ctrl-Z": "\x1a"}
PROGRAM = """
from parallel_agents import AgentTask, ParallelExecutor
until = "until [ -e {} ]; do sleep 0.02; done"
tasks = [
    AgentTask("worker", "slow", "", command=["sh", "-c", until.format("go") + "; echo x >> slow.txt"], max_retries=0),
    AgentTask("worker", "then", "", command=["true"], dependencies=["slow"]),
]
ParallelExecutor().execute_parallel(tasks)
"""


def table() -> list[tuple[str, str, str]]:
    """What is pressed or sent, to what, and what comes of it."""
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in PAPER.read_text().splitlines()
        if line.startswith("| ")
    ]
    programs = rows[0][1:]
    return [
        (row[0], program, cell)
        for row in rows[2:]
        for names, cell in zip(programs, row[1:], strict=True)
        for program in names.split(", ")
    ]


CELLS = table()


def test_the_table_is_read_as_it_stands() -> None:
    """Seven things that happen to eight programs."""
    assert len(CELLS) == 7 * 8
    assert {re.sub(r", \d+$", "", cell) for _, _, cell in CELLS} == {
        "finishes", "stops", "leaves", "detaches", "ends", "sleeps", "goes on",
    }  # fmt: skip


class Scene:
    """A project, a person at a terminal in it, and a program that has an attempt running."""

    def __init__(self, cli: Scratch, program: str) -> None:
        self.cli = cli
        self.program = program
        self.keyboard = Keyboard(cli.root, cli.environment)
        self.plan = Path(
            cli.plan(shell("slow", f"{until_file('go')}; echo x >> slow.txt"), shell("then", "true", "slow"))
        ).name
        self.begin = 0
        self.pid = self._start()

    def _start(self) -> int:
        """Start the program; the process that the signal is for."""
        of_daemon = self.program in ("daemon run", "daemon start", "attach", "wait")
        if of_daemon or self.program == "resume":
            self.cli.quick("submit", self.plan)
        if self.program in ("attach", "wait"):
            self.cli.quick("daemon", "start")
        line = {
            "run": f"parallel-agents run {self.plan}",
            "run --detach": f"parallel-agents run --detach {self.plan}",
            "a Python program": f"{sys.executable} program.py",
        }.get(self.program, f"parallel-agents {self.program}")
        self.cli.write("program.py", PROGRAM)
        self.begin = len(self.keyboard.shown)
        self.keyboard.type(line + "\n")
        if self.program in ("daemon start", "run --detach"):
            self.keyboard.until("ready> ", after=self.begin)
        self.cli.until_running("slow")
        if self.program in ("attach", "wait"):
            return int(wait_until(self._command_pid, "the command"))
        holder = wait_until(self.cli.sparing(lambda: self.cli.quick("runs", "--json").data[0]["holder"]), "a holder")
        return int(holder["pid"])

    def _command_pid(self) -> int:
        """Of the command that only follows, once it hears signals as it will from then on: it has looked at the run."""
        waits = f"parallel-agents {self.program}"
        found = [pid for pid, words in self.cli.ours().items() if words.endswith(waits)]
        log = str(self.cli.store)
        return found[0] if found and any(log in f.path for f in psutil.Process(found[0]).open_files()) else 0

    def happens(self, what: str) -> None:
        """Press, close or send it."""
        if what == "terminal closed":
            self.keyboard.close()
        elif what in KEYS:
            self.keyboard.type(KEYS[what] * (1 + (what == "Ctrl-C twice" and self.program == "a Python program")))
            if what == "Ctrl-C twice" and self.program in ("run", "resume"):
                self.keyboard.until("Ctrl-C again stops them", after=self.begin)
                self.keyboard.type(KEYS[what])
        else:
            os.kill(self.pid, signal.SIGKILL if what == "kill -9" else signal.SIGTERM)

    @property
    def alive(self) -> bool:
        """Whether the program's process is there."""
        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    @property
    def attempt_lives(self) -> bool:
        """Whether the task's own process is there."""
        return any("sh -c until [ -e go ]" in words for words in self.cli.ours().values())

    @property
    def run(self) -> dict[str, object]:
        """How the run stands."""
        found: dict[str, object] = self.cli.quick("status", "--json").data
        return found

    def statuses(self) -> list[str]:
        """Of the two tasks."""
        return [task["status"] for task in self.run["tasks"]]  # type: ignore[attr-defined]

    def ended_with(self, code: str) -> None:
        """The program ends by itself, with that code where there still is a terminal to see it on."""
        wait_until(lambda: not self.alive, "its end")
        background = self.program in ("daemon start", "run --detach")
        if code and not background:
            assert self.keyboard.exit_code(after=self.begin) == int(code)

    def finish(self) -> None:
        """Let what runs come to its end."""
        self.cli.write("go", "")

    def finishes(self, code: str) -> None:
        """Starts nothing more, waits for what runs."""
        self.cli.until(lambda found: found["status"] == "paused", "the pause")
        assert self.alive
        assert self.attempt_lives
        self.finish()
        self.ended_with(code)
        assert (self.run["status"], self.statuses()) == ("paused", ["completed", "pending"])

    def stops(self, code: str) -> None:
        """Ends what runs, and the run."""
        self.ended_with(code)
        assert not self.attempt_lives
        assert (self.run["status"], self.statuses()) == ("cancelled", ["cancelled", "cancelled"])

    def leaves(self, code: str) -> None:
        """Is gone, and any other run goes on with it."""
        self.ended_with(code)
        assert self.attempt_lives
        run_id = self.run["run_id"]
        other = self.cli.begin("run", self.cli.plan(shell("own", until_file("on")), name="other"))
        line_with("left in the middle", other.stderr)
        self.finish()
        self.cli.until(lambda found: found["status"] == "completed", "its end", str(run_id))
        self.cli.write("on", "")
        assert self.cli.said_by(other).code == 0

    def detaches(self, code: str) -> None:
        """Is gone, and a daemon or a resume goes on with it, but no other run."""
        self.ended_with(code)
        assert self.attempt_lives
        run_id = self.run["run_id"]
        assert "left in the middle" not in self.cli("run", self.cli.plan(shell("own", "true"), name="other")).err
        self.finish()
        assert self.cli.quick("resume", str(run_id)).code == 0

    def ends(self, code: str) -> None:
        """Is gone, and its run goes on where it did."""
        holder = self.cli.quick("runs", "--json").data[0]["holder"]
        self.ended_with(code)
        assert self.attempt_lives
        self.finish()
        self.cli.until(lambda found: found["status"] == "completed", "its end")
        assert holder["kind"] == "daemon"
        assert psutil.pid_exists(holder["pid"])

    def sleeps(self, code: str) -> None:
        """Stops, with the store open to others; goes on after fg."""
        end = self.keyboard.until("topped", after=self.begin)  # "Stopped", or "[1] + Stopped".
        assert psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        run_id = str(self.run["run_id"])
        self.cli.quick("submit", self.cli.plan(shell("other", "true"), name="other"))
        self.finish()
        wait_until(lambda: not self.attempt_lives, "the attempt's end")
        if self.program in ("attach", "wait"):
            self.cli.until(lambda found: found["status"] == "completed", "its end", run_id)
        else:
            assert self.cli.quick("status", run_id, "--json").data["tasks"][0]["status"] == "running"
        end = self.keyboard.until("ready> ", after=end)
        self.keyboard.type("fg\n")
        self.cli.until(lambda found: found["status"] == "completed", "its end", run_id)
        if self.program != "daemon run":
            assert self.keyboard.exit_code(after=end) == 0

    def goes_on(self, code: str) -> None:
        """Nothing happens: it dispatches as it did."""
        if self.keyboard.open:
            self.keyboard.command("true")
        assert self.alive
        self.finish()
        self.cli.until(lambda found: found["status"] == "completed", "its end")
        assert self.alive


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Scratch]:
    """A project whose files are nobody's business."""
    scratch = Scratch(tmp_path / "project")
    yield scratch
    scratch.close()


def parameters() -> Iterator[object]:
    """One for each cell. All but two programs are left to the long run of all tests, and all keys but one that one ignores."""
    ignored = ("Ctrl-C twice", "Ctrl-\\", "Ctrl-Z")
    for what, program, cell in CELLS:
        short = program == "run" or (program == "daemon start" and what not in ignored)
        marks = [] if short else [pytest.mark.slow]
        yield pytest.param(what, program, cell, id=f"{program}-{what}".replace(" ", "_"), marks=marks)


@pytest.mark.parametrize(("what", "program", "cell"), list(parameters()))
def test_what_the_table_says_is_so(cli: Scratch, what: str, program: str, cell: str) -> None:
    """From outside, each once; and a task is run once, whatever happens."""
    word, _, code = cell.partition(", ")
    scene = Scene(cli, program)
    try:
        scene.happens(what)
        getattr(scene, word.replace(" ", "_"))(code)
        if word != "stops":
            assert (cli.root / "slow.txt").read_text() == "x\n"
    finally:
        scene.keyboard.close()
