"""Runs commands through a supervisor process that outlives us, and takes over those of a dispatcher that died.

The supervisor (one for all attempts) is told over a socket what to start and stop, and tells over it what has ended.
Attempts of other dispatchers are known by their files alone: an exit file says how one ended, a held lock that it lives,
a free lock without exit file that it is lost.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from parallel_agents.eventstore.crash_points import reach
from parallel_agents.scheduler import trouble
from parallel_agents.scheduler.process import ProcessIdentity, end_processes, family, send_signal
from parallel_agents.scheduler.runners.control_groups import as_order, control_group_home, end_group
from parallel_agents.scheduler.runners.exit_file import ended_of
from parallel_agents.scheduler.runners.folder import (
    EXIT,
    PROCESS,
    REVOKED,
    STOP,
    LockHeld,
    read_object,
    take_lock,
    write_whole,
)
from parallel_agents.scheduler.runners.protocol import Ended, Launch, Outcome
from parallel_agents.scheduler.sandbox import before_command, places

WATCH_S: Final = 0.2  # Between two looks at the files of adopted attempts.
_LOST_GRACE_S: Final = 1.0  # For what is left of a lost attempt, between SIGTERM and SIGKILL.
_FLUSH_S: Final = 1.0
_GONE_S: Final = 2.0  # For the end of a supervisor that has nothing to do; it takes milliseconds.
_BUSY: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR))


class _Live:
    """An attempt that has not ended, as far as we know."""

    __slots__ = ("adopted", "launch", "link", "pid", "recovering", "stop", "why")

    def __init__(self, launch: Launch, link: _Link | None) -> None:
        self.launch = launch
        self.link = link  # None: adopted, known by its files.
        self.pid = 0
        self.stop: tuple[bool, float] | None = None  # (timed out, grace_s) once it shall end ...
        self.why: dict[str, str] | None = (
            None  # ... and with which ``error`` and ``kind``, where it has broken a limit.
        )
        self.recovering = False
        self.adopted = False  # From another dispatcher.


class ShellRunner:
    """Executes commands in processes. See ``protocol.Runner``.

    Args:
        on_end: called from a thread of ours after an end can be polled.
        doorbell_dir, doorbell_prefix: which unix datagram sockets the supervisor rings when an attempt ends and its
            dispatcher has gone; None for no ring.
    """

    name = "shell"

    def __init__(
        self,
        on_end: Callable[[], None],
        *,
        doorbell_dir: Path | str | None = None,
        doorbell_prefix: str | None = None,
    ) -> None:
        self._on_end = on_end
        self._doorbell = (str(doorbell_dir or ""), doorbell_prefix or "")
        self._lock = threading.Lock()
        self._live: dict[str, _Live] = {}
        self._ends: deque[Ended] = deque()
        self._closed = False
        self._look = threading.Event()
        self._watcher: threading.Thread | None = None
        self._link: _Link | None = None
        with contextlib.suppress(OSError):  # The first start tries again, and says why not.
            self._link = _Link(self._doorbell, self._take, self._supervisor_died)

    def start(self, launch: Launch) -> None:
        """Have the supervisor start the command. An id that is live already is left alone."""
        live = _Live(launch, None)
        with self._lock:
            if launch.attempt_id in self._live:
                return
            self._live[launch.attempt_id] = live
        try:
            order = {
                "attempt_id": launch.attempt_id,
                "folder": os.path.abspath(launch.folder),
                "workdir": os.path.abspath(launch.workdir),
                "command": (*_sandboxed(launch), *launch.command) if launch.sandbox else launch.command,
                "env": dict(launch.env),
                "timeout_s": float(launch.timeout_s),
            }
            if launch.stdin is not None:
                order["stdin"] = launch.stdin
            if launch.limits:
                order["limits"] = as_order(launch.limits, control_group_home().path)
            if launch.talk is not None:
                order["talk"] = {"first": launch.talk.first, "interrupt": launch.talk.interrupt}
            if launch.max_output_bytes is not None:
                order["max_output_bytes"] = launch.max_output_bytes
            message = json.dumps({"start": order}).encode() + b"\n"
            self._send(live, message)
            reach("attempt.given")
        except (OSError, TypeError, ValueError) as error:
            self._take([_not_started(launch.attempt_id, error)])

    def adopt(self, launches: Iterable[Launch]) -> None:
        """Take over by their files; what is lost is revoked, ended and reported, in the background."""
        with self._lock:
            for launch in launches:
                live = self._live.setdefault(launch.attempt_id, _Live(launch, None))
                live.adopted = live.link is None
            self._watch()

    def stop(self, attempt_id: str, *, timed_out: bool = False, grace_s: float = 3.0) -> None:
        """SIGTERM, after ``grace_s`` SIGKILL, for the command and everything that descends from it."""
        self._stop(attempt_id, timed_out, grace_s, None)

    def end(self, attempt_id: str, *, error: str, kind: str, grace_s: float) -> None:
        """The same for an attempt that has broken a limit. Its ``Ended`` says ``exited``, with this error and kind."""
        self._stop(attempt_id, False, grace_s, {"error": error, "kind": kind})

    def _stop(self, attempt_id: str, timed_out: bool, grace_s: float, why: dict[str, str] | None) -> None:
        with self._lock:
            live = self._live.get(attempt_id)
            if live is None:
                return
            if live.stop is not None:
                if grace_s >= live.stop[1]:
                    return
                timed_out, why = live.stop[0], live.why
            reach("attempt.before-stop")
            live.stop, live.why = (timed_out, grace_s), why
            link = live.link
            if link is None:
                self._watch()
        if link is not None:
            order = {"attempt_id": attempt_id, **_wish(live)}
            link.send(json.dumps({"stop": order}).encode() + b"\n")
            reach("attempt.stop-asked")

    def finish(self, attempt_id: str) -> None:
        """Close the standard input of a command that is talked to: there is nothing more to do for it."""
        with self._lock:
            live = self._live.get(attempt_id)
            link = None if live is None else live.link
        if link is not None:
            link.send(json.dumps({"finish": attempt_id}).encode() + b"\n")

    def poll(self) -> list[Ended]:
        """The ends since the last call."""
        ends = []
        with contextlib.suppress(IndexError):
            while True:
                ends.append(self._ends.popleft())
        return ends

    def hint(self) -> None:
        """Something may have happened to adopted attempts (the doorbell rang): look now, not at the next turn."""
        self._look.set()

    def running(self) -> int:
        """How many attempts have been started or adopted and not ended."""
        return len(self._live)

    def live(self) -> dict[str, int]:
        """Attempt id to the pid of its command, for those that run now."""
        pids = {}
        with self._lock:
            living = list(self._live.items())
        for attempt_id, live in living:
            if not live.pid:
                data = read_object(str(live.launch.folder), PROCESS)
                if data is not None and data.get("state") == "running":
                    live.pid = int(data["pid"])
            if live.pid:
                pids[attempt_id] = live.pid
        return pids

    def launches(self) -> dict[str, Launch]:
        """By attempt id, of those that have not ended."""
        with self._lock:
            return {attempt_id: live.launch for attempt_id, live in self._live.items()}

    def close(self) -> None:
        """Let go of the supervisor. It goes on until its last attempt has ended; if that was before, it is gone now."""
        with self._lock:
            self._closed = True
            link = self._link
        self._look.set()
        if link is not None:
            link.close()
            if not any(live.link is link for live in list(self._live.values())):
                link.wait_gone(_GONE_S)

    def _send(self, live: _Live, message: bytes) -> None:
        """Give an order to the supervisor, to a new one where there is none or it has died.

        Raises:
            OSError: no supervisor can be started, or we are closed.
        """
        with self._lock:
            if self._closed:
                raise OSError("the runner is closed")
            for _ in range(2):
                if self._link is None:
                    self._link = _Link(self._doorbell, self._take, self._supervisor_died)
                live.link = self._link
                if self._link.send(message):
                    return
                self._link = None
        raise OSError("the supervisor ends as soon as it is started")

    def _take(self, ends: Iterable[Ended]) -> None:
        """Accept ends, each attempt's first one only, and tell the loop."""
        news = False
        for ended in ends:
            if self._live.pop(ended.attempt_id, None) is not None:
                self._ends.append(ended)
                news = True
        if news:
            self._on_end()

    def _supervisor_died(self, link: _Link) -> None:
        """Go on with its attempts by their files."""
        with self._lock:
            if self._closed:
                return
            if self._link is link:
                self._link = None
            for live in self._live.values():
                if live.link is link:
                    live.link = None
            self._watch()

    def _watch(self) -> None:
        """See to it that adopted attempts are looked at, now. The lock is held."""
        self._look.set()
        if self._watcher is None and not self._closed:
            self._watcher = threading.Thread(target=self._watch_adopted, name="adopted attempts", daemon=True)
            self._watcher.start()

    def _watch_adopted(self) -> None:
        while not self._closed:
            self._look.clear()
            with self._lock:
                adopted = [live for live in self._live.values() if live.link is None and not live.recovering]
            lost: list[tuple[_Live, int]] = []
            for live in adopted:
                try:
                    fd = self._look_at(live)
                except Exception:  # The attempts after this one must be looked at.
                    trouble.report_exception("attempt {} could not be looked at", live.launch.attempt_id)
                    continue
                if fd is not None:
                    live.recovering = True
                    lost.append((live, fd))
            if lost:
                threading.Thread(target=self._recover, args=(lost,), name="lost attempts", daemon=True).start()
            self._look.wait(WATCH_S if adopted else None)

    def _look_at(self, live: _Live) -> int | None:
        """See whether an adopted attempt has ended or lives.

        Returns:
            The descriptor that holds its lock where it is lost (-1 where there can be no lock), else None.
        """
        folder = os.path.abspath(live.launch.folder)
        attempt_id = live.launch.attempt_id
        if self._take_exit_file(folder, attempt_id):
            return None
        try:
            fd = take_lock(folder)
        except LockHeld:
            if live.stop is not None:
                _ask_to_stop(folder, _wish(live))
            return None
        except OSError as error:
            return None if error.errno in _BUSY else -1
        if self._take_exit_file(folder, attempt_id):  # It ended between the two looks.
            os.close(fd)
            return None
        return fd

    def _take_exit_file(self, folder: str, attempt_id: str) -> bool:
        ended = ended_of(read_object(folder, EXIT), attempt_id)
        if ended is None:
            return False
        self._take([ended])
        return True

    def _recover(self, lost: list[tuple[_Live, int]]) -> None:
        """Make sure that lost attempts neither run nor ever start, then report them. We hold their locks."""
        roots = []
        revoked: set[str] = set()
        never_began: set[str] = set()
        for live, _ in lost:
            folder = os.path.abspath(live.launch.folder)
            with contextlib.suppress(OSError):
                os.close(os.open(f"{folder}/{REVOKED}", os.O_WRONLY | os.O_CREAT, 0o600))
                revoked.add(live.launch.attempt_id)
            data = read_object(folder, PROCESS)
            if live.adopted and live.launch.attempt_id in revoked and not os.path.lexists(f"{folder}/{PROCESS}"):
                never_began.add(live.launch.attempt_id)  # Each time takes a dispatcher's death: it is no endless loop.
            if data is not None and data.get("state") == "running":
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    roots.append(ProcessIdentity.from_dict(data))
        reach("lost.revoked")
        attempt_ids = [live.launch.attempt_id for live, _ in lost]
        clean = end_processes(lambda: family(roots, attempt_ids), grace_s=_LOST_GRACE_S)
        reach("lost.ended")
        rest = "" if clean else "; some of its processes cannot be ended"
        if (home := control_group_home().path) is not None:
            for attempt_id in attempt_ids:
                end_group(f"{home}/{attempt_id}")
        for live, fd in lost:
            attempt_id = live.launch.attempt_id
            self._take([_lost(live, rest, began=attempt_id not in never_began)])
            # Where the disk did not take the mark, our lock is what keeps a late start away.
            if fd >= 0 and attempt_id in revoked:
                os.close(fd)


