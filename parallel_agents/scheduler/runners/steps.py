"""A program that runs a command between its setup and its teardown, and quality gates after it. Stdlib only.

It is started in place of the command where a task has any of these (``wrap`` makes its words), and behaves to the
outside as the command would: same directory, environment, standard streams, exit code or signal. What comes on its
standard input is for the command; the others find nothing there. Each turn:

1. setup: where it fails, neither the command nor a gate runs, and the exit code is 125,
2. the command, in our own process group,
3. gates, one after the other, where the command ended with 0; each writes into a log of its own,
4. teardown, however the others ended,

and after each of them ``steps.json`` is renamed into place, which tells a failed setup from a command that exits 125:
``{"setup": STEP, "command": STEP, "gates": [STEP...], "teardown": STEP}``. What has not ended is not in it. A STEP has
``started`` (False: there is no such program), ``exit_code`` (negative: the signal that killed it), ``duration_s`` and
``error`` (None: all well). The command's STEP also has ``stdout_bytes``, where its part of the output begins and ends, or
None where the output is no file. A gate's has ``name``, ``command``, ``log`` (a file beside ``steps.json``) and
``output``, the end of that.

All but the command have process groups and timeouts of their own; the command's timeout is the supervisor's affair.
Asked to end (SIGTERM, SIGINT, SIGHUP), we have what runs end, and start nothing more but the teardown, for a short time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Final, NoReturn

STEPS: Final = "steps.json"
SETUP_FAILED: Final = 125  # As `env` and `timeout` say that they themselves, not the command, have failed.
NOT_FOUND: Final = 127  # These two as a shell says them.
NOT_EXECUTABLE: Final = 126

_OUTPUT_CHARS: Final = 2000
_GRACE_S: Final = 1.0  # Between SIGTERM and SIGKILL.
# A dispatcher that stops an attempt has what is left of it killed after three seconds. The teardown must fit into that.
LAST_S: Final = 1.5
_LAST_GRACE_S: Final = 0.5
# Whoever signals our whole group has reached the command as well; a second signal would make many programs drop what
# they are saving. So it is passed on only where nothing happens for a while.
_PASS_ON_S: Final = 0.5
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def wrap(
    command: Sequence[str],
    *,
    setup: Sequence[str] | None,
    teardown: Sequence[str] | None,
    timeout_s: float,
    gates: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    last_s: float = LAST_S,
) -> tuple[str, ...]:
    """The words that run a command with what belongs before and after it; the command itself where nothing does.

    Args:
        command, setup, teardown: program and arguments.
        timeout_s: of setup and teardown each, in seconds.
        gates: ``{"command": words, "timeout_s": seconds, "name": text}``.
        folder: an existing one, for ``steps.json`` and the logs of gates.
        last_s: how many seconds the teardown has once we are asked to end.
    """
    if not (setup or teardown or gates):
        return tuple(command)
    order = {
        "setup": list(setup or ()),
        "teardown": list(teardown or ()),
        "timeout_s": timeout_s,
        "gates": [{**gate, "command": list(gate["command"])} for gate in gates],
        "folder": os.path.abspath(folder),
        "last_s": last_s,
    }
    # The command stands by itself: one argument of a program holds 128 KiB at most, all of them together far more.
    return (sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(__file__), json.dumps(order), *command)


class _Steps:
    """What is being run, what it came to, and whether we are to end."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.folder: str = order["folder"]
        self.timeout_s = float(order["timeout_s"])
        self.last_s = float(order["last_s"])
        self.told: dict[str, Any] = {}
        self.signum = 0  # The first signal that asked us to end.
        self.environment = _inherited_environment()
        self.ignored = [one for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN]
        self.wake_fd = self.catch_signals()

    def run(self, command: list[str]) -> int:
        """All steps; gives the exit code, negative for the signal to die by."""
        code = self.set_up() or self.run_command(command)
        if code == 0 and not self.run_gates():
            code = -self.signum
        if teardown := self.order["teardown"]:
            found = self.step(teardown, self.timeout_s, last=True)
            self.tell("teardown", found)
            if found["error"]:
                _say(f"teardown failed: {found['error']}")
        return code

    def set_up(self) -> int:
        """The setup; 0 where the command may run."""
        if setup := self.order["setup"]:
            found = self.step(setup, self.timeout_s)
            self.tell("setup", found)
            if found["error"] and not self.signum:
                _say(f"setup failed: {found['error']}")
                return SETUP_FAILED
        return -self.signum

    def run_command(self, command: list[str]) -> int:
        """The command; gives what it exited with."""
        begin = _size_of_stdout()
        found = self.step(command, inf, own_group=False)
        end = _size_of_stdout()
        self.tell("command", {**found, "stdout_bytes": None if begin is None or end is None else [begin, end]})
        if not found["started"]:
            _say(found["error"])
        code: int = found["exit_code"]
        return code

    def run_gates(self) -> bool:
        """All gates, also after one that failed: who mends the first wants to know of the second.

        Returns:
            False where we were asked to end before all of them had.
        """
        results: list[dict[str, Any]] = []
        for number, gate in enumerate(self.order["gates"], start=1):
            if self.signum:
                return False
            log = f"gate-{number}.log"
            path = f"{self.folder}/{log}"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except OSError as error:
                found = _not_started(NOT_EXECUTABLE, f"its log cannot be written: {_reason(error)}")
            else:
                found = self.step(gate["command"], float(gate["timeout_s"]), output_fd=fd)
                os.close(fd)
            about = {"name": gate.get("name"), "command": gate["command"], "log": log, "output": _end_of(path)}
            results.append({**about, **found})
            self.tell("gates", results)
        return not (results and self.signum)

    def step(
        self,
        words: list[str],
        timeout_s: float,
        *,
        own_group: bool = True,
        output_fd: int | None = None,
        last: bool = False,
    ) -> dict[str, Any]:
        """Run one program to its end. ``last``: a signal to us only shortens its time."""
        begun = time.monotonic()
        try:
            pid = self.spawn(words, own_group, output_fd)
        except (FileNotFoundError, NotADirectoryError):
            return _not_started(NOT_FOUND, f"no such command: {words[0]!r}")
        except PermissionError:
            return _not_started(NOT_EXECUTABLE, f"not executable: {words[0]!r}")
        except OSError as error:
            return _not_started(NOT_EXECUTABLE, f"cannot be started: {_reason(error)}: {words[0]!r}")
        code, why = self.wait(pid, timeout_s, own_group, last)
        duration_s = round(time.monotonic() - begun, 6)
        return {"started": True, "exit_code": code, "duration_s": duration_s, "error": why or _failure(code)}

    def spawn(self, words: list[str], own_group: bool, output_fd: int | None) -> int:
        """Start a program that finds everything as we found it; gives its pid."""
        streams: list[Any] = [] if output_fd is None else [(os.POSIX_SPAWN_DUP2, output_fd, to) for to in (1, 2)]
        group: dict[str, Any] = {}
        if own_group:
            group = {"setpgroup": 0}
            streams.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        return os.posix_spawnp(
            words[0], words, self.environment, file_actions=streams, setsigmask=(), setsigdef=self.ignored, **group
        )

    def wait(self, pid: int, timeout_s: float, own_group: bool, last: bool) -> tuple[int, str]:
        """Wait for the end of a child, and see to it once it is due.

        Returns:
            Its exit code (negative: a signal), and why it was ended, empty where it ended by itself.
        """
        why = ""
        heard = asked = False
        now = time.monotonic()
        ask_at, kill_at = now + timeout_s, inf
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), why
            now = time.monotonic()
            if self.signum and not heard and not asked:
                heard = True
                if not last:
                    why = "stopped"
                    ask_at = now if own_group else now + _PASS_ON_S
                elif now + self.last_s < ask_at:
                    timeout_s, ask_at = self.last_s, now + self.last_s
            if now >= ask_at and not asked:
                asked = True
                why = why or f"timed out after {timeout_s:g} s"
                _send(pid, signal.SIGTERM if last or not heard else self.signum, own_group)
                if own_group:  # Nobody but us has an eye on it.
                    kill_at = now + (_LAST_GRACE_S if self.signum else _GRACE_S)
            if now >= kill_at:
                kill_at = inf
                _send(pid, signal.SIGKILL, own_group)
            due = kill_at if asked else ask_at
            select.select([self.wake_fd], [], [], None if due == inf else max(0.0, due - now))
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_fd, 4096)

    def tell(self, step: str, found: Any) -> None:
        """Write down what a step came to."""
        self.told[step] = found
        path = f"{self.folder}/{STEPS}"
        try:
            with open(f"{path}.tmp", "w", encoding="utf-8") as file:
                json.dump(self.told, file)
            os.rename(f"{path}.tmp", path)
        except OSError as error:
            _say(f"{STEPS} cannot be written: {_reason(error)}")

    def catch_signals(self) -> int:
        """Note what asks us to end, and be woken by that and by the ends of children; gives the pipe that wakes."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        for one in _ENDING:
            signal.signal(one, self.note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, *_ENDING))
        return read_end

    def note(self, signum: int, _frame: object) -> None:
        """The first signal counts."""
        self.signum = self.signum or signum


def _inherited_environment() -> dict[str, str]:
    """Our environment without what our own interpreter may have added to it.

    Python sets LC_CTYPE where no locale is chosen (PEP 538); what the kernel gave us still stands in /proc.
    """
    environment = dict(os.environ)
    if "LC_CTYPE" in environment:
        with contextlib.suppress(OSError), open("/proc/self/environ", "rb") as file:
            if not any(entry.startswith(b"LC_CTYPE=") for entry in file.read().split(b"\0")):
                del environment["LC_CTYPE"]
    return environment


def _not_started(code: int, error: str) -> dict[str, Any]:
    return {"started": False, "exit_code": code, "duration_s": 0.0, "error": error}


def _failure(code: int) -> str | None:
    if code >= 0:
        return f"exit {code}" if code else None
    try:
        return f"killed by signal {signal.Signals(-code).name}"
    except ValueError:  # A real-time signal.
        return f"killed by signal {-code}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _send(pid: int, signum: int, own_group: bool) -> None:
    """A child that has not been reaped keeps its number, so this reaches nobody else."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if own_group:
            os.killpg(pid, signum)
        else:
            os.kill(pid, signum)


def _size_of_stdout() -> int | None:
    try:
        found = os.fstat(1)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _end_of(path: str) -> str:
    """The last characters of a gate's log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * _OUTPUT_CHARS))  # UTF-8 has four bytes at most.
            return file.read().decode("utf-8", "replace")[-_OUTPUT_CHARS:]
    except OSError:
        return ""


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))


def _leave(code: int) -> NoReturn:
    """Exit as the command did, by the same signal where one killed it."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # Not our core.
        with contextlib.suppress(OSError):  # SIGKILL cannot be set.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = 128 - code  # One that does not end a process by itself.
    os._exit(code)


def main() -> None:
    """Arguments: the order of ``wrap`` as JSON, then the command word by word."""
    _leave(_Steps(json.loads(sys.argv[1])).run(sys.argv[2:]))


if __name__ == "__main__":
    main()
