"""Identity of processes, and who belongs to whom."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from parallel_agents.scheduler import process
from parallel_agents.scheduler.process import MARKER, ProcessIdentity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the marker of attempt ``unit-<pid>``."""
    environment = {**os.environ, MARKER: f"unit-{os.getpid()}"}
    started = subprocess.Popen(["sleep", "600"], env=environment)
    yield started
    started.kill()
    started.wait()


def identity(pid: int) -> ProcessIdentity:
    """Who has this pid; somebody has it."""
    found = process.identity_of(pid)
    assert found is not None
    return found


def test_an_identity_survives_being_written_down() -> None:
    """To a plain dict, to JSON, and back."""
    own = process.own_identity()
    assert own.pid == os.getpid()
    assert set(own.to_dict()) == {"pid", "start_time", "boot_id"}
    assert ProcessIdentity.from_dict(json.loads(json.dumps(own.to_dict() | {"more": 1}))) == own


def test_what_is_no_identity_is_refused() -> None:
    """A missing field and a wrong type are errors, not somebody."""
    with pytest.raises(KeyError):
        ProcessIdentity.from_dict({"pid": 1})
    with pytest.raises(ValueError, match="invalid literal"):
        ProcessIdentity.from_dict({"pid": "one", "start_time": 2, "boot_id": "b"})


def test_a_process_is_alive_only_as_itself(sleeper: subprocess.Popen[bytes]) -> None:
    """The same pid with another start time or another boot is somebody else."""
    found = identity(sleeper.pid)
    assert process.is_alive(found)
    assert not process.is_alive(found._replace(start_time=found.start_time + 1))
    assert not process.is_alive(found._replace(boot_id="another boot"))


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    """Nobody has reaped it yet, and still it does not live."""
    found = identity(sleeper.pid)
    sleeper.kill()
    wait_until(lambda: not process.is_alive(found), "the process to die")
    assert process.identity_of(sleeper.pid) == found
    sleeper.wait()
    assert process.identity_of(sleeper.pid) is None
    assert not process.is_alive(found)


def test_a_name_with_brackets_and_spaces_confuses_nobody(tmp_path: Path) -> None:
    """The name of a process is its own choice; what follows it in the table is still read right."""
    script = tmp_path / "a) R 1 (b"
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(0o700)
    started = subprocess.Popen([script], stdin=subprocess.PIPE)
    try:
        row = process.process_row(started.pid)
        assert row is not None
        assert row.parent == os.getpid()
        assert row.group == os.getpgid(started.pid)
    finally:
        started.kill()
        started.communicate()


def test_a_forked_child_knows_itself() -> None:
    """What is cached before a fork does not name the parent after it."""
    process.own_identity()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, str(process.own_identity().pid == os.getpid()).encode())
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 10) == b"True"
    os.close(read_end)
    os.waitpid(pid, 0)


def test_the_clock_tells_the_start_time_of_a_process_begun_now(sleeper: subprocess.Popen[bytes]) -> None:
    """Between two looks at the clock lies what the process table says."""
    before = process.start_time_now()
    started = subprocess.Popen(["sleep", "600"])
    after = process.start_time_now()
    try:
        assert before <= identity(started.pid).start_time <= after
    finally:
        started.kill()
        started.wait()


def test_descendants_are_found_over_generations(tmp_path: Path) -> None:
    """Children and their children, but neither the root nor its siblings."""
    script = f"sh -c 'echo $$ > {shlex.quote(str(tmp_path / 'inner'))}; sleep 600; true' & wait"
    family = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        wait_until(lambda: len(process.descendants([family.pid])) == 2, "both generations")
        assert int((tmp_path / "inner").read_text()) in process.descendants([family.pid])
        found = process.descendants([os.getpid()])
        assert {family.pid, stranger.pid} <= found
        assert not {family.pid, stranger.pid} & process.descendants([family.pid, stranger.pid])
    finally:
        os.killpg(family.pid, signal.SIGKILL)
        stranger.kill()
        family.wait()
        stranger.wait()