class _Link:
    """The socket to one supervisor process, and the thread that listens to it."""

    def __init__(
        self,
        doorbell: tuple[str, str],
        take: Callable[[Iterable[Ended]], None],
        died: Callable[[_Link], None],
    ) -> None:
        self._take = take
        self._died = died
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._gone = False
        self._socket, theirs = socket.socketpair()
        self._wake_read, self._wake_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _program(), *doorbell],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # A terminal or a pipe of ours must not stay open as long as it lives.
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            self._release()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="supervisor", daemon=True)
        self._thread.start()

    def send(self, message: bytes) -> bool:
        """Send, or queue what does not fit now. False where the supervisor has gone."""
        with self._lock:
            if self._gone:
                return False
            if not self._unsent:
                try:
                    message = message[self._socket.send(message) :]
                except BlockingIOError:
                    pass
                except OSError:
                    return False
            if message:
                self._unsent += message
                os.write(self._wake_write, b"!")
        return True

    def close(self) -> None:
        """Send what is queued, within a second, and hang up."""
        deadline = time.monotonic() + _FLUSH_S
        while self._unsent and not self._gone and time.monotonic() < deadline:
            time.sleep(0.005)
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def wait_gone(self, timeout_s: float) -> None:
        """Wait until the supervisor's process has ended."""
        self._thread.join(timeout_s)

    def _listen(self) -> None:
        rest = b""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        while True:
            poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = dict(poller.poll())
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            if self._unsent:
                self._flush()
            try:
                chunk = self._socket.recv(262144)
            except BlockingIOError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                self._take([Ended(**json.loads(line)["ended"]) for line in lines])
        with self._lock:
            self._gone = True
        self._died(self)
        self._release()
        self._process.wait()  # It may live for hours, and we with it; nobody waits for this thread.

    def _flush(self) -> None:
        with self._lock:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                pass
            except OSError:
                self._unsent.clear()

    def _release(self) -> None:
        with self._lock:
            self._gone = True
            self._socket.close()
            os.close(self._wake_read)
            os.close(self._wake_write)


