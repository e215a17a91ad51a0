"""Programs that use the executor and end in every way: by themselves, with threads at work, by fork, Ctrl-C and kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from any_load import AT_ANY_LOAD
from waiting import DEADLINE_S, next_line, wait_until

from parallel_agents import look
from parallel_agents.eventstore.log import Log
from parallel_agents.scheduler.daemon import find_daemon
from parallel_agents.scheduler.process import MARKER

PREAMBLE = """
import os, signal, sys, threading, time
from parallel_agents import AgentTask, ParallelExecutor, TaskContext
def agent(task_id, **fields):
    return AgentTask("backend-engineer", task_id, "", **fields)
def say(word):
    print(word, flush=True)
"""

# As ``parallel-agents daemon run`` starts it.
DAEMON = """
import sys
from pathlib import Path
from parallel_agents.scheduler.daemon import run_daemon
run_daemon(Path(sys.argv[1]), started_at="2026-01-01T00:00:00Z")
"""


class Programs:
    """Python programs in a project of their own, none of which outlives the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / ".parallel-agents" / "events.db"
        self._begun: list[subprocess.Popen[str]] = []
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "XDG_RUNTIME_DIR") if name in os.environ}
        self._environ = {**kept, **AT_ANY_LOAD, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
        self._environ["PARALLEL_AGENTS_MONITORING__REAL_TIME_PROGRESS"] = (
            "false"  # Whatever is on stderr is a complaint.
        )

    def begin(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program."""
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, *arguments],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._begun.append(process)
        return process

    def run(self, code: str, *, exit_code: int = 0) -> str:
        """Run a program to its end, which must come by itself and leave nothing; gives what it has printed."""
        process = self.begin(code)
        said, complained = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, complained) == (exit_code, "")
        assert self.left() == []
        return said

    def daemon(self) -> subprocess.Popen[str]:
        """A daemon on the project's store."""
        return self.begin(DAEMON, str(self.store))

    def log(self) -> Log:
        """The project's store."""
        return Log(self.store, create=False)

    def status(self) -> dict[str, Any]:
        """The only run, as `status --json` shows it; its tasks by id."""
        with self.log() as log:
            [run] = look.runs(log)
            found = look.status(log, run["run_id"])
        return {**found, "tasks": {line["task_id"]: line for line in found["tasks"]}}

    def left(self) -> list[psutil.Process]:
        """What lives of the project's attempts, and of the programs' supervisors."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                attempt = MARKER in process.environ() and process.cwd() == str(self.folder)
                if attempt or process.environ().get("HOME") == str(self.folder):
                    found.append(process)
        return found

    def close(self) -> None:
        """End what a failed test may have left."""
        for process in self._begun:
            process.kill()
            process.communicate()
        for left in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):  # It may end by itself meanwhile.
                left.kill()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Where a test's programs run."""
    scene = Programs(tmp_path)
    yield scene
    scene.close()


def test_a_program_that_just_ends_leaves_nothing(programs: Programs) -> None:
    """It never shuts its executor down, and says nothing about that; it is not held up either."""
    said = programs.run("""
executor = ParallelExecutor()
result = executor.execute_parallel([agent("a", command=["true"]), agent("b", call=lambda: 1)])
say(result.message)
""")
    assert said == "Parallel execution completed: 2/2 successful\n"


def test_a_program_that_fails_leaves_nothing(programs: Programs) -> None:
    """An exception of its own, with a run under way in a thread that dies with it: the run is stopped first."""
    process = programs.begin("""
executor = ParallelExecutor()
tasks = [agent("a", command=["sleep", "600"]), agent("b", call=lambda: time.sleep(600)), agent("c", command=["true"])]
tasks[2].dependencies = ["a"]
threading.Thread(target=executor.execute_parallel, args=(tasks,), daemon=True).start()
while tasks[0].status != "running" or tasks[1].status != "running":
    time.sleep(0.005)
raise SystemExit("enough")
""")
    _, complained = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, complained) == (1, "enough\n")
    assert programs.left() == []
    status = programs.status()
    assert (status["status"], status["reason"]) == ("cancelled", "its program has ended")
    assert {line["status"] for line in status["tasks"].values()} == {"cancelled"}


def test_a_thread_that_outlives_the_main_one_finishes_its_run(programs: Programs) -> None:
    """The interpreter waits for such a thread, so its run must be able to end: to start tasks, and to fail some too."""
    said = programs.run("""
executor = ParallelExecutor()
ended = threading.Event()
def work():
    tasks = [agent("a", call=lambda: threading.main_thread().join()), agent("b", command=["true"], dependencies=["a"])]
    tasks += [agent("c", call=lambda: 1, dependencies=["b"])]
    say(executor.execute_parallel(tasks).message)
threading.Thread(target=work).start()
""")
    assert said == "Parallel execution completed: 3/3 successful\n"


def test_both_sides_of_a_fork_can_go_on(programs: Programs) -> None:
    """The child gets an engine of its own, and its end leaves the parent's alone."""
    said = programs.run("""
executor = ParallelExecutor()
tasks = lambda: [agent("a", command=["true"]), agent("b", call=os.getpid)]
executor.execute_parallel(tasks())
child = os.fork()
if child == 0:
    result = executor.execute_parallel(tasks())
    assert result.task_results[1].output == os.getpid()
    say("child " + result.message)
    sys.exit(0)
os.waitpid(child, 0)
say("parent " + executor.execute_parallel(tasks()).message)
""")
    assert said == (
        "child Parallel execution completed: 2/2 successful\nparent Parallel execution completed: 2/2 successful\n"
    )


def test_ctrl_c_stops_the_run_and_then_the_program(programs: Programs) -> None:
    """A command, a call that listens and one that does not: the log knows the end of all of them."""
    process = programs.begin("""
executor = ParallelExecutor()
tasks = [
    agent("command", command=["sh", "-c", "trap 'echo tidied > tidied; exit' TERM; echo; while :; do sleep 0.05; done"]),
    agent("listens", call=lambda context: context.wait(600)),
    agent("deaf", call=lambda: time.sleep(600)),
    agent("after", command=["true"], dependencies=["command"]),
]
def on_event(event):
    if event["type"] == "TaskStarted":
        running.append(event)
        if len(running) == 3:
            say("running")
running = []
executor = ParallelExecutor(on_event=on_event)
try:
    executor.execute_parallel(tasks)
except KeyboardInterrupt:
    say([str(task.status) for task in tasks])
""")
    assert next_line(process.stdout) == "running\n"
    wait_until(lambda: _output_of(programs, "command"), "the command to begin")
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=DEADLINE_S)
    assert (said, complained, process.returncode) == (f"{['cancelled'] * 4}\n", "", 0)
    assert (programs.folder / "tidied").exists()
    assert programs.left() == []
    status = programs.status()
    assert (status["status"], status["reason"]) == ("cancelled", "interrupted")


