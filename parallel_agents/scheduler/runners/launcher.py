"""How a supervisor turns an order into a running command: claimed once for ever, in a session of its own, on record.

Stdlib only and few modules, because the supervisor starts with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
from typing import Any, Final

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.scheduler.process import MARKER, ProcessIdentity, boot_id, process_row, start_time_now
from parallel_agents.scheduler.runners.control_groups import enter_group, make_group, remove_group
from parallel_agents.scheduler.runners.folder import PROCESS, REVOKED, STDERR, STDOUT
from parallel_agents.scheduler.runners.limits import NO_LIMITS, Limits

NICE: Final = 5
"""How much lower than ours the priority of attempts is, so that a person's own programs come first."""

_CANNOT_EXECUTE: Final = 126  # As shells say it.
_PROCESS_BYTES: Final = 400


class Attempt:
    """One command between its start and its exit file."""

    __slots__ = (
        "asked_to_end",
        "attempt_id",
        "began_ns",
        "cause",
        "cpu_s",
        "disk_written_bytes",
        "ended_at_us",
        "error",
        "folder",
        "grace_s",
        "group",
        "interrupt",
        "kill_at",
        "known",
        "limits",
        "lock_fd",
        "look_at",
        "peak_memory_bytes",
        "pid",
        "process_fd",
        "start_time",
        "started_at_us",
        "status",
        "stdin_fd",
        "timeout_s",
        "unsent",
        "why",
    )

    def __init__(self, attempt_id: str, folder: str, timeout_s: float) -> None:
        self.attempt_id = attempt_id
        self.folder = folder
        self.timeout_s = timeout_s
        self.lock_fd = -1
        self.process_fd = -1  # Of process.json, while the command is being started.
        self.pid = 0
        self.start_time = 0
        self.started_at_us = 0
        self.began_ns = 0  # The same moment, on the monotonic clock.
        self.ended_at_us = 0
        self.status: int | None = None  # As wait() gave it; None while the command runs.
        self.cpu_s = 0.0
        self.peak_memory_bytes = 0
        self.disk_written_bytes = 0
        self.cause = "exited"  # Or "stopped", "timed_out", "limit": why it is being ended.
        self.why: dict[str, str] = {}  # Of the last of these: ``error`` and ``kind``.
        self.limits = NO_LIMITS
        self.group = ""  # The folder of its control group, where it has one.
        self.error: str | None = None
        self.asked_to_end = False  # SIGTERM has been sent.
        self.grace_s: float | None = None  # Of the most urgent request to stop it.
        self.kill_at: float | None = None  # When SIGKILL follows, on the clock of the supervisor.
        self.look_at = 0.0
        self.known: set[tuple[int, int]] = set()  # (pid, start time) of descendants that were seen.
        self.stdin_fd = -1  # Our end of its standard input, where it is talked to.
        self.unsent = b""  # What it is still to be told there.
        self.interrupt = b""  # What asks it there to stop.


class CannotStart(Exception):
    """Why an attempt does not start, in words for a person."""