def _program() -> str:
    """What the supervisor's interpreter runs: without site-packages, so that it starts quickly."""
    places = [str(Path(__file__).resolve().parents[3])]
    if not sys.platform.startswith("linux"):
        import psutil

        places.append(str(Path(psutil.__file__).resolve().parent.parent))
    return f"import sys; sys.path += {places!r}\nfrom parallel_agents.scheduler.runners.supervisor import main; main()"


def _wish(live: _Live) -> dict[str, Any]:
    """How a supervisor is asked to end an attempt."""
    assert live.stop is not None
    wish: dict[str, Any] = {"timed_out": live.stop[0], "grace_s": live.stop[1]}
    return wish if live.why is None else {**wish, "why": live.why}


def _ask_to_stop(folder: str, wish: dict[str, Any]) -> None:
    """Leave a wish in the attempt's folder and wake its supervisor, who has no dispatcher that could tell it."""
    with contextlib.suppress(OSError):
        write_whole(folder, STOP, json.dumps(wish).encode())
    reach("attempt.stop-left")
    data = read_object(folder, PROCESS)
    if data is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            send_signal(ProcessIdentity.from_dict(data["supervisor"]), signal.SIGUSR1)


def _ended_now(attempt_id: str, outcome: Outcome, error: str, *, retryable: bool = True) -> Ended:
    now_us = time.time_ns() // 1000
    return Ended(attempt_id, outcome, error=error, retryable=retryable, started_at_us=now_us, ended_at_us=now_us)


def _sandboxed(launch: Launch) -> tuple[str, ...]:
    folder, workdir = os.path.abspath(launch.folder), os.path.abspath(launch.workdir)
    return before_command(launch.sandbox, places(workdir, folder, launch.store, launch.attempt_id, launch.env))


def _not_started(attempt_id: str, error: Exception) -> Ended:
    retryable = isinstance(error, OSError)
    ended = _ended_now(attempt_id, "not_started", f"cannot be started: {error}", retryable=retryable)
    return replace(ended, fault="runner") if retryable else ended


def _lost(live: _Live, rest: str, *, began: bool) -> Ended:
    attempt_id = live.launch.attempt_id
    if live.why is not None:
        end = _ended_now(attempt_id, "exited", f"{live.why['error']}{rest}", retryable=False)
        return replace(end, kind=live.why["kind"])
    if live.stop is not None:
        return _ended_now(attempt_id, "timed_out" if live.stop[0] else "stopped", f"stopped{rest}")
    if not began:
        return replace(_ended_now(attempt_id, "lost", "it never began: its dispatcher died first"), began=False)
    why = "its supervisor died before it could say how the attempt ended"
    return replace(_ended_now(attempt_id, "lost", f"the attempt vanished: {why}{rest}"), fault="runner")
