"""Control groups: which may be divided, what is written into them, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from parallel_agents.scheduler.process import own_identity
from parallel_agents.scheduler.runners import control_groups as groups
from parallel_agents.scheduler.runners.control_groups import HOME, NoGroups, find_home, make_group, sweep
from parallel_agents.scheduler.runners.launcher import Attempt, Launcher
from parallel_agents.scheduler.runners.limits import Limits

FILES = {
    "cgroup.procs": "",
    "cgroup.controllers": "cpu io memory pids\n",
    "cgroup.subtree_control": "cpu memory\n",
    "cgroup.type": "domain\n",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "memory.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "cpu.max": "max 100000\n",
}


class Kernel:
    """A folder that looks like a hierarchy of control groups. What the kernel makes with a group, we make with its folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "cgroup"
        self.made: list[str] = []
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        self.mkdir(str(self.root))
        (self.root / "cgroup.type").unlink()  # As of the very first group.
        monkeypatch.setattr(groups.os, "mkdir", self.mkdir)
        monkeypatch.setattr(groups.os, "rmdir", self.rmdir)
        self.mounts = folder / "mounts"
        self.mounts.write_text(f"tmpfs /tmp tmpfs rw 0 0\ncgroup2 {self.root} cgroup2 rw,nsdelegate 0 0\n")
        self.own = folder / "own"
        self.lives_in("/")

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        self.made.append(path)
        for name, text in FILES.items():
            Path(path, name).write_text(text)

    def rmdir(self, path: str) -> None:
        if any(entry.is_dir() for entry in Path(path).iterdir()):
            raise OSError(16, "Device or resource busy", path)
        for entry in Path(path).iterdir():
            entry.unlink()
        self._rmdir(path)

    def lives_in(self, path: str) -> None:
        """The group that this process is said to be in."""
        self.own.write_text(f"0::{path}\n")
        folder = self.root
        for part in path.strip("/").split("/"):
            folder /= part
            if not folder.exists():
                self.mkdir(str(folder))
        (folder / "cgroup.procs").write_text("1\n2\n")

    def find(self) -> str:
        return find_home(str(self.mounts), str(self.own))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """One whose first group we may write."""
    return Kernel(tmp_path, monkeypatch)