class Launcher:
    """What every start needs. One per process, made when its signal handlers are in place."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self.identity = identity  # The supervisor's own.
        self.clock_is_start_time: bool | None = None  # None until it was tried.
        self.files_limit = _raise_files_limit()
        self.devnull = os.open(os.devnull, os.O_RDWR)
        self.ignored = [one for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN]
        self.nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        self.processors = os.cpu_count() or 1
        _leave_no_cores()

    def claim(self, attempt: Attempt) -> None:
        """Make sure that this attempt never ran and shall run, and leave our name before there is a command.

        Raises:
            CannotStart: it must not run.
        """
        if os.access(f"{attempt.folder}/{REVOKED}", os.F_OK):
            raise CannotStart("the attempt was given up for lost before it could start")
        try:
            attempt.process_fd = os.open(
                f"{attempt.folder}/{PROCESS}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except FileExistsError:
            raise CannotStart("the attempt was started before, and none runs twice") from None
        self.write_process(attempt, self.identity, "starting")

    def write_process(self, attempt: Attempt, identity: ProcessIdentity, state: str) -> None:
        """Write ``process.json``, over itself: one short write that no reader sees by half.

        Not renamed into place, because a file less to make and to delete is a tenth of what an attempt costs. The state
        comes last: whatever a reader could see of two writings still says ``starting``.
        """
        data = {
            "attempt_id": attempt.attempt_id,
            **identity.to_dict(),
            "supervisor": self.identity.to_dict(),
            "state": state,
        }
        os.pwrite(attempt.process_fd, json.dumps(data).encode().ljust(_PROCESS_BYTES) + b"\n", 0)

    def spawn(self, attempt: Attempt, order: dict[str, Any]) -> None:
        """Start the command in a session of its own and write down who it is."""
        environment = dict(order["env"])
        environment[MARKER] = attempt.attempt_id
        folder = attempt.folder
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        fds: list[int] = []
        try:
            stdin = self.stdin_for(attempt, order, fds)
            stdout, stderr = os.open(f"{folder}/{STDOUT}", append, 0o600), os.open(f"{folder}/{STDERR}", append, 0o600)
            fds += [stdout, stderr]
            enter(order["workdir"])  # posix_spawn has no way to say it, and we have one thread.
            command = order["command"]
            program = find_program(command[0], environment)
            self.make_group(attempt, order.get("limits") or {})
            attempt.started_at_us, attempt.began_ns = time.time_ns() // 1000, time.monotonic_ns()
            self.set_files_limit(self.files_limit[0])
            before = start_time_now()
            try:
                begin = self.spawn_into_group if attempt.group else self.spawn_plain
                attempt.pid = begin(attempt, program, command, environment, (stdin, stdout, stderr))
            except BaseException:
                if attempt.group:
                    remove_group(attempt.group)
                raise
            finally:
                self.set_files_limit(self.files_limit[1])
        finally:
            for fd in fds:
                os.close(fd)
            os.chdir("/")
        reach("supervisor.spawned")
        attempt.start_time = self.start_time_of(attempt.pid, before)
        identity = ProcessIdentity(attempt.pid, attempt.start_time, boot_id())
        with contextlib.suppress(OSError):  # The marker finds the command too.
            self.write_process(attempt, identity, "running")

    def spawn_plain(
        self, attempt: Attempt, program: str, command: list[str], environment: dict[str, str], streams: tuple[int, ...]
    ) -> int:
        """The quick way; gives the pid."""
        pid = os.posix_spawn(
            program,
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=self.ignored,
        )
        self.lower(pid)
        return pid

    def spawn_into_group(
        self, attempt: Attempt, program: str, command: list[str], environment: dict[str, str], streams: tuple[int, ...]
    ) -> int:
        """The way of an attempt with a control group: whatever the command does, it does it in there; gives the pid.

        The child enters it: that takes the kernel some 10 ms, in which we can do other things.
        """
        pid = os.fork()
        if pid:
            return pid
        try:
            for one in (*self.ignored, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                if one not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(one, signal.SIG_DFL)
            os.setsid()
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            with contextlib.suppress(OSError):  # The watchdog holds it to its limits as well.
                enter_group(attempt.group)
            self.lower(os.getpid())
            os.execve(program, command, environment)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(2, f"cannot be started: {error}\n".encode())
        finally:
            os._exit(_CANNOT_EXECUTE)

    def make_group(self, attempt: Attempt, told: dict[str, Any]) -> None:
        """Give an attempt with limits a control group, where there can be one."""
        attempt.limits = Limits(told.get("cpu_percent"), told.get("memory_bytes"))
        if attempt.limits and (home := told.get("home")):
            with contextlib.suppress(OSError):  # Without one the watchdog is all there is, and it is always there.
                attempt.group = make_group(home, attempt.attempt_id, attempt.limits, self.processors)

    def lower(self, pid: int) -> None:
        """Let a command that has just begun come after what a person does. The rest of that is done by its first sample."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, self.nice)

    def stdin_for(self, attempt: Attempt, order: dict[str, Any], fds: list[int]) -> int:
        """The standard input of a command: a file, a pipe that we hold the other end of, or nothing.

        Args:
            fds: what is to be closed when the command has been started is added to it.
        """
        if talk := order.get("talk"):
            with open(talk["first"], "rb") as file:
                attempt.unsent = file.read()
            attempt.interrupt = talk["interrupt"].encode()
            theirs, attempt.stdin_fd = os.pipe()
            fds.append(theirs)
            os.set_blocking(attempt.stdin_fd, False)
            return theirs
        if stdin := order.get("stdin"):
            fds.append(os.open(stdin, os.O_RDONLY | os.O_CLOEXEC))
            return fds[-1]
        return self.devnull

    def start_time_of(self, pid: int, before: int) -> int:
        """When a child began that was spawned a moment ago, ``before`` being the time at which that was tried."""
        now = start_time_now()
        if before == now and self.clock_is_start_time:
            return now
        row = process_row(pid)  # A zombie at worst: nobody but us can reap it.
        found = row.start_time if row else 0
        if before == now and self.clock_is_start_time is None:
            self.clock_is_start_time = found == now  # Not so under every emulation of Linux.
        return found

    def set_files_limit(self, soft: int) -> None:
        """Commands get the limit that we were started with; we need one descriptor for each of them."""
        if self.files_limit[0] != self.files_limit[1]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, self.files_limit[2]))


def enter(workdir: str) -> None:
    """Go where the next command shall begin.

    Raises:
        CannotStart: there is no such directory, or it is not for us.
    """
    try:
        os.chdir(workdir)
    except (FileNotFoundError, NotADirectoryError):
        raise CannotStart(f"no such directory: {workdir!r}") from None
    except PermissionError:
        raise CannotStart(f"no permission to enter directory {workdir!r}") from None


def find_program(name: str, environment: dict[str, str]) -> str:
    """The file that a command's first word means, by the PATH of the attempt and not by ours.

    Raises:
        CannotStart: there is none, or none that can be executed.
    """
    if "/" in name:
        candidates = [name]
    else:
        folders = environment.get("PATH", os.defpath).split(os.pathsep)
        candidates = [f"{folder or '.'}/{name}" for folder in folders] if name else []
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    forbidden = any(map(os.path.exists, candidates))
    raise CannotStart(f"not executable: {name!r}" if forbidden else f"no such command: {name!r}")


def _leave_no_cores() -> None:
    """An agent that crashes would leave the memory of all its work in a file; whoever wants that raises the limit again."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _raise_files_limit() -> tuple[int, int, int]:
    """Allow ourselves as many files as we may have: (what it was, what it is, the hard limit)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 10240)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        wanted = soft
    return soft, wanted, hard