def _output_of(programs: Programs, task_id: str) -> bool:
    runs = programs.store.parent / "runs"
    return any(path.stat().st_size for path in runs.glob(f"*/{task_id}/*/stdout.log"))


def test_calls_end_with_the_process_that_was_killed(programs: Programs) -> None:
    """A daemon takes the run over to say so: no call is tried again, and none that waited is begun; commands go on."""
    process = programs.begin("""
executor = ParallelExecutor(store=None)
tasks = [
    agent("running", call=lambda: (say("running"), time.sleep(600))),
    agent("needs_running", call=lambda: say("no"), dependencies=["running"]),
    agent("needs_command", call=lambda: say("no"), dependencies=["command"]),
    agent("command", command=["sh", "-c", "echo begun; while ! test -e go; do sleep 0.01; done; echo ended"]),
    agent("after_command", command=["echo", "after"], dependencies=["command"]),
]
executor.execute_parallel(tasks)
""")
    assert next_line(process.stdout) == "running\n"
    wait_until(lambda: _output_of(programs, "command"), "the command to begin")
    daemon = programs.daemon()
    wait_until(lambda: find_daemon(programs.store), "the daemon to dispatch")
    assert programs.status()["status"] == "running"  # As long as its process lives, nobody else touches the run.
    process.kill()
    process.communicate()
    wait_until(lambda: programs.status()["tasks"]["running"]["status"] == "failed", "the daemon to take over")
    (programs.folder / "go").touch()
    status = wait_until(lambda: (found := programs.status())["status"] == "failed" and found, "the run to end")
    tasks = status["tasks"]
    assert {task_id: (line["status"], line["attempts"]) for task_id, line in tasks.items()} == {
        "running": ("failed", 1),
        "needs_running": ("skipped", 0),
        "needs_command": ("failed", 1),
        "command": ("completed", 1),
        "after_command": ("completed", 1),
    }
    assert tasks["running"]["error"] == "its Python process died; a callable cannot be taken over"
    assert tasks["needs_command"]["error"] == "only the Python process that submitted a callable can call it"
    assert tasks["command"]["output"] == "ended"
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=DEADLINE_S)
    wait_until(lambda: programs.left() == [], "everybody to be gone")
