"""A release that comes in the middle of a run: it goes on from the log, the plan and the attempts of the one before.

The attempt that lives has a supervisor of release 0.1.0, as a small program that keeps to what that release wrote and obeyed:
its files are those of ``compat/running_0_1_0``. Nothing here is ever adapted to the code.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from daemons import Store, wait_until
from waiting import next_line

from parallel_agents import steer
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.chain import verify_rows
from parallel_agents.eventstore.log import Log

FROZEN = Path(__file__).parents[1] / "compat" / "running_0_1_0"
RUN = "middleofit"

# What a supervisor of 0.1.0 does for one attempt: lock, process.json, the command with its marker, the stop file on SIGUSR1,
# exit.json. The command ends when the file ``go`` is there.
SUPERVISOR = """
import fcntl, json, os, signal, subprocess, sys, time
folder, attempt_id, workdir = sys.argv[1:]
lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
def who(pid):
    stat = open(f"/proc/{pid}/stat").read()
    return {"pid": pid, "start_time": int(stat[stat.rindex(")") + 2 :].split()[19]), "boot_id": BOOT}
BOOT = open("/proc/sys/kernel/random/boot_id").read().strip()
child = subprocess.Popen(
    ["sh", "-c", "until [ -e go ]; do sleep 0.02; done; echo went on"], cwd=workdir, start_new_session=True,
    env={**os.environ, "PARALLEL_AGENTS_ATTEMPT": attempt_id}, stdout=open(f"{folder}/stdout.log", "ab"),
)
content = json.dumps({"attempt_id": attempt_id, **who(child.pid), "supervisor": who(os.getpid()), "state": "running"})
open(f"{folder}/process.json", "w").write(content.ljust(400) + "\\n")
print("running", flush=True)
outcome, error = "exited", None
while child.poll() is None:
    if asked and os.path.exists(f"{folder}/stop"):
        wish = json.load(open(f"{folder}/stop"))
        outcome = "timed_out" if wish["timed_out"] else "stopped"
        error = f"stopped after {wish['grace_s']:g} s"
        child.terminate()
        asked.clear()
    time.sleep(0.01)
lines = open(f"{folder}/stdout.log").read().split("\\n")
ended = {
    "attempt_id": attempt_id, "outcome": outcome, "exit_code": child.returncode, "error": error, "retryable": True,
    "output": ([None] + [line for line in lines if line])[-1], "started_at_us": 1772366400000000,
    "ended_at_us": 1772366402500000, "cpu_s": 0.01, "peak_memory_bytes": 1048576,
}
open(f"{folder}/exit.json.tmp", "w").write(json.dumps(ended))
os.rename(f"{folder}/exit.json.tmp", f"{folder}/exit.json")
"""


class Old(NamedTuple):
    """What the release before has left: a store, and the supervisor of an attempt that lives."""

    store: Store
    supervisor: subprocess.Popen[str]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Old]:
    """As it lay there when its daemon was killed to make room for the next release."""
    home = tmp_path / ".parallel-agents"
    shutil.copytree(FROZEN / "runs", home / "runs")
    with closing(sqlite3.connect(home / "events.db")) as connection:
        connection.executescript((FROZEN / "events.sql").read_text(encoding="utf-8"))
    store = Store(tmp_path, exists=True)
    folder = home / "runs" / RUN / "alive" / "aalive0001"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder), "aalive0001", str(tmp_path)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    store.processes.append(supervisor)
    assert next_line(supervisor.stdout) == "running\n"
    yield Old(store, supervisor)
    store.close()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its stand-in reads /proc")


def test_a_run_of_the_release_before_is_gone_on_with(old: Old) -> None:
    """The living attempt is adopted, the ended ones are completed as their files say, the vanished one is lost."""
    store = old.store
    before = store.log.last_seq()
    store.daemon()
    wait_until(lambda: store.state(RUN).tasks["vanished"].status == "failed", "what vanished to be noticed")
    wait_until(lambda: store.state(RUN).tasks["failed"].status == "failed", "what failed to be recorded")
    assert store.state(RUN).tasks["alive"].status == "running"
    (store.folder / "go").touch()
    assert store.ended(RUN) == "failed"
    state = store.state(RUN)
    assert {name: (task.status, task.attempts, task.output) for name, task in state.tasks.items()} == {
        "alive": ("completed", 1, "went on"),
        "done": ("completed", 1, "all done"),
        "failed": ("failed", 1, None),
        "vanished": ("failed", 1, None),
        "next": ("completed", 1, None),
    }
    assert (state.tasks["failed"].error, state.tasks["failed"].exit_code) == ("exit code 3: no luck", 3)
    assert (state.tasks["done"].duration_s, state.tasks["alive"].duration_s) == (0.25, 2.5)
    assert [event.task_id for event in store.events(RUN, ev.AttemptLost)] == ["vanished"]
    assert old.supervisor.wait() == 0
    assert verify_rows(store.log.rows()).broken is None
    assert [row.body for row in store.log.rows(0, before)] == [row.body for row in _frozen_rows(store.folder)]


def _frozen_rows(folder: Path) -> list[object]:
    path = folder / "again.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FROZEN / "events.sql").read_text(encoding="utf-8"))
    with Log(path, create=False) as log:
        return list(log.rows())


def test_a_supervisor_of_the_release_before_understands_when_it_is_asked_to_stop(old: Old) -> None:
    """By a file in the folder and a signal, which is all that it knows of whoever took over."""
    store = old.store
    store.daemon()
    wait_until(lambda: store.state(RUN).tasks["vanished"].status == "failed", "the run to be taken over")
    steer.cancel(store.log, RUN, reason="enough")
    assert store.ended(RUN) == "cancelled"
    task = store.state(RUN).tasks["alive"]
    assert (task.status, task.reason) == ("cancelled", "enough")
    assert old.supervisor.wait() == 0


def test_what_the_next_release_may_write_is_read_all_the_same(old: Old) -> None:
    """Fields that we do not know, in an exit file and in that of a process."""
    store = old.store
    exit_file = store.path.parent / "runs" / RUN / "failed" / "afailed001" / "exit.json"
    exit_file.write_text(exit_file.read_text().replace('"outcome"', '"watts": 9, "outcome"'))
    process_file = exit_file.with_name("process.json")
    process_file.write_text(process_file.read_text().replace('"state"', '"cgroup": "/a", "state"'))
    store.daemon()
    wait_until(lambda: store.state(RUN).tasks["failed"].status == "failed", "the end to be recorded")
    assert store.state(RUN).tasks["failed"].error == "exit code 3: no luck"
