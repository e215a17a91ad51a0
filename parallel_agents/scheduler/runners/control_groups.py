"""Control groups (cgroup v2), which hold attempts to their limits where this machine lets us make them.

A group is made for each attempt below one of ours, entered before its command begins and removed at its end. Stdlib only
and few modules, because the supervisor starts with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import cache
from typing import Any, Final, NamedTuple

from parallel_agents.scheduler.runners.limits import Limits

HOME: Final = "parallel-agents"
"""The group that holds those of attempts."""

_PERIOD_US: Final = 100_000  # Of the share of the processors, the kernel's own default.
_CONTROLLERS: Final = ("cpu", "memory")
_END_S: Final = 1.0  # For the end of what was killed; what takes longer is swept later.
_YOUNG_S: Final = 60.0  # A group of that age may be about to be entered.


class NoGroups(Exception):
    """Why no groups can be made here, in words."""


def find_home(mounts: str = "/proc/self/mounts", own: str = "/proc/self/cgroup") -> str:
    """The folder of the group that attempts get theirs in; it is made if there is none.

    The nearest group above ours that we may write, that has both controllers to give, and that holds no process of its own:
    the kernel lets only such a group, or the very first one, divide what it has.

    Raises:
        NoGroups: there is none.
    """
    mount, path = _mounted(mounts), _path_of(own)
    if mount is None or path is None:
        raise NoGroups("cgroup v2 is not mounted")
    parts = [part for part in path.split("/") if part]
    if HOME in parts:
        raise NoGroups("this process is itself in the group of an attempt, whose limits hold for all that it starts")
    refused = "no group above ours is ours to write"
    for count in range(len(parts), -1, -1):
        folder = "/".join([mount, *parts[:count]])
        if not os.access(folder, os.W_OK) or not os.access(f"{folder}/cgroup.procs", os.W_OK):
            continue
        missing = sorted({*_CONTROLLERS} - {*_words(f"{folder}/cgroup.controllers")})
        if missing:
            refused = f"{folder} has no controller for {' and '.join(missing)}"
        elif os.path.exists(f"{folder}/cgroup.type") and _words(f"{folder}/cgroup.procs"):
            refused = f"{folder} holds processes of its own"
        else:
            return _made(folder)
    raise NoGroups(refused)


class Home(NamedTuple):
    """What there is for control groups here: the folder, or why there is none."""

    path: str | None
    reason: str = ""


@cache
def control_group_home() -> Home:
    """The group that attempts get theirs in, looked for once."""
    try:
        return Home(find_home())
    except NoGroups as error:
        return Home(None, str(error))


def _mounted(mounts: str) -> str | None:
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split(" ")
            if words[2] == "cgroup2":
                return words[1].replace("\\040", " ")
    return None


def _path_of(own: str) -> str | None:
    with contextlib.suppress(OSError), open(own, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    return None


def _made(folder: str) -> str:
    """Our group in one that can hold it, tried by making a group in it."""
    home = f"{folder}/{HOME}"
    wanted = " ".join(f"+{name}" for name in _CONTROLLERS)
    try:
        if not {*_CONTROLLERS} <= {*_words(f"{folder}/cgroup.subtree_control")}:
            _write(f"{folder}/cgroup.subtree_control", wanted)
        with contextlib.suppress(FileExistsError):
            os.mkdir(home)
        _write(f"{home}/cgroup.subtree_control", wanted)
        probe = f"{home}/probe-{os.getpid()}"
        os.mkdir(probe)
        try:
            _write(f"{probe}/memory.max", "max")
            _write(f"{probe}/cpu.max", f"max {_PERIOD_US}")
        finally:
            os.rmdir(probe)
    except OSError as error:
        raise NoGroups(f"{error.filename or home}: {(error.strerror or str(error)).lower()}") from None
    return home


def make_group(home: str, name: str, limits: Limits, processors: int) -> str:
    """Make the group of an attempt.

    Args:
        processors: of the machine.
    Raises:
        OSError: it cannot be made.
    """
    folder = f"{home}/{name}"
    os.mkdir(folder)
    try:
        if limits.memory_bytes is not None:
            _write(f"{folder}/memory.max", str(limits.memory_bytes))
            with contextlib.suppress(OSError):  # Linux 4.19; without it the kernel may end a part of the attempt.
                _write(f"{folder}/memory.oom.group", "1")
        if limits.cpu_percent is not None:
            quota = round(limits.cpu_percent / 100 * processors * _PERIOD_US)
            _write(f"{folder}/cpu.max", f"{max(1000, quota)} {_PERIOD_US}")
    except OSError:
        os.rmdir(folder)
        raise
    return folder


def enter_group(folder: str) -> None:
    """Put the calling process, which must have one thread, into a group. Takes about 10 ms: the kernel waits."""
    _write(f"{folder}/cgroup.procs", "0")


def was_killed(folder: str) -> bool:
    """Whether the kernel has ended a process of a group because of its limit of memory."""
    return any(
        line.split()[1:] != ["0"] for line in _lines(f"{folder}/memory.events") if line.startswith(("oom_kill ",))
    )


def kill_group(folder: str) -> None:
    """End whatever is in a group, at once (Linux 5.14)."""
    with contextlib.suppress(OSError):
        _write(f"{folder}/cgroup.kill", "1")


def end_group(folder: str) -> None:
    """End whatever is in the group of a lost attempt, whose supervisor is not there to do it, and remove it."""
    deadline = time.monotonic() + _END_S
    kill_group(folder)
    while not remove_group(folder) and time.monotonic() < deadline:
        time.sleep(0.01)


def remove_group(folder: str) -> bool:
    """Remove the group of an attempt. False where something is in it still."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def empty_groups(home: str, *, young_s: float = _YOUNG_S) -> list[str]:
    """The folders of groups that nobody is in any more: of attempts whose supervisor was killed."""
    try:
        folders = [f"{home}/{name}" for name in sorted(os.listdir(home))]
    except OSError:
        return []
    return [
        folder for folder in folders if "populated 0" in _lines(f"{folder}/cgroup.events") and _age_s(folder) >= young_s
    ]


def _age_s(folder: str) -> float:
    try:
        return time.time() - os.stat(folder).st_mtime
    except OSError:
        return 0.0


def sweep(home: str, *, young_s: float = _YOUNG_S) -> list[str]:
    """Remove the groups that nobody is in any more, and give their folders."""
    return [folder for folder in empty_groups(home, young_s=young_s) if remove_group(folder)]


def as_order(limits: Limits, home: str | None) -> dict[str, Any]:
    """Limits as a supervisor is told them."""
    return {**limits._asdict(), "home": home}


def _words(path: str) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _write(path: str, text: str) -> None:
    """Never makes a file: a group has those that its controllers give it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