def test_the_first_group_can_be_divided_though_it_holds_processes(kernel: Kernel) -> None:
    """And nothing is left of the trial."""
    home = kernel.find()
    assert home == str(kernel.root / HOME)
    assert [entry for entry in Path(home).iterdir() if entry.is_dir()] == []
    assert (Path(home) / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert kernel.find() == home


def test_the_nearest_group_without_processes_is_divided(kernel: Kernel) -> None:
    """That of the session, above that of the terminal, which holds us."""
    kernel.lives_in("/user.slice/user-1000/app.slice/terminal.scope")
    assert kernel.find() == str(kernel.root / "user.slice/user-1000/app.slice" / HOME)


def test_a_group_that_is_not_ours_is_not_divided(kernel: Kernel) -> None:
    """No group above us can be written, or has what it takes, or is free of processes: the reason is said."""
    kernel.lives_in("/box")
    (kernel.root / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(NoGroups, match="no controller for memory"):
        kernel.find()
    (kernel.root / "cgroup.controllers").write_text("cpu memory\n")
    (kernel.root / "cgroup.type").write_text("domain\n")
    (kernel.root / "cgroup.procs").write_text("1\n")
    with pytest.raises(NoGroups, match="holds processes of its own"):
        kernel.find()
    kernel.mounts.write_text("tmpfs /tmp tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")
    with pytest.raises(NoGroups, match="cgroup v2 is not mounted"):
        kernel.find()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_group_that_we_may_not_write_is_not_divided(kernel: Kernel) -> None:
    """As that of a session by ssh."""
    kernel.root.chmod(0o555)
    with pytest.raises(NoGroups, match="no group above ours is ours to write"):
        kernel.find()


def test_whoever_is_in_the_group_of_an_attempt_makes_none_beside_it(kernel: Kernel) -> None:
    """Its agents would have limits of their own there, and together more than the attempt may use."""
    kernel.lives_in(f"/{HOME}/attempt")
    with pytest.raises(NoGroups, match="in the group of an attempt"):
        kernel.find()


def test_a_group_says_what_an_attempt_may_use(kernel: Kernel) -> None:
    """The processors as a share of time: a quarter of eight are two."""
    home = kernel.find()
    folder = Path(make_group(home, "a1", Limits(25.0, 1_024_000_000), 8))
    assert (folder / "cpu.max").read_text() == "200000 100000"
    assert (folder / "memory.max").read_text().startswith("1024000000")
    assert (folder / "memory.oom.group").read_text().startswith("1")
    only_memory = Path(make_group(home, "a2", Limits(None, 5_000_000), 8))
    assert (only_memory / "cpu.max").read_text() == FILES["cpu.max"]


def test_a_group_that_cannot_be_told_its_limits_is_not_left_there(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt in it would believe itself held."""
    home = kernel.find()
    monkeypatch.setitem(FILES, "memory.max", "max\n")
    monkeypatch.delitem(FILES, "memory.max")
    with pytest.raises(FileNotFoundError):
        make_group(home, "a1", Limits(25.0, 5_000_000), 8)
    assert not Path(home, "a1").exists()


def test_an_end_by_the_kernel_is_told(kernel: Kernel) -> None:
    """By its own count."""
    folder = Path(make_group(kernel.find(), "a1", Limits(25.0, 5_000_000), 8))
    assert not groups.was_killed(str(folder))
    (folder / "memory.events").write_text(FILES["memory.events"].replace("oom_kill 0", "oom_kill 3"))
    assert groups.was_killed(str(folder))


def test_groups_that_nobody_is_in_are_swept(kernel: Kernel) -> None:
    """Not those of living attempts, and none so young that its attempt may be about to enter it."""
    home = kernel.find()
    for name in ("living", "gone"):
        make_group(home, name, Limits(25.0), 8)
    Path(home, "living", "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert sweep(home) == []
    assert sweep(home, young_s=-1.0) == [f"{home}/gone"]
    assert sorted(entry.name for entry in Path(home).iterdir() if entry.is_dir()) == ["living"]
    assert sweep(f"{home}/nowhere") == []


REAL = groups._mounted("/proc/self/mounts")
NEEDS_REAL = pytest.mark.skipif(
    REAL is None or not os.access(f"{REAL}/cgroup.procs", os.W_OK),
    reason="there is no group of the kernel's for us here",
)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Path]:
    """A group of the kernel's. It may have no controllers: who is in it, and how it ends, is the same with them."""
    home = Path(f"{REAL}/{HOME}-test-{os.getpid()}")
    folder = home / "a1"
    folder.mkdir(parents=True)
    yield folder
    groups.kill_group(str(folder))
    wait_until(lambda: groups.remove_group(str(folder)), "the group to be empty")
    home.rmdir()


@NEEDS_REAL
def test_a_command_is_in_its_group_from_its_first_moment_with_all_that_it_starts(real: Path, tmp_path: Path) -> None:
    """Whatever session that makes for itself; it ends with the group, whose folder can go then."""
    launcher = Launcher(own_identity())
    attempt = Attempt("a1", str(tmp_path), 60.0)
    attempt.group = str(real)
    told = tmp_path / "told"
    script = f"setsid sleep 600 & cat /proc/self/cgroup > {told}.tmp; mv {told}.tmp {told}; wait"
    with open(os.devnull, "r+b") as null:
        fd = null.fileno()
        pid = launcher.spawn_into_group(
            attempt, "/bin/sh", ["sh", "-c", script], {"PATH": os.environ["PATH"]}, (fd, fd, fd)
        )
    try:
        wait_until(told.exists, "the command")
        assert f"0::/{real.parent.name}/{real.name}" in told.read_text().splitlines()
        wait_until(lambda: len((real / "cgroup.procs").read_text().split()) == 2, "what it starts")
        assert not groups.remove_group(str(real))
        assert sweep(str(real.parent), young_s=-1.0) == []
        groups.kill_group(str(real))
    finally:
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    wait_until(lambda: sweep(str(real.parent), young_s=-1.0) == [str(real)], "the group to be empty")


@NEEDS_REAL
def test_a_command_that_cannot_be_executed_says_so(real: Path, tmp_path: Path) -> None:
    """Its end tells, as that of any other."""
    program = tmp_path / "program"
    program.write_text("no program")
    program.chmod(0o700)
    attempt = Attempt("a1", str(tmp_path), 60.0)
    attempt.group = str(real)
    with open(tmp_path / "said", "w+b") as said:
        fd = said.fileno()
        pid = Launcher(own_identity()).spawn_into_group(attempt, str(program), ["program"], {}, (fd, fd, fd))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 126
    assert b"cannot be started" in (tmp_path / "said").read_bytes()


def test_a_group_that_is_gone_counts_as_removed(tmp_path: Path) -> None:
    """Somebody has swept it."""
    assert groups.remove_group(str(tmp_path / "gone"))
    assert not groups.was_killed(str(tmp_path / "gone"))