def test_carriers_are_known_by_the_whole_marker(sleeper: subprocess.Popen[bytes]) -> None:
    """An id that only begins the same is another one's."""
    mine = f"unit-{os.getpid()}"
    wait_until(lambda: process.marker_of(sleeper.pid) == mine, "the marker")
    assert process.carriers({mine, "other"}) == {sleeper.pid: mine}
    assert process.carriers({mine[:-1], mine + "0"}) == {}
    assert process.marker_of(os.getpid()) != mine


def test_a_family_is_its_root_its_carriers_and_all_below(sleeper: subprocess.Popen[bytes]) -> None:
    """A root whose pid went to somebody else is left out, and we are never part of it."""
    mine = f"unit-{os.getpid()}"
    root = subprocess.Popen(["sh", "-c", "sleep 600; true"], start_new_session=True)
    try:
        [child] = wait_until(lambda: process.descendants([root.pid]), "the child")
        whole = {one.pid for one in process.family([identity(root.pid), process.own_identity()], {mine})}
        assert {root.pid, child, sleeper.pid} <= whole
        assert os.getpid() not in whole
        stale = identity(root.pid)._replace(start_time=1)
        assert {one.pid for one in process.family([stale], {mine})} == {sleeper.pid}
    finally:
        os.killpg(root.pid, signal.SIGKILL)
        root.wait()


def test_a_signal_reaches_only_whom_it_is_meant_for(sleeper: subprocess.Popen[bytes]) -> None:
    """The next process with the same pid is spared."""
    found = identity(sleeper.pid)
    assert not process.send_signal(found._replace(start_time=1), signal.SIGKILL)
    assert sleeper.poll() is None
    assert process.send_signal(found, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    assert not process.send_signal(found, signal.SIGKILL)


@pytest.mark.parametrize(("trap", "code"), [("exit 5", 5), ("", -signal.SIGKILL)], ids=["listens", "deaf"])
def test_ending_processes_asks_first(tmp_path: Path, trap: str, code: int) -> None:
    """Who listens to SIGTERM ends in its own way, who does not is killed."""
    ready = tmp_path / "ready"
    script = f"trap '{trap}' TERM; touch '{ready}'; while :; do sleep 0.01; done"
    started = subprocess.Popen(["sh", "-c", script])
    found = identity(started.pid)
    wait_until(ready.exists, "the trap")
    grace_s = 20.0 if trap else 0.1
    assert process.end_processes(lambda: [found] if process.is_alive(found) else [], grace_s=grace_s)
    assert started.wait() == code


def test_psutil_tells_the_same_where_there_is_no_proc(sleeper: subprocess.Popen[bytes]) -> None:
    """Parent, group, state and marker; only the start time has another unit."""
    wait_until(lambda: process.marker_of(sleeper.pid), "the marker")
    ours = process.process_row(sleeper.pid)
    theirs = process._row_by_psutil(sleeper.pid)
    assert ours is not None
    assert theirs is not None
    assert theirs._replace(start_time=0) == ours._replace(start_time=0)
    assert abs(theirs.start_time - time.time_ns() // 1000) < 60_000_000
    assert process._marker_by_psutil(sleeper.pid) == f"unit-{os.getpid()}"
    sleeper.kill()
    sleeper.wait()
    assert process._row_by_psutil(sleeper.pid) is None
    assert process._marker_by_psutil(sleeper.pid) is None


def test_the_supervisor_starts_with_few_modules() -> None:
    """No psutil, no dataclasses, nothing of the log: its start must not be felt."""
    root = Path(process.__file__).parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import parallel_agents.scheduler.runners.supervisor;"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {name for name in loaded if name.startswith("parallel_agents.")} == {
        "parallel_agents.eventstore",
        "parallel_agents.eventstore.crash_points",
        "parallel_agents.scheduler",
        "parallel_agents.scheduler.awake",
        "parallel_agents.scheduler.process",
        "parallel_agents.scheduler.runners",
        "parallel_agents.scheduler.runners.control_groups",
        "parallel_agents.scheduler.runners.folder",
        "parallel_agents.scheduler.runners.launcher",
        "parallel_agents.scheduler.runners.limits",
        "parallel_agents.scheduler.runners.output_cap",
        "parallel_agents.scheduler.runners.supervisor",
        "parallel_agents.scheduler.runners.talking",
        "parallel_agents.version",
    }
    assert not {"psutil", "dataclasses", "inspect", "asyncio", "subprocess", "pathlib"} & set(loaded)
